"""What a user gets for bad input: a message that says where and what to do, and nothing else lost."""

import gzip
import json
from functools import partial

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsir_dagster.assets import raw_counts
from dsir_dagster.definitions import build_defs
from dsir_dagster.resources.corpus import read_blocks
from dsir_dagster.resources.verification import verify_files
from tests.pipeline import sentences, silent


def quarantined(pipeline):
    return pipeline.rows('SELECT shard, "row", reason FROM quarantine ORDER BY ALL')


def lines(records):
    return [json.dumps(record).encode() for record in records]


def zstd(content):
    return pa.compress(content, codec="zstd", asbytes=True)


def test_a_pattern_that_matches_nothing_is_named(pipeline):
    with pytest.raises(ValueError, match=r"data/pool/\*.*'pool'"):
        pipeline.run()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.jsonl.zst", zstd(b"\n".join(lines(sentences("code", 20, 7))))[:-20]),
        ("bad.jsonl.gz", gzip.compress(b"\n".join(lines(sentences("code", 20, 7))))[:-20]),
        ("bad.parquet", b"PAR1 this is not Parquet PAR1"),
        ("bad.doc", b"a format nobody knows"),
    ],
)
def test_a_damaged_file_fails_its_own_partition_and_no_other(pipeline, name, content):
    pipeline.write_pool()
    path = pipeline.write_bytes(f"pool/{name}", content)
    stages = pipeline.run()
    [message] = stages["raw_counts"].errors
    assert message.startswith("raw_counts[pool.bad") and str(path) in message
    assert [stages[asset].errors for asset in list(stages)[1:]] == [[]] * 5
    assert {row[0] for row in pipeline.rows("SELECT DISTINCT shard FROM documents")} == {
        "pool.code",
        "pool.law",
        "pool.medicine",
    }
    assert len(pipeline.picks()) == 20
    assert pipeline.rows("SELECT metadata->>'shards_not_counted' FROM latest WHERE asset = 'selections'") == [
        ("1",)
    ]


def test_a_file_that_goes_bad_leaves_what_was_written_before(done):
    before = done.rows("SELECT * FROM documents ORDER BY ALL")
    path = done.write_bytes("pool/law.jsonl.zst", zstd(b"\n".join(lines(sentences("law", 20, 7))))[:-20])
    (done.data / "pool/law.jsonl").unlink()
    stages = done.run()
    assert str(path) in stages["raw_counts"].errors[0]
    assert done.rows("SELECT * FROM documents ORDER BY ALL") == before


def test_bad_rows_are_quarantined_with_their_reason_and_counted(pipeline):
    pipeline.write_pool()
    good = lines(sentences("law", 3, 8))
    rows = [
        good[0],
        b"{not json",
        b'{"id": "no text"}',
        b'{"id": "null", "text": null}',
        b'{"id": "number", "text": 17}',
        b"",
        b'{"id": "bytes", "text": "\xff\xfe"}',
        b"[1, 2]",
        good[1],
        good[2],
    ]
    pipeline.write_bytes("pool/mixed.jsonl", b"\n".join(rows) + b"\n")
    pipeline.config["raw"][0]["max_quarantined"] = 0.9
    stages = pipeline.run()
    assert stages["raw_counts"].errors == []
    found = {row: reason for shard, row, reason in quarantined(pipeline) if shard == "pool.mixed"}
    assert sorted(found) == [1, 2, 3, 4, 5, 6, 7]
    for row, word in (
        (1, "JSON"),
        (2, "text"),
        (3, "null"),
        (4, "number"),
        (5, "blank"),
        (6, "UTF-8"),
        (7, "object"),
    ):
        assert word in found[row]
    documents = pipeline.rows("SELECT \"row\", doc_id FROM documents WHERE shard = 'pool.mixed' ORDER BY ALL")
    assert documents == [(0, "law-8-0"), (8, "law-8-1"), (9, "law-8-2")]
    assert pipeline.rows(
        "SELECT metadata->>'quarantined_rows' FROM latest WHERE partition = 'pool.mixed' AND asset = 'raw_counts'"
    ) == [("7",)]


