"""Single functions under the protocols without a dealer: right, and in the documented number of rounds."""

from __future__ import annotations

from typing import Any

import pytest

from mpc_ray.bench.ops import measure_ops
from mpc_ray.config import Config

CHECKS = 7  # rounds of a range check of 10 bits, at the end

# function: (size, rounds, bound of the largest error)
EXPECTED = {
    "matmul": ("7x20x5", 5 + CHECKS, 1e-5),
    "lookup": ("5x9", 13, 0.0),
    "gelu": ("5x9", 13 + CHECKS, 2e-3),
    "relu": ("5x9", 12 + CHECKS, 1e-5),
    "maximum": ("4x10", 44, 0.0),
    "rsqrt": ("9", 27, 1e-3),
    "softmax": ("2x10x8", 61, 4e-3),
}


def measured(config: Config, protocol: str, names: list[str]) -> dict[str, dict[str, Any]]:
    wanted = [(name, EXPECTED[name][0]) for name in names]
    chosen = config.model_copy(update={"protocol": protocol})
    return {r["op"]: r for r in measure_ops(wanted, runs=1, config=chosen)}


@pytest.fixture(scope="module")
def found(local: Config) -> dict[str, dict[str, Any]]:
    return measured(local, "aby3", list(EXPECTED))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_function_is_right_and_counted(found: dict[str, dict[str, Any]], name: str) -> None:
    _, rounds, bound = EXPECTED[name]
    r = found[name]
    assert (r["protocol"], r["rounds"]) == ("aby3", rounds)
    assert r["max_abs_error"] <= bound
    assert r["bytes_unattributed"] == 0
    assert r["bytes_sent_offline"] == [0, 0, 0]


def test_a_proved_function(found: dict[str, dict[str, Any]], local: Config) -> None:
    """The same messages, and a proof's beside and after them."""
    (r,) = measured(local, "malicious_3pc", ["gelu"]).values()
    assert r["max_abs_error"] <= EXPECTED["gelu"][2]
    assert r["rounds"] > found["gelu"]["rounds"] + 10
    more = [a - b for a, b in zip(r["bytes_sent"], found["gelu"]["bytes_sent"], strict=True)]
    assert all(0 < n < 50_000 for n in more)
