"""128-bit integers and carry-less products for compiled bodies: what numba lacks, written as LLVM instructions.

A wide integer is a pair (low, high) of uint64, a wider one a triple. Only the carry-less product names a function of
the processor.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from .compiled import has, intrinsic
from .vector_ir import I64, named

__all__ = ["HARDWARE", "add_wide", "carry_less", "mac_wide", "mac_wider", "montgomery", "mul_wide"]

HARDWARE = has("pclmul", "sse2")
"""Whether ``carry_less`` may be used: the processor has PCLMULQDQ."""

_I128 = ir.IntType(128)
_HALF = ir.Constant(_I128, 64)
_U64 = types.uint64
_PAIR, _TRIPLE = types.UniTuple(types.uint64, 2), types.UniTuple(types.uint64, 3)


def _joined(b: Any, low: Any, high: Any) -> Any:
    return b.or_(b.zext(low, _I128), b.shl(b.zext(high, _I128), _HALF))


def _split(context: Any, b: Any, value: Any) -> Any:
    return context.make_tuple(b, _PAIR, [b.trunc(value, I64), b.trunc(b.lshr(value, _HALF), I64)])


def _product(b: Any, x: Any, y: Any) -> Any:
    return b.mul(b.zext(x, _I128), b.zext(y, _I128))


@intrinsic
def mul_wide(typing: Any, x: Any, y: Any) -> Any:
    """x·y as (low, high)."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _split(context, b, _product(b, *args))

    return _PAIR(_U64, _U64), code


@intrinsic
def mac_wide(typing: Any, low: Any, high: Any, x: Any, y: Any) -> Any:
    """(low, high) + x·y mod 2^128."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        low, high, x, y = args
        return _split(context, b, b.add(_joined(b, low, high), _product(b, x, y)))

    return _PAIR(_U64, _U64, _U64, _U64), code


@intrinsic
def mac_wider(typing: Any, low: Any, middle: Any, high: Any, x: Any, y: Any) -> Any:
    """(low, middle, high) + x·y mod 2^192."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kind = ir.IntType(192)
        shifts = [ir.Constant(kind, 64 * i) for i in range(3)]
        total = b.zext(_product(b, *args[3:]), kind)
        old = ir.Constant(kind, 0)
        for word, shift in zip(args[:3], shifts, strict=True):
            old = b.or_(old, b.shl(b.zext(word, kind), shift))
        total = b.add(total, old)
        return context.make_tuple(b, _TRIPLE, [b.trunc(b.lshr(total, shift), I64) for shift in shifts])

    return _TRIPLE(_U64, _U64, _U64, _U64, _U64), code


@intrinsic
def add_wide(typing: Any, low: Any, high: Any, low2: Any, high2: Any) -> Any:
    """(low, high) + (low2, high2) mod 2^128."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _split(context, b, b.add(_joined(b, *args[:2]), _joined(b, *args[2:])))

    return _PAIR(_U64, _U64, _U64, _U64), code


@intrinsic
def montgomery(typing: Any, low: Any, high: Any, p: Any, inverse: Any) -> Any:
    """(low, high)·2^-64 mod p, not fully reduced: at most high + p. ``inverse`` = -1/p mod 2^64.

    Needs (low, high) + p·2^64 < 2^128.
    """

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        low, high, p, inverse = args
        m = b.mul(low, inverse)
        total = b.add(_joined(b, low, high), _product(b, m, p))
        return b.trunc(b.lshr(total, _HALF), I64)

    return _U64(_U64, _U64, _U64, _U64), code


@intrinsic
def carry_less(typing: Any, x: Any, y: Any) -> Any:
    """The product of two polynomials over GF(2), as (low, high). Only where ``HARDWARE`` is true."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        if not HARDWARE:
            return context.get_dummy_value()  # never reached there: the body is not offered
        two, byte = ir.VectorType(I64, 2), ir.IntType(8)
        multiply = named(b, "llvm.x86.pclmulqdq", two, two, two, byte)
        first, second = ir.Constant(ir.IntType(32), 0), ir.Constant(ir.IntType(32), 1)
        x, y = (b.insert_element(ir.Constant(two, [0, 0]), value, first) for value in args)
        product = b.call(multiply, [x, y, ir.Constant(byte, 0)])
        return context.make_tuple(
            b, _PAIR, [b.extract_element(product, first), b.extract_element(product, second)]
        )

    return _PAIR(_U64, _U64), code
