"""The store: round trips, origins that refuse other inputs, and files that are never half there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from dsir.features import FeatureSpec, featurize
from dsir_dagster.resources import bulk_files
from dsir_dagster.resources.sealed import DamagedFile
from dsir_dagster.resources.store import Origin, StaleInput, Store, file_kinds, table

FEATURES = {"tokenizer": "wordpunct", "ngrams": 2, "buckets": 10_000, "hash": "fast"}
ORIGIN = Origin("weights[wiki-0]", "0123456789abcdef", FEATURES)

SCHEMAS = {kind.name: kind.schema for kind in file_kinds().values() if kind.schema is not None}


def weights(n: int = 5) -> dict:
    return {
        "shard": "wiki-0",
        "row": np.arange(n),
        "log_weight": np.random.default_rng(n).normal(size=n),
    }


def files(folder: Path) -> list[str]:
    """Return every file and folder below a folder, apart from the store's empty ones."""
    own = (p for p in folder.rglob("*") if "~empty" not in str(p) and ".tmp" not in (p.name, p.parent.name))
    return sorted(str(p.relative_to(folder)) for p in own)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "home").prepare()


@pytest.fixture
def old(store) -> SimpleNamespace:
    """A file of weights that is there before, and what it holds."""
    name = store.name("raw_counts", "wiki-0")
    store.write_table(name, "weights", weights(), ORIGIN)
    path = store.home / name
    return SimpleNamespace(name=name, path=path, content=path.read_bytes(), files=files(store.home))


def is_as_it_was(old: SimpleNamespace, store: Store) -> bool:
    return old.path.read_bytes() == old.content and files(store.home) == old.files


# --- layout ------------------------------------------------------------------------------------------


def test_a_new_home_is_made_with_its_parents_and_one_file_without_rows_for_every_kind(tmp_path):
    home = tmp_path / "not" / "there" / "yet"
    Store(home).prepare()
    for kind, schema in SCHEMAS.items():
        (empty,) = (home / kind).rglob("*.parquet")
        found = pq.read_table(empty)
        assert found.num_rows == 0 and found.schema.equals(schema)
    assert (home / "features").is_dir()


def test_opening_a_home_again_leaves_what_is_there(store, old):
    again = Store(store.home).prepare()
    assert is_as_it_was(old, again)
    assert again.read_table(old.name, ORIGIN).num_rows == 5


# --- round trips -------------------------------------------------------------------------------------

ROWS = {
    "documents": {
        "shard": "s",
        "row": np.array([0, 2]),
        "doc_id": pa.array(["a", "ü|\n"]),
        "id_hash": np.array([7, 2**64 - 1], np.uint64),
        "source": pa.array(["x", "y"]),
        "n_tokens": np.array([1, 2**40]),
        "n_ngrams": np.array([1, 3]),
        "n_bytes": np.array([0, 5]),
        "content_hash": np.array([0, 2**64 - 1], np.uint64),
        "most_frequent_word": np.array([1, 2]),
        "informative_words": np.array([0, 3]),
        "single_digits": np.array([0, 1]),
    },
    "files": {
        "shard": "s",
        "name": ["s.a", "s.b"],
        "uri": ["/pool/a.csv", "/pool/b.csv"],
        "first_row": np.array([0, 7]),
        "rows": np.array([7, 2**40]),
        "size": np.array([0, 2**50]),
        "stamp": ["1", "2"],
    },
    "quarantine": {"shard": "s", "row": np.array([7]), "reason": pa.array(["not JSON"]), "excerpt": ["{"]},
    "raw_counts": {"shard": "s", "bucket": np.array([3, 9], np.int32), "count": np.array([1, 2**50])},
    "raw_distribution": {"name": "v1", "bucket": np.array([3, 9], np.int32), "count": np.array([1, 2**50])},
    "target_counts": {
        "target": "t",
        "bucket": np.array([3], np.int32),
        "count": np.array([0]),
        "holdout_count": np.array([5]),
    },
    "importance_estimator": {
        "target": "t",
        "bucket": np.arange(2, dtype=np.int32),
        "log_ratio": np.array([-1e-300, 17.3]),
    },
    "weights": {"shard": "s", "row": np.arange(2), "log_weight": np.array([-0.1, 1e300])},
    "selections": {
        "selection": "a",
        "version": "f",
        "epoch": np.array([1, 1]),
        "rank": np.array([1, 2]),
        "target": np.array(["t", "u"], dtype=object),
        "shard": pa.array(["s", "r"]),
        "row": np.array([5, 2**40 - 1]),
        "doc_id": pa.array(["i", "j"]),
        "source": pa.array(["x", "y"]),
        "n_tokens": np.array([1, 2]),
        "log_weight": np.array([0.1, -0.2]),
        "key": np.array([0.3, -0.4]),
    },
}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_table_of_every_kind_is_read_back_as_it_was_written(store, kind):
    name = store.name(kind, "part.1", target="law", fingerprint="0123")
    store.write_table(name, kind, ROWS[kind], ORIGIN)
    assert name.startswith(f"{kind}/") and name.endswith(".parquet")
    found = store.read_table(name, ORIGIN)
    assert found.schema.remove_metadata().equals(SCHEMAS[kind])
    for column, written in ROWS[kind].items():
        if isinstance(written, str):
            assert set(found[column].to_pylist()) == {written}
        else:
            assert found[column].to_pylist() == list(pa.array(written).to_pylist())


