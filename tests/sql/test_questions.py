"""The views and macros that answer questions to any DuckDB shell, asked as a shell asks them.

What belongs here: what the macros answer after runs of real pipelines, and ``dsir changes``, which shows such an
answer. What does not: ``dsir why`` (``tests/dagster_project/test_why.py``), tables and locks
(``tests/resources/test_catalog.py``).
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pytest

from dsir.noise import gumbel_noise, noise_key
from dsir_dagster import sql
from dsir_dagster.changes import collect_changes, print_changes
from dsir_dagster.resources.catalog import Catalog
from dsir_dagster.resources.lineage import Lineage
from dsir_dagster.resources.settings import ConfigError
from dsir_dagster.resources.store import Store
from dsir_dagster.terminal import Terminal
from tests.pipeline import QUICK_EVALUATION, SmallPipeline, sentences

FIRST, SEED, NEW_SHARD, CHANGED_FILE, VANISHED, TARGET = range(1, 7)  # versions of the selection `picked`


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A pipeline with six versions of one selection, each for another reason."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("history"))
    pipeline.config["evaluation"] = QUICK_EVALUATION
    pipeline.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    pipeline.write("law.jsonl", sentences("law", 30, seed=102))
    picked = pipeline.config["selections"][0]
    pipeline.config["selections"] += [
        {"name": "both", "targets": ["law", "medicine"], "size": {"documents": 16}},
        {"name": "top", "targets": ["medicine"], "method": "top_k", "size": {"documents": 10}},
    ]
    pipeline.write_pool()
    # One document that is too short, and one that has another's id.
    pipeline.write("pool/few.jsonl", sentences("medicine", 1, 9, length=10) + sentences("law", 1, 1))
    assert pipeline.errors() == []
    picked["seed"] = 1
    assert pipeline.errors() == []
    pipeline.write("pool/more.jsonl", sentences("medicine", 15, seed=55))
    assert pipeline.errors() == []
    # Most documents stay, in other rows.
    pipeline.write(
        "pool/medicine.jsonl", sentences("medicine", 5, seed=7) + sentences("medicine", 40, seed=0)[:35]
    )
    assert pipeline.errors() == []
    (pipeline.data / "pool/more.jsonl").unlink()
    assert pipeline.errors() == []
    pipeline.write("medicine.jsonl", sentences("medicine", 30, seed=103)[:12])
    assert pipeline.errors() == []
    for options in ({"documents": 5}, {}):  # another version of `top`, and then the old one again
        assert pipeline.materialize("selections", partition="top", **options).success
    assert pipeline.materialize("selections", partition="picked", force=True).success
    return pipeline


@pytest.fixture(scope="module")
def pinned(tmp_path_factory):
    """A pipeline whose weights do not change when a shard comes, nor when a target that no selection names does."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("pinned"))
    pipeline.config["evaluation"] = QUICK_EVALUATION
    pipeline.config["estimator"] = {"fit": {"pinned": "first"}}
    pipeline.write_pool()
    assert pipeline.errors() == []
    pipeline.write("law.jsonl", sentences("law", 30, seed=102))
    for target in ("before", "after"):
        pipeline.config["targets"].append({"name": target, "uri": "data/law.jsonl"})
        assert pipeline.errors() == []
        pipeline.write("pool/more.jsonl", sentences("medicine", 15, seed=55))
        assert pipeline.errors() == []
    return pipeline


def ask(pipeline: SmallPipeline, query: str, parameters: list | None = None) -> list[dict]:
    """Ask a connection that knows nothing of the project."""
    with duckdb.connect(pipeline.home / "catalog.duckdb", read_only=True) as connection:
        return connection.sql(query, params=parameters).to_arrow_table().to_pylist()


def changes(pipeline: SmallPipeline, arguments: str) -> list[dict]:
    return ask(pipeline, f"FROM selection_changes({arguments})")


