"""Near-duplicates: of each family of near-copies the best-ranked is picked, and the budget is filled."""

import json
import random
from itertools import combinations

import pytest

from dsir.selection import Budget, TopK
from dsir_dagster.assets.methods import pick
from dsir_dagster.assets.picking.candidates import Candidates
from dsir_dagster.assets.selections import output_of
from dsir_dagster.resources.settings import ConfigError, Selection
from tests.dsir.test_near_duplicates import similarity
from tests.pipeline import DOMAINS, SmallPipeline, sentences

SELECTIONS = {
    "all": {"size": {"fraction": 1.0}, "near_duplicates": None},
    "plain": {"near_duplicates": None},
    "picked": {},
    "strict": {"near_duplicates": 0.99},
    "tokens": {"size": {"tokens": 4000}},
    "drawn": {"method": "resample", "epochs": 2, "temperature": 30},
    "capped": {"source_caps": {"copies": 0.5}},
    "matched": {"method": "match"},
    "first": {"targets": ["medicine", "again"]},
    "best": {"targets": ["medicine", "again"], "overlap": "best"},
    "best-reversed": {"targets": ["again", "medicine"], "overlap": "best"},
    "too-many": {"size": {"documents": 500}},
}


def selection(name: str) -> dict:
    default = {"targets": ["medicine"], "size": {"documents": 30}, "method": "top_k", "near_duplicates": 0.8}
    options = {**default, **SELECTIONS[name], "name": name}
    return {key: value for key, value in options.items() if value is not None}


def near_copies(records: list[dict], n: int) -> list[dict]:
    """Make n copies of each record, each with one more word somewhere, which makes its weight larger."""
    chance, copies = random.Random(5), []
    for record in records:
        for i in range(n):
            words = record["text"].split()
            words.insert(chance.randrange(len(words)), chance.choice(DOMAINS["medicine"][:10]))
            copies.append(
                {**record, "id": f"{record['id']}-copy-{i}", "text": " ".join(words), "from": "copies"}
            )
    return copies


def records() -> list[dict]:
    """Return a pool of 120 documents, and five near-copies of each of the 40 that are of medicine."""
    originals = [
        {**record, "from": "originals"}
        for seed, domain in enumerate(DOMAINS)
        for record in sentences(domain, 40, seed=seed)
    ]
    return originals + near_copies(originals[:40], n=5)


TEXTS = {record["id"]: record["text"] for record in records()}


