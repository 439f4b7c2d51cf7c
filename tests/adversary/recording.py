"""Watches, and breaks, the randomness and the messages of all parties of this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import torch

from mpc_ray.correlation.prf import PRIVATE, Correlation
from mpc_ray.kernels import dpf
from mpc_ray.protocols.semi_honest.role import Role


@dataclass(frozen=True)
class Sent:
    """One part of a frame. ``data``: uint8 (elements, width of an element on the wire; 1 where packed)."""

    source: int
    peer: int
    role: int
    site: int
    layer: str
    function: str
    what: str
    data: np.ndarray


@dataclass(frozen=True)
class Draw:
    """One draw of a stream at party ``me``."""

    me: int
    seed: int
    purpose: str
    role: int
    site: int
    data: np.ndarray


@dataclass
class Recording:
    sent: list[Sent] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)


@contextmanager
def recording() -> Iterator[Recording]:
    """Everything that any party's roles send, and all they draw, inside the block. Each party's own order holds."""
    found = Recording()
    send, draw = Role.send, Correlation.bytes

    def recorded_send(self: Role, peer: int, data: torch.Tensor | np.ndarray, what: str, *phase: str) -> None:
        array = np.ascontiguousarray(data.numpy() if isinstance(data, torch.Tensor) else data)
        width = array.itemsize * (array.shape[-1] if array.dtype == np.uint8 and array.ndim == 2 else 1)
        raw = np.frombuffer(array.tobytes(), np.uint8).reshape(-1, width)
        found.sent.append(
            Sent(self.runtime.me, peer, self.k, self.site, self.layer, self.function, what, raw)
        )
        send(self, peer, data, what, *phase)

    def recorded_draw(
        self: Correlation, seed: int, purpose: str, role: int, step: int, chunk: int, length: int
    ) -> np.ndarray:
        data = draw(self, seed, purpose, role, step, chunk, length)
        found.draws.append(Draw(self.me, seed, purpose, role, step, data.copy()))
        return data

    with (
        mock.patch.object(Role, "send", recorded_send),
        mock.patch.object(Correlation, "bytes", recorded_draw),
    ):
        yield found


@contextmanager
def unmasked(purpose: str) -> Iterator[None]:
    """Streams of this purpose are zero at all parties: what a forgotten mask would look like."""
    draw = Correlation.bytes

    def zeros(
        self: Correlation, seed: int, name: str, role: int, step: int, chunk: int, length: int
    ) -> np.ndarray:
        data = draw(self, seed, name, role, step, chunk, length)
        return np.zeros_like(data) if name == purpose else data

    with mock.patch.object(Correlation, "bytes", zeros):
        yield


# The purpose of the stream that pads a message of each kind, of the message's own length.
PADS = {
    "open": "mask", "multiply": "product", "rotated one-hot": "rotation pad", "theta": "eta", "and": "and mask",
    "select": "select mask", "reference": "reference mask",
}  # fmt: skip
DEALT = {
    "beta", "kappa", "r_hi", "r_msb", "r_hi²", "r_hi·r_msb", "r_hi·beta", "r_msb·beta", "range check", "thermometer",
    "zero test", "zero counts", "one-hot", "digits", "and products", "rho", "rho·r_hi", "rho·r_msb", "reshare",
}  # fmt: skip


def assert_every_byte_is_padded(found: Recording) -> set[str]:
    """At each site, what a party sends is as long as the stream it drew for it from the one seed that the receiver
    does not hold (θ: from its private seed). Two exceptions in length: counts are in Z_2^8 where this is used, their
    masks have 2 bytes; a point function's key needs the 16-byte root that its receiver lacks.

    Returns the kinds of messages found.
    """
    drawn: Counter[tuple[int, int, str, int, int]] = Counter()
    for draw in found.draws:
        drawn[draw.me, draw.seed, draw.purpose, draw.role, draw.site] += draw.data.size
    sent: Counter[tuple[int, int, int, int, str]] = Counter()
    for part in found.sent:
        point = part.what == "one-hot" and part.data.shape[1] == dpf.key_bytes(16)
        what = "point function" if point else part.what
        sent[part.source, part.peer, part.role, part.site, what] += (
            len(part.data) if point else part.data.size
        )
    for (source, peer, role, site, what), size in sent.items():
        lacks = PRIVATE if what == "theta" else (peer + 2) % 3
        purpose, each = {"count": ("count mask", 2), "point function": ("dpf root", 16)}.get(what, ("", 1))
        purpose = purpose or PADS.get(what) or what
        assert what in DEALT or purpose != what, f"{what}: no pad is known for it"
        assert drawn[source, lacks, purpose, role, site] == each * size, (source, peer, what)
    return {what for *_, what in sent}
