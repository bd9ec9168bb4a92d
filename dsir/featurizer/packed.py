"""Features as cached: in Arrow, with counts only for buckets that occur more than once.

What belongs here: how counts are packed, their Arrow form. What does not: where they come from (`dsir.features`),
files.

Three of four entries of a document occur once. These come first and need neither a byte for their count nor a product
when weighed: a quarter less to store and read than with a count for every entry, weighed in four fifths of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit

_LARGEST_BYTE = 255


@dataclass(frozen=True, eq=False)
class PackedFeatures:
    """Sparse n-gram counts of a batch of n documents.

    Attributes
    ----------
    offsets : int64[n + 1]
        The entries of document i are ``offsets[i] .. offsets[i + 1] - 1``.
    buckets : uint16[nnz] or uint32[nnz]
        Unique within a document: first those that occur once, then the others, both ascending.
    repeat_offsets : int64[n + 1]
        The same for `repeats`.
    repeats : uint8[r]
        Counts of the document's last entries, those that occur more than once; 0 for counts above 255.
    large_at : int64[m]
        The places of these zeros in `repeats`, ascending; usually none.
    large_counts : uint32[m]
        Their counts.
    n_tokens : int64[n]
    content_hash : uint64[n]
        As in `dsir.features.Features`.
    """

    offsets: np.ndarray
    buckets: np.ndarray
    repeat_offsets: np.ndarray
    repeats: np.ndarray
    large_at: np.ndarray
    large_counts: np.ndarray
    n_tokens: np.ndarray
    content_hash: np.ndarray

    def __len__(self) -> int:
        return len(self.n_tokens)

    @classmethod
    def pack(
        cls,
        offsets: np.ndarray,
        buckets: np.ndarray,
        counts: np.ndarray,
        n_tokens: np.ndarray,
        content_hash: np.ndarray,
    ) -> PackedFeatures:
        """Pack what `dsir.features.Features` holds: counts of at least 1; entries of a kind keep their order."""
        ordered, repeats = np.empty_like(buckets), np.empty(len(counts), np.uint8)
        repeat_offsets = np.empty(len(offsets), np.int64)
        n_large = np.count_nonzero(counts > _LARGEST_BYTE)
        large_at, large_counts = np.empty(n_large, np.int64), np.empty(n_large, np.uint32)
        longest = int(np.diff(offsets).max(initial=0))
        spare = np.empty(longest, buckets.dtype), np.empty(longest, counts.dtype)
        _pack(offsets, buckets, counts, *spare, ordered, repeat_offsets, repeats, large_at, large_counts)
        repeats = repeats[: repeat_offsets[-1]]
        return cls(offsets, ordered, repeat_offsets, repeats, large_at, large_counts, n_tokens, content_hash)

    def counts(self) -> np.ndarray:
        """Counts of all entries, in the order of `buckets`: uint32[nnz], or uint8[nnz] if none is above 255."""
        counts = np.ones(len(self.buckets), np.uint32 if len(self.large_at) else np.uint8)
        _unpack(self.offsets, self.repeat_offsets, self.repeats, self.large_at, self.large_counts, counts)
        return counts

    def to_arrow(self) -> pa.RecordBatch:
        """One record batch.

        Columns: ``buckets`` (large_list of uint16 or uint32) and ``repeats`` (large_list of uint8); ``large``
        (large_list of struct: ``at`` and ``count``, uint32): where in the document's repeats, from zero, a count is
        above 255, and the count; ``n_tokens`` (int64); ``content_hash`` (uint64).
        """
        first = np.searchsorted(self.large_at, self.repeat_offsets)
        at = self.large_at - np.repeat(self.repeat_offsets[:-1], np.diff(first))
        large = [pa.array(at.astype(np.uint32)), pa.array(self.large_counts)]
        columns = [
            _lists(self.offsets, pa.array(self.buckets)),
            _lists(self.repeat_offsets, pa.array(self.repeats)),
            _lists(first, pa.StructArray.from_arrays(large, names=["at", "count"])),
            pa.array(self.n_tokens),
            pa.array(self.content_hash),
        ]
        return pa.record_batch(columns, schema=_SCHEMAS[self.buckets.dtype.name])

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> PackedFeatures:
        """Features from the record batch of `to_arrow`, or a slice of it.

        Nothing is copied except, for a slice, the offsets; counts are not read.

        Raises
        ------
        ValueError
            If the batch has other columns or nulls, a document has more repeats than buckets, or a large count belongs
            to none of the document's zeros.
        """
        if not any(batch.schema.equals(schema) for schema in _SCHEMAS.values()):
            found, *expected = map(_in_words, (batch.schema, *_SCHEMAS.values()))
            raise ValueError(f"features have the columns {found}; expected {' or '.join(expected)}")
        columns = batch.columns
        for name, column in zip(batch.schema.names, columns, strict=True):
            if column.null_count:
                raise ValueError(f"column {name!r} has {column.null_count} nulls; expected none")
        offsets, [buckets] = _list_parts(columns[0], columns[0].values)
        repeat_offsets, [repeats] = _list_parts(columns[1], columns[1].values)
        large_offsets, [at, large_counts] = _list_parts(columns[2], *columns[2].values.flatten())
        large_at = np.empty(len(at), np.int64)
        wrong = _place_large(offsets, repeat_offsets, repeats, large_offsets, at, large_at)
        if wrong:
            raise ValueError(_WRONG[wrong])
        return cls(
            offsets,
            buckets,
            repeat_offsets,
            repeats,
            large_at,
            large_counts,
            columns[3].to_numpy(),
            columns[4].to_numpy(),
        )


@njit(cache=True, nogil=True)
def _pack(
    offsets,
    buckets,
    counts,
    spare_buckets,
    spare_counts,
    ordered,
    repeat_offsets,
    repeats,
    large_at,
    large_counts,
):
    repeated, large = np.int64(0), 0
    one = np.uint64(1)
    for document in range(offsets.size - 1):
        repeat_offsets[document] = repeated
        first, last = offsets[document], offsets[document + 1]
        mine, times, out = buckets[first:last], counts[first:last], ordered[first:last]
        at = spare = np.uint64(0)
        for i in range(times.size):
            # Write to both places and keep one: with one entry in four repeated, branches are hard to predict.
            out[at] = spare_buckets[spare] = mine[i]
            spare_counts[spare] = times[i]
            once = np.uint64(times[i] == 1)
            at += once
            spare += one - once
        n = np.int64(spare)
        out[out.size - n :] = spare_buckets[:n]
        for i in range(n):
            count = spare_counts[i]
            if count > _LARGEST_BYTE:
                large_at[large], large_counts[large] = repeated + i, count
                large += 1
                count = 0
            repeats[repeated + i] = count
        repeated += n
    repeat_offsets[offsets.size - 1] = repeated


_MANY_REPEATS, _LARGE_NOWHERE = 1, 2
_WRONG = {
    _MANY_REPEATS: "a document has more 'repeats' than 'buckets'",
    _LARGE_NOWHERE: "'large' is not, in order, of those of the document's repeats that are zeros",
}


@njit(cache=True, nogil=True)
def _place_large(offsets, repeat_offsets, repeats, large_offsets, at, large_at):
    """Fill `large_at` from places within documents; return an error code, 0 if there is none.

    Compiled, since every block passes through it before it is weighed.
    """
    for document in range(offsets.size - 1):
        first, end = repeat_offsets[document], repeat_offsets[document + 1]
        if end - first > offsets[document + 1] - offsets[document]:
            return _MANY_REPEATS
        before = np.int64(-1)
        for i in range(large_offsets[document], large_offsets[document + 1]):
            place = np.int64(at[i])
            if place <= before or place >= end - first or repeats[first + place]:
                return _LARGE_NOWHERE
            large_at[i] = first + place
            before = place
    return 0


@njit(cache=True, nogil=True)
def _unpack(offsets, repeat_offsets, repeats, large_at, large_counts, counts):
    large = 0
    for document in range(offsets.size - 1):
        first, last = repeat_offsets[document], repeat_offsets[document + 1]
        shift = offsets[document + 1] - last
        for i in range(first, last):
            counts[shift + i] = repeats[i]
        while large < large_at.size and large_at[large] < last:
            counts[shift + large_at[large]] = large_counts[large]
            large += 1


def _schema(bucket: pa.DataType) -> pa.Schema:
    return pa.schema(
        {
            "buckets": pa.large_list(bucket),
            "repeats": pa.large_list(pa.uint8()),
            "large": pa.large_list(pa.struct({"at": pa.uint32(), "count": pa.uint32()})),
            "n_tokens": pa.int64(),
            "content_hash": pa.uint64(),
        }
    )


#: Arrow schemas of features, by the type of their buckets.
_SCHEMAS = {str(bucket): _schema(bucket) for bucket in (pa.uint16(), pa.uint32())}


def _in_words(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _lists(offsets: np.ndarray, values: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)


def _list_parts(column: pa.Array, *values: pa.Array) -> tuple[np.ndarray, list[np.ndarray]]:
    """Offsets from zero (int64[n + 1]) of a column of lists, which may be a slice; these of all lists' values."""
    offsets = column.offsets.to_numpy()
    mine = [each.to_numpy()[offsets[0] : offsets[-1]] for each in values]
    return offsets - offsets[0] if offsets[0] else offsets, mine
