"""A running party's own places: a lock on its folder, and a private folder with a short path for sockets and Ray."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TextIO

from mpc_ray.endpoint.sweep import sweep
from mpc_ray.errors import ConfigError, NotNow

LONGEST_BASE = 18  # what Ray's socket paths, of at most 107 bytes, leave for the temporary folder


def alone(folder: Path) -> TextIO:
    """A lock that says: this party runs. Close it to let go. NotNow if another process has it, maybe one that ends."""
    try:
        file = (folder / "party.lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {error.strerror}", remedy="run as the user whose folder it is"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise NotNow(
            f"another mpc-ray party runs on {folder}", remedy="stop it, or give this one a folder of its own"
        ) from None
    return file


def make_home(folder: Path) -> Path:
    """A new private folder, mode 0700. What an earlier front of the same party left behind is ended and removed first.

    Call it under the lock of ``alone``: what is found is nobody's then.
    """
    mark = "m" + hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:6]
    base = Path(tempfile.gettempdir())
    base = base if len(os.fsencode(base)) <= LONGEST_BASE else Path("/tmp")
    for old in base.glob(f"{mark}????????"):
        if old.is_dir() and not old.is_symlink() and old.stat().st_uid == os.geteuid():
            sweep(str(old))
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=mark, dir=base))
