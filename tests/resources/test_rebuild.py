"""The home says what it is: a lost catalog is made again, an older one is migrated, a moved home is right at once.

What belongs here: a catalog that is damaged, gone, old, new, moved or not to be written to. What does not: how it
comes to be damaged (``test_catalog_races.py``), damaged outputs (``tests/dagster_project/test_verify.py``).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from dsir_dagster import cli
from dsir_dagster.resources import catalog as catalog_module
from dsir_dagster.resources.catalog import VERSION, Catalog
from dsir_dagster.resources.database import CatalogDamaged
from dsir_dagster.resources.verification import rebuild_catalog
from tests.pipeline import sentences
from tests.resources.test_catalog import START, lineage


def call(pipeline, *arguments):
    return cli.main([*arguments, "--config", str(pipeline.config_path), "--home", str(pipeline.home)])


def overwrite(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(
            {
                "garbage": b"no database" * 1000,
                "empty": b"",
                "truncated": content[: len(content) // 3],
                # Both of the headers that a checkpoint writes in turn.
                "flipped": content[:4200] + bytes(b ^ 1 for b in content[4200:8400]) + content[8400:],
            }[how]
        )


LINEAGE = "SELECT asset, partition, fingerprint, inputs, files, metadata, run_id FROM latest ORDER BY ALL"
EVALUATIONS = "FROM evaluations ORDER BY ALL"
SHARDS = "SELECT shard, source, uri, stamp, vanished_at IS NULL FROM shards ORDER BY ALL"


@pytest.mark.parametrize("copy", ["with a copy", "without a copy"])
@pytest.mark.parametrize("how", ["garbage", "empty", "truncated", "flipped", "gone"])
def test_a_damaged_catalog_is_said_to_be_so_and_made_again_with_nothing_recomputed(done, capsys, how, copy):
    path = done.home / "catalog.duckdb"
    before = [done.rows(question) for question in (LINEAGE, EVALUATIONS, SHARDS)]
    picks = done.picks()
    overwrite(path, how)
    if copy == "without a copy":
        (done.home / "catalog.backup.duckdb").unlink()
    assert call(done, "status") == 1
    [message] = capsys.readouterr().err.strip().splitlines()
    assert str(path) in message and "dsir verify --rebuild" in message
    assert call(done, "verify", "--rebuild") == 0
    text = capsys.readouterr().out
    assert "was rebuilt" in text and ("there was no copy" in text) == (copy == "without a copy")
    assert (done.home / "damaged/catalog.duckdb").exists() == (how != "gone")
    assert call(done, "status") == 0
    assert "everything is fresh" in capsys.readouterr().out
    assert not any(stage.due for stage in done.run().values())
    assert [done.rows(question) for question in (LINEAGE, EVALUATIONS, SHARDS)] == before
    assert done.picks() == picks
    assert call(done, "report") == 0 and call(done, "changes", "picked") == 0
    assert call(done, "why", done.picks()[0][2], "--selection", "picked") == 0


def test_both_versions_of_a_selection_and_the_newest_evaluation_are_taken_from_lineage_files(done):
    done.config["selections"][0]["seed"] = 5
    assert done.errors() == []
    compared = "FROM selection_changes('picked') ORDER BY ALL"
    versions = "SELECT number, version, documents, current, on_disk FROM selection_versions ORDER BY ALL"
    before = [done.rows(question) for question in (compared, versions, EVALUATIONS)]
    for name in ("catalog.duckdb", "catalog.backup.duckdb"):
        (done.home / name).unlink()
    rebuild_catalog(done.workspace())
    assert [done.rows(question) for question in (compared, versions, EVALUATIONS)] == before
    assert not any(stage.due for stage in done.run().values())


@pytest.mark.slow
def test_changes_are_named_though_the_weights_behind_an_old_version_are_not_known_any_more(done):
    done.write("pool/more.jsonl", sentences("medicine", 40, seed=7))
    assert done.errors() == []
    moved = "SELECT change, doc_id FROM selection_changes('picked') ORDER BY ALL"
    before = done.rows(moved)
    assert before
    for name in ("catalog.duckdb", "catalog.backup.duckdb"):
        (done.home / name).unlink()
    rebuild_catalog(done.workspace())
    assert done.rows(moved) == before
    reasons = {row[0] for row in done.rows("SELECT why FROM selection_changes('picked')")}
    assert "not known: how its shard was weighed is not in the catalog any more" in reasons


def test_an_output_whose_file_is_not_what_was_written_is_not_taken_from_its_lineage_file(done):
    (done.home / "catalog.duckdb").unlink()
    (done.home / "catalog.backup.duckdb").unlink()
    file = done.home / "weights/target=medicine/pool.law.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    (done.home / "lineage/raw_counts/pool.code.json").write_text("{ no JSON")
    rebuilt = rebuild_catalog(done.workspace())
    assert rebuilt.rejected == [str(done.home / "lineage/weights/pool.law.json")]
    assert not {("weights", "pool.law"), ("raw_counts", "pool.code")} & done.workspace().latest().keys()
    due = [output.name for stage in done.run().values() for output in stage.due]
    assert due == ["raw_counts[pool.code]", "weights[pool.law]"]


def test_shards_that_vanished_stay_vanished_in_a_catalog_made_of_stamps_alone(done):
    file = done.home / "lineage/raw_counts/pool.law.json"
    row = json.loads(file.read_text())
    row["metadata"]["file"] = str(done.data / "pool/law.jsonl")  # `done` is a copy of a pipeline elsewhere
    file.write_text(json.dumps(row))
    (done.data / "pool/law.jsonl").unlink()
    for name in ("catalog.duckdb", "catalog.backup.duckdb"):
        (done.home / name).unlink()
    rebuild_catalog(done.workspace())
    assert done.rows("SELECT shard FROM shards WHERE vanished_at IS NOT NULL") == [("pool.law",)]
    assert done.workspace().discovery.vanished() == ["pool.law"]


def test_a_catalog_that_can_be_read_is_made_again_with_its_whole_history(done):
    history = "SELECT * FROM lineage ORDER BY ALL"
    before = done.rows(history)
    rebuilt = rebuild_catalog(done.workspace())
    assert (rebuilt.source, rebuilt.kept, rebuilt.added) == (done.home / "catalog.duckdb", len(before), 0)
    assert done.rows(history) == before and not (done.home / "damaged").exists()


def test_a_copy_of_the_catalog_is_kept_and_replaced_when_it_is_old(tmp_path, monkeypatch):
    catalog = Catalog(tmp_path)
    copy = tmp_path / "catalog.backup.duckdb"

    def copied() -> set[str]:
        with duckdb.connect(copy, read_only=True) as connection:
            return {row[0] for row in connection.execute("SELECT partition FROM lineage").fetchall()}

    catalog.record([lineage(partition="first")])
    assert copied() == {"first"}
    catalog.record([lineage(partition="second")])
    assert copied() == {"first"}
    written = copy.stat().st_mtime
    os.utime(copy, (written - catalog_module.COPY_SECONDS - 1,) * 2)
    catalog.record([lineage(partition="third")])
    assert copied() == {"first", "second", "third"}
    # A clock that was set back does not leave an old copy for longer.
    os.utime(copy, (written + 3600,) * 2)
    catalog.record([lineage(partition="fourth")])
    assert copied() == {"first", "second", "third", "fourth"}


def test_an_older_file_in_the_place_of_the_catalog_is_noticed(tmp_path):
    catalog = Catalog(tmp_path)
    catalog.record([lineage(partition="first")])
    shutil.copy(catalog.path, tmp_path / "older")
    catalog.record([lineage(partition="second")])
    shutil.copy(tmp_path / "older", catalog.path)
    for attempt in (
        catalog.latest,
        lambda: catalog.record([lineage(partition="third")]),
        Catalog(tmp_path).latest,
    ):
        with pytest.raises(CatalogDamaged, match="1 of 2 recorded transactions"):
            attempt()
    catalog.rebuild(lambda outputs: [True] * len(outputs))
    assert {partition for _, partition in catalog.latest()} == {"first", "second"}
    catalog.record([lineage(partition="third")])
    assert len(catalog.latest()) == 3


# --- versions --------------------------------------------------------------------------------------------

#: The tables of version 1, as homes of November 2026 have them.
VERSION_1 = """
CREATE TABLE shards (shard VARCHAR PRIMARY KEY, source VARCHAR NOT NULL, uri VARCHAR NOT NULL, size BIGINT NOT NULL,
    modified DOUBLE NOT NULL, stamp VARCHAR NOT NULL, seen_at TIMESTAMPTZ NOT NULL, vanished_at TIMESTAMPTZ);
