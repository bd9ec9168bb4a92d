"""A DAGSTER_HOME: created once by any number of processes, complete or absent after a kill, repaired otherwise."""

import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
import yaml

from benchmarks.pool import REPOSITORY
from dsir_dagster.instance import DATABASES, INSTANCE_SETTINGS, fault, make_whole, open_instance
from dsir_dagster.resources.dagster_storage import DagsterSqliteStorage
from dsir_dagster.resources.settings import ConfigError
from dsir_dagster.storage import QuickEventLogStorage

OPEN = """
import sys
from pathlib import Path
from dsir_dagster.instance import open_instance
print("ready", flush=True)
sys.stdin.readline()
with open_instance(Path(sys.argv[1])) as instance:
    instance.add_dynamic_partitions("shards", [sys.argv[2]])
    instance.get_runs(), instance.all_instigator_state()
"""


def opener(home, name, code=OPEN):
    """Start a process that opens the instance of a home when it receives a line."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(home), name],
        text=True,
        cwd=REPOSITORY,
        start_new_session=True,
        **pipes,
    )


@pytest.fixture(autouse=True)
def no_dagster_home(monkeypatch):
    """Each home has its own instance, and no test leaves DAGSTER_HOME behind."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.delenv("DAGSTER_HOME")


def versions(folder):
    found = []
    for name in DATABASES:
        with closing(sqlite3.connect(folder / name)) as database:
            found += database.execute("SELECT version_num FROM alembic_version").fetchall()
    return found


def at_once(home, n=3):
    openers = [opener(home, f"shard-{i}") for i in range(n)]
    for process in openers:
        assert process.stdout.readline() == "ready\n"
    for process in openers:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in openers:
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, ""), said
    with open_instance(home) as instance:
        assert sorted(instance.get_dynamic_partitions("shards")) == [f"shard-{i}" for i in range(n)]
    assert len(versions(home / "dagster")) == len(DATABASES)
    return home / "dagster"


def test_three_at_once_on_a_new_home(tmp_path):
    folder = at_once(tmp_path / "home")
    assert (folder / "dagster.yaml").read_text() == INSTANCE_SETTINGS
    assert not list(folder.rglob(".making-*")) and not list(folder.rglob("*unusable*"))


@pytest.mark.slow
def test_three_at_once_on_many_new_homes(tmp_path, monkeypatch):
    for round_ in range(15):
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        at_once(tmp_path / str(round_))


