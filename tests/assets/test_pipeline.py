"""What the graph as a whole does for its users."""

import json

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from dsir_dagster.resources.store import Origin, sealed_writer
from tests.pipeline import sentences


def due(stages):
    return {asset: sorted(output.partition for output in stage.due) for asset, stage in stages.items()}


def test_the_selection_is_of_the_targets_domain(done):
    assert {row[2].split("-")[0] for row in done.picks()} == {"medicine"}
    [(value,)] = done.rows(
        "SELECT value FROM evaluations WHERE metric = 'share' AND pick = 'selection' AND source = 'pool'"
    )
    assert value == 1.0


def test_a_second_run_recomputes_nothing(done):
    before = done.rows("SELECT count(*) FROM lineage")
    assert not any(due(done.run()).values())
    assert done.rows("SELECT count(*) FROM lineage") == before


def test_a_new_shard_is_the_only_one_that_is_read(done):
    done.write("pool/more.jsonl", sentences("medicine", 5, 9))
    assert due(done.run())["raw_counts"] == ["pool.more"]
    assert done.rows("SELECT count(*) FROM documents") == [(125,)]


def test_a_touched_file_with_the_same_content_stays_fresh(done):
    path = done.data / "pool/law.jsonl"
    path.write_bytes(path.read_bytes())
    assert not any(due(done.run()).values())


def test_a_moved_pool_stays_fresh(done):
    (done.data / "pool").rename(done.data / "elsewhere")
    done.config["raw"][0]["uri"] = "data/elsewhere/*"
    assert not any(due(done.run()).values())


def test_a_new_selection_reuses_all_counts_and_weights(done):
    done.config["selections"].append(
        {"name": "best", "targets": ["medicine"], "method": "top_k", "size": {"documents": 5}}
    )
    assert {asset: keys for asset, keys in due(done.run()).items() if keys} == {
        "selections": ["best"],
        "evaluations": ["best"],
    }
    weights = [row[3] for row in done.picks("best")]
    assert weights == sorted(weights, reverse=True)
    [(lowest,)] = done.rows('SELECT max(log_weight) FROM weights JOIN documents USING (shard, "row")')
    assert weights[0] == lowest


def test_records_keep_every_field_and_say_where_they_come_from(done):
    originals = {
        record["id"]: record
        for path in (done.data / "pool").iterdir()
        for record in map(json.loads, path.read_text().splitlines())
    }
    picks = {row[2]: row for row in done.picks()}
    lines = done.records()
    assert len(lines) == 20
    for line in lines:
        record = json.loads(line)
        stamp = record.pop("_dsir")
        assert record == originals[record["id"]]
        target, rank, _, log_weight, key = picks[record["id"]]
        assert (stamp["target"], stamp["rank"]) == (target, rank)
        assert (stamp["log_weight"], stamp["key"]) == (log_weight, key)
        assert stamp["shard"] == f"pool.{record['domain']}"


def test_parquet_output_holds_the_same_records(done):
    done.config["selections"].append(
        {**done.config["selections"][0], "output": "parquet"} | {"name": "table"}
    )
    done.run()
    [(version,)] = done.rows(
        "SELECT fingerprint FROM latest WHERE asset = 'selections' AND partition = 'table'"
    )
    rows = pq.read_table(done.home / "selections" / "table" / version / "records-00000.parquet").to_pylist()
    assert len(rows) == 20
    assert {"id", "text", "domain", "extra", "_dsir"} == rows[0].keys()
    assert rows[0]["extra"]["nested"] == [1.5, None]


def test_without_records_the_same_documents_are_picked_and_evaluated(done):
    before = done.picks()
    done.config["selections"][0]["output"] = "none"
    stages = done.run()
    assert not any(stage.errors for stage in stages.values())
    assert done.picks() == before and done.records() == []
    [(records, evaluated)] = done.rows(
        "SELECT s.metadata->>'records', e.metadata->>'documents' FROM latest AS s, latest AS e "
        "WHERE s.asset = 'selections' AND e.asset = 'evaluations'"
    )
    assert (records, evaluated) == ("0", "20")
    done.config["selections"][0]["output"] = "jsonl"
    done.run()
    assert len(done.records()) == 20


def test_parameters_from_the_launchpad_replace_those_of_the_configuration(done):
    result = done.materialize("selections", partition="picked", documents=7, method="top_k")
    assert result.success
    assert len(done.picks()) == 7
    assert done.materialize("evaluations", partition="picked").success
    [(documents,)] = done.rows("SELECT metadata->>'documents' FROM latest WHERE asset = 'evaluations'")
    assert documents == "7"
    # The configuration has not changed, so the next run goes back to it and says why.
    [output] = done.run()["selections"].due
    assert "method 'top_k' -> 'resample'" in output.why
    assert len(done.picks()) == 20


def test_force_recomputes_what_is_fresh(done):
    assert done.materialize("raw_counts", partition="pool.law", force=True).success
    assert done.rows(
        "SELECT count(*) FROM lineage WHERE asset = 'raw_counts' AND partition = 'pool.law'"
    ) == [(2,)]


def test_a_materialization_that_is_fresh_is_reported_and_not_computed(done):
    result = done.materialize("raw_counts", partition="pool.law")
    of_run = dg.AssetRecordsFilter(dg.AssetKey("raw_counts"), asset_partitions=["pool.law"])
    newest = done.instance.fetch_materializations(of_run, limit=1).records[0]
    assert newest.run_id == result.run_id
    metadata = newest.asset_materialization.metadata
    assert metadata["why"].value == "fresh, not recomputed" and metadata["documents"].value == 40
    assert len(done.rows("SELECT 1 FROM lineage WHERE partition = 'pool.law' AND asset = 'raw_counts'")) == 1


