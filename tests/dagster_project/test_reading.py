"""The commands that read: whatever is not there, may not be written or has a hostile name, they show what there is."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from benchmarks.pool import REPOSITORY
from dagster_project import cli
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
        ("verify",),
    ]


def first_picked(pipeline):
    return pipeline.picks()[0][2]


# --- a home that must not be written to -----------------------------------------------------------------------------


def test_a_home_on_a_read_only_disk(done, tmp_path):
    """Every command that reads works, though nothing can be locked, recorded or made; those that write say so."""
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
        for arguments in (*reading(first_picked(done)), ("prune", "--yes"), ("init",), ("run",))
    ]
    code = (
        "import json, sys; from dagster_project import cli\n"
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
    assert {code for code, *_ in codes[:-3]} == {"0"}
    assert {code for code, *_ in codes[-3:]} == {"1"}
    *read, prune, init, run, _ = said.stderr.split("=\n")
    assert set(read) == {""}
    for each in (prune, init, run):
        assert len(each.splitlines()) == 1 and "name another folder" in each and home in each


# --- files that are not there ---------------------------------------------------------------------------------------


def test_a_source_that_is_absent_as_a_whole_is_shown_as_it_was(done, dsir):
    picked = first_picked(done)
    (done.data / "pool").rename(done.data / "elsewhere")
    for arguments in reading(picked):
        if arguments[0] in ("changes", "doctor", "verify"):
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
    assert (
        dsir(done, "status")[:2] == (0, dsir(done, "status")[1])
        and "not there" not in dsir(done, "status")[1]
    )


def test_a_target_that_is_absent_is_shown_as_it_was(done, dsir):
    (done.data / "medicine.jsonl").unlink()
    code, out, _ = dsir(done, "status")
    assert code == 0 and "target medicine is not there" in out and "everything is fresh" in out
    assert dsir(done, "report")[0] == 0


def test_one_shard_that_vanished_is_no_absent_source(done, dsir):
    (done.data / "pool/law.jsonl").unlink()
    code, out, _ = dsir(done, "status")
    assert code == 0 and "1 shards vanished: pool.law" in out and "is not there" not in out
    _, out, _ = dsir(done, "prune")
    assert "its shard vanished" in out


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A pipeline that ran over hostile sources, ids and names of files."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("hostile"))
    pipeline.config["raw"][0]["source"] = "domain"
    names = [name for name in HOSTILE if "\udcff" not in name]  # JSON has no such text
    for seed, domain in enumerate(("medicine", "law")):
        records = sentences(domain, 2 * len(names), seed=seed)
        for i, record in enumerate(records):
            record["domain"] = names[i % len(names)]
            record["id"] = f"{names[(7 * i) % len(names)]}{domain}{i}"
        pipeline.write(f"pool/{domain}.jsonl", records)
    pipeline.write_bytes("pool/\x1b[31m\n✓ x.jsonl", b'{"id": "\\u001b[2K", "text": 7}\n')
    assert [
        error for error in pipeline.errors() if "\\x1b[31m" not in error and "\x1b[31m" not in error
    ] == []
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
    import dagster as dg

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
    code, out, _ = dsir(pipeline, "why", "medicine-1-3", "--selection", "picked")
    assert code == 0
    [n] = pipeline.rows("SELECT count(*) FROM documents WHERE doc_id LIKE 'medicine-1-3#%'")[0]
    picks = pipeline.rows("SELECT doc_id FROM selections WHERE doc_id LIKE 'medicine-1-3#%' ORDER BY rank")
    assert f"a record that was cut into {n} documents, of which {len(picks)} are picked" in out
    assert f"and {n - 10} more" in out
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  medicine-1-3#")]
    assert len(listed) == 10 and listed[: len(picks)] == [doc_id for (doc_id,) in picks][:10]
    assert dsir(pipeline, "why", listed[0], "--selection", "picked")[0] == 0
    code, _, err = dsir(pipeline, "why", "medicine-1", "--selection", "picked")
    assert code == 2 and "no document has the id" in err