@pytest.mark.slow
def test_a_kill_while_a_home_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("dsir_dagster.instance.BEING_MADE_SECONDS", 0)
    chance = random.Random(5)
    for round_ in range(12):
        home = tmp_path / str(round_)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        process = opener(home, "killed")
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(chance.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with open_instance(home, pytest.fail) as instance:  # nothing to wait for, nothing to repair
            instance.add_dynamic_partitions("shards", ["a"])
            assert "a" in instance.get_dynamic_partitions("shards")


DAGSTER_OPENS = """
import sys, dagster as dg
from dsir_dagster.resources.dagster_storage import DagsterSqliteStorage
print("ready", flush=True)
sys.stdin.readline()
DagsterSqliteStorage(sys.argv[1] + "/dagster")
"""


@pytest.mark.slow
def test_a_kill_while_dagster_itself_makes_a_home(tmp_path, monkeypatch):
    """As after a killed first `dg dev`: what it left is repaired, with a line for each repaired database."""
    monkeypatch.setattr("dsir_dagster.instance.BEING_MADE_SECONDS", 0)
    chance, said = random.Random(6), []
    for round_ in range(12):
        home = tmp_path / str(round_)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        (home / "dagster").mkdir(parents=True)
        process = opener(home, "killed", DAGSTER_OPENS)
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(chance.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with open_instance(home, said.append) as instance:
            instance.add_dynamic_partitions("shards", ["a"])
            assert instance.get_dynamic_partitions("shards") == ["a"]
            assert not instance.get_runs() and not instance.all_instigator_state()
    assert said and all("set aside" in line and "\n" not in line for line in said)


@pytest.fixture
def folder(tmp_path):
    """A DAGSTER_HOME with records, untouched for a while."""
    with open_instance(tmp_path) as instance:
        instance.add_dynamic_partitions("shards", ["a"])
        instance.add_run(dg.DagsterRun(job_name="job"))
    return tmp_path / "dagster"


def long_ago(path):
    os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("history/runs/index.db", b""),
        ("history/runs.db", b"no database" * 1000),
        ("schedules/schedules.db", b"SQLite format 3\0 and then nothing"),
    ],
)
def test_a_database_of_no_use_is_set_aside_and_made_anew(folder, name, content):
    for end in ("-wal", "-shm"):
        (folder / f"{name}{end}").unlink(missing_ok=True)
    (folder / name).write_bytes(content)
    long_ago(folder / name)
    said = []
    with open_instance(folder.parent, said.append) as instance:
        assert len(instance.get_runs()) == (name != "history/runs.db")
        assert instance.get_dynamic_partitions("shards") == (["a"] if "index" not in name else [])
        instance.add_dynamic_partitions("shards", ["b"])
        assert "b" in instance.get_dynamic_partitions("shards")
    [line] = said
    assert str(folder / name) in line and "set aside" in line and "\n" not in line
    [aside] = (folder / name).parent.glob("*unusable*")
    assert aside.read_bytes() == content
    with open_instance(folder.parent, pytest.fail):
        pass


@pytest.mark.parametrize("name", DATABASES)
def test_a_database_with_two_versions_has_one_again_and_keeps_what_it_has(folder, name):
    with closing(sqlite3.connect(folder / name)) as database, database:
        database.execute("INSERT INTO alembic_version VALUES ('5771160a95ad')")
    said = []
    make_whole(folder, said.append)
    [line] = said
    assert "two versions" in line and "\n" not in line
    assert len(versions(folder)) == len(DATABASES)
    with open_instance(folder.parent, pytest.fail) as instance:
        assert len(instance.get_runs()) == 1 and instance.get_dynamic_partitions("shards") == ["a"]


def test_versions_that_are_not_this_dagsters_are_named_and_nothing_is_touched(folder):
    path = folder / "history/runs.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM alembic_version")
        database.execute("INSERT INTO alembic_version VALUES ('one'), ('two')")
    with pytest.raises(OSError, match=r"runs\.db has two versions \(one, two\).*move .* away"):
        make_whole(folder, pytest.fail)
    assert len(fault(path)) > 0


def test_what_dagster_itself_is_about_to_make_is_waited_for(tmp_path, monkeypatch):
    """As when `dg dev` comes first: a database created just now, still without tables."""
    folder = tmp_path / "dagster"
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    (folder / "history").mkdir(parents=True)
    (folder / "history/runs.db").touch()

    def make():
        time.sleep(1)
        DagsterSqliteStorage(str(folder)).dispose()

    dagster = threading.Thread(target=make)
    dagster.start()
    make_whole(folder, pytest.fail)
    dagster.join()
    assert [fault(folder / name) for name in DATABASES] == [""] * 3


def test_databases_that_are_elsewhere_are_left_alone(tmp_path):
    folder, other = tmp_path / "dagster", tmp_path / "other"
    folder.mkdir()
    (folder / "dagster.yaml").write_text(f"storage: {{sqlite: {{base_dir: {other}}}}}\n")
    with open_instance(tmp_path) as instance:
        instance.get_runs()
    assert (other / "history/runs.db").exists() and not (folder / "history").exists()


