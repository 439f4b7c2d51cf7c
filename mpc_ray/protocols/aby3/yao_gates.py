"""Half gates with free XOR and point-and-permute: an AND of Yao's sharing for many elements at once.

A *label* is 16 bytes, uint64 (…, 2); its *colour* is the lowest bit of word 0. The two labels of a wire differ by the
offset Δ of the garbling, whose colour is 1. A garbler holds every wire's label of 0, an evaluator the label of the
bit that is there, the *active* one. So the XOR of two wires is the XOR of what either holds (Kolesnikov and Schneider,
ICALP 2008), and an AND two ciphertexts (Zahur, Rosulek and Evans, EUROCRYPT 2015, figure 2).

The hash is TMMO of Guo, Katz, Wang and Yu (IEEE S&P 2020, §7.4), H(x, i) = π(π(x) ⊕ i) ⊕ π(x), π AES-128 under a
public key: circular correlation robust with tweaks (TCCR) where π is an ideal permutation, which is all that half gates
need of their hash. Keys are a garbling's own and never used again, so what an attacker works out ahead for one is of
no use for another; the bound is (queries · hashes of *one* garbling) / 2^127:
Δ's colour is public.
"""

from __future__ import annotations

from typing import Protocol as Interface
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

LABEL_BYTES = 16
GATE_BYTES = 2 * LABEL_BYTES
KEY_BYTES = 16
_ROOM = 15  # an AES call's output must have a block less one byte more

Labels: TypeAlias = np.ndarray


class Hash:
    """H(label, tweak) under one key. No tweak may be used twice with one key but for the two labels of one wire."""

    def __init__(self, key: bytes) -> None:
        # A fixed public permutation of single blocks, which is what the construction asks for; nothing is encrypted.
        self._aes = Cipher(algorithms.AES(key), modes.ECB()).encryptor()

    def __call__(self, labels: Labels, tweaks: np.ndarray) -> Labels:
        """uint64 (…, 2) → the same shape. ``tweaks``: uint64 that broadcast against (…)."""
        inner = self._permute(labels)
        tweaked = inner.copy()
        tweaked[..., 0] ^= tweaks
        out: Labels = self._permute(tweaked) ^ inner
        return out

    def _permute(self, blocks: Labels) -> Labels:
        source = np.ascontiguousarray(blocks)
        out = np.empty(source.nbytes + _ROOM, np.uint8)
        if source.nbytes:
            self._aes.update_into(source.reshape(-1).view(np.uint8).data, out.data)
        return out[: source.nbytes].view(np.uint64).reshape(source.shape)


def colours(labels: Labels) -> np.ndarray:
    """Lowest bits: uint64 (…) of 0 and 1."""
    out: np.ndarray = labels[..., 0] & np.uint64(1)
    return out


def where(bits: np.ndarray, labels: Labels) -> Labels:
    """``labels`` where ``bits`` (uint64 of 0 and 1) are 1, else zeros; no branch on a bit."""
    out: Labels = (np.uint64(0) - bits)[..., None] & labels
    return out


class Gates(Interface):
    """What a circuit is written against; labels of (count, 2). XOR is ^."""

    def and_(self, a: Labels, b: Labels) -> Labels:
        """The wire of a & b."""

    def not_(self, a: Labels) -> Labels:
        """The wire of ¬a: nothing is sent."""


class _Tweaks:
    """Two fresh tweaks an element for every gate."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, lines: int, count: int) -> np.ndarray:
        """(lines, count), never given before."""
        start = self._next
        self._next += lines * count
        return np.arange(start, self._next, dtype=np.uint64).reshape(lines, count)


class Garbler:
    """Makes tables: labels are those of 0. ``offset``: Δ, uint64 (2,), colour 1."""

    def __init__(self, hashed: Hash, offset: Labels) -> None:
        self.hashed, self.offset = hashed, offset
        self.tweaks = _Tweaks()
        self.tables: list[np.ndarray] = []

    def known(self, bits: np.ndarray) -> Labels:
        """Wires of bits that the garbler knows, uint64 (…): the active label is zero, so the evaluator is sent
        nothing.
        """
        return where(bits, self.offset)

    def not_(self, a: Labels) -> Labels:
        out: Labels = a ^ self.offset
        return out

    def and_(self, a: Labels, b: Labels) -> Labels:
        """The label of 0 of a & b; its table, (2, count, 2), is added to ``tables``."""
        both = np.stack([a, b])
        h = self.hashed(np.stack([both, both ^ self.offset], axis=1), self.tweaks.take(2, len(a))[:, None])
        (h0, h1), (e0, e1) = h
        colour_a, colour_b = colours(a), colours(b)
        generator = h0 ^ h1 ^ where(colour_b, self.offset)
        evaluator = e0 ^ e1 ^ a
        self.tables.append(np.stack([generator, evaluator]))
        out: Labels = h0 ^ where(colour_a, generator) ^ e0 ^ where(colour_b, evaluator ^ a)
        return out


class Evaluator:
    """Uses tables, in the garbler's order: labels are the active ones. ``tables``: uint64 (gates, 2, count, 2)."""

    def __init__(self, hashed: Hash, tables: np.ndarray) -> None:
        self.hashed = hashed
        self.tweaks = _Tweaks()
        self._tables = iter(tables)

    def not_(self, a: Labels) -> Labels:
        return a

    def and_(self, a: Labels, b: Labels) -> Labels:
        """The active label of a & b."""
        generator, evaluator = next(self._tables)
        h, e = self.hashed(np.stack([a, b]), self.tweaks.take(2, len(a)))
        out: Labels = h ^ where(colours(a), generator) ^ e ^ where(colours(b), evaluator ^ a)
        return out


# -- circuits ------------------------------------------------------------------------------------------


def carry(gates: Gates, u: Labels, v: Labels) -> Labels:
    """The carry out of u + v, numbers of n wires (n, count, 2), lowest first: n ANDs, one a place."""
    out = gates.and_(u[0], v[0])
    for x, y in zip(u[1:], v[1:], strict=True):
        out = out ^ gates.and_(x ^ out, y ^ out)
    return out


def add(gates: Gates, u: Labels, v: Labels) -> Labels:
    """u + v mod 2^n: n - 1 ANDs."""
    sums = [u[0] ^ v[0]]
    out = None
    for i in range(1, len(u)):
        x, y = u[i - 1], v[i - 1]
        out = gates.and_(x, y) if out is None else out ^ gates.and_(x ^ out, y ^ out)
        sums.append(u[i] ^ v[i] ^ out)
    return np.stack(sums)


def sign(gates: Gates, u: Labels, v: Labels) -> Labels:
    """The top bit of u + v mod 2^n, (1, count, 2): n - 1 ANDs."""
    top: Labels = u[-1] ^ v[-1] ^ carry(gates, u[:-1], v[:-1])
    return top[None]


def greater(gates: Gates, x: Labels, y: Labels) -> Labels:
    """[x > y] of unsigned numbers of n wires, (1, count, 2): the borrow of y - x, n ANDs."""
    out = gates.and_(x[0], gates.not_(y[0]))
    for a, b in zip(x[1:], y[1:], strict=True):
        out = out ^ gates.and_(a ^ out, gates.not_(b ^ out))
    return out[None]
