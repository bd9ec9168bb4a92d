"""The featurizer against the reference, `data_selection.hashed_ngram_dsir.get_ngram_counts` with NLTK 3.8.1."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import json as pa_json

from dsir.features import Features, FeatureSpec, featurize
from tests.dsir.test_hashing import python_extend, python_hash_word

POOL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pool"
hashed_ngram_dsir = pytest.importorskip("data_selection.hashed_ngram_dsir")


def reference(text: str, spec: FeatureSpec) -> np.ndarray:
    tokenize = str.split if spec.tokenizer == "whitespace" else hashed_ngram_dsir.wpt.tokenize
    return hashed_ngram_dsir.get_ngram_counts(text, spec.ngrams, spec.buckets, tokenizer=tokenize)


def python_words(text: str, tokenizer: str) -> list[str]:
    text = text.lower()
    return text.split() if tokenizer == "whitespace" else re.findall(r"\w+|[^\w\s]+", text)


def sparse(features: Features, i: int) -> dict[int, int]:
    entries = slice(features.offsets[i], features.offsets[i + 1])
    buckets = features.buckets[entries].tolist()
    assert buckets == sorted(set(buckets))
    return dict(zip(buckets, features.counts[entries].tolist(), strict=True))


def python_counts(text: str, spec: FeatureSpec) -> dict[int, int]:
    """Counts by bucket, of either hash, in plain Python."""
    words = python_words(text, spec.tokenizer)
    counts: dict[int, int] = {}
    for order in range(1, spec.ngrams + 1):
        for i in range(len(words) - order + 1):
            gram = [w.encode() for w in words[i : i + order]]
            if spec.hash == "sha256":
                bucket = int(hashlib.sha256(b" ".join(gram)).hexdigest(), 16) % spec.buckets
            else:
                h = python_hash_word(gram[0])
                for word in gram[1:]:
                    h = python_extend(h, python_hash_word(word))
                bucket = ((h >> 32) * spec.buckets) >> 32
            counts[bucket] = counts.get(bucket, 0) + 1
    return counts


def test_reference_buckets():
    features = featurize(pa.array(["Alice went"]), FeatureSpec(hash="sha256"))
    assert {6720, 114} <= set(features.buckets.tolist())


@pytest.mark.skipif(not POOL.is_dir(), reason=f"the text pool is absent: {POOL}")
@pytest.mark.slow
def test_counts_of_the_pool():
    spec = FeatureSpec(hash="sha256")
    n = 0
    for path in sorted(POOL.glob("*.jsonl.zst")):
        block = pa_json.ReadOptions(block_size=4 << 20)
        with pa.input_stream(str(path), compression="zstd") as stream:
            texts = pa_json.open_json(stream, read_options=block).read_next_batch().column("text")
        texts = texts.slice(0, 800)
        features = featurize(texts, spec)
        chosen, room = [], 300_000  # characters of each file: the reference is slow
        for i in range(0, len(texts), 3):
            text = texts[i].as_py()
            if len(text) <= 20_000 and room > 0:
                chosen.append((i, text))
                room -= len(text)
        for i, text in chosen:
            assert np.array_equal(features.dense(i, spec.buckets), reference(text, spec)), (path.name, i)
        n += len(chosen)
    assert n >= 5_000


# ------------------------------------------------------------------------------------ all of Unicode
# ruff: noqa: RUF001
HARD = [
    *"İıIiΣσςΑΆẞßŉǰȺȾKÅ",
    *"\u0300\u0307\u0345\u0903\u20dd\ufe0f",  # combining
    *"中文字かな한국어𠀀",
    "😀", "👩\u200d👩\u200d👧", "🇩🇪",
    *"²³¹½Ⅷⅷ①ⓐ٣०",  # digits and numbers of several kinds
    *"\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e",  # zero width
    *"\0\x01\x07\x1b\x7f\x80\x9f",
    *"\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000",
    *"_-'\"“”’.…·/\\!?",
    *"𝐀𝒜𐐀𐐨Ꭰꭰ\U0010ffff\ue000\uffff",
    "AΣ", "ΑΣ ", "ΑΣ.", "Σ", "ΣΣ", "A\u0307Σ\u0301B", "İSTANBUL",
    "a" * 30, "Word", "the", "THE",
]  # fmt: skip
characters = st.one_of(
    st.sampled_from(HARD),
    st.characters(exclude_categories=["Cs"]),
    st.characters(max_codepoint=127),
    st.integers(0, 16).flatmap(
        lambda plane: st.characters(
            min_codepoint=plane << 16, max_codepoint=(plane << 16) + 0xFFFF, exclude_categories=["Cs"]
        )
    ),
)
texts_strategy = st.lists(
    st.one_of(st.lists(characters, max_size=60).map("".join), st.sampled_from(["", " ", "\n\t \u3000"])),
    min_size=1,
    max_size=6,
)
specs = st.builds(
    FeatureSpec,
    tokenizer=st.sampled_from(["wordpunct", "whitespace"]),
    ngrams=st.integers(1, 4),
    buckets=st.sampled_from(
        [1, 2, 3, 255, 9_999, 10_000, 65_535, 65_536, 65_537, 1_000_003, 2**24 - 3, 2**24]
    ),
    hash=st.sampled_from(["fast", "sha256"]),
)


@settings(max_examples=500, deadline=None)
@given(texts_strategy, specs)
def test_any_text_equals_plain_python(texts, spec):
    features = featurize(pa.array(texts), spec)
    for i, text in enumerate(texts):
        assert sparse(features, i) == python_counts(text, spec), (i, text)
        assert features.n_tokens[i] == len(python_words(text, spec.tokenizer))


@settings(max_examples=200, deadline=None)
@given(texts_strategy, st.integers(1, 4), st.sampled_from([1, 7, 9_999, 10_000, 65_537]))
def test_any_text_equals_the_reference(texts, ngrams, buckets):
    spec = FeatureSpec(hash="sha256", ngrams=ngrams, buckets=buckets)
    features = featurize(pa.array(texts), spec)
    for i, text in enumerate(texts):
        assert np.array_equal(features.dense(i, buckets), reference(text, spec)), (i, text)


@pytest.mark.parametrize("tokenizer", ["wordpunct", pytest.param("whitespace", marks=pytest.mark.slow)])
def test_every_code_point(tokenizer):
    """Class and lowercase of every code point, alone and between letters, one chunk of them a document."""
    spec = FeatureSpec(tokenizer=tokenizer, hash="fast", ngrams=1, buckets=2**24)
    code_points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    documents = [
        "".join(f"x{chr(c)}y {chr(c)} Z\n" for c in code_points[i : i + 4096])
        for i in range(0, len(code_points), 4096)
    ]
    features = featurize(pa.array(documents), spec)
    for i, document in enumerate(documents):
        words = python_words(document, tokenizer)
        assert features.n_tokens[i] == len(words)
        hashes = [python_hash_word(word.encode()) >> 32 for word in words]
        buckets = (np.array(hashes, np.uint64) << np.uint64(24)) >> np.uint64(32)
        expected = dict(zip(*(x.tolist() for x in np.unique(buckets, return_counts=True)), strict=True))
        assert sparse(features, i) == expected, f"U+{code_points[i * 4096]:04X} and following"
