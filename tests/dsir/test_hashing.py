"""Hashes: against other implementations, and their statistics."""

import math
import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.featurizer.hashing import K1, K2, K3, extend, hash_word, xxh64_ranges

MASK = 2**64 - 1


def python_hash_word(word: bytes) -> int:
    """The word hash as the docstring of `dsir.featurizer.hashing` specifies it."""
    h = len(word) * int(K1) & MASK
    for i in range(0, len(word), 8):
        (chunk,) = struct.unpack("<Q", word[i : i + 8].ljust(8, b"\0"))
        h = (h ^ chunk) * int(K2) & MASK
        h ^= h >> 32
    h = h * int(K3) & MASK
    return h ^ h >> 29


def python_extend(prefix: int, word: int) -> int:
    x = (prefix * int(K1) + word) & MASK
    x ^= x >> 32
    x = x * int(K3) & MASK
    return x ^ x >> 29


def compiled_hash_word(word: bytes) -> int:
    return int(hash_word(np.frombuffer(word + bytes(8), np.uint8), 0, len(word)))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.integers(0, MASK))
def test_word_hash_is_the_specified_one(word, prefix):
    h = compiled_hash_word(word)
    assert h == python_hash_word(word)
    assert int(extend(np.uint64(prefix), np.uint64(h))) == python_extend(prefix, h)


def test_hash_depends_on_order_and_on_where_words_are_cut():
    a, b, ab = (compiled_hash_word(w) for w in (b"a", b"b", b"ab"))
    assert len({python_extend(a, b), python_extend(b, a), ab, a, b}) == 5
    assert compiled_hash_word(b"\0") != compiled_hash_word(b"\0\0") != compiled_hash_word(b"")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=5))
def test_xxh64_agrees_with_the_xxhash_package(pieces):
    ends = np.cumsum([0, *map(len, pieces)]).astype(np.int64)
    buf = np.frombuffer(b"".join(pieces), np.uint8)
    assert xxh64_ranges(buf, ends[:-1], ends[1:]).tolist() == [xxhash.xxh64_intdigest(p) for p in pieces]


def chi_square_z(counts: np.ndarray) -> float:
    """Chi-square of uniformity, as standard normal deviate."""
    expected = counts.sum() / len(counts)
    return (((counts - expected) ** 2 / expected).sum() - (len(counts) - 1)) / math.sqrt(2 * len(counts) - 2)


WORDS = [
    *(
        f"{a}{b}"
        for a in ("", "un", "re", "pre", "out", "over")
        for b in ("do", "run", "view", "load", "lined")
    ),
    *(str(i) for i in range(400)),
    *(chr(c) for c in range(0x4E00, 0x4E00 + 400)),
    *("".join(chr(97 + (i // 26**k) % 26) for k in range(3)) for i in range(0, 17576, 20)),
]


@pytest.fixture(scope="module")
def bigram_hashes():
    words = [python_hash_word(w.encode()) for w in dict.fromkeys(WORDS)]
    words = np.array(words[:1000], np.uint64)
    with np.errstate(over="ignore"):
        x = (words[:, None] * K1 + words[None, :]).ravel()
        x ^= x >> np.uint64(32)
        x *= K3
        x ^= x >> np.uint64(29)
    return x


@pytest.mark.parametrize("n_buckets", [2, 97, 4096, 10_000, 65_536])
def test_buckets_of_distinct_bigrams_are_uniform(bigram_hashes, n_buckets):
    buckets = ((bigram_hashes >> np.uint64(32)) * np.uint64(n_buckets)) >> np.uint64(32)
    assert abs(chi_square_z(np.bincount(buckets.astype(np.int64), minlength=n_buckets))) < 5


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 9, 12])
def test_buckets_of_similar_words_are_uniform(length):
    """Numbers in fixed width: words that differ in few bits, in the low or in the high bytes of the chunk."""
    words = [str(i).zfill(length) for i in range(min(10**length, 30_000))]
    words = list(dict.fromkeys([*words, *(w[::-1] for w in words)]))
    buckets = [python_hash_word(w.encode()) >> 32 for w in words]
    n_buckets = max(2, min(1000, len(words) // 10))
    counts = np.bincount([(b * n_buckets) >> 32 for b in buckets], minlength=n_buckets)
    # Few words, or a regular set of them, may well be spread more evenly than at random.
    assert chi_square_z(counts) < 5


def test_no_excess_of_collisions(bigram_hashes):
    assert len(np.unique(bigram_hashes)) == len(bigram_hashes)
    # 10**6 hashes on 2**32 values: 116 pairs are expected to agree in the high half.
    high = np.unique(bigram_hashes >> np.uint64(32))
    assert 116 - 6 * 11 < len(bigram_hashes) - len(high) < 116 + 6 * 11
