"""The reference of a softmax row: the lower edge of its highest non-empty bucket, known to nobody.

From opened scores c = s - low + r, four rounds: (1) D deals a thermometer code, with the opening; (2) E0 and E1 hold
counts of scores in or above each bucket and open them under a mask; (3) a zero test gives XOR shares of the highest
non-empty bucket as a one-hot, which goes, under a common pad and a common rotation ρ, to D; (4) D sees it at the
uniform position μ = m + ρ and answers θ = μ·w - η. Then c + ρ·w - θ and r + η are the masked form of s - m·w.

A rotated thermometer would not hide (its number of ones is the maximum); only the one-hot difference is sent. θ is
reduced modulo the window, so its high bits tell nothing; η is D's alone.

Or three, for more bytes (``ReferenceByOpening``): the zero test's one-hots are shared in Z_b instead of Z_2, so that E0
and E1 hold the number of empty buckets, hence m, in Z_b and open m·w - η to each other, η = η0 + η1 known to D.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mpc_ray.channel.meter import OFFLINE
from mpc_ray.kernels import histogram
from mpc_ray.kernels.elementwise import pack_bits, unpack_bits
from mpc_ray.kernels.packing import pack_flags, unpack_flags
from mpc_ray.protocols.runtime import Protocol
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


class CountOpening:
    """Counts opened in Z_2^bits under D's mask, begun in this round: k bits each way."""

    def __init__(self, role: Role, counts: torch.Tensor | None, number: int, bits: int) -> None:
        self.role, self.number, self.bits = role, number, bits
        self._modulus = (1 << bits) - 1
        if role.is_d:
            self.r = (self._mask(role.drawn_with_e0) + self._mask(role.drawn_with_e1)) & self._modulus
            return
        assert counts is not None
        self._mine = (counts.reshape(-1).to(torch.int64) + self._mask(role.drawn_with_dealer)) & self._modulus
        role.send(role.other, pack_bits(self._mine, bits), "count")
        self._arrival = role.expect(role.other, -(-number * bits // 8))

    def _mask(self, stream: Callable[[str, int], torch.Tensor]) -> torch.Tensor:
        return stream("count mask", self.number * 2).view(torch.int16).to(torch.int64)

    def c(self) -> torch.Tensor:
        """The opened counts + r, int64 (number,); evaluators, after the round."""
        theirs = unpack_bits(self._arrival.tensor(), self.number, self.bits)
        return (self._mine + theirs) & self._modulus


class ZeroTest:
    """XOR shares of [count = 0], dealt and opened in this round: k bits each way, 2^k bits from D to E1."""

    def __init__(self, role: Role, counts: torch.Tensor | None, shape: tuple[int, int], bits: int) -> None:
        self.shape = shape
        number = shape[0] * shape[1]
        self._opening = CountOpening(role, counts, number, bits)
        r = self._opening.r if role.is_d else None
        self._one_hot = OneHot(role, r, number, bits, "zero test", OFFLINE)

    def share(self) -> torch.Tensor:
        """An evaluator's XOR share, uint8 of 0 and 1."""
        return histogram.pick_bits(self._one_hot.bits(), self._opening.c()).reshape(self.shape)


class EmptyBuckets:
    """Shares mod 2^width of how many of a row's counts are 0, dealt and opened in this round; width ≤ 8.

    D deals a one-hot of 2^k entries of ``width`` bits for each count, at its mask: E0's is a stream, E1 receives the
    stream less the one-hot, 2^k·width/8 bytes, and takes its negative. k bits each way for the opening.
    """

    def __init__(
        self, role: Role, counts: torch.Tensor | None, shape: tuple[int, int], bits: int, width: int
    ) -> None:
        self.role, self.shape, self.width = role, shape, width
        number = shape[0] * shape[1]
        self._opening = CountOpening(role, counts, number, bits)
        # Where each count's entries begin.
        self._first = torch.arange(number, device=role.runtime.place) << bits
        length = (number * width << bits) // 8
        if role.is_e1:
            self._arrival = role.expect(role.d, length)
            return
        self._entries = role.drawn_with_e0("zero counts", length)
        if role.is_d:
            entries = self._entries.clone()
            at, shift, value = _field(entries, self._first + self._opening.r, width)
            mask = (1 << width) - 1
            new = value & ~(mask << shift) | (((value >> shift) - 1) & mask) << shift
            entries[at] = (new & 255).to(torch.uint8)
            spilt = shift + width > 8  # else the next byte may be another count's
            entries[at[spilt] + 1] = (new[spilt] >> 8).to(torch.uint8)
            role.send(role.e1, entries, "zero counts", OFFLINE)

    def share(self) -> torch.Tensor:
        """An evaluator's share mod 2^width, int64 (rows,); the sum over a row's counts."""
        entries = self._entries if self.role.is_e0 else self._arrival.tensor()
        _, shift, value = _field(entries, self._first + self._opening.c(), self.width)
        picked = (value >> shift).reshape(self.shape).sum(-1)
        return (picked if self.role.is_e0 else -picked) & ((1 << self.width) - 1)


def _field(
    entries: torch.Tensor, index: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where entries of ``width`` bits lie: (byte, bit in it, the two bytes from there on)."""
    bit = index * width
    at, shift = bit >> 3, bit & 7
    after = (at + 1).clamp(max=len(entries) - 1)
    return at, shift, entries[at].to(torch.int64) | entries[after].to(torch.int64) << 8


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


class ReferenceByDealer:
    """The reference of each row through D: count, rotation, θ: three rounds, few bytes. ``eta``: D's private mask.

    ``step``: a bucket is 2^step units of θ. (rows,)
    """

    def __init__(self, role: Role, rows: int, buckets: int, step: int) -> None:
        self.role, self.rows, self.buckets, self.step = role, rows, buckets, step
        self.turns = buckets << step
        if role.is_d:
            self.eta = role.drawn_privately("eta", rows).to(torch.int64) & (self.turns - 1)

    def find(self, counts: torch.Tensor | None, bits: int) -> Protocol[torch.Tensor | None]:
        """m·2^step - η at evaluators, up to multiples of ``turns``; None at D. 3 rounds."""
        zero = ZeroTest(self.role, counts, (self.rows, self.buckets - 1), bits)
        yield
        rotation = Rotation(self.role, zero, self.rows, self.buckets)
        yield
        theta = Theta(self.role, rotation, self.eta if self.role.is_d else None, self.step, self.turns)
        yield
        return None if self.role.is_d else theta.value() - (rotation.rho << self.step)


class ReferenceByOpening:
    """The reference of each row opened to E0 and E1 under η = η0 + η1, known to D: two rounds, log2(buckets) times the
    zero test's bytes. As ``ReferenceByDealer`` else; D receives nothing.
    """

    def __init__(self, role: Role, rows: int, buckets: int, step: int) -> None:
        self.role, self.rows, self.buckets, self.step = role, rows, buckets, step
        self._last = (buckets << step) - 1
        if role.is_d:
            self.eta = (self._mask(role.drawn_with_e0) + self._mask(role.drawn_with_e1)) & self._last
        else:
            self._own = self._mask(role.drawn_with_dealer)

    def _mask(self, stream: Callable[[str, int], torch.Tensor]) -> torch.Tensor:
        return stream("reference mask", self.rows).to(torch.int64)

    def find(self, counts: torch.Tensor | None, bits: int) -> Protocol[torch.Tensor | None]:
        """m·2^step - η at evaluators, up to multiples of buckets·2^step; None at D. 2 rounds; a byte a row each way."""
        role, width = self.role, self.buckets.bit_length() - 1
        empty = EmptyBuckets(role, counts, (self.rows, self.buckets - 1), bits, width)
        yield
        if role.is_d:
            yield
            return None
        highest = -empty.share() + (self.buckets - 1 if role.is_e0 else 0)
        mine = ((highest << self.step) - self._own) & self._last
        role.send(role.other, mine.to(torch.uint8), "reference")
        arrival = role.expect(role.other, self.rows)
        yield
        return mine + arrival.tensor().to(torch.int64)
