"""Public parameters of one use of a function: windows, scales, tables. Made at import, the same at all parties."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from mpc_ray.errors import ScaleError
from mpc_ray.functions.spline import Spline


@dataclass(frozen=True)
class NormPlan:
    """Rows times rsqrt of their sum of squares. Values are truncated to ``centre_scale`` first."""

    centre_scale: int
    rsqrt: Spline

    @property
    def scale(self) -> int:
        """Scale of the result; it is not truncated."""
        return self.centre_scale + self.rsqrt.scale


@dataclass(frozen=True)
class SoftmaxPlan:
    """One attention's softmax, for one padded length.

    ``low``: per head, the window's lower end; ``buckets``: per head, how many buckets of 2^``bucket_log`` units the
    window has (a power of two ≥ 16). ``count_bits``: counts live in Z_2^count_bits, 2^count_bits > length.
    """

    low: tuple[float, ...]
    buckets: tuple[int, ...]
    bucket_log: int
    score_scale: int
    count_bits: int
    reciprocal: Spline
    value_scale: int
    context_scale: int

    @property
    def bucket(self) -> float:
        return 2.0**self.bucket_log

    @property
    def scale(self) -> int:
        """Scale of the attention's result; it is not truncated."""
        return self.context_scale + self.reciprocal.scale


LONGEST = 1024  # scores of a row, excluded: counts live in at most 10 bits
EXP_TABLE_SCALE = 16
EXP_FACTOR_SCALE = 9
EXP_SCALE = EXP_TABLE_SCALE + 2 * EXP_FACTOR_SCALE
FACTOR_BITS = 12  # bits of the position inside a cell that the two factors see


@dataclass(frozen=True)
class ExpPlan:
    """e^x on a circular window below the maximum: e^x = T[j]·e^(c_low)·e^(-r_low), no polynomial.

    ``bits`` of index, cells of 2^``cell_log`` units (at most 4, or the factors' rounding shows). Table at scale 16,
    both factors at 9, result at 34: small values are many, so they get the bits. Relative error about 2^-10·e^(h/2).
    """

    bits: int
    cell_log: int
    table: torch.Tensor
    public_factor: torch.Tensor
    dealer_factor: torch.Tensor


_EXP_PLANS: dict[tuple[int, int], ExpPlan] = {}


def exp_plan(buckets: int, bucket_log: int) -> ExpPlan:
    """The plan for a window of buckets·2^bucket_log units. Integers are the same on every machine.

    (math.exp is correct to an ulp, and no value lies that close to a rounding boundary at these scales; the parties
    compare ``exp_digest`` all the same.)
    """
    key = (buckets, bucket_log)
    if not 16 <= buckets <= 256 or buckets & (buckets - 1) or not 0 <= bucket_log <= 2:
        raise ScaleError(f"{buckets} buckets of 2^{bucket_log} units", remedy="16 to 256, a power of two")
    if key not in _EXP_PLANS:
        window_log = int(math.log2(buckets)) + bucket_log
        bits = max(6, window_log - 2)
        cell_log = window_log - bits
        h, width, bucket = 2.0**cell_log, 2.0**window_log, 2.0**bucket_log
        arguments = [j * h if j * h <= bucket + h else j * h - width for j in range(1 << bits)]
        table = [round(math.exp(x) * 2**EXP_TABLE_SCALE) for x in arguments]
        positions = [(i + 0.5) / 2**FACTOR_BITS * h for i in range(1 << FACTOR_BITS)]
        public = [round(math.exp(p - h / 2) * 2**EXP_FACTOR_SCALE) for p in positions]
        dealer = [round(math.exp(h / 2 - p) * 2**EXP_FACTOR_SCALE) for p in positions]
        _EXP_PLANS[key] = ExpPlan(
            bits, cell_log, torch.tensor([table]), torch.tensor(public), torch.tensor(dealer)
        )
    return _EXP_PLANS[key]


def exp_digest(buckets: Iterable[int], bucket_log: int) -> bytes:
    """SHA-256 over the integers of these windows' plans."""
    total = hashlib.sha256()
    for count in sorted(set(buckets)):
        plan = exp_plan(count, bucket_log)
        for table in (plan.table, plan.public_factor, plan.dealer_factor):
            total.update(table.numpy().tobytes())
    return total.digest()
