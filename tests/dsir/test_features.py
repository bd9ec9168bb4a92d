"""The featurizer's contract: types, slices, Arrow, errors, custom tokenizers, memory between batches."""

import hashlib
import random
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
from dsir.featurizer.packed import PackedFeatures
from dsir.featurizer.unicode_tables import NOT_ONE_TO_ONE, code_point_table
from dsir.importance import log_weights

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
def stored(buckets: list[list[int]], counts: list[list[int]], dtype: type = np.uint16) -> Features:
    """Features of documents of these buckets and counts."""
    offsets = np.cumsum([0, *map(len, buckets)])
    n_tokens, hashes = np.arange(len(buckets)), np.arange(len(buckets), dtype=np.uint64)
    flat = [np.array([value for document in each for value in document], int) for each in (buckets, counts)]
    return Features(offsets, flat[0].astype(dtype), flat[1].astype(np.uint32), n_tokens, hashes)


def survives(features: Features) -> bool:
    """Whether features are the same after storing: all, slices, and documents that end with their buffer."""
    batch = features.to_arrow()
    for i in range(len(features)):
        alone = Features.from_arrow(
            pa.record_batch([column.slice(i, 1).take([0]) for column in batch], batch.schema)
        )
        buckets, counts = (
            each[features.offsets[i] : features.offsets[i + 1]]
            for each in (features.buckets, features.counts)
        )
        order = np.argsort(counts > 1, kind="stable")
        large = (counts > 255).any()
        if not (
            np.array_equal(alone.buckets, buckets[order])
            and np.array_equal(alone.counts, counts[order])
            and alone.counts.dtype == (np.uint32 if large else np.uint8)
            and same(Features.from_arrow(batch.slice(i, 1)), alone)
        ):
            return False
    return same(Features.from_arrow(batch), features)


def test_slices_of_stored_features_are_respected():
    features = featurize(pa.array(TEXTS), FeatureSpec())
    batch = features.to_arrow()
    again = Features.from_arrow(batch)
    assert same(again, features)
    assert again.counts.dtype == np.uint8
    part = Features.from_arrow(batch.slice(1, 3))
    assert len(part) == 3 and part.offsets[0] == 0 and part.offsets[-1] == len(part.buckets)
    assert np.array_equal(part.n_ngrams, features.n_ngrams[1:4])
    for i in range(3):
        assert np.array_equal(part.dense(i, 10_000), features.dense(i + 1, 10_000))
    assert same(Features.from_arrow(part.to_arrow()), part)


def test_what_occurs_once_stands_first():
    features = stored([[2, 5, 7, 9], [1, 3, 4, 8]], [[3, 1, 256, 1], [1, 2, 70_000, 1]])
    again = Features.from_arrow(features.to_arrow())
    assert again.buckets.tolist() == [5, 9, 2, 7, 1, 8, 3, 4]
    assert again.counts.tolist() == [1, 1, 3, 256, 1, 1, 2, 70_000]


documents = st.lists(
    st.dictionaries(
        st.integers(0, 2**24 - 1) | st.integers(0, 600) | st.integers(65_000, 66_000),
        st.integers(1, 20) | st.integers(1, 2**32 - 1) | st.sampled_from([254, 255, 256]),
        max_size=60,
    ),
    max_size=5,
)


@given(documents, st.sampled_from([np.uint16, np.uint32]))
def test_any_buckets_and_counts_survive_storing(found, dtype):
    modulus = 2**16 if dtype == np.uint16 else 2**24
    each = [
        sorted({bucket % modulus: count for bucket, count in document.items()}.items()) for document in found
    ]
    assert survives(
        stored([[b for b, _ in one] for one in each], [[c for _, c in one] for one in each], dtype)
    )


@pytest.mark.parametrize("n", [14, 15, 16, 30, 31, 45, 255, 256])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_runs_of_any_length_survive_storing(n, dtype):
    one = 256 if dtype == np.uint16 else 65_536
    for begin in (0, one - 1, one - 15, 3 * one - n):
        buckets = [list(range(begin, begin + n)), list(range(begin + one, begin + one + n))]
        for count in (1, 2):
            assert survives(
                stored(
                    [buckets[0], buckets[0] + buckets[1], buckets[1]],
                    [[count] * n, [count] * 2 * n, [count] * n],
                    dtype,
                )
            )


