"""Claims of all three parties, true or false, without a run of aby3; and the proofs of their chunks, played out.

``Dealer`` shares random values and makes what each party records. ``errors`` adds to what prover i sent: P_i and
P_{i-1} hold the same false z_i, as after a message of a party that computed wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import torch

from mpc_ray.correlation.prf import derive
from mpc_ray.correlation.stream import expand
from mpc_ray.errors import CheatingDetected
from mpc_ray.protocols.aby3.claims import Claim, Draw, Matrix, OneParty, Pieces, Product, Words
from mpc_ray.protocols.malicious.chunks import Chunk, Gatherer, Limits
from mpc_ray.protocols.malicious.keys import ProofKeys
from mpc_ray.protocols.malicious.roles import PROGRAMS, Program, Proof
from mpc_ray.protocols.malicious.schedule import Message, Role, party_of, schedule

JOB = bytes(range(16))
Errors = Mapping[int, Mapping[int, int]]
"""By prover: by flat index of an output, what is added to it."""
NONE: dict[int, dict[int, int]] = {0: {}}
Three = list[Any]


def stream(draw: Draw, start: int, length: int) -> np.ndarray:
    """The masks of a draw: any function of its name will do."""
    key = derive(b"masks", f"{draw.seed}|{draw.purpose}|{draw.site}".encode())
    return expand(key, draw.site, draw.chunk, length, start=start)


def words(rng: np.random.Generator, shape: Sequence[int], extreme: bool = False) -> torch.Tensor:
    """Uniform int64, or a mixture of the ring's corners."""
    if extreme:
        corners = np.array([0, 1, -1, 2**63 - 1, -(2**63)], np.int64)
        return torch.from_numpy(rng.choice(corners, tuple(shape)))
    return torch.from_numpy(rng.integers(-(2**63), 2**63, tuple(shape), dtype=np.int64))


def held(pieces: Sequence[torch.Tensor]) -> list[Pieces]:
    """Each party's two pieces."""
    return [Pieces(pieces[i], pieces[(i + 1) % 3]) for i in range(3)]


