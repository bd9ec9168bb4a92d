"""JSON Lines in compiled code: blocks in which every line is an ordinary object.

What belongs here: finding the texts, ids and origins of such lines, and refusing a block with anything else in it. What
does not: what becomes of a block that is refused, and the reasons for bad lines (``lines``).

An ordinary line is one JSON object by the grammar of RFC 8259, nested less than 62 deep. Its text is a string; ids and
origins are strings, integers of up to 18 digits, booleans, null or absent. No field that is read is there twice, and no
string has a lone surrogate. What is not read is checked as well.

Positions are not compared with the end of the data: after the last byte of every ``bytes`` object there is a zero, and
no token goes on after a zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba import njit, types

from dsir.featurizer.intrinsics import count_trailing_zeros, inlined, intrinsic

_TAB, _NEWLINE, _RETURN, _SPACE, _QUOTE, _PLUS, _COMMA, _MINUS, _DOT, _ZERO, _NINE, _COLON = (
    b'\t\n\r "+,-.09:'
)
_OPEN_LIST, _BACKSLASH, _CLOSE_LIST, _E, _F, _N, _T, _U, _OPEN, _CLOSE = b"[\\]efntu{}"
_TRUE, _FALSE, _NULL = (np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null"))
_STEP = 64  # bytes that are looked at together
_DEEPEST = 1 << 61
_MOST_DIGITS = 18

#: What follows a backslash, and the byte that it stands for; zero where that is not one byte.
_ESCAPED = np.zeros(256, np.uint8)
_ESCAPED[list(b'ntrbf"\\/')] = list(b'\n\t\r\b\f"\\/')
_HEX = np.full(256, -1, np.int64)
_HEX[list(b"0123456789abcdefABCDEF")] = [int(digit, 16) for digit in "0123456789abcdefABCDEF"]


def scan(data: bytes, count: int, names: Sequence[str]) -> list[pa.Array] | None:
    """Read fields of ordinary lines.

    Parameters
    ----------
    data : bytes
        Lines, valid UTF-8, of less than 2 GiB.
    count : int
        Their number.
    names : sequence of str
        The name of the text, without a dot, and of other fields, with one dot at most. All are different.

    Returns
    -------
    list of pa.Array of string, length count, or None
        The values of each field; only those of the others may be null. None if a line is not ordinary.
    """
    joined, bounds = _names(tuple(names))
    room = len(data) + _STEP
    out = np.frombuffer(pa.allocate_buffer(room * len(names)), np.uint8)
    offsets = np.zeros((len(names), count + 1), np.int32)
    if not _scan(np.frombuffer(data, np.uint8), joined, bounds, out, np.arange(len(names)) * room, offsets):
        return None
    columns = []
    for field, ends in enumerate(offsets):
        values, given = out[field * room :][: ends[-1]], None
        if field:  # few bytes, which shall not keep the text
            values, given = values.copy(), pa.py_buffer(np.packbits(ends[1:] > ends[:-1], bitorder="little"))
        columns.append(
            pa.Array.from_buffers(pa.string(), count, [given, pa.py_buffer(ends), pa.py_buffer(values)])
        )
    return columns


@cache
def _names(names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of all names, and where each begins, has its dot (before it if there is none) and ends."""
    encoded = [name.encode() for name in names]
    ends = np.cumsum([len(each) for each in encoded])
    begins = ends - [len(each) for each in encoded]
    dots = begins + [each.find(b".") for each in encoded]
    return np.frombuffer(b"".join(encoded), np.uint8), np.stack([begins, dots, ends], axis=1)


