"""The dealt look-up: tables at a secret index, and splines over it.

D hands E0 and E1 XOR shares of a one-hot vector at its mask's index; with the opened index c they compute, without
a message, 2-of-2 shares of s·T[c - r] for any number of public tables, where the sign s = ±1 is known to D alone.
Up to 2^10 entries the shares are a stream and its correction (2^n/8 bytes to E1, none to E0); above, a distributed
point function (Boyle, Gilboa, Ishai, CCS 2016), key_bytes(n) to each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mpc_ray.channel.meter import ONLINE
from mpc_ray.functions.spline import Spline
from mpc_ray.functions.window import Window
from mpc_ray.kernels import dpf, lookup
from mpc_ray.kernels.elementwise import add_open, polynomial_parts, powers
from mpc_ray.kernels.lookup import PreparedTables
from mpc_ray.protocols.semi_honest.open import Opening
from mpc_ray.protocols.semi_honest.role import Dealt, Role

PLAIN_BITS = 10  # above this many bits a DPF is smaller than the one-hot itself


class OneHot:
    """XOR shares of a one-hot vector of 2^n entries at D's position, dealt in this round.

    Evaluators learn nothing of the position: E0's share is a stream, E1's is that XOR the vector; DPF keys
    hide it from whoever lacks the other root seed.
    """

    def __init__(
        self,
        role: Role,
        position: torch.Tensor | None,
        count: int,
        n: int,
        what: str = "one-hot",
        phase: str = ONLINE,
    ) -> None:
        self.role, self.n, self.count = role, n, count
        size = (1 << n) // 8
        if n <= PLAIN_BITS:
            if role.is_e1:
                self.arrival = role.expect(role.d, count * size)
                return
            self.e0 = role.drawn_with_e0(what, count * size).reshape(count, size)
            if role.is_d:
                assert position is not None
                e1, self.sign = lookup.deal_one_hot(self.e0, position)
                role.send(role.e1, e1, what, phase)
            return
        if role.is_d:
            assert position is not None
            root0 = role.drawn_with_e0("dpf root", 16 * count).reshape(count, 16)
            root1 = role.drawn_with_e1("dpf root", 16 * count).reshape(count, 16)
            keys, self.sign = dpf.generate(root0, root1, position, n)
            for evaluator in (role.e0, role.e1):
                role.send(evaluator, keys.data, what, phase)
            return
        self.root = role.drawn_with_dealer("dpf root", 16 * count).reshape(count, 16)
        self.arrival = role.expect(role.d, count * dpf.key_bytes(n))

    def bits(self) -> torch.Tensor:
        """An evaluator's XOR share, uint8 (count, 2^n/8); plain one-hots only."""
        assert self.n <= PLAIN_BITS
        return self.e0 if self.role.is_e0 else self.arrival.tensor().reshape(self.count, -1)

    def sums(self, c: torch.Tensor, tables: PreparedTables) -> torch.Tensor:
        """An evaluator's share of s·T_k[c - r], (count, k) int64; c is the opened index, mod 2^n."""
        if self.n <= PLAIN_BITS:
            total = lookup.lookup_sums(self.bits(), c, tables)
        else:
            keys = dpf.Keys(self.arrival.tensor().reshape(self.count, -1), self.n)
            party = 0 if self.role.is_e0 else 1
            total = dpf.evaluate_sums(self.root, party, keys, c, tables, self.n)
        return total if self.role.is_e0 else -total


