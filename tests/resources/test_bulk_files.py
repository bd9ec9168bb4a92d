"""Bulk files: a folder and an object store do the same, and nothing is ever half there."""

from pathlib import Path

import pytest

from dsir_dagster.resources import bulk_files
from dsir_dagster.resources.bulk_files import Folder, Objects
from tests.buckets import bucket_in


@pytest.fixture(params=["folder", "objects"])
def files(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return Folder(tmp_path / "home")
    monkeypatch.setattr(
        bulk_files, "arrow_file_system", lambda uri: (bucket_in(tmp_path), uri.partition("://")[2])
    )
    return Objects("s3://bucket/prefix")


def put(files, name: str, content: bytes) -> None:
    new = files.scratch(name)
    new.write_bytes(content)
    files.publish(new, name)


def get(files, name: str) -> bytes:
    with files.open(name) as file:
        return file.readall()


def test_a_file_is_found_by_name_once_it_is_published(files):
    assert files.look("features/a.arrow") is None and files.listing("features") == {}
    with pytest.raises(FileNotFoundError):
        files.open("features/a.arrow")
    put(files, "features/a.arrow", b"first")
    put(files, "weights/target=law/a.parquet", b"deeper")
    assert get(files, "features/a.arrow") == b"first"
    assert files.look("features/a.arrow").bytes == 5
    assert files.listing("features") == {"features/a.arrow": files.look("features/a.arrow")}
    assert list(files.listing("weights")) == ["weights/target=law/a.parquet"]


def test_a_file_in_the_making_is_in_no_listing(files):
    scratch = files.scratch("features/a.arrow")
    scratch.write_bytes(b"half")
    assert files.listing("features") == {}


def test_a_file_is_replaced_and_its_time_tells(files):
    put(files, "features/a.arrow", b"first")
    before = files.look("features/a.arrow").modified
    put(files, "features/a.arrow", b"second")
    assert get(files, "features/a.arrow") == b"second" and files.look("features/a.arrow").modified > before


def test_files_and_folders_are_removed_and_what_is_absent_is_no_error(files):
    put(files, "features/a.arrow", b"x")
    for name in ("f/picks.parquet", "f/records-00000.jsonl", "fg/picks.parquet"):
        put(files, f"selections/law/{name}", b"x")
    for name in ("features/a.arrow", "features/b.arrow", "selections/law/f", "selections/none"):
        files.remove(name)
    assert files.listing("features") == {}
    assert list(files.listing("selections")) == ["selections/law/fg/picks.parquet"]


def test_a_file_is_taken_out(files, tmp_path):
    put(files, "features/a.arrow", b"damaged")
    to = tmp_path / "a.arrow"
    files.take_out("features/a.arrow", to)
    assert to.read_bytes() == b"damaged" and files.look("features/a.arrow") is None
    files.take_out("features/a.arrow", Path("/never/written"))  # nothing there: nothing to do


def test_a_name_says_where_it_is(files, tmp_path):
    here = files.where("features/a.arrow")
    assert here in (str(tmp_path / "home/features/a.arrow"), "s3://bucket/prefix/features/a.arrow")
