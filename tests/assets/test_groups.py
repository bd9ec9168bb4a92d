"""Many small files as one shard: the same documents, ids, picks and records as with a shard a file."""

import gzip
import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from dsir_dagster import cli
from dsir_dagster.assets import raw_counts
from dsir_dagster.assets.methods import METHODS
from dsir_dagster.doctor import samples
from dsir_dagster.resources import discovery
from dsir_dagster.resources.corpus import discover
from dsir_dagster.resources.partitions import register_shards
from tests.pipeline import DOMAINS, QUICK_EVALUATION, SmallPipeline, sentences

READER = """
import pyarrow as pa
from pathlib import Path

def paragraphs(uri):
    texts = Path(uri).read_text().split("\\n\\n")
    yield pa.RecordBatch.from_pylist([{"text": text, "id": None} for text in texts])
"""


def write_pool(pipeline: SmallPipeline) -> None:
    """Write small files of all formats in folders, with rows that cannot be used and documents without ids."""
    for seed, domain in enumerate(DOMAINS):
        for i in range(4):
            records = sentences(domain, 6, seed=10 * seed + i)
            for record in records[::3]:
                del record["id"]
            pipeline.write(f"pool/{domain}/part-{i}.jsonl", records)
            pipeline.write(f"long/{domain}-{i}.jsonl", records[:4])
            text = "\n\n".join(record["text"] for record in records[:3])
            pipeline.write_bytes(f"own/{domain}-{i}.txt", text.encode())
    rows = pa.Table.from_pylist([{"text": r["text"], "id": None} for r in sentences("law", 5, seed=90)])
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    pipeline.write_bytes("pool/law/rows.parquet", sink.getvalue())
    sink = io.BytesIO()
    pa.feather.write_feather(rows, sink, compression="uncompressed")
    pipeline.write_bytes("pool/rows.arrow", sink.getvalue())
    lines = "".join(f'{i},"{r["text"]}"\n' for i, r in enumerate(sentences("medicine", 5, seed=91)))
    pipeline.write_bytes("pool/law/table.csv", f"id,text\n{lines}one,too,many\n".encode())
    lines = "".join(json.dumps(record) + "\n\n" for record in sentences("code", 5, seed=92))
    pipeline.write_bytes("pool/zipped.jsonl.gz", gzip.compress(f"{lines}not JSON\n".encode()))
    pipeline.write_bytes("pool/empty.jsonl", b"")
    pipeline.write_bytes("pool/law/last.jsonl", b"")
    pipeline.write_bytes("pool/medicine/blank.jsonl", b"\n\n")


def configure(pipeline: SmallPipeline, methods=("resample",), **group: object) -> SmallPipeline:
    pipeline.config["raw"] = [
        {"name": "pool", "uri": "data/pool/**", "id": "id", "max_quarantined": 1, **group},
        {"name": "long", "uri": "data/long/*", "id": "id", "chunk_words": 40, **group},
        {"name": "own", "uri": "data/own/*", "id": "id", "reader": "paragraphs:paragraphs", **group},
    ]
    pipeline.config["evaluation"] = QUICK_EVALUATION
    pipeline.config["selections"] = [
        {
            "name": method,
            "targets": ["medicine"],
            "method": method,
            "size": {"documents": 60},
            "min_tokens": 10,
            "collapse_duplicates": method == "top_k",
            "output": "parquet" if method == "top_k" else "jsonl",
        }
        for method in methods
    ]
    return pipeline