@intrinsic
def _copy_step(typingctx, source, i, out, at):
    """Copy ``source[i : i + 64]`` to ``out[at:]``; a bit for each byte that no string has as it is, uint64."""
    vector = ir.VectorType(ir.IntType(8), _STEP)

    def codegen(context, builder, signature, args):
        def address(k):
            array = context.make_array(signature.args[k])(context, builder, args[k])
            return builder.bitcast(builder.gep(array.data, [args[k + 1]]), vector.as_pointer())

        def where(sign, byte):
            return builder.icmp_unsigned(sign, step, ir.Constant(vector, [byte] * _STEP))

        step = builder.load(address(0), align=1)
        builder.store(step, address(2), align=1)
        found = builder.or_(builder.or_(where("==", _QUOTE), where("==", _BACKSLASH)), where("<", _SPACE))
        return builder.bitcast(found, ir.IntType(64))

    return types.uint64(source, types.int64, out, types.int64), codegen


@inlined
def _string(data, p, last, out, at):
    """Decode a string from after its quote on: where it ends, or -1, and where that ends in `out`."""
    while True:
        while p <= last:
            n = count_trailing_zeros(_copy_step(data, p, out, at))
            p, at = p + n, at + n
            if n < _STEP:
                break
        while data[p] >= _SPACE and data[p] != _QUOTE and data[p] != _BACKSLASH:
            out[at] = data[p]
            p, at = p + 1, at + 1
        if data[p] == _QUOTE:
            return p + 1, at
        if data[p] != _BACKSLASH:
            return -1, at
        while data[p] == _BACKSLASH:
            p, at = _escape(data, p + 1, out, at)
            if p < 0:
                return -1, at


@inlined
def _escape(data, p, out, at):
    """As `_string`, for an escape from after its backslash on."""
    if _ESCAPED[data[p]]:
        out[at] = _ESCAPED[data[p]]
        return p + 1, at + 1
    code = _unit(data, p)
    p += 5
    if code >> 11 == 0xD800 >> 11:
        low = _unit(data, p + 1) if code < 0xDC00 and data[p] == _BACKSLASH else -1
        code = 0x10000 + ((code & 0x3FF) << 10 | low & 0x3FF) if low >> 10 == 0xDC00 >> 10 else -1
        p += 6
    if code < 0:
        return -1, at
    if code < 0x80:
        out[at] = code
        return p, at + 1
    n = 1 + (code >= 0x800) + (code >= 0x10000)
    out[at] = 0xF0 << 3 - n & 0xFF | code >> 6 * n
    for k in range(1, n + 1):
        out[at + k] = 0x80 | code >> 6 * (n - k) & 0x3F
    return p, at + n + 1


@inlined
def _unit(data, p):
    """The unit of UTF-16 that ``uXXXX`` stands for, or -1."""
    unit = 0 if data[p] == _U else -1
    for k in range(p + 1, p + 5):
        if unit < 0 or _HEX[data[k]] < 0:
            return -1
        unit = unit << 4 | _HEX[data[k]]
    return unit


@inlined
def _scalar(data, p):
    """Where a number, a boolean or null ends, or -1."""
    if data[p] == _T:
        return p + 4 if _same(data, p, p + 4, _TRUE, 0, 4) else -1
    if data[p] == _F:
        return p + 5 if _same(data, p, p + 5, _FALSE, 0, 5) else -1
    if data[p] == _N:
        return p + 4 if _same(data, p, p + 4, _NULL, 0, 4) else -1
    p += data[p] == _MINUS
    end = _digits(data, p)
    if data[p] == _ZERO and end > p + 1:
        return -1
    if end > 0 and data[end] == _DOT:
        end = _digits(data, end + 1)
    if end > 0 and data[end] | 0x20 == _E:
        end = _digits(data, end + 1 + (data[end + 1] == _PLUS or data[end + 1] == _MINUS))
    return end


@inlined
def _is_short_integer(data, p, end):
    """Whether a number is an integer that is written as `int` prints it."""
    negative = data[p] == _MINUS
    return _digits(data, p + negative) == end <= p + _MOST_DIGITS and not (negative and data[p + 1] == _ZERO)


@inlined
def _digits(data, p):
    """Where digits end, or -1 if there is none."""
    begin = p
    while _ZERO <= data[p] <= _NINE:
        p += 1
    return p if p > begin else -1


