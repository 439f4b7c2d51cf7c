"""Two checks over the same elements must not cancel each other; of several jobs each hears of its own elements."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from three import JOB, run_three, summands

from mpc_ray.protocols.runtime import Protocol, Runtime, together
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.thirds import thirds_of
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


TEXTS = (2, 1, 3)  # of three jobs
ROWS = 5  # of each text: the thirds cut through texts and jobs


def struck(where: tuple[int, int] | None) -> list[bool]:
    """For each job, whether its sums strike, with one value outside at ``where`` (row, column), cut into thirds."""
    z = torch.zeros((sum(TEXTS) * ROWS, 4), dtype=torch.int64)
    if where is not None:
        z[where] = (1 << 62) - 1
    shares = summands(z, 40)

    def program(runtime: Runtime) -> Protocol[Any]:
        checks = RangeChecks(JOB, True, TEXTS)
        parts = []
        for k, rows in thirds_of(len(z)):
            role = Role(runtime, k, "layer", "function")
            parts.append(truncate(role, shares[runtime.me][rows], 16, checks.chunk(rows.start, len(z))))
        yield from together(parts)
        return checks.finish()["layer/function"][1]

    return [bool(job.any()) for job in torch.stack(run_three(program)).sum(0) & 1]


def test_a_value_outside_is_told_to_its_job_alone() -> None:
    assert struck(None) == [False] * 3
    owners = [job for job, texts in enumerate(TEXTS) for _ in range(texts * ROWS)]
    for row, owner in enumerate(owners):
        assert struck((row, row % 4)) == [job == owner for job in range(3)]


@given(
    texts=st.lists(st.integers(1, 4), min_size=2, max_size=6),
    each=st.integers(1, 7),
    widths=st.lists(st.integers(1, 3), max_size=2),
    cut=st.tuples(st.integers(0, 200), st.integers(1, 200)),
)
def test_stretches_are_each_elements_owner(
    texts: list[int], each: int, widths: list[int], cut: tuple[int, int]
) -> None:
    """Against a list of whose every element is."""
    total = sum(texts) * each
    first = cut[0] % total
    rows = min(1 + cut[1] % total, total - first)
    width = math.prod(widths)
    owner = [job for job, count in enumerate(texts) for _ in range(count * each * width)]
    found = RangeChecks(JOB, True, tuple(texts)).chunk(first, total)._stretches((rows, *widths))
    said = [job for job, start, end in found for _ in range(end - start)]
    assert said == owner[first * width : (first + rows) * width]
    assert [start for _, start, _ in found] == [0, *(end for _, _, end in found[:-1])]


def test_whose_elements_are_must_be_known() -> None:
    checks = RangeChecks(JOB, True, (1, 2))
    with pytest.raises(ValueError, match="whose they are"):
        checks.chunk(0, 4)
    with pytest.raises(ValueError, match="chunk by chunk"):
        checks._stretches((3, 2))
