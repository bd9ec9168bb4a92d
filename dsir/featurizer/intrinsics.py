"""What compiled code needs and Numba lacks: unaligned loads, bit counts, vectors, calls without reference counts.

What belongs here: instructions. What does not: anything that knows what the bytes mean.
"""

from collections.abc import Callable
from typing import Any

import numba.extending
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target

_INNER: dict[str, Any] = {"nogil": True, "_nrt": False}  # `_nrt` is missing from Numba's types

#: Compiles a function called by other compiled functions that allocates nothing and returns no array. Without NRT,
#: Numba's runtime, array arguments are borrowed instead of counted: counting is an atomic increment and decrement for
#: every array a function touches, ten times the work of the functions here. Only entry points are cached on disk,
#: including the code of these functions.
inner: Callable[[Callable], Callable] = njit(**_INNER)
#: The same, part of the code of each caller: arrays take seven arguments each, which a call copies.
inlined: Callable[[Callable], Callable] = njit(**_INNER, forceinline=True)
#: The same for floating point: division by zero raises no exception, so that a loop around it can be vectorized.
inner_float: Callable[[Callable], Callable] = njit(**_INNER, error_model="numpy")
#: `numba.extending.intrinsic`, whose annotation does not show that callers omit the typing context.
intrinsic: Callable[[Callable], Callable[..., Any]] = numba.extending.intrinsic


def has_instructions(feature: str) -> bool:
    """Whether the processor that Numba compiles for has them; LLVM's name.

    The processor is part of the key of Numba's cache on disk, so code may be chosen by it when it is compiled.
    """
    return f"+{feature}" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


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
def four_sums(typingctx, values, at, times, n):
    """Sums of ``times[i] * values[at[i]]`` over every fourth i below `n`, starting at 0, 1, 2 and 3: four float64.

    `values` is float64; `at` and `times` are unsigned. The caller checks the bounds; `n` is a multiple of four.

    Vectorized, since converting integers to float64 otherwise takes longer than everything else; four take as long as
    one.
    """
    i64, double = ir.IntType(64), ir.DoubleType()
    four = ir.VectorType(double, 4)

    def codegen(context, builder, signature, args):
        arrays = zip(signature.args[:3], args[:3], strict=True)
        values, at, times = (context.make_array(kind)(context, builder, array).data for kind, array in arrays)
        whole = ir.VectorType(times.type.pointee, 4)
        sums = cgutils.alloca_once_value(builder, ir.Constant(four, [0.0] * 4))
        start, step = ir.Constant(i64, 0), ir.Constant(i64, 4)
        with cgutils.for_range_slice(builder, start, args[3], step, i64) as (first, _):
            pointer = builder.bitcast(builder.gep(times, [first]), whole.as_pointer())
            factors = builder.uitofp(builder.load(pointer, align=1), four)
            gathered = ir.Constant(four, ir.Undefined)
            for lane in range(4):
                place = builder.load(builder.gep(at, [builder.add(first, ir.Constant(i64, lane))]))
                value = builder.load(builder.gep(values, [builder.zext(place, i64)]))
                gathered = builder.insert_element(gathered, value, ir.Constant(i64, lane))
            builder.store(builder.fadd(builder.load(sums), builder.fmul(factors, gathered)), sums)
        lanes = builder.load(sums)
        each = [builder.extract_element(lanes, ir.Constant(i64, lane)) for lane in range(4)]
        return context.make_tuple(builder, signature.return_type, each)

    return types.UniTuple(types.float64, 4)(values, at, times, types.int64), codegen