def configure(pipeline: SmallPipeline, *names: str) -> SmallPipeline:
    pipeline.write("again.jsonl", sentences("medicine", 30, seed=102))
    pipeline.config["raw"][0]["source"] = "from"
    pipeline.config["targets"].append({"name": "again", "uri": "data/again.jsonl"})
    pipeline.config["selections"] = [selection(name) for name in names]
    pipeline.config["evaluation"] = {"random_seeds": 2}
    return pipeline


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The pool in four shards, so that near-copies are in other shards; weighed, and two selections of it."""
    pipeline = configure(SmallPipeline(tmp_path_factory.mktemp("near-duplicates")), "picked", "too-many")
    for i, name in enumerate(("a", "b", "c", "d")):
        pipeline.write(f"pool/{name}.jsonl", records()[i::4])
    assert pipeline.errors(until="selections") == []
    return pipeline


@pytest.fixture
def pick_by(ran, monkeypatch):
    """Hold no more candidates than are needed, so that the first reserve is too small for so many near-copies."""
    monkeypatch.setattr(TopK, "SLACK", 0)
    monkeypatch.setattr("dsir_dagster.assets.picking.near_duplicates.TOKENS_AT_A_TIME", 1)
    return lambda name: picked(ran, name)


def picked(pipeline: SmallPipeline, name: str) -> tuple[list[list[tuple[str, str]]], int]:
    """Return the targets and ids of what a selection picks, by epoch, and how many near-duplicates it dropped."""
    snapshot = pipeline.workspace().snapshot()
    chosen = Selection.model_validate(selection(name))
    rows = pipeline.rows('SELECT shard, "row", doc_id FROM documents')
    ids = {(snapshot.plan.counted.index(shard), row): doc_id for shard, row, doc_id in rows}
    size = chosen.size
    budget = Budget(tokens=size.tokens) if size.tokens else Budget(documents=size.documents or len(ids))
    found = pick(Candidates(snapshot, chosen), budget)
    epochs = [
        [(chosen.targets[row["target"]], ids[row["shard"], row["row"]]) for row in epoch]
        for epoch in found.epochs
    ]
    return epochs, found.near_duplicates_dropped


def metadata(pipeline, selection):
    [(found,)] = pipeline.rows(
        f"SELECT metadata FROM latest WHERE asset = 'selections' AND partition = '{selection}'"
    )
    return json.loads(found)


@pytest.mark.parametrize("name", ["picked", "strict"])
def test_it_is_to_walk_down_the_ranking_and_to_pass_over_what_is_nearly_the_same(pick_by, name):
    threshold = selection(name)["near_duplicates"]
    [ranked], _ = pick_by("all")
    expected, passed = [], 0
    for target, doc_id in ranked:
        if len(expected) == 30:
            break
        if any(similarity(TEXTS[doc_id], TEXTS[other]) >= threshold for _, other in expected):
            passed += 1
        else:
            expected.append((target, doc_id))
    assert pick_by(name) == ([expected], passed)
    assert (passed > 60) == (name == "picked")


@pytest.mark.parametrize(
    "name", ["picked", "tokens", "drawn", "capped", "matched", "first", "best", "best-reversed"]
)
def test_no_two_picks_are_nearly_the_same_and_the_budget_is_filled(pick_by, name):
    epochs, dropped = pick_by(name)
    for epoch in epochs:
        texts = [TEXTS[doc_id] for _, doc_id in epoch]
        assert max(similarity(a, b) for a, b in combinations(texts, 2)) < 0.8
        if name == "tokens":
            assert 4000 - 150 < sum(len(text.split()) for text in texts) <= 4000
        else:
            assert len(epoch) == 30
    assert dropped > 10


def test_where_the_option_is_off_nothing_is_dropped(pick_by):
    [ranked], _ = pick_by("all")
    assert pick_by("plain") == ([ranked[:30]], 0)


def test_several_targets_get_their_shares_and_with_best_their_order_does_not_matter(pick_by):
    [best], _ = pick_by("best")
    [first], _ = pick_by("first")
    for epoch in (best, first):
        assert all(14 <= [target for target, _ in epoch].count(name) <= 16 for name in ("medicine", "again"))
    [reversed_], _ = pick_by("best-reversed")
    assert sorted(best) == sorted(reversed_) != sorted(first)


def test_the_selection_says_how_many_were_dropped(ran):
    epochs, dropped = picked(ran, "picked")
    assert [doc_id for _, _, doc_id, _, _ in ran.picks()] == [doc_id for _, doc_id in epochs[0]]
    assert metadata(ran, "picked")["near_duplicates_dropped"] == dropped
    assert "note" not in metadata(ran, "picked")


def test_a_pool_without_enough_different_documents_gives_what_it_has_and_says_so(ran):
    found = metadata(ran, "too-many")
    assert found["documents"] == 120 and found["near_duplicates_dropped"] == 200
    assert found["note"] == (
        "picked 120 of 320 documents: the rest are near-duplicates of better-ranked documents"
    )


def test_why_says_so_of_a_document_that_was_dropped(ran):
    verdicts = ran.rows(
        "SELECT w.verdict FROM documents AS d, why(d.doc_id, 'picked') AS w WHERE w.rank IS NULL AND w.margin >= 0"
    )
    assert len(verdicts) == metadata(ran, "picked")["near_duplicates_dropped"]
    assert all(
        verdict.startswith(
            "not picked; a better-ranked document is nearly the same, or it would be above the"
        )
        for (verdict,) in verdicts
    )


def test_it_does_not_depend_on_shards_threads_or_on_what_is_held(ran, pick_by, pipeline, monkeypatch):
    before = {name: pick_by(name) for name in ("picked", "tokens", "drawn", "matched", "best")}
    monkeypatch.undo()
    configure(pipeline, "picked")
    for i in range(7):
        pipeline.write(f"pool/part-{i}.jsonl", records()[::-1][i::7])
    assert not [message for stage in pipeline.run(threads=3).values() for message in stage.errors]
    assert pipeline.picks() == ran.picks()
    assert {name: picked(pipeline, name) for name in before} == before


def test_the_version_of_what_finds_them_is_an_input_where_it_is_on(done):
    plan = done.workspace().plan()
    [off] = plan.settings.selections
    on = off.model_copy(update={"near_duplicates": 0.8})
    assert "near_duplicates" not in output_of(plan, off).inputs
    assert "near_duplicates" not in output_of(plan, off).inputs["configuration"]
    assert "rensa" in output_of(plan, on).inputs["near_duplicates"]
    assert output_of(plan, on).fingerprint != output_of(plan, off).fingerprint


def test_without_the_library_the_extra_is_named(done, monkeypatch):
    monkeypatch.setattr("dsir_dagster.assets.picking.near_duplicates.find_spec", lambda name: None)
    workspace = done.workspace()
    [configured] = workspace.settings.selections
    on = configured.model_copy(update={"near_duplicates": 0.8})
    with pytest.raises(
        ConfigError, match=r"'picked': near_duplicates needs rensa; install .*\[near-duplicates\]"
    ):
        pick(Candidates(workspace.snapshot(), on), Budget(documents=3))


@pytest.mark.parametrize("value", [0, 1, 1.5, True, "much"])
def test_a_threshold_is_between_0_and_1(pipeline, value):
    pipeline.config["selections"][0]["near_duplicates"] = value
    with pytest.raises(ConfigError, match=r"selections\[0\]\.near_duplicates"):
        pipeline.workspace()