def test_a_shard_without_a_usable_row_fails_and_says_why_and_what_its_records_have(pipeline):
    pipeline.write_pool()
    other = [{"id": i, "body": {"content": "a b", "n": 1}} for i in range(5)]
    path = pipeline.write("pool/other.jsonl", [*other, {"text": None}])
    [message] = pipeline.errors()
    assert message.startswith(f"raw_counts[pool.other]: {path}: none of its 6 rows")
    assert f"{path}: none of its 6 rows can be used, 5 because of this: no field 'text'" in message
    assert "the records have: id, body.content, body.n, text; set `text:` to one of them" in message
    assert [row[2] for row in quarantined(pipeline)] == [*["no field 'text'"] * 5, "field 'text' is null"]
    assert len(pipeline.picks()) == 20
    path.write_bytes(b"{bad\n" * 3)
    [message] = pipeline.errors()
    assert "none of its 3 rows can be used: not JSON; repair the file" in message
    pipeline.write("pool/other.jsonl", sentences("law", 3, 8))
    assert pipeline.errors() == [] and quarantined(pipeline) == []


def test_a_shard_that_loses_all_its_rows_keeps_what_was_written_before(done):
    before = done.rows("SELECT * FROM documents ORDER BY ALL")
    done.write("pool/law.jsonl", [{"id": "x"}])
    assert "no field 'text'" in done.run()["raw_counts"].errors[0]
    assert done.rows("SELECT * FROM documents ORDER BY ALL") == before
    assert verify_files(done.workspace()).damages == []


def test_a_target_without_a_usable_row_says_what_its_records_have(pipeline):
    pipeline.write_pool()
    pipeline.write("medicine-test.jsonl", [{"id": 1, "txt": "a b"}])
    message = pipeline.run()["target_counts"].errors[0]
    assert "medicine-test.jsonl: its only row cannot be used: no field 'text'" in message
    assert "the records have: id, txt" in message


def test_more_than_a_tenth_of_quarantined_rows_is_told_with_numbers(pipeline):
    pipeline.write_pool()
    good = lines(sentences("law", 18, 8))
    pipeline.write_bytes("pool/bad.jsonl", b"\n".join([*good, b"{bad", b'{"id": 1}', b"{", b"", b""]) + b"\n")
    pipeline.write_bytes("pool/spaced.jsonl", b"\n\n".join(good))
    [error] = pipeline.errors()

    def told():
        workspace = pipeline.workspace()
        found = raw_counts.too_many_quarantined(workspace.snapshot())
        result = raw_counts.check_quarantine(workspace)
        assert result.passed == (not found) and result.metadata["over_the_limit"].value == len(found)
        assert result.severity.value == "WARN"
        return list(map(str, found)), result.description

    assert error.startswith(
        "raw_counts[pool.bad]: 3 of 21 rows are quarantined (14.3%), and max_quarantined is 0.1: "
    )
    assert told() == ([error], error)
    assert pipeline.errors() == [error] and len(pipeline.picks()) == 20  # until someone mends it
    pipeline.config["raw"][0]["max_quarantined"] = 0.2
    assert told() == ([], None)
    assert [stage.due for stage in pipeline.run().values()] == [[]] * 6  # nothing is counted anew for it
    pipeline.write("medicine.jsonl", [*sentences("medicine", 30, 100), *[{"id": "x"}] * 8])
    [of_target] = pipeline.errors()
    assert told()[0] == [of_target]
    assert of_target.startswith("target_counts[medicine]: 8 of 68 rows are quarantined (11.8%)")


def test_the_check_on_quarantined_rows_is_judged_by_every_run_and_on_its_own(pipeline):
    pipeline.write_pool()
    pipeline.write_bytes("pool/bad.jsonl", b"{bad\n" + lines(sentences("law", 1, 8))[0])
    pipeline.run()
    defs = build_defs(pipeline.config_path, pipeline.home, {"console": silent})
    key = dg.AssetCheckKey(dg.AssetKey("raw_counts"), "few_rows_quarantined")
    [by_the_run, *_] = pipeline.instance.event_log_storage.get_asset_check_execution_history(key, 10)
    assert by_the_run.status.value == "FAILED"  # though the step of the check itself is skipped
    job = dg.define_asset_job("only_the_check", dg.AssetSelection.checks(key))
    job = job.resolve(asset_graph=defs.resolve_asset_graph())
    result = job.execute_in_process(
        instance=pipeline.instance,
        resources=defs.resources,
        run_config={"loggers": {"console": {}}},
    )
    [evaluation] = result.get_asset_check_evaluations()
    assert not evaluation.passed and evaluation.severity.value == "WARN"
    assert "raw_counts[pool.bad]: 1 of 2 rows" in evaluation.description


