"""The fifteen traps of semi_honest_3pc (docs/security.md, Traps): for each a test that fails if the code falls in."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from encoders import LENGTH, Parties, embedding_messages, loaded, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import Recording, recording, unmasked
from three import run_three, runtimes, summands
from uniform import uniform_p

from mpc_ray.channel import Message
from mpc_ray.correlation.prf import Correlation
from mpc_ray.errors import ScaleError
from mpc_ray.functions.plan import SoftmaxPlan
from mpc_ray.functions.window import Window
from mpc_ray.kernels import histogram
from mpc_ray.models.plan import BUCKET_LOG, _activation, _reciprocal, _score_window
from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.protocols.semi_honest.lookup import OneHot, window_fraction, window_index
from mpc_ray.protocols.semi_honest.maximum import Rotation
from mpc_ray.protocols.semi_honest.open import open_masked
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.softmax import Group, exp_below_maximum
from mpc_ray.protocols.semi_honest.thirds import thirds_of
from mpc_ray.protocols.semi_honest.truncate import truncate

ring = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture(scope="module")
def run() -> Iterator[tuple[Recording, list[Message]]]:
    """One embedding job of the small model, recorded, and its answers."""
    parties = loaded()
    with recording() as found:
        answers = parties.run(embedding_messages("all different"))
    yield found, answers
    _close(parties)


def _close(parties: Parties) -> None:
    for channel in parties.channels:
        channel.close()


def _one(x: int) -> torch.Tensor:
    return torch.tensor([(x + 2**63) % 2**64 - 2**63])


@given(u=st.integers(0, 2**20 - 1), r=ring)
def test_trap_01_index_of_an_opened_value_is_right_or_one_more(u: int, r: int) -> None:
    """Never one less; and the position inside the cell is consistent with whichever it is."""
    t, n, b = 12, 8, 6
    c = _one(u + r)
    j = int(window_index(c, t, n) - window_index(_one(r), t, n)) % (1 << n)
    v = int(window_fraction(c, t, b) - window_fraction(_one(r), t, b))
    high = (j - (u >> t)) % (1 << n)
    assert high in (0, 1)
    position = u / 2**t - (u >> t) - high
    assert abs(v / 2**b - position) <= 2**-b


@given(r=ring)
def test_trap_02_only_the_guard_cell_wraps(r: int) -> None:
    window = Window(low=-4.0, n=5, t=10, scale=10)
    last = round((window.high - window.low) * 2**window.scale) - 1
    index = window_index(_one(last + r), 10, 5) - window_index(_one(r), 10, 5)
    assert int(index) % 32 in (30, 31)
    edge = 2**15 - 1  # the last point of the guard cell: one high is the other end of the window
    wrapped = int(window_index(_one(edge + r), 10, 5) - window_index(_one(r), 10, 5)) % 32
    assert wrapped in ((31,) if r % 2**10 == 0 else (31, 0))


@settings(max_examples=10)
@given(low=st.floats(-100, 100), span=st.floats(0.5, 200))
def test_trap_02_windows_hold_what_was_seen_in_their_middle_half(low: float, span: float) -> None:
    """Up to the cell, or unit of score, to which their low end is rounded down."""
    window = _activation("here", "gelu", (low, low + span))[1].window
    assert window.low + window.width / 4 <= low
    assert low + span <= window.low + window.width * 3 / 4 + window.cell
    start, buckets = _score_window("here", (low, low + span), 0.0)
    width = buckets * 2.0**BUCKET_LOG
    assert start + width / 4 <= low
    assert low + span <= start + width * 3 / 4 + 1


def test_trap_03_windows_are_a_heads_own_and_wide_spans_are_refused() -> None:
    spans = (4.0, 20.0, 60.0, 168.0)
    buckets = [_score_window("h", (-span / 2, span / 2), 0.0)[1] for span in spans]
    assert buckets == sorted(set(buckets))
    assert all(b & (b - 1) == 0 and b >= 16 for b in buckets)
    assert all(b * 2.0**BUCKET_LOG >= 2 * span for b, span in zip(buckets, spans, strict=True))
    with pytest.raises(ScaleError, match=r"layer 0/softmax.*at most 256"):
        _score_window("layer 0/softmax", (-300.0, 300.0), 0.0)
    for n in (1, 16, 512):
        window, w = _reciprocal(n).window, 2.0**BUCKET_LOG
        assert window.low == 0
        assert n * math.exp(w) <= window.high
        assert 2 * window.cell <= math.exp(-w)


def test_trap_04_the_dealer_gets_rotated_one_hots_and_nothing_else(
    run: tuple[Recording, list[Message]],
) -> None:
    found, _ = run
    to_dealers = [part.what for part in found.sent if part.peer == (part.role + 2) % 3]
    assert set(to_dealers) == {"rotated one-hot"}

    def program(runtime: Runtime) -> Protocol[None]:
        role = Role(runtime, 0, "layer", "test")
        opening = open_masked(role, torch.zeros(4, dtype=torch.int64), torch.Size([4]))
        yield
        if role.is_d:
            with pytest.raises(AssertionError, match="never learns c"):
                _ = opening.c
        else:
            with pytest.raises(AssertionError, match="only the dealer"):
                _ = opening.r

    run_three(program)


def test_trap_05_a_truncated_value_would_tell_its_dealer_low_bits() -> None:
    """Why nothing truncated may be opened to its dealer: with r, the rounding is a comparison on hidden bits."""
    z = torch.arange(-2000, 2000)

    def program(runtime: Runtime) -> Protocol[object]:
        role = Role(runtime, 1, "layer", "test")
        return (yield from truncate(role, summands(z)[runtime.me], 8))

    with recording() as found:
        halves = run_three(program)
    value = sum(h.own for h in halves)
    at_dealer = [d.data.view(np.int64) for d in found.draws if d.me == 0 and d.purpose == "mask"]
    r = torch.from_numpy(at_dealer[0] + at_dealer[1]) - summands(z)[0].value
    assert torch.equal(value, (z >> 8) + (((z & 255) + (r & 255)) >> 8))


def test_trap_06_no_party_has_both_roots_of_a_point_function() -> None:
    def program(runtime: Runtime) -> Protocol[bytes]:
        role = Role(runtime, 0, "layer", "test")
        one_hot = OneHot(role, torch.tensor([77]) if role.is_d else None, 1, 16)
        yield
        return b"" if role.is_d else bytes(one_hot.root.numpy())

    with recording() as found:
        first, second, _ = run_three(program)
    assert first != second
    roots = [(d.me, d.seed) for d in found.draws if d.purpose == "dpf root"]
    assert sorted(roots) == [(0, 0), (1, 2), (2, 0), (2, 2)]
    with pytest.raises(ValueError, match="no others"):
        Correlation(0, {i: bytes(32) for i in range(3)}, bytes(32))


def _softmax_plan(buckets: int) -> SoftmaxPlan:
    plan = small_model()[1].plan.softmax(0, LENGTH, False)
    assert set(plan.buckets) == {buckets}
    return plan


def _maximum(scores: torch.Tensor, role_of: int = 0, attempt: int = 0) -> Recording:
    """The reference of rows of ``scores`` (rows, n), in buckets above the window's low end."""
    plan = _softmax_plan(16)
    values = summands(scores << (plan.score_scale + plan.bucket_log), plan.score_scale)

    def program(runtime: Runtime) -> Protocol[object]:
        role = Role(runtime, role_of, "layer", "softmax")
        opening = open_masked(role, values[runtime.me].value, scores.shape)
        return (yield from exp_below_maximum(role, opening, Group(torch.zeros(1), 16, plan)))

    with recording() as found:
        run_three(program, attempt=attempt)
    return found


