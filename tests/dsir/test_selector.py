"""Selectors for notebooks: what goes in, what comes out, and that it is what the pipeline and the reference pick."""

from __future__ import annotations

import copy
import json
import pickle
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

import dsir
from dsir.explain import Contribution
from dsir.matching import MatchingOptions
from dsir.texts import batches
from dsir_dagster.resources.settings import EstimatorSettings, FeatureSettings, Selection

WORDS = {
    "medicine": "patient dose therapy renal cardiac trial placebo chronic lesion serum the of with in".split(),
    "law": "court statute plaintiff appeal counsel jury verdict clause tort liable the of with in".split(),
    "code": "def return import class self lambda yield ( ) : = the of with in".split(),
}


def texts(domain: str, n: int, seed: int = 0) -> list[str]:
    chance = random.Random(f"{domain} {seed}")
    return [" ".join(chance.choices(WORDS[domain], k=100 + chance.randrange(50))) for _ in range(n)]


RAW = [text for each in zip(*(texts(domain, 40) for domain in WORDS), strict=True) for text in each]
TARGET = texts("medicine", 30, seed=1)


@pytest.fixture(scope="module")
def fitted():
    return dsir.DSIR(buckets=1000).fit(raw=RAW, target=TARGET)


class Again:
    """An iterable that starts over, and counts how often."""

    def __init__(self, texts):
        self.texts, self.passes = texts, 0

    def __iter__(self):
        self.passes += 1
        yield from self.texts


class StreamColumn:
    """A column of another library, of which only the protocol is known."""

    def __init__(self, texts):
        self.column = pa.chunked_array([texts[:7], texts[7:]])

    def __arrow_c_stream__(self, requested_schema=None):
        return self.column.__arrow_c_stream__(requested_schema)


class ArrayColumn:
    """Likewise, of one piece."""

    def __init__(self, texts):
        self.column = pa.array(texts)

    def __arrow_c_array__(self, requested_schema=None):
        return self.column.__arrow_c_array__(requested_schema)


# --- picks -------------------------------------------------------------------------------------------


def test_the_picks_are_of_the_target_and_ranked(fitted):
    picks = fitted.select(20, seed=0)
    assert picks.dtype == np.int64 and len(set(picks.tolist())) == 20
    assert all(i % 3 == 0 for i in picks)  # medicine
    largest = fitted.select(20, top_k=True)
    np.testing.assert_array_equal(largest, np.argsort(-fitted.log_weights_, kind="stable")[:20])
    assert fitted.select(20, seed=1).tolist() != picks.tolist()
    assert fitted.select(20, seed=0, name="other").tolist() != picks.tolist()
    assert fitted.select(10, seed=0).tolist() == picks[:10].tolist()


def test_the_picks_do_not_depend_on_the_order_of_the_pool(fitted):
    order = np.random.default_rng(0).permutation(len(RAW))
    other = dsir.DSIR(buckets=1000).fit([RAW[i] for i in order], TARGET)
    np.testing.assert_array_equal(order[other.select(20)], fitted.select(20))


def test_a_budget_of_tokens(fitted):
    picks = fitted.select(tokens=1500)
    assert 1350 < fitted.n_tokens_[picks].sum() <= 1500
    np.testing.assert_array_equal(picks, fitted.select(len(picks)))


#: Selections by name: their method, whether they have two targets, and options.
SELECTIONS = {
    "drawn": ("resample", False, {}),
    "drawn-for-two": ("resample", True, {"length": "poisson", "temperature": 3.0}),
    "matched-to-two": ("match", True, {"smoothing": 0.5}),
}


def test_the_picks_are_those_of_the_pipeline(pipeline):
    pipeline.write_pool()
    pipeline.write("law.jsonl", [{"text": text} for text in texts("law", 30, seed=5)])
    pipeline.config["features"] = {"buckets": 1000, "ngrams": 3}
    pipeline.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    pipeline.config["selections"] = [
        {
            "name": name,
            "method": method,
            "targets": ["medicine", "law"] if two else ["medicine"],
            **({"shares": [1, 2]} if two else {}),
            "size": {"documents": 30},
            "seed": 3,
            "output": "none",
            **options,
        }
        for name, (method, two, options) in SELECTIONS.items()
    ]
    assert pipeline.errors(until="selections") == []

    raw = [text for domain in sorted(WORDS) for text in read(pipeline, f"pool/{domain}.jsonl")]
    ids = [doc_id for (doc_id,) in pipeline.rows("SELECT doc_id FROM documents ORDER BY shard, row")]
    for name, (method, two, options) in SELECTIONS.items():
        targets = {
            each: read(pipeline, f"{each}.jsonl") for each in (["medicine", "law"] if two else ["medicine"])
        }
        selector = (dsir.DSIR if method == "resample" else dsir.Match)(ngrams=3, buckets=1000, **options)
        shares = {"medicine": 1, "law": 2} if two else None
        picks = selector.fit(raw, targets).select(30, seed=3, name=name, shares=shares)
        rows = pipeline.picks(name)
        assert {ids[i] for i in picks} == {row[2] for row in rows}, name
        if not two:
            assert [ids[i] for i in picks] == [row[2] for row in rows]
        weights = dict(zip(ids, selector.log_weights_.reshape(len(raw), -1).tolist(), strict=True))
        assert all(log_weight in weights[doc_id] for _, _, doc_id, log_weight, _ in rows)


