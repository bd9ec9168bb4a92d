"""The quality filter of a selection: what it leaves out, what it says of that, and what it costs to change it."""

import itertools
import json

import pytest

from dsir_dagster.resources.settings import ConfigError, Selection, load_settings
from tests.pipeline import SmallPipeline

SMALLEST = {"name": "clean", "targets": ["medicine"], "size": {"documents": 1}}
STOPWORDS = "the of in with and for to on by from".split()


def text(n, unit):
    """Make a text of n units of the words {i}, {d} (a digit) and {s} (one of ten stopwords in turn)."""
    numbers = itertools.count()
    stopwords = (STOPWORDS[k % 10] for k in numbers)
    return " ".join(
        next(stopwords) if word == "{s}" else word.format(i=i, d=i % 10)
        for i in range(n)
        for word in unit.split()
    )


#: Each of these documents fails one of the paper's criteria, and no other.
ODD = {
    "words": text(900, "w{i} {s}"),
    "most_frequent_word": text(60, "w{i} drug {s}"),
    "informative_words": text(60, "w{i} x{i} y{i} {s}"),
    "not_digits": text(60, "{d} w{i} {s} {s}"),
}


def good(n):
    """Make n documents that pass."""
    return [{"id": f"good-{k}", "text": text(60, f"w{{i}}x{k} {{s}}")} for k in range(n)]


