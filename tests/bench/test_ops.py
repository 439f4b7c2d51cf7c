"""Single functions over three parties, and the kernels' own speeds."""

from __future__ import annotations

from typing import Any

import pytest

from mpc_ray.bench.cases import OPS, case_of
from mpc_ray.bench.local import kernel_speeds
from mpc_ray.bench.ops import measure_ops
from mpc_ray.config import Config
from mpc_ray.errors import InputError

# function: (size, rounds, bound of the largest error)
EXPECTED = {
    "matmul": ("7x20x5", 2, 1e-5),
    "truncate": ("50", 2, 1e-6),
    "lookup": ("5x9", 3, 0.0),
    "gelu": ("5x9", 3, 2e-3),
    "silu": ("5x9", 3, 2e-3),
    "tanh": ("5x9", 3, 4e-3),
    "sigmoid": ("5x9", 3, 1e-3),
    "relu": ("5x9", 5, 1e-6),
    "negative": ("50", 5, 0.0),
    "maximum": ("4x10", 17, 0.0),
    "argmax": ("4x10", 17, 0.0),
    "reciprocal": ("9", 3, 1e-3),
    "rsqrt": ("9", 3, 1e-3),
    "layer_norm": ("7x64", 4, 2e-3),
    "softmax": ("2x10x8", 8, 4e-3),
}


@pytest.fixture(scope="module")
def found(local: Config) -> dict[str, dict[str, Any]]:
    wanted = [(name, size) for name, (size, _, _) in EXPECTED.items()]
    return {r["op"]: r for r in measure_ops(wanted, runs=1, config=local)}


def test_every_function_is_measured(found: dict[str, dict[str, Any]]) -> None:
    assert set(found) == set(OPS) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_function_is_right_and_counted(found: dict[str, dict[str, Any]], name: str) -> None:
    size, rounds, bound = EXPECTED[name]
    r = found[name]
    assert (r["size"], r["rounds"], r["runs"]) == (size, rounds, 1)
    assert r["max_abs_error"] <= bound
    assert r["bytes_unattributed"] == 0
    assert all(n > 0 for n in r["bytes_sent"])
    assert r["seconds_min"] > 0


def test_more_elements_are_more_bytes(found: dict[str, dict[str, Any]], local: Config) -> None:
    (large,) = measure_ops([("truncate", "5000")], runs=1, config=local)
    assert sum(large["bytes_sent"]) > 50 * sum(found["truncate"]["bytes_sent"]) / 2


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("gello", None, "unknown function"),
        ("gelu", "10", "no size"),
        ("gelu", "10x0", "no size"),
        ("gelu", "10x-3", "no size"),
        ("truncate", "99999999999999", "no size"),
    ],
)
def test_unknown_functions_and_sizes(name: str, size: str | None, why: str) -> None:
    with pytest.raises(InputError, match=why):
        case_of(name, size)


def test_kernels_are_timed() -> None:
    speeds = kernel_speeds(repeats=1)
    assert set(speeds) == {"matmul_gmacs", "matmul_torch_gmacs", "lookup_ns", "dpf_ns", "prf_gbytes"}
    assert all(value > 0 for value in speeds.values())
