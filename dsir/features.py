"""Hashed n-gram features of documents: the public face of the featurizer.

What belongs here: what a feature is (`FeatureSpec`), the counts of a batch (`Features`) and their Arrow form, and
`featurize`. What does not: compiled code (`dsir.featurizer.kernel` and what it calls), reading and storing, anything
that estimates or selects.

The method is section 4 of Xie et al., "Data Selection for Language Models via Importance Resampling"
(NeurIPS 2023), as in ``HashedNgramDSIR`` of their package ``data-selection`` 1.0.3: lowercase, split into
words and punctuation, count n-grams of order 1 to n in hashed buckets.
"""

import importlib
import re
import threading
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa

from dsir.checks import expect_array, expect_instance, expect_strings
from dsir.featurizer.hashing import xxh64_ranges
from dsir.featurizer.kernel import count_documents
from dsir.featurizer.memo import new_memo
from dsir.featurizer.packed import PackedFeatures
from dsir.featurizer.sparse import add_counts, new_counts, sum_counts
from dsir.featurizer.unicode_tables import code_point_table
from dsir.featurizer.word_counts import WordCounts
from dsir.featurizer.words import ROOM, needs_str_lower

__all__ = [
    "KERNEL_VERSION",
    "FeatureSpec",
    "Features",
    "Hash",
    "custom_tokenizer",
    "featurize",
    "hash_strings",
]

#: Changes whenever the same text could give different features: with the kernel's arithmetic, and with the Unicode
#: version of the running Python, whose `re` and `str.lower` define words.
KERNEL_VERSION = f"1+unicode-{unicodedata.unidata_version}"

Hash = Literal["fast", "sha256"]

_MAX_BUCKETS = 2**24
_ALL_WORDS = {"wordpunct": np.uint64(0), "whitespace": np.uint64(2**64 - 1)}
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class FeatureSpec:
    """What is counted in a document.

    Parameters
    ----------
    tokenizer : str
        ``"wordpunct"``: the matches of ``\\w+|[^\\w\\s]+`` under Python's `re`, as in the reference.
        ``"whitespace"``: `str.split`. ``"package.module:function"``: a function from the lowercased text
        (str) to its words (list of str); an order of magnitude slower.
    ngrams : int
        Longest n-gram counted, at least 1. All shorter ones are counted too.
    buckets : int
        Number of hash buckets, 1 .. 2**24.
    hash : str
        ``"fast"``: the 64-bit hash specified in `dsir.featurizer.hashing`. ``"sha256"``: the bucket is the SHA-256 of
        the n-gram, its words joined by one space, as a big-endian integer modulo `buckets`; identical to the
        reference's ``hash_buckets``.

    Raises
    ------
    ValueError
        Naming the field, its value, and what is expected.
    """

    tokenizer: str = "wordpunct"
    ngrams: int = 2
    buckets: int = 10_000
    hash: Hash = "fast"

    def __post_init__(self) -> None:
        def refuse(field: str, expected: str) -> None:
            raise ValueError(f"{field}: {getattr(self, field)!r}; expected {expected}")

        def is_integer(value: object) -> bool:
            return isinstance(value, int) and not isinstance(value, bool)

        known = self.tokenizer in _ALL_WORDS if isinstance(self.tokenizer, str) else False
        if not known and not (isinstance(self.tokenizer, str) and _FUNCTION.fullmatch(self.tokenizer)):
            refuse("tokenizer", "'wordpunct', 'whitespace' or 'package.module:function'")
        if not is_integer(self.ngrams) or self.ngrams < 1:
            refuse("ngrams", "an integer of at least 1")
        if not is_integer(self.buckets) or not 1 <= self.buckets <= _MAX_BUCKETS:
            refuse("buckets", f"an integer from 1 to {_MAX_BUCKETS}")
        if self.hash not in get_args(Hash):
            refuse("hash", " or ".join(map(repr, get_args(Hash))))

    @property
    def bucket_dtype(self) -> np.dtype:
        """uint16 if it holds every bucket, else uint32."""
        return np.dtype(np.uint16 if self.buckets <= 2**16 else np.uint32)

    def n_ngrams(self, n_tokens: np.ndarray) -> np.ndarray:
        """All n-grams of documents of these many words, int64[n]."""
        return sum(np.maximum(n_tokens - shorter, 0) for shorter in range(self.ngrams))


