"""Keep what other packages log out of the user's terminal."""

import contextlib
import warnings
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it, absl logs errors only and warnings are dropped; both come back after."""
    level = logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.set_verbosity(logging.ERROR)
        try:
            yield
        finally:
            logging.set_verbosity(level)
