"""Experiments: each module is one frozen configuration and a `main`, composed from the library."""

import os
import sys

# `python -m experiments.X` comes here first, before seconds of imports, and calls itself "-m".
if sys.argv[:1] == ["-m"] and any("experiments." in word for word in sys.orig_argv):
    from experiments import _signals

    _signals.listen()
    # On a busy machine XLA writes pages about what took a second; errors come as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
