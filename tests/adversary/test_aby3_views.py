"""aby3: each party's view is uniform, no mask is used twice, every byte has a pad that its receiver lacks.

As ``test_views`` and ``test_masks`` do for semi_honest_3pc: on the real traffic of a whole encoder, on two very
different texts, with each mask taken away in turn as the positive control. Necessary, not sufficient: the argument is
in docs/security.md. Family-wise error 1e-6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from aby3_traffic import PADS, assert_every_byte_is_padded, recording, view_tests
from encoders import TEXTS, Parties, embedding_messages, loaded
from recording import Recording, unmasked

from mpc_ray.channel.frame import HEADER_BYTES
from mpc_ray.execute_aby3 import executor

FAMILY_WISE = 1e-6


@pytest.fixture(scope="module")
def parties() -> Iterator[Parties]:
    made = loaded(make=executor)
    yield made
    for channel in made.channels:
        channel.close()


def views(parties: Parties, text: str) -> tuple[Recording, dict[str, float]]:
    """One run on ``text``, and the p-values of all tests of all three views."""
    with recording() as found:
        parties.run(embedding_messages(text))
    return found, {f"party {i}: {name}": p for i in range(3) for name, p in view_tests(found, i).items()}


def test_every_view_is_uniform_and_of_one_shape(parties: Parties) -> None:
    runs = {text: views(parties, text) for text in TEXTS}
    first, second = (tests for _, tests in runs.values())
    assert first.keys() == second.keys()
    assert len(first) > 500
    worst = min((p, text, name) for text, (_, tests) in runs.items() for name, p in tests.items())
    assert worst[0] * 2 * len(first) > FAMILY_WISE, worst
    # Who sends what to whom, in which order and of which length, is a function of public numbers alone.
    shapes = [
        [
            [(s.peer, s.site, s.layer, s.function, s.what, s.data.shape) for s in found.sent if s.source == i]
            for i in range(3)
        ]
        for found, _ in runs.values()
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("purpose", sorted(set(PADS.values())))
def test_a_missing_mask_is_found(parties: Parties, purpose: str) -> None:
    """Forgetting the zero share has happened in the field: here it, and each of the other masks, is seen."""
    with unmasked(purpose):
        _, tests = views(parties, "one word, repeated")
    assert min(tests.values()) * 2 * len(tests) < FAMILY_WISE


def test_every_message_has_a_pad_that_its_receiver_lacks(parties: Parties) -> None:
    """Byte for byte, and nothing else is sent: the recorded parts are all of every frame's payload."""
    with recording() as found:
        parties.run(embedding_messages("one word, repeated"))
    assert assert_every_byte_is_padded(found) == set(PADS)
    sent = sum(c.meter.bytes_sent - HEADER_BYTES * c.meter.frames_sent for c in parties.channels)
    assert sum(part.data.size for part in found.sent) == sent
    assert {draw.purpose for draw in found.draws} == {*PADS.values(), "output"}


def test_no_stream_is_drawn_twice_and_both_holders_draw_alike(parties: Parties) -> None:
    parties.trace()
    parties.run(embedding_messages("one word, repeated"))
    parties.run(embedding_messages("all different"))
    for names in parties.traces:
        assert len(names) > 500
        assert max(Counter(name[:-1] for name in names).values()) == 1
    for seed in range(3):
        held = [
            Counter(name for name in parties.traces[party] if name[2] == seed)
            for party in ((seed - 1) % 3, seed)
        ]
        assert held[0] == held[1]
        assert not any(name[2] == seed for name in parties.traces[(seed + 1) % 3])
