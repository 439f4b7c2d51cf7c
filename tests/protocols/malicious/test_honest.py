"""Honest proofs are accepted: every kind of claim, every awkward size, shares at the ring's corners."""

from __future__ import annotations

import itertools

import pytest
import torch
from statements import Dealer, chunks, keys, play

from mpc_ray.protocols.aby3.claims import Matrix, Pieces, Product
from mpc_ray.protocols.malicious.chunks import Arithmetic, Boolean, Gatherer, Limits
from mpc_ray.protocols.malicious.schedule import schedule

SMALL = Limits(outputs=50, entries=90, words=24)


def assert_accepted(claims: list, limits: Limits = Limits()) -> None:  # noqa: B008
    found = chunks(claims, limits)
    assert len({len(own) for own in found}) == 1
    assert found[0]
    for number, three in enumerate(zip(*found, strict=True)):
        for prover in range(3):
            played = play(three, prover, number=number)
            assert played.accepted, played.errors
            sent = [(m.name, m.sender, m.receiver, len(data)) for m, data in played.messages]
            assert sent == [
                (m.name, m.sender, m.receiver, m.length) for m in schedule(three[0].shape(prover))
            ]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 31, 32, 33, 63, 64, 65, 129])
def test_lengths(count: int) -> None:
    d = Dealer(count)
    assert_accepted([d.product((count,))])
    assert_accepted([d.words((count,))])
    assert_accepted([d.one_party(count % 3, count)])


@pytest.mark.parametrize("extreme", [False, True])
def test_all_kinds_together(extreme: bool) -> None:
    d = Dealer(1, extreme)
    claims = [
        d.product((5, 7)), d.product((3, 4), axis=0), d.product((3, 4), axis=1), d.product((2, 9, 2), axis=-2),
        d.matrix(3, 5, 4, (2, 2)), d.matrix(3, 5, 4, (2,), common=True), d.matrix(1, 1, 1), d.matrix(140, 3, 9),
        *(d.one_party(p, 9 + p, terms, bits) for p in range(3) for terms, bits in ((1, 16), (2, 1), (3, 63), (5, 64))),
        d.words((2, 13)), d.words((5,), pairs=True), d.product((200,)),
    ]  # fmt: skip
    assert_accepted(claims)
    assert_accepted(claims, SMALL)


def test_corners_of_the_ring() -> None:
    """All shares 0, 1, 2^63, 2^64 - 1: the largest integers that a sum of words can come to."""
    for value in (0, 1, -(2**63), -1):
        d = Dealer(2)
        d.shared = lambda shape, value=value: [torch.full(tuple(shape), value)] * 3  # type: ignore[method-assign]
        assert_accepted([d.product((70,)), d.matrix(5, 4, 6), d.words((9,)), d.product((4, 5), axis=1)])


def test_fewer_subsets_and_vectors() -> None:
    d = Dealer(3)
    for count in (1, 2, 7, 8, 9):
        assert_accepted(
            [d.product((9,)), d.matrix(3, 4, 5), d.words((9,))],
            Limits(subsets=count, vectors=count, weight_bits=count),
        )


def test_broadcast_and_turned_tensors() -> None:
    """Views that were expanded, transposed or sliced are proved like others."""
    d = Dealer(4)
    x, y = ([t.mT for t in d.shared((4, 6))], [t.expand(6, 4) for t in d.shared((1, 4))])
    z, masks = d._outcome([x[i] * (y[i] + y[(i + 1) % 3]) + x[(i + 1) % 3] * y[i] for i in range(3)], {})
    pieces = [[Pieces(t[i], t[(i + 1) % 3]) for i in range(3)] for t in (x, y, z)]
    assert_accepted([[Product("p", *(p[i] for p in pieces), masks[i], None) for i in range(3)]])


def test_a_party_without_claims_of_its_own_proves_nothing() -> None:
    found = chunks([Dealer(5).one_party(1, 10)])
    three = [own[0] for own in found]
    assert [len(schedule(three[0].shape(p))) > 0 for p in range(3)] == [False, True, False]
    assert play(three, 1).accepted
    assert play(three, 0).messages == []


def test_empty_records_are_nothing() -> None:
    d = Dealer(6)
    assert chunks([d.product((0,)), d.words((0,)), d.one_party(0, 0), d.matrix(0, 4, 5)]) == [[], [], []]


def test_a_product_over_an_empty_axis_is_refused() -> None:
    """It has no terms, and yet its output could be false."""
    empty = Pieces(torch.empty((3, 0), dtype=torch.int64), torch.empty((3, 0), dtype=torch.int64))
    z = Pieces(torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    gatherer = Gatherer(lambda *_: None, lambda _: None, Limits())  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="empty axis"):
        gatherer.add(Product("p", empty, empty, z, (None, None), -1))  # type: ignore[arg-type]
    wide = Pieces(empty.own.mT, empty.next.mT)
    square = Pieces(torch.zeros((3, 3), dtype=torch.int64), torch.zeros((3, 3), dtype=torch.int64))
    with pytest.raises(ValueError, match="empty axis"):
        gatherer.add(Matrix("m", empty, wide, square, (None, None)))  # type: ignore[arg-type]


def test_chunks_are_bounded_and_alike_everywhere() -> None:
    d = Dealer(7)
    claims = [
        d.product((130,)), d.one_party(0, 77, terms=3), d.one_party(1, 40, terms=100), d.words((70,)),
        *(d.matrix(4, 3, 5) for _ in range(9)), d.product((9, 11), axis=1),
    ]  # fmt: skip
    found = chunks(claims, SMALL)
    for three in zip(*found, strict=True):
        assert len({repr([chunk.shape(p) for p in range(3)]) for chunk in three}) == 1
        chunk = three[0]
        if isinstance(chunk, Boolean):
            assert sum(part.count for part in chunk.parts) <= SMALL.words
            continue
        for p in range(3):
            assert sum(s.count for s in chunk.of(p)) <= SMALL.outputs
            one = [s for s in chunk.of(p) if s.terms > SMALL.entries]
            assert chunk.entries(p) <= SMALL.entries or len(one) == len(chunk.of(p)) == 1
    outputs = dict.fromkeys(range(3), 0)
    for chunk, p in itertools.product(found[0], range(3)):
        if isinstance(chunk, Arithmetic):
            outputs[p] += sum(s.count for s in chunk.of(p)) + sum(m.z.own.numel() for m in chunk.matrices)
    assert outputs == {0: 130 + 77 + 180 + 9, 1: 130 + 40 + 180 + 9, 2: 130 + 180 + 9}
    assert_accepted(claims, SMALL)


def test_all_labels_of_all_proofs_of_a_chunk_are_distinct_and_shared_by_two() -> None:
    """Each key serves one purpose: what one party draws, exactly one other party draws too."""
    d = Dealer(8)
    found = chunks([d.product((70,)), d.matrix(3, 4, 5), d.words((9,))])
    three = keys()
    for number, chunk in enumerate(zip(*found, strict=True)):
        for prover in range(3):
            assert play(chunk, prover, three, number).accepted
    every = [label for party in three for label in party.labels]
    assert len(every) > 100
    assert all(every.count(label) == 2 for label in set(every))
