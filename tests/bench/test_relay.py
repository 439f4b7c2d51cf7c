"""A relay delays, and changes nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from mpc_ray.bench.relay import Relay


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """Sends back what comes, until its caller has finished sending."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(sock: socket.socket) -> None:
        with sock:
            while data := sock.recv(65536):
                sock.sendall(data)

    def accept() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()
    server.close()


def everything(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def ended(sock: socket.socket) -> bool:
    """Whether the other end hung up, in whichever way."""
    try:
        return not sock.recv(1)
    except ConnectionResetError:
        return True


def test_each_way_takes_the_latency_and_bytes_stay_as_they_are(echo: tuple[str, int]) -> None:
    relay = Relay(echo, 0.05)
    content = bytes(range(256)) * 4000
    with socket.create_connection(relay.address, 5) as sock:
        sock.sendall(b"x")
        began = time.monotonic()
        assert sock.recv(1) == b"x"
        assert 0.08 < time.monotonic() - began < 0.5
        threading.Thread(target=lambda: (sock.sendall(content), sock.shutdown(socket.SHUT_WR))).start()
        began = time.monotonic()
        assert everything(sock) == content  # and the end comes across too
        assert time.monotonic() - began < 1.0  # the latency is paid once, not for each piece
    relay.close()


def test_what_is_cut_is_out_of_reach_until_it_is_mended(echo: tuple[str, int]) -> None:
    relay = Relay(echo, 0.0)
    with socket.create_connection(relay.address, 5) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        relay.cut()
        assert ended(sock)
    with socket.create_connection(relay.address, 5) as sock:
        assert ended(sock)
    relay.mend()
    with socket.create_connection(relay.address, 5) as sock:
        sock.sendall(b"y")
        assert sock.recv(1) == b"y"
    relay.close()
    with pytest.raises(OSError):  # noqa: PT011  # refused or reset, as the system has it
        socket.create_connection(relay.address, 1).recv(1)


def test_a_target_that_is_not_there_is_told_by_hanging_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()
    relay = Relay(nobody, 0.0)
    with socket.create_connection(relay.address, 5) as sock:
        assert sock.recv(1) == b""
    relay.close()