CREATE TABLE lineage (asset VARCHAR NOT NULL, partition VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL, inputs MAP(VARCHAR, VARCHAR) NOT NULL, started_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ NOT NULL, rows BIGINT NOT NULL, bytes BIGINT NOT NULL,
    files MAP(VARCHAR, VARCHAR) NOT NULL, metadata JSON NOT NULL, pruned_at TIMESTAMPTZ);
CREATE TABLE evaluations (selection VARCHAR NOT NULL, version VARCHAR NOT NULL, target VARCHAR NOT NULL,
    metric VARCHAR NOT NULL, source VARCHAR NOT NULL, value DOUBLE);
CREATE TABLE view_version (fingerprint VARCHAR NOT NULL);
INSERT INTO shards BY NAME SELECT * EXCLUDE (modified, mtime), mtime AS modified FROM now.shards;
INSERT INTO lineage BY NAME
SELECT * EXCLUDE (sequence, modified, metadata, fingerprint, why),
       -- Evaluations were of an older version of the code.
       if(asset = 'evaluations', 'older-', '') || fingerprint AS fingerprint,
       json_merge_patch(metadata, json_object('folder', '/old/place')) AS metadata
FROM now.lineage;
INSERT INTO evaluations BY NAME SELECT * EXCLUDE (pick, statistic) FROM now.evaluations;
"""


def as_version_1(home: Path) -> None:
    """Turn a home into one of version 1."""
    shutil.rmtree(home / "lineage")
    for name in ("catalog.backup.duckdb", "catalog.lock"):
        (home / name).unlink()
    old = home / "old.duckdb"
    with duckdb.connect(old) as connection:
        connection.execute("ATTACH $path AS now (READ_ONLY)", {"path": str(home / "catalog.duckdb")})
        connection.execute(VERSION_1)
    old.rename(home / "catalog.duckdb")


def test_a_home_of_version_1_is_migrated_with_nothing_recomputed_but_evaluations(done, capsys):
    done.config["selections"][0]["seed"] = 5
    assert done.errors() == []
    versions = "SELECT number, version, folder, current FROM selection_versions ORDER BY number"
    before, picks, measured = done.rows(versions), done.picks(), done.rows(EVALUATIONS)
    files = {path.relative_to(done.home) for path in (done.home / "lineage").rglob("*.json")}
    as_version_1(done.home)
    assert call(done, "status") == 0
    shown = capsys.readouterr().out
    assert re.search(r"evaluations +picked", shown) and "not fresh: 1 output" in shown
    assert done.rows(EVALUATIONS) == []
    assert {asset for asset, stage in done.run().items() if stage.due} == {"evaluations"}
    assert (done.rows(versions), done.picks(), done.rows(EVALUATIONS)) == (before, picks, measured)
    # From here on it is a home as any: its lineage files are there, and a lost catalog is made again.
    assert {path.relative_to(done.home) for path in (done.home / "lineage").rglob("*.json")} >= {
        path
        for path in files
        if not {"evaluations", "inputs"} & {*path.parts}  # older rows share no inputs
    }
    (done.home / "catalog.duckdb").unlink()
    (done.home / "catalog.backup.duckdb").unlink()
    rebuild_catalog(done.workspace())
    assert not any(stage.due for stage in done.run().values())
    assert (done.picks(), done.rows(EVALUATIONS)) == (picks, measured)


#: Turns a catalog into one of version 3, in which every row had all its inputs to itself.
VERSION_3 = """
CREATE TABLE before AS
SELECT l.* EXCLUDE (why) REPLACE (m.modified AS modified)
FROM lineage AS l JOIN materializations AS m USING (asset, partition, fingerprint, sequence);
CREATE TABLE old_shards AS SELECT * EXCLUDE (modified, mtime), mtime AS modified FROM shards;
DROP TABLE shards; ALTER TABLE old_shards RENAME TO shards;
DROP VIEW latest; DROP VIEW lineage; DROP TABLE materializations; DROP TABLE input_lists;
ALTER TABLE before RENAME TO lineage;
CREATE VIEW latest AS SELECT * EXCLUDE (pruned_at) FROM lineage WHERE pruned_at IS NULL
QUALIFY row_number() OVER (PARTITION BY asset, partition ORDER BY sequence DESC, finished_at DESC) = 1;
UPDATE about SET version = 3;
"""


@pytest.mark.slow
def test_a_home_whose_outputs_shared_no_inputs_is_upgraded_with_nothing_recomputed(done, capsys):
    done.config["selections"][0]["seed"] = 5
    assert done.errors() == []
    questions = (
        "SELECT * EXCLUDE (why) FROM lineage ORDER BY ALL",
        EVALUATIONS,
        SHARDS,
        "FROM selection_changes('picked') ORDER BY ALL",
    )
    before = [done.rows(question) for question in questions]
    with duckdb.connect(done.home / "catalog.duckdb") as connection:
        connection.execute(VERSION_3)
    shutil.rmtree(done.home / "lineage/inputs")
    assert call(done, "status") == 0 and "everything is fresh" in capsys.readouterr().out
    assert [done.rows(question) for question in questions] == before
    assert not any(stage.due for stage in done.run().values())
    # A change is named as ever, against inputs of old rows; the rows that follow share theirs.
    (done.data / "pool/law.jsonl").unlink()
    assert call(done, "status") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "gone: raw_counts[pool.law]" in said
    assert done.errors() == []
    for name in ("catalog.duckdb", "catalog.backup.duckdb"):
        (done.home / name).unlink()
    rebuild_catalog(done.workspace())
    assert not any(stage.due for stage in done.run().values())


def test_an_output_whose_shared_inputs_are_not_what_was_written_is_made_again(done):
    (list_of_weights,) = [
        path for path in (done.home / "lineage/inputs").iterdir() if "weights[" in path.read_text()
    ]
    list_of_weights.write_text(list_of_weights.read_text().replace("pool.law", "pool.lax"))
    for name in ("catalog.duckdb", "catalog.backup.duckdb"):
        (done.home / name).unlink()
    rebuild_catalog(done.workspace())
    due = [output.name for stage in done.run().values() for output in stage.due]
    assert due == ["selections[picked]"]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (f"UPDATE about SET version = {VERSION + 1}", "a newer version of dsir made it"),
        (
            "DROP TABLE about; DROP VIEW lineage; ALTER TABLE materializations DROP COLUMN pruned_at; "
            "ALTER TABLE materializations RENAME TO lineage",
            "a version of dsir made it that is too old",
        ),
    ],
)
def test_a_home_of_another_version_is_refused_in_one_line_and_left_as_it_is(done, capsys, statement, reason):
    with duckdb.connect(done.home / "catalog.duckdb") as connection:
        connection.execute("DROP VIEW latest")
        connection.execute(statement)
    content = (done.home / "catalog.duckdb").read_bytes()
    for command in (["status"], ["run"], ["verify", "--rebuild"]):
        assert call(done, *command) == 1
        [message] = capsys.readouterr().err.strip().splitlines()
        assert reason in message and str(done.home / "catalog.duckdb") in message
    assert (done.home / "catalog.duckdb").read_bytes() == content


# --- places ----------------------------------------------------------------------------------------------


def test_a_home_that_was_moved_names_its_new_place_everywhere(done, capsys):
    picks = done.picks()
    old = done.home
    done.home = old.rename(done.folder / "it's moved*")
    assert call(done, "report") == 0  # reads only
    text = capsys.readouterr().out.replace("\n", "")
    assert str(done.home) in text and f"{old}/" not in text
    assert done.picks() == picks  # a plain shell, after any command
    [(folder,)] = done.rows("SELECT folder FROM selection_versions")
    assert Path(folder).is_dir() and Path(folder).is_relative_to(done.home)
    assert not any(stage.due for stage in done.run().values())
    for path in (done.home / "lineage").rglob("*.json"):
        assert str(old) not in path.read_text()


def test_no_view_is_made_and_nothing_is_written_where_the_catalog_is_as_it_should_be(done):
    done.workspace().plan()
    there = {path: path.stat() for path in done.home.iterdir()}
    content = (done.home / "catalog.duckdb").read_bytes()
    workspace = done.workspace()
    workspace.plan()
    workspace.catalog.query("latest")
    assert (done.home / "catalog.duckdb").read_bytes() == content
    for path, stat in there.items():
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == (stat.st_mtime_ns, stat.st_ino)


READ_ONLY = """
import os, sys
from dsir_dagster import changes, cli, report, status, why
from dsir.compilation import warm_up
from dsir.features import FeatureSpec
warm_up(FeatureSpec(), print)  # Python itself may be in a folder that is closed to others
os.setuid(65534)
config, home, document = sys.argv[1:]
for command in (["status"], ["report"], ["why", document, "--selection", "picked"], ["changes", "picked"]):
    code = cli.main([*command, "--config", config, "--home", home])
    print(command[0], code, flush=True)