def picks(pipeline: SmallPipeline, number: int, selection: str = "picked") -> list[dict]:
    return ask(
        pipeline,
        "SELECT p.* FROM picks AS p JOIN selection_versions USING (selection, version) "
        f"WHERE selection = '{selection}' AND number = {number} ORDER BY target, rank",
    )


# --- views -------------------------------------------------------------------------------------------


def test_everything_answers_where_there_is_nothing_yet(tmp_path):
    Store(tmp_path / "a home's [1]*").prepare()
    catalog = Catalog(tmp_path / "a home's [1]*")
    assert catalog.latest() == {}
    with duckdb.connect(catalog.path, read_only=True) as connection:
        for source in (
            "picks",
            "selection_versions",
            "dependents('a.jsonl')",
            "chain('0123456789abcdef', 'wiki.0')",
            "compared_versions('tenth')",
            "selection_changes('tenth')",
            "selection_changes('tenth', 1, '2')",
            "why('a', 'tenth')",
        ):
            assert connection.execute(f"FROM {source}").fetchall() == []


def test_picks_are_of_all_versions_and_selections_of_the_newest(history):
    assert {row["version"] for row in picks(history, FIRST)} < {
        row["version"] for row in ask(history, "FROM picks WHERE selection = 'picked'")
    }
    assert ask(history, "SELECT count(DISTINCT version) AS n FROM picks WHERE selection = 'picked'") == [
        {"n": 6}
    ]
    assert ask(history, "FROM selections WHERE selection = 'picked' ORDER BY target, rank") == picks(
        history, TARGET
    )


def test_versions_are_numbered_as_they_were_first_made_and_listed_once(history):
    versions = ask(history, "FROM selection_versions WHERE selection = 'picked' ORDER BY number")
    assert [row["number"] for row in versions] == [1, 2, 3, 4, 5, 6]
    assert [row["current"] for row in versions] == [False] * 5 + [True]
    assert all(row["on_disk"] and row["pruned_at"] is None for row in versions)
    assert [json.loads(row["configuration"])["seed"] for row in versions] == [0, 1, 1, 1, 1, 1]
    for row in versions:
        rows = picks(history, row["number"])
        assert {pick["version"] for pick in rows} == {row["version"]}
        assert row["documents"] == len(rows) == 20
        assert row["tokens"] == sum(pick["n_tokens"] for pick in rows)
        assert row["threshold"] == rows[-1]["key"]
        assert row["folder"] == str(history.home / "selections/picked" / row["version"])
    made = ask(
        history,
        "SELECT fingerprint, run_id FROM lineage WHERE asset = 'selections' AND partition = 'picked' "
        "ORDER BY finished_at",
    )
    assert len(made) == 7 and made[-1]["fingerprint"] == made[-2]["fingerprint"]  # forced
    assert versions[-1]["run_id"] == made[-1]["run_id"] != made[-2]["run_id"]


def test_a_version_that_is_made_again_keeps_its_number_and_is_the_current_one(history):
    versions = ask(history, "FROM selection_versions WHERE selection = 'top' ORDER BY number")
    *_, before, other = versions
    assert (before["documents"], other["documents"]) == (10, 5)
    assert before["current"] and not other["current"] and before["finished_at"] > other["finished_at"]
    compared = ask(history, "FROM compared_versions('top')")
    assert {row["side"]: row["number"] for row in compared} == {
        "old": other["number"],
        "new": before["number"],
    }


def test_a_shard_that_vanished_is_in_no_view_of_the_pool(history):
    assert (history.home / "documents/pool.more.parquet").exists()
    for view in ("documents", "weights", "raw_counts", "quarantine"):
        shards = {row["shard"] for row in ask(history, f"SELECT DISTINCT shard FROM {view}")}
        assert "pool.more" not in shards, view
        assert view == "quarantine" or shards == {
            f"pool.{name}" for name in ("few", "law", "code", "medicine")
        }
    assert any(row["shard"] == "pool.more" for row in picks(history, NEW_SHARD))