def test_a_table_written_in_pieces_holds_all_of_them_and_appears_when_the_body_ends(store):
    name = store.name("raw_counts", "wiki-0")
    with store.table_writer(name, "weights", ORIGIN) as writer:
        for n in (3, 0, 2):
            writer.write_table(table("weights", weights(n)))
        assert not store.look(name)
    with store.open_table(name, ORIGIN) as file:
        assert file.read()["row"].to_pylist() == [0, 1, 2, 0, 1]


def test_features_are_read_back_batch_by_batch_as_they_were_written(store):
    batches = [
        featurize(pa.array(texts), FeatureSpec()).to_arrow() for texts in (["a b c", ""], ["d"], ["e e e"])
    ]
    name = store.name("features", "wiki-0")
    assert name.endswith(".arrow")
    with store.features_writer(name, batches[0].schema, ORIGIN) as writer:
        for batch in batches:
            writer.write_batch(batch)
        assert not store.look(name)
    found = list(store.read_features(name, ORIGIN))
    assert len(found) == 3
    assert all(a.equals(b) for a, b in zip(found, batches, strict=True))


def test_features_that_were_read_stay_valid_when_the_file_is_replaced(store):
    name = store.name("features", "wiki-0")
    first = featurize(pa.array(["the same words again " * 500]), FeatureSpec()).to_arrow()
    for batch in (first, featurize(pa.array(["other"]), FeatureSpec()).to_arrow()):
        with store.features_writer(name, batch.schema, ORIGIN) as writer:
            writer.write_batch(batch)
        if batch is first:
            reading = store.read_features(name, ORIGIN)
            read = next(reading)
    assert read.equals(first)


def test_a_single_string_fills_its_column_and_values_are_cast_to_the_schema():
    found = table("raw_counts", {"shard": "s", "bucket": pa.array([1, 2], pa.int64()), "count": [3, 4]})
    assert found.schema.equals(SCHEMAS["raw_counts"])
    assert found.to_pydict() == {"shard": ["s", "s"], "bucket": [1, 2], "count": [3, 4]}


# --- origins ------------------------------------------------------------------------------------------


def refused(read) -> str:
    with pytest.raises(StaleInput) as caught:
        read()
    return str(caught.value)


def test_a_missing_table_says_which_asset_to_materialize(store):
    name = store.name("raw_counts", "wiki-0")
    message = refused(lambda: store.read_table(name, ORIGIN))
    assert str(store.home / name) in message and "materialize weights[wiki-0] first" in message


def test_missing_features_say_which_asset_to_materialize(store):
    name = store.name("features", "wiki-0")
    origin = Origin("raw_counts[wiki-0]", "f", FEATURES)
    message = refused(lambda: next(store.read_features(name, origin)))
    assert str(store.home / name) in message and "materialize raw_counts[wiki-0] first" in message


def test_another_fingerprint_is_refused_and_what_to_do_is_said(store, old):
    expected = Origin("weights[wiki-0]", "fedcba9876543210", FEATURES)
    message = refused(lambda: store.read_table(old.name, expected))
    assert str(old.path) in message
    assert "made again meanwhile" in message and "configuration" not in message
    assert "materialize weights[wiki-0] again" in message
    assert "features." not in message


