"""A triple's slot is freed once, whoever gives the triple up and whenever."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mpc_ray.channel import Message
from mpc_ray.endpoint.config import PartyConfig
from mpc_ray.endpoint.triples import CLOSE_S, MEET_S, Triples
from mpc_ray.errors import ChannelError, CheatingDetected, InputError, MpcError, PeerLost, Unavailable

NAME = bytes(range(16))
DIGEST = "ab" * 32
GATEWAY = "gateway/gw"


class Owner:
    """A gateway's link."""


class FakeSlot:
    """Answers every command; ``during`` is called while it computes a run."""

    def __init__(self) -> None:
        self.name = "slot"
        self.during: Callable[[], object] = lambda: None
        self.told: list[str] = []
        self.waits: list[float] = []

    def packet(self, content: Any, files: Any = ()) -> bool:
        self.told.append(content["do"])
        return True

    def ask(self, message: Message, timeout_s: float) -> Message:
        self.told.append(str(message.header["cmd"]))
        self.waits.append(timeout_s)
        if message.header["cmd"] == "run":
            self.during()
            return Message(
                {"ok": True, "scale": 18, "rounds": 1, "jobs": [{"checks": []}]}, {"0/output": np.ones(2)}
            )
        return Message({"ok": True})

    def tell(self, message: Message) -> None:
        self.told.append(f"load {message.header['model']}")

    def hear(self, timeout_s: float) -> Message:
        return Message({"ok": True})


class World:
    """A ``Triples`` over one fake slot; ``freed`` says how the slot came back."""

    def __init__(self, others: tuple[str, ...] = (), **settings: Any) -> None:
        self.slot = FakeSlot()
        self.freed: list[str] = []
        self.refusal: Exception | None = None
        self.finished: list[bool] = []
        identity = SimpleNamespace(certificate=Path("c"), key=Path("k"), authority=Path("a"))
        records = [SimpleNamespace(peer=f"127.0.0.1:{port}") for port in (1, 2, 3)]
        standing: Any = SimpleNamespace(me=0, set="eu", identity=identity, records=records, uris={})
        standing.gateways = frozenset((GATEWAY, *others))
        slots: Any = SimpleNamespace(
            take=lambda name: self.slot,
            drop=lambda slot: self.freed.append("dropped"),
            give_back=lambda slot: self.freed.append("given back"),
        )
        models: Any = SimpleNamespace(
            find=lambda name: None, message=lambda name: (DIGEST, Message({"model": name}, {}))
        )
        jobs: Any = SimpleNamespace(take=self._take, finished=lambda ids, done: self.finished.append(done))
        self.triples = Triples(
            PartyConfig(folder=Path("x"), **settings), lambda: standing, slots, models, jobs
        )

    def open(
        self,
        owner: object,
        models: tuple[str, ...] = ("tiny",),
        *,
        name: bytes = NAME,
        gateway: str = GATEWAY,
        timeout_s: float = 5.0,
    ) -> None:
        self.triples.open(name, models, timeout_s, owner, gateway, "")

    def run(self, owner: object) -> Message:
        return self.triples.run(NAME, ["11" * 16], 0, owner, GATEWAY, "")

    def _take(self, ids: Any, attempt: int, gateway: str, fits: Any) -> list[Any]:
        if self.refusal is not None:
            self.slot.during()
            raise self.refusal
        authorisation = SimpleNamespace(
            model="tiny", model_digest=DIGEST, output="embedding", range_check=True, batch=1, length=8,
            digest=lambda: os.urandom(32),
        )  # fmt: skip
        parcel = Message({"shares": {}, "seeds": {}}, {})
        sealed = lambda said, me: np.zeros(4, np.uint8)  # noqa: E731
        return [SimpleNamespace(authorisation=authorisation, parcel=parcel, sealed=sealed)]


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("aborted", [False, True])
def test_a_link_that_ends_just_as_its_run_does_keeps_no_slot(world: World, aborted: bool) -> None:
    """The run has its answer already: it is nobody else who gives the triple up."""
    owner = Owner()
    world.open(owner)
    world.slot.during = lambda: world.triples.abort(NAME, GATEWAY) if aborted else world.triples.left(owner)
    world.run(owner)
    assert world.freed == ["dropped"] and "abort" in world.slot.told
    world.triples.left(owner)
    with pytest.raises(ChannelError) as caught:
        world.run(owner)
    assert caught.value.code == "unknown_triple" and world.freed == ["dropped"]


