"""The front of a party: its two ports, its keys and policy, and the triples that its slots are part of.

No Ray and no secret arithmetic here. Peers' connections are handed to the slot of their session before TLS
(``peers.py``); gateways' commands are answered by ``gateways.py``. Addresses and names of others come from this party's
own signed directory and from nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import threading
import time
from typing import Any

import mpc_ray
from mpc_ray.endpoint.config import PartyConfig
from mpc_ray.endpoint.gateways import Gateways
from mpc_ray.endpoint.home import alone, make_home
from mpc_ray.endpoint.hosting import Hosting
from mpc_ray.endpoint.jobs import Bounds, Jobs
from mpc_ray.endpoint.models import Models
from mpc_ray.endpoint.peers import Peers
from mpc_ray.endpoint.said import unbroken
from mpc_ray.endpoint.slots import Slots
from mpc_ray.endpoint.standing import Standing, Watch
from mpc_ray.endpoint.triples import Triples
from mpc_ray.errors import MpcError
from mpc_ray.telemetry import metrics
from mpc_ray.trust.folder import open_folder
from mpc_ray.trust.replay import ReplayJournal, time_ms
from mpc_ray.trust.secret import no_core_dumps

log = logging.getLogger("mpc_ray.endpoint.front")

LOOK_S = 1.0
SWEEP_S = 300.0


class Front:
    """One party endpoint, listening and serving until ``close``. Raises what is wrong with its settings or folder.

    ``failed`` is set, with ``error``, when it cannot go on.
    """

    def __init__(self, config: PartyConfig) -> None:
        no_core_dumps()
        self.config = config
        self.error: MpcError | None = None
        self.failed = threading.Event()
        self.instance = secrets.token_bytes(16)
        self._closing = contextlib.ExitStack()
        self._over = threading.Event()
        with contextlib.ExitStack() as undo:
            undo.callback(self._closing.close)
            self._make(undo)
            undo.pop_all()
        self.peers.start()
        threading.Thread(target=self._look_at_models, name="models", daemon=True).start()
        threading.Thread(target=self._keep_house, name="housekeeping", daemon=True).start()

    def _make(self, undo: contextlib.ExitStack) -> None:
        """All parts, in the order in which they need each other; what was made is closed in the reverse order."""
        config, closing = self.config, self._closing
        self._watch = Watch(config.folder, self._renewed)
        standing = self._watch.now
        self.me, self.set = standing.me, standing.set
        self._only = closing.enter_context(alone(config.folder))
        home = make_home(config.folder)
        closing.callback(shutil.rmtree, home, ignore_errors=True)
        self.slots = Slots(self.me, home / "slots", self._slot_lost)
        closing.callback(self.slots.close)
        self.models = Models(config.folder)
        journal = ReplayJournal(config.folder / "journal.sqlite")
        closing.callback(journal.close)
        self._journal = journal
        self.jobs = Jobs(
            self.me,
            lambda: self.standing,
            open_folder(config.folder).clients(),
            journal,
            config.policy,
            config.protocol,
            self.models.find,
            Bounds(config.limits.held_bytes, config.limits.envelope_bytes),
        )
        self.triples = Triples(config, lambda: self.standing, self.slots, self.models, self.jobs)
        # Ports before Ray: what is wrong with them should not take seconds to be said.
        self.peers = Peers(
            config.peer.host,
            config.peer.port,
            standing,
            config.agreed(),
            self.instance,
            self.slots,
            self._said,
            self._fail,
        )
        closing.callback(self.peers.close)
        self.gateways = Gateways(config.gateway, config.limits, standing, self)
        closing.callback(self.gateways.close)
        self.hosting = Hosting(config, self.set, self.me, home, self.slots, self._fail)
        closing.callback(self.hosting.close)
        _tell_ends(standing)

    @property
    def standing(self) -> Standing:
        """Certificate, keys and directory as they are now."""
        return self._watch.now

    def status(self) -> dict[str, Any]:
        """All that a gateway may know of this party without a triple."""
        total, free = self.slots.counts()
        waiting = self.waiting()
        return {
            "ok": True,
            "party": self.me,
            "set": self.set,
            "version": mpc_ray.__version__,
            "ready": not waiting,
            "waiting": waiting,
            "models": [known.to_json() for known in self.models.list()],
            "slots": {"total": total, "free": free},
            "protocol": self.config.protocol,
            "certificate_not_after": int(self.standing.not_after),
            "time_ms": time_ms(),
            "instance": self.instance.hex(),
        }

    def waiting(self) -> list[str]:
        """What this party waits for before it can be part of a triple; empty when it is ready."""
        waits = []
        if not self.slots.counts()[0]:
            starting = (
                "Ray is starting" if self.config.host == "ray" and not self.hosting.said else "starting"
            )
            waits.append(f"slots: {self.hosting.why or starting}")
        if not self.models.looked:
            waits.append("models: being read")
        elif not self.models.list():
            waits.append("models: none here yet (mpc-ray model import FILE --party FOLDER)")
        try:
            self.standing.current()
        except MpcError as error:
            waits.append(f"directory: {error.cause}")
        waits += self.peers.waiting()
        if not waits:
            self.peers.strict = False  # from now on others' mistakes end nothing here
        return waits

    def close(self) -> None:
        """End everything: ports, slots, the host and its Ray. Seconds at most."""
        self._over.set()
        self._closing.close()

    def _renewed(self, standing: Standing) -> None:
        self.gateways.renew(standing)
        self.peers.renew(standing)
        _tell_ends(standing)

    def _said(self) -> dict[str, Any]:
        """What the other fronts are told."""
        return {
            "instance": self.instance.hex(),
            "serial": self.standing.directory.serial,
            "models": {known.info.name: known.info.digest for known in self.models.list()},
        }

    def _slot_lost(self, slot: str) -> None:
        self.triples.lost(slot)
        self.hosting.lost(slot)

    def _fail(self, error: MpcError) -> None:
        if not self.failed.is_set():
            self.error = error
            self.failed.set()

    def _looked_at_directory(self, before: bool) -> bool:
        """Whether the directory holds still; its end is logged once."""
        try:
            self.standing.current()
        except MpcError as error:
            if before:
                log.error("%s", error)
            return False
        return True

    def _look_at_models(self) -> None:
        while True:
            with unbroken(log):
                self.models.look()
            if self._over.wait(LOOK_S):
                return

    def _keep_house(self) -> None:
        swept, current = 0.0, True
        while not self._over.wait(LOOK_S):
            with unbroken(log):
                self._watch.look()
            current = self._looked_at_directory(current)
            self.jobs.sweep()
            metrics.held("envelopes", self.jobs.held_bytes)
            if time.monotonic() - swept > SWEEP_S:
                swept = time.monotonic()
                with unbroken(log):
                    self._journal.sweep()


def _tell_ends(standing: Standing) -> None:
    """When this party's certificate and its directory end, for the metrics."""
    place = f"{standing.set}/{standing.me}"
    metrics.certificate(place, standing.not_after)
    metrics.certificate(f"{place}/directory", standing.directory.expires)
