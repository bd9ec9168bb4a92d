"""The featurizer's contract: types, slices, Arrow, errors, custom tokenizers, memory between batches."""

import hashlib
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from dsir.features import KERNEL_VERSION, Features, FeatureSpec, featurize, scratch
from dsir.featurizer import memo, words
from dsir.featurizer.unicode_tables import NOT_ONE_TO_ONE, code_point_table

TEXTS = [
    "",
    "The cat sat on the mat. The cat sat!",
    " \t\n",
    "Ἀρχὴ ΣΟΦΙΑΣ φόβος Κυρίου, İstanbul'da; naïve café — “quoted” text…",
    "中文 mixed with ASCII and 😀👩‍👩‍👧 " * 30,
    "x" * 200 + " " + "y" * 55 + " " + "z" * 56 + " " + "w" * 64,
]
HASHES = ["fast", "sha256"]


def wordpunct(text: str) -> list[str]:
    import re

    return re.findall(r"\w+|[^\w\s]+", text)


def odd_words(text: str) -> list[str]:
    """Words that hold spaces, are empty, repeated or long."""
    return ["a b", "", "a", "b", "", "", " ", "É", "long " * 40, *text.split(" ")]


def not_a_list(text: str):
    return (word for word in text.split())


def same(a: Features, b: Features) -> bool:
    """Whether all values are equal, and of one type but for counts, which from Arrow may take a byte; in any order."""
    names = ("offsets", "buckets", "n_tokens", "content_hash")
    orders = [np.lexsort((x.buckets, np.repeat(np.arange(len(x)), np.diff(x.offsets)))) for x in (a, b)]
    entries = [[x.buckets[order], x.counts[order]] for x, order in zip((a, b), orders, strict=True)]
    return (
        all(getattr(a, n).dtype == getattr(b, n).dtype for n in names)
        and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("offsets", "n_tokens", "content_hash"))
        and all(np.array_equal(*each) for each in zip(*entries, strict=True))
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokenizer", "word_tokenize"),
        ("tokenizer", ":f"),
        ("tokenizer", None),
        ("ngrams", 0),
        ("ngrams", 2.0),
        ("ngrams", True),
        ("buckets", 0),
        ("buckets", 2**24 + 1),
        ("buckets", "10000"),
        ("hash", "md5"),
        ("hash", None),
    ],
)
def test_a_bad_spec_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: .*expected") as error:
        FeatureSpec(**{field: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("hash", HASHES)
@pytest.mark.parametrize(
    ("buckets", "dtype"), [(10_000, np.uint16), (65_536, np.uint16), (65_537, np.uint32)]
)
def test_shapes_dtypes_and_sums(hash, buckets, dtype):
    spec = FeatureSpec(hash=hash, buckets=buckets)
    features = featurize(pa.array(TEXTS), spec)
    assert len(features) == len(TEXTS)
    assert (features.buckets.dtype, features.counts.dtype) == (dtype, np.uint32)
    assert (features.offsets.dtype, features.n_tokens.dtype) == (np.int64, np.int64)
    assert features.content_hash.tolist() == [xxhash.xxh64_intdigest(t.encode()) for t in TEXTS]
    assert features.n_tokens.tolist() == [len(wordpunct(t.lower())) for t in TEXTS]
    expected = np.maximum(features.n_tokens, 0) + np.maximum(features.n_tokens - 1, 0)
    assert np.array_equal(features.n_ngrams, expected)
    assert np.array_equal(spec.n_ngrams(features.n_tokens), expected)
    dense = [features.dense(i, buckets) for i in range(len(features))]
    assert [d.sum() for d in dense] == expected.tolist()
    assert np.array_equal(features.totals(buckets), np.sum(dense, axis=0))
    assert np.array_equal(features.dense(-1, buckets), dense[-1])


def test_too_few_buckets_for_the_features():
    features = featurize(pa.array(TEXTS), FeatureSpec())
    for call in (
        lambda: features.totals(10),
        lambda: features.dense(1, 10),
        lambda: features.dense(6, 10_000),
    ):
        with pytest.raises(IndexError):
            call()


@pytest.mark.parametrize("hash", HASHES)
def test_slices_and_large_strings_give_the_same(hash):
    spec = FeatureSpec(hash=hash)
    whole = featurize(pa.array(TEXTS), spec)
    assert same(featurize(pa.array(TEXTS, pa.large_string()), spec), whole)
    assert same(featurize(pa.array(["before", *TEXTS, "after"]).slice(1, len(TEXTS)), spec), whole)
    for i, text in enumerate(TEXTS):
        one = featurize(pa.array(TEXTS).slice(i, 1), spec)
        assert np.array_equal(one.dense(0, spec.buckets), whole.dense(i, spec.buckets))
        # A buffer with nothing after the text: no byte beyond it may be read.
        exact = pa.StringArray.from_buffers(
            1, pa.py_buffer(np.array([0, len(text.encode())], np.int32)), pa.py_buffer(text.encode())
        )
        assert same(featurize(exact, spec), one)


@pytest.mark.parametrize("type", [pa.string(), pa.large_string()])
def test_no_documents(type):
    features = featurize(pa.array([], type), FeatureSpec())
    assert len(features) == 0 and features.offsets.tolist() == [0]
    assert len(Features.from_arrow(features.to_arrow())) == 0
    assert features.totals(5).tolist() == [0] * 5


def test_bad_texts_are_refused():
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"a\xe4"))
    for texts in (
        pa.array(["a", None]),
        pa.array([b"a"]),
        pa.array([1]),
        pa.chunked_array([["a"]]),
        ["a"],
        broken,
    ):
        with pytest.raises(ValueError):
            featurize(texts, FeatureSpec())