# --- dependents --------------------------------------------------------------------------------------


def dependents(pipeline: SmallPipeline, uri: str) -> set[str]:
    rows = ask(pipeline, "SELECT output_name(asset, partition) AS name FROM dependents(?)", [uri])
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"] for row in rows}


def test_what_depends_on_a_file_is_found_by_its_uri_its_end_or_a_pattern(history):
    everything = {"importance_estimator"}
    everything |= {
        f"{asset}[{name}]" for asset in ("selections", "evaluations") for name in ("picked", "both", "top")
    }
    everything |= {f"weights[pool.{name}]" for name in ("few", "law", "code", "medicine")}
    uri = str(history.data / "pool/law.jsonl")
    for wanted in (uri, "law.jsonl", "pool/law.jsonl", "%/pool/la_.jsonl"):
        assert dependents(history, wanted) >= everything | {"raw_counts[pool.law]"}, wanted
    assert "raw_counts[pool.code]" not in dependents(history, "pool/law.jsonl")
    for wanted in ("aw.jsonl", "la_.jsonl", "pool", ""):
        assert dependents(history, wanted) == set(), wanted


def test_what_depended_on_a_file_that_vanished_is_found_until_it_is_pruned(history):
    assert dependents(history, "more.jsonl") == {"raw_counts[pool.more]", "weights[pool.more]"}


def test_dependents_have_the_fingerprint_and_run_of_the_newest_materialization(history):
    [row] = ask(history, "FROM dependents('code.jsonl') WHERE asset = 'selections' AND partition = 'picked'")
    [latest] = ask(history, "FROM latest WHERE asset = 'selections' AND partition = 'picked'")
    assert {key: latest[key] for key in row} == row


def test_several_files_of_one_output_are_each_found(tmp_path):
    Store(tmp_path).prepare()
    now = datetime.now(UTC)
    Catalog(tmp_path).record(
        [
            Lineage(
                "target_counts",
                "chem",
                "f1",
                "run",
                {},
                now,
                now,
                0,
                0,
                {},
                {"file": "/t/a.jsonl\n/t/b.jsonl"},
            ),
            Lineage("weights", "wiki", "f2", "run", {"target_counts[chem]": "f1"}, now, now, 0, 0, {}, {}),
        ]
    )
    with duckdb.connect(tmp_path / "catalog.duckdb", read_only=True) as connection:
        for wanted, n in (("a.jsonl", 2), ("/t/b.jsonl", 2), ("c.jsonl", 0)):
            assert len(connection.execute("FROM dependents(?)", [wanted]).fetchall()) == n


# --- chain -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [FIRST, NEW_SHARD, TARGET])
def test_a_record_alone_leads_back_to_its_file_by_fingerprints(history, number):
    version = picks(history, number)[0]["version"]
    lineage = {
        (f"{row['asset']}[{row['partition']}]" if row["partition"] else row["asset"], row["fingerprint"]): row
        | {"inputs": json.loads(row["inputs"])}
        for row in ask(
            history, "SELECT * REPLACE (to_json(inputs) AS inputs) FROM lineage ORDER BY finished_at"
        )
    }
    [file] = (history.home / "selections/picked" / version).glob("records-*")
    provenance = [json.loads(line)["_dsir"] for line in file.read_bytes().splitlines()]
    for shard in {each["shard"] for each in provenance}:
        made = [("selections[picked]", version)]
        for name in (f"weights[{shard}]", "importance_estimator"):
            made.append((name, lineage[made[-1]]["inputs"][name]))
        inputs = lineage[made[-1]]["inputs"]
        made += [(name, inputs[name]) for name in ("target_counts[law]", "target_counts[medicine]")]
        made.append((f"raw_counts[{shard}]", inputs[f"raw_counts[{shard}]"]))

        chain = ask(history, "FROM chain(?, ?)", [version, shard])
        assert chain[0]["asset"] == "selections" and chain[0]["step"] == 1
        assert len(chain) == len(made) == 6
        for row in chain:
            name = f"{row['asset']}[{row['partition']}]" if row["partition"] else row["asset"]
            assert (name, row["fingerprint"]) in made
            found = lineage[name, row["fingerprint"]]
            for column in ("run_id", "started_at", "finished_at"):
                assert row[column] == found[column]
        [counts] = [row for row in chain if row["asset"] == "raw_counts"]
        assert counts["sha256"] == lineage[made[-1]]["inputs"]["file"]
        assert counts["uri"] == str(history.data / "pool" / f"{shard.removeprefix('pool.')}.jsonl")