def test_ids_and_sources_that_are_replaced_are_counted(pipeline):
    pipeline.config["raw"][0]["source"] = "extra.year"
    good = sentences("law", 5, 8)
    for record, (id_, year) in zip(
        good, [(1.0, 2020), (None, True), ([], None), ("x", {}), (2, 1999.0)], strict=True
    ):
        record.update(id=id_, extra={"year": year})
    pipeline.write("pool/odd.jsonl", good)
    assert pipeline.errors() == []
    assert pipeline.rows('SELECT doc_id, source FROM documents ORDER BY "row"') == [
        ("1", "2020"),
        ("pool.odd:1", "true"),
        ("pool.odd:2", "pool"),
        ("x", "pool"),
        ("2", "1999"),
    ]
    assert pipeline.rows(
        "SELECT metadata->>'ids_replaced', metadata->>'sources_replaced', metadata->>'quarantined_rows' "
        "FROM latest WHERE asset = 'raw_counts'"
    ) == [("2", "2", "0")]


@pytest.mark.parametrize("output", ["jsonl", "jsonl.zst", "parquet"])
def test_view_types_are_read_and_written_out_again(pipeline, output):
    """In the text and in a column that is not used."""
    found = sentences("medicine", 40, 0)
    texts = [record["text"] for record in found]
    table = pa.table(
        {
            "id": [record["id"] for record in found],
            "text": pa.array(texts).cast(pa.string_view()),
            "bytes": pa.array([b"ab"] * 40).cast(pa.binary_view()),
            "nested": pa.array(
                [{"tags": ["a", None]}, None] * 20, pa.struct([("tags", pa.list_(pa.string_view()))])
            ),
        }
    )
    pipeline.data.joinpath("pool").mkdir()
    pq.write_table(table, pipeline.data / "pool/view.parquet")
    lists = table.append_column("list", pa.array([["x"], None] * 20, pa.list_view(pa.string_view())))
    with pa.ipc.new_file(str(pipeline.data / "pool/lists.arrow"), lists.schema) as writer:
        writer.write_table(lists)
    pipeline.config["selections"][0] |= {"size": {"documents": 80}, "output": output}
    assert pipeline.errors() == []
    [folder] = (pipeline.home / "selections/picked").iterdir()
    [path] = folder.glob("records-*")
    if output == "parquet":
        records = pq.read_table(path).to_pylist()
    else:
        stream = pa.input_stream(path, compression="zstd" if output == "jsonl.zst" else None)
        records = list(map(json.loads, stream.read().splitlines()))
    assert sorted(record["text"] for record in records) == sorted(texts * 2)
    assert {str(record["nested"]) for record in records} == {"{'tags': ['a', None]}", "None"}
    assert {str(record.get("list")) for record in records} == {"['x']", "None"}


def test_a_pool_without_a_document_says_so_once_and_not_to_lower_min_tokens(pipeline):
    pipeline.write_bytes("pool/empty.jsonl", b"")
    pipeline.write_bytes("pool/blank.jsonl", b"\n\n")
    stages = pipeline.run()
    assert stages["raw_counts"].errors == stages["target_counts"].errors == []
    [message] = stages["importance_estimator"].errors
    assert "there is no text in the 2 shards that are counted" in message
    assert not any("min_tokens" in error for stage in stages.values() for error in stage.errors)


def test_a_pool_of_which_no_shard_is_counted_is_not_told_to_lower_min_tokens(pipeline):
    pipeline.write("pool/other.jsonl", [{"body": "a b"}])
    stages = pipeline.run()
    assert "the records have: body" in stages["raw_counts"].errors[0]
    assert not any("min_tokens" in error for stage in stages.values() for error in stage.errors)