# ---------------------------------------------------------------------------------------------- Arrow
def test_arrow_is_not_copied_and_slices_are_respected():
    features = featurize(pa.array(TEXTS), FeatureSpec())
    batch = features.to_arrow()
    again = Features.from_arrow(batch)
    assert same(again, features)
    assert np.shares_memory(again.buckets, batch.column("buckets").values.to_numpy())
    assert again.counts.dtype == np.uint8
    part = Features.from_arrow(batch.slice(1, 3))
    assert len(part) == 3 and part.offsets[0] == 0 and part.offsets[-1] == len(part.buckets)
    assert np.array_equal(part.n_ngrams, features.n_ngrams[1:4])
    assert np.shares_memory(part.buckets, again.buckets)
    for i in range(3):
        assert np.array_equal(part.dense(i, 10_000), features.dense(i + 1, 10_000))
    assert same(Features.from_arrow(part.to_arrow()), part)


def test_what_occurs_once_stands_first_and_has_no_count():
    counts = np.array([3, 1, 256, 1, 1, 2, 70_000, 1], np.uint32)
    buckets = np.array([2, 5, 7, 9, 1, 3, 4, 8], np.uint16)
    nothing = np.zeros(2, np.int64)
    features = Features(np.array([0, 4, 8]), buckets, counts, nothing, nothing.astype(np.uint64))
    columns = features.to_arrow().to_pydict()
    assert columns["buckets"] == [[5, 9, 2, 7], [1, 8, 3, 4]]
    assert columns["repeats"] == [[3, 0], [2, 0]]
    assert columns["large"] == [[{"at": 1, "count": 256}], [{"at": 1, "count": 70_000}]]


@given(st.lists(st.lists(st.integers(1, 2**32 - 1) | st.sampled_from([254, 255, 256, 511, 512]), max_size=5)))
def test_counts_of_any_size_survive_arrow(documents):
    offsets = np.cumsum([0, *map(len, documents)])
    counts = np.array([count for document in documents for count in document], np.uint32)
    buckets = np.arange(len(counts)).astype(np.uint16)
    nothing = np.zeros(len(documents), np.int64)
    features = Features(offsets, buckets, counts, nothing, nothing.astype(np.uint64))
    batch = features.to_arrow()
    assert same(Features.from_arrow(batch), features)
    for i, document in enumerate(documents):
        alone = Features.from_arrow(batch.slice(i, 1))
        assert sorted(alone.counts) == sorted(document)
        assert alone.counts.dtype == (np.uint8 if max(document, default=0) < 256 else np.uint32)


def test_arrow_ipc_round_trip():
    batch = featurize(pa.array([*TEXTS, "often " * 1_000]), FeatureSpec()).to_arrow()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch.slice(2, 2))
    reader = pa.ipc.open_file(sink.getvalue())
    assert same(Features.from_arrow(reader.get_batch(0)), Features.from_arrow(batch))
    assert same(Features.from_arrow(reader.get_batch(1)), Features.from_arrow(batch.slice(2, 2)))