def test_a_chain_names_the_pinned_distribution(pinned):
    versions = ask(pinned, "FROM lineage WHERE asset = 'selections' ORDER BY finished_at")
    assert len(versions) == 2
    for n_targets, version in enumerate(versions, start=1):  # one came in between
        chain = ask(pinned, "FROM chain(?, 'pool.medicine')", [version["fingerprint"]])
        names = [f"{step['asset']}[{step['partition']}]" for step in chain]
        assert names.count("raw_distribution[first]") == 1 and names.count("raw_counts[pool.medicine]") == 1
        assert len([name for name in names if name.startswith("target_counts")]) == n_targets
        assert len(chain) == 5 + n_targets


def test_a_macro_takes_the_columns_of_other_rows(history):
    """A table of the same alias as one inside of the macro must not be taken for it."""
    for alias in "slmfdo":
        rows = ask(
            history,
            f"SELECT {alias}.shard, c.* FROM (SELECT DISTINCT version, shard FROM picks) AS {alias}, "
            f"chain({alias}.version, {alias}.shard) AS c WHERE c.asset = 'raw_counts'",
        )
        assert rows and all(row["shard"] == row["partition"] for row in rows)
        rows = ask(
            history,
            f"SELECT {alias}.shard, c.* FROM shards AS {alias}, dependents({alias}.uri) AS c "
            "WHERE c.asset = 'raw_counts'",
        )
        assert len(rows) == 5 and all(row["shard"] == row["partition"] for row in rows)


# --- selection_changes -------------------------------------------------------------------------------


def check_both_sides(pipeline: SmallPipeline, old: int, new: int) -> list[dict]:
    """Compare the changes with the picks of both versions; return them."""
    before = {(row["shard"], row["doc_id"]): row for row in picks(pipeline, old)}
    after = {(row["shard"], row["doc_id"]): row for row in picks(pipeline, new)}
    rows = changes(pipeline, f"'picked', {old}, {new}")
    assert {(r["shard"], r["doc_id"]) for r in rows if r["change"] == "left"} == before.keys() - after.keys()
    assert {
        (r["shard"], r["doc_id"]) for r in rows if r["change"] == "entered"
    } == after.keys() - before.keys()
    for row in rows:
        side, own = ("old", before) if row["change"] == "left" else ("new", after)
        pick = own[row["shard"], row["doc_id"]]
        for theirs, ours in (("key", f"{side}_key"), ("log_weight", f"{side}_log_weight")):
            assert row[ours] == pick[theirs]
        assert all(row[name] == pick[name] for name in ("row", "rank", "target", "source"))
        assert row["old_threshold"] == min(pick["key"] for pick in before.values())
        assert row["new_threshold"] == min(pick["key"] for pick in after.values())
    return rows


def test_another_seed_is_named_with_both_values(history):
    rows = check_both_sides(history, FIRST, SEED)
    assert {row["why"] for row in rows} == {"the configuration of the selection changed: seed 0 -> 1"}
    assert all(row["new_key"] is None for row in rows if row["change"] == "left")