def _guess_confirmed(found: Recording, counts: torch.Tensor) -> int:
    """What dealer P2 can do with E0's half of the rotated one-hot: rows in which it fits the guessed ``counts``."""
    rows, steps = counts.shape
    at_dealer = {(d.purpose, d.seed): d.data for d in found.draws if d.me == 2}
    masks = [at_dealer["count mask", i].view(np.int16).astype(np.int64) for i in (0, 2)]
    c = torch.from_numpy(masks[0] + masks[1]) + counts.reshape(-1)
    e0 = torch.from_numpy(at_dealer["zero test", 0].reshape(rows * steps, 32))
    below = histogram.pick_bits(e0, c & 255).reshape(rows, steps)
    ends = torch.zeros(rows, 1, dtype=torch.uint8), torch.ones(rows, 1, dtype=torch.uint8)
    half = torch.cat([ends[0], below], 1) ^ torch.cat([below, ends[1]], 1)
    (seen,) = [s.data for s in found.sent if s.what == "rotated one-hot" and s.source == 0]
    bits = torch.from_numpy(np.unpackbits(seen.reshape(-1), bitorder="little").reshape(rows, -1))
    fits = [(histogram.rotate_rows(half, torch.full((rows,), i)) == bits).all(1) for i in range(steps + 1)]
    return int(torch.stack(fits).any(0).sum())


