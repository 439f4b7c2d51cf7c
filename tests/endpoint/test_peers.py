"""Fronts find each other, and name within seconds what is wrong: release, settings, authority, clock, a twin."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from cluster import (  # type: ignore[import-not-found]
    FederationFolders,
    free_ports,
    make_federation,
    wait_until,
)

from mpc_ray.channel import Message
from mpc_ray.channel.hello import Digests, Hello, digest
from mpc_ray.endpoint import peers as peers_module
from mpc_ray.endpoint.peers import ASKING, FRONTS, Peers, dial_front, fronts_hello
from mpc_ray.endpoint.slots import Slots
from mpc_ray.endpoint.standing import Standing, read
from mpc_ray.errors import CertificateError, ChannelError, HelloMismatch, MpcError
from mpc_ray.trust.folder import install, open_folder, rotate

AGREED = bytes(range(32))


class NoSlots:
    """A front without slots: every session but the fronts' own is unknown."""

    def of(self, session: bytes) -> None:
        return None


@dataclass
class World:
    """A federation and the peers' parts of fronts that a test starts."""

    federation: FederationFolders
    ports: dict[tuple[str, int], tuple[int, int, int]]
    made: list[Peers] = field(default_factory=list)
    errors: dict[int, list[MpcError]] = field(default_factory=dict)

    def standing(self, index: int) -> Standing:
        return read(self.federation.folders["eu"][index])

    def start(
        self,
        index: int,
        *,
        standing: Standing | None = None,
        agreed: bytes = AGREED,
        port: int | None = None,
        said: Callable[[], dict[str, Any]] = dict,
    ) -> Peers:
        number = len(self.made)
        self.errors[number] = []
        peers = Peers(
            "127.0.0.1",
            self.ports["eu", index][0] if port is None else port,
            standing or self.standing(index),
            agreed,
            os.urandom(16),
            cast(Slots, NoSlots()),
            said,
            self.errors[number].append,
        )
        self.made.append(peers)
        peers.start()
        return peers


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(peers_module, "EVERY_S", 0.1)
    monkeypatch.setattr(peers_module, "DIAL_S", 0.5)
    ports = free_ports(("eu",))
    made = World(make_federation(tmp_path / "f", ("eu",), ports), ports)
    yield made
    for peers in made.made:
        peers.close()


def test_three_find_each_other_in_whatever_order(world: World) -> None:
    first = world.start(1)
    assert wait_until(lambda: all("not reached" in why for why in first.waiting()), 3)
    second = world.start(2)
    assert wait_until(lambda: len(first.waiting()) == 1 and "party 0" in first.waiting()[0], 5)
    third = world.start(0, said=lambda: {"serial": 7})
    assert wait_until(lambda: not any(peers.waiting() for peers in (first, second, third)), 5)
    assert {peer.index: peer.said.get("serial") for peer in first.known()} == {0: 7, 2: None}
    assert not any(world.errors.values())


def test_who_leaves_is_missed_and_found_again(world: World) -> None:
    stays, goes = world.start(0), world.start(1)
    assert wait_until(lambda: stays.known()[0].here and goes.known()[0].here, 5)
    stays.strict = False
    goes.close()
    assert wait_until(lambda: not stays.known()[0].here, 3)
    world.start(1)
    assert wait_until(lambda: stays.known()[0].here, 5)


def test_a_party_that_runs_twice_is_told_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "TWICE_S", 0.5)
    world.start(0)
    one = world.start(1)
    assert wait_until(lambda: one.known()[0].here, 5)
    world.start(1, port=0)  # a copy of the folder on another machine
    assert wait_until(lambda: bool(world.errors[2]), 5)
    assert "already has a connection with party 1" in world.errors[2][0].cause
    assert "stop the other process" in world.errors[2][0].remedy
    assert one.known()[0].here and not world.errors[1]  # the first one goes on


def test_a_restart_takes_its_own_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "TWICE_S", 0.5)
    world.start(0)
    one = world.start(1)
    assert wait_until(lambda: one.known()[0].here, 5)
    one.close()
    again = world.start(1)
    assert wait_until(lambda: again.known()[0].here, 5)
    assert not world.errors[2]


def test_another_release_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.start(0)
    other = Hello(FRONTS, Digests(version=digest(b"0.0.9"), configuration=AGREED))
    monkeypatch.setattr(peers_module, "fronts_hello", lambda configuration: other)
    world.start(1)
    assert wait_until(lambda: bool(world.errors[1]), 5)
    assert isinstance(world.errors[1][0], HelloMismatch)
    assert "version" in world.errors[1][0].cause and "same release" in world.errors[1][0].remedy