@inlined
def _blank(data, p):
    """Where blanks end."""
    while data[p] == _SPACE or data[p] == _TAB:
        p += 1
    return p


@inlined
def _same(a, begin, end, b, first, finish):
    """Whether two ranges hold the same bytes."""
    if end - begin != finish - first:
        return False
    for i in range(end - begin):
        if a[begin + i] != b[first + i]:
            return False
    return True


@inlined
def _field(key, begin, end, names, bounds, within):
    """The field of this name, or -1, and the fields that are below it, as bits.

    `within`: the fields that the object around it is above of.
    """
    field, below = -1, 0
    for i in range(len(bounds)):
        first, dot, finish = bounds[i, 0], bounds[i, 1], bounds[i, 2]
        if within:
            if within >> i & 1 and _same(key, begin, end, names, dot + 1, finish):
                field = i
        elif _same(key, begin, end, names, first, finish):
            field = i
            below |= (dot >= first) << i
        elif _same(key, begin, end, names, first, dot):
            below |= 1 << i
    return field, below


@njit(nogil=True, cache=True)
def _scan(data, names, bounds, out, at, offsets):
    """Write the values of each field to `out` from `at` on, and their bounds; whether all lines are ordinary.

    `bounds` has the beginning, the dot (before the beginning if there is none) and the end of each of the `names`.
    """
    room, last, p = len(out) // len(at), len(data) - _STEP, 0
    for line in range(1, len(offsets[0])):
        if data[p] != _OPEN:
            return False
        kinds, seen, within = 0b11, 0, 0  # of each open bracket a bit, below a one: whether it is curly
        p = _blank(data, p + 1)
        while kinds > 1:  # a member or an element
            field, below = -1, 0
            if kinds & 1:
                if data[p] != _QUOTE:
                    return False
                p, end = _string(data, p + 1, last, out, at[0])
                if p < 0:
                    return False
                if kinds == 0b11:
                    within = 0
                if kinds == 0b11 or (kinds == 0b111 and within):
                    field, below = _field(out, at[0], end, names, bounds, within)
                    now = below << 8 | (1 << field if field >= 0 else 0)
                    if seen & now or (field >= 0 and below):
                        return False
                    seen |= now
                p = _blank(data, p)
                if data[p] != _COLON:
                    return False
                p = _blank(data, p + 1)
            c = data[p]
            if c == _QUOTE:
                p, end = _string(data, p + 1, last, out, at[max(field, 0)])
                if p < 0 or below:  # the string may be JSON
                    return False
                if field >= 0:
                    at[field] = end
            elif c == _OPEN or c == _OPEN_LIST:
                if field >= 0 or kinds >= _DEEPEST or (below and c == _OPEN_LIST):
                    return False
                if kinds == 0b11:
                    within = below
                kinds = kinds << 1 | (c == _OPEN)
                p = _blank(data, p + 1)
                if data[p] != (_CLOSE if c == _OPEN else _CLOSE_LIST):
                    continue
            else:
                end = _scalar(data, p)
                if end < 0 or field == 0:
                    return False
                if field > 0 and c != _N:
                    if c != _T and c != _F and not _is_short_integer(data, p, end):
                        return False
                    for i in range(p, end):
                        out[at[field]] = data[i]
                        at[field] += 1
                p = end
            p = _blank(data, p)
            while kinds > 1 and data[p] == (_CLOSE if kinds & 1 else _CLOSE_LIST):
                kinds >>= 1
                p = _blank(data, p + 1)
            if kinds > 1:
                if data[p] != _COMMA:
                    return False
                p = _blank(data, p + 1)
        p += data[p] == _RETURN
        if not seen & 1 or (p < len(data) and data[p] != _NEWLINE):
            return False
        p += p < len(data)
        for i in range(len(at)):
            offsets[i, line] = at[i] - i * room
    return p == len(data)