def test_trap_07_the_common_pad_hides_zero_tests_from_the_dealer() -> None:
    """D knows e0, so an unpadded e0[c] lets it test a guess of the counts. With the pad no guess is confirmed."""
    rng = np.random.default_rng(7)
    scores = torch.from_numpy(rng.integers(0, 15, (64, LENGTH)))
    counts = (scores[:, :, None] >= torch.arange(1, 16)).sum(1)
    with unmasked("rotation pad"):
        leaked = _maximum(scores)
    assert _guess_confirmed(leaked, counts) == 64
    assert _guess_confirmed(leaked, counts.roll(1, 0)) < 16
    assert _guess_confirmed(_maximum(scores), counts) < 4  # each by chance with probability 2^-12


@pytest.mark.parametrize("scores", [[0] * LENGTH, [15] * LENGTH, list(range(LENGTH)), [3] * 15 + [14]])
def test_trap_08_what_the_dealer_sees_has_exactly_one_one(scores: list[int]) -> None:
    """Of a rotated thermometer the number of ones would be the maximum; of the one-hot it is always 1."""
    found = _maximum(torch.tensor([scores] * 32))
    halves = [part.data.reshape(-1) for part in found.sent if part.what == "rotated one-hot"]
    assert len(halves) == 2
    bits = np.unpackbits(halves[0] ^ halves[1]).reshape(32, 16)
    assert (bits.sum(1) == 1).all()
    assert len({row.tobytes() for row in bits}) > 4


def test_trap_09_theta_is_reduced_modulo_the_window() -> None:
    """Unreduced, its high bits would tell μ, hence the maximum. It fills the window evenly whatever the maximum is."""
    for bucket in (0, 14):
        found = _maximum(torch.full((4096, LENGTH), bucket))
        theta = next(part.data.reshape(-1) for part in found.sent if part.what == "theta")
        assert theta.max() < 64  # 16 buckets in steps of a quarter
        assert uniform_p(theta, 64) > 1e-9


def test_trap_09_a_rotation_that_a_byte_cannot_make_uniform_is_refused() -> None:
    role = Role(runtimes()[0], 0, "layer", "test")
    for buckets in (24, 512):
        with pytest.raises(ValueError, match="uniformly"):
            Rotation(role, None, 1, buckets)  # type: ignore[arg-type]


def test_trap_10_masks_have_a_half_from_each_seed(run: tuple[Recording, list[Message]]) -> None:
    """With one seed only, that evaluator could unmask c. And each half is used for one opening alone (test_masks)."""
    found, _ = run
    halves: dict[tuple[int, int], dict[int, bytes]] = {}
    for draw in found.draws:
        if draw.purpose == "mask" and draw.me == (draw.role + 2) % 3:
            halves.setdefault((draw.role, draw.site), {}).setdefault(draw.seed, b"")
            halves[draw.role, draw.site][draw.seed] += draw.data.tobytes()
    opened = {(part.role, part.site) for part in found.sent if part.what == "open"}
    assert halves.keys() == opened
    for (role, _), by_seed in halves.items():
        assert by_seed.keys() == {role, (role + 2) % 3}
        first, second = by_seed.values()
        assert len(first) == len(second)
        assert first != second


def test_trap_11_a_second_attempt_and_another_role_have_other_masks() -> None:
    z = torch.arange(1000)

    def opened(role_of: int, attempt: int) -> bytes:
        def program(runtime: Runtime) -> Protocol[bytes]:
            role = Role(runtime, role_of, "layer", "test")
            opening = open_masked(role, summands(z)[runtime.me].value, z.shape)
            yield
            return b"" if role.is_d else opening.c.numpy().tobytes()

        results = run_three(program, attempt=attempt)
        assert results[role_of] == results[(role_of + 1) % 3]
        return bytes(results[role_of])

    seen = [opened(role, attempt) for role in range(3) for attempt in (0, 1)]
    assert len({c[i : i + 8] for c in seen for i in range(0, 8000, 8)}) == 6 * 1000
    assert opened(0, 0) == seen[0]  # the same seeds, job and attempt: this is what must never happen twice


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_trap_11_empty_chunks_shift_no_counter(rows: int) -> None:
    z = torch.arange(rows * 5).reshape(rows, 5) << 8

    def program(runtime: Runtime) -> Protocol[torch.Tensor]:
        parts = []
        for k, some in [*thirds_of(rows), *thirds_of(rows)]:
            role = Role(runtime, k, "layer", "test")
            parts.append((yield from truncate(role, summands(z)[runtime.me][some], 8)).own)
        return torch.cat(parts)

    with recording() as found:
        results = run_three(program)
    assert torch.equal(sum(results), torch.cat([z, z]) >> 8)
    for seed in range(3):
        names = [
            sorted(
                (d.purpose, d.role, d.site, d.data.tobytes())
                for d in found.draws
                if (d.me, d.seed) == (i, seed)
            )
            for i in ((seed - 1) % 3, seed)
        ]
        assert names[0] == names[1]


