"""Files that hold keys: refused when others may read them, written whole or not at all, and synced."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mpc_ray.errors import ConfigError

MAX_BYTES = 1 << 20


def make_folder(path: Path) -> Path:
    """A folder for keys, mode 0700. One that exists is refused if others may enter it (``ConfigError``)."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _failed(path, "cannot be made", error) from None
    check_folder(path)
    return path


def check_folder(path: Path) -> None:
    """``ConfigError`` unless ``path`` is a folder of this user's (or root's) that nobody else may enter."""
    try:
        found = path.stat()
    except OSError as error:
        raise _failed(path, "cannot be read", error) from None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{path} is not a folder", remedy="name the folder that mpc-ray certs request made")
    _check_mode(path, found, "0700")


def read_private(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """A key file's content. ``ConfigError`` if it is missing, too long, or others may read it.

    The mode is that of the file that was opened, so a swap between check and read gains nothing.
    """
    return _read(path, max_bytes, private=True)


def read_public(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """A file's content whatever its mode. ``ConfigError`` if it is missing or longer than ``max_bytes``."""
    return _read(path, max_bytes, private=False)


def write_private(path: Path, data: bytes) -> None:
    """Write ``path`` with mode 0600, whole or not at all, on disk before it returns. ``ConfigError`` if it fails."""
    _write(path, data, 0o600)


def write_public(path: Path, data: bytes) -> None:
    """The same, readable by all."""
    _write(path, data, 0o644)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time changes this folder: waits for its turn. A process that dies lets go."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _failed(folder, "cannot be locked", error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """What was renamed in this folder is on disk when this returns. ``OSError`` if it cannot be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, max_bytes: int, *, private: bool) -> bytes:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if private:
                _check_mode(path, found, "0600")
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise _failed(path, "cannot be read", error) from None
    if len(data) > max_bytes:
        raise ConfigError(f"{path} has more than {max_bytes} bytes", remedy="it is not such a file")
    return data


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise _failed(path, "cannot be written", error) from None
        raise


def _check_mode(path: Path, found: os.stat_result, most: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise ConfigError(
            f"{path} has mode {mode:04o}: others on this machine may read it", remedy=f"chmod {most} {path}"
        )
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"{path} belongs to another user", remedy=f"chown it to the user who runs this: {path}"
        )


def _failed(path: Path, what: str, error: OSError) -> ConfigError:
    return ConfigError(f"{path} {what}: {error.strerror}", remedy="check the path and who owns it")
