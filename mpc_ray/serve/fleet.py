"""How the three parties of a set are, as their fronts say: asked about once a second, and what all three agree on.

A model may be used if every party has it under the same digest of its public record. A party that does not answer
twice in a row, or answers as another instance than before, has lost whatever it held for us: the leader is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mpc_ray.channel.link import Message
from mpc_ray.channel.packed import finite
from mpc_ray.config import RUNS_ONCE
from mpc_ray.errors import ConfigError, MpcError
from mpc_ray.serve.links import Front
from mpc_ray.telemetry import metrics

log = logging.getLogger("mpc_ray.serve.triple")

MISSED = 2
"""Answers in a row that a party may fail to give before it counts as lost."""


@dataclass(frozen=True)
class PartyState:
    """What a gateway knows of a party. ``certificate_not_after``: POSIX seconds, 0 unknown. ``why``: the last error.
    ``free``: slots that a new triple may take. ``protocol``: what it says it computes under.
    """

    party: int
    ready: bool = False
    version: str = ""
    certificate_not_after: float = 0.0
    instance: str = ""
    missed: int = 0
    why: str = "not asked yet"
    models: Mapping[str, Mapping[str, Any]] | None = None
    free: int = 1
    protocol: str = ""

    def public(self) -> dict[str, Any]:
        """What a gateway says of the party."""
        return {
            "party": self.party,
            "ready": self.ready,
            "version": self.version,
            "certificate_not_after": self.certificate_not_after,
            "why": self.why,
        }


class Fleet:
    """The three parties of ``set_name``. ``wanted`` limits the models; empty: all that the three share.

    ``on_lost(party, why, again)`` is called when a party has gone, or (``again``) is a new instance of itself;
    ``on_models()`` when the models that may be used are others than before.
    """

    def __init__(
        self,
        set_name: str,
        fronts: Sequence[Front],
        wanted: frozenset[str],
        *,
        every_s: float = 1.0,
    ) -> None:
        self.set = set_name
        self.fronts = tuple(fronts)
        self.parties = [PartyState(front.party) for front in fronts]
        self.models: dict[str, dict[str, Any]] = {}
        self.differing: dict[str, list[str]] = {}
        self._wanted = wanted
        self._every_s = every_s
        self.on_lost: Callable[[int, str, bool], object] = lambda party, why, again: None
        self.on_models: Callable[[], object] = lambda: None

    def digests(self) -> dict[str, str]:
        """The models that may be used, with their digests."""
        return {name: str(model["digest"]) for name, model in self.models.items()}

    @property
    def runs_again(self) -> bool:
        """Whether a job that lost its triple may run once more: not if a party says that its protocol forbids it."""
        return all(state.protocol not in RUNS_ONCE for state in self.parties)

    def why_not(self) -> str:
        """Why no triple can be opened now, for people: a party is not ready, or no model is common. "" if one can."""
        for state in self.parties:
            if not state.ready:
                return f"party {state.party} of set {self.set}: {state.why}"
            if not state.free:
                return f"party {state.party} of set {self.set}: none of its slots is free"
        return "" if self.models else f"the three parties of set {self.set} have no model in common"

    async def watch(self) -> None:
        """Ask all three again and again, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Ask all three once. Raises nothing: what failed is in ``parties``."""
        timeout = max(1.0, 2 * self._every_s)
        asked = (front.control.ask({"cmd": "status"}, timeout=timeout) for front in self.fronts)
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        for party, outcome in enumerate(outcomes):
            self._note(party, outcome)
        self._agree()

    def _note(self, party: int, outcome: Message | BaseException) -> None:
        before = self.parties[party]
        if isinstance(outcome, MpcError):
            why = outcome.cause.removeprefix(f"party {party}: ")
            if isinstance(outcome, ConfigError):  # of our own folder: callers need not know our files
                why = "this gateway's own certificate or key cannot be used; its log says why"
                if why != before.why:
                    log.warning("set %s: party %d is not dialled: %s", self.set, party, outcome)
            missed = before.missed + 1
            gone = missed >= MISSED or not before.instance
            self.parties[party] = replace(before, missed=missed, why=why, ready=before.ready and not gone)
            if missed == MISSED and before.instance:
                self._tell(party, why, again=False)
            return
        if isinstance(outcome, BaseException):
            raise outcome
        state = read_status(party, self.set, outcome.header)
        if state.certificate_not_after:
            metrics.certificate(f"{self.set}/{party}", state.certificate_not_after)
        self.parties[party] = state
        if before.instance and state.instance != before.instance:
            self._tell(party, "it was started again", again=True)

    def _tell(self, party: int, why: str, *, again: bool) -> None:
        log.warning("set %s: party %d is lost: %s", self.set, party, why)
        self.on_lost(party, why, again)

    def _agree(self) -> None:
        known = [state.models for state in self.parties]
        if any(models is None for models in known):
            return
        models, differing = agreed([models for models in known if models is not None], self._wanted)
        if differing and differing != self.differing:
            for name, digests in differing.items():
                log.warning(
                    "set %s: model %s is not the same at all parties: %s", self.set, name, ", ".join(digests)
                )
        changed = models != self.models
        self.models, self.differing = models, differing
        if changed:
            self.on_models()


def read_status(party: int, set_name: str, header: Mapping[str, Any]) -> PartyState:
    """A party's answer to ``status``. Nothing in it is trusted to have the right type."""
    if header.get("party") != party or header.get("set") != set_name:
        return PartyState(
            party, instance=_text(header, "instance"), why="it says that it is another party or set"
        )
    waiting = header.get("waiting")
    reasons = [str(reason)[:200] for reason in waiting] if isinstance(waiting, list) else []
    ready = header.get("ready") is True
    slots = header.get("slots")
    free = slots.get("free") if isinstance(slots, dict) else None
    known: dict[str, Mapping[str, Any]] = {}
    listed = header.get("models")
    for model in listed if isinstance(listed, list) else []:
        if (
            isinstance(model, dict)
            and isinstance(model.get("name"), str)
            and isinstance(model.get("digest"), str)
        ):
            known[model["name"]] = model
    return PartyState(
        party,
        ready,
        _text(header, "version"),
        finite(header.get("certificate_not_after")),
        _text(header, "instance"),
        0,
        "" if ready else "not ready: " + ("; ".join(reasons[:3]) or "it does not say why"),
        known,
        free if isinstance(free, int) else 1,
        _text(header, "protocol"),
    )


def agreed(
    known: Sequence[Mapping[str, Mapping[str, Any]]], wanted: frozenset[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """(models that all have under one digest: name, digest, lengths, hidden; names whose digests differ, or that a
    party lacks: what each has). ``wanted`` limits both.
    """
    models: dict[str, dict[str, Any]] = {}
    differing: dict[str, list[str]] = {}
    for name in sorted(set().union(*known)):
        if wanted and name not in wanted:
            continue
        each = [models_of.get(name) for models_of in known]
        digests = [str(one["digest"]) if one is not None else "missing" for one in each]
        first = each[0]
        if first is None or len(set(digests)) > 1:
            differing[name] = [digest[:12] for digest in digests]
            continue
        lengths = first.get("lengths")
        hidden = first.get("hidden")
        models[name] = {
            "name": name,
            "digest": digests[0],
            "lengths": [int(n) for n in lengths if isinstance(n, int)] if isinstance(lengths, list) else [],
            "hidden": hidden if isinstance(hidden, int) else 0,
        }
    return models, differing


def _text(header: Mapping[str, Any], name: str) -> str:
    value = header.get(name)
    return "".join(c for c in value[:64] if c.isprintable()) if isinstance(value, str) else ""