def test_a_link_that_ends_while_a_run_is_refused_keeps_no_slot(world: World) -> None:
    owner = Owner()
    world.open(owner)
    world.slot.during, world.refusal = lambda: world.triples.left(owner), InputError("no such job")
    with pytest.raises(InputError):
        world.run(owner)
    assert world.freed == ["dropped"]


def test_a_link_that_ends_while_its_triple_opens_keeps_no_slot(world: World) -> None:
    owner = Owner()
    world.triples.left(owner)
    with pytest.raises(ChannelError) as caught:
        world.open(owner)
    assert caught.value.code == "aborted" and world.freed == ["dropped"]


@pytest.mark.parametrize(
    ("found", "told", "done"),
    [
        (CheatingDetected("a false claim", (1,)), CheatingDetected, True),
        (PeerLost("gateway", "the triple was given up"), ChannelError, False),
    ],
)
def test_an_abort_does_not_hide_that_a_party_cheated(
    world: World, found: MpcError, told: type[MpcError], done: bool
) -> None:
    """A cheater that answers first has its gateway abort the parties that are about to tell on it."""
    owner = Owner()
    world.open(owner)

    def during() -> None:
        world.triples.abort(NAME, GATEWAY)
        raise found

    world.slot.during = during
    with pytest.raises(told) as caught:
        world.run(owner)
    assert type(caught.value) is told and world.finished == [done] and world.freed == ["dropped"]
    assert (caught.value is found) is done


def test_a_triple_that_is_idle_ends_well(world: World) -> None:
    owner = Owner()
    world.open(owner)
    world.run(owner)
    world.triples.left(owner)
    assert world.freed == ["given back"] and world.finished == [True]


def test_a_model_that_is_named_often_is_loaded_once(world: World) -> None:
    world.open(Owner(), ("tiny", "other", "tiny"))
    assert [word for word in world.slot.told if word.startswith("load")] == ["load other", "load tiny"]


@pytest.mark.parametrize(
    ("slots", "others", "said", "most"),
    [
        (3, (), 0, 3),
        (3, ("gateway/b",), 0, 2),
        (3, tuple(f"gateway/{i}" for i in range(9)), 0, 1),
        (3, ("gateway/b",), 3, 3),
    ],
)
def test_one_gateway_does_not_hold_the_slots_of_all(
    slots: int, others: tuple[str, ...], said: int, most: int
) -> None:
    world = World(others, slots=slots, limits={"gateway_slots": said})
    names = [os.urandom(16) for _ in range(most + 1)]
    for name in names[:most]:
        world.open(Owner(), name=name)
    with pytest.raises(Unavailable, match=f"holds {most} of this party's slots") as caught:
        world.open(Owner(), name=names[-1])
    assert caught.value.code == "no_slot" and caught.value.retry_after_s
    assert world.freed == ["given back"]
    world.open(Owner(), name=os.urandom(16), gateway="gateway/b")
    world.triples.abort(names[0], GATEWAY)
    world.open(Owner(), name=names[-1])


def test_peers_are_waited_for_no_longer_than_they_need() -> None:
    """A gateway that opens a triple at one party alone holds its slot for so long."""
    world = World()
    world.open(Owner(), timeout_s=600.0)
    assert world.slot.waits == [MEET_S + CLOSE_S]