"""


CRASH = """
import os, sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("CREATE TABLE crashed (i INTEGER)")
os._exit(0)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("lock", ["with a lock file", "without a lock file"])
@pytest.mark.slow
def test_a_home_of_another_user_can_be_read_even_where_it_was_moved(ran_once, lock):
    with tempfile.TemporaryDirectory() as folder:  # the tests' own folders are closed to others
        pipeline = ran_once.copy(Path(folder))
        [(document, *_)] = [row[2:] for row in pipeline.picks()[:1]]
        # As after a crash: something is in the log only.
        subprocess.run([sys.executable, "-c", CRASH, str(pipeline.home / "catalog.duckdb")], check=True)
        pipeline.home = pipeline.home.rename(pipeline.folder / "moved")
        if lock == "without a lock file":
            (pipeline.home / "catalog.lock").unlink()
        (pipeline.data / "pool/new.jsonl").write_bytes(
            (pipeline.data / "pool/law.jsonl").read_bytes() + b"\\n"
        )
        config = pipeline.config_path
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = {path: path.stat().st_mtime_ns for path in pipeline.home.rglob("*")}
        environment = {**os.environ, "DAGSTER_HOME": ""}
        arguments = [str(config), str(pipeline.home), document]
        result = subprocess.run(
            [sys.executable, "-c", READ_ONLY, *arguments], capture_output=True, text=True, env=environment
        )
        lines = result.stdout.splitlines()
        assert [f"{command} 0" in lines for command in ("status", "report", "changes")] == [True] * 3, result
        assert "raw_counts[pool.new]" in result.stdout or "pool.new" in result.stdout
        assert {path: path.stat().st_mtime_ns for path in pipeline.home.rglob("*")} == before