def test_new_homes_are_their_owners(pipeline, tmp_path):
    pipeline.workspace()
    with open_instance(pipeline.home):
        pass
    for folder in (pipeline.home, pipeline.home / "dagster"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    shared.chmod(0o775)
    with open_instance(shared):
        pass
    assert stat.S_IMODE(shared.stat().st_mode) == 0o775


STORAGE = INSTANCE_SETTINGS[INSTANCE_SETTINGS.index("storage:") : INSTANCE_SETTINGS.index("run_launcher:")]
BEFORE_NUX = INSTANCE_SETTINGS.replace("nux:\n  enabled: false\n", "")
BEFORE_STORAGE = BEFORE_NUX.replace(STORAGE, "")


@pytest.mark.parametrize(
    "earlier", [BEFORE_NUX, BEFORE_STORAGE, BEFORE_STORAGE.replace("dsir_dagster.", "dagster_project.")]
)
def test_settings_of_an_earlier_version_are_brought_up_to_date(folder, earlier):
    (folder / "dagster.yaml").write_text(earlier)
    said = []
    with open_instance(folder.parent, said.append) as instance:
        assert isinstance(instance.event_log_storage, QuickEventLogStorage)
        assert len(instance.get_runs()) == 1 and instance.get_dynamic_partitions("shards") == ["a"]
    [line] = said
    assert str(folder / "dagster.yaml") in line and "brought up to date" in line and "\n" not in line
    assert (folder / "dagster.yaml").read_text() == INSTANCE_SETTINGS


def test_settings_that_someone_changed_are_left_as_they_are(folder):
    settings = folder / "dagster.yaml"
    settings.write_text(BEFORE_STORAGE.replace("max_concurrent_runs: 4", "max_concurrent_runs: 9"))
    with open_instance(folder.parent, pytest.fail) as instance:
        assert len(instance.get_runs()) == 1 and instance.get_dynamic_partitions("shards") == ["a"]
    assert "max_concurrent_runs: 9" in settings.read_text() and "storage" not in settings.read_text()
    settings.write_text(settings.read_text().replace("dsir_dagster.", "dagster_project."))
    found = r"dagster\.yaml: dagster_project\.launcher is now dsir_dagster\.launcher; correct the line"
    with pytest.raises(ConfigError, match=found):
        open_instance(folder.parent, pytest.fail)


@pytest.mark.parametrize("settings", ["a: [b", "run_launchr: 3"])
def test_settings_that_are_not_dagsters_are_named(tmp_path, monkeypatch, settings):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(settings)
    with pytest.raises(
        ConfigError, match=r"dagster\.yaml: .*; correct it, or remove it to get a new one"
    ) as found:
        open_instance(tmp_path)
    assert "\n" not in str(found.value)


POSTGRES = {
    "hostname": "127.0.0.1",
    "username": "dagster",
    "password": {"env": "DSIR_IS_NOT_SET"},
    "db_name": "d",
}


def test_settings_that_name_what_is_not_there_say_so_and_stay(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dagster_postgres", None)  # as where it is not installed
    settings = tmp_path / "dagster" / "dagster.yaml"
    settings.parent.mkdir()
    storage = {"custom": {"module": "dsir_dagster.storage", "class": "QuickSqliteStorage"}}
    storage["custom"]["config"] = {"base_dir": {"env": "DSIR_IS_NOT_SET"}}
    for written, said in (
        ({"postgres": {"postgres_db": POSTGRES}}, r"dagster_postgres is not installed; `pip install -e"),
        (storage, r"the environment variable DSIR_IS_NOT_SET is not set$"),
    ):
        text = json.dumps({"storage": written})
        settings.write_text(text)
        with pytest.raises(ConfigError, match=rf"dagster\.yaml: {said}") as found:
            open_instance(tmp_path)
        assert "\n" not in str(found.value) and settings.read_text() == text


def test_a_deployment_has_the_same_settings_but_for_its_storage():
    deployed = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "dagster.yaml").read_text())
    ours = yaml.safe_load(INSTANCE_SETTINGS)
    assert deployed.pop("storage") != ours.pop("storage")
    assert deployed == ours and not ours["nux"]["enabled"]
