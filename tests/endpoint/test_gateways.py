"""The gateway port against a gateway that does not read, and against faults of our own."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster import wait_until  # type: ignore[import-not-found]
from federation import Federation, make_federation  # type: ignore[import-not-found]

from mpc_ray.channel import Link, Message
from mpc_ray.channel.dial import dial
from mpc_ray.channel.hello import Direction, Greeting, Kind
from mpc_ray.endpoint import gateways as gateways_module
from mpc_ray.endpoint.config import Limits, Listen
from mpc_ray.endpoint.dial import ask, dial_endpoint, endpoint_hello
from mpc_ray.endpoint.gateways import Gateways
from mpc_ray.endpoint.standing import read
from mpc_ray.errors import CertificateError, ChannelError
from mpc_ray.trust.certs import Identity, client_context
from mpc_ray.trust.folder import install, open_folder, request_gateway

RUN = {"cmd": "run", "triple": "ab" * 16, "jobs": ["x"], "attempt": 0}


class FakeFront:
    """Answers ``run`` at once with ``nbytes``; ``left`` remembers links that ended."""

    def __init__(self) -> None:
        self.nbytes = 4
        self.left: list[object] = []
        self.jobs: Any = None
        self.triples: Any = self

    def status(self) -> dict[str, Any]:
        return {"ok": True}

    def run(self, *_: Any) -> Message:
        return Message({"ok": True}, {"answer": np.zeros(self.nbytes, np.uint8)})


@pytest.fixture
def front() -> FakeFront:
    made = FakeFront()
    made.triples = type("Triples", (), {"run": made.run, "left": made.left.append})()
    return made


@pytest.fixture
def gateways(federation: Federation, front: FakeFront) -> Iterator[Gateways]:
    made = Gateways(Listen(host="127.0.0.1", port=0), Limits(), read(federation.parties[0].path), front)
    yield made
    made.close()


def dialled(federation: Federation, gateways: Gateways, identity: Identity | None = None) -> Link:
    record = replace(federation.records[0], gateway="{}:{}".format(*gateways.address))
    who = identity or federation.gateway.identity
    return dial_endpoint(record, who, federation=federation.directory.federation)


def commands() -> int:
    return sum(thread.name == "command" for thread in threading.enumerate())


def test_commands_follow_each_other_at_once(federation: Federation, gateways: Gateways) -> None:
    link = dialled(federation, gateways)
    for number in range(40):
        ask(link, Message(dict(RUN) if number % 2 else {"cmd": "status"}), 5)
    link.close()


def test_a_gateway_that_reads_no_answers_gets_one_thread(
    federation: Federation, gateways: Gateways, front: FakeFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateways_module, "UNREAD_S", 0.5)
    front.nbytes = 32 << 20  # more than the kernel holds for us
    link = dialled(federation, gateways)
    most, sent = 0, 0
    with contextlib.suppress(ChannelError):  # hung up on
        while sent < 60:
            link.send(Message(dict(RUN)))
            sent += 1
            time.sleep(0.1)
            most = max(most, commands())
    assert most == 1 and sent < 60
    assert wait_until(lambda: len(front.left) == 1 and not commands(), 5)
    other = dialled(federation, gateways)
    assert ask(other, Message({"cmd": "status"}), 5).header["ok"] is True
    other.close()


def test_a_fault_of_ours_does_not_close_the_port(
    federation: Federation,
    gateways: Gateways,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole, faults = gateways._begin, [RuntimeError("can't start new thread")]

    def begin(*given: Any) -> None:
        if faults:
            raise faults.pop()
        whole(*given)

    monkeypatch.setattr(gateways, "_begin", begin)
    with caplog.at_level(logging.ERROR):
        first = dialled(federation, gateways)
        assert wait_until(lambda: "RuntimeError" in caplog.text, 5)
    second = dialled(federation, gateways)
    assert ask(second, Message({"cmd": "status"}), 5).header["ok"] is True
    first.close()
    second.close()


@pytest.fixture
def two(tmp_path: Path) -> tuple[Federation, Identity]:
    """A federation with a second gateway."""
    made = make_federation(tmp_path)
    directory = made.authority.sign([request_gateway(tmp_path / "gw2", name="other")])
    for folder in ("alpha", "gw2"):
        install(tmp_path / folder, directory, fingerprint=made.authority.fingerprint)
    return made, open_folder(tmp_path / "gw2").identity


def test_one_gateway_does_not_take_the_links_of_all(
    two: tuple[Federation, Identity], front: FakeFront
) -> None:
    federation, other = two
    limits = Limits(links=6, gateway_links=4)
    made = Gateways(Listen(host="127.0.0.1", port=0), limits, read(federation.parties[0].path), front)
    links = [dialled(federation, made) for _ in range(4)]
    try:
        for link in links:
            assert ask(link, Message({"cmd": "status"}), 5).header["ok"] is True
        links.append(dialled(federation, made))
        with pytest.raises(ChannelError):
            ask(links[-1], Message({"cmd": "status"}), 5)
        links.append(dialled(federation, made, other))
        assert ask(links[-1], Message({"cmd": "status"}), 5).header["ok"] is True
        links[0].close()
        assert wait_until(lambda: len(front.left) == 1, 5)
        links.append(dialled(federation, made))
        assert ask(links[-1], Message({"cmd": "status"}), 5).header["ok"] is True
    finally:
        for link in links:
            link.close()
        made.close()


def test_one_gateways_halves_do_not_drop_anothers(
    two: tuple[Federation, Identity], front: FakeFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation, other = two
    monkeypatch.setattr(gateways_module, "MAX_PAIRS", 4)
    monkeypatch.setattr(gateways_module, "MAX_PAIRS_OF_ONE", 2)
    made = Gateways(Listen(host="127.0.0.1", port=0), Limits(), read(federation.parties[0].path), front)
    halves = []

    def half(identity: Identity, token: bytes, direction: Direction) -> None:
        greeting = Greeting(endpoint_hello(), Kind.GATEWAY, 0, direction, token)
        end = time.monotonic() + 5
        halves.append(dial(0, made.address, client_context(identity), greeting, end, 5.0))

    try:
        half(other, b"other" + bytes(11), Direction.DIALLER_SENDS)
        for _ in range(6):
            half(federation.gateway.identity, os.urandom(16), Direction.DIALLER_SENDS)
        half(other, b"other" + bytes(11), Direction.DIALLER_RECEIVES)
        link = Link("party 0", halves[0], halves[-1])
        assert ask(link, Message({"cmd": "status"}), 5).header["ok"] is True
    finally:
        for stream in halves:
            stream.close()
        made.close()


def test_a_gateway_removed_while_it_arrives_is_not_let_in(
    federation: Federation, gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing, whole = read(federation.parties[0].path), gateways._begin
    parties = tuple(e for e in standing.directory.entries if e.record.place != "gateway/gw")
    without = replace(standing, directory=replace(standing.directory, entries=parties))

    def begin(*given: Any) -> None:
        gateways.renew(without)  # after its certificate was looked at
        whole(*given)

    monkeypatch.setattr(gateways, "_begin", begin)
    link = dialled(federation, gateways)
    with pytest.raises(ChannelError):
        ask(link, Message({"cmd": "status"}), 5)
    link.close()
    assert not gateways._links


def test_with_an_expired_directory_nothing_is_computed(federation: Federation, gateways: Gateways) -> None:
    """Those who ask how it is are told; a newer directory is taken up without a restart."""
    standing = read(federation.parties[0].path)
    old = replace(standing, directory=replace(standing.directory, expires=int(time.time()) - 1))
    link = dialled(federation, gateways)
    ask(link, Message(dict(RUN)), 5)
    gateways.renew(old)
    for command in ("open", "run", "submit"):
        with pytest.raises(CertificateError, match="its directory expired at") as caught:
            ask(link, Message(RUN | {"cmd": command}), 5)
        assert caught.value.code == "directory_expired"
    assert ask(link, Message({"cmd": "status"}), 5).header["ok"] is True
    gateways.renew(standing)
    ask(link, Message(dict(RUN)), 5)
    link.close()