def test_lineage_files_are_those_of_the_newest_materializations_and_go_with_what_is_pruned(done):
    catalog, workspace = done.workspace().catalog, done.workspace()
    for (asset, partition), row in workspace.latest().items():
        file = json.loads(catalog.lineage_files.path(asset, partition, row.fingerprint).read_text())
        assert (file["fingerprint"], file["files"], file["run_id"]) == (
            row.fingerprint,
            row.files,
            row.run_id,
        )
    catalog.record_pruned(["raw_counts/pool.law.parquet"], ["picked"])
    assert not (done.home / "lineage/raw_counts/pool.law.json").exists()
    assert not list((done.home / "lineage/evaluations/picked").iterdir())
    assert (done.home / "lineage/raw_counts/pool.code.json").exists()


@pytest.mark.slow
def test_files_of_shared_inputs_go_when_nothing_refers_to_them(done):
    def listed() -> set[str]:
        return {path.stem for path in (done.home / "lineage/inputs").iterdir()}

    first = listed()
    assert len(first) == 2  # the estimator's, and the selection's
    done.write("pool/more.jsonl", sentences("medicine", 40, seed=7))
    assert done.errors() == []
    assert len(listed()) == 4 and listed() > first
    catalog = done.workspace().catalog
    [(old,)] = done.rows(
        "SELECT first(metadata->>'folder' ORDER BY sequence) FROM lineage WHERE asset = 'selections'"
    )
    catalog.record_pruned([old], [])
    assert len(listed()) == 2 and not listed() & first
    for name in ("catalog.duckdb", "catalog.backup.duckdb"):
        (done.home / name).unlink()
    rebuild_catalog(done.workspace())
    assert not any(stage.due for stage in done.run().values())