@dataclass(frozen=True, eq=False)
class Features:
    """Sparse n-gram counts of a batch of n documents, in compressed sparse rows.

    Attributes
    ----------
    offsets : int64[n + 1]
        The entries of document i are ``offsets[i] .. offsets[i + 1] - 1``.
    buckets : uint16[nnz] or uint32[nnz]
        Unique within a document; uint16 for at most 65,536 buckets. Ascending; in features from Arrow first those that
        occur once, ascending, then the others, ascending.
    counts : uint32[nnz] or uint8[nnz]
        Bytes if the features come from Arrow and none is above 255.
    n_tokens : int64[n]
        Words of each document.
    content_hash : uint64[n]
        XXH64, seed 0, of the UTF-8 bytes of each document as given.
    word_counts : WordCounts, optional
        What the quality filter needs; None unless it was counted (``quality=True``). Not part of the Arrow form:
        None for features from Arrow.
    """

    offsets: np.ndarray
    buckets: np.ndarray
    counts: np.ndarray
    n_tokens: np.ndarray
    content_hash: np.ndarray
    word_counts: WordCounts | None = None

    def __post_init__(self) -> None:
        expect_array("offsets", self.offsets, (np.int64,), "documents + 1")
        n = len(self.offsets) - 1
        expect_array("buckets", self.buckets, (np.uint16, np.uint32), "entries")
        expect_array("counts", self.counts, (np.uint32, np.uint8), len(self.buckets))
        expect_array("n_tokens", self.n_tokens, (np.int64,), n)
        expect_array("content_hash", self.content_hash, (np.uint64,), n)

    def __len__(self) -> int:
        return len(self.n_tokens)

    @property
    def n_ngrams(self) -> np.ndarray:
        """Sum of the counts of each document, int64[n]."""
        return sum_counts(self.offsets, self.counts)

    def dense(self, i: int, n_buckets: int) -> np.ndarray:
        """Counts of document `i` over all buckets, int64[n_buckets].

        Raises
        ------
        IndexError
            If there is no document `i`, or it has a bucket of ``n_buckets`` or above.
        """
        if not -len(self) <= i < len(self):
            raise IndexError(f"document {i} of {len(self)}")
        i %= len(self)
        entries = slice(self.offsets[i], self.offsets[i + 1])
        dense = np.zeros(n_buckets, np.int64)
        dense[self.buckets[entries]] = self.counts[entries]
        return dense

    def totals(self, n_buckets: int) -> np.ndarray:
        """Counts summed over the documents, int64[n_buckets]; exact.

        Raises
        ------
        IndexError
            If there is a bucket of ``n_buckets`` or above.
        """
        totals = np.zeros(n_buckets, np.int64)
        self.add_totals(totals)
        return totals

    def add_totals(self, totals: np.ndarray) -> None:
        """Add all documents' counts to `totals`, int64[n_buckets], in place; exact.

        Raises
        ------
        IndexError
            If there is a bucket of ``n_buckets`` or above; `totals` is as before.
        ValueError
            If `totals` has another type or shape.
        """
        expect_array("totals", totals, (np.int64,), "buckets")
        if len(self.buckets) and self.buckets.max() >= len(totals):
            raise IndexError(f"bucket {self.buckets.max()} of {len(totals)}")
        add_counts(self.buckets, self.counts, totals)

    def to_arrow(self) -> pa.RecordBatch:
        """The features as one record batch; errors as `PackedFeatures.pack`."""
        entries = self.offsets, self.buckets, self.counts
        return PackedFeatures.pack(*entries, self.n_tokens, self.content_hash).to_arrow()

    @classmethod
    def gathered(cls, batches: Sequence[pa.RecordBatch], order: np.ndarray) -> "Features":
        """Features from record batches of `to_arrow`, at least one, with all documents in this order: int64[n]."""
        [batch] = pa.Table.from_batches(batches).take(pa.array(order)).combine_chunks().to_batches()
        return cls.from_arrow(batch)

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> "Features":
        """Features from the record batch of `to_arrow`, or a slice of it.

        Raises
        ------
        ValueError
            If the batch has other columns, nulls, or damaged features.
        """
        packed = PackedFeatures.from_arrow(batch)
        return cls(*packed.unpack(), packed.content_hash)


class _Scratch(threading.local):
    """The running thread's counters and memo of SHA-256 buckets, kept for the next batch."""

    key = None
    counts = None
    memo = None

    def prepare(self, spec: FeatureSpec) -> None:
        key = (spec.buckets, spec.hash, spec.ngrams)
        if self.key != key:
            self.clear()
            self.counts = new_counts(spec.buckets)
            self.memo = new_memo(spec.buckets, spec.ngrams + ROOM) if spec.hash == "sha256" else None
            self.key = key

    def clear(self) -> None:
        self.key = self.counts = self.memo = None


scratch = _Scratch()


def featurize(texts: pa.Array, spec: FeatureSpec, *, quality: bool = False) -> Features:
    """Sparse n-gram counts of a batch of documents.

    Compiled code in one thread, which releases the GIL: call it from several threads on batches of a few
    megabytes. The features of a document do not depend on the other documents, nor on earlier batches.

    Parameters
    ----------
    texts : pyarrow.Array of string or large_string
        n documents; may be a slice.
    spec : FeatureSpec
    quality : bool
        Whether `Features.word_counts` are counted, which the quality filter judges (`dsir.quality`) and nothing else
        needs: a fifth of the time under the ``fast`` hash.

    Returns
    -------
    Features
        Of n documents. A document without words has no entries.

    Raises
    ------
    ValueError
        If `texts` has another type, nulls or invalid UTF-8, or a custom tokenizer cannot be found or does
        not return a list of str.

    Notes
    -----
    Equals ``get_ngram_counts`` of ``data_selection.hashed_ngram_dsir`` under ``hash="sha256"``.
    """
    content_hash, words = words_of(texts, spec)
    room = spec.ngrams * (words.n_words() + 64)  # what is not used is never touched
    scratch.prepare(spec)
    try:
        offsets, buckets, counts, n_tokens, word_counts = count_documents(
            *words,
            spec.ngrams,
            np.uint64(spec.buckets),
            scratch.counts,
            scratch.memo,
            quality,
            np.empty(room, spec.bucket_dtype),
            np.empty(room, np.uint32),
        )
    except BaseException:  # out of memory: the counters are not zero
        scratch.clear()
        raise
    judged = WordCounts(*word_counts) if quality else None
    return Features(offsets, buckets, counts, n_tokens, content_hash, judged)


