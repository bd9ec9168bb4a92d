"""Which files of a shard's weights are made again, and which stay."""

import os

import pyarrow.parquet as pq
import pytest

from dsir_dagster.assets import weights
from dsir_dagster.resources.verification import verify_files
from tests.pipeline import sentences

NEW = {"name": "law", "uri": "data/law.jsonl"}


@pytest.fixture
def weighed(done, monkeypatch):
    """A pipeline that ran, and the numbers of targets that documents are weighed under from here on."""
    numbers = []

    class Recorded(weights.Weigher):
        def __call__(self, features):
            numbers.append(self.targets)
            return super().__call__(features)

    monkeypatch.setattr(weights, "Weigher", Recorded)
    done.write("law.jsonl", sentences("law", 30, seed=200))
    return done, numbers


def files(pipeline):
    found = (pipeline.home / "weights").glob("target=*/pool.*")
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in found}


def unchanged(pipeline, target):
    """Return what tells that a target's files were not written again."""
    folder = pipeline.home / "weights" / f"target={target}"
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def log_weights(pipeline, target):
    return pipeline.rows(
        f"SELECT shard, \"row\", log_weight FROM weights WHERE target = '{target}' ORDER BY ALL"
    )


def weigh_all_again(pipeline):
    for shard in ("code", "law", "medicine"):
        assert pipeline.materialize("weights", partition=f"pool.{shard}", force=True).success


def test_a_new_target_leaves_the_others_log_weights_and_does_not_weigh_them_again(weighed):
    pipeline, numbers = weighed
    before, written = log_weights(pipeline, "medicine"), unchanged(pipeline, "medicine")
    pipeline.config["targets"].append(NEW)
    assert len(pipeline.run()["weights"].due) == 3
    assert numbers == [1, 1, 1]
    assert unchanged(pipeline, "medicine") == written
    assert log_weights(pipeline, "medicine") == before
    assert len(log_weights(pipeline, "law")) == len(before)
    assert verify_files(pipeline.workspace()).damages == []
    one_by_one = files(pipeline)
    assert len(one_by_one) == 6
    weigh_all_again(pipeline)
    assert numbers == [1, 1, 1, 2, 2, 2]
    assert files(pipeline) == one_by_one


def test_a_home_whose_lineage_knows_no_times_takes_a_new_target(weighed):
    """As that of a catalog of version 1."""
    pipeline, _ = weighed
    with pipeline.workspace().catalog.transaction() as connection:
        connection.execute("UPDATE materializations SET modified = MAP {}::MAP(VARCHAR, BIGINT)")
    pipeline.config["targets"].append(NEW)
    assert pipeline.errors() == []
    assert {each.state for each in pipeline.workspace().plan().outputs()} == {"fresh"}


def test_a_shard_without_documents_takes_a_new_target_too(weighed):
    pipeline, _ = weighed
    pipeline.write_bytes("pool/empty.jsonl", b"")
    assert pipeline.errors() == []
    pipeline.config["targets"].append(NEW)
    assert pipeline.errors() == []


def test_a_changed_target_is_weighed_again_alone(weighed):
    pipeline, numbers = weighed
    pipeline.config["targets"].append(NEW)
    pipeline.run()
    before = log_weights(pipeline, "medicine"), log_weights(pipeline, "law")
    pipeline.write("law.jsonl", sentences("law", 30, seed=201))
    pipeline.run()
    assert numbers == [1] * 6
    assert log_weights(pipeline, "medicine") == before[0] and log_weights(pipeline, "law") != before[1]
    taken_over = files(pipeline)
    weigh_all_again(pipeline)
    assert files(pipeline) == taken_over


def test_a_target_that_goes_costs_no_weighing(weighed):
    pipeline, numbers = weighed
    pipeline.config["targets"].append(NEW)
    pipeline.run()
    before = log_weights(pipeline, "medicine")
    del pipeline.config["targets"][1], numbers[:]
    assert len(pipeline.run()["weights"].due) == 3
    assert not numbers
    assert log_weights(pipeline, "medicine") == before and not log_weights(pipeline, "law")
    assert {name.split("/")[0] for name in files(pipeline)} == {"target=medicine"}
    assert pipeline.errors() == [] and verify_files(pipeline.workspace()).damages == []


def test_a_new_shard_moves_the_pool_so_that_all_is_weighed_again(weighed):
    pipeline, numbers = weighed
    pipeline.config["targets"].append(NEW)
    pipeline.run()
    del numbers[:]
    pipeline.write("pool/more.jsonl", sentences("medicine", 5, 9))
    pipeline.run()
    assert numbers == [2] * 4


def test_a_file_that_is_gone_is_written_again_with_the_new_targets(weighed):
    pipeline, numbers = weighed
    before = files(pipeline)
    (pipeline.home / "weights/target=medicine/pool.law.parquet").unlink()
    pipeline.config["targets"].append(NEW)
    assert pipeline.errors() == []
    assert sorted(numbers) == [1, 1, 2]
    assert files(pipeline).items() > before.items()


@pytest.mark.parametrize("damage", ["cut off", "of another value"])
def test_a_damaged_file_that_stays_beside_a_new_target_does_not_count_as_what_was_written(weighed, damage):
    pipeline, numbers = weighed
    before = files(pipeline)
    path = pipeline.home / "weights/target=medicine/pool.law.parquet"
    was = path.stat()
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        table = pq.read_table(path)
        values = table["log_weight"].to_numpy() + 1.0
        pq.write_table(table.set_column(2, table.schema.field(2), [values]), path)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))  # its time does not tell
    pipeline.config["targets"].append(NEW)
    pipeline.run()
    assert numbers == [1, 1, 1]
    assert [each.file for each in verify_files(pipeline.workspace()).damages] == [
        "weights/target=medicine/pool.law.parquet"
    ]
    assert pipeline.errors() == []
    assert numbers == [1, 1, 1, 1]
    assert files(pipeline).items() > before.items()


def test_a_target_that_is_named_by_a_date_is_a_string_in_the_view(weighed):
    pipeline, _ = weighed
    pipeline.config["targets"].append({**NEW, "name": "2026-11-27"})
    assert pipeline.errors() == []
    assert pipeline.rows("SELECT DISTINCT target, typeof(target) FROM weights ORDER BY ALL") == [
        ("2026-11-27", "VARCHAR"),
        ("medicine", "VARCHAR"),
    ]
    [(_, plan)] = pipeline.rows(
        "EXPLAIN ANALYZE SELECT sum(log_weight) FROM weights WHERE target = '2026-11-27'"
    )
    assert "Scanning Files: 3/7" in plan
