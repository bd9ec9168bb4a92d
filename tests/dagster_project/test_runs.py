"""Runs from the command line: how the partitions that are due become runs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.runs import MOST_RANGES, partition_ranges
from tests.pipeline import sentences


@pytest.mark.parametrize(
    ("keys", "order", "expected"),
    [
        ("", "abcdef", []),
        ("", "", []),
        ("c", "abcdef", ["cc"]),
        ("abcdef", "abcdef", ["af"]),
        ("abc", "abcdef", ["ac"]),
        ("ace", "abcdef", ["aa", "cc", "ee"]),
        ("abdef", "abcdef", ["ab", "df"]),
        ("fedba", "abcdef", ["ab", "df"]),  # the order of the keys does not matter
        ("abc", "cab", ["cb"]),  # the order of the partitions does
        ("ac", "cab", ["ca"]),
        ("af", "abcdef", ["aa", "ff"]),
    ],
)
def test_keys_are_cut_where_the_order_of_the_partitions_has_a_gap(keys, order, expected):
    assert partition_ranges(list(keys), list(order)) == [(first, last) for first, last in expected]


def test_an_asset_without_partitions_is_one_run():
    assert partition_ranges([""], [""]) == [("", "")]


def test_many_scattered_shards_become_one_run_and_none_between_them_is_touched(pipeline):
    for i in range(2 * MOST_RANGES + 3):
        pipeline.write(f"pool/part-{i:02d}.jsonl", sentences("medicine", 5, seed=i))
    assert pipeline.errors() == []
    for i in range(0, 2 * MOST_RANGES + 3, 2):
        pipeline.write(f"pool/part-{i:02d}.jsonl", sentences("medicine", 5, seed=100 + i))
    (pipeline.data / "pool/part-01.jsonl").unlink()
    stages = pipeline.run()
    assert [len(stage.errors) for stage in stages.values()] == [0] * 6
    assert len(stages["raw_counts"].due) == MOST_RANGES + 2 and len(stages["raw_counts"].run_ids) == 1
    made = "SELECT partition, count(*) FROM lineage WHERE asset = 'raw_counts' GROUP BY ALL"
    assert {count for name, count in pipeline.rows(made) if int(name[-2:]) % 2} == {1}


def test_the_run_of_each_selection_says_why_that_one_was_due(pipeline):
    pipeline.write_pool()
    [picked] = pipeline.config["selections"]
    pipeline.config["selections"].append({**picked, "name": "also"})
    stage = pipeline.run()["selections"]
    tags = [pipeline.instance.get_run_by_id(run_id).tags["dsir/due"] for run_id in stage.run_ids]
    assert tags == ["selections[picked]: never materialized", "selections[also]: never materialized"]


def test_a_key_that_is_no_partition_is_an_error_that_names_it():
    with pytest.raises(KeyError, match="gone"):
        partition_ranges(["a", "gone"], ["a", "b"])


@given(st.permutations(range(60)), st.sets(st.integers(0, 59)))
def test_ranges_cover_all_keys_in_order_and_nothing_else(order, chosen):
    order, keys = [str(i) for i in order], [str(i) for i in chosen]
    ranges = [(order.index(first), order.index(last)) for first, last in partition_ranges(keys, order)]
    covered = [order[i] for first, last in ranges for i in range(first, last + 1)]
    assert covered == [key for key in order if key in keys]
    assert all(b - a > 1 for (_, a), (b, _) in pairwise(ranges))
