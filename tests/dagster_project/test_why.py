"""``dsir why`` explains how a document got into a selection, or did not."""

import json
import re

import pytest

from dsir_dagster import cli
from tests.pipeline import SmallPipeline, sentences


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A pipeline that ran, with one document that is too short; read-only."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("done"))
    pipeline.write_pool()
    pipeline.write("pool/short.jsonl", sentences("medicine", 1, 9, length=10))
    assert pipeline.errors() == []
    return pipeline


@pytest.fixture
def why(done, capsys, monkeypatch):
    """Run ``dsir why``; return its exit code and output."""

    def ask(doc_id, selection="picked"):
        arguments = ["--config", str(done.config_path), "--home", str(done.home)]
        code = cli.main(["why", doc_id, "--selection", selection, *arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return ask


def test_a_picked_document_has_the_rank_key_and_chain_of_the_catalog(done, why):
    [(doc_id, rank, log_weight, key, shard)] = done.rows(
        "SELECT doc_id, rank, log_weight, key, shard FROM selections WHERE rank = 3"
    )
    code, text = why(doc_id)
    assert code == 0
    assert f"picked, rank {rank};" in text
    assert f"log weight {log_weight:,.3f}" in text and f"key {key:,.3f}" in text
    for asset, partition in (
        ("raw_counts", shard),
        ("target_counts", "medicine"),
        ("importance_estimator", ""),
        ("weights", shard),
        ("selections", "picked"),
    ):
        [(fingerprint, run)] = done.rows(
            f"SELECT fingerprint, run_id FROM latest WHERE asset = '{asset}' AND partition = '{partition}'"
        )
        assert fingerprint in text and run in text
    [(stamp,)] = done.rows(f"SELECT stamp FROM shards WHERE shard = '{shard}'")
    assert stamp in text


def test_a_document_that_was_not_picked_is_told_how_far_it_was_from_it(done, why):
    [(doc_id, threshold)] = done.rows(
        'SELECT doc_id, (SELECT min(key) FROM selections) FROM documents JOIN weights USING (shard, "row") '
        "WHERE doc_id NOT IN (SELECT doc_id FROM selections) AND n_tokens >= 100 "
        "ORDER BY log_weight LIMIT 1"
    )
    code, text = why(doc_id)
    assert code == 0
    [(key, below, by)] = re.findall(r"key ([-\d,.]+)\n.*below the threshold ([-\d,.]+) by ([\d,.]+)", text)
    key, below, by = (float(number.replace(",", "")) for number in (key, below, by))
    assert below == pytest.approx(threshold, abs=1e-3) and by == pytest.approx(below - key, abs=2e-3)


def test_a_document_that_is_not_eligible_is_told_so(why):
    code, text = why("medicine-9-0")
    assert code == 0 and "not eligible" in text and "min_tokens is 100" in text


def test_the_selected_record_alone_leads_to_the_same_place(done, why):
    record = json.loads(done.records()[0])
    _, text = why(record["id"])
    assert record["_dsir"]["version"] in text
    assert f"row {record['_dsir']['row']} (from 0)" in text and f"rank {record['_dsir']['rank']};" in text


@pytest.mark.parametrize(
    ("doc_id", "selection", "words"),
    [("nobody", "picked", "nobody"), ("law-1-0", "nothing", "there are: picked")],
)
def test_an_unknown_name_is_refused_with_what_there_is(why, doc_id, selection, words):
    code, text = why(doc_id, selection)
    assert code == 2 and words in text
