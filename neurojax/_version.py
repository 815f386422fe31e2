"""The version, which stands in `pyproject.toml` alone."""

from importlib import metadata

try:
    __version__ = metadata.version("neurojax")
except metadata.PackageNotFoundError:  # a source tree on the path
    __version__ = "unknown"
