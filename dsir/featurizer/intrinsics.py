"""What compiled code needs and Numba lacks: unaligned loads, bit counts, vectors, calls without reference counts.

What belongs here: instructions. What does not: anything that knows what the bytes mean.
"""

from collections.abc import Callable
from typing import Any

import numba.extending
import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features

_INNER: dict[str, Any] = {"nogil": True, "_nrt": False}  # `_nrt` is missing from Numba's types

#: Compiles a function called by other compiled functions that allocates nothing and returns no array. Without NRT,
#: Numba's runtime, array arguments are borrowed instead of counted: counting is an atomic increment and decrement for
#: every array a function touches, ten times the work of the functions here. Only entry points are cached on disk,
#: including the code of these functions.
inner: Callable[[Callable], Callable] = njit(**_INNER)
#: `inner`, made part of its caller whatever its size: arrays take seven arguments each, which a call copies.
inlined: Callable[[Callable], Callable] = njit(**_INNER, forceinline=True)
#: `inner` for floating point: division by zero raises no exception, so that a loop around it can be vectorized.
inner_float: Callable[[Callable], Callable] = njit(**_INNER, error_model="numpy")
#: `numba.extending.intrinsic`, whose annotation does not show that callers omit the typing context.
intrinsic: Callable[[Callable], Callable[..., Any]] = numba.extending.intrinsic

BLOCK = 64  # bytes in a vector, each of which has its bit in a mask
_1 = np.uint64(1)


def has_instructions(feature: str) -> bool:
    """Whether Numba compiles for processors that have them, named as LLVM does; the one it runs on unless told.

    The processor is part of the key of Numba's cache on disk, so code may be chosen by it when it is compiled.
    """
    told = vars(config)["CPU_FEATURES"]  # missing from Numba's types
    return f"+{feature}" in (get_host_cpu_features() if told is None else told).split(",")


@intrinsic
def load_u64(typingctx, buf, i):
    """The eight bytes ``buf[i : i + 8]`` as a little-endian uint64. The caller checks the bounds."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(buf, types.int64), codegen


@intrinsic
def store_u64(typingctx, buf, i, value):
    """Write a uint64 to ``buf[i : i + 8]``, little-endian. The caller checks the bounds."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(64).as_pointer())
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return types.none(buf, types.int64, types.uint64), codegen


