"""Bulk files in an object store: the same bytes, the same answers, and DSIR_HOME keeps only what is small."""

import shutil

import pytest

from dsir_dagster.resources import bulk_files, object_stores
from dsir_dagster.resources.settings import ConfigError
from dsir_dagster.resources.verification import rebuild_catalog, verify_files
from tests.buckets import bucket_in
from tests.pipeline import SmallPipeline

STORE = "s3://bucket/homes/a"


@pytest.fixture(scope="module")
def buckets(tmp_path_factory):
    """The folder of all buckets, for as long as this module's tests run."""
    folder = tmp_path_factory.mktemp("buckets")

    def file_system(uri: str):
        scheme, _, path = uri.partition("://")
        return (bucket_in(folder), path) if scheme == "s3" else None

    with pytest.MonkeyPatch.context() as patch:
        for module in (bulk_files, object_stores):
            patch.setattr(module, "arrow_file_system", file_system)
        yield folder


def configured(folder) -> SmallPipeline:
    small = SmallPipeline(folder)
    small.config["selections"][0] |= {"output": "jsonl"}
    return small


@pytest.fixture(scope="module")
def remote(buckets, tmp_path_factory):
    """A pipeline with its bulk files in a bucket, after a run."""
    small = configured(tmp_path_factory.mktemp("remote"))
    small.config["store"] = STORE
    small.write_pool()
    assert small.errors() == []
    return small


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same pipeline with all files in its home, after a run."""
    small = configured(tmp_path_factory.mktemp("local"))
    small.write_pool()
    assert small.errors() == []
    return small


def checksums(small: SmallPipeline) -> dict[str, str]:
    """Return the checksum of every file of the newest outputs; a report names its folder, which is another."""
    latest = small.workspace().latest().values()
    return {
        name: checksum
        for row in latest
        for name, checksum in row.files.items()
        if not name.endswith("report.html")
    }


def in_bucket(buckets) -> set[str]:
    home = buckets / STORE.partition("://")[2]
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


def test_every_file_is_the_same_and_lies_in_the_bucket(remote, local, buckets):
    names = checksums(remote)
    assert names == checksums(local)
    assert in_bucket(buckets) >= names.keys()
    there = {str(path.relative_to(remote.home)) for path in remote.home.rglob("*") if path.is_file()}
    assert not there & names.keys()
    assert any(name.endswith("report.html") for name in there)  # people open it


def test_a_second_run_finds_everything_fresh(remote):
    assert {output.state for output in remote.workspace().plan().outputs()} == {"fresh"}


@pytest.mark.parametrize("view", ["documents", "raw_counts", "log_ratios", "weights", "selections"])
def test_views_answer_from_the_bucket(remote, local, view):
    query = f"FROM {view} SELECT * ORDER BY ALL"
    asked = []
    for small in (remote, local):
        with small.workspace().catalog.reading() as connection:
            asked.append(connection.sql(query).fetchall())
    assert asked[0] == asked[1] != []


def test_folders_are_shown_as_uris(remote):
    with remote.workspace().catalog.reading() as connection:
        [(folder,)] = connection.sql("SELECT folder FROM selection_versions").fetchall()
    assert folder.startswith(f"{STORE}/selections/picked/")


def test_a_damaged_object_is_set_aside_and_made_again(remote, local, buckets):
    path = buckets / "bucket/homes/a/features/pool.law.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    verified = verify_files(remote.workspace())
    assert [damage.file for damage in verified.damages] == ["features/pool.law.arrow"]
    assert (remote.home / "damaged/features/pool.law.arrow").read_bytes() == content and not path.exists()
    assert remote.errors() == []
    assert checksums(remote) == checksums(local)


def test_a_lost_catalog_is_rebuilt_from_the_bucket(remote, local):
    (remote.home / "catalog.duckdb").unlink()
    (remote.home / "catalog.backup.duckdb").unlink()
    assert rebuild_catalog(remote.workspace()).rejected == []
    assert checksums(remote) == checksums(local)
    assert {output.state for output in remote.workspace().plan().outputs()} == {"fresh"}


def test_a_lost_object_is_missing_and_made_again(remote, local, buckets):
    (buckets / "bucket/homes/a/weights/target=medicine/pool.law.parquet").unlink()
    output = remote.workspace().plan().weights("pool.law")
    assert output.state == "missing" and "weights/target=medicine/pool.law.parquet" in output.why
    assert remote.errors() == []
    assert checksums(remote) == checksums(local)


def test_a_home_stays_where_it_was_made(remote, local):
    for small, store in ((remote, None), (remote, "s3://bucket/other"), (local, STORE)):
        given = small.config.get("store")
        small.config["store"] = store
        with pytest.raises(ConfigError, match=r"store: .*but the files of .* are in"):
            small.workspace()
        small.config["store"] = given


@pytest.mark.parametrize("uri", ["/a/folder", "https://host/a", "s3://", "s3://key:secret@bucket/a"])
def test_what_is_no_place_for_files_is_refused_and_no_secret_repeated(local, uri):
    local.config["store"] = uri
    with pytest.raises(ConfigError, match="store: ") as refused:
        local.workspace()
    assert "secret" not in str(refused.value).replace("AWS_SECRET", "")
    del local.config["store"]


def test_a_moved_home_finds_its_objects(remote, local, tmp_path):
    moved = remote.copy(tmp_path)
    shutil.rmtree(moved.home / "evaluations")
    assert checksums(moved) == checksums(local)
