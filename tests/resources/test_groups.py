"""Which files form a group, and what comes, goes or changes with a file."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsir_dagster.resources.groups import LARGEST, SMALLEST, Listings, by_file, grouped, starts
from dsir_dagster.resources.plan import UNREADABLE, ShardFile

BYTES = 10_000

#: Files by name, with their sizes.
FILES = st.dictionaries(
    st.text("abc.", min_size=1, max_size=6), st.integers(0, 3 * BYTES), min_size=1, max_size=40
)


def groups(files: dict[str, int], n_bytes: int = BYTES) -> list[tuple[tuple[str, int], ...]]:
    """Group files by name; each group as its files with their sizes."""
    listed = sorted(files.items())
    first = starts([name for name, _ in listed], [size for _, size in listed], n_bytes)
    return [tuple(listed[begin:end]) for begin, end in pairwise([*first, len(listed)])]


def many(n: int, seed: int = 0) -> dict[str, int]:
    """Return files of about BYTES / 20."""
    chance = random.Random(seed)
    return {f"part-{i:06}": chance.randrange(BYTES // 10) for i in range(n)}


@given(FILES)
def test_every_file_is_in_one_group_in_order_and_no_group_is_too_large(files):
    found = groups(files)
    assert [file for group in found for file in group] == sorted(files.items())
    assert all(group for group in found)
    for group in found:
        assert len(group) == 1 or sum(size for _, size in group) <= LARGEST * BYTES
        assert len(group) <= LARGEST * SMALLEST
    assert found == groups(dict(reversed(files.items())))


@given(FILES, st.text("abc.", min_size=7, max_size=9), st.integers(0, 3 * BYTES))
def test_a_file_that_comes_or_goes_changes_groups_around_it_alone(files, name, size):
    without, having = groups(files), groups(files | {name: size})
    changed = set(without) ^ set(having)
    # What comes before its own group, and what follows once both begin a group at the same file, is the same.
    at = next(i for i, group in enumerate(having) if (name, size) in group)
    assert having[:at] == without[:at] or having[: at - 1] == without[: at - 1]
    common = {group[0][0] for group in without} & {group[0][0] for group in having}
    after = min((first for first in common if first > name), default="d")
    assert all(group[0][0] < after for group in changed)


@given(FILES, st.integers(0, 3 * BYTES))
def test_a_file_at_the_end_changes_the_last_group_alone(files, size):
    without, having = groups(files), groups(files | {"d": size})
    assert having[: len(without) - 1] == without[:-1]
    assert having[len(without) - 1 :] in ([(*without[-1], ("d", size))], [without[-1], (("d", size),)])


def test_a_file_in_the_middle_mostly_changes_its_own_group_alone():
    files = many(2000)
    whole = set(groups(files))
    changes = [
        len(whole - set(groups({n: s for n, s in files.items() if n != name}))) for name in list(files)[::20]
    ]
    assert changes.count(1) > 0.7 * len(changes) and max(changes) < 10
    grown = [len(whole - set(groups(files | {name: files[name] + 100}))) for name in list(files)[::20]]
    assert grown.count(1) > 0.7 * len(grown) and max(grown) < 10


def test_groups_have_about_the_bytes_that_are_wanted():
    files = many(20_000)
    found = groups(files)
    assert 0.75 * BYTES < sum(files.values()) / len(found) < BYTES


def test_empty_files_and_files_of_unknown_size_do_not_all_become_one_group():
    found = groups(dict.fromkeys(many(30_000), 0))
    assert 4 < len(found) < 20


def test_one_file_is_a_group_and_so_is_one_that_is_larger_than_two():
    assert groups({"a": 1}) == [(("a", 1),)]
    large = 5 * BYTES
    assert groups({"a": 0, "b": large, "c": 0}) == [(("a", 0),), (("b", large),), (("c", 0),)]


def file(name: str, stamp: str = "1", size: int = 1, modified: float = 1.0) -> ShardFile:
    return ShardFile(f"s.{name}", "s", f"/pool/{name}.jsonl", size, modified, stamp)


def test_a_group_has_the_key_of_its_first_file_and_a_stamp_of_names_and_stamps():
    [group] = grouped([file("a", modified=5.0), file("b", size=2)], BYTES)
    assert (group.shard, group.uri, group.size, group.modified) == ("s.a", "/pool/a.jsonl", 3, 5.0)
    assert [part.shard for part in group.parts] == ["s.a", "s.b"]
    stamps = {
        shard.stamp
        for files in (
            [file("a"), file("b")],
            [file("a"), file("b", stamp="2")],
            [file("a"), file("c")],
            [file("a")],
        )
        for shard in grouped(files, BYTES)
    }
    assert len(stamps) == 4 and group.stamp in stamps
    moved = [ShardFile(each.shard, "s", f"/moved{each.uri}", 1, 9.0, each.stamp) for each in group.files]
    assert grouped(moved, BYTES)[0].stamp == group.stamp


def test_a_group_with_an_unreadable_file_has_its_stamp():
    [group] = grouped([file("a"), file("b", stamp=f"{UNREADABLE}: b is gone")], BYTES)
    assert group.stamp == f"{UNREADABLE}: b is gone" and not group.readable


def test_rows_of_a_group_are_those_of_its_files():
    [group] = grouped([file(name) for name in "abcd"], BYTES)
    first_rows = np.array([0, 3, 3, 5])  # b is empty
    found = [
        (uri[6], rows.tolist(), at)
        for uri, rows, at in by_file(group, first_rows, np.array([0, 2, 3, 3, 4, 7]))
    ]
    assert found == [("a", [0, 2], slice(0, 2)), ("c", [0, 0, 1], slice(2, 5)), ("d", [2], slice(5, 6))]
    assert [
        (uri, rows.tolist()) for uri, rows, _ in by_file(file("a"), np.zeros(1, int), np.array([4, 6]))
    ] == [("/pool/a.jsonl", [4, 6])]


@pytest.mark.parametrize("damage", [b"", b"PAR1 not"])
def test_a_listing_is_read_back_and_a_damaged_one_is_empty(tmp_path, damage):
    listings = Listings(tmp_path)
    assert listings.read("s") == []
    listings.write("s", [file("a"), file("b", stamp=f"{UNREADABLE}: gone")])
    [found] = listings.read("s")
    assert found.pop("seen_at").tzinfo and found == {
        "uri": "/pool/a.jsonl",
        "size": 1,
        "modified": 1.0,
        "stamp": "1",
    }
    [path] = (tmp_path / "listings").iterdir()
    before = path.stat().st_mtime_ns
    listings.write("s", [file("a")])
    assert path.stat().st_mtime_ns == before, "nothing changed"
    path.write_bytes(damage)
    assert listings.read("s") == []
    listings.write("s", [])
    assert listings.read("s") == [] and list((tmp_path / "listings").iterdir()) == [path]
