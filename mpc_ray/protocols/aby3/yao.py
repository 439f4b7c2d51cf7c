"""Yao's sharing for three parties, two garblers and one evaluator, and its conversions (ABY3, CCS 2018, §5.5 and §5.4).

Elements are cut into thirds as in ``one_party``. In third k P_k *evaluates*; P_{k+1} and P_{k+2} share the seed S_{k+2}
that it lacks, and with it the offset Δ and all labels. P_{k+2} garbles and sends the tables; P_{k+1} garbles nothing,
it sends the labels of what it knows together with P_k, which its seed lets it do without knowing more. In ABY3 it
would compare a hash of the tables: that guards against a corrupt garbler, and nobody is one here.

**Into Yao.** Piece k+1 is known to P_{k+1} and P_k, pieces k+2 and k to the garbler. Of piece k+1's bits P_{k+1}
sends active labels, 16 bytes a bit; a bit that the garbler knows has an active label of zero (``Garbler.known``) and
costs nothing. So B2Y is an XOR of the two kinds, free beyond those labels; A2Y is the sum of *two* numbers, x_{k+1}
and x_{k+2} + x_k, not of three: 63 ANDs for all 64 bits where a text-book A2Y has two adders.

**Out of Yao.** y = colour of the active label ⊕ colour of the label of 0. The garbler sends the latter ⊕ g, g a stream
of S_{k+2} and piece k+2 of the result; P_k has y ⊕ g, of which a stream of S_k is piece k, and sends the rest, piece
k+1, to P_{k+1} (Y2B). As a number (Y2A): the garbler encrypts -a and 1 - a under the two labels, ordered by colour, a
a stream of S_{k+2}; P_k reads y - a, and goes on in the same way.

Two rounds for any circuit. Nothing here can be proved by ``claims``, so malicious_3pc refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from mpc_ray.errors import ConfigError
from mpc_ray.kernels.planes import WORD, planes, spread
from mpc_ray.protocols.aby3 import yao_gates as gates
from mpc_ray.protocols.aby3.bits import Bits, join
from mpc_ray.protocols.aby3.one_party import slice_of
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.truncate import flat
from mpc_ray.protocols.aby3.yao_gates import (
    GATE_BYTES,
    KEY_BYTES,
    LABEL_BYTES,
    Evaluator,
    Garbler,
    Hash,
    Labels,
)
from mpc_ray.protocols.runtime import Arrival, Protocol, together
from mpc_ray.sharing.replicated import Shared

ROUNDS = 2
RING_BITS = 64
Run = Callable[[gates.Gates, Labels, Labels], Labels]


@dataclass(frozen=True)
class Circuit:
    """``run``: of wires that P_{k+1} has labelled and wires that the garbler knows, (wires, count, 2) each, to
    (outputs, count, 2), by ``ands`` ANDs.
    """

    run: Run
    wires: int
    ands: int
    outputs: int

    def bytes(self, count: int, numbers: bool = False) -> tuple[int, int, int]:
        """Of ``count`` elements of one third: what P_k, P_{k+1} and P_{k+2} send."""
        if not count:
            return 0, 0, 0
        one = 8 * count if numbers else count // 8
        decoding = 2 * one if numbers else one
        tables = KEY_BYTES + GATE_BYTES * self.ands * count
        return self.outputs * one, LABEL_BYTES * self.wires * count, tables + self.outputs * decoding


Known = Callable[[slice], np.ndarray]


@dataclass(frozen=True)
class _Third:
    """One third at one party. ``part``: its elements; ``sent``, ``known``: bits of it that P_{k+1} and the garbler
    know, uint64 (wires, count) of 0 and 1.
    """

    place: Place
    k: int
    part: slice
    circuit: Circuit
    sent: Known = field(repr=False)
    known: Known = field(repr=False)

    @property
    def count(self) -> int:
        return int(self.part.stop - self.part.start)

    def drawn(self, seed: int, purpose: str, *shape: int) -> torch.Tensor:
        return self.place.words(seed, purpose, shape, 1 + self.k)[0]

    def offset_and_labels(self) -> tuple[Labels, Labels]:
        """Δ, and the labels of 0 of what P_{k+1} labels: the same at both garblers."""
        offset = self.drawn(self.k + 2, "yao offset", 2).numpy().view(np.uint64).copy()
        offset[0] |= np.uint64(1)
        labels = self.drawn(self.k + 2, "yao labels", self.circuit.wires, self.count, 2)
        return offset, labels.numpy().view(np.uint64)

    def send_labels(self) -> None:
        """P_{k+1}'s message."""
        offset, zero = self.offset_and_labels()
        active = zero ^ gates.where(self.sent(self.part), offset)
        self.place.send(self.k, _tensor(active), "labels")

    def garble(self) -> tuple[Garbler, Labels]:
        """The garbler's message, and what it goes on with: the outputs' labels of 0."""
        offset, zero = self.offset_and_labels()
        key = self.drawn(self.k + 2, "yao key", 2)
        garbler = Garbler(Hash(key.numpy().tobytes()), offset)
        out = self.circuit.run(garbler, zero, garbler.known(self.known(self.part)))
        self.place.send(self.k, key, "key")
        if garbler.tables:
            self.place.send(self.k, _tensor(np.stack(garbler.tables)), "tables")
        return garbler, out

    def evaluate(self, labels: Arrival, key: Arrival, tables: Arrival) -> tuple[Evaluator, Labels]:
        """The outputs' active labels."""
        circuit, count = self.circuit, self.count
        table = tables.bytes().view(np.uint64).reshape(circuit.ands, 2, count, 2)
        evaluator = Evaluator(Hash(key.bytes().tobytes()), table)
        sent = labels.bytes().view(np.uint64).reshape(circuit.wires, count, 2)
        return evaluator, circuit.run(evaluator, sent, np.zeros_like(sent))

    def to_bits(self) -> Protocol[tuple[torch.Tensor, torch.Tensor]]:
        """Both pieces of the outputs, planes (outputs, words)."""
        place, k, shape = self.place, self.k, (self.circuit.outputs, self.count // WORD)
        turn = (place.me - k) % 3
        if turn == 0:
            arrivals = self._expected()
            decoding = place.expect(k + 2, shape[0] * shape[1])
            yield
            _, out = self.evaluate(*arrivals)
            mine = self.drawn(k, "yao bits", *shape)
            rest = _plane(gates.colours(out)) ^ decoding.int64(shape) ^ mine
            place.send(k + 1, rest, "bits")
            yield
            return mine, rest
        if turn == 1:
            self.send_labels()
            common = self.drawn(k + 2, "yao result", *shape)
            yield
            arrival = place.expect(k, shape[0] * shape[1])
            yield
            return arrival.int64(shape), common
        _, out = self.garble()
        common = self.drawn(k + 2, "yao result", *shape)
        place.send(k, _plane(gates.colours(out)) ^ common, "decoding")
        yield
        yield
        return common, self.drawn(k, "yao bits", *shape)

    def to_numbers(self) -> Protocol[tuple[torch.Tensor, torch.Tensor]]:
        """Both pieces of the one output as 0 or 1, int64 (count,)."""
        place, k, count = self.place, self.k, self.count
        turn = (place.me - k) % 3
        if turn == 0:
            arrivals = self._expected()
            choices = place.expect(k + 2, 2 * count)
            yield
            evaluator, out = self.evaluate(*arrivals)
            pad = evaluator.hashed(out, evaluator.tweaks.take(1, count))[0, :, 0].view(np.int64)
            colour = torch.from_numpy(gates.colours(out)[0].view(np.int64))
            chosen = choices.int64((2, count)).gather(0, colour[None])[0]
            mine = self.drawn(k, "yao numbers", count)
            rest = chosen - torch.from_numpy(pad) - mine
            place.send(k + 1, rest, "numbers")
            yield
            return mine, rest
        if turn == 1:
            self.send_labels()
            common = self.drawn(k + 2, "yao result", count)
            yield
            arrival = place.expect(k, count)
            yield
            return arrival.int64((count,)), common
        garbler, out = self.garble()
        common = self.drawn(k + 2, "yao result", count)
        both = np.concatenate([out, out ^ garbler.offset])  # (2, count, 2): of 0, of 1
        pads = torch.from_numpy(garbler.hashed(both, garbler.tweaks.take(1, count))[..., 0].view(np.int64))
        by_value = pads + torch.tensor([[0], [1]]) - common
        colour = torch.from_numpy(gates.colours(out)[0].view(np.int64))
        place.send(k, by_value.gather(0, torch.stack([colour, 1 - colour])), "choices")
        yield
        yield
        return common, self.drawn(k, "yao numbers", count)

    def _expected(self) -> tuple[Arrival, Arrival, Arrival]:
        """The evaluator's: labels, key, tables."""
        place, k = self.place, self.k
        labels = place.expect(k + 1, 2 * self.circuit.wires * self.count)
        return labels, place.expect(k + 2, 2), place.expect(k + 2, 4 * self.circuit.ands * self.count)


def _tensor(labels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(labels).view(np.int64))


def _plane(bits: np.ndarray) -> torch.Tensor:
    """uint64 (outputs, count) of 0 and 1 as planes (outputs, words)."""
    return planes(torch.from_numpy(bits.view(np.int64)), 0, 0, 1)[0]


def _thirds(place: Place, count: int, circuit: Circuit, sent: Known, known: Known) -> list[_Third]:
    if place.proving:
        raise ConfigError(
            f"{place.label}: Yao's sharing cannot be proved", remedy="compare bits in Boolean sharing"
        )
    parts = [slice_of(count, k) for k in range(3)]
    return [
        _Third(place, k, part, circuit, sent, known) for k, part in enumerate(parts) if part.stop > part.start
    ]


# -- conversions ---------------------------------------------------------------------------------------


def _number_inputs(own: torch.Tensor, following: torch.Tensor, n: int) -> tuple[Known, Known]:
    """Low n bits of what the two senders of a third know: P_{k+1} its own piece, the garbler the sum of its two."""

    def of(piece: torch.Tensor) -> np.ndarray:
        places = np.arange(n, dtype=np.uint64)[:, None]
        return (piece.numpy().view(np.uint64) >> places) & np.uint64(1)

    return lambda part: of(own[part]), lambda part: of(own[part] + following[part])


def _plane_inputs(x: Bits) -> tuple[Known, Known]:
    """Bits of Boolean shares, likewise: the XOR of its two."""

    def of(plane: torch.Tensor, part: slice) -> np.ndarray:
        words = plane[:, part.start // WORD : part.stop // WORD]
        return spread(words.contiguous(), part.stop - part.start).numpy().view(np.uint64)

    return lambda part: of(x.own, part), lambda part: of(x.own ^ x.next, part)


def _bits(place: Place, count: int, circuit: Circuit, inputs: tuple[Known, Known]) -> Protocol[Bits]:
    found = yield from together([third.to_bits() for third in _thirds(place, count, circuit, *inputs)])
    nothing = torch.zeros((circuit.outputs, 0), dtype=torch.int64)
    own, following = (torch.cat([nothing, *(each[side] for each in found)], -1) for side in (0, 1))
    return Bits(own, following)


def bits_of(place: Place, x: Shared, n: int) -> Protocol[Bits]:
    """A2B by way of Yao: the low n bits of flat x, planes (n, words); 1 ≤ n ≤ 64. 2 rounds; 16·n + 32·(n - 1) bytes
    and 2·n bits an element, all parties together, and 16 a third.
    """
    own, following, _ = flat(x)
    circuit = Circuit(gates.add, n, n - 1, n)
    return (yield from _bits(place, len(own), circuit, _number_inputs(own, following, n)))


SIGN = Circuit(gates.sign, RING_BITS, RING_BITS - 1, 1)


def less_than_zero(place: Place, x: Shared) -> Protocol[Bits]:
    """As ``compare.less_than_zero``: one plane (1, words) of flat x. 2 rounds, not 8; 3,040 bytes and 2 bits an
    element, all parties together, and 16 a third.
    """
    own, following, _ = flat(x)
    return (yield from _bits(place, len(own), SIGN, _number_inputs(own, following, RING_BITS)))


def negative(place: Place, x: Shared) -> Protocol[Shared]:
    """[x < 0] as 0 or 1 at scale 0, of x's shape. 2 rounds, not 10; 3,064 bytes an element, all parties together, and
    16 a third.
    """
    own, following, count = flat(x)
    inputs = _number_inputs(own, following, RING_BITS)
    found = yield from together([third.to_numbers() for third in _thirds(place, len(own), SIGN, *inputs)])
    nothing = torch.zeros(0, dtype=torch.int64)
    pieces = [
        torch.cat([nothing, *(each[side] for each in found)])[:count].reshape(x.shape) for side in (0, 1)
    ]
    return Shared(pieces[0], pieces[1], 0)


def greater(place: Place, x: Bits, y: Bits) -> Protocol[Bits]:
    """As ``thresholds.greater``: [x > y] of unsigned numbers of n planes (n, words), one plane (1, words). B2Y, a
    comparison and Y2B. 2 rounds, not 1 + ⌈log2 n⌉; 64·n bytes and 2 bits an element, all parties together, and 16 a
    third.
    """
    n = len(x)

    def run(on: gates.Gates, sent: Labels, known: Labels) -> Labels:
        wires = sent ^ known  # B2Y
        return gates.greater(on, wires[:n], wires[n:])

    both = join([x, y])
    count = WORD * both.shape[-1]
    return (yield from _bits(place, count, Circuit(run, 2 * n, n, 1), _plane_inputs(both)))
