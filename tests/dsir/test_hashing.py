"""Hashes and noise: against other implementations, and their statistics."""

import math
import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.featurizer.hashing import (
    K1,
    K2,
    K3,
    MOST_GUMBEL,
    _log,
    extend,
    gumbel_noise,
    hash_word,
    mix64,
    xxh64_ranges,
)

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


def test_mix64_is_the_splitmix64_finalizer():
    # The first output of SplitMix64 from state 0 is the finalizer of its increment.
    assert int(mix64(np.uint64(0x9E3779B97F4A7C15))) == 0xE220A8397B1DCDAF
    assert int(mix64(np.uint64(0))) == 0


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


# --------------------------------------------------------------------------------------------- Gumbel noise
@pytest.fixture(scope="module")
def content_hash():
    return np.random.default_rng(7).integers(0, 2**64, 200_000, dtype=np.uint64)


def test_noise_is_a_function_of_the_document(content_hash):
    noise = gumbel_noise(content_hash, 3, "a")
    order = np.random.default_rng(1).permutation(len(content_hash))
    assert np.array_equal(gumbel_noise(content_hash[order], 3, "a"), noise[order])
    for part in (slice(0, 1), slice(17, 18), slice(5, 9000), slice(None, None, 7)):
        assert np.array_equal(gumbel_noise(content_hash[part], 3, "a"), noise[part])
    assert len(gumbel_noise(content_hash[:0], 3, "a")) == 0


def test_no_noise_is_above_its_bound():
    largest = (2**52 - 0.5) / 2**52  # of the uniform variates
    assert MOST_GUMBEL - 0.1 < -_log(-_log(largest)) < MOST_GUMBEL


@pytest.mark.parametrize("consecutive", [False, True])
def test_noise_is_standard_gumbel(content_hash, consecutive):
    hashes = np.arange(200_000, dtype=np.uint64) if consecutive else content_hash
    noise = np.sort(gumbel_noise(hashes, 0, "chemprot-10pct"))
    n = len(noise)
    cdf = np.exp(-np.exp(-noise))
    distance = max((np.arange(1, n + 1) / n - cdf).max(), (cdf - np.arange(n) / n).max())
    assert distance * math.sqrt(n) < 2.0  # Kolmogorov-Smirnov: exceeded with probability 0.0007
    assert abs(noise.mean() - np.euler_gamma) < 5 * math.pi / math.sqrt(6 * n)


def test_noise_of_other_seeds_and_selections_is_independent(content_hash):
    keys = [(0, "a"), (1, "a"), (2**63, "a"), (0, "b"), (0, "")]
    streams = [gumbel_noise(content_hash, seed, name) for seed, name in keys]
    correlation = np.corrcoef(streams)[np.triu_indices(len(streams), 1)]
    assert np.abs(correlation).max() < 5 / math.sqrt(len(content_hash))


def test_noise_is_pinned():
    """Selections are remembered by their seed: these bits may never change."""
    noise = gumbel_noise(np.array([0, 1, 2**64 - 1], np.uint64), 42, "pinned")
    assert [x.hex() for x in noise.tolist()] == [
        "0x1.6e2cb6e996b8fp-2",
        "0x1.c9565cdb25ea8p-1",
        "0x1.b479fe308edc6p+0",
    ]


@settings(max_examples=500, deadline=None)
@given(st.floats(2.0**-53, 40))
def test_log_is_within_an_ulp(x):
    assert abs(_log(x) - math.log(x)) <= math.ulp(math.log(x))


def test_noise_is_finite_at_the_ends():
    smallest, largest = 0.5 * 2.0**-52, (2**52 - 0.5) * 2.0**-52
    assert 0 < smallest and largest < 1
    assert -3.7 < -_log(-_log(smallest)) < -3.5
    assert 36 < -_log(-_log(largest)) < 37


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        gumbel_noise(np.zeros(1, np.uint64), seed, "a")


@pytest.mark.parametrize("hashes", [np.zeros(1, np.int64), np.zeros((1, 1), np.uint64)])
def test_other_arrays_are_refused(hashes):
    with pytest.raises(ValueError, match="content_hash"):
        gumbel_noise(hashes, 0, "a")