def test_downstream_assets_say_what_has_to_be_materialized_first(pipeline):
    pipeline.write_pool()
    pipeline.instance.add_dynamic_partitions("shards", ["pool.law"])
    for asset, partition, words in (
        ("importance_estimator", None, "materialize raw_counts first"),
        ("weights", "pool.law", "raw_counts first\nraw_counts[pool.law]: missing, never materialized"),
        ("selections", "picked", "no shard is counted yet; materialize raw_counts first"),
        ("evaluations", "picked", "never materialized"),
    ):
        result = pipeline.materialize(asset, partition=partition)
        [event] = [event for event in result.all_events if event.is_step_failure]
        assert words in event.step_failure_data.user_failure_data.description


def test_the_checks_judge_numbers_and_pass(done):
    evaluations = {}
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    for record in done.instance.get_event_records(dg.EventRecordsFilter(kind)):
        evaluation = record.event_log_entry.dagster_event.event_specific_data
        evaluations[evaluation.check_name] = evaluation
    assert evaluations.keys() == {"few_rows_quarantined", "size_and_uniqueness", "better_than_random"}
    assert all(evaluation.passed for evaluation in evaluations.values())
    size = evaluations["size_and_uniqueness"].metadata
    assert size["documents"].value == size["distinct_documents"].value == size["records_written"].value == 20
    numbers = evaluations["better_than_random"].metadata
    assert numbers["over_random"].value > numbers["over_random_low"].value > 0


def test_the_blocking_check_fails_where_a_pick_stands_twice(done):
    [(version,)] = done.rows("SELECT fingerprint FROM latest WHERE asset = 'selections'")
    path = done.home / "selections" / "picked" / version / "picks.parquet"
    picks = pq.read_table(path)
    with sealed_writer(path, "selections", Origin("selections[picked]", version, {})) as writer:
        writer.write_table(pa.concat_tables([picks.slice(0, 19), picks.slice(0, 1)]))
    result = done.materialize("selections", "evaluations", partition="picked")
    assert not result.success
    [evaluation] = result.get_asset_check_evaluations()
    assert not evaluation.passed and evaluation.metadata["distinct_documents"].value == 19


def test_several_targets_get_their_shares_and_nothing_twice(done):
    done.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    done.write("law.jsonl", sentences("law", 30, 300))
    done.config["selections"].append(
        {"name": "two", "targets": ["medicine", "law"], "shares": [3, 1], "size": {"documents": 21}}
    )
    assert done.errors() == []
    picks = done.picks("two")
    assert [sum(row[0] == target for row in picks) for target in ("medicine", "law")] == [15, 6]
    assert len({row[2] for row in picks}) == 21
    assert {row[2].split("-")[0] for row in picks if row[0] == "law"} == {"law"}


def test_the_raw_distribution_can_be_fitted_on_a_part_of_the_pool(done):
    done.config["estimator"] = {"fit": {"ngrams": 5000}}
    assert done.errors() == []
    [(fitted, pool)] = done.rows(
        "SELECT (metadata->>'fitted_ngrams')::INT, (metadata->>'pool_ngrams')::INT FROM latest "
        "WHERE asset = 'importance_estimator'"
    )
    assert 2500 < fitted < 10000 < pool


def test_lineage_leads_from_a_selection_back_to_the_stamp_of_every_file(done):
    latest = {
        (asset, partition): (fingerprint, dict(inputs))
        for asset, partition, fingerprint, inputs in done.rows(
            "SELECT asset, partition, fingerprint, inputs FROM latest"
        )
    }
    stamps = set()

    def follow(name, fingerprint):
        asset, _, partition = name.rstrip("]").partition("[")
        found, inputs = latest[asset, partition]
        assert found == fingerprint
        stamps.update(value for key, value in inputs.items() if key == "file")
        for key, value in inputs.items():
            if key.split("[")[0] in {asset for asset, _ in latest}:
                follow(key, value)

    follow("evaluations[picked]", latest["evaluations", "picked"][0])
    assert {row[0] for row in done.rows("SELECT stamp FROM shards")} < stamps


def test_mixed_formats_and_custom_readers_are_one_pool(done):
    records = sentences("medicine", 4, 50)
    pq.write_table(pa.Table.from_pylist(records), done.data / "pool/table.parquet")
    done.config["raw"].append(
        {
            "name": "own",
            "uri": "data/own/*",
            "id": "key",
            "text": "body",
            "reader": "tests.assets.readers:words",
        }
    )
    done.write_bytes("own/file.words", " ".join(record["text"] for record in records).encode())
    assert done.errors() == []
    assert done.rows("SELECT count(*) FROM documents WHERE shard = 'pool.table'") == [(4,)]
    assert done.rows("SELECT count(*), min(doc_id) FROM documents WHERE source = 'own'") == [(4, "word 0")]


def test_a_new_target_recomputes_no_selection_of_others_and_why_still_knows_them(done):
    done.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    done.write("law.jsonl", sentences("law", 30, seed=100))
    done.config["selections"].append({"name": "laws", "targets": ["law"], "size": {"documents": 5}})
    before = done.picks()
    stages = done.run()
    assert not stages["raw_counts"].due and len(stages["weights"].due) == 3
    assert [output.name for output in stages["selections"].due] == ["selections[laws]"]
    assert [output.name for output in stages["evaluations"].due] == ["evaluations[laws]"]
    assert done.picks() == before
    known = "SELECT count(*) FROM documents AS d, why(d.doc_id, 'picked') AS w WHERE w.margin IS NOT NULL"
    assert done.rows(known) == [(120,)]
    done.write("medicine.jsonl", sentences("medicine", 31, seed=100))
    assert "selections[picked]" in [output.name for output in done.run()["selections"].due]
