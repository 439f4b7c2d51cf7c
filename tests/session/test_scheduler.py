"""Placement without Ray: what is asked of the planner, and what becomes of its refusals."""

from __future__ import annotations

import time

import pytest

from mpc_ray.errors import DeviceError, PlacementError
from mpc_ray.planner import Node, Problem
from mpc_ray.scheduler import choose, gpus_for_each


@pytest.mark.parametrize(
    ("wanted", "device", "cluster", "each"),
    [
        (0, "cpu", 0, 0),
        (0, "cuda", 3, 1),
        (0, "cuda", 8, 1),
        (0, "cuda", 1, 0.3333),
        (0.5, "cuda", 2, 0.5),
        (1, "cpu", 3, 1),
    ],
)
def test_gpus_for_each_party(wanted: float, device: str, cluster: float, each: float) -> None:
    assert gpus_for_each(wanted, device, cluster) == pytest.approx(each)
    assert 3 * gpus_for_each(wanted, device, cluster) <= cluster


@pytest.mark.parametrize(("wanted", "device", "cluster"), [(0, "cuda", 0), (1, "cuda", 2), (1, "cpu", 0)])
def test_gpus_that_are_not_there(wanted: float, device: str, cluster: float) -> None:
    with pytest.raises(DeviceError, match="GPU, the cluster has"):
        gpus_for_each(wanted, device, cluster)


def nodes(cpus: float) -> Problem:
    return Problem(tuple(Node(name, cpus) for name in "abc"))


def test_a_busy_cluster_is_waited_for() -> None:
    waits: list[float] = []
    answer = choose(
        lambda free: nodes(1 if len(waits) >= 3 or not free else 0), time.monotonic() + 9, waits.append
    )
    assert sorted(answer.nodes) == ["a", "b", "c"]
    assert len(waits) == 3


def test_a_cluster_that_stays_busy() -> None:
    with pytest.raises(PlacementError, match="too busy"):
        choose(lambda free: nodes(0 if free else 1), time.monotonic() - 1)


def test_a_cluster_that_is_too_small_is_refused_before_the_deadline() -> None:
    started = time.monotonic()
    with pytest.raises(PlacementError, match="cannot hold three parties"):
        choose(lambda free: nodes(0.5), time.monotonic() + 60)
    assert time.monotonic() - started < 1
