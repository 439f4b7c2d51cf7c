"""Who is pushed out when too many wait."""

from __future__ import annotations

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
