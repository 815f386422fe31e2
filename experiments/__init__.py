"""Experiments: each module is one frozen configuration and a `main`, composed from the library."""
