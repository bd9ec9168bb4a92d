"""Features as they are stored: half as large as in memory, and read about as fast as they are weighed.

What belongs here: the bytes of a document, their Arrow form. What does not: where counts come from (`dsir.features`),
what is done with them, files.

A document is, whole numbers of any size being varints (LEB128):

- the number of its words;
- the number of buckets that occur once, times two, plus one if their high halves are run lengths;
- the number of the others, times four, plus two if a count is above 255, plus one if their high halves are run lengths;
- the buckets that occur once, then the others, both ascending;
- the counts of the others, less two, in four bits each, at most 15;
- for each count above 17, its place among these counts, and the count less 17.

Three of four buckets occur once; they have no count, and need no product when weighed. Since buckets ascend, those of a
list that share a high half (a byte of uint16, two of uint32) are neighbors. So a list is the low halves of its buckets,
then how many share the first high half, the second and so on, in four bits each: 15 are 15 that are followed by more of
the same high half. A list for which this may be longer is its whole buckets, so none is longer than in memory, whatever
the number of buckets. Everything is little-endian; of the four bits that share a byte, the lower come first.

Run lengths are read without a branch that is hard to predict: every step widens 16 low halves, of which the next step
overwrites those that are not its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit

from dsir.featurizer.intrinsics import bytes_of, inner, widen_16

LANES = 16  # buckets written in a step: as many may be written beyond the last
_FULL = np.uint64(15)
_U = np.uint64
_0, _1, _2, _4, _8 = map(np.uint64, (0, 1, 2, 4, 8))

#: What bytes that no `pack` wrote have wrong.
_MESSAGES = (
    "",
    "a document's bytes end before it does",
    "a document has another number of buckets than it says",
    "a document has a count that is out of range",
)
_SHORT, _BUCKETS, _COUNT = 1, 2, 3


@dataclass(frozen=True, eq=False)
class PackedFeatures:
    """Sparse n-gram counts of a batch of n documents, as bytes.

    Attributes
    ----------
    data : uint8[...]
    starts, ends : int64[n]
        The bytes of document i are ``data[starts[i] : ends[i]]``.
    content_hash : uint64[n]
    dtype : numpy.dtype
        Of the buckets in memory: uint16 or uint32.
    """

    data: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    content_hash: np.ndarray
    dtype: np.dtype

    def __len__(self) -> int:
        return len(self.content_hash)

    @classmethod
    def pack(
        cls,
        offsets: np.ndarray,
        buckets: np.ndarray,
        counts: np.ndarray,
        n_tokens: np.ndarray,
        content_hash: np.ndarray,
    ) -> PackedFeatures:
        """Pack what `dsir.features.Features` holds.

        Raises
        ------
        ValueError
            A document's buckets that occur once, or the others, do not ascend, or a count is 0.
        """
        longest = int(np.diff(offsets).max(initial=0))
        groups = (int(buckets.max(initial=0)) >> 4 * buckets.itemsize) + 1
        once, others = np.empty(longest, buckets.dtype), np.empty(longest, buckets.dtype)
        repeats, ends = np.empty(longest, np.uint32), np.zeros(groups, np.int64)
        runs = np.empty(longest + groups + 1, np.uint8)
        # Three numbers a document, a bucket and half a byte of count an entry, two numbers a large count.
        room = 30 * len(n_tokens) + (buckets.itemsize + 1) * len(buckets) + 10 * np.count_nonzero(counts > 17)
        bounds, data = np.empty(len(offsets), np.int64), np.empty(room, np.uint8)
        spare = once, others, repeats, ends, runs
        if not _pack(offsets, buckets, counts, n_tokens, *spare, bounds, data):
            raise ValueError(
                "features: a document's buckets are not in the order of Features, or a count is 0"
            )
        return cls(data[: bounds[-1]].copy(), bounds[:-1], bounds[1:], content_hash, buckets.dtype)

    def unpack(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Offsets, buckets, counts and tokens, as `dsir.features.Features` holds them.

        Raises
        ------
        ValueError
            The bytes are damaged.
        """
        offsets, n_tokens = np.zeros(len(self) + 1, np.int64), np.empty(len(self), np.int64)
        wrong, large = _unpack_sizes(self.data, self.starts, self.ends, offsets, n_tokens)
        self.check(wrong)
        buckets = np.empty(offsets[-1] + LANES, self.dtype)
        counts = np.ones(offsets[-1], np.uint32 if large else np.uint8)
        self.check(_unpack(self.data, self.starts, self.ends, offsets, buckets, counts))
        return offsets, buckets[: offsets[-1]], counts, n_tokens

    def check(self, wrong: int) -> None:
        """Raise the ValueError of an error code of `unpack_document` but 0."""
        if wrong:
            raise ValueError(f"features: {_MESSAGES[wrong]}")

    def room(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Buckets and counts (uint32) into which documents of `size` entries and another one can be unpacked."""
        # A bucket takes a byte or more; damaged bounds may be anything.
        entries = size + min(int((self.ends - self.starts).max(initial=0)), len(self.data))
        return np.empty(entries + LANES, self.dtype), np.empty(entries, np.uint32)

    def to_arrow(self) -> pa.RecordBatch:
        """One record batch.

        Columns: ``features_uint16`` or ``features_uint32``, by the type of the buckets (large_binary); ``content_hash``
        (uint64).
        """
        bounds = np.append(self.starts, self.ends[-1:]) if len(self) else np.zeros(1, np.int64)
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(self.data)]
        column = pa.Array.from_buffers(pa.large_binary(), len(self), buffers)
        return pa.record_batch([column, pa.array(self.content_hash)], schema=_SCHEMAS[self.dtype])

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> PackedFeatures:
        """Features from the record batch of `to_arrow`, or a slice of it; nothing is copied, and no document looked at.

        Raises
        ------
        ValueError
            If the batch has other columns or nulls.
        """
        dtype = next((each for each, schema in _SCHEMAS.items() if batch.schema.equals(schema)), None)
        if dtype is None:
            found, *expected = map(_in_words, (batch.schema, *_SCHEMAS.values()))
            raise ValueError(f"features have the columns {found}; expected {' or '.join(expected)}")
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count:
                raise ValueError(f"column {name!r} has {column.null_count} nulls; expected none")
        column, content_hash = batch.columns
        _, offsets, data = column.buffers()
        bounds = (
            np.frombuffer(offsets, np.int64)[column.offset :][: len(column) + 1]
            if len(column)
            else np.zeros(1, np.int64)
        )
        data = np.frombuffer(data if data is not None else b"", np.uint8)
        # One type for the compiler, whoever owns the buffers.
        data.flags.writeable = bounds.flags.writeable = False
        return cls(data, bounds[:-1], bounds[1:], content_hash.to_numpy(), dtype)


@inner
def _put(data, at, value):
    """Write a varint; return the place after it."""
    while value > _U(127):
        data[at] = value & _U(127) | _U(128)
        value >>= _U(7)
        at += _1
    data[at] = value
    return at + _1


@inner
def _put_halves(data, at, halves, n):
    """Write numbers of four bits; return the place after them."""
    for i in range(n >> _1):
        data[at + i] = halves[_2 * i] | halves[_2 * i + _1] << np.uint8(4)
    if n & _1:
        data[at + (n >> _1)] = halves[n - _1]
    return at + ((n + _1) >> _1)


@inner
def _as_runs(buckets, n):
    """Whether a list is written as low halves and run lengths: where these take less, at worst, than high halves."""
    unit = bytes_of(buckets) >> _1
    return n > _0 and (_U(buckets[n - _1]) >> (_8 * unit)) + _2 + n // _FULL < _2 * n * unit


@inner
def _put_buckets(data, at, buckets, n, n_bytes):
    """Write the lowest bytes of each bucket."""
    for i in range(n):
        for byte in range(n_bytes):
            data[at + i * n_bytes + byte] = _U(buckets[i]) >> (_8 * byte) & _U(255)


@inner
def _put_list(data, at, buckets, n, as_runs, ends, runs):
    """Write a list of buckets; return the place after it. `ends` is, and becomes, zero."""
    unit = bytes_of(buckets) >> _1
    if not as_runs:
        _put_buckets(data, at, buckets, n, _2 * unit)
        return at + _2 * n * unit
    _put_buckets(data, at, buckets, n, unit)
    at += n * unit
    half = _8 * unit
    for i in range(n):
        ends[_U(buckets[i]) >> half] = i + _1
    done = n_runs = _0
    for group in range((_U(buckets[n - _1]) >> half) + _1):
        run = max(_U(ends[group]), done) - done
        ends[group] = 0
        done += run
        while run >= _FULL:
            runs[n_runs] = _FULL
            n_runs += _1
            run -= _FULL
        runs[n_runs] = run
        n_runs += _1
    return _put_halves(data, at, runs, n_runs - _U(run == _0))  # 15 at the end is followed by nothing


@njit(cache=True, nogil=True)
def _pack(offsets, buckets, counts, n_tokens, of_once, of_others, repeats, ends, runs, starts, data):
    """Fill `starts` and `data`; return whether buckets ascend and counts are at least 1."""
    at = _0
    for document in range(_U(n_tokens.size)):
        starts[document] = at
        n_once = n_others = large = _0
        fine = True
        for i in range(_U(offsets[document]), _U(offsets[document + _1])):
            # Write to both places and keep one: with one entry in four repeated, branches are hard to predict.
            of_once[n_once] = of_others[n_others] = buckets[i]
            repeats[n_others] = counts[i]
            once = _U(counts[i] == 1)
            n_once += once
            fine &= counts[i] > 0
            n_others += _1 - once
        for i in range(n_others):
            large |= _U(repeats[i] > 255)
        for i in range(_1, n_once):
            fine &= of_once[i - _1] < of_once[i]
        for i in range(_1, n_others):
            fine &= of_others[i - _1] < of_others[i]
        if not fine:
            return False
        once_as_runs = _as_runs(of_once, n_once)
        others_as_runs = _as_runs(of_others, n_others)
        at = _put(data, at, _U(n_tokens[document]))
        at = _put(data, at, n_once << _1 | _U(once_as_runs))
        at = _put(data, at, n_others << _2 | large << _1 | _U(others_as_runs))
        at = _put_list(data, at, of_once, n_once, once_as_runs, ends, runs)
        at = _put_list(data, at, of_others, n_others, others_as_runs, ends, runs)
        for i in range(n_others):
            runs[i] = min(_U(repeats[i]) - _2, _FULL)
        at = _put_halves(data, at, runs, n_others)
        for i in range(n_others):
            if repeats[i] > 17:
                at = _put(data, at, i)
                at = _put(data, at, _U(repeats[i]) - _U(17))
    starts[n_tokens.size] = at
    return True


@inner
def _get(data, at, end):
    """A varint, and the place after it; a place after the end if it is not all there."""
    value = shift = _0
    while at < end and shift < _U(64):
        byte = _U(data[at])
        at += _1
        value |= (byte & _U(127)) << shift
        if byte < _U(128):
            return value, at
        shift += _U(7)
    return _0, end + _1


@inner
def _get_sizes(data, at, end):
    """Words, buckets that occur once, the others, the place after that, and what is wrong; of the sizes all bits."""
    if at > end or end > _U(data.size):
        return _0, _0, _0, at, _SHORT
    words, at = _get(data, at, end)
    n_once, at = _get(data, at, end)
    n_others, at = _get(data, at, end)
    # A bucket takes a byte or more.
    short = at > end or n_once >> _1 > end - at or n_others >> _2 > end - at
    return words, n_once, n_others, at, _SHORT if short else 0


@njit(cache=True, nogil=True)
def _unpack_sizes(data, starts, ends, offsets, n_tokens):
    """Fill what the first bytes of documents say; return an error code, and whether a count is above 255."""
    large = _0
    for document in range(_U(n_tokens.size)):
        words, n_once, n_others, _, wrong = _get_sizes(data, _U(starts[document]), _U(ends[document]))
        if wrong:
            return wrong, False
        n_tokens[document] = words
        offsets[document + _1] = _U(offsets[document]) + (n_once >> _1) + (n_others >> _2)
        large |= n_others & _2
    return 0, large > _0


@inner
def _bucket(data, at, n_bytes):
    bucket = _0
    for byte in range(n_bytes):
        bucket |= _U(data[at + byte]) << (_8 * byte)
    return bucket


@inner
def _get_run(data, at, buckets, first, run, left, high):
    """Read low halves of this high half into ``buckets[first:]``; up to `LANES` may be written."""
    unit = bytes_of(buckets) >> _1
    if at + _U(LANES) * unit <= _U(data.size):
        widen_16(data, at, buckets, first, high)
    else:  # near the end of the bytes
        for i in range(min(run, left)):
            buckets[first + i] = high | _bucket(data, at + i * unit, unit)


@inner
def _get_list(data, at, end, n, as_runs, buckets, first):
    """Read `n` buckets into ``buckets[first:]``; return a code, and the place after them.

    Up to `LANES` more may be overwritten.
    """
    unit = bytes_of(buckets) >> _1
    low = at
    at += n * unit << (_1 - as_runs)
    if at > end:
        return _SHORT, at
    if not as_runs:
        for i in range(n):
            buckets[first + i] = _bucket(data, low + _2 * unit * i, _2 * unit)
        return 0, at
    done = high = _0
    one_high = _1 << (_8 * unit)
    while done < n and at < end:
        two = _U(data[at])
        at += _1
        run = two & _FULL
        _get_run(data, low + done * unit, buckets, first + done, run, n - done, high)
        done += run
        high += one_high * _U(run < _FULL)
        run = two >> _4
        if done < n:
            _get_run(data, low + done * unit, buckets, first + done, run, n - done, high)
        done += run
        high += one_high * _U(run < _FULL)
    return (0 if done == n else _BUCKETS), at


@inner
def unpack_document(data, start, end, buckets, counts, first):
    """Unpack ``data[start:end]`` into ``buckets[first:]`` and, of those that do not occur once, into the same `counts`.

    Returns an error code, 0 if there is none, how many occur once, and how many others there are. Up to `LANES` more
    buckets may be overwritten.
    """
    _, n_once, n_others, at, wrong = _get_sizes(data, start, end)
    once_as_runs, others_as_runs = n_once & _1, n_others & _1
    n_once, n_others = n_once >> _1, n_others >> _2
    if not wrong and first + n_once + n_others + _U(LANES) > _U(buckets.size):
        wrong = _SHORT
    if not wrong:
        wrong, at = _get_list(data, at, end, n_once, once_as_runs, buckets, first)
    first += n_once
    if not wrong:
        wrong, at = _get_list(data, at, end, n_others, others_as_runs, buckets, first)
    if not wrong and at + ((n_others + _1) >> _1) > end:
        wrong = _SHORT
    if wrong:
        return wrong, n_once, n_others
    for i in range(n_others >> _1):
        two = _U(data[at + i])
        counts[first + _2 * i] = (two & _FULL) + _2
        counts[first + _2 * i + _1] = (two >> _4) + _2
    if n_others & _1:
        counts[first + n_others - _1] = (_U(data[at + (n_others >> _1)]) & _FULL) + _2
    at += (n_others + _1) >> _1
    largest = _U(255) if bytes_of(counts) == 1 else _U(2**32 - 1)
    while at < end:
        place, at = _get(data, at, end)
        more, at = _get(data, at, end)
        if at > end or place >= n_others or more > largest - _U(17):
            return _COUNT, n_once, n_others
        counts[first + place] = more + _U(17)
    return 0, n_once, n_others


@njit(cache=True, nogil=True)
def _unpack(data, starts, ends, offsets, buckets, counts):
    """Fill buckets, and counts, which are ones; return an error code, 0 if there is none."""
    for document in range(_U(starts.size)):
        start, end, first = _U(starts[document]), _U(ends[document]), _U(offsets[document])
        wrong, _, _ = unpack_document(data, start, end, buckets, counts, first)
        if wrong:
            return wrong
    return 0


def _schema(dtype: np.dtype) -> pa.Schema:
    return pa.schema({f"features_{dtype}": pa.large_binary(), "content_hash": pa.uint64()})


#: Arrow schemas of features, by the type of their buckets.
_SCHEMAS = {dtype: _schema(dtype) for dtype in map(np.dtype, (np.uint16, np.uint32))}


def _in_words(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)
