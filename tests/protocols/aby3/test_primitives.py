"""Products, gates, conversions, comparisons and truncation: exact values, exact costs, true claims."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import run, xored
from three import share

from mpc_ray.errors import InputError, ScaleError
from mpc_ray.kernels.planes import planes, spread
from mpc_ray.protocols.aby3 import convert, maximum, product, thresholds
from mpc_ray.protocols.aby3.bits import Bits, and_, majority
from mpc_ray.protocols.aby3.truncate import truncate
from mpc_ray.sharing.replicated import Shared

seeds = st.integers(0, 2**31)


def numbers(seed: int, *shape: int, bits: int = 64) -> torch.Tensor:
    """Uniform and extreme signed numbers of ``bits`` bits."""
    rng = np.random.default_rng(seed)
    top = 2 ** (bits - 1)
    x = rng.integers(-top, top, shape, dtype=np.int64)
    ends = np.array([-top, top - 1, -1, 0, 1, top // 2, -(top // 2)], np.int64)
    pick = rng.integers(0, 3 * len(ends), shape)
    return torch.from_numpy(np.where(pick < len(ends), ends[np.minimum(pick, len(ends) - 1)], x))


def bit_shares(x: torch.Tensor, n: int, seed: int = 3) -> list[Bits]:
    """Each party's half of the n bits of x as planes, XOR-shared by random words."""
    rng = np.random.default_rng(seed)
    whole = planes(x, 0, 0, n)
    a, b = (torch.from_numpy(rng.integers(-(2**63), 2**63, tuple(whole.shape), dtype=np.int64)) for _ in "ab")
    parts = [a, b, whole ^ a ^ b]
    return [Bits(parts[i], parts[(i + 1) % 3]) for i in range(3)]


def crafted(x: torch.Tensor, seed: int) -> list[Shared]:
    """Shares of x whose pieces are extremes as often as not: the wraps' corners."""
    ends = torch.tensor(
        [0, 1, -1, 2**62, -(2**62), 2**62 - 1, -(2**62) - 1, 2**63 - 1, -(2**63), 2**61, -(2**61)]
    )
    rng = np.random.default_rng(seed)
    a, b = (
        torch.where(
            torch.from_numpy(rng.integers(0, 2, tuple(x.shape))) == 1,
            ends[torch.from_numpy(rng.integers(0, len(ends), tuple(x.shape)))],
            numbers(seed + i, *x.shape),
        )
        for i in (1, 2)
    )
    turn = seed % 3
    parts = [a, b, x - a - b]
    parts = parts[turn:] + parts[:turn]
    return [Shared(parts[i], parts[(i + 1) % 3], 40) for i in range(3)]


# -- products ------------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(seed=seeds)
def test_products_are_exact_and_cost_one_round(seed: int) -> None:
    x, y, row = numbers(seed, 5, 7), numbers(seed + 1, 5, 7), numbers(seed + 2, 5, 1)
    xs, ys, rows = share(x, 10), share(y, 20, 5), share(row, 3, 6)
    found = run(lambda place, me: product.multiply(place, xs[me], ys[me]))
    assert torch.equal(found.value, x * y) and found.results[0].scale == 30
    assert found.rounds == 1 and found.payload == [8 * 35] * 3 and found.claims() == 1
    found = run(lambda place, me: product.multiply(place, xs[me], rows[me]))
    assert torch.equal(found.value, x * row) and found.claims() == 1
    found = run(lambda place, me: product.dot(place, xs[me], ys[me], -1))
    assert torch.equal(found.value, (x * y).sum(-1))
    assert found.rounds == 1 and found.payload == [8 * 5] * 3 and found.claims() == 1


@settings(max_examples=5)
@given(seed=seeds)
def test_matrices(seed: int) -> None:
    x, y = numbers(seed, 2, 5, 7), numbers(seed + 1, 2, 7, 3)
    xs, ys = share(x, 10), share(y, 20, 5)
    found = run(lambda place, me: product.matmul(place, xs[me], ys[me]))
    assert torch.equal(found.value, x @ y)
    assert found.rounds == 1 and found.payload == [8 * 30] * 3 and found.claims() == 1


@settings(max_examples=5)
@given(seed=seeds)
def test_a_linear_layer_of_two_inputs(seed: int) -> None:
    """The second input is two bits below the scale that the weights expect: its rows are raised."""
    a, b, w, bias = (
        numbers(seed, 5, 4),
        numbers(seed + 1, 5, 3),
        numbers(seed + 2, 7, 6),
        numbers(seed + 3, 6),
    )
    shares = [share(t, s, i) for i, (t, s) in enumerate(((a, 34), (b, 32), (w, 0), (bias, 54)))]

    def body(place: object, me: int) -> object:
        x, y, weight, added = (of[me] for of in shares)
        stored = Shared(added.own, added.next, 55)
        linear = product.Linear(weight, stored, (34, 32), (0, 2), (4, 3))
        return linear.apply(place, added, x, y)  # type: ignore[arg-type]

    found = run(body)  # type: ignore[arg-type]
    assert torch.equal(found.value, a @ w[:4] + 4 * (b @ w[4:]) + bias)
    assert found.results[0].scale == 54 and found.payload == [8 * 30] * 3 and found.claims() == 1


