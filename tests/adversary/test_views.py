"""Each party's view is uniform: tests on the real traffic of a whole encoder, on two very different texts.

Everything that every party receives is tested, by sub-protocol, kind of message and sender, byte by byte; and so is
what it can compute at once from its view: sums of both halves of an opening, the position of the rotated one-hot, θ
without ρ. The texts' values are far from uniform, so a missing mask shows; ``test_a_missing_mask_is_found`` takes
away each in turn. Necessary, not sufficient: the argument is in docs/security.md.

With fresh randomness at every run and family-wise error 1e-6 a false alarm is one run in a million.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from encoders import TEXTS, Parties, embedding_messages, loaded, small_model
from recording import Recording, recording, unmasked
from uniform import balanced_p, uniform_p, upper_gamma, view_tests

from mpc_ray.functions.plan import exp_plan

FAMILY_WISE = 1e-6
# What looks uniform even without its pad: a sum of squares of uniform numbers, a sum of products with uniform masks,
# and an evaluator's share of the one-hot, which only the dealer can tell from noise (test_traps.py, trap 7). That
# all three are padded is what test_masks.py shows, byte for byte.
UNIFORM_ANYWAY = {"r_hi²", "kappa", "rotation pad"}
PURPOSES = [
    "mask", "product", "reshare", "one-hot", "dpf root", "beta", "r_hi", "r_msb", "r_hi·r_msb", "r_hi·beta",
    "r_msb·beta", "range check", "thermometer", "count mask", "zero test", "rotation", "eta",
]  # fmt: skip


@pytest.fixture(scope="module")
def parties() -> Iterator[Parties]:
    made = loaded()
    yield made
    for channel in made.channels:
        channel.close()


@pytest.fixture(scope="module")
def with_public_weights() -> Iterator[Parties]:
    made = loaded("public")
    yield made
    for channel in made.channels:
        channel.close()


def views(parties: Parties, text: str) -> tuple[Recording, dict[str, float]]:
    """One run on ``text``, and the p-values of all tests of all three views."""
    plan = small_model()[1].plan.layers[0]
    (buckets,) = set(plan.masked_buckets)
    exp = exp_plan(buckets, 1)
    turns = buckets << max(0, 1 - exp.cell_log)
    with recording() as found:
        parties.run(embedding_messages(text))
    tests = {
        f"party {i}: {name}": p for i in range(3) for name, p in view_tests(found, i, turns, buckets).items()
    }
    return found, tests


@pytest.mark.parametrize("weights", ["parties", "with_public_weights"])
def test_every_view_is_uniform(weights: str, request: pytest.FixtureRequest) -> None:
    parties = request.getfixturevalue(weights)
    runs = {text: views(parties, text)[1] for text in TEXTS}
    first, second = runs.values()
    assert first.keys() == second.keys()
    assert len(first) > 900
    worst = min((p, text, name) for text, tests in runs.items() for name, p in tests.items())
    assert worst[0] * sum(len(tests) for tests in runs.values()) > FAMILY_WISE, worst


def test_traffic_has_one_shape_whatever_the_text(parties: Parties) -> None:
    """Who sends what to whom, in which order and of which length, is a function of public numbers alone."""
    shapes = []
    for text in TEXTS:
        found, _ = views(parties, text)
        shapes.append(
            [
                [
                    (s.peer, s.role, s.layer, s.function, s.what, s.data.shape)
                    for s in found.sent
                    if s.source == i
                ]
                for i in range(3)
            ]
        )
    assert shapes[0] == shapes[1]


def test_public_weights_change_neither_messages_nor_lengths(
    parties: Parties, with_public_weights: Parties
) -> None:
    shapes = []
    for made in (parties, with_public_weights):
        found, _ = views(made, "all different")
        shapes.append(
            [(s.peer, s.role, s.layer, s.function, s.what, s.data.shape) for s in found.sent if s.source == 0]
        )
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("purpose", ["mask", "r_hi", "reshare"])
def test_a_missing_mask_is_found_with_public_weights(with_public_weights: Parties, purpose: str) -> None:
    with unmasked(purpose):
        _, tests = views(with_public_weights, "one word, repeated")
    assert min(tests.values()) * 2 * len(tests) < FAMILY_WISE


def test_purposes_are_all_that_are_used(parties: Parties) -> None:
    found, _ = views(parties, "one word, repeated")
    assert {draw.purpose for draw in found.draws} == {*PURPOSES, *UNIFORM_ANYWAY, "output"}


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_missing_mask_is_found(parties: Parties, purpose: str) -> None:
    """The positive control: without any one of the masks the test above fails."""
    with unmasked(purpose):
        _, tests = views(parties, "one word, repeated")
    assert min(tests.values()) * 2 * len(tests) < FAMILY_WISE


def test_p_values() -> None:
    import numpy as np

    assert upper_gamma(0.5, 10.83 / 2) == pytest.approx(
        0.001, rel=2e-3
    )  # tables of chi-square: 1 and 255 degrees
    assert upper_gamma(127.5, 330.52 / 2) == pytest.approx(0.001, rel=5e-3)
    assert upper_gamma(1, 200) == pytest.approx(np.exp(-200), rel=1e-9)
    rng = np.random.default_rng(1)
    values = rng.integers(0, 256, 10_000)
    assert 0.001 < uniform_p(values, 256) < 0.999
    assert uniform_p(np.minimum(values, 250), 256) < 1e-12
    rows = rng.integers(0, 256, (1000, 4), dtype=np.uint8)
    assert 0.001 < balanced_p(rows) < 0.999
    assert balanced_p(rows | (rng.random((1000, 4)) < 0.3).astype(np.uint8)) < 1e-12
