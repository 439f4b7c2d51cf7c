"""Two checks of one role over the same elements must not cancel each other."""

from __future__ import annotations

from typing import Any

import torch
from three import JOB, run_three, summands

from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.truncate import truncate


def sums_of(value: int, checks_of_it: int) -> torch.Tensor:
    """The check's 20 sums, mod 2, for eight elements of which one is ``value``, truncated ``checks_of_it`` times."""
    z = torch.zeros(8, dtype=torch.int64)
    z[3] = value
    shares = summands(z, 40)

    def program(runtime: Runtime) -> Protocol[Any]:
        role, checks = Role(runtime, 1, "layer", "function"), RangeChecks(JOB)
        for _ in range(checks_of_it):
            yield from truncate(role, shares[runtime.me], 16, checks)
        return checks.finish()

    parts = run_three(program)
    ((bits, _),) = parts[0].values()
    assert bits == 1
    return torch.stack([next(iter(p.values()))[1] for p in parts]).sum(0) & 1


def test_inside_is_silent() -> None:
    assert not sums_of((1 << 61) - 1, 2).any()
    assert not sums_of(-(1 << 61), 2).any()


def test_outside_in_one_check_or_in_two_is_seen() -> None:
    for times in (1, 2):
        assert sums_of((1 << 62) - 1, times).any()
        assert sums_of(-(1 << 62), times).any()
