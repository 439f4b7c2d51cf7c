"""Chi-square tests of uniformity, with p-values good down to 1e-300, and what of a party's view they are applied to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from recording import Recording, Sent

from mpc_ray.kernels import dpf

LEAST = 64  # values below which a group is left out
EXPECTED = 16  # values a bin must expect
OPENED = ("open", "multiply", "reshare")  # both evaluators send a half: the sum is known to both
OPENED_BITS = ("and", "select")  # the same, by XOR


def upper_gamma(a: float, x: float) -> float:
    """Q(a, x) = Γ(a, x)/Γ(a): series below a + 1, Lentz's continued fraction above."""
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while term > total * 1e-16:
            n += 1
            term *= x / n
            total += term
        return max(0.0, 1 - total * scale)
    b = x + 1 - a
    c, d = 1e300, 1 / b
    h = d
    for i in range(1, 10_000):
        b += 2
        step = -i * (i - a)
        d = 1 / (step * d + b)
        c = b + step / c
        h *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return scale * h


def uniform_p(values: np.ndarray, size: int) -> float:
    """P-value of ``values`` being uniform on 0 … size-1 (a power of two); top bits only where there are few."""
    bins = size
    while bins > 2 and len(values) < EXPECTED * bins:
        bins //= 2
    counts = np.bincount((values.astype(np.int64) * bins) // size, minlength=bins)
    expected = len(values) / bins
    return upper_gamma((bins - 1) / 2, float(((counts - expected) ** 2).sum() / expected) / 2)


def balanced_p(rows: np.ndarray) -> float:
    """P-value of every bit position of ``rows`` (n, width) being one half the time."""
    ones = np.unpackbits(rows, axis=1).sum(0, dtype=np.int64)
    n, bits = len(rows), rows.shape[1] * 8
    return upper_gamma(bits / 2, float(((2 * ones - n) ** 2).sum() / n) / 2)


def view_tests(found: Recording, receiver: int, turns: int, buckets: int) -> dict[str, float]:
    """Name → p-value of every test on what ``receiver`` got and what it computes from that at once.

    ``turns`` and ``buckets``: of the softmax, the same at all heads.
    """
    tests = message_tests(found, receiver, turns)
    tests["count, both halves"] = uniform_p(_counts(found.sent, receiver), 256)
    if any(part.what == "reference" for part in found.sent):  # the fewest rounds: there is no rotation
        tests["reference, both halves"] = uniform_p(_references(found.sent, receiver, turns), turns)
        return tests
    tests["position of the rotated one-hot"] = uniform_p(_positions(found.sent, receiver, buckets), buckets)
    tests["theta and rotation together"] = uniform_p(_turned_back(found, receiver, turns, buckets), turns)
    return tests


def message_tests(found: Recording, receiver: int, turns: int = 256) -> dict[str, float]:
    """The part of ``view_tests`` that does not know of a softmax: messages, and the sums of both halves of openings."""
    tests: dict[str, float] = {}
    for name, received in _received(found.sent, receiver):
        if "theta" in name or "reference" in name:
            tests[name] = uniform_p(received[:, 0], turns)
            continue
        rows = _free_bits(received) if received.shape[1] == dpf.key_bytes(16) else received
        tests[f"{name}: bytes"] = uniform_p(rows.reshape(-1), 256)
        if rows.shape[1] > 1:
            tests[f"{name}: bits"] = balanced_p(rows)
        if rows.shape[1] == 8:
            for i in range(8):
                tests[f"{name}: byte {i}"] = uniform_p(rows[:, i], 256)
    for name, rows in _opened(found.sent, receiver):
        for i in range(rows.shape[1]):
            tests[f"{name}: byte {i}"] = uniform_p(rows[:, i], 256)
    return tests


def _received(sent: Iterable[Sent], receiver: int) -> Iterator[tuple[str, np.ndarray]]:
    """All that was received of one kind, over all sites: (elements, width)."""
    groups: dict[tuple[str, str, int, int], list[np.ndarray]] = defaultdict(list)
    for part in sent:
        if part.peer == receiver:
            groups[part.function, part.what, part.source, part.data.shape[1]].append(part.data)
    for (function, what, source, width), parts in groups.items():
        rows = np.concatenate(parts)
        if len(rows) >= LEAST:
            yield f"{function}/{what} from party {source}, {width} bytes each", rows


def _free_bits(keys: np.ndarray) -> np.ndarray:
    """The bits of point functions' keys that are not zero by format, packed: all but the lowest of each level's
    correction word, whose place the control bit has, and the spare bits of the last byte."""
    bits = np.unpackbits(keys, axis=1, bitorder="little")
    levels = 16 - dpf.LEAF_LOG
    fixed = [128 * level for level in range(levels)]
    fixed += range(8 * (16 * levels + 16) + 2 * levels, bits.shape[1])
    assert not bits[:, fixed].any()
    free = np.delete(bits, fixed, axis=1)
    return np.packbits(free[:, : free.shape[1] // 8 * 8], axis=1)


def _by_site(sent: Iterable[Sent], what: str) -> dict[tuple[int, int], dict[int, np.ndarray]]:
    """(role, site) → source → what it sent there, joined."""
    sites: dict[tuple[int, int], dict[int, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for part in sent:
        if part.what == what:
            sites[part.role, part.site][part.source].append(part.data)
    return {site: {s: np.concatenate(p) for s, p in by.items()} for site, by in sites.items()}


def _opened(sent: list[Sent], receiver: int) -> Iterator[tuple[str, np.ndarray]]:
    for what in (*OPENED, *OPENED_BITS):
        sums = []
        for (role, _), halves in _by_site(sent, what).items():
            if receiver in (role, (role + 1) % 3):
                first, second = (half.reshape(-1) for half in halves.values())
                if what in OPENED:
                    sums.append((first.view(np.int64) + second.view(np.int64)).view(np.uint8).reshape(-1, 8))
                else:
                    sums.append((first ^ second).reshape(-1, 1))
        if sums:
            yield f"{what}, both halves", np.concatenate(sums)


def _references(sent: list[Sent], receiver: int, turns: int) -> np.ndarray:
    """Opened references m·w - η, where η must hide m."""
    sums = []
    for (role, _), halves in _by_site(sent, "reference").items():
        assert (role + 2) % 3 not in halves
        if receiver in (role, (role + 1) % 3):
            first, second = (half.reshape(-1).astype(np.int64) for half in halves.values())
            sums.append((first + second) % turns)
    return np.concatenate(sums)


def _counts(sent: list[Sent], receiver: int) -> np.ndarray:
    """Opened counts, in Z_2^8 here: one byte each."""
    sums = []
    for (role, _), halves in _by_site(sent, "count").items():
        if receiver in (role, (role + 1) % 3):
            first, second = (half.reshape(-1) for half in halves.values())
            sums.append(first + second)
    return np.concatenate(sums)


def _positions(sent: list[Sent], receiver: int, buckets: int) -> np.ndarray:
    """Where the dealer sees the one bit; asserts that it sees exactly one a row."""
    found = []
    for (role, _), halves in _by_site(sent, "rotated one-hot").items():
        if receiver == (role + 2) % 3:
            first, second = halves.values()
            bits = np.unpackbits(first ^ second, bitorder="little").reshape(-1, buckets)
            assert (bits.sum(1) == 1).all()
            found.append(bits.argmax(1))
    return np.concatenate(found)


def _turned_back(found: Recording, receiver: int, turns: int, buckets: int) -> np.ndarray:
    """θ - ρ·w at an evaluator, which knows both: m·w - η, where η must hide m."""
    theta = _by_site((s for s in found.sent if s.peer == receiver), "theta")
    out = []
    for draw in found.draws:
        if draw.purpose == "rotation" and draw.me == receiver:
            (answer,) = theta[draw.role, draw.site].values()
            rho = draw.data.astype(np.int64) & (buckets - 1)
            out.append((answer[:, 0] - rho * (turns // buckets)) % turns)
    return np.concatenate(out)