def test_a_new_shard_displaces_documents(history):
    rows = check_both_sides(history, SEED, NEW_SHARD)
    entered = [row for row in rows if row["change"] == "entered" and row["why"] == "new shard"]
    assert entered and {row["shard"] for row in entered} == {"pool.more"}
    # Of 20 old documents there is room for those that are not of the new shard, in the order that they had.
    room = 20 - len(entered)
    cause = "its weight changed (importance_estimator new: raw_counts[pool.more])"
    for row in rows:
        if row["change"] == "left":
            expected = "displaced by better documents" if row["rank"] > room else f"fell behind: {cause}"
            assert row["why"] == expected
        elif row["shard"] != "pool.more":
            assert row["why"] == f"moved ahead: {cause}"
    assert "displaced by better documents" in {row["why"] for row in rows}


def test_where_the_weights_stay_a_new_shard_only_displaces(pinned):
    rows = check_both_sides(pinned, 1, 2)
    assert Counter(row["why"] for row in rows if row["change"] == "entered").keys() == {"new shard"}
    left = [row for row in rows if row["change"] == "left"]
    assert {row["why"] for row in left} == {"displaced by better documents"}
    for row in left:
        assert row["new_key"] == row["old_key"] and row["new_log_weight"] == row["old_log_weight"]
        assert row["old_threshold"] <= row["old_key"] < row["new_threshold"]
    back = changes(pinned, "'picked', 2, 1")
    assert {row["why"] for row in back if row["change"] == "entered"} == {"moved up: a place came free"}
    assert {row["why"] for row in back if row["change"] == "left"} == {"the shard is not counted any more"}


def test_of_a_file_that_changed_only_other_documents_are_reported(history):
    rows = check_both_sides(history, NEW_SHARD, CHANGED_FILE)
    of_the_file = [row for row in rows if row["shard"] == "pool.medicine"]
    assert {row["why"] for row in of_the_file} == {"its file changed"}
    stayed = {
        row["doc_id"] for row in picks(history, CHANGED_FILE) if row["doc_id"].startswith("medicine-0-")
    }
    assert stayed and not stayed & {row["doc_id"] for row in rows if row["change"] == "left"}
    others = {row["why"] for row in rows if row["shard"] != "pool.medicine"}
    assert all(
        "importance_estimator changed: raw_counts[pool.medicine]" in why
        or "displaced" in why
        or "free" in why
        for why in others
    )


def test_documents_of_a_shard_that_vanished_left_with_it(history):
    rows = check_both_sides(history, CHANGED_FILE, VANISHED)
    gone = [row for row in rows if row["shard"] == "pool.more"]
    assert gone and {(row["change"], row["why"], row["new_key"]) for row in gone} == {
        ("left", "the shard is gone", None)
    }
    assert len(gone) == sum(row["shard"] == "pool.more" for row in picks(history, CHANGED_FILE))
    assert "moved up: a place came free" in {row["why"] for row in rows if row["change"] == "entered"}


def test_a_changed_target_moves_weights_and_the_key_of_today_is_computed(history):
    rows = check_both_sides(history, VANISHED, TARGET)
    cause = "its weight changed (importance_estimator changed: target_counts[medicine])"
    assert rows and {row["why"] for row in rows} == {f"fell behind: {cause}", f"moved ahead: {cause}"}
    for row in rows:
        if row["change"] == "left":
            [known] = [each for each in why(history, row["doc_id"]) if each["shard"] == row["shard"]]
            assert row["new_log_weight"] == known["log_weight"] != row["old_log_weight"]
            assert row["new_key"] == pytest.approx(known["key"], abs=1e-9)
            assert row["new_key"] < row["new_threshold"]
        else:
            assert row["old_key"] is None  # its weight of then is not there any more


