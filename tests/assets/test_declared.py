"""A method is declared once: what configurations of each are called stays, and a new one needs no other change.

What belongs here: the declaration of methods. What does not: what each method picks (``test_methods.py``).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pydantic
import pytest

from dsir.matching import MatchingOptions
from dsir.mixture import MixtureOptions
from dsir.noise import gumbel_noise
from dsir_dagster.assets.methods import METHODS
from dsir_dagster.assets.methods.ranking import Ranking
from dsir_dagster.resources.catalog import Catalog
from dsir_dagster.resources.settings import ConfigError, KeyRule, Method, MethodOptions, Selection
from dsir_dagster.resources.settings.types import meanings
from tests.pipeline import sentences

SELECTION = {"name": "picked", "targets": ["medicine"], "size": {"documents": 20}}


def selection(method: str, **options: object) -> Selection:
    return Selection.model_validate({**SELECTION, "method": method, **options})


@pytest.mark.parametrize(
    ("digest", "method", "options"),
    [
        (
            "052a4b2c57e52ddb",
            "resample",
            {
                "temperature": {"effective_sample_size": 20},
                "length": "sqrt",
                "epochs": 2,
                "overlap": "best",
                "source_caps": 0.5,
            },
        ),
        ("7a4f12a9c0bc5cd4", "resample", {"temperature": 2, "quality": True, "near_duplicates": 0.8}),
        (
            "3793e2a9a6d9fa70",
            "resample",
            {"temperature": None, "epochs": 1, "length": None, "overlap": "first", "objective": "mean"},
        ),
        ("0e8f4ec217e4e5f6", "top_k", {"length": "none", "source_caps": {"law": 0.5}}),
        ("42de65b91b0fbd84", "random", {"epochs": 3}),
        ("a3cb120eb60005f4", "classifier", {"epochs": 3, "overlap": "best"}),
        ("7b56415ce994708c", "classifier_top_k", {"collapse_duplicates": True}),
        ("c74adfa3bd8b3816", "match", {"objective": "worst"}),
        ("c74adfa3bd8b3816", "match", {"objective": "worst", "smoothing": 0.2}),
        ("9d3ba6248061ac18", "cynical", {"smoothing": 0.5}),
        ("451cb76b0a13295b", "moore_lewis", {"overlap": "best"}),
        ("52397cf03bff7f58", "mixture", {"sources": 3, "epochs": 2, "smoothing": 1}),
    ],
)
def test_what_a_selection_is_fingerprinted_by_stays(digest, method, options):
    """Digests of homes that people have: another one makes their selections stale."""
    chosen = selection(method, **options)
    dump = json.dumps(chosen.model_dump(exclude={"name"}), sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(dump.encode()).hexdigest()[:16] == digest
    assert Selection.model_validate(chosen.model_dump()) == chosen
    assert Selection.model_validate_json(chosen.model_dump_json()) == chosen


def test_every_option_is_described_and_has_a_default():
    for method in METHODS.values():
        for name, field in method.options.model_fields.items():
            assert meanings(method.options)[name] and not field.is_required(), f"{method.name}: {name}"
    assert selection("match").options.smoothing == MatchingOptions().smoothing
    assert selection("mixture").options.smoothing == MixtureOptions().smoothing


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("top_k", {"temperature": 2}, "method top_k takes no temperature; resample does"),
        ("top_k", {"epochs": 2}, "top_k takes no epochs; resample, random, classifier, match, mixture do"),
        (
            "match",
            {"overlap": "best"},
            "method match takes no overlap; resample, top_k, random, moore_lewis, classifier",
        ),
        ("resample", {"smoothing": 1}, "method resample takes no smoothing; match, cynical, mixture do"),
        ("match", {"smoothing": 0}, "smoothing"),
        ("match", {"options": {"smoothing": 1}}, "options"),
        ("mixture", {"targets": ["a", "b"]}, "method mixture takes one target; targets names 2"),
    ],
)
def test_options_that_a_method_does_not_take_are_refused(method, options, words):
    with pytest.raises(pydantic.ValidationError, match=words):
        selection(method, **options)


def test_another_method_gets_the_options_that_mean_the_same_to_both():
    sampled = selection("resample", temperature=2, length="sqrt", epochs=2, seed=3)
    assert sampled.by("match") == selection("match", epochs=2, seed=3)
    assert sampled.by("top_k") == selection("top_k", length="sqrt", seed=3)
    assert selection("match", smoothing=0.5).by("mixture") == selection("mixture")
    with pytest.raises(ConfigError, match="takes one target"):
        selection("random", targets=["a", "b"]).by("mixture")


@pytest.mark.slow
def test_smoothing_reaches_the_method(pipeline):
    pipeline.write_pool()
    pipeline.config["raw"][0]["source"] = "domain"
    pipeline.write("medicine.jsonl", sentences("law", 40, seed=200) + sentences("code", 20, seed=200))
    pipeline.config["selections"] = [
        {**SELECTION, "name": f"{method}-{i}", "method": method, "smoothing": smoothing}
        for method in ("match", "mixture")
        for i, smoothing in enumerate((0.01, 100.0))
    ]
    assert pipeline.errors() == []
    rows = dict(pipeline.rows("SELECT partition, metadata FROM latest WHERE asset = 'selections'"))
    for method, number in (("match", "kl_picks"), ("mixture", "kl_pool")):
        sharp, smooth = (json.loads(rows[f"{method}-{i}"])[number] for i in range(2))
        assert sharp > smooth


# --- a method of the reader's own --------------------------------------------------------------------


class HalfOptions(MethodOptions):
    """Options of the method of this test."""

    sign: int = pydantic.Field(1, ge=-1, le=1, description="Of the log weight.")


def fit_half(candidates, budget):
    """Rank by log weight and noise, or against the log weight."""
    seed, sign = candidates.selection.seed, candidates.selection.options.sign

    def keys(documents, target, stream, floor):
        return sign * documents.log_weights[target] + gumbel_noise(documents.content_hash, seed, stream)

    return Ranking(keys)


@pytest.mark.parametrize(
    "rule", [KeyRule(log_weight=True, noise=True), pytest.param(KeyRule(), marks=pytest.mark.slow)]
)
def test_a_method_that_is_declared_is_known_everywhere(pipeline, monkeypatch, rule):
    monkeypatch.setitem(METHODS, "half", Method("half", fit_half, rule, HalfOptions))
    pipeline.write_pool()
    pipeline.config["selections"] = [
        {**SELECTION, "method": "half", "sign": 1, "seed": 3},
        {**SELECTION, "name": "usual"},
    ]
    pipeline.config["evaluation"] = {"compare": ["half"], "random_seeds": 2}
    assert pipeline.errors() == []

    rows = pipeline.rows(
        "SELECT w.key, w.threshold, w.noise, w.rank, w.verdict "
        "FROM documents AS d, why(d.doc_id, 'picked') AS w"
    )
    left = [row for row in rows if row[3] is None]
    assert len(rows) == 120 and len(left) == 100
    page = (pipeline.home / pipeline.rows(REPORT)[0][0]).read_text()
    others = "keys of method half are kept of picked documents only"
    if rule.decides:
        assert all((key >= threshold - 1e-9) == (rank is not None) for key, threshold, _, rank, _ in rows)
        assert all("below the threshold" in verdict for *_, verdict in left)
        assert "that came closest to the threshold" in page
    else:
        assert {(key, noise, verdict) for key, _, noise, _, verdict in left} == {
            (None, None, f"not picked; {others}")
        }
        assert "has keys of its own, which are kept only for picked documents" in page
    [(compared,)] = pipeline.rows(
        "SELECT count(*) FROM evaluations WHERE selection = 'usual' AND metric = 'kl_reduction' AND pick = 'half'"
    )
    assert compared > 0

    pipeline.write("pool/more.jsonl", sentences("medicine", 15, seed=55))
    assert pipeline.errors() == []
    changes = pipeline.rows("SELECT change, why, old_key, new_key FROM selection_changes('picked')")
    left = [row for row in changes if row[0] == "left"]
    assert left and any(why == "new shard" for _, why, *_ in changes)
    for _, why, _, new_key in left:
        if rule.decides:
            assert why.startswith(("displaced", "fell behind")) and new_key is not None
        else:
            assert why == "not known: keys of the method are kept of picked documents only"
            assert new_key is None

    pipeline.config["selections"][0]["sign"] = -1
    assert pipeline.errors() == []
    assert {why for (why,) in pipeline.rows("SELECT why FROM selection_changes('picked')")} == {
        "the configuration of the selection changed: sign null -> -1"
    }
    pipeline.config["selections"][0] |= {"method": "top_k", "sign": -1}
    with pytest.raises(ConfigError, match="method top_k takes no sign; half does"):
        pipeline.workspace()


#: Path of the report of the selection `picked`, below DSIR_HOME.
REPORT = "SELECT metadata->>'report' FROM latest WHERE asset = 'evaluations' AND partition = 'picked'"


def test_of_versions_that_were_made_before_rules_of_keys_nothing_false_is_said(pipeline):
    pipeline.write_pool()
    assert pipeline.errors() == []
    pipeline.write("pool/more.jsonl", sentences("medicine", 15, seed=55))
    assert pipeline.errors() == []
    whys = "SELECT DISTINCT why FROM selection_changes('picked') WHERE change = 'left'"
    before = {why for (why,) in pipeline.rows(whys)}
    assert before and not any(why.startswith("not known") for why in before)
    with Catalog(pipeline.home).transaction() as connection:
        connection.execute(
            "UPDATE materializations SET metadata = json_merge_patch(metadata, '{\"key_rule\": null}') "
            "WHERE asset = 'selections'"
        )
    assert pipeline.rows(whys) == [("not known: a version was made before rules of keys were kept",)]
    rows = pipeline.rows(
        "SELECT DISTINCT w.verdict, w.key FROM documents AS d, why(d.doc_id, 'picked') AS w WHERE w.rank IS NULL"
    )
    assert rows == [
        ("not picked; its key is not known: the selection was made before rules of keys were kept", None)
    ]


def test_no_macro_names_a_method():
    """A name that a query forgets would give a false verdict."""
    for path in (Path(__file__).parents[2] / "sql").glob("macros_*.sql"):
        text = path.read_text()
        assert not [name for name in METHODS if f"'{name}'" in text], path.name
