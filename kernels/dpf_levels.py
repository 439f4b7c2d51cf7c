"""The compiled levels of the point function, and the fixed-key AES between them.

A chunk of R rows (a multiple of 4) lies node by node: level l is 2^l lines of R nodes of 16 bytes. The correction words
of a level are then one more line of R, and a level is three plain passes: two AES calls and one pass of xors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numba import types
from numpy.typing import NDArray

from .compiled import compiled, intrinsic
from .vector_ir import V8, Loop, at, const, load, shuffle, splat_const, store

Word = NDArray[np.uint64]
Byte = NDArray[np.uint8]

ONE = np.uint64(1)


def cipher(key: bytes) -> CipherContext:
    """AES-128 of whole blocks under a fixed public key: a permutation, not encryption."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor()


def permute(aes: CipherContext, source: Word, into: Word, words: int) -> None:
    """into = AES(source), the first ``words`` words (2 a block); ``into`` has at least 2 spare words."""
    aes.update_into(source.view(np.uint8)[: 8 * words].data, into.view(np.uint8)[: 8 * words + 15].data)


def line(words: int) -> Word:
    """uint64[words + 2] from a 64-byte boundary: room for an AES call's output."""
    memory = np.empty(words + 2 + 8, np.uint64)
    skip = -memory.ctypes.data % 64 // 8
    return memory[skip : skip + words + 2]