def test_versions_are_named_by_number_or_fingerprint_and_default_to_the_last_two(history):
    rows = changes(history, f"'picked', {VANISHED}, {TARGET}")
    old, new = (picks(history, number)[0]["version"] for number in (VANISHED, TARGET))
    for arguments in (
        "",
        f", '{old}', '{new}'",
        f", '{VANISHED}', '{TARGET}'",
        f", old := {VANISHED}",
        f", new := {TARGET}",
    ):
        assert changes(history, f"'picked'{arguments}") == rows, arguments
    assert changes(history, f"'picked', new := {VANISHED}") == changes(
        history, f"'picked', {CHANGED_FILE}, {VANISHED}"
    )
    for nothing in (", 1, 1", ", 1, 99", ", 'x', 1"):
        assert changes(history, f"'picked'{nothing}") == []


def test_the_other_way_round_what_entered_left(history):
    def pairs(rows: list[dict], change: str) -> set[tuple]:
        return {(row["shard"], row["row"], row["doc_id"]) for row in rows if row["change"] == change}

    there, back = changes(history, "'picked', 2, 5"), changes(history, "'picked', 5, 2")
    assert pairs(there, "left") == pairs(back, "entered") and pairs(there, "entered") == pairs(back, "left")


def test_each_target_has_its_own_threshold(history):
    rows = changes(history, "'both'")
    after = ask(
        history, "SELECT target, min(key) AS threshold FROM selections WHERE selection = 'both' GROUP BY ALL"
    )
    thresholds = {row["target"]: row["threshold"] for row in after}
    assert len(thresholds) == 2
    assert rows and all(row["new_threshold"] == thresholds[row["target"]] for row in rows)


# --- why ---------------------------------------------------------------------------------------------


def why(pipeline: SmallPipeline, doc_id: str, selection: str = "picked") -> list[dict]:
    return ask(pipeline, "FROM why(?, ?)", [doc_id, selection])


def test_the_noise_is_that_of_the_selections_to_nine_digits():
    hashes = np.random.default_rng(0).integers(0, 2**64, 10_000, dtype=np.uint64)
    hashes[:4] = 0, 1, 2**63, 2**64 - 1
    with duckdb.connect() as connection:
        connection.execute(sql.load("macros_noise"))
        connection.execute(
            "CREATE TABLE documents AS SELECT unnest($hashes::UBIGINT[]) AS content_hash",
            {"hashes": hashes.tolist()},
        )
        for seed, name in ((0, "tenth/chem"), (1, "tenth/chem"), (2**63 - 1, "größe/x.y")):
            key = f"{noise_key(seed, name):016x}"
            found = connection.execute(
                "SELECT gumbel_noise(content_hash, ?) FROM documents", [key]
            ).fetchall()
            np.testing.assert_allclose(
                np.array(found)[:, 0], gumbel_noise(hashes, seed, name), atol=1e-9, rtol=0
            )


