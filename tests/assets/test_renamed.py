"""A file that is renamed is the same shard's content: it is not counted again, and no document enters or leaves.

What belongs here: names and places of the pool's files. What does not: content that changed (``test_pipeline.py``).
"""

import pytest

from dsir_dagster.resources.discovery import renamed
from dsir_dagster.resources.plan import ShardFile
from dsir_dagster.resources.workspace import Workspace
from tests.pipeline import sentences


def due(pipeline):
    return [output.name for stage in pipeline.run().values() for output in stage.due]


def test_a_renamed_file_is_the_same_shard_and_nothing_is_computed_again(done):
    pool, picks = done.data / "pool", done.picks()
    for _ in range(2):
        (pool / "medicine.jsonl").rename(pool / "renamed.jsonl")
        assert due(done) == [] and done.workspace().discovery.vanished() == []
        assert done.rows("SELECT uri FROM shards WHERE shard = 'pool.medicine'") == [
            (str(pool / "renamed.jsonl"),)
        ]
        assert done.picks() == picks
        assert done.rows("SELECT count(*) FROM selection_changes('picked')") == [(0,)]
        [(file, _)] = done.rows(
            "SELECT DISTINCT c.uri, c.sha256 FROM (SELECT DISTINCT version, shard FROM selections) AS s, "
            "chain(s.version, s.shard) AS c WHERE c.asset = 'raw_counts'"
        )
        assert file == str(pool / "renamed.jsonl")
        (pool / "renamed.jsonl").rename(pool / "medicine.jsonl")


@pytest.mark.slow
def test_a_renamed_file_that_changes_stays_the_shard_that_it_is(done):
    pool = done.data / "pool"
    (pool / "law.jsonl").rename(pool / "tort.jsonl")
    assert due(done) == []
    done.write("pool/tort.jsonl", sentences("law", 41, seed=1))
    assert due(done)[0] == "raw_counts[pool.law]"
    # A file whose own name stands for the shard takes it back; the renamed one is a shard of its own then.
    done.write("pool/law.jsonl", sentences("law", 40, seed=1))
    assert due(done)[:2] == ["raw_counts[pool.law]", "raw_counts[pool.tort]"]


def test_a_copy_of_a_file_is_another_shard(done):
    (done.data / "pool/copy.jsonl").write_bytes((done.data / "pool/law.jsonl").read_bytes())
    assert due(done)[0] == "raw_counts[pool.copy]"


def test_a_file_that_vanished_and_comes_back_under_another_name_is_the_shard_again(done):
    content = (done.data / "pool/law.jsonl").read_bytes()
    (done.data / "pool/law.jsonl").unlink()
    assert done.workspace().plan() and done.workspace().discovery.vanished() == ["pool.law"]
    done.write_bytes("pool/tort.jsonl", content)
    assert due(done) == [] and done.workspace().discovery.vanished() == []


def test_a_pool_that_moves_and_a_file_that_is_renamed_on_the_way(done):
    (done.data / "pool").rename(done.data / "moved")
    (done.data / "moved/law.jsonl").rename(done.data / "moved/tort.jsonl")
    done.config["raw"][0]["uri"] = "data/moved/*"
    assert due(done) == []


def test_files_of_another_configuration_with_the_same_source_neither_vanish_nor_are_taken_over(done):
    other = done.folder / "other.yaml"
    text = done.config_path.read_text().replace("data/pool/*", "data/elsewhere/*")
    done.write_bytes("elsewhere/mine.jsonl", (done.data / "pool/law.jsonl").read_bytes())
    other.write_text(text)
    shards = sorted(Workspace(other, done.home).plan().shards)
    assert shards == ["pool.mine"]
    assert (
        done.workspace().discovery.vanished() == [] and Workspace(other, done.home).discovery.vanished() == []
    )
    assert done.rows("SELECT count(DISTINCT shard) FROM documents") == [(3,)]
    assert due(done) == []


def test_of_several_candidates_the_first_by_key_is_taken_whatever_the_order_of_the_files():
    def file(name: str, stamp: str = "same") -> ShardFile:
        return ShardFile(f"s.{name}", "s", f"/pool/{name}", 1, 1.0, stamp)

    rows = [{"shard": f"s.{name}", "source": "s", "uri": f"/pool/{name}", "stamp": "same"} for name in "cba"]
    rows.append({"shard": "t.a", "source": "t", "uri": "/pool/x", "stamp": "same"})
    files = [file("y"), file("x"), file("z", "else")]
    for given in (files, files[::-1]):
        found = {each.uri: each.shard for each in renamed(given, rows, {"s.a", "s.b", "s.c", "t.a"})}
        assert found == {"/pool/x": "s.a", "/pool/y": "s.b", "/pool/z": "s.z"}
