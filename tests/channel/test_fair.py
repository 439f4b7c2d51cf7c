"""Who is pushed out when too many wait."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from mpc_ray.channel import reception
from mpc_ray.channel.fair import address_of, oldest_of_most


def test_a_flood_pushes_out_its_own() -> None:
    waiting = {"peer": "10.0.0.2"} | {f"stranger {i}": "203.0.113.9" for i in range(5)}
    order = []
    while waiting:
        order.append(oldest_of_most(waiting))
        del waiting[order[-1]]
    assert order == [*(f"stranger {i}" for i in range(4)), "peer", "stranger 4"]


def test_addresses() -> None:
    assert [address_of(who) for who in ("10.0.0.1:5", "fe80::1:5", "host:1")] == [
        "10.0.0.1",
        "fe80::1",
        "host",
    ]


def test_strangers_of_another_address_push_no_peer_out(parties: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "MAX_HANDSHAKES", 4)
    listener = parties.listener(0)
    slow = socket.create_connection(listener.address, timeout=5, source_address=("127.0.0.2", 0))
    strangers = []
    try:
        end = time.monotonic() + 5
        while listener.reception.busy < 1 and time.monotonic() < end:
            time.sleep(0.01)
        for _ in range(8):
            strangers.append(socket.create_connection(listener.address, timeout=5))
        slow.settimeout(0.3)
        with pytest.raises(TimeoutError):  # open, and nothing has come
            slow.recv(1)
        assert listener.reception.busy <= 4
    finally:
        for sock in (slow, *strangers):
            sock.close()