def test_other_settings_are_named(world: World) -> None:
    world.start(0)
    world.start(1, agreed=bytes(32)[:31] + b"x")
    assert wait_until(lambda: bool(world.errors[0] and world.errors[1]), 5)
    assert "configuration" in world.errors[1][0].cause


def test_another_authority_is_named_at_both_ends(world: World, tmp_path: Path) -> None:
    other = make_federation(tmp_path / "other", ("eu",), world.ports)
    world.start(0)
    world.start(1, standing=read(other.folders["eu"][1]))
    assert wait_until(lambda: bool(world.errors[0] and world.errors[1]), 5)
    for number in (0, 1):
        error = world.errors[number][0]
        assert isinstance(error, CertificateError) and "another authority" in error.cause


def test_a_party_of_another_set_is_not_ours(tmp_path: Path, world: World) -> None:
    ports = free_ports(("eu", "us"))
    two = make_federation(tmp_path / "two", ("eu", "us"), ports)
    made = World(two, ports)
    try:
        made.start(0)
        stranger = read(two.folders["us"][1])
        with pytest.raises(CertificateError, match="our certificate is not party-1's"):
            dial_front(
                Standing(
                    **{**vars(stranger), "records": made.standing(0).records}  # it dials eu's party 0
                ),
                0,
                fronts_hello(AGREED),
                os.urandom(16),
                timeout=2,
            )
    finally:
        for peers in made.made:
            peers.close()


@pytest.mark.parametrize("hours", [-3, 2])
def test_a_clock_that_is_off_is_named(world: World, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    def wrong() -> dict[str, Any]:
        return {"time_ms": time.time_ns() // 1_000_000 + hours * 3_600_000}

    world.start(0)
    world.start(1, said=wrong)
    assert wait_until(lambda: bool(world.errors[0]), 5)
    way = "ahead of" if hours > 0 else "behind"
    assert f"party 1: its clock is {abs(hours)}.0 h {way} ours" in world.errors[0][0].cause
    assert any("clock" in why for why in world.made[0].waiting())


def test_after_the_start_nothing_of_others_is_fatal(world: World, tmp_path: Path) -> None:
    running = world.start(0)
    running.strict = False
    other = make_federation(tmp_path / "other", ("eu",), world.ports)
    world.start(1, standing=read(other.folders["eu"][1]))
    assert wait_until(lambda: "another authority" in running.waiting()[0], 5)
    assert not world.errors[0]


def test_asking_takes_nobodys_place(world: World) -> None:
    peers = world.start(0)
    one = world.start(1)
    assert wait_until(lambda: one.known()[0].here, 5)
    link = dial_front(world.standing(1), 0, fronts_hello(AGREED), ASKING, timeout=2)
    link.send(Message({"time_ms": 1}))
    assert link.receive(2).header["version"]
    link.close()
    time.sleep(0.3)
    assert one.known()[0].here and wait_until(lambda: peers.known()[0].here, 2)


def test_rotated_certificates_are_taken_up_and_talks_go_on(world: World) -> None:
    zero, one = world.start(0), world.start(1)
    assert wait_until(lambda: one.known()[0].here and zero.known()[0].here, 5)
    folder = world.federation.folders["eu"][0]
    before = (folder / "tls.pem").read_bytes()
    directory = world.federation.authority.sign([rotate(folder)], replace=True)
    for index in range(3):
        install(world.federation.folders["eu"][index], directory)
    assert (folder / "tls.pem").read_bytes() != before
    for index, peers in enumerate((zero, one)):
        peers.renew(world.standing(index))
    assert one.known()[0].here and zero.known()[0].here
    one.close()
    again = world.start(1)  # new connections, under the new certificates
    assert wait_until(lambda: again.known()[0].here and zero.known()[0].here, 5)
    assert open_folder(folder).identity


def test_a_front_without_a_word_is_let_go(world: World) -> None:
    world.start(0)
    link = dial_front(world.standing(1), 0, fronts_hello(AGREED), ASKING, timeout=2)
    with pytest.raises(ChannelError):
        link.receive(0.2)


@pytest.mark.parametrize("words", [b"", b"MPCS\x01"], ids=["silent", "half a preamble"])
def test_who_does_not_say_what_it_wants_is_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    monkeypatch.setattr(peers_module, "PREAMBLE_S", 0.3)
    peers = world.start(0)
    with socket.create_connection(peers.address, 2) as stranger:
        stranger.sendall(words)
        stranger.settimeout(3)
        assert stranger.recv(1) == b""
