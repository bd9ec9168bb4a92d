"""The phases of the kernel where they could go wrong: at the ends of blocks, at full counters, without wide vectors."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from dsir.features import Features, FeatureSpec, featurize
from dsir.featurizer import intrinsics
from dsir.featurizer.words import ROOM
from dsir.ngrams import hash_ngrams
from tests.dsir.test_hashing import python_extend, python_hash_word

POOL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pool"
hash_of = cache(python_hash_word)
extended = cache(python_extend)


def by_comma(text: str) -> list[str]:
    return text.split(",")


def grams(words: list[str], ngrams: int) -> list[int]:
    """Hashes of n-grams in plain Python, in order of length and then of place."""
    found: list[int] = []
    shorter = words_ = [hash_of(word.encode()) for word in words]
    for order in range(1, ngrams + 1):
        found += shorter
        shorter = [extended(gram, word) for gram, word in zip(shorter, words_[order:], strict=False)]
    return found


def counted(features: Features, i: int) -> list[tuple[int, int]]:
    entries = slice(features.offsets[i], features.offsets[i + 1])
    return list(zip(features.buckets[entries].tolist(), features.counts[entries].tolist(), strict=True))


LENGTHS = [
    *range(12),
    *range(20, 200, 17),
    *(k * ROOM + d for k in (1, 2) for d in (-65, -64, -63, -1, 0, 1, 2)),
]


@pytest.mark.parametrize("buckets", [10_000, 65_536, 2**20])
@pytest.mark.parametrize("ngrams", [1, 2, 5])
def test_documents_of_every_number_of_words(ngrams, buckets):
    rng = np.random.default_rng(ngrams)
    documents = [[f"word{i}" if i % 2 else "," for i in rng.zipf(1.4, n) % 500] for n in LENGTHS]
    spec = FeatureSpec("whitespace", ngrams, buckets)
    texts = pa.array([" ".join(words) for words in documents])
    features, ngram_hashes = featurize(texts, spec), hash_ngrams(texts, spec)
    for i, words in enumerate(documents):
        expected = grams(words, ngrams)
        in_buckets = Counter(((h >> 32) * buckets) >> 32 for h in expected)
        assert counted(features, i) == sorted(in_buckets.items()), len(words)
        found = ngram_hashes.hashes[ngram_hashes.offsets[i] : ngram_hashes.offsets[i + 1]]
        assert found.tolist() == expected, len(words)


def test_words_found_by_a_custom_tokenizer_go_through_the_same_blocks():
    documents = [[["", "a", "longer than that"][i % 3] for i in range(n)] for n in LENGTHS if n]
    spec = FeatureSpec(f"{__name__}:by_comma", 3)
    features = featurize(pa.array([",".join(words) for words in documents]), spec)
    for i, words in enumerate(documents):
        expected = Counter(((h >> 32) * 10_000) >> 32 for h in grams(words, 3))
        assert counted(features, i) == sorted(expected.items()), len(words)


@pytest.mark.parametrize("hash_", ["fast", "sha256"])
@pytest.mark.parametrize("buckets", [1, 10_000, 65_537])
def test_counts_are_exact_however_large(buckets, hash_):
    times = [1, 254, 255, 256, 257, 509, 510, 511, 512, 1_000, 70_000]
    documents = [word for n in times for word in ("x " * n, "y z")]  # the second takes nothing over
    features = featurize(pa.array(documents), FeatureSpec(hash=hash_, buckets=buckets))
    for i, n in enumerate(times):
        for d, expected in ((2 * i, [n, n - 1]), (2 * i + 1, [1, 1, 1])):
            together = [sum(expected)] if buckets == 1 else [n for n in expected if n]
            assert sorted(n for _, n in counted(features, d)) == sorted(together)


@njit
def singly(mask, base, places, at):
    return intrinsics.append_places_singly(mask, base, places, at)


@njit
def at_once(mask, base, places, at):
    return intrinsics.append_places_at_once(mask, base, places, at)


@given(
    mask=st.integers(0, 2**64 - 1)
    | st.sets(st.integers(0, 63)).map(lambda bits: sum(1 << bit for bit in bits)),
    base=st.integers(0, 2**16 - 64),
    at=st.integers(0, 9),
    dtype=st.sampled_from([np.uint16, np.uint32, np.int64]),
)
@settings(deadline=None)
def test_places_are_the_same_with_and_without_wide_vectors(mask, base, at, dtype):
    places = np.full(at + 64, 7, dtype), np.full(at + 64, 7, dtype)
    n = singly(np.uint64(mask), base, places[0], at)
    assert n == at_once(np.uint64(mask), base, places[1], at) == at + mask.bit_count()
    assert places[0][at:n].tolist() == [base + bit for bit in range(64) if mask >> bit & 1]
    assert places[0][:n].tolist() == places[1][:n].tolist()


def features_of(texts: list[str]) -> list[list[np.ndarray]]:
    """All that is counted in texts, under specs that take each way through the kernel."""
    specs = [FeatureSpec(), FeatureSpec("whitespace", 3, 65_536), FeatureSpec(ngrams=1, buckets=2**20)]
    names = ("offsets", "buckets", "counts", "n_tokens", "content_hash")
    found = [featurize(pa.array(texts), spec, quality=True) for spec in specs]
    return [[*(getattr(each, n) for n in names), *vars(each.word_counts).values()] for each in found]


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps(features_of(pickle.load(sys.stdin.buffer))))


# ruff: noqa: RUF001
@pytest.mark.slow
def test_a_processor_without_wide_vectors_counts_the_same():
    rng = np.random.default_rng(0)
    pieces = [
        *"  \n\t,.'-_09aZéÉßıΣσЖ中字😀\u0301\u200d\u00a0\u2028",
        "the",
        "word",
        "internationalization",
        "naïveté",
    ]
    texts = ["".join(rng.choice(pieces, n)) for n in rng.integers(0, 3_000, 300)]
    for path in sorted(POOL.glob("*-00.jsonl.zst")):  # real text, where there is any
        with pa.input_stream(str(path), compression="zstd") as stream:
            texts += [json.loads(line)["text"] for line in stream.read(1 << 19).split(b"\n")[:-1]]
    generic = os.environ | {"NUMBA_CPU_NAME": "generic"}
    run = subprocess.run(
        [sys.executable, "-m", __name__],
        input=pickle.dumps(texts),
        capture_output=True,
        env=generic,
        check=True,
    )
    for theirs, ours in zip(pickle.loads(run.stdout), features_of(texts), strict=True):
        for a, b in zip(theirs, ours, strict=True):
            np.testing.assert_array_equal(a, b)