def new_pipeline(folder: Path, *methods: str, **group: object) -> SmallPipeline:
    pipeline = configure(SmallPipeline(folder), *methods, **group)
    write_pool(pipeline)
    (folder / "paragraphs.py").write_text(READER)
    return pipeline


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The same files as single shards and as groups; not to be changed."""
    both = []
    for name, group in (("single", {}), ("grouped", {"group": {"bytes": "12 kB"}})):
        pipeline = new_pipeline(tmp_path_factory.mktemp(name), **group)
        assert pipeline.errors() == []
        both.append(pipeline)
    return both


@pytest.fixture
def grouped(ran, tmp_path):
    """Groups that were counted once."""
    shutil.copy(ran[1].folder / "paragraphs.py", tmp_path)
    return ran[1].copy(tmp_path)


def due(pipeline: SmallPipeline) -> list[str]:
    """Return the shards that have to be counted."""
    return [
        each.partition
        for each in pipeline.workspace().plan().outputs_of("raw_counts")
        if each.state != "fresh"
    ]


def group_of(pipeline: SmallPipeline, name: str) -> str:
    [(shard,)] = pipeline.rows(f"SELECT shard FROM files WHERE name = '{name}'")
    return shard


def count(pipeline: SmallPipeline, shard: str) -> str | None:
    """Count a shard; return why it could not be."""
    pipeline.materialize("raw_counts", partition=shard)
    [error] = pipeline.rows(f"SELECT error FROM failures WHERE partition = '{shard}'") or [(None,)]
    return error[0]


def documents(pipeline: SmallPipeline) -> list[tuple]:
    return pipeline.rows("SELECT doc_id, source, n_tokens, content_hash FROM documents ORDER BY shard, row")


def test_picks_ids_and_records_are_those_of_single_files(ran):
    single, grouped = ran
    [(files, groups)] = grouped.rows("SELECT count(*), count(DISTINCT shard) FROM files")
    assert single.rows("SELECT count(*) FROM shards") == [(files,)] and 5 < groups < files / 3
    assert documents(grouped) == documents(single)
    assert any(row[0] == "pool.law.rows:4" for row in documents(grouped))
    picks = grouped.picks("resample")
    assert picks == single.picks("resample") and len(picks) == 60
    assert {row[2].partition(".")[0] for row in picks} >= {"pool", "own"}, "ids made of file and row"
    records = [
        [{**json.loads(line), "_dsir": None} for line in pipeline.records("resample")] for pipeline in ran
    ]
    assert records[0] == records[1] and any("id" not in record for record in records[0])


@pytest.mark.slow
def test_no_method_depends_on_groups(tmp_path):
    single = new_pipeline(tmp_path / "single", METHODS)
    grouped = new_pipeline(tmp_path / "grouped", METHODS, group={"bytes": "12 kB"})
    assert single.errors() == grouped.errors() == []
    for method in METHODS:
        assert grouped.picks(method) == single.picks(method) != [], method
    tables = [
        pq.read_table(*pipeline.home.glob("selections/top_k/*/records-*")).drop_columns("_dsir")
        for pipeline in (single, grouped)
    ]
    assert tables[0].equals(tables[1])


def test_a_row_of_a_group_is_found_in_its_file(ran):
    single, grouped = ran
    why = (
        "SELECT w.doc_id, replace(w.uri, $$%s$$, ''), w.row_in_file, w.begin_byte, w.verdict "
        "FROM documents AS d, why(d.doc_id, 'resample') AS w ORDER BY ALL"
    )
    quarantine = "SELECT replace(uri, $$%s$$, ''), row_in_file, reason, excerpt FROM quarantine ORDER BY ALL"
    for query in (why, quarantine):
        assert grouped.rows(query % grouped.data) == single.rows(query % single.data) != []
    assert [row[:2] for row in grouped.rows(quarantine % grouped.data)] == [
        ("/pool/law/table.csv", 5),
        ("/pool/medicine/blank.jsonl", 0),
        ("/pool/medicine/blank.jsonl", 1),
        *[("/pool/zipped.jsonl.gz", row) for row in (1, 3, 5, 7, 9, 10)],
    ]
    [(doc_id, row)] = grouped.rows(
        "SELECT doc_id, row FROM documents WHERE doc_id = 'pool.law.part-2:3' AND shard <> 'pool.law.part-2'"
    )
    assert row > 3, "it counts through the files of the group"
    assert grouped.rows(f"SELECT DISTINCT uri, row_in_file FROM why('{doc_id}', 'resample')") == [
        (str(grouped.data / "pool/law/part-2.jsonl"), 3)
    ]


def test_why_and_the_catalog_name_the_files_of_a_group(grouped, capsys):
    where = ["--config", str(grouped.config_path), "--home", str(grouped.home)]
    assert cli.main(["why", "pool.law.part-2:3", "--selection", "resample", *where]) == 0
    said = capsys.readouterr().out
    assert f"{grouped.data / 'pool/law/part-2.jsonl'}, row 3 (from 0)" in said.replace("\n", "")
    assert "SHA-256 of the names and stamps of the shard's files: " in said
    shard = group_of(grouped, "pool.law.part-2")
    assert grouped.rows(
        "SELECT DISTINCT partition FROM dependents('law/part-2.jsonl') WHERE asset = 'raw_counts'"
    ) == [(shard,)]
    [(first,)] = grouped.rows(f"SELECT uri FROM shards WHERE shard = '{shard}'")
    [(n,)] = grouped.rows(f"SELECT count(*) FROM files WHERE shard = '{shard}'")
    [(uri, stamp)] = grouped.rows(
        f"SELECT uri, sha256 FROM chain((SELECT any_value(version) FROM selections WHERE selection = 'resample'), "
        f"'{shard}') WHERE asset = 'raw_counts'"
    )
    assert n > 1 and uri == f"{first} and {n - 1} more" and stamp.startswith("files ")
    assert grouped.rows("SELECT stamp FROM files WHERE name = 'pool.empty'") == [
        (hashlib.sha256().hexdigest(),)
    ]
    # A text that is not the one that was counted.
    path = grouped.data / "pool/law/part-2.jsonl"
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content.replace(b"the", b"eht"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cli.main(["why", "pool.law.part-2:3", "--selection", "resample", *where]) == 1
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"{path}: the text at row 3 is not the one that was counted in shard {shard}" in said


def test_a_replaced_file_and_one_that_goes_count_their_group_again_alone(grouped):
    assert due(grouped) == []
    changed = group_of(grouped, "pool.law.part-2")
    path = grouped.write("pool/law/part-2.jsonl", sentences("law", 6, seed=50))
    assert due(grouped) == [changed] and count(grouped, changed) is None and due(grouped) == []
    assert grouped.rows("SELECT row FROM documents WHERE doc_id = 'law-50-1'") != []
    # The file begins no group.
    path.unlink()
    assert due(grouped) == [changed] and count(grouped, changed) is None
    assert grouped.rows("SELECT row FROM documents WHERE doc_id = 'law-50-1'") == []
    # One that does: the rest of its group has another key, and the old one has vanished.
    first = grouped.rows("SELECT DISTINCT shard FROM files WHERE shard LIKE 'pool.%' ORDER BY ALL")[-1][0]
    [(uri,)] = grouped.rows(f"SELECT uri FROM shards WHERE shard = '{first}'")
    Path(uri).unlink()
    assert len(due(grouped)) == 1 and grouped.workspace().discovery.vanished() == [first]
    # The pool moves: names are the same.
    (grouped.data / "long").rename(grouped.data / "moved")
    grouped.config["raw"][1]["uri"] = "data/moved/*"
    assert len(due(grouped)) == 1


def test_a_file_is_read_for_its_stamp_once(grouped, monkeypatch):
    read: list[str] = []
    stamp = discovery.stamp_of
    monkeypatch.setattr(discovery, "stamp_of", lambda file: read.append(file.uri) or stamp(file))
    changed = grouped.write("pool/law/part-2.jsonl", sentences("law", 6, seed=51))
    for _ in range(2):
        grouped.workspace().discovery.shards()
        assert read == [str(changed)]
    (grouped.home / "listings/pool.parquet").unlink()
    grouped.workspace().discovery.shards()
    assert len(read) > 10, "a lost listing costs reading the files"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x1f\x8b\x08" + bytes(100), "cannot be read"),
        (b'{"txt": "a"}\n{"txt": "b"}\n', "none of its 2 rows can be used: no field 'text'"),
    ],
)
def test_a_bad_file_fails_its_group_alone_and_is_named(grouped, content, reason):
    shard = group_of(grouped, "pool.law.part-2")
    bad = grouped.write_bytes("pool/law/part-2.jsonl", content)
    others = [each for each in grouped.workspace().plan().counted if each != shard]
    error = count(grouped, shard)
    assert error.startswith(f"{bad}: ") and reason in error
    assert grouped.workspace().plan().counted == others
    bad.unlink()
    assert count(grouped, shard) is None


def test_a_file_that_is_replaced_while_its_group_is_counted_fails_it(grouped, monkeypatch):
    shard = group_of(grouped, "pool.law.part-2")
    path = grouped.write("pool/law/part-2.jsonl", sentences("law", 6, seed=52))
    read_blocks = raw_counts.read_blocks

    def replaced(uri, *rest):
        yield from read_blocks(uri, *rest)
        if uri == str(path):
            grouped.write("pool/law/part-2.jsonl", sentences("law", 7, seed=52))

    monkeypatch.setattr(raw_counts, "read_blocks", replaced)
    assert count(grouped, shard).startswith(f"{path}: replaced or written to after it was found")


def test_a_home_goes_from_single_files_to_groups_and_back(pipeline):
    for seed, name in enumerate("abcd"):
        pipeline.write(
            f"pool/{name}.jsonl", [{"text": each["text"]} for each in sentences("law", 3, seed=seed)]
        )
    single = [f"pool.{name}" for name in "abcd"]
    ids = [f"{shard}:{row}" for shard in single for row in range(3)]
    for group, counted in ((None, single), ({"bytes": "1 GB"}, ["pool.a"]), (None, ["pool.a"])):
        pipeline.config["raw"][0]["group"] = group
        assert due(pipeline) == counted
        register_shards(pipeline.instance, pipeline.workspace().plan())
        assert not any(count(pipeline, shard) for shard in counted) and due(pipeline) == []
        assert [row[0] for row in documents(pipeline)] == ids
        assert pipeline.rows("SELECT count(*) FROM files") == [(4 if group else 0,)]
        assert pipeline.workspace().discovery.vanished() == (single[1:] if group else [])


def test_a_source_that_is_away_is_shown_as_it_was(grouped, capsys):
    (grouped.data / "pool").rename(grouped.data / "away")
    where = ["--config", str(grouped.config_path), "--home", str(grouped.home)]
    assert cli.main(["status", *where]) == 0
    assert "everything is fresh" in capsys.readouterr().out
    assert cli.main(["why", "pool.law.part-2:3", "--selection", "resample", *where]) == 0
    assert "pool/law/part-2.jsonl, row 3" in capsys.readouterr().out


def test_doctor_knows_that_a_grouped_pool_is_counted(grouped):
    workspace = grouped.workspace()
    shards = [shard for source in workspace.settings.raw for shard in discover(source, workspace.home)]
    found = samples.counted_pool(workspace, shards)
    assert found is not None and found.documents == len(documents(grouped))
    grouped.write("pool/law/part-2.jsonl", sentences("law", 6, seed=53))
    shards = [shard for source in workspace.settings.raw for shard in discover(source, workspace.home)]
    assert samples.counted_pool(workspace, shards) is None