def test_quarantine_is_empty_again_once_the_file_is_repaired(pipeline):
    pipeline.write_pool()
    pipeline.write_bytes("pool/mixed.jsonl", b"{not json\n" + lines(sentences("law", 1, 8))[0])
    pipeline.run()
    assert len(quarantined(pipeline)) == 1
    pipeline.write("pool/mixed.jsonl", sentences("law", 3, 8))
    pipeline.run()
    assert quarantined(pipeline) == []


def test_an_empty_file_is_a_shard_without_documents(pipeline):
    pipeline.write_pool()
    pipeline.write_bytes("pool/empty.jsonl", b"")
    stages = pipeline.run()
    assert not any(stage.errors for stage in stages.values())
    assert pipeline.rows(
        "SELECT rows FROM latest WHERE asset = 'raw_counts' AND partition = 'pool.empty'"
    ) == [(0,)]


def test_no_document_left_after_min_tokens_says_how_long_the_longest_is(pipeline):
    pipeline.write_pool()
    pipeline.config["selections"][0]["min_tokens"] = 100_000
    [message, *_] = pipeline.errors()
    assert (
        "picked" in message and "min_tokens" in message and "100000" in message and "120 documents" in message
    )


def test_a_selection_larger_than_the_pool_takes_all_and_says_so(pipeline):
    pipeline.write_pool()
    pipeline.config["selections"][0]["size"] = {"documents": 5000}
    assert pipeline.errors() == []
    assert len(pipeline.picks()) == 120
    [(note,)] = pipeline.rows("SELECT metadata->>'note' FROM latest WHERE asset = 'selections'")
    assert "5,000" in note and "120" in note


def test_a_fraction_of_less_than_one_document_says_so(pipeline):
    pipeline.write_pool()
    pipeline.config["selections"][0]["size"] = {"fraction": 0.001}
    [message, *_] = pipeline.errors()
    assert "picked" in message and "120" in message and "size.fraction" in message


def test_a_target_without_tokens_names_the_target_and_its_file(pipeline):
    pipeline.write_pool()
    path = pipeline.write("medicine.jsonl", [{"text": "   "}, {"text": ""}])
    messages = pipeline.errors()
    assert "'medicine'" in messages[0] and str(path) in messages[0] and "no tokens" in messages[0]


def test_a_missing_target_file_fails_that_target_and_no_other(pipeline):
    pipeline.write_pool()
    pipeline.config["targets"].append({"name": "gone", "uri": "data/gone.jsonl"})
    pipeline.config["selections"].append({"name": "other", "targets": ["gone"], "size": {"documents": 3}})
    stages = pipeline.run()
    [message] = stages["target_counts"].errors
    assert message.startswith("target_counts[gone]: ") and "gone.jsonl" in message
    assert len(pipeline.picks()) == 20
    # One cause, one error.
    assert stages["selections"].left_out == {"selections[other]": "without target_counts[gone]"}
    assert stages["evaluations"].left_out == {"evaluations[other]": "without selections[other]"}
    assert stages["selections"].errors == stages["evaluations"].errors == []


def test_duplicate_ids_and_duplicate_documents_are_kept_apart_and_counted(pipeline):
    pipeline.write_pool()
    record = sentences("medicine", 1, seed=9)[0]
    pipeline.write("pool/twice.jsonl", [record, record, {**record, "text": record["text"] + " more"}])
    pipeline.config["selections"][0]["size"] = {"documents": 123}
    assert pipeline.errors() == []
    rows = pipeline.rows(f"SELECT \"row\" FROM selections WHERE doc_id = '{record['id']}' ORDER BY 1")
    assert rows == [(0,), (1,), (2,)]
    assert pipeline.rows(
        "SELECT metadata->>'duplicate_documents' FROM latest "
        "WHERE asset = 'raw_counts' AND partition = 'pool.twice'"
    ) == [("1",)]