@pytest.mark.parametrize("selection", ["picked", "both", "top"])
def test_keys_ranks_and_verdicts_of_all_documents_agree_with_the_picks(history, selection):
    rows = ask(
        history,
        "SELECT w.* FROM (SELECT DISTINCT doc_id FROM documents) AS d, why(d.doc_id, ?) AS w",
        [selection],
    )
    documents = ask(history, 'FROM documents JOIN weights USING (shard, "row")')
    targets = {"both": ["law", "medicine"]}.get(selection, ["medicine"])
    documents = {(d["shard"], d["row"], d["target"]): d for d in documents if d["target"] in targets}
    assert {(w["shard"], w["row"], w["target"]) for w in rows} == documents.keys() and len(rows) == len(
        documents
    )
    picked = {
        (p["shard"], p["row"]): p for p in ask(history, f"FROM selections WHERE selection = '{selection}'")
    }
    thresholds = {t: min(p["key"] for p in picked.values() if p["target"] == t) for t in targets}
    seed = {"picked": 1}.get(selection, 0)
    for row in rows:
        document = documents[row["shard"], row["row"], row["target"]]
        noise = 0.0
        if selection != "top":
            content = np.array([document["content_hash"]], np.uint64)
            noise = gumbel_noise(content, seed, f"{selection}/{row['target']}")[0]
        assert row["noise"] == pytest.approx(noise, abs=1e-9)
        assert row["log_weight"] == document["log_weight"]
        assert row["key"] == pytest.approx(document["log_weight"] + noise, abs=1e-9)
        assert row["eligible"] == (document["n_tokens"] >= 100)
        assert (
            row["threshold"] == thresholds[row["target"]] and row["margin"] == row["key"] - row["threshold"]
        )
        pick = picked.get((row["shard"], row["row"]))
        assert (row["rank"], row["picked_for"]) == ((pick["rank"], pick["target"]) if pick else (None, None))
        if pick and pick["target"] == row["target"]:
            assert row["key"] == pick["key"] and row["verdict"].startswith(f"picked, rank {pick['rank']};")
        elif pick:
            assert f"since picked for {pick['target']}" in row["verdict"]
        elif row["eligible"]:
            assert row["margin"] < 0 and f"by {-row['margin']:,.3f}" in row["verdict"]
        else:
            assert row["verdict"] == f"not eligible: it has {document['n_tokens']} tokens, min_tokens is 100"
    assert sum(row["verdict"].startswith("picked") for row in rows) == len(picked)


def test_every_document_of_an_id_is_answered_for_with_its_file_and_estimator(history):
    rows = why(history, "law-1-0")
    assert [row["shard"] for row in rows] == ["pool.few", "pool.law"]
    [estimator] = ask(history, "SELECT fingerprint FROM latest WHERE asset = 'importance_estimator'")
    for row in rows:
        assert row["uri"] == str(history.data / "pool" / f"{row['shard'].removeprefix('pool.')}.jsonl")
        assert row["estimator"] == estimator["fingerprint"]
        assert row["version"] == picks(history, TARGET)[0]["version"]
    assert why(history, "nobody") == why(history, "law-1-0", "nothing") == []


@pytest.fixture
def copy(history, tmp_path):
    """The history in a home of its own, to be damaged."""
    shutil.copytree(history.home, tmp_path / "home")
    copied = SmallPipeline(tmp_path)
    copied.config = history.config
    Catalog(copied.home).latest()  # the views name the home
    return copied


def change(pipeline: SmallPipeline, statement: str, *parameters: object) -> None:
    with Catalog(pipeline.home).transaction() as connection:
        connection.execute(statement, list(parameters))


def test_what_is_newer_than_the_selection_is_not_used(copy):
    """As after a run that failed between the weights and the selection."""
    later = datetime.now(UTC) + timedelta(seconds=1)
    catalog = Catalog(copy.home)
    inputs = catalog.latest()["weights", "pool.law"].inputs
    catalog.record([Lineage("weights", "pool.law", "newer", "run", inputs, later, later, 0, 0, {}, {})])
    few, law = why(copy, "law-1-0")
    assert few["key"] is not None and law["key"] is law["log_weight"] is law["margin"] is None
    assert law["verdict"].startswith("not known: its shard was counted or weighed again")


@pytest.mark.slow
def test_a_share_of_a_pool_that_grew_or_shrank_says_so(pipeline):
    """What gets a place since there are more of them did not move up, and what loses one was not displaced."""
    pipeline.write_pool()
    pipeline.config["selections"][0]["size"] = {"fraction": 0.2}
    assert pipeline.errors() == []
    more = pipeline.write("pool/more.jsonl", sentences("code", 40, seed=9))
    assert pipeline.errors() == []

    def changes() -> Counter:
        rows = ask(pipeline, "FROM selection_changes('picked')")
        return Counter((row["change"], row["why"]) for row in rows if row["why"].startswith("the pool"))

    def others() -> set[str]:
        return {row["why"] for row in ask(pipeline, "FROM selection_changes('picked')")}

    assert changes().keys() == {("entered", "the pool grew, and the budget with it")}
    assert 0 < changes().total() <= 8 and "moved up: a place came free" not in others()
    more.unlink()
    assert pipeline.errors() == []
    assert changes().keys() == {("left", "the pool shrank, and the budget with it")}
    assert 0 < changes().total() <= 8 and "displaced by better documents" not in others()


