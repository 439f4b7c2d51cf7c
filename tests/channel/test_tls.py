"""Parties over TLS: exact bytes seen by a relay, a killed and a stopped process, and everyone who must be
refused.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from certificates import issue, make_session_certificates

from mpc_ray.channel import Digests, FramedChannel, Hello, Listener, Message, dial_party, reception
from mpc_ray.channel.tls import RECORD_OVERHEAD
from mpc_ray.errors import CertificateError, ChannelError, ConfigError, HelloMismatch, NotNow, PeerLost
from mpc_ray.trust.certs import Identity, SessionAuthority, client_context

SESSION = bytes(range(16))
HELLO = Hello(SESSION)
NOWHERE = ("127.0.0.1", 9)


def buffer(n: int) -> memoryview:
    return memoryview(bytearray(n))


class Relay:
    """Passes TCP connections on to ``target`` and counts the bytes of both directions."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.counted = 0
        self._lock = threading.Lock()
        self._target = target
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._server.getsockname()
        self._spawn(self._accept)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        for sock in (self._server, *self._sockets):
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            self._spawn(self._pump, near, far)
            self._spawn(self._pump, far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    self.counted += len(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _spawn(function: Callable[..., object], *arguments: object) -> None:
        threading.Thread(target=function, args=arguments, daemon=True).start()


def test_a_relay_counts_the_bytes_that_the_meter_counts(parties: Any) -> None:
    """Party 1 reaches party 0 through a relay: what passes is frames plus 22 bytes a TLS record, to the
    byte.
    """
    listeners = [parties.listener(me) for me in range(3)]
    direct = [made.address for made in listeners]
    relay = Relay(direct[0])
    told = [direct, [relay.address, *direct[1:]], direct]
    a, b, _ = parties.connect(listeners, told)
    time.sleep(0.2)  # HELLO has passed
    before, records = relay.counted, a._outgoing[1].records + b._outgoing[0].records
    sizes = [0, 1, 100, 16_384, 70_000, 3_000_001]

    def run(channel: FramedChannel, peer: int) -> None:
        for step, n in enumerate(sizes):
            channel.send(peer, step, step, [buffer(n)])
            channel.receive(peer, step, [buffer(n)])
        channel.flush()

    assert parties.together([lambda: run(a, 1), lambda: run(b, 0)]) == [None, None]
    metered = a.meter.bytes_sent + b.meter.bytes_sent
    records = a._outgoing[1].records + b._outgoing[0].records - records
    expected = metered + RECORD_OVERHEAD * records
    end = time.monotonic() + 2
    while relay.counted - before < expected and time.monotonic() < end:
        time.sleep(0.01)
    assert metered == 2 * (sum(sizes) + 60 * len(sizes))
    assert relay.counted - before == expected
    parties.close()
    relay.close()


def test_worn(parties: Any) -> None:
    a, _, _ = parties.tls()
    assert not a.worn()
    a._outgoing[1].records += 1 << 23
    assert a.worn()


CHILD = """
import sys, time
from pathlib import Path
from mpc_ray.channel import Hello, Listener
from mpc_ray.trust.certs import Identity
me, folder, *ports = sys.argv[1:]
me, folder = int(me), Path(folder)
name = f"party-{me}"
identity = Identity(name, folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.ca.pem")
listener = Listener(me, identity)
addresses = [("127.0.0.1", int(port)) for port in ports] + [listener.address]
channel = listener.channel(addresses, Hello(bytes(range(16))), 10.0)
print("connected", flush=True)
time.sleep(60)
"""


@contextmanager
def party_2_in_a_process(
    parties: Any, **settings: Any
) -> Iterator[tuple[list[FramedChannel], subprocess.Popen[str]]]:
    listeners = [parties.listener(me) for me in range(2)]
    addresses = [made.address for made in listeners]
    folder = parties.certificates["party-2"].certificate.parent
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", CHILD, "2", str(folder), *(str(port) for _, port in addresses)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    channels: list[FramedChannel] = []
    try:
        told = [*addresses, NOWHERE]
        channels = parties.together(
            [lambda me=me: listeners[me].channel(told, HELLO, 20.0, **settings) for me in range(2)]
        )
        assert all(isinstance(channel, FramedChannel) for channel in channels), channels
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        yield channels, process
    finally:
        process.kill()
        process.communicate()
        for channel in channels:
            channel.close()


def test_killed_process_is_lost_at_once(parties: Any) -> None:
    with party_2_in_a_process(parties) as ((a, b), process):
        killed: list[float] = []

        def waits(channel: FramedChannel, peer: int) -> tuple[float, str]:
            try:
                channel.receive(peer, 0, [buffer(10)])
            except PeerLost as error:
                return time.monotonic(), error.peer
            raise AssertionError("received something")

        def kills() -> None:
            time.sleep(0.3)
            killed.append(time.monotonic())
            process.kill()

        # Party 1 waits for party 0, which never speaks: it learns from party 0 who is gone.
        results = parties.together([lambda: waits(a, 2), lambda: waits(b, 0), kills])
        for at, who in results[:2]:
            assert who == "party 2"
            assert at - killed[0] < 1.0


def test_stopped_process_meets_the_deadline(parties: Any) -> None:
    with party_2_in_a_process(parties, step_timeout=0.5) as ((a, _), process):
        process.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(PeerLost, match=r"party 2: silent for 0.5 s"):
            a.receive(2, 0, [buffer(10)])
        assert time.monotonic() - start < 2


def two(
    parties: Any,
    acceptor: Identity,
    dialler: Identity,
    hellos: tuple[Hello, Hello] = (HELLO, HELLO),
    timeout: float = 1.0,
) -> tuple[BaseException, BaseException, float]:
    """Party 1 dials party 0; party 2 stays away. What each raises, and when the dialler did."""
    first = parties.listener(0, identity=acceptor)
    second = parties.listener(1, identity=dialler)
    addresses = [first.address, second.address, NOWHERE]
    start = time.monotonic()
    took = []

    def dials() -> object:
        try:
            return second.channel(addresses, hellos[1], timeout)
        finally:
            took.append(time.monotonic() - start)

    results = parties.together([lambda: first.channel(addresses, hellos[0], timeout), dials])
    assert all(isinstance(error, ChannelError) for error in results), results
    for error in results:
        assert "\n" not in str(error)
        assert error.remedy
    return results[0], results[1], took[0]


@pytest.mark.parametrize("name", ["version", "prf", "configuration", "model", "calibration", "session"])
def test_hello_difference_is_named_at_both_ends(parties: Any, name: str) -> None:
    digests = {} if name == "session" else {name: b"x" * 32}
    other = Hello(b"another session!" if name == "session" else SESSION, Digests(**digests))
    certificates = parties.certificates
    at_0, at_1, took = two(parties, certificates["party-0"], certificates["party-1"], (HELLO, other), 5.0)
    for error, peer in ((at_0, "party 1"), (at_1, "party 0")):
        assert isinstance(error, HelloMismatch)
        assert str(error).startswith(f"{peer}: differs in {name} (ours ")
        assert ", " not in str(error).split(" (stop")[0].split("theirs")[1]
    assert took < 2


def test_other_authority(parties: Any, others: dict[str, Identity]) -> None:
    mine = parties.certificates["party-0"]
    at_0, at_1, took = two(parties, mine, others["party-1"])
    assert isinstance(at_1, CertificateError)
    assert "party 0" in str(at_1)
    assert "issued by another authority" in str(at_1)
    assert took < 0.9
    assert isinstance(at_0, PeerLost)  # a stranger ends no session, but is mentioned
    assert "turned away" in str(at_0)


def test_other_authority_seen_by_the_acceptor(parties: Any, others: dict[str, Identity]) -> None:
    """The dialler trusts the acceptor, but its own certificate is another authority's."""
    mine = parties.certificates
    stranger = replace(others["party-1"], authority=mine["party-1"].authority)
    at_0, at_1, took = two(parties, mine["party-0"], stranger)
    assert isinstance(at_1, CertificateError)
    assert "refused our certificate: it was issued by another authority" in str(at_1)
    assert took < 0.9
    assert isinstance(at_0, PeerLost)
    assert "issued by another authority" in str(at_0)


def test_expired(parties: Any, tmp_path: Any) -> None:
    fresh = make_session_certificates(tmp_path / "mixed", lifetime=timedelta(minutes=-30))
    _, at_1, _ = two(parties, fresh["party-0"], fresh["party-1"])
    assert isinstance(at_1, CertificateError)
    assert "party 0" in str(at_1)
    assert "certificate has expired" in str(at_1)


def test_expired_dialler(parties: Any, tmp_path: Any) -> None:
    authority = SessionAuthority()
    good = issue(authority, tmp_path, "party-0")
    expired = issue(authority, tmp_path, "party-1", timedelta(minutes=-30))
    at_0, at_1, took = two(parties, good, expired)
    assert isinstance(at_1, CertificateError)
    assert "refused our certificate: it has expired" in str(at_1)
    assert took < 0.9
    assert "its certificate has expired" in str(at_0)


def test_wrong_partys_certificate_at_the_dialler(parties: Any) -> None:
    certificates = parties.certificates
    at_0, at_1, took = two(parties, certificates["party-0"], certificates["party-2"], timeout=5.0)
    assert isinstance(at_0, CertificateError)
    assert str(at_0).startswith("party 1: the certificate shown is party-2's")
    assert isinstance(at_1, CertificateError)
    assert "our certificate is not party-1's" in str(at_1)
    assert took < 2


def test_wrong_partys_certificate_at_the_acceptor(parties: Any) -> None:
    certificates = parties.certificates
    _, at_1, _ = two(parties, certificates["party-2"], certificates["party-1"])
    assert isinstance(at_1, CertificateError)
    assert "its certificate is another name's" in str(at_1)


def test_a_client_is_no_party(parties: Any) -> None:
    certificates = parties.certificates
    at_0, _, _ = two(parties, certificates["party-0"], certificates["client"], timeout=5.0)
    assert isinstance(at_0, CertificateError)
    assert "client's" in str(at_0)


def test_party_that_never_comes(parties: Any) -> None:
    listeners = [parties.listener(me) for me in range(2)]
    addresses = [listeners[0].address, listeners[1].address, NOWHERE]
    start = time.monotonic()
    results = parties.together([lambda made=made: made.channel(addresses, HELLO, 1.0) for made in listeners])
    assert 0.9 < time.monotonic() - start < 2
    for me, error in enumerate(results):
        assert isinstance(error, PeerLost)
        host, port = addresses[me]
        assert error.peer == "party 2"
        assert f"did not connect to party {me} at {host}:{port} within 1 s" in str(error)


def test_party_that_does_not_listen(parties: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free: tuple[str, int] = server.getsockname()
    made = parties.listener(1)
    with pytest.raises(
        PeerLost, match=rf"party 0: not reached at 127.0.0.1:{free[1]} within 0.5 s: Connection refused"
    ):
        made.channel([free, made.address, NOWHERE], HELLO, 0.5)


def test_party_that_is_not_ready(parties: Any) -> None:
    """Party 0 listens and never calls ``channel``."""
    first, second = parties.listener(0), parties.listener(1)
    with pytest.raises(PeerLost, match=r"party 0: accepted our connection .* did not start the session"):
        second.channel([first.address, second.address, NOWHERE], HELLO, 0.5)


def test_someone_else_listens_there(parties: Any) -> None:
    made = parties.listener(1)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speaks() -> None:
            connection, _ = server.accept()
            connection.sendall(b"220 mail.example.org ESMTP\r\n")
            with connection:
                connection.recv(1)

        threading.Thread(target=speaks, daemon=True).start()
        with pytest.raises(ChannelError, match=r"party 0 at .*: TLS handshake failed: WRONG_VERSION_NUMBER"):
            made.channel([server.getsockname(), made.address, NOWHERE], HELLO, 2.0)


def test_port_in_use(parties: Any) -> None:
    port = parties.listener(0).address[1]
    with pytest.raises(NotNow, match=rf"port {port} on 127.0.0.1 is in use .*choose another port"):
        parties.listener(1, port=port)


@pytest.mark.parametrize(("host", "port", "passes"), [("192.0.2.1", 0, True), ("127.0.0.1", 70_000, False)])
def test_bad_address(parties: Any, host: str, port: int, passes: bool) -> None:
    """An address that this machine does not have may be on its way: an interface that is not up yet."""
    with pytest.raises(ConfigError) as caught:
        parties.listener(0, host=host, port=port)
    assert isinstance(caught.value, NotNow) is passes


def test_two_processes_as_one_party(parties: Any) -> None:
    first = parties.listener(0)
    twins = [parties.listener(1), parties.listener(1)]
    addresses = [first.address, twins[0].address, NOWHERE]
    results = parties.together(
        [lambda made=made: made.channel(addresses, HELLO, 1.5) for made in (first, *twins)]
    )
    assert "party 1: two processes connect as it" in str(results[0])
    words = [str(error) for error in results[1:]]
    assert any("party 0: already has a connection with party 1" in word for word in words), words


def test_a_party_that_died_while_connecting_may_come_again(parties: Any) -> None:
    first, second, third = (parties.listener(me) for me in range(3))
    addresses = [first.address, second.address, third.address]

    def comes_twice() -> FramedChannel:
        with pytest.raises(PeerLost, match="party 2"):
            second.channel(addresses, HELLO, 0.5)
        return second.channel(addresses, HELLO, 5.0)

    def comes_late() -> FramedChannel:
        time.sleep(1.0)
        return third.channel(addresses, HELLO, 5.0)

    results = parties.together([lambda: first.channel(addresses, HELLO, 5.0), comes_twice, comes_late])
    assert all(isinstance(channel, FramedChannel) for channel in results), results
    results[1].send(0, 0, 1, [buffer(5)])
    assert results[0].receive(1, 0, [buffer(5)]) == 1
    parties.together([channel.close for channel in results])


def test_silent_strangers_hold_nothing_up(parties: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "MAX_HANDSHAKES", 4)
    listeners = [parties.listener(me) for me in range(3)]
    strangers = [socket.create_connection(listeners[0].address) for _ in range(20)]
    start = time.monotonic()
    parties.connect(listeners, [[made.address for made in listeners]] * 3)
    assert time.monotonic() - start < 3
    assert listeners[0].reception.busy <= 4
    for stranger in strangers:
        stranger.close()


def test_a_silent_stranger_is_dropped_after_the_time_out(parties: Any) -> None:
    made = parties.listener(0, handshake_timeout=0.3)
    with socket.create_connection(made.address) as stranger:
        stranger.settimeout(3)
        assert stranger.recv(1) == b""


def test_tls_1_2_is_refused(parties: Any) -> None:
    made = parties.listener(0)
    context = client_context(parties.certificates["party-1"])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(made.address) as raw, pytest.raises(ssl.SSLError, match=r"(?i)version"):
        context.wrap_socket(raw, server_hostname="party-0")


def test_one_port_serves_parties_and_clients(parties: Any) -> None:
    listeners: list[Listener] = [parties.listener(me) for me in range(3)]
    addresses = [made.address for made in listeners]
    client = parties.certificates["client"]

    def party(me: int) -> object:
        channel = listeners[me].channel(addresses, HELLO, 5.0)
        link = listeners[me].accept_client(HELLO, 5.0)
        message = link.receive(5.0)
        link.send(Message({"party": me, "heard": message.header["word"]}))
        link.receive(5.0)
        channel.close()
        link.close()
        return None

    def ask() -> object:
        links = [dial_party(me, addresses[me], client, HELLO, timeout=5.0) for me in range(3)]
        for link in links:
            link.send(Message({"word": "hello"}))
        answers = [link.receive(5.0).header for link in links]
        for link in links:
            link.send(Message({}))
            link.close()
        return answers

    results = parties.together([lambda: party(0), lambda: party(1), lambda: party(2), ask])
    assert results[:3] == [None] * 3
    assert results[3] == [{"party": me, "heard": "hello"} for me in range(3)]


def test_client_with_another_version(parties: Any) -> None:
    made = parties.listener(0)
    ours = Hello(SESSION, Digests(version=b"1" * 32, model=b"m" * 32))
    theirs = Hello(SESSION, Digests(version=b"2" * 32))
    client = parties.certificates["client"]
    results = parties.together(
        [
            lambda: made.accept_client(ours, 3.0),
            lambda: dial_party(0, made.address, client, theirs, timeout=3.0),
        ]
    )
    assert str(results[0]).startswith("client: differs in version (")
    assert str(results[1]).startswith("party 0: differs in version (")


def test_party_certificate_is_no_client(parties: Any) -> None:
    made = parties.listener(0)
    with pytest.raises(CertificateError, match="our certificate is not client's"):
        dial_party(0, made.address, parties.certificates["party-1"], HELLO, timeout=2.0)
    with pytest.raises(CertificateError, match="client: the certificate shown is party-1's"):
        made.accept_client(HELLO, 1.0)


def test_no_client(parties: Any) -> None:
    with pytest.raises(PeerLost, match=r"client: did not connect within 0.2 s"):
        parties.listener(0).accept_client(HELLO, 0.2)
