"""Files that are whole or not there."""

import os
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that at any moment it is the old one or the whole new one.

    Written beside its place, forced to the disk, then moved over it; text is UTF-8. A process
    killed half-way leaves the old file, and beside it a hidden one, `.NAME.PID.part`.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
