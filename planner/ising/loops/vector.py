"""One vertex of all 32 copies in vector instructions, written in LLVM's own language.

numba widens whole numbers to 64 bits in what it compiles, and its loops over the copies then run at a fifth of the
speed (measured: 1,354 ns against 120 for a vertex of 48 neighbours). So the step that all sweeps consist of is built
here from vectors of 32 numbers of 16 or 32 bits. Addresses are given as whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mpc_ray.planner.ising.loops.layout import LANES

_I64, _I32, _F32 = ir.IntType(64), ir.IntType(32), ir.FloatType()


def _make(bits: int) -> Callable[..., Any]:
    """The step for fields and spins of `bits` bits."""
    number = ir.IntType(bits)
    row, wide, real = (ir.VectorType(kind, LANES) for kind in (number, _I32, _F32))
    nbytes = bits // 8
    shift = {2: 1, 4: 2}[nbytes]

    def load(b: Any, kind: Any, address: Any, align: int) -> Any:
        found = b.load(b.inttoptr(address, ir.PointerType(kind)))
        found.align = align
        return found

    def store(b: Any, value: Any, address: Any, align: int) -> None:
        b.store(value, b.inttoptr(address, ir.PointerType(value.type))).align = align

    def spread(b: Any, value: Any) -> Any:
        """The same number in all lanes."""
        empty = ir.Constant(row, ir.Undefined)
        one = b.insert_element(empty, value, ir.Constant(_I32, 0))
        return b.shuffle_vector(one, empty, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))

    def generate(context: Any, b: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        h, s, vertex, table, half, energy, others, couplings, begin, end = arguments
        at = b.mul(vertex, ir.Constant(_I64, nbytes * LANES))
        field, spin = load(b, row, b.add(h, at), nbytes), load(b, row, b.add(s, at), nbytes)
        up = b.mul(field, spin)
        up = up if bits == 32 else b.sext(up, wide)
        threshold = b.fmul(load(b, real, half, 4), load(b, real, table, 4))
        flips = b.fcmp_ordered("<=", b.sitofp(up, real), threshold)
        mask = b.bitcast(flips, ir.IntType(LANES))
        with b.if_then(b.icmp_unsigned("!=", mask, ir.Constant(ir.IntType(LANES), 0))):
            twice = ir.Constant(row, [1] * LANES)
            step = b.select(flips, b.neg(b.shl(spin, twice)), ir.Constant(row, None))
            store(b, b.add(spin, step), b.add(s, at), nbytes)
            rise = b.select(flips, b.shl(up, ir.Constant(wide, [1] * LANES)), ir.Constant(wide, None))
            store(b, b.add(load(b, wide, energy, 4), rise), energy, 4)
            before = b.block
            body, after = b.append_basic_block("neighbour"), b.append_basic_block("done")
            b.cbranch(b.icmp_signed("<", begin, end), body, after)
            b.position_at_end(body)
            k = b.phi(_I64)
            k.add_incoming(begin, before)
            other = b.sext(load(b, _I32, b.add(others, b.shl(k, ir.Constant(_I64, 2))), 4), _I64)
            weight = load(b, number, b.add(couplings, b.shl(k, ir.Constant(_I64, shift))), nbytes)
            place = b.add(h, b.mul(other, ir.Constant(_I64, nbytes * LANES)))
            store(b, b.add(load(b, row, place, nbytes), b.mul(step, spread(b, weight))), place, nbytes)
            following = b.add(k, ir.Constant(_I64, 1))
            k.add_incoming(following, body)
            b.cbranch(b.icmp_signed("<", following, end), body, after)
            b.position_at_end(after)
        return b.zext(mask, _I64)

    @intrinsic  # type: ignore[untyped-decorator]
    def visit(  # type: ignore[no-untyped-def]
        typing, h, s, vertex, table, half, energy, others, couplings, begin, end
    ):
        """Flip the copies of `vertex` whose rise s·h is at most half·table, in h, s and energy."""
        del typing, h, s, vertex, table, half, energy, others, couplings, begin, end
        return types.int64(*[types.int64] * 10), generate

    return visit  # type: ignore[no-any-return]


visit_16 = _make(16)
visit_32 = _make(32)
