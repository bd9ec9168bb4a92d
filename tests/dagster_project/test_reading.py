"""The commands that read: with absent files, a read-only home or hostile names, they show what there is."""

import io
import json
import os
import shutil
import subprocess
import sys

import dagster as dg
import pytest
import sqlalchemy as sa

from benchmarks.pool import REPOSITORY
from dsir_dagster import cli
from dsir_dagster import report as reports
from dsir_dagster.resources.store import Store
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.terminal import Terminal
from tests.pipeline import SmallPipeline, sentences
from tests.resources.test_borders import HOSTILE


@pytest.fixture
def dsir(capsys, monkeypatch):
    """Run a command on a pipeline in this process; return its exit code, what it prints, and its errors."""
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.delenv("DAGSTER_HOME")

    def run(pipeline, *arguments):
        capsys.readouterr()
        code = cli.main([*arguments, "--config", str(pipeline.config_path), "--home", str(pipeline.home)])
        return code, *capsys.readouterr()

    return run


def reading(picked):
    """Return the arguments of each command that reads."""
    return [
        ("status",),
        ("status", "--all"),
        ("report",),
        ("why", picked, "--selection", "picked"),
        ("changes", "picked"),
        ("prune",),
        ("doctor",),
    ]


def first_picked(pipeline):
    return pipeline.picks()[0][2]


# --- a read-only home -----------------------------------------------------------------------------------------------