def test_each_feature_setting_that_differs_is_named_with_both_values_and_no_other(store, old):
    other = Origin("weights[wiki-0]", "f", {**FEATURES, "ngrams": 3, "hash": "sha256"})
    message = refused(lambda: store.read_table(old.name, other))
    assert "the configuration changed" in message and "features.ngrams is 2 there, 3 here" in message
    assert "features.hash is 'fast' there, 'sha256' here" in message
    assert "buckets" not in message and "tokenizer" not in message


def test_features_of_another_configuration_are_refused_too(store):
    name = store.name("features", "wiki-0")
    batch = featurize(pa.array(["a b"]), FeatureSpec()).to_arrow()
    with store.features_writer(name, batch.schema, ORIGIN) as writer:
        writer.write_batch(batch)
    other = Origin("raw_counts[wiki-0]", "f", {**FEATURES, "buckets": 500})
    message = refused(lambda: next(store.read_features(name, other)))
    assert "features.buckets is 10000 there, 500 here" in message


def test_a_file_that_carries_no_checksum_is_refused_whatever_it_holds(store):
    name = store.name("raw_counts", "wiki-0")
    pq.write_table(table("weights", weights()).replace_schema_metadata(ORIGIN.metadata()), store.home / name)
    with pytest.raises(DamagedFile, match="no checksum"):
        store.read_table(name, ORIGIN)


def test_the_same_fingerprint_is_enough_whatever_else_the_stamp_says(store, old):
    renamed = Origin("another name", ORIGIN.fingerprint, {"ngrams": 9})
    assert store.read_table(old.name, renamed).num_rows == 5


# --- never half there --------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def test_a_failing_body_leaves_the_old_table_and_no_temporary(store, old):
    with pytest.raises(Stopped), store.table_writer(old.name, "weights", ORIGIN) as writer:
        writer.write_table(table("weights", weights(1000)))
        raise Stopped
    assert is_as_it_was(old, store)


def test_a_failing_body_leaves_no_features_and_no_temporary(store):
    before = files(store.home)
    batch = featurize(pa.array(["a b"]), FeatureSpec()).to_arrow()
    name = store.name("features", "wiki-0")
    with pytest.raises(Stopped), store.features_writer(name, batch.schema, ORIGIN) as writer:
        writer.write_batch(batch)
        raise Stopped
    assert files(store.home) == before


def fill(store: Store, name: str, *files: str) -> None:
    """Write a folder with such files, each of which holds its name."""
    with store.new_folder(name) as folder:
        for file in files:
            with store.file_of(folder, file) as path:
                path.write_text(file)
            folder.files.update(store.written(f"{name}/{file}"))


@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt, SystemExit])
def test_a_failing_body_leaves_the_old_folder_and_no_temporary(store, error):
    name = store.selection_folder("tenth", "f")
    fill(store, name, "part.jsonl")
    with pytest.raises(error), store.new_folder(name) as folder:
        with store.file_of(folder, "part.jsonl") as path:
            path.write_text("new")
        raise error
    assert files(store.home / name / "..") == ["f", "f/part.jsonl"]
    assert (store.home / name / "part.jsonl").read_text() == "part.jsonl"


