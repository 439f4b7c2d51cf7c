"""bytes_sent is what really goes over the wire: counted again below the channel, by streams and by a relay."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mpc_ray import launch
from mpc_ray.bench.encoder import EncoderJob, Passes
from mpc_ray.bench.shapes import shape_of
from mpc_ray.bench.workload import Workload, random_workload
from mpc_ray.channel import local as local_module
from mpc_ray.channel.local import LocalStream
from mpc_ray.channel.tls import RECORD_OVERHEAD
from mpc_ray.config import Config
from mpc_ray.party import PartyServer
from mpc_ray.session import Session

RUNS = 2  # one to warm up, one measured: the same bytes


def quiet(what: str, part: float) -> None:
    del what, part


@pytest.fixture(scope="module")
def work() -> Workload:
    return random_workload(shape_of("1x32x2x64"), 12, 2, quiet)


def test_a_counting_stream_counts_the_same(
    local: Config, work: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams: list[Counting] = []

    class Counting(LocalStream):
        """Counts what is put into one direction of one pair."""

        def __init__(self) -> None:
            super().__init__()
            self.sent = 0
            streams.append(self)

        def send(self, parts: Sequence[memoryview], end: float) -> None:
            self.sent += sum(map(len, parts))
            super().send(parts, end)

    monkeypatch.setattr(local_module, "LocalStream", Counting)
    with Session(config=local) as session:
        job = EncoderJob(session, work)
        assert len(streams) == 6  # made for 0→1, 0→2, 1→0, 1→2, 2→0, 2→1
        before = [streams[2 * i].sent + streams[2 * i + 1].sent for i in range(3)]
        found = job.passes(RUNS - 1, quiet)
        after = [streams[2 * i].sent + streams[2 * i + 1].sent for i in range(3)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [RUNS * n for n in total(found)]


class Relay:
    """Between a party that dials and one that listens; counts what each of them sends, byte by byte."""

    def __init__(self, dialler: int, listener: int, address: tuple[str, int], sent: Counter[int]) -> None:
        self._ends = (dialler, listener)
        self._address, self._sent = address, sent
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = self._server.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
            except OSError:
                return
            there = socket.create_connection(self._address)
            self._open += [here, there]
            for source, target, sender in ((here, there, self._ends[0]), (there, here, self._ends[1])):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pump, args=(source, target, sender), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, sender: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with LOCK:
                    self._sent[sender] += len(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for end in (self._server, *self._open):
            end.close()


LOCK = threading.Lock()


def test_a_relay_between_the_parties_counts_the_same(work: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS: frames, and 22 bytes for each record, nothing else, and nothing outside the timed runs' frames."""
    sent: Counter[int] = Counter()
    relays: list[Relay] = []
    servers: list[Relayed] = []

    class Relayed(PartyServer):
        """A party that is told relays' addresses instead of its peers'."""

        def __init__(self) -> None:
            super().__init__()
            servers.append(self)

        def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
            if request["do"] == "connect":
                me = self._settings.me
                told = list(request["addresses"])
                for peer in range(3):
                    if peer != me:
                        relays.append(Relay(me, peer, tuple(told[peer]), sent))
                        told[peer] = relays[-1].address
                request = {**request, "addresses": told}
            return super().ask(request, timeout_s)

        def records(self) -> int:
            """TLS records that this party has written to its peers."""
            assert self._party is not None
            return sum(stream.records for stream in self._party.channel._outgoing.values())

    monkeypatch.setattr(launch, "PartyServer", Relayed)
    try:
        with Session(config=Config(launcher="threads", tls=True)) as session:
            job = EncoderJob(session, work)
            before = [sent[i] - RECORD_OVERHEAD * servers[i].records() for i in range(3)]
            found = job.passes(RUNS - 1, quiet)
            after = [sent[i] - RECORD_OVERHEAD * servers[i].records() for i in range(3)]
    finally:
        for relay in relays:
            relay.close()
    assert min(sent.values()) > 0
    assert [b - a for a, b in zip(before, after, strict=True)] == [RUNS * n for n in total(found)]


def total(found: Passes) -> tuple[int, int, int]:
    """As ``bench encoder`` prints it."""
    a, b, c = found.costs()["bytes_sent"]
    return a, b, c