def read(pipeline, name):
    return [json.loads(line)["text"] for line in (pipeline.data / name).read_text().splitlines()]


def test_the_defaults_are_those_of_the_pipeline():
    params = dsir.DSIR().get_params()
    features = FeatureSettings().model_dump()
    assert {name: params[name] for name in features} == features
    fields = Selection.model_fields
    assert params["min_tokens"] == dsir.Match().min_tokens == fields["min_tokens"].default
    assert params["target_smoothing"] == EstimatorSettings().target_smoothing


def test_several_targets_share_the_picks():
    selector = dsir.DSIR(buckets=1000).fit(RAW, {"medicine": TARGET, "law": texts("law", 10, seed=1)})
    picks = selector.select(30, shares={"medicine": 1, "law": 2})
    assert [i % 3 for i in picks] == [0] * 10 + [1] * 20
    assert selector.log_weights_.shape == selector.log_weights(RAW).shape == (len(RAW), 2)
    assert selector.explain("court dose", target="law")[0].ngram == "court"


def test_temperature_and_length_change_the_draw(fitted):
    other = copy.copy(fitted).set_params(temperature={"effective_sample_size": 60})
    assert sum(i % 3 == 0 for i in other.select(40)) < 40
    assert sum(i % 3 == 0 for i in fitted.select(40)) == 40
    assert copy.copy(fitted).set_params(length="per_ngram").select(20).tolist() != fitted.select(20).tolist()


def test_match_comes_closer_to_a_held_out_target():
    target = texts("medicine", 40, seed=1) + texts("law", 40, seed=1)
    holdout = texts("medicine", 20, seed=2) + texts("law", 20, seed=2)
    match = dsir.Match(buckets=1000).fit(RAW, target)
    picks = match.select(20, seed=0)
    assert {i % 3 for i in picks} == {0, 1}
    assert match.matching_.curve
    reduction = dsir.kl_reduction(holdout, [RAW[i] for i in picks], RAW, buckets=1000)
    assert reduction > 0.2 > dsir.kl_reduction(holdout, RAW[2::3], RAW, buckets=1000)
    assert match.select(20, seed=0).tolist() == picks.tolist() != match.select(20, seed=1).tolist()


def test_explanations_add_up(fitted):
    parts = fitted.explain(RAW[0])
    assert isinstance(parts[0], dsir.Contribution) and dsir.Contribution is Contribution
    assert sum(each.nats for each in parts) == pytest.approx(fitted.log_weights_[0])
    assert parts == sorted(parts, key=lambda each: -each.nats)


# --- what goes in --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        np.array,
        lambda x: np.array(x, object),
        pa.array,
        lambda x: pa.array(x, pa.large_string()),
        lambda x: pa.array(x, pa.string_view()),
        lambda x: pa.array(x).dictionary_encode(),
        lambda x: pa.DictionaryArray.from_arrays(
            pa.array(range(len(x))), pa.array(x, pa.string_view())
        ),  # polars
        lambda x: pa.chunked_array([x[:50], [], x[50:]]),
        Again,
        StreamColumn,
        ArrayColumn,
        lambda x: dict.fromkeys(x).keys(),
    ],
)
def test_texts_of_any_kind_are_the_same_texts(fitted, kind):
    other = dsir.DSIR(buckets=1000).fit(kind(RAW), kind(TARGET))
    np.testing.assert_array_equal(other.log_weights_, fitted.log_weights_)
    np.testing.assert_array_equal(other.log_weights(kind(RAW)), fitted.log_weights_)


def test_columns_of_pandas_and_polars(fitted):
    for library in ("pandas", "polars"):
        module = pytest.importorskip(library)
        np.testing.assert_array_equal(fitted.log_weights(module.Series(RAW)), fitted.log_weights_)


