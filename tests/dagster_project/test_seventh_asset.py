"""A new asset takes one module and one entry, and appears in definitions, `status`, `run`, `verify`, `prune`, SQL."""

from dataclasses import replace

import dagster as dg
import pytest

from dsir_dagster import cli
from dsir_dagster.assets.graph import GRAPH
from dsir_dagster.definitions import build_defs
from dsir_dagster.resources.graph import Graph
from tests.assets.lengths import LENGTHS


@pytest.fixture
def seven(pipeline, monkeypatch):
    """A pipeline with document lengths as a seventh asset."""
    monkeypatch.setitem(GRAPH.assets, LENGTHS.name, LENGTHS)
    pipeline.write_pool()
    return pipeline


def test_an_asset_before_what_it_is_made_of_is_refused():
    with pytest.raises(ValueError, match="asset lengths: comes before raw_counts, which it is made of"):
        Graph({LENGTHS.name: LENGTHS, **GRAPH.assets})


@pytest.mark.slow
def test_a_seventh_asset_takes_part_in_everything(seven, capsys, monkeypatch):
    def command(name, *arguments):
        capsys.readouterr()
        code = cli.main([name, "--config", str(seven.config_path), "--home", str(seven.home), *arguments])
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    found = build_defs(seven.config_path, seven.home).resolve_asset_graph()
    assert dg.AssetKey("lengths") in found.get_all_asset_keys()
    assert found.get(dg.AssetKey("lengths")).parent_keys == {dg.AssetKey("raw_counts")}

    assert "lengths pool.code missing" in command("status")[1]
    stages = seven.run()
    assert len(stages["lengths"].due) == 3 and not stages["lengths"].failed
    assert "everything is fresh" in command("status")[1]
    assert seven.rows("SELECT count(*) FROM lengths") == seven.rows("SELECT count(*) FROM documents")
    assert not any(stage.due for stage in seven.run().values())

    # A new version of its code makes only this asset stale.
    monkeypatch.setitem(GRAPH.assets, "lengths", replace(LENGTHS, version="2"))
    assert {name for name, stage in seven.run().items() if stage.due} == {"lengths"}

    [file, *_] = sorted((seven.home / "lengths").glob("pool.*"))
    file.write_bytes(file.read_bytes()[:-9] + b"123456789")
    code, said = command("verify")
    assert code and f"lengths/{file.name}" in said.replace("/ ", "/")
    assert {name for name, stage in seven.run().items() if stage.due} == {"lengths"}

    # Of a shard that cannot be counted, nothing else is made, and nothing is said to be due.
    bad = seven.write_bytes("pool/bad.jsonl.gz", b"\x1f\x8bnot a gzip file")
    assert seven.errors()
    said = command("status")[1]
    assert "raw_counts pool.bad failed" in said and "lengths pool.bad" not in said and "not fresh" not in said
    bad.unlink()

    next((seven.data / "pool").iterdir()).unlink()
    seven.run()
    code, said = command("prune")
    assert "lengths/pool." in said and "its shard vanished" in said
