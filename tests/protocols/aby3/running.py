"""A protocol of aby3 on three parties: what came out, what it cost, and whether its claims are true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from three import run_three, runtimes

from mpc_ray.channel.meter import HEADERS
from mpc_ray.kernels.planes import spread
from mpc_ray.protocols.aby3.bits import Bits
from mpc_ray.protocols.aby3.claims import Claim, Draw, Matrix, OneParty, Pieces, Product, Words
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.sharing.replicated import Shared, reconstruct

Body = Callable[[Place, int], Protocol[Any]]


@dataclass
class Kept:
    """A sink that keeps all records."""

    records: list[Claim] = field(default_factory=list)

    def add(self, claim: Claim) -> None:
        self.records.append(claim)


@dataclass(frozen=True)
class Run:
    results: list[Any]
    parties: list[Runtime]

    @property
    def rounds(self) -> int:
        return max(party.channel.meter.rounds for party in self.parties)

    @property
    def payload(self) -> list[int]:
        """Bytes each party sent, frame headers left out."""
        return [_payload(party) for party in self.parties]

    @property
    def value(self) -> torch.Tensor:
        return reconstruct(self.results)

    def claims(self) -> int:
        """How many records there are; raises AssertionError where one is false at any of its three parties."""
        kept = [party.claims.records for party in self.parties]
        assert len({len(records) for records in kept}) == 1
        for three in zip(*kept, strict=True):
            check_claim(three, self.parties)
        return len(kept[0])


def run(body: Body, proving: bool = True, master: bytes = b"test seed") -> Run:
    """``body(place, me)`` at the three parties."""
    parties = runtimes(master)
    for party in parties:
        party.claims = Kept() if proving else None

    def program(runtime: Runtime) -> Protocol[Any]:
        return (yield from body(Place(runtime, "layer", "test"), runtime.me))

    return Run(run_three(program, parties), parties)


def xored(results: Sequence[Bits], length: int) -> torch.Tensor:
    """The bits of all three parties' planes, (planes, …, length)."""
    for i in range(3):
        assert torch.equal(results[i].next, results[(i + 1) % 3].own)
    return spread(results[0].own ^ results[1].own ^ results[2].own, length)


def _payload(party: Runtime) -> int:
    snapshot = party.channel.meter.snapshot()
    assert snapshot["unattributed"] == 0
    headers = sum(entry["bytes"] for entry in snapshot["split"] if entry["label"] == HEADERS)
    return int(snapshot["bytes_sent"]) - headers


# -- claims --------------------------------------------------------------------------------------------


def check_claim(three: Sequence[Claim], parties: Sequence[Runtime]) -> None:
    """The record of each of the three, taken together: common copies agree, and a + b = Σ u·v for every prover."""
    kinds = {type(record) for record in three}
    assert len(kinds) == 1, kinds
    first = three[0]
    if isinstance(first, OneParty):
        _check_one_party(three)  # type: ignore[arg-type]
        return
    for i in range(3):
        for name in ("x", "y", "z"):
            here, there = getattr(three[i], name), getattr(three[(i + 1) % 3], name)
            assert (here is None and there is None) or torch.equal(here.next, there.own), name
    for i in range(3):
        record, after = three[i], three[(i + 1) % 3]
        assert record.masks[1] == after.masks[0]  # type: ignore[union-attr]
        f0, f1 = (_again(parties[i], draw).reshape(record.z.own.shape) for draw in record.masks)  # type: ignore[union-attr]
        x, y, z = record.x, record.y, record.z.own  # type: ignore[union-attr]
        if isinstance(record, Words):
            assert torch.equal(z ^ f0 ^ f1, _and(x, y))
        elif isinstance(record, Matrix):
            assert y is not None
            assert torch.equal(z - f0 + f1, x.own @ y.own + x.own @ y.next + x.next @ y.own)
        else:
            assert isinstance(record, Product) and y is not None
            terms = x.own * y.own + x.own * y.next + x.next * y.own
            assert torch.equal(z - f0 + f1, terms if record.axis is None else terms.sum(record.axis))


def _and(x: Pieces, y: Pieces | None) -> torch.Tensor:
    if y is None:
        return x.own & x.next
    return (x.own & y.own) ^ (x.own & y.next) ^ (x.next & y.own)


def _check_one_party(three: Sequence[OneParty]) -> None:
    assert len({(r.prover, r.bits, r.count, r.terms, r.label) for r in three}) == 1
    p = three[0].prover
    prover, a, b = three[p], three[(p - 1) % 3], three[(p + 1) % 3]
    assert b.a is None and b.u is None and a.b is None and a.v is None
    modulus = (1 << prover.bits) - 1 if prover.bits < 64 else -1
    cut = 64 * ((prover.count + 127) // 128)  # whole, and in two parts at a whole word
    for at in (slice(0, prover.count), slice(0, cut), slice(cut, prover.count)):
        if at.start < at.stop:
            _check_part(prover, a, b, at, modulus)


def _check_part(prover: OneParty, left: OneParty, right: OneParty, at: slice, modulus: int) -> None:
    for mine, theirs in ((prover.a, left.a), (prover.b, right.b)):
        assert torch.equal(mine(at) & modulus, theirs(at) & modulus)
    for mine, theirs in ((prover.u, left.u), (prover.v, right.v)):
        assert len(mine(at)) == len(theirs(at)) == prover.terms
        assert all(torch.equal(x, y) for x, y in zip(mine(at), theirs(at), strict=True))
    total = sum(u * v for u, v in zip(prover.u(at), prover.v(at), strict=True))
    assert torch.equal((prover.a(at) + prover.b(at)) & modulus, total & modulus)
    assert prover.a(at).shape == (at.stop - at.start,)


def _again(party: Runtime, draw: Draw) -> torch.Tensor:
    raw = party.correlation.again(draw.seed, draw.purpose, draw.role, draw.site, draw.chunk, draw.length)
    return torch.from_numpy(raw.copy()).view(torch.int64)


__all__ = ["Kept", "Run", "Shared", "run", "xored"]
