"""A corrupt party of malicious_3pc: what it may do to any part of any frame, and what becomes of the others.

The party runs the honest program over a channel that does one wrong thing, at one place. ``survey`` does every wrong
thing at every place of a sub-protocol, or samples of them; ``python tests/adversary/attacks.py`` does all, prints a
line of each, and fails if one gave a wrong result or an abort that does not name the corrupt party.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "protocols")]

import numpy as np
import torch
from three import share

from mpc_ray.channel.local import local_channels
from mpc_ray.channel.wrappers import _Around
from mpc_ray.correlation.prf import Correlation
from mpc_ray.errors import BadFrame, CheatingDetected, MpcError, PeerLost
from mpc_ray.protocols.aby3 import compare, convert, product, truncate
from mpc_ray.protocols.aby3.bits import Bits, and_, majority
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.malicious.background import Background
from mpc_ray.protocols.malicious.copies import Copies
from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.sharing.replicated import Shared, reconstruct

JOB = bytes(range(16))
TIMEOUT_S = 20.0
SILENCE_S = 0.5

# -- what a corrupt party does --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spot:
    """One part of one frame of one party."""

    party: int
    peer: int
    step: int
    part: int
    length: int


Change = Callable[[bytes, "CorruptChannel", Spot], bytes | None]


def _flipped(data: bytes, channel: CorruptChannel, spot: Spot) -> bytes:
    bit = channel.rng.integers(8 * len(data))
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << int(bit % 8)]) + data[bit // 8 + 1 :]


def _added(data: bytes, channel: CorruptChannel, spot: Spot) -> bytes:
    size = min(8, len(data))
    at = int(channel.rng.integers(len(data) - size + 1))
    value = (int.from_bytes(data[at : at + size], "little") + 1) % (1 << 8 * size)
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


def _replayed(data: bytes, channel: CorruptChannel, spot: Spot) -> bytes:
    """An earlier part of that length, to anybody; else one that was never sent."""
    before = [old for old in channel.sent if len(old) == len(data) and old != data]
    return before[-1] if before else bytes(len(data))


def _reordered(data: bytes, channel: CorruptChannel, spot: Spot) -> bytes:
    """Its two halves, exchanged; of one byte, its complement."""
    half = len(data) // 2
    turned = data[half:] + data[:half]
    return turned if turned != data else bytes(255 - b for b in data)


def _garbage(data: bytes, channel: CorruptChannel, spot: Spot) -> bytes:
    return channel.rng.bytes(len(data))


def _truncated(data: bytes, channel: CorruptChannel, spot: Spot) -> bytes:
    return data[:-1]


def _silent(data: bytes, channel: CorruptChannel, spot: Spot) -> None:
    return None


CHANGES: dict[str, Change] = {
    "flip": _flipped,
    "add": _added,
    "replay": _replayed,
    "reorder": _reordered,
    "garbage": _garbage,
    "truncate": _truncated,
    "silence": _silent,
    "lie": _flipped,  # in the party's own memory too: it goes on with what it sent
}


class CorruptChannel(_Around):
    """A channel of which one part of one frame is changed. ``spots``: every part that it sent while ``armed``."""

    def __init__(self, channel: Any, spot: Spot | None = None, change: str = "", seed: int = 0) -> None:
        super().__init__(channel)
        self.spots: list[Spot] = []
        self.sent: list[bytes] = []
        self.rng = np.random.default_rng(seed)
        self.hit = self.differs = False
        self.spot, self.change = spot, change
        self.armed = True

    def send(self, peer: int, step: int, clock: int, parts: Sequence[memoryview]) -> None:
        """Send, or do the one wrong thing."""
        if not self.armed:
            self._channel.send(peer, step, clock, parts)
            return
        out: list[memoryview] = []
        for i, part in enumerate(parts):
            spot = Spot(self.me, peer, step, i, len(part))
            self.spots.append(spot)
            data: bytes | None = bytes(part)
            if spot == self.spot:
                self.hit = True
                changed = CHANGES[self.change](bytes(part), self, spot)
                self.differs = changed != data
                if changed is None:
                    return  # nor anything else of this frame
                if self.change == "lie" and not part.readonly:
                    part[:] = changed
                data = changed
            assert data is not None
            self.sent.append(data)
            out.append(memoryview(data))
        self._channel.send(peer, step, clock, out)


# -- sub-protocols --------------------------------------------------------------------------------------------

Result = Any
Body = Callable[[Runtime], Protocol[Result]]


@dataclass(frozen=True)
class Case:
    """A sub-protocol on small inputs: its program, and whether what all three hold at its end is right."""

    name: str
    body: Body
    right: Callable[[list[Result]], bool]


def numbers(results: list[Shared]) -> torch.Tensor:
    return reconstruct(results)


def planes(results: list[Bits]) -> torch.Tensor:
    for i in range(3):
        assert torch.equal(results[i].next, results[(i + 1) % 3].own)
    return results[0].own ^ results[1].own ^ results[2].own


def _equal(
    found: Callable[[list[Any]], torch.Tensor], expected: torch.Tensor, slack: int = 0
) -> Callable[[list[Any]], bool]:
    return lambda results: bool(((found(results) - expected).abs() <= slack).all())


def cases() -> list[Case]:
    """Every sub-protocol with messages of its own, on as few elements as it takes."""
    rng = np.random.default_rng(5)

    def integers(*shape: int, bound: int = 1 << 20) -> torch.Tensor:
        return torch.from_numpy(rng.integers(-bound, bound, shape))

    def bits_of(words: torch.Tensor) -> list[Bits]:
        held = share(words, seed=9)
        third = held[0].own ^ held[1].own ^ words
        pieces = [held[0].own, held[1].own, third]
        return [Bits(pieces[i], pieces[(i + 1) % 3]) for i in range(3)]

    x, y = integers(6), integers(6)
    row, other = integers(2, 3), integers(2, 3)
    left, right = integers(2, 3), integers(3, 2)
    p, q = integers(2, 3), integers(2, 3)
    wide = integers(64, bound=1 << 40)
    bits = integers(1, 1)
    sx, sy, srow, sother = share(x, 0, 1), share(y, 0, 2), share(row, 0, 3), share(other, 0, 4)
    sleft, sright, swide = share(left, 0, 5), share(right, 0, 6), share(wide, 20, 7)
    bp, bq, bbits = bits_of(p), bits_of(q), bits_of(bits)
    bit = torch.tensor([[(int(bits) >> j) & 1 for j in range(64)]])
    pair = integers(2, 2, bound=1 << 30)
    spair = share(pair, 20, 8)

    def at(name: str) -> Callable[[Runtime], Place]:
        return lambda r: Place(r, "attack", name)

    place = at("f")
    bits_right = _equal(lambda z: numbers(z).reshape(1, -1), bit)
    return [
        Case("product", lambda r: product.multiply(place(r), sx[r.me], sy[r.me]), _equal(numbers, x * y)),
        Case(
            "dot product",
            lambda r: product.dot(place(r), srow[r.me], sother[r.me], 1),
            _equal(numbers, (row * other).sum(1)),
        ),
        Case(
            "matrix product",
            lambda r: product.matmul(place(r), sleft[r.me], sright[r.me]),
            _equal(numbers, left @ right),
        ),
        Case("AND", lambda r: and_(place(r), bp[r.me], bq[r.me]), _equal(planes, p & q)),
        Case("majority", lambda r: majority(place(r), bp[r.me]), _equal(planes, _majority(bp))),
        Case("bits to numbers", lambda r: convert.to_number(place(r), bbits[r.me], 64), bits_right),
        Case(
            "truncation",
            lambda r: truncate.truncate(place(r), swide[r.me], 16),
            _equal(numbers, wide >> 16, 2),
        ),
        Case("sign", lambda r: _sign(place(r), swide[r.me]), _equal(numbers, (wide < 0).to(torch.int64))),
        Case("ReLU", lambda r: compare.relu(place(r), swide[r.me]), _equal(numbers, wide.clamp(min=0))),
        Case(
            "maximum",
            lambda r: compare.maximum(place(r), spair[r.me]),
            _equal(numbers, pair.max(-1).values),
        ),
    ]


def _majority(held: list[Bits]) -> torch.Tensor:
    a, b, c = (h.own for h in held)
    return (a & b) ^ (b & c) ^ (a & c)


def _sign(place: Place, x: Shared) -> Protocol[Shared]:
    bit = yield from compare.less_than_zero(place, x)
    return (yield from compare.number_of(place, bit, x.shape))


# -- one attack -----------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of the two honest parties. ``verdict``: "abort", "right" (both have the true result) or "wrong".

    ``blamed``: every honest error contains the corrupt party; ``named``: some error says at which step or chunk.
    """

    verdict: str
    seconds: float
    blamed: bool = True
    named: bool = True
    errors: list[BaseException] = field(default_factory=list)


