"""Finding and lowercasing the words of a document: UTF-8 in, lowercased UTF-8 and word bounds out.

What belongs here: the state machine over bytes and code points, in numba. What does not: what the classes are
(`unicode_tables`), hashing words, counting.

ASCII is done 64 bytes at a time: one comparison of vectors yields a 64-bit mask of the word characters and
one of the whitespace, and words begin and end where a mask differs from itself shifted by one (the technique
of simdjson; Langdale & Lemire 2019). Everything else is decoded one code point at a time.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types

from dsir.featurizer.hashing import ALL_ONES
from dsir.featurizer.intrinsics import BLOCK, append_places, count_trailing_zeros, inner, intrinsic
from dsir.featurizer.unicode_tables import CLASS_SHIFT, NOT_ONE_TO_ONE, PUNCTUATION, SPACE, WORD

_AT_ONCE = 1024  # words found before they are hashed: what is known of them stays in the nearest caches
ROOM = _AT_ONCE + BLOCK  # for words found at once
_1 = np.uint64(1)
_SPECIAL_PAIRS = tuple(tuple(chr(c).encode()) for c in NOT_ONE_TO_ONE)
MAX_GROWTH = 1.5  # lowercasing lengthens UTF-8 at most from 2 bytes a code point to 3


@intrinsic
def _classify_ascii(typingctx, src, i, dst, j):
    """Classify ``src[i : i + 64]`` and write it, ASCII capitals lowercased, to ``dst[j : j + 64]``.

    Returns three uint64 masks, bit k standing for byte k: not ASCII, word character (``[0-9A-Za-z_]``),
    whitespace. Written as LLVM vectors, which every target's back end maps to the registers it has.
    """
    byte, mask_type = ir.IntType(8), ir.IntType(64)
    vector = ir.VectorType(byte, BLOCK)

    def codegen(context, builder, signature, args):
        def splat(value):
            return ir.Constant(vector, [value] * BLOCK)

        def between(x, low, high):
            return builder.icmp_unsigned("<", builder.sub(x, splat(low)), splat(high - low + 1))

        def address(k):
            array = context.make_array(signature.args[k])(context, builder, args[k])
            return builder.bitcast(builder.gep(array.data, [args[k + 1]]), vector.as_pointer())

        x = builder.load(address(0), align=1)
        capital = builder.select(between(x, ord("A"), ord("Z")), splat(0x20), splat(0))
        lowered = builder.or_(x, capital)
        builder.store(lowered, address(2), align=1)
        word = builder.or_(between(lowered, ord("a"), ord("z")), between(x, ord("0"), ord("9")))
        word = builder.or_(word, builder.icmp_unsigned("==", x, splat(ord("_"))))
        space = builder.or_(between(x, 9, 13), between(x, 28, 32))
        masks = [builder.icmp_signed("<", x, splat(0)), word, space]
        masks = [builder.bitcast(m, mask_type) for m in masks]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 3)(src, types.int64, dst, types.int64), codegen


@inner
def decode(data, i):
    """The code point at ``data[i]`` in valid UTF-8, and its length in bytes."""
    b = np.int64(data[i])
    if b < 0x80:
        return b, 1
    if b < 0xE0:
        return (b & 0x1F) << 6 | (data[i + 1] & 0x3F), 2
    if b < 0xF0:
        return (b & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (data[i + 2] & 0x3F), 3
    high = (b & 0x07) << 18 | (np.int64(data[i + 1]) & 0x3F) << 12
    return high | (np.int64(data[i + 2]) & 0x3F) << 6 | (data[i + 3] & 0x3F), 4


@inner
def _encode(code_point, low, out):
    """Write a code point as UTF-8 to ``low[out:]``; returns its length in bytes."""
    if code_point < 0x80:
        low[out] = code_point
        return 1
    if code_point < 0x800:
        low[out] = 0xC0 | code_point >> 6
        low[out + 1] = 0x80 | code_point & 0x3F
        return 2
    if code_point < 0x10000:
        low[out] = 0xE0 | code_point >> 12
        low[out + 1] = 0x80 | (code_point >> 6) & 0x3F
        low[out + 2] = 0x80 | code_point & 0x3F
        return 3
    low[out] = 0xF0 | code_point >> 18
    low[out + 1] = 0x80 | (code_point >> 12) & 0x3F
    low[out + 2] = 0x80 | (code_point >> 6) & 0x3F
    low[out + 3] = 0x80 | code_point & 0x3F
    return 4


#: Where the search for the words of a document stands: the place in its bytes (or words) and their end, the place in
#: the lowercased text, the class of the code point before, and how many bounds are in `starts` and `ends`.
POS, END, OUT, CLASS, N_STARTS, N_ENDS = range(6)
STATE = 6


@njit(nogil=True)
def lowercased(data, begins, finishes, bounds):
    """Room for the lowercased bytes of any of these documents; `data` if words were found by other means."""
    if bounds is not None:
        return data
    longest = 0
    for d in range(len(begins)):
        longest = max(longest, finishes[d] - begins[d])
    return np.empty(np.int64(longest * MAX_GROWTH) + BLOCK + 24, np.uint8)


@inner
def begin_words(state, pos, end):
    """Set the search to the beginning of a document, ``data[pos:end]``."""
    state[:] = 0
    state[POS], state[END], state[CLASS] = pos, end, SPACE


@inner
def next_words(data, bounds, table, all_words, state, low, starts, ends, keep):
    """Find the next words of a document, at most `ROOM`; there are more while ``state[POS] < state[END]``.

    Parameters
    ----------
    data : uint8[:]
        Valid UTF-8; if `bounds` is given, the bytes of the words.
    bounds : int64[n_words + 1] or None
        Bounds in `data` of words found by other means; None to find them here.
    table : uint32[0x110000]
        `unicode_tables.code_point_table`.
    all_words : uint64
        Which ASCII characters are words if they are not whitespace: all ones for the ``whitespace``
        tokenizer, zero for ``wordpunct``.
    state : int64[STATE]
        From `begin_words`; updated.
    low : uint8[:]
        From `lowercased`; receives the lowercased text.
    starts, ends : int64[keep + ROOM]
        Receive the bounds of the words in `low`, after those of the last words found before, `keep` at most.

    Returns
    -------
    first, last : int64
        The new words are ``starts[first:last]``.
    """
    first = min(keep, state[N_ENDS])
    shift = state[N_ENDS] - first
    for k in range(state[N_STARTS] - shift):  # one more may have begun
        starts[k], ends[k] = starts[k + shift], ends[k + shift]
    state[N_STARTS] -= shift
    state[N_ENDS] = first
    if bounds is None:
        _find_words(data, table, all_words, state, low, starts, ends)
    else:
        pos = state[POS]
        n = min(state[END] - pos, ROOM)
        for k in range(n):
            starts[first + k], ends[first + k] = bounds[pos + k], bounds[pos + k + 1]
        state[POS] = pos + n
        state[N_STARTS] = state[N_ENDS] = first + n
    return first, state[N_ENDS]


@inner
def _find_words(data, table, all_words, state, low, starts, ends):
    """`next_words`, until the document's end or until `starts` is nearly full."""
    pos, end, out, current, n_starts, n_ends = state[0], state[1], state[2], state[3], state[4], state[5]
    limit = len(starts) - BLOCK
    while pos < end and n_starts < limit:
        if pos + BLOCK <= len(data):
            other, word, space = _classify_ascii(data, pos, low, out)
            n = min(end - pos, BLOCK)
            valid = ALL_ONES >> np.uint64(BLOCK - n)
            other &= valid
            if other != 0:
                n = count_trailing_zeros(other)
                valid = (_1 << np.uint64(n)) - _1
            word = (word | all_words) & ~space & valid
            punctuation = ~(word | space) & valid
            before_word = (word << _1) | np.uint64(current == WORD)
            before_punctuation = (punctuation << _1) | np.uint64(current == PUNCTUATION)
            begins = (word & ~before_word) | (punctuation & ~before_punctuation)
            finishes = ((before_word & ~word) | (before_punctuation & ~punctuation)) & valid
            n_starts = append_places(begins, out, starts, n_starts)
            n_ends = append_places(finishes, out, ends, n_ends)
            if n > 0:
                last = _1 << np.uint64(n - 1)
                current = WORD if word & last != 0 else (PUNCTUATION if punctuation & last != 0 else SPACE)
            pos += n
            out += n
            if other == 0:
                continue
        while True:
            code_point, length = decode(data, pos)
            entry = np.int64(table[code_point])
            pos += length
            character_class = entry >> CLASS_SHIFT
            if character_class != current:
                if current != SPACE:
                    ends[n_ends] = out
                    n_ends += 1
                if character_class != SPACE:
                    starts[n_starts] = out
                    n_starts += 1
                current = character_class
            out += _encode(entry & 0x1FFFFF, low, out)
            if pos >= end or n_starts >= limit or (data[pos] < 0x80 and pos + BLOCK <= len(data)):
                break
    if pos >= end and current != SPACE:
        ends[n_ends] = out
        n_ends += 1
        current = SPACE
    state[POS], state[OUT], state[CLASS], state[N_STARTS], state[N_ENDS] = pos, out, current, n_starts, n_ends