@pytest.mark.parametrize("n_bytes", [1, 300, 10**9])
@pytest.mark.parametrize(
    "kind",
    [
        list,
        pa.array,
        lambda x: pa.chunked_array([x[:9], x[9:]]),
        lambda x: pa.array(x, pa.string_view()),
        lambda x: pa.array(["-", *x, "-"]).dictionary_encode()[1:-1],
    ],
)
def test_batches_hold_all_texts_in_order(kind, n_bytes):
    some = ["", *RAW[:20], "", "ü" * 400, ""]
    found = list(batches("raw", kind(some), n_bytes))
    assert [text for batch in found for text in batch.to_pylist()] == some
    assert n_bytes == 10**9 or len(found) > 3


def test_a_long_column_of_another_type_is_cast_in_parts():
    some = [f"text {i % 7}" for i in range(40_000)]
    found = list(batches("raw", pa.array(some).dictionary_encode()))
    assert [text for batch in found for text in batch.to_pylist()] == some
    assert len(found) == 3


def test_a_fitted_selector_can_be_pickled(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.select(20), fitted.select(20))


def test_a_pool_is_read_twice_and_not_held():
    raw = Again(RAW)
    selector = dsir.DSIR(buckets=1000).fit(raw, TARGET)
    assert raw.passes == 2
    selector.select(20)
    assert raw.passes == 2
    held = [value for value in vars(selector).values() if isinstance(value, np.ndarray)]
    per_document = [array for array in held if len(array) == len(RAW)]
    assert sum(array.itemsize for array in per_document) <= 40 and per_document


def test_memory_is_bounded_by_batches():
    alive, most = 0, 0

    class Counted(str):
        def __new__(cls, text):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().__new__(cls, text)

        def __del__(self):
            nonlocal alive
            alive -= 1

    class Pool:
        def __iter__(self):
            return (Counted("some words " * 2000) for _ in range(1000))  # 22 MB

    dsir.DSIR(min_tokens=0).fit(Pool(), ["some words"])
    assert 0 < most < 500


# --- errors --------------------------------------------------------------------------------------------


class Frame:
    columns = ("text", "id")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ((text for text in RAW), r"raw: a generator, which can be read only once.*list\(raw\)"),
        (iter(RAW), "raw: a list_iterator, which can be read only once"),
        ("a text", "raw: a single str; expected texts: a list of str"),
        (5, "raw: int; expected texts"),
        ({"a": "b"}, "raw: dict; expected texts"),
        (["a", None], "raw: row 1 is NoneType; expected str in all rows"),
        (["a", float("nan")], r"raw: row 1 is float \(nan\); expected str"),
        ([["a"]], r"raw: row 0 is list \(\['a'\]\); expected str"),
        (["a", "\ud800"], "raw: row 1 is not valid Unicode: surrogates not allowed at character 0"),
        (np.array([["a"]]), r"raw: <U1\[1, 1\], of 2 dimensions; expected one"),
        (pa.array([1]), "raw: a column of int64; expected a column of strings"),
        (pa.array(["a", None]), "raw: 1 of 2 rows are null, the first is row 1; expected str in all"),
        (
            pa.table({"text": ["a"], "id": [1]}),
            r"raw: a Table of the columns text, id; .*raw=table\['text'\]",
        ),
        (Frame(), r"raw: a Frame of the columns text, id; expected one column: raw=table\['text'\]"),
        (["", " "], "raw: 2 documents without a word; expected text"),
        ([], "raw: empty; expected texts"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_a_pool_that_is_none_is_refused_in_one_line(raw, message):
    with pytest.raises(ValueError, match=message) as error:
        dsir.DSIR().fit(raw=raw, target=["a"])
    assert "\n" not in str(error.value)


def test_targets_that_are_none_are_refused():
    for target, message in (
        ([], "target: empty; expected texts"),
        ({}, r"target: the names \[\]; expected texts, or a mapping of str to texts"),
        ({3: ["a"]}, r"target: the names \[3\]; expected"),
        ({"law": "x"}, r"target\['law'\]: a single str"),
        (iter(["a"]), "target: a list_iterator, which can be read only once"),
    ):
        with pytest.raises(ValueError, match=message):
            dsir.DSIR().fit(raw=RAW, target=target)


def test_a_pool_that_changes_between_the_passes_is_refused():
    class Shrinking:
        n = 100

        def __iter__(self):
            self.n -= 1
            return iter(RAW[: self.n])

    with pytest.raises(ValueError, match=r"raw: 99 documents when first read, and then 98, not all the same"):
        dsir.DSIR().fit(Shrinking(), TARGET)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"ngrams": 0}, "ngrams: 0; expected an integer of at least 1"),
        ({"buckets": "many"}, "buckets: 'many'; expected an integer"),
        ({"hash": "md5"}, "hash: 'md5'; expected 'fast' or 'sha256'"),
        ({"tokenizer": 3}, "tokenizer: 3; expected"),
        ({"min_tokens": -1}, "min_tokens: -1; expected an integer of at least 0"),
        ({"target_smoothing": "1"}, "target_smoothing: '1'; expected a number of at least 0"),
        ({"temperature": 0}, "temperature: 0; expected a number greater than 0"),
        ({"temperature": {"warmth": 1}}, "temperature: {'warmth': 1}; expected"),
        ({"length": "long"}, "length: 'long'; expected one of none, per_ngram"),
    ],
    ids=str,
)
def test_parameters_are_checked_when_given(params, message):
    with pytest.raises(ValueError, match=message):
        dsir.DSIR(**params)
    with pytest.raises(ValueError, match=message):
        dsir.DSIR().set_params(**params)