def test_a_home_on_a_read_only_disk(done, tmp_path):
    """Commands that read work though nothing can be locked or written; commands that write say so."""
    mounted = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,bind,ro {tmp_path} && exec " + '"$@"'
    unshare = ["unshare", "-rm", "sh", "-c", mounted, "sh"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this system lets no one mount")
    home = str(done.home)
    commands = [
        [*arguments, "--config", str(done.config_path), "--home", home]
        for arguments in (*reading(first_picked(done)), ("verify",), ("prune", "--yes"), ("run",))
    ]
    code = (
        "import json, sys; from dsir_dagster import cli\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    code = cli.main(arguments)\n"
        "    print('=', code, *arguments[:2], flush=True)\n"
        "    print('=', file=sys.stderr, flush=True)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    said = subprocess.run(
        [*unshare, sys.executable, "-c", code, json.dumps(commands)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=REPOSITORY,
        check=True,
    )
    codes = [line.split()[1:] for line in said.stdout.splitlines() if line.startswith("= ")]
    assert {code for code, *_ in codes[:-3]} == {"0"}, said
    assert {code for code, *_ in codes[-3:]} == {"1"}
    *read, verify, prune, run, _ = said.stderr.split("=\n")
    assert set(read) == {""}
    for each in (verify, prune, run):
        assert len(each.splitlines()) == 1 and "name another folder" in each and home in each


# --- absent files ---------------------------------------------------------------------------------------------------


def test_a_source_that_is_absent_as_a_whole_is_shown_as_it_was(done, dsir):
    picked = first_picked(done)
    (done.data / "pool").rename(done.data / "elsewhere")
    for arguments in reading(picked):
        if arguments[0] in ("changes", "doctor"):
            continue
        code, out, err = dsir(done, *arguments)
        assert (code, err) == (0, "")
        assert "source pool is not there" in out and "no file matches" in out
        assert picked in out or arguments[0] != "why"
    assert "everything is fresh" in dsir(done, "status")[1]
    _, out, _ = dsir(done, "prune", "--yes")
    assert "nothing of it is removed" in out and "there is nothing to remove" in out
    code, _, err = dsir(done, "run")
    assert code == 1 and "no file matches" in err
    (done.data / "elsewhere").rename(done.data / "pool")
    code, out, _ = dsir(done, "status")
    assert code == 0 and "not there" not in out


def test_a_target_that_is_absent_is_shown_as_it_was(done, dsir):
    (done.data / "medicine.jsonl").unlink()
    code, out, _ = dsir(done, "status")
    assert code == 0 and "target medicine is not there" in out and "everything is fresh" in out
    assert dsir(done, "report")[0] == 0


def test_one_shard_that_vanished_is_no_absent_source(done, dsir):
    (done.data / "pool/law.jsonl").unlink()
    code, out, _ = dsir(done, "status")
    assert code == 0 and "1 shard vanished: pool.law" in out and "is not there" not in out
    _, out, _ = dsir(done, "prune")
    assert "its shard vanished" in out


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A pipeline that ran over hostile sources, ids and file names."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("hostile"))
    pipeline.config["raw"][0]["source"] = "domain"
    names = [name for name in HOSTILE if "\udcff" not in name]  # JSON cannot hold it
    for seed, domain in enumerate(("medicine", "law")):
        records = sentences(domain, 2 * len(names), seed=seed)
        for i, record in enumerate(records):
            record["domain"] = names[i % len(names)]
            record["id"] = f"{names[(7 * i) % len(names)]}{domain}{i}"
        pipeline.write(f"pool/{domain}.jsonl", records)
    odd = pipeline.write("pool/\x1b[31m\n✓ x.jsonl", sentences("code", 20, seed=3))
    odd.write_bytes(odd.read_bytes() + b'{"id": "\\u001b[2K", "text": null}\n')
    assert pipeline.errors() == []
    return pipeline


def test_hostile_names_are_shown_by_every_command_and_forge_nothing(hostile, dsir):
    everyone = hostile.rows("SELECT doc_id FROM selections UNION ALL SELECT doc_id FROM documents")
    ids = dict.fromkeys(doc_id for (doc_id,) in everyone)
    whys = [("why", doc_id, "--selection", "picked") for doc_id in [*ids][:12]]
    for arguments in (*reading("nobody")[:3], *reading("nobody")[4:], *whys):
        if arguments == ("changes", "picked"):
            hostile.config["selections"][0]["seed"] = 1
            hostile.errors()
        code, out, err = dsir(hostile, *arguments)
        assert code == 0, (arguments, out, err)
        for line in (out + err).split("\n"):
            assert line.isprintable(), (arguments, line)
            assert not line.startswith("✓ forged") and not line.startswith("✓ x"), arguments


def test_hostile_names_in_what_dagster_and_the_page_show(hostile):
    [selection] = hostile.rows("SELECT metadata->>'report' FROM latest WHERE asset = 'evaluations'")
    page = (hostile.home / selection[0]).read_text(encoding="utf-8")
    assert "<script" not in page and not set("\x1b\x00\x9b\u202e\u2028") & set(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and r"\x1b[2K\x1b[1A✓ forged" in page
    shown = []
    for key in hostile.instance.get_asset_keys():
        for record in hostile.instance.fetch_materializations(key, limit=20).records:
            metadata = record.asset_materialization.metadata.values()
            shown += [each.md_str for each in metadata if isinstance(each, dg.MarkdownMetadataValue)]
    tables = [table for table in shown if table.startswith("|")]
    assert any("forged" in table for table in tables)
    for table in tables:
        lines = table.splitlines()
        assert len({line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines}) == 1
        assert "<script" not in table.replace("\\<", "") and "\x1b" not in table


# --- pieces of records ----------------------------------------------------------------------------------------------


def test_the_id_of_a_record_that_was_cut_lists_its_pieces(pipeline, dsir):
    pipeline.config["raw"][0]["chunk_words"] = 30
    pipeline.config["selections"][0]["min_tokens"] = 10
    pipeline.write("pool/a.jsonl", sentences("medicine", 10, seed=1, length=600))
    assert pipeline.errors() == []
    code, out, err = dsir(pipeline, "why", "medicine-1-3", "--selection", "picked")
    assert (code, err) == (0, "")
    [n] = pipeline.rows("SELECT count(*) FROM documents WHERE doc_id LIKE 'medicine-1-3#%'")[0]
    picks = pipeline.rows("SELECT doc_id FROM selections WHERE doc_id LIKE 'medicine-1-3#%' ORDER BY rank")
    assert f"a record that was cut into {n} documents, {len(picks)} of them picked" in out
    assert f"and {n - 10} more" in out
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  medicine-1-3#")]
    assert len(listed) == 10 and listed[: len(picks)] == [doc_id for (doc_id,) in picks][:10]
    assert dsir(pipeline, "why", listed[0], "--selection", "picked")[0] == 0
    code, _, err = dsir(pipeline, "why", "medicine-1", "--selection", "picked")
    assert code == 2 and "no document has the id" in err


# --- foreign errors -------------------------------------------------------------------------------------------------


def test_a_run_where_the_terminal_has_no_check_mark(done, dsir, monkeypatch):
    """As with PYTHONIOENCODING=ascii: marks become ASCII, other characters escapes, and the run goes on."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    code, _, err = dsir(done, "run")
    assert (code, err) == (0, "")
    stream.flush()
    assert b"+ raw_counts           3 fresh" in stream.buffer.getvalue()


@pytest.mark.slow
def test_a_disk_that_is_full_for_dagsters_history(pipeline, dsir, monkeypatch):
    pipeline.write_pool()
    assert dsir(pipeline, "init")[0] == 0

    def full(connection, record):
        connection.execute("PRAGMA max_page_count = 1")  # or as many as it has

    sa.event.listen(sa.Engine, "connect", full)
    try:
        code, _, err = dsir(pipeline, "run")
    finally:
        sa.event.remove(sa.Engine, "connect", full)
    *of_dagster, line = err.splitlines()  # it also reports a record that it could not keep
    assert code == 1 and "database or disk is full; finished work is kept: make room and start again" in line
    assert str(pipeline.home / "dagster") in line and "Traceback" not in err
    assert not of_dagster or of_dagster[0].startswith("Exception while writing logger call to event log")
    assert dsir(pipeline, "run")[0] == 0


@pytest.mark.parametrize("content", [b"", b"garbage" * 10_000])
def test_garbage_in_the_catalog(done, dsir, content):
    (done.home / "catalog.duckdb").write_bytes(content)
    for arguments in (("status",), ("report",), ("changes", "picked"), ("run",)):
        code, _, err = dsir(done, *arguments)
        assert code == 1 and len(err.splitlines()) == 1 and "dsir verify --rebuild" in err


@pytest.mark.parametrize("text", ["raw: " + "[" * 2000, "raw: &a [*a]"])
def test_a_configuration_nested_without_end(pipeline, capsys, text):
    path = pipeline.config_path
    path.write_text(text)
    assert cli.main(["status", "--config", str(path), "--home", str(pipeline.home)]) == 2
    assert capsys.readouterr().err == f"{path}: nested too deeply; a configuration takes a few levels\n"


def test_a_step_that_runs_out_of_memory_says_so(pipeline, monkeypatch):
    """The error has no text of its own: the name of the partition would stand alone."""

    def fails(*_):
        raise MemoryError

    pipeline.write_pool()
    monkeypatch.setattr(Store, "table_writer", fails)
    [error, *_] = pipeline.errors()
    assert "raw_counts[pool.code]: not enough memory; end other programs" in error


def test_an_interrupt_is_one_line(done, dsir, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Workspace, "known_plan", interrupted)
    code, out, err = dsir(done, "status")
    assert (code, out) == (130, "") and len(err.splitlines()) == 1


# --- several configurations, and overrides --------------------------------------------------------------------------


def shares(out):
    """Return the sources and shares of a report's composition."""
    rows = out.split("Where the documents come from")[1].split("Files")[0].splitlines()[2:]
    return {row.split()[0]: row.split()[2] for row in rows if row}


@pytest.fixture
def two(pipeline, tmp_path):
    """Two configurations of one home with a selection of the same name; the second one ran."""
    pipeline.write_pool()
    pipeline.config["raw"][0]["source"] = "domain"
    other = SmallPipeline(tmp_path / "other")
    other.home = pipeline.home
    other.instance = pipeline.instance
    other.data = pipeline.data
    other.write("law-target.jsonl", sentences("law", 30, seed=100))
    other.config["raw"] = [{**pipeline.config["raw"][0], "uri": str(pipeline.data / "pool/*")}]
    other.config["targets"] = [{"name": "law", "uri": str(pipeline.data / "law-target.jsonl")}]
    [picked] = other.config["selections"]
    other.config["selections"] = [{**picked, "targets": ["law"], "size": {"documents": 10}}]
    assert other.errors() == []
    return pipeline, other


def test_report_shows_only_its_own_configurations_versions(two, dsir):
    pipeline, other = two
    code, out, _ = dsir(pipeline, "report")
    assert (
        code == 0
        and f"of another configuration; `dsir run --config {pipeline.config_path} " in out
        and "resample" not in out
    )
    assert pipeline.errors() == []
    _, out, _ = dsir(pipeline, "report")
    assert "another configuration" not in out and "stale" not in out
    assert shares(out)["medicine"] == "100.0%"
    assert other.errors() == []
    _, out, _ = dsir(other, "report")
    assert shares(out)["law"] == "100.0%"
    # Mine again: not the newest, and its evaluation was replaced by the other's, which is not shown for it.
    _, out, _ = dsir(pipeline, "report")
    assert "with another configuration was made since" in out and "Where the documents come from" not in out
    [mine] = pipeline.rows(
        "SELECT (metadata->>'tokens')::BIGINT FROM lineage WHERE asset = 'selections' "
        "AND (metadata->>'documents')::BIGINT = 20"
    )
    assert f"{mine[0]:,}" in out


def test_report_marks_what_is_stale_and_shows_an_override_with_its_own_composition(done, dsir):
    _, out, _ = dsir(done, "report")
    assert "stale" not in out
    assert done.materialize("selections", partition="picked", documents=7).success
    _, out, _ = dsir(done, "report")
    assert "goes back: changed: configuration (size" in out
    assert "Where the documents come from" not in out  # the evaluation is of the version before
    assert done.materialize("evaluations", partition="picked").success
    _, out, _ = dsir(done, "report")
    assert "overridden in the launchpad" in out and "Where the documents come from" in out
    [(tokens,)] = done.rows("SELECT sum(n_tokens)::BIGINT FROM selections")
    assert f"{tokens:,}" in out
    assert done.errors() == []
    assert "overridden" not in dsir(done, "report")[1]
    done.config["selections"][0]["seed"] = 5
    _, out, _ = dsir(done, "report")
    assert "picked is stale: changed: configuration (seed 0 -> 5)" in out
    done.write("pool/new.jsonl", sentences("law", 5, seed=7))
    assert "1 of 4 shards is not counted, or changed since" in dsir(done, "report")[1]


def test_the_report_names_the_text_that_was_measured_on():
    held_out, fitted = "held-out target text", "the fitted target text (no holdout)"
    rows = [
        {"selection": name, "measured_on": on}
        for name, on in (("a", held_out), ("b", fitted), ("c", held_out), ("d", None))
    ]
    assert reports.measured_on(rows[1:2]) == fitted
    assert reports.measured_on([rows[0], *rows[2:]]) == held_out
    assert reports.measured_on(rows) == f"{held_out}: a, c; {fitted}: b"


def test_one_row_and_one_shard_are_singular():
    pool = {"documents": 1, "shards": 1, "tokens": 2, "megabytes": 1.0, "megabytes_per_second": 1.0}
    pool |= {"quarantined": 1, "uncounted": 1, "of_shards": 2}
    console = Terminal(file=io.StringIO(), width=200)
    reports.print_pool(pool, None, console)
    said = console.file.getvalue()
    assert "1 document in 1 shard, 2 tokens" in said and "1 row quarantined" in said
    assert "1 of 2 shards is not counted, or changed since" in said


def test_paths_of_files_are_aligned(done, dsir):
    lines = dsir(done, "report")[1].split("Files\n")[1].split("\n\n")[0].splitlines()
    assert len(lines) == 3 and len({line.index(str(done.home)) for line in lines}) == 1


@pytest.mark.parametrize(
    "command", [["report"], ["why", "x", "--selection", "picked"], ["verify"], ["prune"]]
)
def test_a_home_that_is_not_there_is_named_and_not_made(pipeline, capsys, command):
    pipeline.write_pool()
    nowhere = pipeline.folder / "nowhere"
    assert cli.main([*command, "--config", str(pipeline.config_path), "--home", str(nowhere)]) == 1
    assert f"{nowhere}: there is no home here" in capsys.readouterr().err and not nowhere.exists()


def test_status_says_what_failed_and_agrees_with_a_run(pipeline, capsys):
    def status():
        arguments = ["status", "--config", str(pipeline.config_path), "--home", str(pipeline.home)]
        capsys.readouterr()
        assert cli.main(arguments) == 0
        return " ".join(capsys.readouterr().out.split())

    pipeline.write_pool()
    path = pipeline.write_bytes("pool/bad.parquet", b"not Parquet")
    assert "raw_counts pool.bad missing never materialized" in status()
    stages = pipeline.run()
    assert [stage.fresh for stage in pipeline.run().values()] == [3, 1, 1, 3, 1, 1]
    shown = status()
    assert "raw_counts pool.bad failed" in shown and str(path) in shown.replace(
        " ", ""
    )  # folded to the width
    assert "failed: 1 output; repair what is named, and `dsir run " in shown
    assert "weights 3 fresh" in shown and "selections 1 fresh" in shown and "not fresh" not in shown
    assert pipeline.rows("SELECT asset, partition FROM failures") == [("raw_counts", "pool.bad")]
    # Another file is another matter.
    path.write_bytes(b"not Parquet either")
    shown = status()
    assert "raw_counts pool.bad missing never materialized" in shown
    assert "importance_estimator - stale not counted yet: raw_counts[pool.bad]" in shown
    path.unlink()
    pipeline.write("pool/bad.jsonl", sentences("law", 3, seed=4))
    assert not any(stage.failed for stage in pipeline.run().values()) and stages["raw_counts"].failed
    assert "everything is fresh" in status()
    assert pipeline.rows("SELECT count(*) FROM failures") == [(0,)]