def test_an_id_with_control_characters_comes_back_as_it_was(pipeline):
    pipeline.write_pool()
    strange = "a\u0000b\u001b[31m\nc"
    pipeline.write("pool/strange.jsonl", [{**sentences("medicine", 1, 9)[0], "id": strange}])
    pipeline.config["selections"][0]["size"] = {"documents": 121}
    assert pipeline.errors() == []
    assert (strange,) in pipeline.rows("SELECT doc_id FROM selections")
    assert strange in {json.loads(line)["id"] for line in pipeline.records()}


def test_a_file_name_that_dagster_cannot_hold_becomes_a_key_that_it_can(pipeline):
    pipeline.write_pool()
    path = pipeline.write("pool/a|b...ü c.jsonl", sentences("law", 3, 8))
    assert pipeline.errors() == []
    [(key,)] = pipeline.rows(f"SELECT shard FROM shards WHERE uri = '{path}'")
    assert key.startswith("pool.a_b") and "..." not in key and "|" not in key
    assert pipeline.rows(f"SELECT count(*) FROM documents WHERE shard = '{key}'") == [(3,)]


def test_other_features_under_existing_outputs_recompute_everything_and_mix_nothing(done):
    done.config["features"]["buckets"] = 500
    stages = done.run()
    assert [len(stage.due) for stage in stages.values()] == [3, 1, 1, 3, 1, 1]
    assert not any(stage.errors for stage in stages.values())
    assert done.rows("SELECT max(bucket) < 500 FROM raw_counts") == [(True,)]
    assert done.rows("SELECT count(*) FROM log_ratios") == [(500,)]


def test_weights_refuse_features_of_another_configuration_and_name_each_difference(done):
    workspace = done.workspace()
    plan = workspace.plan()
    done.config["features"].update(buckets=500, ngrams=3)
    other = done.workspace().plan()
    name = workspace.store.name("features", "pool.law")
    with pytest.raises(RuntimeError) as caught:
        list(workspace.store.read_features(name, other.raw_counts("pool.law").origin))
    message = str(caught.value)
    assert "features.buckets is 1000 there, 500 here" in message
    assert "features.ngrams is 2 there, 3 here" in message
    assert "raw_counts[pool.law]" in message
    assert list(workspace.store.read_features(name, plan.raw_counts("pool.law").origin))


def test_a_full_disk_fails_the_partition_and_leaves_the_old_outputs(done, monkeypatch):
    before = done.rows("SELECT * FROM documents ORDER BY ALL")
    features = {p.name: p.read_bytes() for p in (done.home / "features").glob("*.arrow")}
    done.config["features"]["buckets"] = 500
    from dsir_dagster.resources import sealed

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sealed.BatchWriter, "__enter__", full)
    stages = done.run()
    assert "No space left on device" in stages["raw_counts"].errors[0]
    assert any("features/pool.law.arrow" in error for error in stages["raw_counts"].errors)
    monkeypatch.undo()
    assert done.rows("SELECT * FROM documents ORDER BY ALL") == before
    assert {p.name: p.read_bytes() for p in (done.home / "features").glob("*.arrow")} == features
    assert done.errors() == []


@pytest.mark.slow
def test_a_line_of_100_megabytes_is_one_document(pipeline):
    pipeline.write_pool()
    record = {"id": "long", "text": "word " * 20_000_000}
    pipeline.write("pool/long.jsonl", [record])
    assert pipeline.errors() == []
    assert pipeline.rows("SELECT n_tokens FROM documents WHERE doc_id = 'long'") == [(20_000_000,)]


def test_quarantined_rows_are_written_as_they_come(pipeline, monkeypatch):
    monkeypatch.setattr(raw_counts, "ROW_GROUP", 3)
    monkeypatch.setattr(raw_counts, "read_blocks", partial(read_blocks, block_bytes=100))
    good = lines(sentences("law", 1, 8))[0]
    path = pipeline.write_bytes("pool/mixed.jsonl", b"".join(b"{bad\n" + good + b"\n" for _ in range(10)))
    pipeline.run()
    with pq.ParquetFile(pipeline.home / "quarantine/pool.mixed.parquet") as file:
        assert file.num_row_groups == 4
        assert file.read()["row"].to_pylist() == list(range(0, 20, 2))
    path.write_bytes(good)
    pipeline.run()
    assert not (pipeline.home / "quarantine/pool.mixed.parquet").exists()
