"""A new asset takes one module and one entry, and appears in definitions, `status`, `run`, `verify`, `prune`, SQL."""

from dataclasses import replace

import dagster as dg
import pytest

from dsir_dagster import cli
from dsir_dagster.assets.graph import GRAPH
from dsir_dagster.definitions import build_defs
from tests.assets.lengths import LENGTHS


@pytest.fixture
def seven(pipeline, monkeypatch):
    """A pipeline with document lengths as a seventh asset."""
    monkeypatch.setitem(GRAPH.assets, LENGTHS.name, LENGTHS)
    pipeline.write_pool()
    return pipeline


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

    next((seven.data / "pool").iterdir()).unlink()
    seven.run()
    code, said = command("prune")
    assert "lengths/pool." in said and "its shard vanished" in said