class Words(NamedTuple):
    """Where the words of n documents are found: what compiled code takes (`dsir.featurizer.kernel`)."""

    data: np.ndarray
    begins: np.ndarray
    finishes: np.ndarray
    bounds: np.ndarray | None
    table: np.ndarray
    all_words: np.uint64

    def n_words(self) -> int:
        """About how many there are."""
        return int((self.finishes - self.begins).sum()) // 5 if self.bounds is None else len(self.bounds)


def words_of(texts: pa.Array, spec: FeatureSpec) -> tuple[np.ndarray, Words]:
    """The content hash of every document, uint64[n], and where its words are; errors as `featurize`."""
    expect_strings("texts", texts)
    expect_instance("spec", spec, FeatureSpec)
    texts.validate(full=True)
    data, starts, ends = utf8_ranges(texts)
    content_hash = xxh64_ranges(data, starts, ends)
    if spec.tokenizer in _ALL_WORDS:
        data, starts, ends = _with_str_lower(texts, data, starts, ends)
        table = code_point_table(spec.tokenizer)
        return content_hash, Words(data, starts, ends, None, table, _ALL_WORDS[spec.tokenizer])
    data, bounds, starts, ends = _custom_words(texts, spec.tokenizer)
    return content_hash, Words(data, starts, ends, bounds, _NO_TABLE, np.uint64(0))


_NO_TABLE = np.zeros(0, np.uint32)
_NO_TABLE.flags.writeable = False


def hash_strings(strings: pa.Array) -> np.ndarray:
    """XXH64, seed 0, of the UTF-8 bytes of every value of a string array without nulls: uint64[n].

    Raises
    ------
    ValueError
        If it is no pyarrow array of string or large_string, or has nulls.
    """
    expect_strings("strings", strings)
    return xxh64_ranges(*utf8_ranges(strings))


def utf8_ranges(texts: pa.Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bytes of a string array (read-only), and the bounds of its values (int64[n] twice)."""
    _, offsets, data = texts.buffers()
    dtype = np.int32 if texts.type == pa.string() else np.int64
    if len(texts) == 0:
        bounds = np.zeros(1, np.int64)
    else:
        bounds = np.frombuffer(offsets, dtype)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    data = np.frombuffer(data if data is not None else b"", np.uint8)
    data.flags.writeable = False  # one type for the compiler, whoever owns the buffer
    return data, bounds[:-1], bounds[1:]


def _with_str_lower(texts, data, starts, ends):
    """The same documents, with those that need `str.lower` lowercased and moved to the end of the bytes."""
    special = np.flatnonzero(needs_str_lower(data, starts, ends))
    if len(special) == 0:
        return data, starts, ends
    first = starts[0]
    pieces = [data[first : ends[-1]]]
    starts, ends = starts - first, ends - first
    at = len(pieces[0])
    for i in special:
        lowered = np.frombuffer(texts[int(i)].as_py().lower().encode(), np.uint8)
        pieces.append(lowered)
        starts[i], ends[i] = at, at + len(lowered)
        at += len(lowered)
    data = np.concatenate(pieces)
    data.flags.writeable = False
    return data, starts, ends


def custom_tokenizer(name: str) -> Callable[[str], list[str]]:
    """The function that ``package.module:function`` names.

    Raises
    ------
    ValueError
        It cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"tokenizer: {name!r} cannot be imported: {error}") from error
    return found


def _custom_words(texts, name):
    """Words of a custom tokenizer: their bytes, their bounds, and the bounds of each document's words."""
    tokenize = custom_tokenizer(name)
    pieces, lengths, document_bounds = [], [0], [0]
    for text in texts:
        words = tokenize(text.as_py().lower())
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"tokenizer: {name!r} returned {type(words).__name__}; expected a list of str")
        encoded = [word.encode() for word in words]
        pieces += encoded
        lengths += map(len, encoded)
        document_bounds.append(document_bounds[-1] + len(words))
    data = np.frombuffer(bytearray().join([*pieces, bytes(24)]), np.uint8)
    bounds = np.cumsum(lengths, dtype=np.int64)
    of_documents = np.array(document_bounds, np.int64)
    return data, bounds, of_documents[:-1], of_documents[1:]
