"""schedule, keys, copies: what is public and fixed before a proof begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from statements import JOB, keys

from mpc_ray.correlation.prf import MaskReused, derive
from mpc_ray.protocols.malicious.copies import Copies
from mpc_ray.protocols.malicious.keys import ProofKeys, expand_coin
from mpc_ray.protocols.malicious.schedule import STOP, Shape, party_of, role_of, schedule
from mpc_ray.sharing.replicated import Shared


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 256, 257, 1 << 21])
def test_rounds_shrink_to_what_is_compared(length: int) -> None:
    shape = Shape(length, 56)
    assert shape.lengths[0] == length
    assert all(b == -(-a // 4) for a, b in zip(shape.lengths, shape.lengths[1:], strict=False))
    assert 1 <= shape.last <= STOP
    assert shape.rounds == 0 or shape.lengths[-2] > STOP


def test_a_proof_of_a_million_products_has_the_documented_messages() -> None:
    """3,315 bytes, 25 messages in a row after the comparison of copies."""
    found = schedule(Shape(1 << 21, 56))
    assert found[-1].stage + 1 == 25
    assert (
        sum(message.length for message in found)
        == 1 + 16 * 11 + 56 * 32 + 8 * 120 + 24 + 64 + 8 * 33 + 32 + 2
    )
    words = schedule(Shape(1 << 21, 0))
    assert (
        sum(message.length for message in words) == 1 + 16 * 11 + 2040 + 8 * 120 + 24 + 64 + 8 * 33 + 32 + 2
    )


def test_every_coin_follows_the_message_that_it_is_tossed_for() -> None:
    """P speaks before each coin but the first, and never twice between two coins until the echo."""
    for shape in (Shape(5, 56), Shape(70_000, 111), Shape(4096, 0)):
        order = [m.name for m in schedule(shape) if m.name not in ("promise", "verdict")]
        assert order.pop(0) == "ready"
        assert order[0] == "coin: subsets"
        assert order[-2:] == ["echo", "last"]
        between = order[1:-2]
        assert all(name.startswith("coin: ") for name in between[1::2])
        assert not any(name.startswith("coin: ") for name in between[::2])
    assert schedule(Shape(0, 0)) == []


def test_roles_are_where_the_seeds_are() -> None:
    for prover in range(3):
        assert [role_of(party_of(role, prover), prover) for role in "PAB"] == list("PAB")
        assert [party_of(role, prover) for role in "PAB"] == [prover, (prover - 1) % 3, (prover + 1) % 3]


def test_a_label_serves_once() -> None:
    three = keys()
    three[0].stream(0, 1, 0, "round 0", 8)
    with pytest.raises(MaskReused, match="used twice"):
        three[0].stream(0, 1, 0, "round 0", 16)
    three[0].coin(1, 1, "field")
    with pytest.raises(MaskReused):
        three[0].stream(
            0, 1, 1, "field", 16
        )  # the coin's own seed: P_1's verifiers are P_0 and P_2, who share S_0


def test_streams_differ_in_every_part_of_their_name() -> None:
    seed = derive(b"s", b"")
    names = [(1, 0, "a"), (2, 0, "a"), (1, 1, "a"), (1, 0, "b"), (12, 0, "a"), (1, 2, "a")]
    seen = set()
    for job, attempt in ((JOB, 0), (JOB, 1), (bytes(16), 0)):
        own = ProofKeys(0, {0: seed, 1: seed}, job, attempt)
        seen |= {own.stream(0, *name, 16).tobytes() for name in names}
    assert len(seen) == 18


def test_a_prover_lacks_its_coins_and_its_verifiers_agree() -> None:
    three = keys()
    for prover in range(3):
        coins = {three[party].coin(1, prover, "field") for party in range(3) if party != prover}
        assert len(coins) == 1
        with pytest.raises(ValueError, match="own coins"):
            three[prover].coin(1, prover, "field")
        with pytest.raises(KeyError):  # it does not hold the seed either
            three[prover].stream((prover - 1) % 3, 1, prover, "x", 16)
    a, b = expand_coin(b"c" * 16, "fold", 64), expand_coin(b"c" * 16, "masks", 64)
    assert not np.array_equal(a, b)


def test_wiped_keys_are_gone() -> None:
    three = keys()
    three[1].wipe()
    with pytest.raises(KeyError):
        three[1].stream(1, 1, 0, "x", 1)


def test_copies_differ_if_anything_does() -> None:
    x = torch.arange(6).reshape(2, 3)

    def digests(own: torch.Tensor, following: torch.Tensor, name: str = "x", scale: int = 3) -> list[bytes]:
        copies = Copies(1)
        copies.add(name, Shared(own, following, scale))
        return [copies.digest(1), copies.digest(2)]

    first, second = digests(x, x + 1)
    assert digests(x, x + 1) == [first, second]
    assert digests(x, x + 2)[0] == first
    assert digests(x, x + 2)[1] != second
    for other in (digests(x, x, "y"), digests(x, x, scale=4), digests(x.reshape(3, 2), x.reshape(3, 2))):
        assert other[0] != first
    copies = Copies(1)
    copies.add_public("settings", b"a")
    before = copies.digest(1)
    copies.add_public("settings", b"a")
    assert copies.digest(1) != before


def test_neighbours_agree_on_their_common_piece() -> None:
    pieces = [torch.randint(-9, 9, (4,)) for _ in range(3)]
    held = []
    for me in range(3):
        copies = Copies(me)
        copies.add("x", Shared(pieces[me], pieces[(me + 1) % 3], 0))
        held.append(copies)
    for me in range(3):
        assert held[me].digest(me) == held[me - 1].digest(me)