@intrinsic
def count_trailing_zeros(typingctx, x):
    """The number of zero bits below the lowest set bit of a uint64; 64 for zero."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen


@intrinsic
def nonzero(typingctx, values, i):
    """Mask (uint64) of the bytes of ``values[i : i + 64]`` that are not zero."""
    vector = ir.VectorType(ir.IntType(8), BLOCK)

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = builder.bitcast(builder.gep(array.data, [args[1]]), vector.as_pointer())
        found = builder.icmp_unsigned("!=", builder.load(pointer, align=1), ir.Constant(vector, None))
        return builder.bitcast(found, ir.IntType(64))

    return types.uint64(values, types.int64), codegen


@inner
def append_places_singly(mask, base, places, at):
    """Write `base` plus the place of every bit of a mask (uint64) to ``places[at:]``; returns the index after them.

    There must be room for 64.
    """
    while mask != 0:
        places[at] = base + count_trailing_zeros(mask)
        mask &= mask - _1
        at += 1
    return at


@intrinsic
def append_places_at_once(typingctx, mask, base, places, at):
    """`append_places_singly` without a branch for every bit: quick where the processor can compress vectors."""
    byte, i32, i64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
    bits, everywhere = ir.VectorType(ir.IntType(1), BLOCK), ir.VectorType(byte, BLOCK)
    some, quarter = ir.VectorType(i32, BLOCK // 4), BLOCK // 4

    def codegen(context, builder, signature, args):
        mask, base, array, at = args
        data = context.make_array(signature.args[2])(context, builder, array).data
        vector = ir.VectorType(data.type.pointee, quarter)
        kind = ir.FunctionType(everywhere, [everywhere, bits, everywhere])
        compress = cgutils.get_or_insert_function(
            builder.module, kind, f"llvm.experimental.vector.compress.v{BLOCK}i8"
        )
        numbers = ir.Constant(everywhere, list(range(BLOCK)))
        found = builder.call(compress, [numbers, builder.bitcast(mask, bits), ir.Constant(everywhere, None)])
        base = builder.trunc(base, vector.element) if vector.element != i64 else base
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), base, ir.Constant(i32, 0))
        bases = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(some, None))

        def store(first):
            lanes = ir.Constant(some, list(range(first, first + quarter)))
            part = builder.zext(
                builder.shuffle_vector(found, ir.Constant(everywhere, ir.Undefined), lanes), vector
            )
            to = builder.gep(data, [builder.add(at, ir.Constant(i64, first))])
            builder.store(builder.add(part, bases), builder.bitcast(to, vector.as_pointer()), align=1)

        n = builder.ctpop(mask)
        store(0)
        with builder.if_then(builder.icmp_unsigned(">", n, ir.Constant(i64, quarter)), likely=False):
            for first in range(quarter, BLOCK, quarter):
                store(first)
        return builder.add(at, n)

    return types.int64(types.uint64, types.int64, places, types.int64), codegen


append_places = append_places_at_once if has_instructions("avx512vbmi2") else append_places_singly


@intrinsic
def copy_step(typingctx, source, i, out, at, low, one, other):
    """Copy ``source[i : i + 64]`` to ``out[at:]``; a bit for each of the bytes below `low`, and equal to the others.

    The caller checks the bounds.
    """
    byte = ir.IntType(8)
    vector = ir.VectorType(byte, 64)

    def codegen(context, builder, signature, args):
        def address(k):
            array = context.make_array(signature.args[k])(context, builder, args[k])
            return builder.bitcast(builder.gep(array.data, [args[k + 1]]), vector.as_pointer())

        def where(sign, value):
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(byte, 0))
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
            return builder.icmp_unsigned(sign, step, builder.shuffle_vector(first, first, lanes))

        step = builder.load(address(0), align=1)
        builder.store(step, address(2), align=1)
        found = builder.or_(where("<", args[4]), builder.or_(where("==", args[5]), where("==", args[6])))
        return builder.bitcast(found, ir.IntType(64))

    bytes_ = (types.uint8,) * 3
    return types.uint64(source, types.int64, out, types.int64, *bytes_), codegen


@intrinsic
def prefetch(typingctx, array, i):
    """Ask for the cache line of ``array[i]``, to be read and written soon."""

    def codegen(context, builder, signature, args):
        values = context.make_array(signature.args[0])(context, builder, args[0])
        i32 = ir.IntType(32)
        pointer = builder.bitcast(builder.gep(values.data, [args[1]]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, i32(1), i32(3), i32(1)])  # for writing, keep, data
        return context.get_dummy_value()

    return types.none(array, types.int64), codegen


@intrinsic
def bytes_of(typingctx, array):
    """The bytes of an element of an array: a constant to the compiler, as `array.itemsize` is not."""

    def codegen(context, builder, signature, args):
        return ir.Constant(ir.IntType(64), array.dtype.bitwidth // 8)

    return types.uint64(array), codegen


@intrinsic
def widen_16(typingctx, data, at, out, i, base):
    """Fill ``out[i : i + 16]`` with `base` plus 16 integers half as wide, read from the bytes at ``data[at]``.

    The caller checks the bounds; the lower half of `base` is zero.
    """

    def codegen(context, builder, signature, args):
        bytes_, numbers = (
            context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 2)
        )
        width = numbers.type.pointee.width
        narrow, wide = (ir.VectorType(ir.IntType(bits), 16) for bits in (width // 2, width))
        source = builder.bitcast(builder.gep(bytes_, [args[1]]), narrow.as_pointer())
        low = builder.zext(builder.load(source, align=1), wide)
        high = _everywhere(builder, builder.trunc(args[4], wide.element), 16)
        target = builder.bitcast(builder.gep(numbers, [args[3]]), wide.as_pointer())
        builder.store(builder.or_(low, high), target, align=1)
        return context.get_dummy_value()

    return types.none(data, types.uint64, out, types.uint64, types.uint64), codegen


@intrinsic
def four_sums(typingctx, table, group, at, times, first, n, lanes, sums):
    """Fill ``sums[k]`` with the sum of ``times[i] * table[group, at[i]]`` over every fourth i from ``first + k`` on.

    `table` is float64[groups, rows, lanes], `sums` float64[4, lanes], both without gaps; as many lanes as the tuple
    `lanes` has elements. `at` and `times` are unsigned; without times, None, they are 1. The caller checks the bounds;
    `n`, the number of entries, is a multiple of four.
    """
    i64, double, n_lanes = ir.IntType(64), ir.DoubleType(), len(lanes)
    vector, weighted = ir.VectorType(double, n_lanes), not isinstance(times, types.NoneType)

    def codegen(context, builder, signature, args):
        def pointer(argument, place):
            array = context.make_array(signature.args[argument])(context, builder, args[argument])
            return builder.gep(array.data, [place])

        table = context.make_array(signature.args[0])(context, builder, args[0])
        rows = builder.mul(args[1], builder.extract_value(table.shape, 1))
        values = pointer(0, builder.mul(rows, ir.Constant(i64, n_lanes)))
        at = pointer(2, args[4])
        sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * n_lanes)) for _ in range(4)]
        start, step = ir.Constant(i64, 0), ir.Constant(i64, 4)
        with cgutils.for_range_slice(builder, start, args[5], step, i64) as (i, _):
            for k, total in enumerate(sums):
                entry = builder.add(i, ir.Constant(i64, k))
                row = builder.zext(builder.load(builder.gep(at, [entry])), i64)
                value = builder.gep(values, [builder.mul(row, ir.Constant(i64, n_lanes))])
                term = builder.load(builder.bitcast(value, vector.as_pointer()), align=8)
                if weighted:
                    count = builder.load(builder.gep(pointer(3, args[4]), [entry]))
                    term = builder.fmul(_everywhere(builder, builder.uitofp(count, double), n_lanes), term)
                builder.store(builder.fadd(builder.load(total), term), total)
        for k, total in enumerate(sums):
            target = builder.bitcast(pointer(7, ir.Constant(i64, k * n_lanes)), vector.as_pointer())
            builder.store(builder.load(total), target, align=8)
        return context.get_dummy_value()

    return types.none(table, types.uint64, at, times, types.uint64, types.uint64, lanes, sums), codegen


def _everywhere(builder, value, n):
    """A vector of n times the same value."""
    undefined, lane = ir.Constant(ir.VectorType(value.type, n), ir.Undefined), ir.IntType(32)
    first = builder.insert_element(undefined, value, ir.Constant(lane, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(lane, n), [0] * n))
