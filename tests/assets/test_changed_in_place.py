"""Files of the pool that change and keep their size and time: noticed as soon as a text is read again."""

import importlib
import json
import os

import pytest

from dsir_dagster import cli
from tests.pipeline import sentences

ADVICE = "the file has the size and time that it had then; `touch` it (or upload it again), and `dsir run"


def change(path, row: int) -> None:
    """Change the text of a record; keep the file's size and times, as `rsync -t` and `cp -p` do."""
    before = path.stat()
    lines = path.read_bytes().splitlines(keepends=True)
    text = json.loads(lines[row])["text"]
    lines[row] = lines[row].replace(text.encode(), text[::-1].encode())
    path.write_bytes(b"".join(lines))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def why(pipeline, doc_id: str, capsys) -> str:
    arguments = ["why", doc_id, "--selection", "picked", "--config", str(pipeline.config_path)]
    assert cli.main([*arguments, "--home", str(pipeline.home)]) == 1
    return capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("chunk_words", [None, pytest.param(50, marks=pytest.mark.slow)])
def test_records_of_another_text_are_not_written_and_touch_makes_it_good(pipeline, capsys, chunk_words):
    pipeline.write_pool()
    pipeline.config["raw"][0]["chunk_words"] = chunk_words
    pipeline.config["selections"][0] |= {"min_tokens": 1, "size": {"documents": 40}}
    assert pipeline.errors() == []
    path = pipeline.data / "pool/medicine.jsonl"
    doc_id = pipeline.picks()[0][2]
    row = int(doc_id.partition("#")[0].rpartition("-")[2])
    change(path, row)
    expected = f"{path}: the text at row {row} is not the one that was counted in shard pool.medicine"
    assert expected in (said := why(pipeline, doc_id, capsys)) and ADVICE in said
    pipeline.config["selections"][0]["temperature"] = 2  # the same pool, another draw
    pipeline.config["selections"][0]["size"] = {"fraction": 1.0}
    errors = pipeline.errors()
    assert expected in errors[0] and ADVICE in errors[0]
    # What was there stays until it is right.
    assert len(list((pipeline.home / "selections/picked").glob("*/picks.parquet"))) == 1
    path.touch()
    assert pipeline.errors() == []
    changed = [json.loads(line) for line in path.read_bytes().splitlines()][row]["text"]
    mine = [r for r in map(json.loads, pipeline.records()) if r["_dsir"]["shard"] == "pool.medicine"]
    if chunk_words:
        mine = [r for r in mine if r["_dsir"]["record"] == row]
        assert "".join(r["text"] for r in sorted(mine, key=lambda r: r["_dsir"]["row"])) == changed
    else:
        assert [r["text"] for r in mine if r["_dsir"]["row"] == row] == [changed]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.slow
def test_tables_too(pipeline, suffix):
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    def write(records):
        path = pipeline.data / f"pool/a.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table({name: [each[name] for each in records] for name in ("id", "text")})
        pq.write_table(table, path, compression="none") if suffix == "parquet" else csv.write_csv(table, path)
        os.utime(path, (10**9, 10**9))
        return path.stat().st_size

    records = sentences("medicine", 30, 1)
    size = write(records)
    assert pipeline.errors() == []
    records[7]["text"], records[8]["text"] = records[8]["text"], records[7]["text"]
    assert write(records) == size
    pipeline.config["selections"][0] |= {"seed": 1, "size": {"fraction": 1.0}}
    [error, *_] = pipeline.errors()
    assert "the text at row 7 is not the one that was counted in shard pool.a" in error


def test_the_evaluation_does_not_measure_other_texts(pipeline):
    pipeline.write_pool()
    pipeline.config["selections"][0]["output"] = "none"
    assert pipeline.errors() == []
    path = pipeline.data / "pool/medicine.jsonl"
    for row in range(40):
        change(path, row)
    pipeline.config["evaluation"] = {"random_seeds": 2}
    [error] = pipeline.errors()
    assert "is not the one that was counted in shard pool.medicine" in error


@pytest.mark.parametrize(
    ("module", "name", "output"),
    [
        ("raw_counts", "pool/law.jsonl", "raw_counts[pool.law]"),
        ("target_counts", "medicine.jsonl", "target_counts[medicine]"),
    ],
)
def test_a_file_that_is_replaced_while_it_is_counted_is_refused_and_counted_by_the_next_run(
    pipeline, monkeypatch, module, name, output
):
    pipeline.write_pool()
    counted = importlib.import_module(f"dsir_dagster.assets.{module}")
    read_blocks = counted.read_blocks

    def replacing(uri, *arguments):
        yield from read_blocks(uri, *arguments)
        if uri.endswith(name):
            pipeline.write(name, sentences("code", 50, seed=7))

    monkeypatch.setattr(counted, "read_blocks", replacing)
    [error] = [each for each in pipeline.errors() if each.startswith(output)]
    assert "replaced or written to after it was found" in error
    monkeypatch.undo()
    assert pipeline.errors() == []
    [(documents,)] = pipeline.rows(
        f"SELECT rows FROM lineage WHERE asset || '[' || partition || ']' = '{output}'"
    )
    assert documents == 50