@compiled
def corrections(keys: Byte, levels: int, rows: int, left: Word, right: Word, leaf: Word) -> None:
    """Lines of correction words from the wire form: left, right [levels, 2 rows] with the control bit as lowest bit,
    leaf [2 rows]. Rows past the end of ``keys`` are zero."""
    left[:] = 0
    right[:] = 0
    leaf[:] = 0
    for row in range(keys.shape[0]):
        for level in range(levels + 1):
            for word in range(2):
                value = np.uint64(0)
                for byte in range(8):
                    value |= np.uint64(keys[row, 16 * level + 8 * word + byte]) << np.uint64(8 * byte)
                if level < levels:
                    left[level, 2 * row + word] = value
                    right[level, 2 * row + word] = value
                else:
                    leaf[2 * row + word] = value
        for level in range(levels):
            control = np.uint64(keys[row, 16 * levels + 16 + level // 4]) >> np.uint64(2 * (level % 4))
            left[level, 2 * row] = (left[level, 2 * row] & ~ONE) | (control & ONE)
            right[level, 2 * row] = (right[level, 2 * row] & ~ONE) | (control >> ONE & ONE)


@compiled
def roots(seed: Byte, party: int, rows: int, nodes: Word) -> None:
    """One line of ``rows`` nodes: the seeds, with the party as lowest bit. Rows past the end are zero."""
    for row in range(rows):
        for word in range(2):
            value = np.uint64(0)
            if row < seed.shape[0]:
                for byte in range(8):
                    value |= np.uint64(seed[row, 8 * word + byte]) << np.uint64(8 * byte)
            nodes[2 * row + word] = value
        nodes[2 * row] = (nodes[2 * row] & ~ONE) | np.uint64(party)


def _corrected(b: Any, node: Any, hashed: Any, cuts: list[Any]) -> list[Any]:
    """hashed xor node xor (cut where the node's lowest bit is 1), for four nodes in a vector and each cut."""
    low_words = shuffle(b, node, node, [0, 0, 2, 2, 4, 4, 6, 6])
    chosen = b.ashr(b.shl(low_words, splat_const(V8, 63)), splat_const(V8, 63))
    return [b.xor(b.xor(value, node), b.and_(cut, chosen)) for value, cut in zip(hashed, cuts, strict=True)]


@intrinsic
def _descend_line(
    typing: Any, vectors: Any, node: Any, left: Any, right: Any, cut_left: Any, cut_right: Any, out_left: Any,
    out_right: Any,
) -> Any:  # fmt: skip
    """One line of nodes to its two lines of children; addresses, ``vectors`` of four nodes each."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        loop = Loop(b, args[0], list(args[1:]))
        *inputs, out_left, out_right = loop.carried
        node, left, right, *cuts = (load(b, V8, address, 0, 8) for address in inputs)
        first, second = _corrected(b, node, [left, right], cuts)
        store(b, first, out_left, 0, 8)
        store(b, second, out_right, 0, 8)
        loop.end([at(b, address, 64) for address in loop.carried])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), code


@intrinsic
def _leaf_block(typing: Any, node: Any, hashed: Any, cut: Any, line: Any, out: Any, row: Any) -> Any:
    """Four leaves of four rows: lines ``line`` bytes apart in, rows ``row`` bytes apart out."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        node, hashed, cut, line, out, row = args
        cuts = [load(b, V8, cut, 0, 8)]
        found = []
        for i in range(4):
            skip = b.mul(line, const(i))
            nodes, hashes = (load(b, V8, b.add(address, skip), 0, 8) for address in (node, hashed))
            found += _corrected(b, nodes, [hashes], cuts)
        pairs = [[shuffle(b, found[i], found[i + 1], [2 * r, 2 * r + 1, 8 + 2 * r, 9 + 2 * r]) for r in range(4)]
                 for i in (0, 2)]  # fmt: skip
        for r in range(4):
            store(
                b,
                shuffle(b, pairs[0][r], pairs[1][r], list(range(8))),
                b.add(out, b.mul(row, const(r))),
                0,
                8,
            )
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), code


@compiled
def descend(
    nodes: Word, left: Word, right: Word, cut_left: Word, cut_right: Word, lines: int, below: Word
) -> None:
    """below[2 i], below[2 i + 1] = hashes of line i of ``nodes`` (left and right hold its AES), corrected where the
    node's lowest bit is 1. A line holds a multiple of 4 nodes."""
    width = cut_left.shape[0]
    for i in range(lines):
        skip, to = 8 * width * i, below.ctypes.data + 16 * width * i
        _descend_line(
            width // 8,
            nodes.ctypes.data + skip,
            left.ctypes.data + skip,
            right.ctypes.data + skip,
            cut_left.ctypes.data,
            cut_right.ctypes.data,
            to,
            to + 8 * width,
        )


@compiled
def leaves(nodes: Word, hashed: Word, cut: Word, lines: int, out: Word) -> None:
    """out[row, 2 lines] = hashes of the last level's nodes, corrected, row by row."""
    width, rows = cut.shape[0], out.shape[0]
    blocks = rows // 4 if lines % 4 == 0 else 0
    for block in range(blocks):
        for i in range(0, lines, 4):
            skip = 8 * (i * width + 8 * block)
            _leaf_block(
                nodes.ctypes.data + skip,
                hashed.ctypes.data + skip,
                cut.ctypes.data + 64 * block,
                8 * width,
                out.ctypes.data + 8 * (4 * block * out.shape[1] + 2 * i),
                8 * out.shape[1],
            )
    for row in range(4 * blocks, rows):
        for i in range(lines):
            for word in range(2):
                spot = i * width + 2 * row + word
                chosen = np.uint64(0) - (nodes[spot - word] & ONE)
                out[row, 2 * i + word] = hashed[spot] ^ nodes[spot] ^ (cut[2 * row + word] & chosen)


@compiled
def deal_level(
    level: int, n: int, position: NDArray[np.int64], nodes: Any, left: Any, right: Any, keys: Byte
) -> None:
    """One level of both parties' paths: write the correction word, step ``nodes`` [2, 2 R] to the children on the path.

    left, right [2, 2 R] hold the AES of the nodes.
    """
    levels = n - 7
    for row in range(position.shape[0]):
        turn = (position[row] >> (n - 1 - level)) & 1
        keep, lose = (right, left) if turn else (left, right)
        first, second = nodes[0, 2 * row] & ONE, nodes[1, 2 * row] & ONE
        both = nodes[0, 2 * row] ^ nodes[1, 2 * row]
        bit_left = (left[0, 2 * row] ^ left[1, 2 * row] ^ both ^ ONE ^ np.uint64(turn)) & ONE
        bit_right = (right[0, 2 * row] ^ right[1, 2 * row] ^ both ^ np.uint64(turn)) & ONE
        for word in range(2):
            at_word = 2 * row + word
            cut = lose[0, at_word] ^ lose[1, at_word] ^ nodes[0, at_word] ^ nodes[1, at_word]
            if word == 0:
                cut &= ~ONE
            for byte in range(8):
                keys[row, 16 * level + 8 * word + byte] = np.uint8(
                    cut >> np.uint64(8 * byte) & np.uint64(255)
                )
            if word == 0:
                cut |= bit_right if turn else bit_left
            nodes[0, at_word] ^= keep[0, at_word] ^ (cut & (np.uint64(0) - first))
            nodes[1, at_word] ^= keep[1, at_word] ^ (cut & (np.uint64(0) - second))
        spot = 16 * levels + 16 + level // 4
        keys[row, spot] |= np.uint8((bit_left | bit_right << ONE) << np.uint64(2 * (level % 4)))


@compiled
def deal_leaf(n: int, position: NDArray[np.int64], nodes: Any, hashes: Any, keys: Byte, sign: Any) -> None:
    """The last correction word, and the sign: +1 where party 0's share holds the one bit, else -1."""
    levels = n - 7
    for row in range(position.shape[0]):
        chosen = np.uint64(0) - (nodes[0, 2 * row] & ONE)
        place = position[row] & 127
        for word in range(2):
            at_word = 2 * row + word
            hot = ONE << np.uint64(place & 63) if place >> 6 == word else np.uint64(0)
            mine = hashes[0, at_word] ^ nodes[0, at_word]
            cut = mine ^ hashes[1, at_word] ^ nodes[1, at_word] ^ hot
            for byte in range(8):
                keys[row, 16 * levels + 8 * word + byte] = np.uint8(
                    cut >> np.uint64(8 * byte) & np.uint64(255)
                )
            if place >> 6 == word:
                sign[row] = 1 if (mine ^ (cut & chosen)) & hot else -1