@intrinsic
def _special_pairs(typingctx, data, i):
    """Mask (uint64) of the bytes of ``data[i : i + 64]`` at which U+0130 or U+03A3 begins; reads one byte more."""
    vector = ir.VectorType(ir.IntType(8), BLOCK)

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        here = builder.gep(array.data, [args[1]])
        after = builder.gep(here, [ir.Constant(ir.IntType(64), 1)])
        first, second = (
            builder.load(builder.bitcast(p, vector.as_pointer()), align=1) for p in (here, after)
        )

        def equal(pair):
            a, b = (ir.Constant(vector, [byte] * BLOCK) for byte in pair)
            return builder.and_(builder.icmp_unsigned("==", first, a), builder.icmp_unsigned("==", second, b))

        found = builder.or_(*(equal(pair) for pair in _SPECIAL_PAIRS))
        return builder.bitcast(found, ir.IntType(64))

    return types.uint64(data, types.int64), codegen


@njit(cache=True, nogil=True)
def needs_str_lower(data, starts, ends):
    """Which documents contain U+0130 or U+03A3, whose lowercase depends on more than the code point.

    Parameters
    ----------
    data : uint8[:]
        Valid UTF-8.
    starts, ends : int64[n]
        Bounds of the documents in `data`.

    Returns
    -------
    bool[n]
    """
    out = np.zeros(len(starts), np.bool_)
    for d in range(len(starts)):
        i, end = starts[d], ends[d]
        while i < end and i + BLOCK < len(data):
            found = _special_pairs(data, i)
            if end - i < BLOCK:
                found &= (_1 << np.uint64(end - i)) - _1
            if found != 0:
                out[d] = True
                break
            i += BLOCK
        while i < end - 1 and not out[d]:  # the last bytes of all
            out[d] = (data[i], data[i + 1]) in _SPECIAL_PAIRS
            i += 1
    return out
