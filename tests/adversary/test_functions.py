"""Views and pads of the functions that the encoder does not use: comparison, selection, ReLU, maximum, argmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from recording import Recording, assert_every_byte_is_padded, recording, unmasked
from three import run_three, share
from uniform import message_tests

from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.protocols.semi_honest.compare import less_than_zero
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.select import relu, select, to_shared
from mpc_ray.protocols.semi_honest.tournament import argmax, maximum
from mpc_ray.sharing.replicated import Shared

FAMILY_WISE = 1e-6
N = 1 << 12
Body = Callable[[Role, Shared], Protocol[Any]]


def _selected(role: Role, x: Shared) -> Protocol[Shared]:
    bit = yield from less_than_zero(role, x)
    yield from to_shared(role, bit)
    return (yield from select(role, bit, x, x[torch.arange(N - 1, -1, -1)]))


BODIES: dict[str, Body] = {
    "relu": relu,
    "relu with truncation": lambda role, x: relu(role, x, 12),
    "select": _selected,
    "maximum": lambda role, x: maximum(role, x.map(lambda t: t.reshape(-1, 8))),
    "argmax": lambda role, x: argmax(role, x.map(lambda t: t.reshape(-1, 8))),
}
INPUTS = {"zeros": torch.zeros(N, dtype=torch.int64), "rising": torch.arange(-N // 2, N // 2) << 45}
ALL_MASKS = ["and mask", "and products", "select mask", "rho", "rho·r_hi", "digits", "mask", "reshare"]
MASKS = [("relu", m) for m in ALL_MASKS] + [("argmax", "rho·r_hi"), ("relu with truncation", "rho·r_msb")]


def traffic(body: Body, x: torch.Tensor, role_of: int) -> Recording:
    shares = share(x)

    def program(runtime: Runtime) -> Protocol[Any]:
        return (yield from body(Role(runtime, role_of, "layer", "test"), shares[runtime.me]))

    with recording() as found:
        run_three(program)
    return found


def p_values(found: Recording, role_of: int) -> dict[str, float]:
    return {
        f"party {i}: {name}": p
        for i in (role_of, (role_of + 1) % 3)
        for name, p in message_tests(found, i).items()
    }


@pytest.mark.parametrize("name", BODIES)
def test_views_are_uniform_and_padded(name: str) -> None:
    tests = {}
    for label, x in INPUTS.items():
        for role_of in range(3):
            found = traffic(BODIES[name], x, role_of)
            kinds = assert_every_byte_is_padded(found)
            assert {"open", "and", "select", "reshare", "digits", "rho"} <= kinds
            assert not any(
                part.peer == (role_of + 2) % 3 for part in found.sent
            )  # the dealer is sent nothing
            tests.update({f"{label}, role {role_of}, {n}": p for n, p in p_values(found, role_of).items()})
    worst = min((p, test) for test, p in tests.items())
    assert worst[0] * len(tests) > FAMILY_WISE / len(BODIES), worst


@pytest.mark.parametrize(("name", "purpose"), MASKS)
def test_a_missing_mask_is_found(name: str, purpose: str) -> None:
    with unmasked(purpose):
        tests = p_values(traffic(BODIES[name], INPUTS["zeros"], 0), 0)
    assert min(tests.values()) * 100 * len(tests) < FAMILY_WISE
