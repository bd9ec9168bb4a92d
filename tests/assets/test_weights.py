"""What the weights of a shard are made of again, and what is taken over from the file before."""

import pyarrow.parquet as pq
import pytest

import assets.weights
from tests.pipeline import sentences

NEW = {"name": "law", "uri": "data/law.jsonl"}


@pytest.fixture
def weighed(done, monkeypatch):
    """A pipeline that ran, and the numbers of targets that documents are weighed under from here on."""
    numbers = []
    weigh = assets.weights.log_weights

    def recorded(features, ratios):
        numbers.append(len(ratios))
        return weigh(features, ratios)

    monkeypatch.setattr(assets.weights, "log_weights", recorded)
    done.write("law.jsonl", sentences("law", 30, seed=200))
    return done, numbers


def files(pipeline):
    return {path.name: path.read_bytes() for path in (pipeline.home / "weights").glob("pool.*")}


def log_weights(pipeline, target):
    return pipeline.rows(
        f"SELECT shard, \"row\", log_weight FROM weights WHERE target = '{target}' ORDER BY ALL"
    )


def weigh_all_again(pipeline):
    for shard in ("code", "law", "medicine"):
        assert pipeline.materialize("weights", partition=f"pool.{shard}", force=True).success


def test_a_new_target_leaves_the_others_log_weights_and_does_not_weigh_them_again(weighed):
    pipeline, numbers = weighed
    before = log_weights(pipeline, "medicine")
    pipeline.config["targets"].append(NEW)
    assert len(pipeline.run()["weights"].due) == 3
    assert numbers == [1, 1, 1]
    assert log_weights(pipeline, "medicine") == before
    assert len(log_weights(pipeline, "law")) == len(before)
    taken_over = files(pipeline)
    weigh_all_again(pipeline)
    assert numbers == [1, 1, 1, 2, 2, 2]
    assert files(pipeline) == taken_over


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


def test_a_new_shard_moves_the_pool_so_that_all_is_weighed_again(weighed):
    pipeline, numbers = weighed
    pipeline.config["targets"].append(NEW)
    pipeline.run()
    del numbers[:]
    pipeline.write("pool/more.jsonl", sentences("medicine", 5, 9))
    pipeline.run()
    assert numbers == [2] * 4


@pytest.mark.parametrize("damage", ["gone", "cut off", "of another value"])
def test_where_the_file_before_is_damaged_all_targets_are_weighed_again(weighed, damage):
    pipeline, numbers = weighed
    before = log_weights(pipeline, "medicine")
    path = pipeline.home / "weights" / "pool.law.parquet"
    if damage == "gone":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        table = pq.read_table(path)
        values = table["log_weight"].to_numpy() + 1.0
        pq.write_table(table.set_column(3, table.schema.field(3), [values]), path)
    pipeline.config["targets"].append(NEW)
    assert pipeline.errors() == []
    assert sorted(numbers) == [1, 1, 2]
    assert log_weights(pipeline, "medicine") == before
