"""What the parties of aby3 send and draw, recorded; and what a party can compute at once from what it receives."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import torch
from recording import Draw, Recording, Sent
from uniform import LEAST, balanced_p, uniform_p

from mpc_ray.correlation.prf import Correlation
from mpc_ray.kernels.elementwise import pack_low_bytes, unpack_low_bytes
from mpc_ray.protocols.aby3.place import Place

# The purpose of the stream that pads a message of each kind, of the message's own length.
PADS = {"product": "zero", "and": "and", "share": "share", "sum": "middle", "sum of masks": "result"}


@contextmanager
def recording() -> Iterator[Recording]:
    """Everything that any party's places send, and all they draw, inside the block. Each party's own order holds."""
    found = Recording()
    send, draw = Place.send, Correlation.bytes

    def recorded_send(self: Place, peer: int, data: torch.Tensor, what: str, nbytes: int = 8) -> None:
        raw = pack_low_bytes(data.reshape(-1), nbytes).numpy().reshape(-1, nbytes)
        found.sent.append(Sent(self.me, peer % 3, 0, self.site, self.layer, self.function, what, raw))
        send(self, peer, data, what, nbytes)

    def recorded_draw(
        self: Correlation, seed: int, purpose: str, role: int, step: int, chunk: int, length: int
    ) -> np.ndarray:
        data = draw(self, seed, purpose, role, step, chunk, length)
        found.draws.append(Draw(self.me, seed, purpose, role, step, data.copy()))
        return data

    with (
        mock.patch.object(Place, "send", recorded_send),
        mock.patch.object(Correlation, "bytes", recorded_draw),
    ):
        yield found


def assert_every_byte_is_padded(found: Recording) -> set[str]:
    """At each site, what a party sends of a kind is as long as the stream of its purpose that it drew there from the
    one seed which the receiver does not hold. Returns the kinds of messages found.
    """
    drawn: Counter[tuple[int, int, str, int]] = Counter()
    for draw in found.draws:
        drawn[draw.me, draw.seed, draw.purpose, draw.site] += draw.data.size
    sent: Counter[tuple[int, int, int, str]] = Counter()
    for part in found.sent:
        sent[part.source, part.peer, part.site, part.what] += part.data.size
    for (source, peer, site, what), size in sent.items():
        assert drawn[source, (peer + 2) % 3, PADS[what], site] == size, (source, peer, what)
    return {what for *_, what in sent}


def view_tests(found: Recording, receiver: int) -> dict[str, float]:
    """Name → p-value of every test on what ``receiver`` got, and on that with what it sent or holds itself."""
    tests: dict[str, float] = {}
    groups: dict[tuple[str, str, int], list[np.ndarray]] = defaultdict(list)
    for part in found.sent:
        if part.peer == receiver:
            groups[part.function, part.what, part.data.shape[1]].append(part.data)
    for name, rows in _together(found, receiver):
        groups["together", name, rows.shape[1]].append(rows)
    for (function, what, width), parts in groups.items():
        rows = np.concatenate(parts)
        if len(rows) < LEAST:
            continue
        name = f"{function}/{what}, {width} bytes"
        tests[f"{name}: bytes"] = uniform_p(rows.reshape(-1), 256)
        tests[f"{name}: bits"] = balanced_p(rows)
        for i in range(width):
            tests[f"{name}: byte {i}"] = uniform_p(rows[:, i], 256)
    return tests


def _together(found: Recording, receiver: int) -> Iterator[tuple[str, np.ndarray]]:
    """The owner P_k: P_{k+1}'s sum, and that sum less its own first share. P_{k+1}: its own sum and that of P_{k+2},
    which would be the result without the mask R.
    """
    streams: dict[tuple[int, int, str], list[np.ndarray]] = defaultdict(list)
    for part in found.sent:
        streams[part.source, part.site, part.what].append(part.data)
    sites = {site for _, site, what in streams if what == "share"}
    for site in sorted(sites):
        mine, theirs = streams[receiver, site, "share"], streams[(receiver + 1) % 3, site, "sum"]
        for shares, sums in zip(mine, theirs, strict=True):
            if len(shares) and len(sums) <= len(shares):
                yield "sum less share", _less(sums, shares[: len(sums)])
        mine, theirs = streams[receiver, site, "sum"], streams[(receiver + 1) % 3, site, "sum of masks"]
        for own, other in zip(mine, theirs, strict=True):
            if len(own):
                yield "both sums", _less(own, _less(np.zeros_like(other), other))


def _less(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    width = a.shape[1]
    x, y = (unpack_low_bytes(torch.from_numpy(np.ascontiguousarray(v).reshape(-1)), width) for v in (a, b))
    return pack_low_bytes(x - y, width).numpy().reshape(-1, width)
