"""What all commands share: help, configuration, how much is said, JSON, commands as they can be typed."""

import json
import os
import socket
import subprocess
import sys

import pytest

from dsir_dagster import cli
from dsir_dagster.cli.commands import app
from dsir_dagster.cli.options import name_program
from dsir_dagster.configured import find_config
from dsir_dagster.resources.settings import ConfigError
from dsir_dagster.terminal import as_typed
from tests.pipeline import sentences
from tests.resources.test_borders import HOSTILE

COMMANDS = [command.name for command in app.registered_commands]
PIPELINE = [name for name in COMMANDS if name not in ("new", "schema")]


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A folder without a configuration, in an environment without one."""
    for name in ("DSIR_CONFIG", "DSIR_HOME", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "")  # is put back afterwards, whatever a command sets
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def dsir(capsys, nowhere):
    """Call the command line on a pipeline; return the exit code, what is printed, and the errors."""

    def call(pipeline, *arguments):
        capsys.readouterr()
        code = cli.main([*arguments, "--config", str(pipeline.config_path), "--home", str(pipeline.home)])
        return code, *capsys.readouterr()

    return call


# --- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_names_the_command(command, capsys):
    assert cli.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: dsir {command} " in out and f"Example:\n    dsir {command}" in out


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(arguments, capsys):
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {command} " in out for command in COMMANDS)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dsir 0.")


def test_help_waits_for_no_heavy_import():
    code = (
        "import sys; from dsir_dagster import cli; code = cli.main(['run', '--help']); "
        "sys.exit(code or any(name in sys.modules for name in ('dagster', 'numba', 'duckdb', 'pyarrow')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stauts"], "No such command 'stauts'. Did you mean 'status'? (see `dsir -h`)"),
        (["why", "x"], "Missing option '--selection'. (see `dsir why -h`)"),
        (
            ["run", "--hom", "x"],
            "No such option: --hom (Possible options: --home) (see `dsir run -h`)",
        ),
        (
            ["ui", "--port", "0"],
            "Invalid value for '--port': Input should be greater than or equal to 1 (see `dsir ui -h`)",
        ),
    ],
)
def test_a_wrong_command_is_one_line(capsys, arguments, said):
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == f"{said}\n"


# --- which configuration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", PIPELINE)
def test_without_a_configuration_the_three_ways_to_give_one_are_named(nowhere, capsys, command):
    arguments = {"why": ["x", "--selection", "y"], "changes": ["x"]}.get(command, [])
    assert cli.main([command, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and not list(nowhere.iterdir())
    assert all(
        way in err for way in ("--config my.yaml", "set DSIR_CONFIG", "`dsir new FOLDER --target FILE`")
    )


def test_the_option_precedes_the_environment_which_precedes_the_folder(nowhere, monkeypatch):
    with pytest.raises(ConfigError, match="no configuration: "):
        find_config()
    (nowhere / "dsir.yaml").touch()
    said = []
    assert str(find_config(say=said.append)) == "dsir.yaml"
    assert said == [f"the configuration is {nowhere / 'dsir.yaml'}"]
    monkeypatch.setenv("DSIR_CONFIG", "theirs.yaml")
    assert str(find_config()) == "theirs.yaml" and str(find_config("mine.yaml")) == "mine.yaml"


def test_the_configuration_of_the_folder_is_announced_unless_told_to_be_quiet(
    pipeline, nowhere, capsys, monkeypatch
):
    pipeline.write_pool()
    monkeypatch.chdir(pipeline.config_path.parent)
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().err == f"the configuration is {pipeline.config_path}\n"
    assert cli.main(["status", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


# --- commands as they can be typed ----------------------------------------------------------------------------------


def test_a_command_in_a_message_can_be_typed(pipeline, dsir):
    pipeline.write_pool()
    _, out, _ = dsir(pipeline, "status")
    assert out.splitlines()[-1] == (
        f"not fresh: 10 outputs; `dsir run --config {pipeline.config_path} --home {pipeline.home}` "
        "brings them up to date"
    )


def test_the_program_is_named_as_it_was_called(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "dsir"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(as_typed, "program", "dsir")
    monkeypatch.setenv("PATH", "/nowhere")
    name_program(str(program))
    assert as_typed("`dsir run` does it, `dsir new x` too; dsir run") == (
        "`bin/dsir run` does it, `bin/dsir new x` too; dsir run"
    )
    monkeypatch.setenv("PATH", str(program.parent))
    name_program(str(program))
    assert as_typed("`dsir run`") == "`dsir run`"
    name_program("/somewhere/dsir_dagster/__main__.py")
    assert as_typed.program.endswith("-m dsir_dagster")


# --- how much is said -----------------------------------------------------------------------------------------------


def test_quiet_says_what_failed_and_the_last_line(pipeline, dsir):
    pipeline.write_pool()
    code, out, err = dsir(pipeline, "run", "-q")
    assert (code, err) == (0, "") and len(out.splitlines()) == 1 and out.startswith("up to date after")
    assert dsir(pipeline, "status", "-q") == (0, "everything is fresh\n", "")
    pipeline.write_bytes("pool/bad.parquet", b"not Parquet")
    code, out, err = dsir(pipeline, "run", "-q")
    assert (
        code == 1 and out.startswith("✗ raw_counts") and len(out.splitlines()) == 1 and "bad.parquet" in err
    )
    _, out, _ = dsir(pipeline, "status", "-q")
    assert "bad" in out and "fresh  " not in out


# --- JSON -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def document(dsir):
    """Call a command with --json; return the one document that it prints."""

    def call(pipeline, *arguments):
        code, out, err = dsir(pipeline, *arguments, "--json")
        assert (code, err) == (0, "") and out.isascii()
        return json.loads(out)

    return call


def test_status_as_json(done, document):
    found = document(done, "status")
    assert found["states"] == {"fresh": 10, "stale": 0, "missing": 0, "failed": 0}
    assert found["outputs"][0] == {
        "asset": "raw_counts",
        "partition": "pool.code",
        "state": "fresh",
        "why": "",
    }
    assert (found["absent"], found["vanished"]) == ({}, [])
    (done.data / "pool/law.jsonl").unlink()
    found = document(done, "status")
    assert found["vanished"] == ["pool.law"] and found["states"]["stale"] > 0
    assert all(each["why"] for each in found["outputs"] if each["state"] == "stale")


def test_report_as_json(done, document):
    found = document(done, "report")
    assert found["pool"]["documents"] == 120 and found["pool"]["uncounted"] == 0
    [selection] = found["selections"]
    assert (selection["selection"], selection["method"], selection["documents"]) == ("picked", "resample", 20)
    assert os.path.isdir(selection["folder"]) and os.path.isfile(selection["report"])
    own, *others = selection["picks"]
    assert (
        own["pick"] is None
        and own["low"] < own["over_random"] < own["high"]
        and isinstance(own["kl_reduction"], float)
        and {"top_k", "random"} <= {each["pick"] for each in others}
    )
    assert sum(each["pool_share"] for each in selection["composition"]) == pytest.approx(1)


def test_why_and_changes_as_json(done, document):
    doc_id = done.picks()[0][2]
    found = document(done, "why", doc_id, "--selection", "picked")
    [explained] = found["documents"]
    assert explained["doc_id"] == doc_id and explained["targets"][0]["ngrams"][0]["nats"] > 0
    assert explained["targets"][0]["verdict"]["picked_for"] and explained["made_by"]
    assert len(document(done, "changes", "picked")["versions"]) < 2
    done.config["selections"][0]["seed"] = 5
    assert done.errors() == []
    found = document(done, "changes", "picked")
    assert [each["number"] for each in found["versions"]] == [1, 2]
    assert {each["change"] for each in found["counts"]} == {"entered", "left"} and found["documents"]


def test_doctor_as_json(pipeline, document):
    pipeline.write_pool()
    found = document(pipeline, "doctor")
    assert found["findings"][0].keys() == {"check", "about", "warning", "says", "advice", "number"}


def test_an_error_is_no_document(pipeline, dsir):
    code, out, err = dsir(pipeline, "doctor", "--json")
    assert code == 1 and out == "" and "no file matches" in err


def test_hostile_text_is_an_escape_in_json(pipeline, document):
    pipeline.write_pool()
    for i, text in enumerate(HOSTILE):
        pipeline.write(f"pool/{i}.jsonl", [{"id": text, "text": "a"}])
    assert document(pipeline, "doctor")["findings"]


# --- completion and the UI ------------------------------------------------------------------------------------------


def test_commands_and_names_of_selections_are_completed(pipeline):
    def complete(typed):
        environment = os.environ | {"_DSIR_COMPLETE": "complete_bash", "COMP_WORDS": typed}
        environment |= {
            "COMP_CWORD": str(len(typed.split(" ")) - 1),
            "DSIR_CONFIG": str(pipeline.config_path),
        }
        command = [sys.executable, "-m", "dsir_dagster"]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60
        ).stdout.split()

    assert complete("dsir sta") == ["status"]
    assert complete("dsir changes pi") == ["picked"]
    assert complete("dsir why x --selection pi") == ["picked"]


def test_the_ui_serves_this_configuration_and_this_home(pipeline, dsir, monkeypatch):
    pipeline.write_pool()
    called = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: called.append((dict(os.environ), arguments)))
    for name in ("DSIR_CONFIG", "DSIR_HOME", "DAGSTER_DISABLE_TELEMETRY", "PATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dsir(pipeline, "ui", "--port", str(port))
    [(environment, arguments)] = called
    assert (environment["DSIR_CONFIG"], environment["DSIR_HOME"]) == (
        str(pipeline.config_path),
        str(pipeline.home),
    )
    assert environment["DAGSTER_DISABLE_TELEMETRY"] == "yes"
    assert arguments[:6] == [sys.executable, "-W", "ignore", "-m", "dagster", "dev"]
    servers = arguments[arguments.index("--workspace") + 1]
    assert "location_name: dsir" in open(servers).read() and arguments[-4] == "--host"


def test_a_port_that_is_taken_is_told(pipeline, dsir):
    pipeline.write_pool()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = dsir(pipeline, "ui", "--port", str(taken.getsockname()[1]))
    assert code == 2 and "Address already in use; choose another with --port" in err


def test_shards_are_registered_for_the_ui(pipeline, dsir):
    pipeline.write("pool/a.jsonl", sentences("law", 3, seed=1))
    assert dsir(pipeline, "init")[1].startswith("1 shard, 1 of them new; outputs go to ")