@pytest.mark.parametrize(
    "params",
    [{"rounds": 0}, {"rounds": 1.5}, {"smoothing": 0}, {"objective": "best"}, {"tolerance": "a"}],
    ids=str,
)
def test_parameters_of_match_are_checked(params):
    [(name, value)] = params.items()
    with pytest.raises(ValueError, match=f"{name}: {value!r}; expected"):
        dsir.Match(**params)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "k: None and tokens: None; expected one of the two"),
        ({"k": 5, "tokens": 5}, "k: 5 and tokens: 5; expected one of the two"),
        (
            {"k": 121},
            "k: 121; expected an integer from 1 to 120, the number of documents in the 120 of 120 documents",
        ),
        ({"k": 0}, "k: 0; expected an integer from 1"),
        ({"k": 2.5}, "k: 2.5; expected an integer from 1"),
        ({"tokens": 3}, "tokens: 3; expected at least the tokens of the best document"),
        ({"k": 3, "seed": -1}, "seed: -1; expected an integer from 0"),
        ({"k": 3, "seed": None}, "seed: None; expected an integer from 0"),
        ({"k": 3, "shares": [1]}, r"shares: \[1\]; expected a number for each of target"),
        ({"k": 3, "noise": np.zeros(4)}, r"noise: float64\[4\]; expected floating\[120\]"),
    ],
    ids=str,
)
def test_arguments_of_select_are_checked(fitted, arguments, message):
    with pytest.raises(ValueError, match=message):
        fitted.select(**arguments)


def test_too_short_documents_are_named():
    selector = dsir.DSIR().fit(["a b c", "d"], ["a b"])
    with pytest.raises(
        ValueError, match="min_tokens: 100; none of the 2 documents has as many tokens: the longest"
    ):
        selector.select(1)
    assert len(selector.set_params(min_tokens=0).select(2)) == 2


def test_a_selector_that_is_not_fitted_says_so():
    for call in (lambda s: s.select(1), lambda s: s.log_weights(["a"]), lambda s: s.explain("a")):
        with pytest.raises(ValueError, match=r"this DSIR is not fitted; call fit"):
            call(dsir.DSIR())


def test_a_fit_that_fails_leaves_the_last_one_as_it_was():
    selector = dsir.Match(buckets=1000).fit(RAW, TARGET)
    picks = selector.select(20)
    with pytest.raises(ValueError, match="raw: 1 documents without a word"):
        selector.fit([""], TARGET)
    with pytest.raises(ValueError, match="raw: row 1 is int"):
        selector.fit(["a", 1], TARGET)
    np.testing.assert_array_equal(selector.select(20), picks)


# --- as scikit-learn's users expect --------------------------------------------------------------------


def test_parameters_are_got_set_cloned_and_shown():
    from sklearn.base import clone

    selector = dsir.DSIR(ngrams=3, min_tokens=0)
    assert repr(selector) == "DSIR(ngrams=3, min_tokens=0)"
    assert selector.get_params()["ngrams"] == 3
    assert repr(clone(selector)) == repr(selector)
    assert selector.set_params(ngrams=1) is selector and selector.ngrams == 1
    with pytest.raises(ValueError, match="n_grams: no parameter of DSIR; it has ngrams, buckets"):
        selector.set_params(n_grams=1)


def test_the_import_is_light_and_says_what_there_is():
    code = (
        "import sys, dsir; assert not {'numba', 'numpy', 'sklearn', 'scipy'} & set(sys.modules); "
        "assert set(dsir.__all__) <= set(dir(dsir)); dsir.DSIR"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_compilation_is_announced_once(capsys, monkeypatch):
    from dsir import compilation

    monkeypatch.setattr(compilation, "warm_up", lambda spec, announce: announce("compiling"))
    compilation.ready.cache_clear()
    for buckets in (10, 11, 10):
        compilation.ready(dsir.FeatureSpec(buckets=buckets))
    assert capsys.readouterr().err == "dsir: compiling\n"
    compilation.ready.cache_clear()


def test_matching_defaults_are_those_of_the_method():
    options = MatchingOptions()
    for name, value in dsir.Match().get_params().items():
        assert getattr(options, name, value) == value