@pytest.mark.parametrize("n_buckets", [1, 300, 10_000, 65_536, 2**20, 2**24])
def test_stored_buckets_take_no_more_than_in_memory(n_buckets):
    spec, chance = FeatureSpec(buckets=n_buckets), np.random.default_rng(0)
    for n in (0, 1, 2, 10, 100, 1_000, 10_000):
        buckets = sorted(set(chance.integers(0, n_buckets, n).tolist()))
        batch = stored([buckets], [[1] * len(buckets)], spec.bucket_dtype.type).to_arrow()
        assert len(batch.column(0)[0].as_py()) <= spec.bucket_dtype.itemsize * len(buckets) + 5


def test_features_that_cannot_be_stored_are_refused():
    for buckets, counts in (([[2, 1]], [[1, 1]]), ([[3, 3]], [[2, 2]]), ([[1, 2]], [[1, 0]])):
        with pytest.raises(ValueError, match="features"):
            stored(buckets, counts).to_arrow()


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
        ("features_uint16", pa.array([b""] * n, pa.binary())),
        ("features_uint16", batch.column("content_hash")),
        ("features_uint16", pa.array([None] * n, pa.large_binary())),
        ("features_uint16", pa.array([b""] * n, pa.large_binary())),
        ("content_hash", pa.array([None] * n, pa.uint64())),
        ("content_hash", pa.array([1] * n, pa.int64())),
    ]:
        with pytest.raises(ValueError, match="features" if name == "features_uint16" else name):
            Features.from_arrow(pa.record_batch({**columns, name: column}))
    with pytest.raises(ValueError, match="content_hash"):
        Features.from_arrow(batch.drop_columns(["content_hash"]))


def test_features_of_an_older_version_are_refused():
    old = pa.schema({"buckets": pa.large_list(pa.uint16()), "content_hash": pa.uint64()})
    with pytest.raises(ValueError, match=r"features have the columns buckets .*expected features_uint16"):
        Features.from_arrow(pa.RecordBatch.from_pylist([], old))


def test_damaged_bytes_are_refused_or_read_within_bounds():
    """Whatever the bytes, no bucket is beyond the type, no table is read beyond its end, and lengths fit together."""
    texts = [*TEXTS, "often " * 1_000, " ".join(map(str, range(3_000)))]
    chance = random.Random(0)
    for buckets in (10_000, 2**20):
        batch = featurize(pa.array(texts), FeatureSpec(buckets=buckets)).to_arrow()
        ratios = np.zeros((1, buckets))
        good = batch.column(0).to_pylist()
        for _ in range(300):
            damaged = bytearray(chance.choice(good) or b"x")
            for _ in range(chance.randrange(1, 4)):
                kind, at = chance.randrange(3), chance.randrange(len(damaged))
                if kind == 0:
                    damaged[at] = chance.randrange(256)
                elif kind == 1:
                    del damaged[at:]
                    damaged = damaged or bytearray(b"x")
                else:
                    damaged[at:at] = chance.randbytes(chance.randrange(1, 12))
            column = pa.array([*good, bytes(damaged)], pa.large_binary())
            hashes = pa.array([0] * (len(good) + 1), pa.uint64())
            bad = pa.record_batch([column, hashes], batch.schema)
            read = []
            for function in (Features.from_arrow, lambda each, ratios=ratios: log_weights(each, ratios)):
                try:
                    read.append(function(bad))
                except ValueError as error:
                    assert str(error).startswith(("features: a document", "ratios: "))
            if read and isinstance(read[0], Features):
                found = read[0]
                assert found.offsets[-1] == len(found.buckets) == len(found.counts)
                assert (np.diff(found.offsets) >= 0).all() and (found.counts > 0).all()


@pytest.mark.parametrize(
    ("starts", "ends"), [([0, 5], [5, 99]), ([0, 9], [5, 2]), ([-9, 0], [5, 5]), ([2**62, 0], [2**62 + 1, 5])]
)
def test_bounds_beyond_the_bytes_are_refused(starts, ends):
    packed = PackedFeatures.from_arrow(featurize(pa.array(["a b", "c"]), FeatureSpec()).to_arrow())
    wrong = PackedFeatures(packed.data, np.array(starts), np.array(ends), packed.content_hash, packed.dtype)
    with pytest.raises(ValueError, match="features: a document's bytes end"):
        wrong.unpack()


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
