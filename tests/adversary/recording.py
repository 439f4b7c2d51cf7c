"""Watches, and breaks, the randomness and the messages of all parties of this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import torch

from mpc_ray.correlation.prf import Correlation
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

    def recorded_send(self: Role, peer: int, data: torch.Tensor | np.ndarray, what: str) -> None:
        array = np.ascontiguousarray(data.numpy() if isinstance(data, torch.Tensor) else data)
        width = array.itemsize * (array.shape[-1] if array.dtype == np.uint8 and array.ndim == 2 else 1)
        raw = np.frombuffer(array.tobytes(), np.uint8).reshape(-1, width)
        found.sent.append(
            Sent(self.runtime.me, peer, self.k, self.site, self.layer, self.function, what, raw)
        )
        send(self, peer, data, what)

    def recorded_draw(
        self: Correlation, seed: int, purpose: str, role: int, step: int, chunk: int, length: int
    ) -> np.ndarray:
        data = draw(self, seed, purpose, role, step, chunk, length)
        found.draws.append(Draw(self.me, seed, purpose, role, step, data.copy()))
        return data

    with mock.patch.object(Role, "send", recorded_send), mock.patch.object(Correlation, "bytes", recorded_draw):
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
