"""Files for their owner alone, those too that were there before with a wider mode."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def open_private(path: Path, flags: int) -> int:
    """A descriptor of ``path``, made if it is missing, of mode 0600; ``flags`` as for ``os.open``.

    Of a file that others may read or write the mode is narrowed. OSError where that cannot be: it is somebody else's.
    What is no file (/dev/stderr, a pipe) is opened as it is.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def narrow(path: Path) -> None:
    """Take a file, if it is there, from everybody but its owner, without opening it. OSError as above."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o600)