@pytest.fixture(scope="module")
def filtered_once(tmp_path_factory):
    """Good documents, one that fails each criterion, a short one; a selection that filters and one that does not."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("filtered"))
    odd = [{"id": name, "text": text} for name, text in ODD.items()]
    pipeline.write("pool/good.jsonl", good(30))
    pipeline.write("pool/odd.jsonl", [*odd, {"id": "short", "text": "patient dose"}])
    [plain] = pipeline.config["selections"]
    plain["size"] = {"fraction": 1}
    pipeline.config["selections"].append({**plain, "name": "clean", "quality": True})
    assert pipeline.errors() == []
    return pipeline


@pytest.fixture
def filtered(filtered_once, tmp_path):
    return filtered_once.copy(tmp_path)


def metadata(pipeline, selection="clean"):
    query = f"SELECT metadata FROM latest WHERE asset = 'selections' AND partition = '{selection}'"
    [(found,)] = pipeline.rows(query)
    return json.loads(found)


def excluded(pipeline, selection="clean"):
    prefix = "excluded_by_"
    found = metadata(pipeline, selection).items()
    return {key.removeprefix(prefix): value for key, value in found if key.startswith(prefix)}


def picked(pipeline, selection="clean"):
    return {row[2] for row in pipeline.picks(selection)}


def test_documents_that_fail_a_criterion_are_never_picked(filtered):
    assert picked(filtered) == {f"good-{i}" for i in range(30)}
    assert picked(filtered, "picked") == {f"good-{i}" for i in range(30)} | set(ODD)


def test_metadata_say_how_many_documents_each_criterion_excluded_and_add_up(filtered):
    assert excluded(filtered) == {"min_tokens": 1, **{f"quality.{name}": 1 for name in ODD}}
    assert excluded(filtered, "picked") == {"min_tokens": 1}
    for selection in ("clean", "picked"):
        found = metadata(filtered, selection)
        left = found["pool_documents"] - found["eligible_documents"]
        assert sum(excluded(filtered, selection).values()) == left
        assert found["documents"] == found["eligible_documents"]


def test_why_names_the_criterion_that_excluded_a_document(filtered):
    def verdict(document):
        [row] = filtered.rows(f"SELECT eligible, verdict FROM why('{document}', 'clean')")
        return row

    for name in ODD:
        eligible, text = verdict(name)
        assert not eligible and text.startswith(f"not eligible: its quality.{name} is ")
    assert (
        verdict("words")[1]
        == "not eligible: its quality.words is 1800, which has to be above 40.0 and below 500.0"
    )
    assert verdict("not_digits")[1].endswith("is 0.75, which has to be above 0.8")
    assert verdict("short") == (False, "not eligible: it has 2 tokens, min_tokens is 100")
    eligible, text = verdict("good-3")
    assert eligible and text.startswith("picked, rank ")
    [(eligible, text)] = filtered.rows("SELECT eligible, verdict FROM why('words', 'picked')")
    assert eligible and text.startswith("picked, rank ")


def test_bounds_change_without_reading_or_weighing_anything_again(filtered):
    filtered.config["selections"][1]["quality"] = {"not_digits": [0.7, None], "words": [None, 10_000]}
    due = {asset: [o.partition for o in stage.due] for asset, stage in filtered.run().items() if stage.due}
    assert due == {"selections": ["clean"], "evaluations": ["clean"]}
    assert picked(filtered) == {f"good-{i}" for i in range(30)} | {"not_digits", "words"}
    assert sum(excluded(filtered).values()) == 3


def test_a_random_and_a_top_k_pick_are_of_eligible_documents_too(filtered):
    """All of them are taken, so all three picks are the same documents, if they are from the same ones."""
    values = dict(
        filtered.rows(
            "SELECT pick, value FROM evaluations WHERE selection = 'clean' AND target = 'medicine' "
            "AND metric = 'kl_reduction' AND statistic = 'value'"
        )
    )
    assert values["selection"] == values["top_k"]
    assert values["random"] == pytest.approx(values["selection"])


def test_a_filter_that_leaves_nothing_says_what_excluded_the_documents(filtered):
    filtered.config["selections"][1]["quality"] = {"words": [100_000, None]}
    [message, *_] = filtered.errors()
    assert "clean" in message and "quality.words 34" in message and "min_tokens 1" in message


def test_the_launchpad_switches_the_filter_on_and_off(filtered):
    assert filtered.materialize("selections", partition="clean", quality=False).success
    assert picked(filtered) == picked(filtered, "picked")
    assert json.loads(metadata(filtered)["launchpad"]) == {"quality": None}
    assert filtered.materialize("selections", partition="picked", quality=True).success
    assert not picked(filtered, "picked") & set(ODD)
    assert filtered.materialize("evaluations", partition="picked").success


@pytest.fixture
def unfiltered(tmp_path):
    """A pipeline that ran without a filter."""
    pipeline = SmallPipeline(tmp_path / "unfiltered")
    pipeline.write("pool/good.jsonl", good(30))
    pipeline.write("pool/odd.jsonl", [{"id": name, "text": text} for name, text in ODD.items()])
    pipeline.config["selections"][0]["size"] = {"fraction": 1}
    assert pipeline.errors() == []
    assert pipeline.rows("SELECT count(single_digits) FROM documents") == [(0,)]
    return pipeline


def test_the_first_filter_counts_words_and_makes_nothing_else_again(unfiltered):
    [plain] = unfiltered.config["selections"]
    unfiltered.config["selections"].append({**plain, "name": "clean", "quality": True})
    due = {output.name: output.why for output in unfiltered.workspace().plan().outputs() if output.why}
    assert due == {
        **{f"raw_counts[pool.{name}]": "new: words for the quality filter" for name in ("good", "odd")},
        **{f"{asset}[clean]": "never materialized" for asset in ("selections", "evaluations")},
    }
    features = {path: path.read_bytes() for path in (unfiltered.home / "features").glob("*.arrow")}
    made = {asset: [o.partition for o in stage.due] for asset, stage in unfiltered.run().items() if stage.due}
    assert {name for name in made if name in ("weights", "importance_estimator")} == set()
    assert made["raw_counts"] == ["pool.good", "pool.odd"] and made["selections"] == ["clean"]
    assert picked(unfiltered) == {f"good-{i}" for i in range(30)}
    assert unfiltered.rows("SELECT count(*) = count(single_digits) FROM documents") == [(True,)]
    assert {path: path.read_bytes() for path in features} == features


def test_without_the_last_filter_the_counts_stay(filtered):
    filtered.config["selections"].pop()
    assert filtered.workspace().plan().counted == ["pool.good", "pool.odd"]


def test_the_launchpad_cannot_filter_by_words_that_were_not_counted(unfiltered):
    result = unfiltered.materialize("selections", partition="picked", quality=True)
    assert not result.success
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "which 2 of 2 shards lack" in str(failure.event_specific_data.error)


def test_true_stands_for_the_paper_s_bounds_and_false_for_no_filter():
    on = Selection.model_validate({**SMALLEST, "quality": True})
    spelled_out = Selection.model_validate(
        {**SMALLEST, "quality": {"words": [40, 500], "not_digits": [0.8, None]}}
    )
    assert json.dumps(on.model_dump()) == json.dumps(spelled_out.model_dump())
    assert Selection.model_validate(json.loads(json.dumps(on.model_dump()))) == on
    off = Selection.model_validate({**SMALLEST, "quality": False})
    assert off == Selection.model_validate(SMALLEST)
    assert "quality" not in off.model_dump(), "it keeps the fingerprint of before the filter existed"


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        ("yes", "selections[0].quality: expected true, false or a mapping"),
        (1, "selections[0].quality: expected true, false or a mapping"),
        (None, "selections[0].quality: expected true, false or a mapping"),
        ({"digits": [0, 1]}, "selections[0].quality.digits: unknown key"),
        ({"words": 40}, "selections[0].quality.words: expected a list of two"),
        ({"words": [1, 2, 3]}, "selections[0].quality.words: expected a list of two"),
        ({"words": [500, 40]}, "selections[0].quality.words: nothing is above 500.0 and below 40.0"),
        ({"words": [True, 40]}, "selections[0].quality.words[0]: expected a number"),
    ],
)
def test_wrong_bounds_are_refused_with_the_path_of_their_key(pipeline, quality, said):
    pipeline.config["selections"][0]["quality"] = quality
    with pytest.raises(ConfigError) as error:
        load_settings(pipeline.config_path)
    assert f"\n  {said}" in str(error.value)