def test_trap_12_the_first_share_of_a_one_hot_is_blind_to_the_position(
    run: tuple[Recording, list[Message]],
) -> None:
    """Choosing e0 with e0[r] = 1 would save the sign, and tell E0 half of where r is not. The sign is never sent."""
    count = 4096
    position = torch.from_numpy(np.random.default_rng(3).integers(0, 256, count))

    def program(runtime: Runtime) -> Protocol[tuple[torch.Tensor | None, torch.Tensor | None]]:
        role = Role(runtime, 0, "layer", "test")
        one_hot = OneHot(role, position if role.is_d else None, count, 8)
        yield
        return (None, one_hot.sign) if role.is_d else (one_hot.bits(), None)

    (e0, _), (e1, _), (_, sign) = run_three(program)
    assert torch.equal(histogram.pick_bits(e0 ^ e1, position), torch.ones(count, dtype=torch.uint8))
    at = histogram.pick_bits(e0, position)
    assert torch.equal(sign, 2 * at.to(torch.int64) - 1)
    assert abs(int(sign.sum())) < 6 * count**0.5
    assert "sign" not in {part.what for part in run[0].sent}


def test_trap_13_the_sign_is_dealt_as_a_whole_share(run: tuple[Recording, list[Message]]) -> None:
    """A bit, or ±1 in the clear, would give E1 s: β is dealt in 64 bits, and E1's half of ±1 looks like noise."""
    found, _ = run
    dealt = [part for part in found.sent if part.what in ("beta", "kappa")]
    assert all(part.data.shape[1] == 8 and part.peer == (part.role + 1) % 3 for part in dealt)
    signs = np.concatenate([p.data for p in dealt if p.what == "beta" and p.function == "activation"])
    for byte in range(8):
        assert uniform_p(signs[:, byte], 256) > 1e-9


@given(n=st.integers(1, 5000))
def test_trap_14_chunks_are_whole_rows(n: int) -> None:
    """Roles are given to slices of rows, and a row sum is over the last axis of one slice: no row has two dealers."""
    thirds = thirds_of(n)
    assert [i for _, rows in thirds for i in range(rows.start, rows.stop)] == list(range(n))
    assert len({role for role, _ in thirds}) == len(thirds)
    sizes = [rows.stop - rows.start for _, rows in thirds]
    assert max(sizes) - min(sizes) <= 1 or n < 3


def test_trap_15_answers_are_blinded_by_zero_shares(run: tuple[Recording, list[Message]]) -> None:
    """Alone, an answer is uniform; the dealer's raw summand of its third would be zeros."""
    names = set(run[1][0].tensors)
    assert names == {"output"} | {f"check {i}" for i in range(len(names) - 1)}
    for answer in run[1]:
        assert uniform_p(answer.tensors["output"].reshape(-1).view(np.uint8), 256) > 1e-9
    parties = loaded()
    with unmasked("output"):
        bare = parties.run(embedding_messages("all different"))
    _close(parties)
    assert all(uniform_p(answer.tensors["output"].reshape(-1).view(np.uint8), 256) < 1e-12 for answer in bare)


def test_trap_15_check_sums_are_blinded_too(run: tuple[Recording, list[Message]]) -> None:
    """All values in range: the sums are zero, yet each party's part is not."""
    answers = run[1]
    checks = answers[0].header["checks"]
    assert isinstance(checks, list)
    parts = np.zeros(3)
    for i, (_, bits) in enumerate(checks):  # type: ignore[misc]
        sums = [answer.tensors[f"check {i}"] for answer in answers]
        assert not (sum(sums) & ((1 << int(bits)) - 1)).any()  # type: ignore[call-overload,operator,arg-type]
        parts += [np.count_nonzero(s) for s in sums]
    assert (parts > 10 * len(checks) / 2).all()


def test_trap_15_products_leave_a_party_only_under_a_mask(run: tuple[Recording, list[Message]]) -> None:
    """[z] is never sent as it is: what evaluators send each other is an opening's half, a product's, a reshare's."""
    between = {p.what for p in run[0].sent if p.peer != (p.role + 2) % 3 and p.source != (p.role + 2) % 3}
    assert between == {"open", "multiply", "reshare", "count"}
