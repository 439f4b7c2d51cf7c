"""The reference of a softmax row: the lower edge of its highest non-empty bucket, known to nobody.

From opened scores c = s - low + r, four rounds: (1) D deals a thermometer code, with the opening; (2) E0 and E1 hold
counts of scores in or above each bucket and open them under a mask; (3) a zero test gives XOR shares of the highest
non-empty bucket as a one-hot, which goes, under a common pad and a common rotation ρ, to D; (4) D sees it at the
uniform position μ = m + ρ and answers θ = μ·w - η. Then c + ρ·w - θ and r + η are the masked form of s - m·w.

A rotated thermometer would not hide (its number of ones is the maximum); only the one-hot difference is sent. θ is
reduced modulo the window, so its high bits tell nothing; η is D's alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mpc_ray.channel.meter import OFFLINE
from mpc_ray.kernels import histogram
from mpc_ray.kernels.elementwise import pack_bits, unpack_bits
from mpc_ray.kernels.packing import pack_flags, unpack_flags
from mpc_ray.protocols.semi_honest.lookup import OneHot
from mpc_ray.protocols.semi_honest.role import Role


class Thermometer:
    """A one-hot at r's bucket for every score, shared in Z_2^k; dealt in this round.

    E0's share is a stream; E1 receives onehot - stream, buckets·k/8 bytes a score.
    """

    def __init__(
        self, role: Role, bucket: torch.Tensor | None, shape: tuple[int, int], buckets: int, bits: int
    ) -> None:
        self.role, self.bits = role, bits
        self.width = 8 if bits == 8 else 16
        self.shape = (*shape, buckets)
        self._count = shape[0] * shape[1] * buckets
        if role.is_e1:
            self._arrival = role.expect(role.d, -(-self._count * bits // 8))
            return
        dtype = torch.uint8 if self.width == 8 else torch.uint16
        raw = role.drawn_with_e0("thermometer", self._count * self.width // 8)
        self._e0 = raw.view(dtype).reshape(self.shape)
        if role.is_d:
            assert bucket is not None
            e1 = histogram.deal_thermometer(self._e0, bucket)
            role.send(role.e1, e1 if self.width == 8 else pack_bits(e1.reshape(-1), bits), "thermometer")

    def _entries(self) -> torch.Tensor:
        if self.role.is_e0:
            return self._e0
        raw = self._arrival.tensor()
        if self.width == 8:
            return raw.reshape(self.shape)
        return unpack_bits(raw, self._count, self.bits).to(torch.uint16).reshape(self.shape)

    def counts(self, index: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        """An evaluator's share of how many scores of a row lie in bucket b or above, for b = 1 …: (rows, buckets-1)."""
        return histogram.suffix_sum(histogram.thermometer_counts(self._entries(), index, keep, self.width))[
            :, 1:
        ]


class ZeroTest:
    """XOR shares of [count = 0], dealt and opened in this round: k bits each way, 2^k bits from D to E1."""

    def __init__(self, role: Role, counts: torch.Tensor | None, shape: tuple[int, int], bits: int) -> None:
        self.role, self.shape, self.bits = role, shape, bits
        self._count = shape[0] * shape[1]
        self._modulus = (1 << bits) - 1
        if role.is_d:
            r = (self._mask(role.drawn_with_e0) + self._mask(role.drawn_with_e1)) & self._modulus
            self._one_hot = OneHot(role, r, self._count, bits, "zero test", OFFLINE)
            return
        assert counts is not None
        self._mine = (counts.reshape(-1).to(torch.int64) + self._mask(role.drawn_with_dealer)) & self._modulus
        role.send(role.other, pack_bits(self._mine, bits), "count")
        self._arrival = role.expect(role.other, -(-self._count * bits // 8))
        self._one_hot = OneHot(role, None, self._count, bits, "zero test", OFFLINE)

    def _mask(self, stream: Callable[[str, int], torch.Tensor]) -> torch.Tensor:
        return stream("count mask", self._count * 2).view(torch.int16).to(torch.int64)

    def share(self) -> torch.Tensor:
        """An evaluator's XOR share, uint8 of 0 and 1."""
        theirs = unpack_bits(self._arrival.tensor(), self._count, self.bits)
        c = (self._mine + theirs) & self._modulus
        return histogram.pick_bits(self._one_hot.bits(), c).reshape(self.shape)


class Rotation:
    """The one-hot of the highest non-empty bucket, to D, rotated by ρ. buckets bits a row from E0 and E1 each.

    ρ comes from one byte, so it is uniform, and D learns nothing, only if buckets is a power of two up to 256.
    """

    def __init__(self, role: Role, zero: ZeroTest, rows: int, buckets: int) -> None:
        if buckets not in (8, 16, 32, 64, 128, 256):
            raise ValueError(f"{buckets} buckets cannot be rotated uniformly by a byte")
        self.role, self.rows, self.buckets = role, rows, buckets
        length = rows * buckets // 8
        if role.is_d:
            self._arrivals = (role.expect(role.e0, length), role.expect(role.e1, length))
            return
        below = zero.share()
        first = below.new_zeros(rows, 1)
        last = below.new_full((rows, 1), 1 if role.is_e0 else 0)
        steps = torch.cat([first, below], 1) ^ torch.cat([below, last], 1)
        pad = unpack_flags(role.drawn_of_evaluators("rotation pad", length), rows * buckets)
        self.rho = role.drawn_of_evaluators("rotation", rows).to(torch.int64) & (buckets - 1)
        rotated = histogram.rotate_rows(steps ^ pad.reshape(rows, buckets), self.rho)
        role.send(role.d, pack_flags(rotated.reshape(-1)), "rotated one-hot")

    def position(self) -> torch.Tensor:
        """D's view: μ = m + ρ mod buckets, uniform; int64 (rows,)."""
        both = self._arrivals[0].tensor() ^ self._arrivals[1].tensor()
        return unpack_flags(both, self.rows * self.buckets).reshape(self.rows, self.buckets).argmax(1)


class Theta:
    """D's answer θ = μ·2^step - η mod ``turns``, one byte a row to E0 and E1."""

    def __init__(
        self, role: Role, rotation: Rotation, eta: torch.Tensor | None, step: int, turns: int
    ) -> None:
        self.role = role
        if not role.is_d:
            self._arrival = role.expect(role.d, rotation.rows)
            return
        assert eta is not None
        theta = ((rotation.position() << step) - eta) & (turns - 1)
        for evaluator in (role.e0, role.e1):
            role.send(evaluator, theta.to(torch.uint8), "theta")

    def value(self) -> torch.Tensor:
        """θ at an evaluator, int64 (rows,)."""
        return self._arrival.tensor().to(torch.int64)
