"""JSON Lines in compiled code: blocks in which every line is an ordinary object.

What belongs here: finding the texts, ids and origins of such lines, and refusing a block with anything else in it. What
does not: what becomes of a block that is refused, and the reasons for bad lines (``lines``).

An ordinary line is one JSON object by the grammar of RFC 8259, nested less than 62 deep. Its text is a string; ids and
origins are strings, integers of up to 18 digits, null or absent. No field that is read is there twice, and no string
has a lone surrogate. What is not read is checked as well.

The data is followed by zeros, which no token contains. So no position is compared with its end, and a token that is cut
off or wrong is said to end there, where nothing can follow.
"""

import numpy as np
import pyarrow as pa
from numba import njit

from dsir.featurizer.intrinsics import copy_step, count_trailing_zeros, inlined

_TAB, _NEWLINE, _RETURN, _SPACE, _QUOTE, _PLUS, _COMMA, _MINUS, _DOT, _ZERO, _NINE, _COLON = (
    b'\t\n\r "+,-.09:'
)
_OPEN_LIST, _BACKSLASH, _CLOSE_LIST, _E, _N, _U, _OPEN, _CLOSE = b"[\\]enu{}"
_STEP = 64  # bytes that are looked at together, and zeros after the data
_WORDS = tuple(np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null"))

#: The byte that follows a backslash, to the one that both stand for; zero for any other.
_ESCAPED = np.zeros(256, np.uint8)
_ESCAPED[list(b'ntrbf"\\/')] = list(b'\n\t\r\b\f"\\/')
_HEX = np.full(256, -1)
_HEX[list(b"0123456789abcdefABCDEF")] = [*range(16), *range(10, 16)]


def scan(data: bytes, count: int, names: tuple[str, ...]) -> list[pa.Array] | None:
    """Read fields of ordinary lines.

    Parameters
    ----------
    data : bytes
        Lines, valid UTF-8, of less than 2 GiB.
    count : int
        Their number.
    names : tuple of str
        Distinct keys of the objects, that of the text first.

    Returns
    -------
    list of pa.Array of string, length count, or None
        The values of each field; only the text has no nulls. None if a line is not ordinary.
    """
    keys = [name.encode() for name in names]
    bounds, joined = np.cumsum([0, *map(len, keys)]), np.frombuffer(b"".join(keys), np.uint8)
    padded, room = np.frombuffer(data + bytes(_STEP), np.uint8), len(data) + _STEP
    out = np.frombuffer(pa.allocate_buffer(room * len(keys)), np.uint8)
    offsets = np.zeros((len(keys), count + 1), np.int32)
    if not _scan(padded, joined, bounds, out, np.arange(len(keys)) * room, offsets):
        return None
    columns = []
    for field, ends in enumerate(offsets):
        values, given = out[field * room :][: ends[-1]], None
        if field:  # few bytes, which shall not keep the text
            values, given = values.copy(), pa.py_buffer(np.packbits(ends[1:] > ends[:-1], bitorder="little"))
        buffers = [given, pa.py_buffer(ends), pa.py_buffer(values)]
        columns.append(pa.Array.from_buffers(pa.string(), count, buffers))
    return columns


@njit(nogil=True, cache=True)
def _scan(data, names, bounds, out, at, offsets):
    """Write each field's values to `out` from `at` on, and their ends to `offsets`; whether all lines are ordinary."""
    room, p = len(out) // len(at), 0
    for line in range(1, offsets.shape[1]):
        if data[p] != _OPEN:
            return False
        # `kinds`: after a one, a bit for each open bracket: whether it is curly.
        kinds, seen, p = 0b11, 0, _blank(data, p + 1)
        while kinds > 1:  # a member or an element begins
            field = -1
            if kinds & 1:
                if data[p] != _QUOTE:
                    return False
                p, end = _string(data, p + 1, out, at[0])
                p = _blank(data, p)
                if data[p] != _COLON:
                    return False
                p = _blank(data, p + 1)
                for i in range(len(at) if kinds == 0b11 else 0):
                    if _same(out, at[0], end, names, bounds[i], bounds[i + 1]):
                        if seen >> i & 1:
                            return False
                        field, seen = i, seen | 1 << i
            c = data[p]
            if c == _QUOTE:
                p, end = _string(data, p + 1, out, at[max(field, 0)])
                if field >= 0:
                    at[field] = end
            elif (c == _OPEN or c == _OPEN_LIST) and field < 0 and kinds >> 61 == 0:
                kinds, p = kinds << 1 | (c == _OPEN), _blank(data, p + 1)
                if data[p] != (_CLOSE if kinds & 1 else _CLOSE_LIST):
                    continue
            else:
                begin, p = p, _scalar(data, p)
                if field == 0 or (field > 0 and c != _N and not _is_short_integer(data, begin, p)):
                    return False
                for i in range(begin, p if field > 0 and c != _N else begin):
                    out[at[field]] = data[i]
                    at[field] += 1
            p = _blank(data, p)
            while kinds > 1 and data[p] == (_CLOSE if kinds & 1 else _CLOSE_LIST):
                kinds, p = kinds >> 1, _blank(data, p + 1)
            if kinds > 1 and data[p] != _COMMA:
                return False
            p = _blank(data, p + (kinds > 1))
        p += data[p] == _RETURN
        p += data[p] == _NEWLINE
        if not seen & 1 or (data[p - 1] != _NEWLINE and p != len(data) - _STEP):
            return False
        for i in range(len(at)):
            offsets[i, line] = at[i] - i * room
    return p == len(data) - _STEP


@inlined
def _string(data, p, out, at):
    """Decode a string from after its quote on: where it ends, and where that ends in `out`."""
    while True:
        n = count_trailing_zeros(copy_step(data, p, out, at, _SPACE, _QUOTE, _BACKSLASH))
        p, at = p + n, at + n
        if n < _STEP and data[p] != _BACKSLASH:
            return (p + 1 if data[p] == _QUOTE else len(data) - _STEP), at
        while data[p] == _BACKSLASH:
            p, at = _escape(data, p + 1, out, at)


@inlined
def _escape(data, p, out, at):
    """As `_string`, for an escape from after its backslash on."""
    if data[p] != _U:
        out[at] = _ESCAPED[data[p]]
        return (p + 1 if out[at] else len(data) - _STEP), at + 1
    code, p = _unit(data, p + 1), p + 5
    if code >> 10 == 0xD800 >> 10 and data[p] == _BACKSLASH and data[p + 1] == _U:
        low, p = _unit(data, p + 2), p + 6
        code = 0x10000 + ((code & 0x3FF) << 10 | low & 0x3FF) if low >> 10 == 0xDC00 >> 10 else -1
    if code < 0 or code >> 11 == 0xD800 >> 11:
        return len(data) - _STEP, at
    n = (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)
    out[at] = code >> 6 * n | (0xF80 >> n & 0xF0 if n else 0)
    for k in range(1, n + 1):
        out[at + k] = 0x80 | code >> 6 * (n - k) & 0x3F
    return p, at + n + 1


@inlined
def _unit(data, p):
    """The unit of UTF-16 that four digits stand for; negative if they are none."""
    return _HEX[data[p]] << 12 | _HEX[data[p + 1]] << 8 | _HEX[data[p + 2]] << 4 | _HEX[data[p + 3]]


@inlined
def _scalar(data, p):
    """Where a number, a boolean or null ends."""
    for word in _WORDS:
        if _same(data, p, p + len(word), word, 0, len(word)):
            return p + len(word)
    p += data[p] == _MINUS
    end = p + 1 if data[p] == _ZERO else _digits(data, p)
    if data[end] == _DOT:
        end = _digits(data, end + 1)
    if data[end] | 0x20 == _E:
        end = _digits(data, end + 1 + (data[end + 1] == _PLUS or data[end + 1] == _MINUS))
    return end


@inlined
def _is_short_integer(data, begin, end):
    """Whether a number is an integer that Python and Arrow print as it is written."""
    negative = data[begin] == _MINUS
    return _digits(data, begin + negative) == end <= begin + 18 and data[begin + negative] >= _ZERO + negative


@inlined
def _digits(data, p):
    """Where one or more digits end."""
    begin = p
    while _ZERO <= data[p] <= _NINE:
        p += 1
    return p if p > begin else len(data) - _STEP


@inlined
def _blank(data, p):
    """Where blanks end."""
    while data[p] == _SPACE or data[p] == _TAB:
        p += 1
    return p


@inlined
def _same(a, begin, end, b, first, finish):
    """Whether two ranges have the same bytes."""
    if end - begin != finish - first:
        return False
    for i in range(end - begin):
        if a[begin + i] != b[first + i]:
            return False
    return True