def blames(error: BaseException, corrupt: int) -> bool:
    """Whether an honest party's error has the corrupt party among its possible culprits, and no third."""
    if isinstance(error, CheatingDetected):
        return corrupt in error.culprits and len(error.culprits) <= 2
    if isinstance(error, PeerLost):
        return error.peer == f"party {corrupt}"
    return isinstance(error, BadFrame) and f"party {corrupt}" in str(error)


def run(
    case: Case, spot: Spot | None = None, change: str = "", seed: int = 0, proved: bool = True
) -> tuple[Outcome, list[CorruptChannel]]:
    """The case with one part of one frame changed (none: an honest run). Not ``proved``: as aby3 runs it."""
    timeout = SILENCE_S if change == "silence" else TIMEOUT_S
    channels = [
        CorruptChannel(c, spot if spot is not None and spot.party == i else None, change, seed)
        for i, c in enumerate(local_channels(timeout))
    ]
    seeds = [os.urandom(32) for _ in range(3)]
    results: list[Any] = [None] * 3
    errors: list[BaseException | None] = [None] * 3
    started = time.monotonic()

    def party(me: int) -> None:
        try:
            held = {i: seeds[i] for i in (me, (me + 1) % 3)}
            runtime = Runtime(channels[me], Correlation(me, held, os.urandom(32)))
            runtime.begin(JOB, 0)
            program = case.body(runtime)
            if proved:
                program = Background(runtime, JOB, 0, Copies(me)).alongside(program)
            results[me] = runtime.run(program)
        except BaseException as error:  # noqa: BLE001 - judged below
            errors[me] = error
            channels[me].fail(error)

    threads = [threading.Thread(target=party, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * TIMEOUT_S)
        assert not thread.is_alive(), "a party hangs"
    seconds = time.monotonic() - started
    if spot is None:
        assert errors == [None] * 3, errors
        return Outcome("right" if case.right(results) else "wrong", seconds), channels
    honest = [i for i in range(3) if i != spot.party]
    found: list[BaseException] = [e for i in honest if (e := errors[i]) is not None]
    if found:
        names = ("step", "chunk", "silent", "copies")
        named = any(word in str(e) for e in found for word in names)
        assert all(isinstance(e, MpcError) for e in found), found
        return Outcome("abort", seconds, all(blames(e, spot.party) for e in found), named, found), channels
    try:
        right = case.right(_completed(results, honest))
    except Disagreement:
        right = False
    return Outcome("right" if right else "wrong", seconds), channels


class Disagreement(Exception):
    """Two honest parties hold different copies of one piece."""


def _completed(results: list[Any], honest: list[int]) -> list[Any]:
    """All three parties' pieces, from what the two honest ones hold: the third piece is held by one of them."""
    pieces: dict[int, torch.Tensor] = {}
    for i in honest:
        for index, piece in ((i, results[i].own), ((i + 1) % 3, results[i].next)):
            if index in pieces and not torch.equal(pieces[index], piece):
                raise Disagreement
            pieces[index] = piece
    kind = type(results[honest[0]])
    extra = (results[honest[0]].scale,) if kind is Shared else ()
    return [kind(pieces[i], pieces[(i + 1) % 3], *extra) for i in range(3)]


# -- many attacks ---------------------------------------------------------------------------------------------


def spots_of(case: Case, proved: bool = True) -> list[Spot]:
    """Every part of every frame of all three parties in an honest run, which must come out right."""
    outcome, channels = run(case, proved=proved)
    assert outcome.verdict == "right", case.name
    return [spot for channel in channels for spot in channel.spots]


def survey(
    case: Case, changes: Sequence[str], every: int = 1, offset: int = 0, proved: bool = True
) -> Iterator[tuple[Spot, str, Outcome, bool]]:
    """Attack every ``every``-th pair of spot and change; also says whether what was sent differed from the truth."""
    pairs = [(spot, change) for spot in spots_of(case, proved) for change in changes]
    for i, (spot, change) in enumerate(pairs[offset::every]):
        outcome, channels = run(case, spot, change, offset + i, proved)
        assert channels[spot.party].hit, "the corrupt party never got to its lie"
        yield spot, change, outcome, channels[spot.party].differs


def main() -> None:
    parser = argparse.ArgumentParser(
        description="attack every message of every sub-protocol of malicious_3pc"
    )
    parser.add_argument("--every", type=int, default=1, help="only every n-th attack")
    parser.add_argument("--case", choices=[c.name for c in cases()], help="only this sub-protocol")
    parser.add_argument("--silence", action="store_true", help="silence too, which takes a time-out each")
    arguments = parser.parse_args()
    changes = [c for c in CHANGES if c != "silence" or arguments.silence]
    failures = 0
    for case in (c for c in cases() if arguments.case in (None, c.name)):
        count: Counter[str] = Counter()
        slowest = 0.0
        for spot, change, outcome, differs in survey(case, changes, arguments.every):
            kind = outcome.verdict if differs or outcome.verdict == "wrong" else "unchanged"
            count[kind] += 1
            count["not blamed"] += not outcome.blamed
            count["not named"] += not outcome.named
            slowest = max(slowest, outcome.seconds)
            if outcome.verdict == "wrong" or not outcome.blamed:
                failures += 1
                print(case.name, spot, change, outcome, file=sys.stderr, flush=True)  # noqa: T201
        row = {"case": case.name, "parts": len(spots_of(case)), **count, "slowest_s": round(slowest, 2)}
        print(json.dumps(row), flush=True)  # noqa: T201
    if failures:
        sys.exit(
            f"{failures} attacks succeeded, or ended in an abort that does not name the party and the step"
        )


if __name__ == "__main__":
    main()