def test_what_is_newest_does_not_depend_on_the_clock(tmp_path):
    catalog = Catalog(tmp_path)
    catalog.record([lineage("selections", "s", "v1")])
    catalog.record([lineage("selections", "s", "v2", finished_at=START - timedelta(hours=1))])
    assert catalog.latest()["selections", "s"].fingerprint == "v2"
    (tmp_path / "catalog.duckdb").unlink()
    (tmp_path / "catalog.backup.duckdb").unlink()
    catalog.rebuild(lambda outputs: [True] * len(outputs))
    assert catalog.latest()["selections", "s"].fingerprint == "v2"


@pytest.mark.slow
def test_a_footer_of_zeros_in_a_home_that_was_moved_bars_nothing_that_mends_it(ran_once, tmp_path, capsys):
    pipeline = ran_once.copy(tmp_path)
    picks = pipeline.picks()
    path = pipeline.home / "documents/pool.law.parquet"
    content = bytearray(path.read_bytes())
    content[-80:-16] = bytes(64)
    path.write_bytes(content)
    pipeline.home = pipeline.home.rename(tmp_path / "moved")
    assert call(pipeline, "status") == 0
    assert call(pipeline, "verify") == 1
    assert str(path.name) in capsys.readouterr().err
    assert call(pipeline, "run") == 0
    assert pipeline.picks() == picks
