"""LLVM vector instructions for numba intrinsics: loads, stores, broadcasts and transposes on 512-bit registers.

Addresses are int64 values; offsets are in bytes. The code is portable LLVM where no function of the processor is
named, so LLVM lowers it to whatever the target has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

__all__ = [
    "I32",
    "I64",
    "V8",
    "V16",
    "Loop",
    "at",
    "const",
    "ir",
    "load",
    "named",
    "shuffle",
    "splat",
    "splat_const",
    "store",
    "transpose8",
]

Value = Any
Builder = Any

I32 = ir.IntType(32)
I64 = ir.IntType(64)
V8 = ir.VectorType(I64, 8)
V16 = ir.VectorType(I32, 16)


def const(value: int) -> Value:
    """An int64 constant."""
    return ir.Constant(I64, value)


def splat_const(kind: Any, value: int) -> Value:
    """A vector constant with ``value`` in every lane."""
    return ir.Constant(kind, [value] * kind.count)


def at(b: Builder, address: Value, offset: int) -> Value:
    """address + offset."""
    return b.add(address, const(offset)) if offset else address


def load(b: Builder, kind: Any, address: Value, offset: int, align: int) -> Value:
    """The value of type ``kind`` at address + offset."""
    value = b.load(b.inttoptr(at(b, address, offset), ir.PointerType(kind)))
    value.align = align
    return value


def store(b: Builder, value: Value, address: Value, offset: int, align: int) -> None:
    """Store ``value`` at address + offset."""
    b.store(value, b.inttoptr(at(b, address, offset), ir.PointerType(value.type))).align = align


def shuffle(b: Builder, left: Value, right: Value, lanes: list[int]) -> Value:
    """Lanes of the concatenation of two vectors."""
    return b.shuffle_vector(left, right, ir.Constant(ir.VectorType(I32, len(lanes)), lanes))


def splat(b: Builder, scalar: Value, kind: Any) -> Value:
    """A vector with ``scalar`` in every lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    return shuffle(b, b.insert_element(undefined, scalar, ir.Constant(I32, 0)), undefined, [0] * kind.count)


def named(b: Builder, name: str, result: Any, *arguments: Any) -> Value:
    """A function of LLVM or of the processor, by its LLVM name."""
    return cgutils.get_or_insert_function(b.module, ir.FunctionType(result, list(arguments)), name)


def transpose8(b: Builder, rows: list[Value]) -> list[Value]:
    """Eight vectors of eight int64, transposed by three butterfly levels of two-register shuffles."""
    for half in (1, 2, 4):
        first = [lane if not lane & half else 8 + lane - half for lane in range(8)]
        second = [lane + half if not lane & half else 8 + lane for lane in range(8)]
        turned = list(rows)
        for i in range(8):
            if not i & half:
                turned[i] = shuffle(b, rows[i], rows[i + half], first)
                turned[i + half] = shuffle(b, rows[i], rows[i + half], second)
        rows = turned
    return rows


class Loop:
    """``do { ... } while (++k < count)`` with carried values, as LLVM blocks.

    Built as: ``loop = Loop(b, count, carried=[...])``; use ``loop.k`` and ``loop.carried``; ``loop.end([...])`` gives
    the last values. ``count`` is at least 1.
    """

    def __init__(self, b: Builder, count: Value, carried: list[Value]) -> None:
        self.b, self.count = b, count
        before = b.block
        self.body = b.function.append_basic_block("loop")
        b.branch(self.body)
        b.position_at_end(self.body)
        self.k = b.phi(I64)
        self.k.add_incoming(const(0), before)
        self.carried = [b.phi(value.type) for value in carried]
        for phi, value in zip(self.carried, carried, strict=True):
            phi.add_incoming(value, before)

    def end(self, values: list[Value]) -> list[Value]:
        """Close the loop; ``values`` are carried to the next turn, and are what the last turn leaves."""
        b = self.b
        following = b.add(self.k, const(1))
        here = b.block
        self.k.add_incoming(following, here)
        for phi, value in zip(self.carried, values, strict=True):
            phi.add_incoming(value, here)
        after = b.function.append_basic_block("after")
        b.cbranch(b.icmp_signed("<", following, self.count), self.body, after)
        b.position_at_end(after)
        return values