def test_bad_record_batches_are_refused():
    batch = featurize(pa.array(TEXTS), FeatureSpec()).to_arrow()
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    n = len(TEXTS)
    for name, column in [
        ("buckets", pa.array([[]] * n, pa.large_list(pa.int16()))),
        ("buckets", batch.column("n_tokens")),
        ("buckets", pa.array([None] * n, columns["buckets"].type)),
        ("repeats", pa.array([[]] * n, pa.large_list(pa.uint32()))),
        ("repeats", pa.array([[2] * 99] * n, columns["repeats"].type)),  # more than there are buckets
        ("large", pa.array([[]] * n, pa.large_list(pa.struct({"at": pa.uint32()})))),
        ("n_tokens", pa.array([None] * n, pa.int64())),
        ("content_hash", pa.array([1] * n, pa.int64())),
    ]:
        with pytest.raises(ValueError, match=name):
            Features.from_arrow(pa.record_batch({**columns, name: column}))
    with pytest.raises(ValueError, match="repeats"):
        Features.from_arrow(batch.drop_columns(["repeats"]))


def test_large_counts_are_of_their_own_documents_zeros():
    batch = featurize(pa.array(["often " * 1_000, "once", "once"]), FeatureSpec()).to_arrow()
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    large = columns["large"]
    assert large.to_pylist() == [[{"at": 0, "count": 999}, {"at": 1, "count": 1_000}], [], []]
    for places in (
        [[], [0, 1], []],  # of another document
        [[0, 2], [], []],  # of the next one
        [[1, 0], [], []],
        [[1, 1], [], []],
        [[0, 2**32 - 1], [], []],
    ):
        counts = [[{"at": at, "count": 300} for at in each] for each in places]
        columns["large"] = pa.array(counts, large.type)
        with pytest.raises(ValueError, match="large"):
            Features.from_arrow(pa.record_batch(columns))


# ------------------------------------------------------------------------------------ custom tokenizers
@pytest.mark.parametrize("hash", HASHES)
@pytest.mark.parametrize(("ngrams", "buckets"), [(1, 100), (2, 10_000), (4, 2**20)])
def test_a_custom_tokenizer_gives_the_same_as_the_compiled_one(hash, ngrams, buckets):
    texts = pa.array([*TEXTS, "many words " * 5_000])
    compiled = featurize(texts, FeatureSpec("wordpunct", ngrams, buckets, hash))
    custom = featurize(texts, FeatureSpec(f"{__name__}:wordpunct", ngrams, buckets, hash))
    assert same(custom, compiled)


def test_words_of_a_custom_tokenizer_may_be_anything():
    spec = FeatureSpec(f"{__name__}:odd_words", 3, 9_973, "sha256")
    features = featurize(pa.array(TEXTS), spec)
    for i, text in enumerate(TEXTS):
        found = odd_words(text.lower())
        expected = np.zeros(spec.buckets, np.int64)
        for order in range(1, 4):
            for j in range(len(found) - order + 1):
                gram = " ".join(found[j : j + order]).encode()
                expected[int(hashlib.sha256(gram).hexdigest(), 16) % spec.buckets] += 1
        assert np.array_equal(features.dense(i, spec.buckets), expected)


@pytest.mark.parametrize("name", [f"{__name__}:absent", "no.such.module:f", f"{__name__}:not_a_list"])
def test_bad_custom_tokenizers_are_refused(name):
    with pytest.raises(ValueError, match="tokenizer"):
        featurize(pa.array(["a"]), FeatureSpec(name))


# ------------------------------------------------------------------------------- lengths and boundaries
def sha256_counts(text: str, spec: FeatureSpec) -> np.ndarray:
    found = wordpunct(text.lower())
    expected = np.zeros(spec.buckets, np.int64)
    for order in range(1, spec.ngrams + 1):
        for j in range(len(found) - order + 1):
            gram = " ".join(found[j : j + order]).encode()
            expected[int(hashlib.sha256(gram).hexdigest(), 16) % spec.buckets] += 1
    return expected


