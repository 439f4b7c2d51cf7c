"""Openings under a mask that only the dealer knows, and resharing.

After an opening the value is in *masked form*: c, public to E0 and E1, minus r, known to D.
"""

from __future__ import annotations

import torch

from mpc_ray.channel.meter import OFFLINE, ONLINE
from mpc_ray.kernels.elementwise import add_open
from mpc_ray.protocols.runtime import Arrival, Protocol
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.sharing.replicated import Shared


class Opening:
    """An opening begun in this round. E0 and E1 read ``c`` after the round; D knows ``r`` at once."""

    def __init__(
        self, shape: torch.Size, mine: torch.Tensor | None, arrival: Arrival | None, r: torch.Tensor | None
    ):
        self.shape = shape
        self.phase = ONLINE  # of what D deals for r: OFFLINE where r is free of D's own summand
        self._mine, self._arrival, self._r = mine, arrival, r
        self._c: torch.Tensor | None = None

    @property
    def ready(self) -> bool:
        """Whether the round of this opening is over (D: always)."""
        return self._c is not None or self._arrival is None or self._arrival.ready

    @property
    def r(self) -> torch.Tensor:
        assert self._r is not None, "only the dealer knows r"
        return self._r

    @property
    def c(self) -> torch.Tensor:
        if self._c is None:
            assert self._mine is not None and self._arrival is not None, "the dealer never learns c"
            self._c = add_open(self._mine, self._arrival.int64(self.shape))
            self._mine = None
        return self._c


def open_masked(role: Role, summand: torch.Tensor | None, shape: torch.Size, constant: int = 0) -> Opening:
    """Open z + constant + r to E0 and E1. Begins now, is done after the next round.

    ``summand``: each party's own summand of [z]. With all three, r = ρ0 + ρ1 - z_D: the dealer's summand
    rides in the mask. For a value that is 2-of-2 the dealer passes None, and r = ρ0 + ρ1.
    1 round; E0 and E1 send 8 bytes an element each, D nothing.
    Reveals nothing: E1's half of the mask, ρ1, comes from S_{k+2}, which E0 lacks, and E0's from S_k,
    which E1 lacks, so c is uniform given all that the receiver holds.
    """
    if role.is_d:
        r = role.add_with_e1(role.with_e0("mask", shape), "mask")
        opening = Opening(shape, None, None, r if summand is None else r - summand)
        opening.phase = OFFLINE if summand is None else ONLINE
        return opening
    assert summand is not None
    mine = role.add_with_dealer(summand, "mask", constant if role.is_e0 else 0)
    role.send(role.other, mine, "open")
    return Opening(shape, mine, role.expect(role.other, 8 * mine.numel()), None)


class Resharing:
    """2-of-2 shares of y at E0 and E1 → ⟨y⟩, begun in this round. E0 and E1 send 8 bytes an element each.

    y_k and y_{k+2} are fresh streams; E0 and E1 swap what is left of their halves. Each half is padded by
    a stream that its receiver lacks. D passes None.
    """

    def __init__(self, role: Role, y: torch.Tensor | None, shape: torch.Size, scale: int) -> None:
        self.role, self.shape, self.scale = role, shape, scale
        if role.is_d:
            self._first, self._second = role.with_e1("reshare", shape), role.with_e0("reshare", shape)
            return
        assert y is not None
        self._first = role.with_dealer("reshare", shape)
        self._rest = y - self._first
        role.send(role.other, self._rest, "reshare")
        self._arrival = role.expect(role.other, 8 * self._rest.numel())

    def result(self) -> Shared:
        """⟨y⟩ after the round."""
        if self.role.is_d:
            return Shared(self._first, self._second, self.scale)
        middle = add_open(self._rest, self._arrival.int64(self.shape))
        if self.role.is_e0:
            return Shared(self._first, middle, self.scale)
        return Shared(middle, self._first, self.scale)


def reshare(role: Role, y: torch.Tensor | None, shape: torch.Size, scale: int) -> Protocol[Shared]:
    """2-of-2 shares → ⟨y⟩. 1 round; see ``Resharing``."""
    resharing = Resharing(role, y, shape, scale)
    yield
    return resharing.result()
