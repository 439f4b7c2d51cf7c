"""The sub-protocols whose transcripts are fixed: tiny inputs, tables in exact integers, seeds of ``three.py``.

A case is (name, program of one party); all of them run under roles 0, 1 and 2. What a second implementation must
reproduce is every byte that each party sends.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from three import share, summands
from transcript import UNCHECKED, run_role

from mpc_ray.functions.plan import EXP_SCALE, NormPlan, SoftmaxPlan
from mpc_ray.functions.spline import Spline
from mpc_ray.functions.window import Window
from mpc_ray.kernels.lookup import prepare
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.protocols.semi_honest.compare import less_than_zero
from mpc_ray.protocols.semi_honest.elementary import evaluate
from mpc_ray.protocols.semi_honest.lookup import deal_index, window_index
from mpc_ray.protocols.semi_honest.norm import normalise
from mpc_ray.protocols.semi_honest.open import open_masked, reshare
from mpc_ray.protocols.semi_honest.product import factor
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.select import relu
from mpc_ray.protocols.semi_honest.softmax import Group, attention
from mpc_ray.protocols.semi_honest.tournament import argmax
from mpc_ray.protocols.semi_honest.truncate import truncate
from mpc_ray.sharing.replicated import Shared

Case = Callable[[Role, int], Protocol[Any]]
FORMAT = "sha256 of frames: peer u8, step u32, payload bytes u64, little endian, payload; sha256 of what a party holds"
VALUES = torch.tensor([0, 1, -1, 2**40 + 12345, -(2**40) - 54321, 2**60, -(2**60), 77, -1000000007])


def integers(shape: tuple[int, ...], bits: int, start: int) -> torch.Tensor:
    """Signed integers of ``bits`` from a fixed linear congruence."""
    count = int(np.prod(shape))
    x = np.arange(start, start + count, dtype=np.uint64) * np.uint64(6364136223846793005)
    x += np.uint64(1442695040888963407)
    return torch.from_numpy((x.view(np.int64) >> (64 - bits)).copy()).reshape(shape)


def spline(
    n: int, degree: int, t: int, scale: int, out_scale: int, fraction: int, low: float = 0.0
) -> Spline:
    """A spline whose tables are arbitrary integers: a fit may differ in a last bit between machines."""
    return Spline(
        Window(low, n, t, scale), integers((degree + 1, 1 << n), 18, n), fraction, out_scale, 0.0, 0.0
    )


def _lookup(n: int) -> Case:
    z, tables, window = summands(VALUES), prepare(integers((2, 1 << n), 30, 5)), Window(0.0, n, 20, 0)

    def case(role: Role, me: int) -> Protocol[torch.Tensor | None]:
        opening = open_masked(role, z[me].value, z[me].shape)
        one_hot = deal_index(role, opening, window)
        yield
        return None if role.is_d else one_hot.sums(window_index(opening.c, 20, n), tables)

    return case


def _truncate() -> Case:
    z = summands(VALUES, 30)
    return lambda role, me: truncate(role, z[me], 16)


def _reshare() -> Case:
    x = share(VALUES)

    def case(role: Role, me: int) -> Protocol[Shared]:
        half = None if role.is_d else (x[me].own + x[me].next if role.is_e0 else x[me].next)
        return reshare(role, half, VALUES.shape, 0)

    return case


def _spline() -> Case:
    z, plan = summands(VALUES, 20), spline(6, 2, 14, 20, 30, 10, low=-0.5)
    return lambda role, me: evaluate(role, z[me], plan, UNCHECKED)


def _norm() -> Case:
    z = summands(integers((3, 8), 34, 11), 30)
    plan = NormPlan(15, spline(16, 1, 27, 30, 20, 7))
    return lambda role, me: normalise(role, z[me], plan, UNCHECKED)


def _softmax() -> Case:
    heads, rows, keys, width = 2, 3, 5, 4
    plan = SoftmaxPlan((-16.0, -8.0), (16, 16), 1, 33, 8, spline(16, 1, 24, EXP_SCALE, 22, 7), 16, 14)
    low = torch.tensor([round(x * 2**33) for x in plan.low])
    group = Group(low, 16, plan)
    q = share(integers((heads, rows, width), 18, 1), 16, seed=3)
    k = share(integers((heads, keys, width), 18, 2), 16, seed=4)
    v = share(integers((heads, keys, width), 17, 3), 16, seed=5)

    def case(role: Role, me: int) -> Any:
        keys = factor(me, k[me].map(lambda t: t.transpose(-1, -2)))
        return attention(role, q[me], keys, factor(me, v[me]), group, UNCHECKED)

    return case


def _compare() -> Case:
    z = summands(VALUES)
    return lambda role, me: less_than_zero(role, z[me])


def _relu() -> Case:
    z = summands(VALUES, 30)
    return lambda role, me: relu(role, z[me], 16)


def _argmax() -> Case:
    x = share(integers((3, 7), 60, 9))
    return lambda role, me: argmax(role, x[me])


CASES: dict[str, Case] = {
    "truncate": _truncate(),
    "reshare": _reshare(),
    "lookup, plain": _lookup(6),
    "lookup, dpf": _lookup(12),
    "spline": _spline(),
    "norm": _norm(),
    "softmax": _softmax(),
    "compare": _compare(),
    "relu": _relu(),
    "argmax": _argmax(),
}


def transcript(name: str, k: int, master: bytes = b"test seed") -> dict[str, Any]:
    """For P0, P1, P2: bytes sent, the hash of what was sent, the hash of what the party holds at the end; rounds."""
    run = run_role(k, CASES[name], master)
    channels = [party.channel for party in run.parties]
    return {
        "rounds": run.rounds,
        "bytes": [channel.sent for channel in channels],  # type: ignore[attr-defined]
        "sent": [channel.digest() for channel in channels],  # type: ignore[attr-defined]
        "holds": [_digest(result) for result in run.results],
    }


def _digest(result: Any) -> str:
    if result is None:
        return ""
    if isinstance(result, Shared):
        parts = [result.own, result.next]
    elif isinstance(result, torch.Tensor):
        parts = [result]
    else:  # a secret bit
        parts = [] if result.share is None else [torch.from_numpy(result.share)]
    return (
        sha256(b"".join(part.contiguous().numpy().tobytes() for part in parts)).hexdigest() if parts else ""
    )
