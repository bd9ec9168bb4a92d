"""SHA-256 of many short messages at once (FIPS 180-4), and digests reduced to buckets.

What belongs here: the compression function, padding, the remainder of a 256-bit integer. What does not: what is
hashed and which digests are remembered (`memo`).

Messages are hashed `LANES` at a time, one in each lane of a vector. The compression function is written out
as LLVM vector instructions, which every target's back end maps to the registers it has (one AVX-512
register, two of AVX2, four of SSE or NEON). Where the processor has instructions for SHA-256 (x86's SHA extensions),
they hash messages of one block.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from dsir.featurizer.intrinsics import has_instructions, inlined, inner, intrinsic, load_u64, store_u64

_0, _8 = np.uint64(0), np.uint64(8)
LANES = 16
MAX_ONE_BLOCK = 55  # bytes of the longest message that fits one block with its padding
MAX_SHORT = 24  # bytes of a word that is copied whole, without a loop
#: Messages that the instructions for SHA-256 hash in turn, as one waits for the result of the other.
_INTERLEAVED = 4


def _primes(n: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < n:
        if all(candidate % p for p in found):
            found.append(candidate)
        candidate += 1
    return found


def _cube_root(x: int) -> int:
    root = round(x ** (1 / 3))
    while root**3 > x:
        root -= 1
    while (root + 1) ** 3 <= x:
        root += 1
    return root


# The first 32 bits of the fractional parts of the square and cube roots of the first primes (sections 5.3.3
# and 4.2.2 of the standard).
INITIAL_STATE = np.array([math.isqrt(p << 64) & 0xFFFFFFFF for p in _primes(8)], np.uint32)
_ROUND_CONSTANTS = [_cube_root(p << 96) & 0xFFFFFFFF for p in _primes(64)]


@intrinsic
def _emit_compress(typingctx, state, blocks, i):
    """The compression function on `LANES` independent blocks, ``blocks[i : i + 64 * LANES]``.

    `state` is uint32[8 * LANES], the lanes of the first word, then of the second and so on; updated in place.
    """
    word = ir.IntType(32)
    vector = ir.VectorType(word, LANES)

    def codegen(context, builder, signature, args):
        def vector_intrinsic(name, n_args):
            signature = ir.FunctionType(vector, [vector] * n_args)
            return cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{LANES}i32")

        rotate, swap = vector_intrinsic("fshr", 3), vector_intrinsic("bswap", 1)

        def splat(value):
            return ir.Constant(vector, [value] * LANES)

        def rotr(x, r):
            return builder.call(rotate, [x, x, splat(r)])

        def xor(x, y, z):
            return builder.xor(builder.xor(x, y), z)

        def add(*terms):
            total = terms[0]
            for term in terms[1:]:
                total = builder.add(total, term)
            return total

        def pointers(k, offset, stride, n):
            array = context.make_array(signature.args[k])(context, builder, args[k])
            base = builder.gep(array.data, [offset])
            for row in range(n):
                at = builder.gep(base, [ir.Constant(ir.IntType(64), row * stride)])
                yield builder.bitcast(at, vector.as_pointer())

        zero = ir.Constant(ir.IntType(64), 0)
        state_at = list(pointers(0, zero, LANES, 8))
        w = [builder.load(p, align=1) for p in pointers(1, args[2], 64, LANES)]
        # Sixteen rows of sixteen words, a row a message: transpose, a row a word of every message.
        for step in (1, 2, 4, 8):
            for row in range(LANES):
                if not row & step:
                    x, y = w[row], w[row + step]
                    first = [k if not k & step else LANES + k - step for k in range(LANES)]
                    second = [k + step if not k & step else LANES + k for k in range(LANES)]
                    index = ir.VectorType(word, LANES)
                    w[row] = builder.shuffle_vector(x, y, ir.Constant(index, first))
                    w[row + step] = builder.shuffle_vector(x, y, ir.Constant(index, second))
        w = [builder.call(swap, [row]) for row in w]

        initial = [builder.load(p, align=1) for p in state_at]
        a, b, c, d, e, f, g, h = initial
        for t in range(64):
            if t >= 16:
                x, y = w[(t - 15) % 16], w[(t - 2) % 16]
                s0 = xor(rotr(x, 7), rotr(x, 18), builder.lshr(x, splat(3)))
                s1 = xor(rotr(y, 17), rotr(y, 19), builder.lshr(y, splat(10)))
                w[t % 16] = add(w[t % 16], s0, w[(t - 7) % 16], s1)
            choice = builder.xor(g, builder.and_(e, builder.xor(f, g)))
            t1 = add(
                h, xor(rotr(e, 6), rotr(e, 11), rotr(e, 25)), choice, splat(_ROUND_CONSTANTS[t]), w[t % 16]
            )
            majority = builder.or_(builder.and_(a, b), builder.and_(c, builder.or_(a, b)))
            t2 = add(xor(rotr(a, 2), rotr(a, 13), rotr(a, 22)), majority)
            a, b, c, d, e, f, g, h = add(t1, t2), a, b, c, add(d, t1), e, f, g
        for p, before, after in zip(state_at, initial, (a, b, c, d, e, f, g, h), strict=True):
            builder.store(builder.add(before, after), p, align=1)
        return context.get_dummy_value()

    return types.none(state, blocks, types.int64), codegen


@inner
def _compress(state, blocks, i):
    _emit_compress(state, blocks, i)  # one copy of the code, whoever calls it


def remainder_factors(n_buckets: int) -> np.ndarray:
    """``2**(32 * (7 - i)) mod n_buckets`` for the eight words of a digest, uint64[8]."""
    return np.array([pow(2, 32 * (7 - i), n_buckets) for i in range(8)], np.uint64)


@inlined
def _reduce(state, at, stride, factors, n_buckets):
    """Digest ``state[at], state[at + stride] ...`` as a 256-bit integer modulo ``n_buckets`` <= 2**24: no overflow."""
    total = _0
    for i in range(8):
        total += np.uint64(state[at + i * stride]) * factors[i]
    return np.int64(total % n_buckets)


@inner
def _reset(state, initial):
    for i in range(8):
        for lane in range(LANES):
            state[i * LANES + lane] = initial[i]


@intrinsic
def _emit_digests(typingctx, blocks, i, state):
    """Digests of `_INTERLEAVED` messages of one block each, ``blocks[i:]``, to ``state[8 * k : 8 * k + 8]``.

    In x86's instructions for SHA-256. They keep the state in two registers, from the lowest word F E B A and H G D C;
    each makes two rounds.
    """
    word = ir.IntType(32)
    vector = ir.VectorType(word, 4)

    def codegen(context, builder, signature, args):
        def function(name, n_args):
            kind = ir.FunctionType(vector, [vector] * n_args)
            return cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}")

        rounds, swap = function("x86.sha256rnds2", 3), function("bswap.v4i32", 1)
        extend_first, extend_last = function("x86.sha256msg1", 2), function("x86.sha256msg2", 2)

        def constant(words):
            return ir.Constant(vector, [int(each) for each in words])

        def shuffled(x, y, *index):
            return builder.shuffle_vector(x, y, constant(index))

        def at(k, array, offset):
            data = context.make_array(signature.args[k])(context, builder, array).data
            return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())

        def number(k):
            return ir.Constant(ir.IntType(64), k)

        def row(message, k):
            place = builder.add(args[1], number(64 * message + 16 * k))
            return builder.call(swap, [builder.load(at(0, args[0], place), align=1)])

        messages = range(_INTERLEAVED)
        w = [[row(message, k) for k in range(4)] for message in messages]
        initial_abef, initial_cdgh = (constant(INITIAL_STATE[k]) for k in ([5, 4, 1, 0], [7, 6, 3, 2]))
        abef, cdgh = [initial_abef] * _INTERLEAVED, [initial_cdgh] * _INTERLEAVED
        for t in range(0, 64, 4):
            constants = constant(_ROUND_CONSTANTS[t : t + 4])
            for m in messages:
                w0, w1, w2, w3 = w[m]
                terms = builder.add(w0, constants)
                cdgh[m] = builder.call(rounds, [cdgh[m], abef[m], terms])
                abef[m] = builder.call(rounds, [abef[m], cdgh[m], shuffled(terms, terms, 2, 3, 0, 0)])
                if t < 48:
                    w4 = builder.add(builder.call(extend_first, [w0, w1]), shuffled(w2, w3, 1, 2, 3, 4))
                    w0 = builder.call(extend_last, [w4, w3])
                w[m] = [w1, w2, w3, w0]
        for m in messages:
            x, y = builder.add(abef[m], initial_abef), builder.add(cdgh[m], initial_cdgh)
            builder.store(shuffled(x, y, 3, 2, 7, 6), at(2, args[2], number(8 * m)), align=1)
            builder.store(shuffled(x, y, 1, 0, 5, 4), at(2, args[2], number(8 * m + 4)), align=1)
        return context.get_dummy_value()

    return types.none(blocks, types.int64, state), codegen


@inner
def buckets_by_instructions(blocks, n, state, initial, factors, n_buckets, out):
    """`buckets_by_vectors` for processors with instructions for SHA-256; does not use `initial`."""
    for first in range(0, n, _INTERLEAVED):
        _emit_digests(blocks, first * 64, state)
        for k in range(_INTERLEAVED):
            out[first + k] = _reduce(state, 8 * k, 1, factors, n_buckets)


@inner
def buckets_by_vectors(blocks, n, state, initial, factors, n_buckets, out):
    """Buckets of `n` messages of one padded block each.

    Parameters
    ----------
    blocks : uint8[:]
        Block k at ``64 * k``; room for `n` rounded up to a multiple of `LANES`.
    state : uint32[8 * LANES]
        Scratch.
    initial : uint32[8]
        `INITIAL_STATE`.
    factors : uint64[8]
        `remainder_factors` of ``n_buckets``.
    n_buckets : uint64
        At most 2**24.
    out : int64[:]
        Receives the buckets; as many as there is room for in `blocks`.
    """
    for first in range(0, n, LANES):
        _reset(state, initial)
        _compress(state, blocks, first * 64)
        for lane in range(LANES):
            out[first + lane] = _reduce(state, lane, LANES, factors, n_buckets)


#: Whichever of the two is the faster here.
buckets_of_blocks = buckets_by_instructions if has_instructions("sha") else buckets_by_vectors


@inlined
def write_block(blocks, at, low, starts, ends, first, last):
    """Write words ``first .. last - 1``, joined by one space, as one padded block to ``blocks[at : at + 64]``.

    The message has at most `MAX_ONE_BLOCK` bytes. Reads `MAX_SHORT` bytes from each word's start, if it is not longer;
    overwrites up to 63 bytes past the block.
    """
    p = at
    for k in range(first, last):
        if k > first:
            blocks[p] = 0x20
            p += 1
        length = ends[k] - starts[k]
        for q in range(0, MAX_SHORT, 8):
            store_u64(blocks, p + q, load_u64(low, starts[k] + q))
        for q in range(MAX_SHORT, length, 8):
            store_u64(blocks, p + q, load_u64(low, starts[k] + q))
        p += length
    n_bits = (p - at) * 8
    for q in range(0, 64, 8):
        store_u64(blocks, p + q, _0)
    blocks[p] = 0x80
    blocks[at + 62] = n_bits >> 8
    blocks[at + 63] = n_bits & 0xFF


@inner
def bucket_of_long(low, starts, ends, first, last, block, state, initial, factors, n_buckets):
    """Bucket of words ``first .. last - 1``, joined by one space, of any length; one lane is used.

    `block` is scratch, uint8[64 * LANES]; the other arguments are those of `buckets_of_blocks`.
    """
    _reset(state, initial)
    filled, total = 0, 0
    for word in range(first, last):
        p = starts[word]
        if word > first:
            p -= 1  # one step more, for the space
        while p < ends[word]:
            if filled == 64:
                _compress(state, block, 0)
                filled = 0
            if p < starts[word]:
                block[filled] = 0x20
                filled += 1
                p += 1
            else:
                n = min(64 - filled, ends[word] - p)
                for k in range(n):
                    block[filled + k] = low[p + k]
                filled += n
                p += n
                total += n
    total += last - first - 1
    if filled == 64:
        _compress(state, block, 0)
        filled = 0
    block[filled] = 0x80
    if filled >= 56:
        block[filled + 1 : 64] = 0
        _compress(state, block, 0)
        block[:64] = 0
    else:
        block[filled + 1 : 64] = 0
    n_bits = np.uint64(total) * _8
    for k in range(8):
        block[63 - k] = (n_bits >> np.uint64(8 * k)) & np.uint64(0xFF)
    _compress(state, block, 0)
    return _reduce(state, 0, LANES, factors, n_buckets)