@pytest.mark.parametrize("ngrams", [1, 2, 3])
def test_words_of_every_length(ngrams):
    """Around the limits of the memo (23 bytes), of one block (55 bytes), and of further blocks."""
    spec = FeatureSpec(ngrams=ngrams, buckets=65_521, hash="sha256")
    texts = [
        " ".join([chr(97 + n % 26) * n, "q" * (n % 7 + 1), "é" * (n // 2 + 1)] * 2) for n in range(1, 200)
    ]
    features = featurize(pa.array(texts), spec)
    for i, text in enumerate(texts):
        assert np.array_equal(features.dense(i, spec.buckets), sha256_counts(text, spec)), i


def test_one_huge_word():
    text = "Ab1_" * 5_000_000
    spec = FeatureSpec(hash="sha256")
    features = featurize(pa.array([text, f"a {text} b"]), spec)
    lowered = text.lower()
    for i, grams in enumerate([[lowered], ["a", lowered, "b", f"a {lowered}", f"{lowered} b"]]):
        expected = sorted(int(hashlib.sha256(g.encode()).hexdigest(), 16) % spec.buckets for g in grams)
        entries = slice(features.offsets[i], features.offsets[i + 1])
        assert np.repeat(features.buckets[entries], features.counts[entries]).tolist() == expected


@pytest.mark.parametrize(
    ("hash", "ngrams"), [*((h, n) for h in HASHES for n in (1, 2, 4, 9)), ("fast", 3_000)]
)
def test_documents_of_many_words(hash, ngrams):
    """More words than are found at once; and n-grams of more words than that, or than there are."""
    text = " ".join(f"w{i % 977}" for i in range(5_000))
    features = featurize(
        pa.array([text, "one two three"]), FeatureSpec(ngrams=ngrams, buckets=10_007, hash=hash)
    )
    assert features.n_tokens.tolist() == [5_000, 3]
    assert features.n_ngrams.tolist() == [
        sum(5_000 - k for k in range(ngrams)),
        3 if ngrams == 1 else 5 + (ngrams > 2),
    ]
    if hash == "sha256":
        spec = FeatureSpec(ngrams=ngrams, buckets=10_007, hash=hash)
        assert np.array_equal(features.dense(0, 10_007), sha256_counts(text, spec))


def test_words_across_every_block_boundary():
    for gap in range(130):
        text = " " * gap + "Alpha,beta" + "é" * (gap % 3) + " gamma"
        features = featurize(pa.array([text]), FeatureSpec(ngrams=1))
        assert features.n_tokens[0] == len(wordpunct(text.lower()))


def test_lowercase_that_grows_fits():
    lower = (code_point_table("wordpunct") & 0x1FFFFF).tolist()
    changed = [c for c, to in enumerate(lower) if to != c and not 0xD800 <= c < 0xE000]
    assert not set(NOT_ONE_TO_ONE) & set(changed)
    growth = [len(chr(lower[c]).encode()) / len(chr(c).encode()) for c in changed]
    assert max(growth) <= words.MAX_GROWTH
    text = "Ⱥ" * 10_000
    assert np.array_equal(
        featurize(pa.array([text]), FeatureSpec(hash="sha256")).dense(0, 10_000),
        sha256_counts(text, FeatureSpec(hash="sha256")),
    )


# --------------------------------------------------------------------------------- state between batches
def test_the_memo_does_not_change_results():
    spec = FeatureSpec(hash="sha256", ngrams=3)
    texts = pa.array([*TEXTS, " ".join(f"{i}" for i in range(3_000))])
    scratch.clear()
    cold = featurize(texts, spec)
    assert same(featurize(texts, spec), cold)
    featurize(texts, FeatureSpec(hash="sha256", buckets=77))
    assert same(featurize(texts, spec), cold)


def test_the_memo_starts_again_when_serial_numbers_run_out():
    spec = FeatureSpec(hash="sha256", ngrams=3)
    texts = pa.array([" ".join(f"v{i % 1_500}" for i in range(10_000)), *TEXTS])
    scratch.clear()
    expected = featurize(texts, spec)
    cursor = scratch.memo.cursor
    for left in (20_000, 7_000, 100, 5, 1, 0):
        cursor[0] = memo.LAST_SERIAL - left
        assert same(featurize(texts, spec), expected)
    assert cursor[0] < 100_000  # it did start again


def test_threads_do_not_disturb_each_other():
    rng = np.random.default_rng(3)
    batches = [
        pa.array([" ".join(f"w{i}" for i in rng.zipf(1.3, 300) % 10**6) for _ in range(40)])
        for _ in range(16)
    ]
    for hash in HASHES:
        spec = FeatureSpec(hash=hash)
        expected = [featurize(batch, spec) for batch in batches]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(featurize, batches, [spec] * len(batches)))
        assert all(same(a, b) for a, b in zip(found, expected, strict=True))


# --------------------------------------------------------------------------------------- version
def test_kernel_version_names_the_unicode_version():
    assert unicodedata.unidata_version in KERNEL_VERSION