def test_a_linear_layer_refuses_another_scale() -> None:
    shares = [share(numbers(i, 2, 2), 30, i) for i in range(2)]
    linear = [
        product.Linear(shares[0][i], Shared(shares[0][i].own[0], shares[0][i].next[0], 55), (34,), (0,), (2,))
        for i in range(3)
    ]
    with pytest.raises(ScaleError):
        run(
            lambda place, me: linear[me].apply(
                place, Shared(shares[0][me].own[0], shares[0][me].next[0], 54), shares[1][me]
            )
        )


# -- bits ----------------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(seed=seeds, length=st.sampled_from([1, 64, 65, 130]))
def test_gates(seed: int, length: int) -> None:
    x, y = numbers(seed, 2, length), numbers(seed + 1, 2, length)
    xs, ys = bit_shares(x, 5), bit_shares(y, 5, 4)
    found = run(lambda place, me: and_(place, xs[me], ys[me]))
    words = 5 * 2 * -(-length // 64)
    assert torch.equal(xored(found.results, length), spread(planes(x & y, 0, 0, 5), length))
    assert found.rounds == 1 and found.payload == [8 * words] * 3 and found.claims() == 1
    found = run(lambda place, me: majority(place, xs[me]))
    a, b, c = (xs[i].own for i in range(3))
    assert torch.equal(xored(found.results, length), spread((a & b) | (b & c) | (c & a), length))
    assert found.payload == [8 * words] * 3 and found.claims() == 1


@settings(max_examples=20)
@given(seed=seeds, n=st.integers(1, 20), t=st.integers(0, 44), exact=st.booleans())
def test_a_window_is_its_true_value_or_less_by_one_or_two(seed: int, n: int, t: int, exact: bool) -> None:
    t = 0 if exact else t
    x = numbers(seed, 3, 70)
    shares = crafted(x, seed)
    constant = 3 << 40
    found = run(lambda place, me: convert.window(place, shares[me], t, n, constant))
    bits = xored(found.results, 70)
    got = (bits << torch.arange(n)[:, None, None]).sum(0)
    true = ((x + constant) >> t) & ((1 << n) - 1)
    low = (true - got) & ((1 << n) - 1)
    assert int(low.max()) <= (0 if exact else 2)
    assert found.rounds == convert.add_rounds(n)
    assert found.payload == [8 * convert.add_gates(n) * 3 * 2] * 3
    found.claims()


def test_a_whole_number_as_bits() -> None:
    x = numbers(5, 200)
    shares = crafted(x, 5)
    found = run(lambda place, me: convert.window(place, shares[me], 0, 64))
    assert torch.equal(xored(found.results, 200), spread(planes(x, 0, 0, 64), 200))
    assert found.rounds == 8 and found.claims() == 8


@settings(max_examples=10)
@given(seed=seeds, planes_=st.integers(1, 6), outputs=st.integers(1, 3), words=st.integers(1, 5))
def test_sums_of_bits(seed: int, planes_: int, outputs: int, words: int) -> None:
    x = numbers(seed, 64 * words)
    shares = bit_shares(x, planes_)
    coefficients, constants = numbers(seed + 1, outputs, planes_), numbers(seed + 2, outputs)
    found = run(lambda place, me: convert.sums_of_bits(place, shares[me], coefficients, constants, 7))
    bits = spread(planes(x, 0, 0, planes_), 64 * words)
    wanted = (coefficients.unsqueeze(-1) * bits).sum(1) + constants.unsqueeze(-1)
    for r in range(outputs):
        three = [found.results[i][r] for i in range(3)]
        assert all(torch.equal(three[i].next, three[(i + 1) % 3].own) for i in range(3))
        assert torch.equal(sum(s.own for s in three), wanted[r])
    assert found.rounds == 2
    assert sum(found.payload) == 8 * (planes_ + 2 * outputs) * 64 * words
    assert found.claims() == min(3, words) * (planes_ + 2 * outputs)


def test_a_bit_as_a_number() -> None:
    x = numbers(1, 100)
    shares = bit_shares(x, 1)
    found = run(lambda place, me: convert.to_number(place, shares[me], 100, 20))
    assert torch.equal(found.value, (x & 1) << 20) and sum(found.payload) == 24 * 128


# -- comparison ----------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(seed=seeds, n=st.integers(1, 12), data=st.data())
def test_thresholds(seed: int, n: int, data: st.DataObject) -> None:
    top = (1 << n) - 1
    chosen = data.draw(st.lists(st.integers(1, top), min_size=1, max_size=min(8, top), unique=True))
    x = torch.from_numpy(np.random.default_rng(seed).integers(0, top + 1, 130))
    x[: len(chosen)] = torch.tensor(chosen)
    shares = bit_shares(x, n)
    found = run(lambda place, me: thresholds.at_least(place, shares[me], chosen))
    wanted = torch.stack([x >= t for t in chosen]).to(torch.int64)
    assert torch.equal(xored(found.results, 130), wanted)
    assert found.rounds <= thresholds.compare_rounds(n)
    assert found.payload == [8 * 3 * thresholds.threshold_gates(n, chosen)] * 3
    found.claims()


@pytest.mark.parametrize("chosen", [[0], [16], [-1]])
def test_a_threshold_that_is_none_is_refused(chosen: list[int]) -> None:
    shares = bit_shares(numbers(1, 3), 4)
    with pytest.raises(ValueError, match="threshold"):
        run(lambda place, me: thresholds.at_least(place, shares[me], chosen))


@settings(max_examples=12)
@given(seed=seeds, n=st.integers(1, 10))
def test_two_shared_numbers(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (torch.from_numpy(rng.integers(0, 1 << n, 150)) for _ in range(2))
    y[:50] = x[:50]
    xs, ys = bit_shares(x, n), bit_shares(y, n, 4)
    found = run(lambda place, me: thresholds.greater(place, xs[me], ys[me]))
    assert torch.equal(xored(found.results, 150)[0], (x > y).to(torch.int64))
    assert found.rounds == 1 + (n - 1).bit_length()
    assert found.payload == [8 * 3 * thresholds.greater_gates(n)] * 3
    found.claims()


@settings(max_examples=12)
@given(seed=seeds, n=st.integers(1, 9), count=st.integers(1, 9))
def test_the_largest_of_a_line(seed: int, n: int, count: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).integers(0, 1 << n, (count, 70)))
    shares = bit_shares(x, n)
    found = run(lambda place, me: maximum.largest(place, shares[me]))
    got = (xored(found.results, 70) << torch.arange(n)[:, None]).sum(0)
    assert torch.equal(got, x.amax(0))
    assert found.rounds == maximum.maximum_rounds(n, count)
    assert found.payload == [8 * 2 * maximum.maximum_gates(n, count)] * 3
    found.claims()


# -- truncation ----------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(seed=seeds, f=st.integers(1, 57))
def test_truncation_is_never_off_by_two(seed: int, f: int) -> None:
    x = numbers(seed, 3, 50, bits=62)
    edge = (1 << 61) - (1 << (f + 1))
    x = x.clamp(1 - edge, edge - 1)
    shares = crafted(x, seed)
    found = run(lambda place, me: truncate(place, shares[me], f))
    error = (found.value - (x >> f)).tolist()
    assert min(map(min, error)) >= -1 and max(map(max, error)) <= 2
    assert found.results[0].scale == 40 - f
    assert found.rounds == 2 and sum(found.payload) == 4 * -(-f // 8) * 192
    assert found.claims() == 12


def test_truncation_is_centred() -> None:
    x = numbers(3, 60_000, bits=50)
    shares = share(x)
    found = run(lambda place, me: truncate(place, shares[me], 16), proving=False)
    error = found.value.double() - x.double() / 2**16
    assert (
        abs(float(error.mean())) < 0.01
        and 0.48 < float(error.std()) < 0.52
        and float(error.abs().max()) < 1.5
    )


@pytest.mark.parametrize("f", [0, -1, 60])
def test_truncation_refuses_other_lengths(f: int) -> None:
    shares = share(numbers(1, 4))
    with pytest.raises(ValueError, match="truncate"):
        run(lambda place, me: truncate(place, shares[me], f))


def test_every_case_of_the_two_top_bits() -> None:
    """All 2-bit tops of three pieces, with low parts at both ends, for sums in the range: W is right in each."""
    lows = [0, 1, 2**61, 2**62 - 1]
    wanted, parts = [], []
    for a in range(4):
        for b in range(4):
            for la in lows:
                for lb in lows:
                    for x in (-(2**61) + 64, -1, 0, 1, 2**61 - 64):
                        p, q = (a << 62) + la, (b << 62) + lb
                        parts.append([p, q, (x - p - q) % 2**64])
                        wanted.append(x)
    signed = torch.tensor([[v - 2**64 if v >= 2**63 else v for v in row] for row in parts]).T.contiguous()
    for turn in range(3):
        pieces = [signed[(i + turn) % 3] for i in range(3)]
        shares = [Shared(pieces[i], pieces[(i + 1) % 3], 0) for i in range(3)]
        found = run(lambda place, me, s=shares: truncate(place, s[me], 4), proving=False)  # type: ignore[misc]
        error = found.value - (torch.tensor(wanted) >> 4)
        assert int(error.min()) >= -1 and int(error.max()) <= 2


def test_odd_lengths_are_refused_where_words_are_needed() -> None:
    from mpc_ray.protocols.aby3.one_party import one_party_sums

    with pytest.raises(InputError):
        run(lambda place, me: one_party_sums(place, None, 65))  # type: ignore[arg-type]