def test_a_whole_folder_replaces_the_old_one(store):
    name = store.selection_folder("tenth", "f")
    fill(store, name, "old")
    fill(store, name, "new")
    assert files(store.home / name / "..") == ["f", "f/new"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(store, monkeypatch):
    name = store.selection_folder("tenth", "f")
    fill(store, name, "old")
    rename = os.replace

    def refuse_new(source, destination):
        if (Path(source) / "new").exists():
            raise PermissionError(13, "Permission denied", str(source))
        rename(source, destination)

    monkeypatch.setattr(bulk_files.os, "replace", refuse_new)
    with pytest.raises(PermissionError):
        fill(store, name, "new")
    assert files(store.home / name / "..") == ["f", "f/old"]


def test_what_is_known_of_a_file_is_true_and_told_once(store):
    name = store.selection_folder("tenth", "f")
    with store.new_folder(name) as folder, store.file_of(folder, "a") as path:
        path.write_bytes(b"abc")
    [written] = store.written(f"{name}/a").values()
    found = store.look(f"{name}/a")
    assert (written.bytes, written.modified) == (3, found.modified) == (found.bytes, written.modified)
    assert written.checksum == f"xxh3:{xxhash.xxh3_128_hexdigest(b'abc')}"
    assert written.checksum == store.checksum(f"{name}/a", written.checksum)
    with pytest.raises(KeyError):
        store.written(f"{name}/a")


def test_a_partition_may_have_as_long_a_name_as_a_file_can(store):
    name = store.name("raw_counts", "x" * (255 - len(".parquet")))
    store.write_table(name, "weights", weights(), ORIGIN)
    assert store.read_table(name, ORIGIN).num_rows == 5


# --- a full disk -------------------------------------------------------------------------------------

FULL = Path("/dev/full")  # every write to it fails with ENOSPC
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def full_disk(monkeypatch):
    """Let the next temporary file of a path be on a full disk."""
    monkeypatch.setattr(bulk_files.uuid, "uuid4", lambda: SimpleNamespace(hex="0" * 32))

    def for_path(path: Path) -> None:
        scratch = path.parent / ".tmp" / "new" / ("0" * 32)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(FULL, scratch)

    return for_path


@needs_full
def test_a_full_disk_leaves_the_old_table_and_the_error_names_its_path(store, old, full_disk):
    full_disk(old.path)
    with pytest.raises(OSError, match="No space left on device") as caught:
        store.write_table(old.name, "weights", weights(100_000), ORIGIN)
    assert str(old.path) in str(caught.value) and "nothing was changed" in str(caught.value)
    assert is_as_it_was(old, store)


@needs_full
def test_a_full_disk_leaves_the_old_features_and_the_error_names_their_path(store, full_disk):
    name = store.name("features", "wiki-0")
    batch = featurize(pa.array(["some words " * 500]), FeatureSpec()).to_arrow()
    with store.features_writer(name, batch.schema, ORIGIN) as writer:
        writer.write_batch(batch)
    path = store.home / name
    before = path.read_bytes()
    full_disk(path)
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        store.features_writer(name, batch.schema, ORIGIN) as writer,
    ):
        writer.write_batch(batch)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before and files(path.parent) == ["wiki-0.arrow"]


@needs_full
def test_a_full_disk_is_reported_with_the_path_for_whatever_a_body_writes(store):
    name = store.selection_folder("tenth", "f")
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        store.new_folder(name) as folder,
        store.file_of(folder, "part.jsonl") as path,
    ):
        path.symlink_to(FULL)
        path.write_text("x" * 100)
    assert str(store.home / name) in str(caught.value)
    assert files(store.home / name / "..") == []


def test_a_file_that_the_body_cannot_read_is_named_itself(store, tmp_path):
    missing = tmp_path / "input.jsonl"
    with pytest.raises(FileNotFoundError) as caught, store.replacing(store.name("weights", "w")):
        missing.read_bytes()
    assert caught.value.filename == str(missing)


@pytest.mark.parametrize("kind", ["features", "weights"])
def test_the_checksum_taken_while_a_file_is_written_is_that_of_its_bytes(store, kind):
    name = store.name(kind, "pool.a", "t")
    if kind == "features":
        batch = featurize(pa.array(["a b", "c"]), FeatureSpec()).to_arrow()
        with store.features_writer(name, batch.schema, ORIGIN) as writer:
            writer.write_batch(batch)
            writer.write_batch(batch)
    else:
        store.write_table(name, "weights", weights(), ORIGIN)
    content = (store.home / name).read_bytes()
    [written] = store.written(name).values()
    assert written.checksum == f"xxh3:{xxhash.xxh3_128_hexdigest(content)}"


def test_a_file_is_compared_by_the_algorithm_of_its_recorded_checksum(store):
    """Records of earlier versions hold SHA-256."""
    with store.replacing("evaluations/a/f/report.html") as path:
        path.write_bytes(b"abc")
    for recorded in (hashlib.sha256(b"abc").hexdigest(), f"xxh3:{xxhash.xxh3_128_hexdigest(b'abc')}"):
        assert store.checksum("evaluations/a/f/report.html", recorded) == recorded
