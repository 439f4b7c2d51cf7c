"""Ports that are chosen before they are used."""

from __future__ import annotations

import socket

import pytest

from mpc_ray.bench.ports import FIRST, LAST, free_ports


def test_they_differ_are_free_and_are_none_that_a_system_gives_away() -> None:
    ports = free_ports(40)
    assert len(set(ports)) == 40 and min(ports) >= FIRST and max(ports) < LAST
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


def test_taken_ones_are_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setattr("mpc_ray.bench.ports.FIRST", port)
    monkeypatch.setattr("mpc_ray.bench.ports.LAST", port + 1)
    assert free_ports(1) == [port]
    with socket.create_server(("127.0.0.1", port)), pytest.raises(OSError, match="1 free ports were not"):
        free_ports(1)
    with pytest.raises(OSError, match="2 free ports were not"):
        free_ports(2)
