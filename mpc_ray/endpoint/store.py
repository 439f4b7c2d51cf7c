"""The models of one party, encrypted at rest: its shares of the weights, under a key of this operator's own.

    FOLDER/store/NAME.model     a ``trust.atrest`` file with the packed load message
    FOLDER/at-rest.key          the key that wraps each file's data key, made with the first import

Whoever has the files without the key learns names, sizes and digests of public records.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mpc_ray.channel.packed import DEFAULT_MAX_BYTES, Message, unpack_from
from mpc_ray.errors import ConfigError, ModelError, SealError
from mpc_ray.models.share_file import MAGIC, PURPOSE, STORED_MAGIC, ShareHeader, copy_message
from mpc_ray.trust import atrest, canonical, files
from mpc_ray.trust.atrest import FileKeys
from mpc_ray.trust.folder import Folder, open_folder
from mpc_ray.trust.hpke import open_sealed
from mpc_ray.trust.records import PartyRecord
from mpc_ray.trust.secret import Secret

SUFFIX = ".model"


@dataclass(frozen=True)
class ModelInfo:
    """One model of a store. ``digest``: of its public record, hex; ``bytes``: of its file; ``weights``: "secret" or
    "public"."""

    name: str
    digest: str
    lengths: tuple[int, ...]
    hidden: int
    bytes: int
    weights: str


class ModelStore:
    """The store in a party's folder. Several processes may use it; nothing of a model is kept in memory."""

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    @property
    def _store(self) -> Path:
        return self.folder / "store"

    @property
    def _keys(self) -> Path:
        return self.folder / "at-rest.key"

    def import_file(self, path: Path, *, replace: bool = False) -> ModelInfo:
        """Take a share file in: opened with this party's HPKE keys, checked, encrypted anew. Memory: a few MiB.

        Raises SealError for another party's, a truncated or a changed file, ModelError for one that is not what it
        says, ConfigError if the store has a model of that name (unless ``replace``) or cannot be written. What was
        there before stays unless it returns.
        """
        opened, record = open_party(self.folder)
        source = path.name
        with _reading(path) as file:
            head = atrest.read_head(file, MAGIC, source)
            said = ShareHeader.decode(head.header, source)
            federation = opened.directory().federation
            if (said.federation, said.place) != (federation, record.place):
                raise SealError(
                    f"{source} is the share of party {said.place} of {said.federation}; "
                    f"this is {record.place} of {federation}",
                    remedy="import this party's own file",
                )
            private = opened.keys()

            def unwrap(wrapped: bytes, context: bytes) -> Secret:
                return Secret(open_sealed(wrapped, private, PURPOSE, context))

            reader = atrest.body(file, head, unwrap, source)
            files.make_folder(self._store)
            with files.locked(self._store):
                self._sweep()
                target = self._path(said.name)
                if target.exists() and not replace:
                    raise ConfigError(
                        f"the store has a model {said.name}",
                        remedy="remove it first, or import with --replace",
                    )
                with atrest.whole_file(target) as out:
                    writer = atrest.begin(out, STORED_MAGIC, head.header, self._provider(create=True).wrap)
                    copy_message(reader, writer, said, source)
                    writer.finish()
        return self.info(said.name)

    def list(self) -> list[ModelInfo]:
        """All models, by name. Raises SealError naming a file whose head does not belong to this party's key."""
        names = sorted(path.name for path in self._store.glob(f"*{SUFFIX}"))
        return [self.info(name.removesuffix(SUFFIX)) for name in names]

    def info(self, name: str) -> ModelInfo:
        """One model. Raises ModelError if it is not there, SealError if its head was changed."""
        with self._open(name) as file:
            said, head = self._head(file, name)
            self._provider().unwrap(head.wrapped, head.context)
            size = os.fstat(file.fileno()).st_size
        return ModelInfo(said.name, said.digest, said.lengths, said.hidden, size, said.weights)

    def message(self, name: str) -> Message:
        """The load message, without a job. Memory: all of the share, the caller's to let go of as soon as it is sent.

        Raises ModelError if there is none, SealError if the file was changed or truncated.
        """
        source = f"stored model {name}"
        with self._open(name) as file:
            _, head = self._head(file, name)
            reader = atrest.body(file, head, self._provider().unwrap, source)
            message = unpack_from(reader.fill, self.max_bytes, source)
            reader.finish()
        return message

    def remove(self, name: str) -> None:
        """Delete a model. Its data key is overwritten first, for disks that write in place. Raises ModelError."""
        with self._open(name) as file, files.locked(self._store):
            with contextlib.suppress(SealError):  # a damaged file goes too
                _, head = self._head(file, name)
                _overwrite(self._path(name), file.tell() - len(head.wrapped), len(head.wrapped))
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        if canonical.MODEL.fullmatch(name) is None:
            raise ModelError(f"no model is called {name[:40]!r}", remedy="mpc-ray model list shows names")
        return self._store / f"{name}{SUFFIX}"

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        path = self._path(name)
        if not path.exists():
            raise ModelError(
                f"the store has no model {name}",
                remedy="mpc-ray model list --party FOLDER shows what it has; model import adds one",
            )
        with _reading(path) as file:
            yield file

    def _head(self, file: BinaryIO, name: str) -> tuple[ShareHeader, atrest.Head]:
        source = f"stored model {name}"
        head = atrest.read_head(file, STORED_MAGIC, source)
        said = ShareHeader.decode(head.header, source)
        if said.name != name:
            raise SealError(f"{source} is the file of {said.name}", remedy="put the files' names back")
        return said, head

    def _provider(self, create: bool = False) -> FileKeys:
        if create and not self._keys.exists() and not any(self._store.glob(f"*{SUFFIX}")):
            return FileKeys.create(self._keys)
        return FileKeys.load(self._keys)

    def _sweep(self) -> None:
        """Remove what an import left that was killed. Only under the lock: another import's file is not swept."""
        for path in self._store.glob(f".*{SUFFIX}.*"):
            path.unlink(missing_ok=True)


def open_party(folder: Path) -> tuple[Folder, PartyRecord]:
    """A party's folder, and what the party says of itself. ConfigError if it is nobody's, or a gateway's."""
    opened = open_folder(folder)
    record = opened.record
    if not isinstance(record, PartyRecord):
        raise ConfigError(f"{folder} is a gateway's folder", remedy="name the folder of a party")
    return opened, record


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", remedy="check the path") from None
    with file:
        yield file


def _overwrite(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(length))
        file.flush()
        os.fsync(file.fileno())