# --- versions that are gone, and `dsir changes` ------------------------------------------------------


def shown(
    pipeline: SmallPipeline, selection: str = "picked", old: str | None = None, new: str | None = None
) -> str:
    console = Terminal(file=io.StringIO(), width=140)
    print_changes(collect_changes(pipeline.workspace(), selection, old, new), console)
    return console.file.getvalue()


def test_a_version_whose_files_are_gone_is_told_of_and_not_compared(copy):
    versions = {n: picks(copy, n)[0]["version"] for n in (CHANGED_FILE, VANISHED)}
    for version in versions.values():
        shutil.rmtree(copy.home / "selections/picked" / version)
    change(copy, "UPDATE materializations SET pruned_at = now() WHERE fingerprint = ?", versions[VANISHED])
    rows = ask(copy, "FROM selection_versions WHERE selection = 'picked' ORDER BY number")
    assert [row["on_disk"] for row in rows] == [True] * 3 + [False] * 2 + [True]
    assert [row["pruned_at"] is not None for row in rows] == [False] * 4 + [True, False]
    assert changes(copy, f"'picked', {VANISHED}, {TARGET}") == []
    compared = {row["side"]: row["number"] for row in ask(copy, "FROM compared_versions('picked')")}
    assert compared == {"old": NEW_SHARD, "new": TARGET}
    with pytest.raises(
        ConfigError, match=rf"the files of version '5'.*{versions[VANISHED]}, made .*, pruned"
    ):
        shown(copy, old="5")
    with pytest.raises(ConfigError, match=rf"{versions[CHANGED_FILE]}, made [-0-9: ]*, files gone"):
        shown(copy, new=versions[CHANGED_FILE])


def test_the_command_shows_both_versions_counts_by_reason_and_the_best_of_each_side(history):
    text = shown(history)
    rows = changes(history, "'picked'")
    for number in (VANISHED, TARGET):
        assert picks(history, number)[0]["version"] in text
    for (side, reason), n in Counter((row["change"], row["why"]) for row in rows).items():
        assert re.search(rf"{side} +{n} +{re.escape(reason)}", text)
    for row in rows:
        rank, key = row["rank"], row["old_key"] if row["change"] == "left" else row["new_key"]
        best = sorted(each["rank"] for each in rows if each["change"] == row["change"])[:10]
        line = re.search(rf"^{row['doc_id']} +{rank} .*{key:,.3f}", text, flags=re.M)
        assert bool(line) == (rank in best)


def test_the_command_names_what_is_configured_otherwise(history):
    assert "configuration changed: seed 0 -> 1" in shown(history, "picked", "1", "2")
    assert "configuration changed: size documents:5 -> documents:10" in shown(history, "top")


def test_the_command_says_so_where_there_is_nothing_to_show(history, copy):
    assert "the same documents are picked" in shown(history, "picked", "2", "2")
    change(
        copy,
        "DELETE FROM materializations WHERE asset = 'selections' AND fingerprint <> ?",
        picks(copy, 3)[0]["version"],
    )
    assert "nothing to compare: selection 'picked' has version 1 (" in shown(copy)


@pytest.mark.parametrize(
    ("selection", "old", "words"),
    [
        ("nothing", None, "no selection 'nothing' was made; there are: both, picked, top"),
        ("picked", "9", "no version '9'; it has version 1 .*, version 6"),
    ],
)
def test_the_command_refuses_an_unknown_name_with_what_there_is(history, selection, old, words):
    with pytest.raises(ConfigError, match=words):
        shown(history, selection, old)
