"""Yao's sharing: gates against truth tables, conversions against the plain value, exact costs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from running import run, xored
from test_primitives import crafted, numbers
from three import share

from mpc_ray.errors import ConfigError
from mpc_ray.kernels.planes import planes
from mpc_ray.protocols.aby3 import yao
from mpc_ray.protocols.aby3 import yao_gates as gates
from mpc_ray.protocols.aby3.bits import Bits
from mpc_ray.protocols.aby3.one_party import slice_of

seeds = st.integers(0, 2**31)


def words(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, shape, np.uint64)


def garbler(seed: int = 1) -> gates.Garbler:
    offset = words(seed, 2)
    offset[0] |= np.uint64(1)
    return gates.Garbler(gates.Hash(b"k" * 16), offset)


def test_the_hash_is_its_definition() -> None:
    x, tweaks = words(1, 3, 5, 2), np.arange(5, dtype=np.uint64)
    found = gates.Hash(b"a key of 16 byte")(x, tweaks)
    aes = Cipher(algorithms.AES(b"a key of 16 byte"), modes.ECB()).encryptor()
    for i, j in product(range(3), range(5)):
        inner = np.frombuffer(aes.update(x[i, j].tobytes()), np.uint64)
        tweaked = inner ^ np.array([j, 0], np.uint64)
        assert np.array_equal(found[i, j], np.frombuffer(aes.update(tweaked.tobytes()), np.uint64) ^ inner)


def test_an_and_has_its_truth_table_whatever_the_colours() -> None:
    """Evaluated from active labels; chained, so that an output is an input, and with ¬ and bits that are known."""
    count = 64
    made = garbler()
    a0, b0 = words(2, count, 2), words(3, count, 2)
    a, b = (words(seed, count) & np.uint64(1) for seed in (4, 5))
    c0 = made.and_(a0, made.not_(b0))
    d0 = made.and_(c0 ^ a0, made.known(b))
    used = gates.Evaluator(gates.Hash(b"k" * 16), np.stack(made.tables))
    active = [x ^ gates.where(bits, made.offset) for x, bits in ((a0, a), (b0, b))]
    c = used.and_(active[0], used.not_(active[1]))
    d = used.and_(c ^ active[0], np.zeros_like(c))
    wanted = a & (b ^ np.uint64(1))
    assert np.array_equal(c, c0 ^ gates.where(wanted, made.offset))
    assert np.array_equal(d, d0 ^ gates.where((wanted ^ a) & b, made.offset))
    assert len(set(map(tuple, np.stack(made.tables).reshape(-1, 2).tolist()))) == 4 * count


def test_no_tweak_is_used_twice() -> None:
    tweaks = gates._Tweaks()
    taken = np.concatenate([tweaks.take(lines, 7).reshape(-1) for lines in (2, 2, 1, 2)])
    assert len(set(taken.tolist())) == len(taken) == 49


@settings(max_examples=3)
@given(seed=seeds)
def test_the_sign_of_every_number(seed: int) -> None:
    x = numbers(seed, 2, 150)
    shares = crafted(x, seed)
    found = run(lambda place, me: yao.less_than_zero(place, shares[me]), proving=False)
    assert torch.equal(xored(found.results, 300)[0], (x < 0).to(torch.int64).reshape(-1))
    assert found.rounds == yao.ROUNDS == 2
    assert found.payload == costs(yao.SIGN, 320)
    found = run(lambda place, me: yao.negative(place, shares[me]), proving=False)
    assert torch.equal(found.value, (x < 0).to(torch.int64)) and found.results[0].scale == 0
    assert found.rounds == 2 and found.payload == costs(yao.SIGN, 320, True)


def costs(circuit: yao.Circuit, count: int, numbers: bool = False) -> list[int]:
    """What each party sends, from what each sends of each third."""
    sent = [0, 0, 0]
    for k in range(3):
        part = slice_of(count, k)
        for i, nbytes in enumerate(circuit.bytes(part.stop - part.start, numbers)):
            sent[(k + i) % 3] += nbytes
    return sent


def test_what_the_docstrings_say_it_costs() -> None:
    assert sum(costs(yao.SIGN, 192)) == 192 * 3040 + 192 // 4 + 3 * 16
    assert sum(costs(yao.SIGN, 192, True)) == 192 * 3064 + 3 * 16


@pytest.mark.parametrize("n", [1, 2, 13, 64])
def test_numbers_to_bits(n: int) -> None:
    x = numbers(n, 200)
    shares = crafted(x, n)
    found = run(lambda place, me: yao.bits_of(place, shares[me], n), proving=False)
    wanted = torch.stack([x >> i & 1 for i in range(n)])
    assert torch.equal(xored(found.results, 200), wanted) and found.rounds == 2


@pytest.mark.parametrize("n", [1, 5, 16])
def test_comparison_of_boolean_shares(n: int) -> None:
    x, y = (numbers(seed, 192) & ((1 << n) - 1) for seed in (n, n + 1))
    y[:40] = x[:40]
    both = [shared_planes(v, n, seed) for seed, v in enumerate((x, y))]
    found = run(lambda place, me: yao.greater(place, both[0][me], both[1][me]), proving=False)
    assert torch.equal(xored(found.results, 192)[0], (x > y).to(torch.int64)) and found.rounds == 2
    assert sum(found.payload) == 192 * 64 * n + 192 // 4 + 3 * 16


def shared_planes(x: torch.Tensor, n: int, seed: int) -> list[Bits]:
    whole = planes(x, 0, 0, n)
    first, second = (torch.from_numpy(words(seed + i, *whole.shape).view(np.int64)) for i in (50, 60))
    pieces = [first, second, whole ^ first ^ second]
    return [Bits(pieces[i], pieces[(i + 1) % 3]) for i in range(3)]


@pytest.mark.parametrize("count", [0, 1, 64, 65])
def test_few_elements(count: int) -> None:
    """Some thirds are empty, or all."""
    x = numbers(3, count)
    shares = share(x, 5)
    found = run(lambda place, me: yao.negative(place, shares[me]), proving=False)
    assert torch.equal(found.value, (x < 0).to(torch.int64))


def test_it_is_no_part_of_what_is_proved() -> None:
    shares = share(numbers(1, 3))
    with pytest.raises(ConfigError, match="cannot be proved"):
        run(lambda place, me: yao.negative(place, shares[me]))
