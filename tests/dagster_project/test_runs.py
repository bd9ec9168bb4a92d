"""Runs from the command line: how the partitions that are due become runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.runs import MOST_RANGES, partition_ranges


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


def test_up_to_the_limit_every_range_is_its_own_run_and_beyond_it_one_run_spans_them_all():
    order = [f"shard-{i:03}" for i in range(100)]
    every_other = order[1 : 2 * MOST_RANGES : 2]
    assert partition_ranges(every_other, order) == [(key, key) for key in every_other]
    one_more = order[1 : 2 * MOST_RANGES + 2 : 2]
    assert partition_ranges(one_more, order) == [(order[1], order[2 * MOST_RANGES + 1])]


def test_a_key_that_is_no_partition_is_an_error_that_names_it():
    with pytest.raises(KeyError, match="gone"):
        partition_ranges(["a", "gone"], ["a", "b"])


@given(st.permutations(range(60)), st.sets(st.integers(0, 59)))
def test_ranges_cover_all_keys_in_order_and_nothing_else_unless_they_are_too_many(order, chosen):
    order, keys = [str(i) for i in order], [str(i) for i in chosen]
    ranges = [(order.index(first), order.index(last)) for first, last in partition_ranges(keys, order)]
    covered = [order[i] for first, last in ranges for i in range(first, last + 1)]
    expected = [key for key in order if key in keys]
    assert len(ranges) <= MOST_RANGES
    assert [key for key in covered if key in keys] == expected
    gaps = sum(b not in keys and a in keys for a, b in zip(order, [*order[1:], None], strict=True))
    assert covered == expected or gaps > MOST_RANGES
