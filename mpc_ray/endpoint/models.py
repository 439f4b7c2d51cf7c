"""The models that a party can compute: what it knows of each without its share, read anew when its store changes."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpc_ray.channel.packed import Message
from mpc_ray.endpoint.said import coded
from mpc_ray.endpoint.store import SUFFIX, ModelInfo, ModelStore
from mpc_ray.errors import ModelError, Unavailable
from mpc_ray.models.plan import EncoderPlan
from mpc_ray.models.public import tables_of
from mpc_ray.models.record import from_record

log = logging.getLogger("mpc_ray.endpoint.models")


@dataclass(frozen=True)
class Known:
    """A model of the store and its public plan, by which jobs are judged."""

    info: ModelInfo
    plan: EncoderPlan = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """What ``status`` says of it."""
        info = self.info
        return {
            "name": info.name,
            "digest": info.digest,
            "lengths": list(info.lengths),
            "hidden": info.hidden,
        }


class Models:
    """The models of ``folder``'s store. Any thread may use it."""

    def __init__(self, folder: Path) -> None:
        self._store = ModelStore(folder)
        self._folder = folder / "store"
        self._lock = threading.Lock()
        self._stamps: dict[str, tuple[int, int, int]] = {}
        self._known: dict[str, Known] = {}
        self.looked = False

    def look(self) -> None:
        """Read what is new or changed, one model at a time: each takes the memory of its share for a moment.

        A file that cannot be read is logged, and its model is not offered.
        """
        with self._lock:
            found = self._look()
            for name in self._stamps.keys() - found.keys():
                self._known.pop(name, None)
                log.info("model %s was removed", name)
            for name, stamp in found.items():
                if self._stamps.get(name) == stamp:
                    continue
                try:
                    self._known[name] = self._read(name)
                    log.info("model %s is ready to be loaded", name)
                except Exception as error:  # noqa: BLE001 - somebody else's file: it concerns its own model alone
                    self._known.pop(name, None)
                    log.error("model %s is not offered: %s", name, error)
            self._stamps = found
            self.looked = True

    def list(self) -> list[Known]:
        """All, by name."""
        known = self._known
        return [known[name] for name in sorted(known)]

    def find(self, name: str) -> Known:
        """One of them. ``ModelError`` (``unknown_model``) if it is not here, ``Unavailable`` before they were read."""
        found = self._known.get(name)
        if found is None and not self.looked:
            raise coded(
                Unavailable(
                    "this party starts: it reads its models", remedy="send the job again in a moment"
                ),
                "starting",
            )
        if found is None:
            raise coded(
                ModelError(f"this party has no model {name[:64]}", remedy="ask its operator to import it"),
                "unknown_model",
            )
        return found

    def message(self, name: str) -> tuple[str, Message]:
        """Digest and load message (without a job) of a model. Memory: all of its share."""
        info = self._store.info(name)
        return info.digest, self._store.message(name)

    def _read(self, name: str) -> Known:
        message = self._store.message(name)
        header: dict[str, Any] = message.header
        tables = tables_of(message.tensors)
        return Known(self._store.info(name), from_record(header["record"], tables))

    def _look(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                stat = path.stat()
            except OSError:  # removed while we looked
                continue
            found[path.name.removesuffix(SUFFIX)] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        return found