class DealerProduct:
    """y = Σ_i β_i·G_i, with G_i 2-of-2 and β_i known to D. Begun in this round, read after it.

    E0 and E1 open m_i = G_i - a_i, where each half of a_i is a stream shared with D and unknown to the peer; D deals
    β_i and κ = Σ β_i·a_i; y = Σ m_i·[β_i] + [κ]. 1 round; 8 bytes an element and i from E0 and E1 each, and
    8 more than that from D. Shapes (parts, *shape).
    """

    def __init__(
        self,
        role: Role,
        parts: int,
        shape: tuple[int, ...],
        g: torch.Tensor | None,
        beta: torch.Tensor | None,
        phase: str = ONLINE,
    ) -> None:
        self.role, self.shape, self.phase = role, shape, phase
        full = (parts, *shape)
        if role.is_d:
            assert beta is not None
            a = role.with_e0("product", full) + role.with_e1("product", full)
            self.beta = beta.reshape(full)
            self.kappa = (self.beta * a).sum(0)
            role.deal(self.beta, full, "beta", phase=phase)
            role.deal(self.kappa, shape, "kappa", phase=phase)
            return
        assert g is not None
        self._mine = g.reshape(full) - role.with_dealer("product", full)
        role.send(role.other, self._mine, "multiply")
        self._arrival = role.expect(role.other, 8 * self._mine.numel())
        self._beta: Dealt = role.deal(None, full, "beta")
        self._kappa: Dealt = role.deal(None, shape, "kappa")
        self._m: torch.Tensor | None = None

    @property
    def ready(self) -> bool:
        """Whether its round is over (D: always)."""
        return self.role.is_d or self._arrival.ready

    @property
    def m(self) -> torch.Tensor:
        """The opened m_i (evaluators, after the round)."""
        if self._m is None:
            self._m = add_open(self._mine, self._arrival.int64(self._mine.shape))
        return self._m

    def share(self) -> torch.Tensor | None:
        """An evaluator's share of y; D gets None."""
        if self.role.is_d:
            return None
        return (self.m * self._beta.share()).sum(0) + self._kappa.share()


def window_index(value: torch.Tensor, t: int, n: int) -> torch.Tensor:
    """Bits t … t+n-1, flat: the index of c or of r in a window."""
    return ((value >> t) & ((1 << n) - 1)).reshape(-1)


def window_fraction(value: torch.Tensor, t: int, b: int) -> torch.Tensor:
    """The b bits below bit t, flat: the position inside the cell (zeros appended where t < b)."""
    low = value & ((1 << t) - 1)
    return (low >> (t - b) if t >= b else low << (b - t)).reshape(-1)


def deal_index(role: Role, opening: Opening, window: Window) -> OneHot:
    """The one-hot at the mask's index in ``window``, for an opening begun in this round."""
    position = window_index(opening.r, window.t, window.n) if role.is_d else None
    return OneHot(role, position, opening.shape.numel(), window.n, phase=opening.phase)


@dataclass
class SplineProduct:
    """f at an opened argument, begun in this round. ``flag``: how many cells below the calibrated range, 0 or 1."""

    value: DealerProduct
    flag: DealerProduct | None


def spline_product(role: Role, spline: Spline, one_hot: OneHot, opening: Opening) -> SplineProduct:
    """f(x) by ``spline`` for an opening of x - low: begins the round that multiplies signs and powers of r̂ in.

    Bytes an element: (d+1)·8 from E0 and E1 each, (d+2)·8 from D; with a flag 8 and 16 more.
    """
    window, parts, shape = spline.window, spline.degree + 1, tuple(opening.shape)
    if role.is_d:
        beta = powers(one_hot.sign, window_fraction(opening.r, window.t, spline.fraction), spline.degree)
        value = DealerProduct(role, parts, shape, None, beta, opening.phase)
        flag = (
            DealerProduct(role, 1, shape, None, one_hot.sign, opening.phase)
            if spline.flags is not None
            else None
        )
        return SplineProduct(value, flag)
    sums = one_hot.sums(window_index(opening.c, window.t, window.n), spline.prepared_on(role.runtime.place))
    position = window_fraction(opening.c, window.t, spline.fraction)
    value = DealerProduct(role, parts, shape, polynomial_parts(sums[:, :parts].contiguous(), position), None)
    flag = DealerProduct(role, 1, shape, sums[:, parts], None) if spline.flags is not None else None
    return SplineProduct(value, flag)