class Dealer:
    """Makes records. ``extreme``: shares at the ring's corners instead of uniform ones."""

    def __init__(self, seed: int = 0, extreme: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.extreme = extreme
        self._sites = count()

    def shared(self, shape: Sequence[int]) -> list[torch.Tensor]:
        """Three random pieces."""
        return [words(self.rng, shape, self.extreme) for _ in range(3)]

    def _masks(self, numel: int) -> tuple[list[Draw], list[torch.Tensor]]:
        site = next(self._sites)
        draws = [Draw(i, "zero", 0, site, 0, 8 * numel) for i in range(3)]
        return draws, [torch.from_numpy(stream(d, 0, 8 * numel).view(np.int64)) for d in draws]

    def _outcome(self, local: Sequence[torch.Tensor], errors: Errors, xor: bool = False) -> tuple[list, list]:
        """Masked summands z_i with errors, and the names of the masks."""
        draws, masks = self._masks(local[0].numel())
        z = []
        for i in range(3):
            zero = [m.reshape(local[i].shape) for m in (masks[i], masks[(i + 1) % 3])]
            value = local[i] ^ zero[0] ^ zero[1] if xor else local[i] + zero[0] - zero[1]
            value = value.clone()
            for at, error in errors.get(i, {}).items():
                flat = value.view(-1)
                wrong = int(flat[at]) ^ error if xor else int(flat[at]) + error
                flat[at] = (wrong + 2**63) % 2**64 - 2**63
            z.append(value)
        return z, [(draws[i], draws[(i + 1) % 3]) for i in range(3)]

    def product(self, shape: Sequence[int], axis: int | None = None, errors: Errors = NONE) -> list[Claim]:
        """x·y element by element, or summed over ``axis``."""
        x, y = self.shared(shape), self.shared(shape)
        local = [_cross(x, y, i, torch.mul) for i in range(3)]
        if axis is not None:
            local = [value.sum(axis) for value in local]
        z, masks = self._outcome(local, errors)
        three = zip(held(x), held(y), held(z), masks, strict=True)
        return [Product("product", a, b, c, m, axis) for a, b, c, m in three]

    def matrix(
        self, m: int, k: int, n: int, batch: Sequence[int] = (), common: bool = False, errors: Errors = NONE
    ) -> list[Claim]:
        """x @ y, a batch of them; ``common``: one y for the whole batch. y is a transposed view."""
        x = self.shared((*batch, m, k))
        y = [t.mT for t in self.shared((n, k) if common else (*batch, n, k))]
        local = [_cross(x, y, i, torch.matmul) for i in range(3)]
        z, masks = self._outcome(local, errors)
        three = zip(held(x), held(y), held(z), masks, strict=True)
        return [Matrix("matrix", a, b, c, s) for a, b, c, s in three]

    def words(self, shape: Sequence[int], pairs: bool = False, errors: Errors = NONE) -> list[Claim]:
        """AND gates; ``pairs``: of neighbouring pieces alone."""
        x, y = self.shared(shape), self.shared(shape)
        if pairs:
            local = [x[i] & x[(i + 1) % 3] for i in range(3)]
        else:
            local = [(x[i] & y[i]) ^ (x[i] & y[(i + 1) % 3]) ^ (x[(i + 1) % 3] & y[i]) for i in range(3)]
        z, masks = self._outcome(local, errors, xor=True)
        others = [None] * 3 if pairs else held(y)
        three = zip(held(x), others, held(z), masks, strict=True)
        return [Words("words", a, b, c, m) for a, b, c, m in three]

    def one_party(
        self, prover: int, size: int, terms: int = 1, bits: int = 16, errors: Mapping[int, int] = NONE[0]
    ) -> list[Claim]:
        """a + b = Σ u·v mod 2^bits; what lies above ``bits`` is noise."""
        u, v = ([words(self.rng, (size,), self.extreme) for _ in range(terms)] for _ in range(2))
        a = words(self.rng, (size,), self.extreme)
        total = torch.stack([s * t for s, t in zip(u, v, strict=True)]).sum(0)
        b = total - a + (words(self.rng, (size,)) << bits if bits < 64 else 0)
        for at, error in errors.items():
            b[at] += error
        found: list[Claim] = []
        for me in range(3):
            left, right = me != (prover + 1) % 3, me != (prover - 1) % 3
            found.append(
                OneParty(
                    "one", prover, bits, size, terms,
                    (lambda at: a[at]) if left else None, (lambda at: b[at]) if right else None,
                    (lambda at: [t[at] for t in u]) if left else None,
                    (lambda at: [t[at] for t in v]) if right else None,
                )
            )  # fmt: skip
        return found


def _cross(x: Three, y: Three, i: int, multiply: Callable[[Any, Any], Any]) -> torch.Tensor:
    j = (i + 1) % 3
    return multiply(x[i], y[i]) + multiply(x[i], y[j]) + multiply(x[j], y[i])


def chunks(claims: Sequence[Sequence[Claim]], limits: Limits = Limits()) -> list[list[Chunk]]:  # noqa: B008
    """The chunks of each party that records ``claims`` (one list of three a record)."""
    found: list[list[Chunk]] = [[], [], []]
    for me in range(3):
        gatherer = Gatherer(stream, found[me].append, limits)
        for claim in claims:
            gatherer.add(claim[me])
        gatherer.close()
    return found


Hook = Callable[[Message, bytes], bytes]


@dataclass
class Played:
    """How a proof ended: the first error of each role, every message, and who sent what after an error of another."""

    errors: dict[Role, CheatingDetected] = field(default_factory=dict)
    messages: list[tuple[Message, bytes]] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        """Whether all three let the session go on."""
        return not self.errors

    def sent(self, name: str) -> bool:
        """Whether a message of this name left its sender."""
        return any(message.name == name for message, _ in self.messages)


def keys(master: bytes = b"proof keys", attempt: int = 0) -> list[ProofKeys]:
    """The proof keys of three parties."""
    seeds = [derive(master, b"%d" % i) for i in range(3)]
    held = [{i: seeds[i], (i + 1) % 3: seeds[(i + 1) % 3]} for i in range(3)]
    return [ProofKeys(i, held[i], JOB, attempt) for i in range(3)]


def play(
    three: Sequence[Chunk],
    prover: int,
    parties: Sequence[ProofKeys] | None = None,
    number: int = 0,
    hook: Hook = lambda message, data: data,
    programs: Mapping[Role, Callable[[Proof], Program]] = PROGRAMS,
) -> Played:
    """One proof, message by message in the order of its schedule; ``hook`` may change what is sent.

    A role that raises falls silent: nothing that waits for it is delivered any more.
    """
    parties = parties or keys(b"%d" % next(_runs))
    played = Played()
    running: dict[Role, Program] = {}
    pending: dict[Role, bytes | None] = {}

    def step(role: Role, given: bytes | None) -> None:
        try:
            pending[role] = running[role].send(given)  # type: ignore[arg-type]
        except StopIteration:
            pending.pop(role, None)
            running.pop(role)
        except CheatingDetected as error:
            played.errors[role] = error
            pending.pop(role, None)
            running.pop(role)

    for role in ("P", "A", "B"):
        party = party_of(role, prover)
        proof = Proof(three[party], number, prover, parties[party], "steps")
        running[role] = programs[role](proof)
        step(role, None)
    for message in schedule(three[prover].shape(prover)):
        data = pending.get(message.sender)
        if data is None:  # it has stopped, or waits for one that has
            continue
        assert len(data) == message.length, message
        step(message.sender, None)
        data = hook(message, data)
        played.messages.append((message, data))
        if message.receiver in running:
            assert pending[message.receiver] is None, message
            step(message.receiver, data)
    return played


_runs = count()
