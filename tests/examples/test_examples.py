"""The examples run: the configurations on small inputs at the paths they name, the notebook as it is."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dsir_dagster.resources.settings import load_settings
from tests.pipeline import sentences

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGURATIONS = sorted(EXAMPLES.glob("*.yaml"))


def records(domain: str, n: int, seed: int) -> list[dict]:
    """Records that have every field that the examples name."""
    return [
        {
            "id": each["id"],
            "text": each["text"],
            "title": "the of",
            "abstract": each["text"],
            "dump": f"CC-{number % 3}",
            "meta": {"pile_set_name": domain},
        }
        for number, each in enumerate(sentences(domain, n, seed))
    ]


def write(path: Path, rows: list[dict]) -> None:
    """Write records in the format that the path's suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    compression = "zstd" if path.suffix == ".zst" else None
    with pa.output_stream(path, compression=compression) as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())


def test_there_are_three_configurations():
    assert [path.stem for path in CONFIGURATIONS] == ["parquet-crawl", "several-targets", "the-pile"]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_a_configuration_is_valid(path):
    settings = load_settings(path)
    assert settings.selections and Path(settings.raw[0].uri).is_relative_to(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_a_configuration_runs_as_it_is(pipeline, path):
    pipeline.config = yaml.safe_load(path.read_text())
    for source in pipeline.config["raw"]:
        for seed, domain in enumerate(("medicine", "law", "code")):
            write(pipeline.folder / source["uri"].replace("*", domain), records(domain, 40, seed))
    for target in pipeline.config["targets"]:
        for seed, key in enumerate(("uri", "holdout"), start=10):
            if key in target:
                domain = "law" if target["name"] == "law" else "medicine"
                write(pipeline.folder / target[key], records(domain, 40, seed))
    pipeline.config["evaluation"] = {"random_seeds": 2}
    assert pipeline.errors() == []

    for selection in pipeline.config["selections"]:
        picks = pipeline.picks(selection["name"])
        assert picks, selection["name"]
        if "fraction" in selection["size"]:
            assert all(doc_id.startswith("medicine") or ".medicine" in doc_id for _, _, doc_id, *_ in picks)
    sources = {source for (source,) in pipeline.rows("SELECT DISTINCT source FROM documents")}
    assert (
        sources
        == {
            "parquet-crawl": {"CC-0", "CC-1", "CC-2"},
            "several-targets": {"pool"},
            "the-pile": {"medicine", "law", "code"},
        }[path.stem]
    )


def test_the_notebook_runs_from_top_to_bottom(monkeypatch, tmp_path):
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5
    monkeypatch.chdir(tmp_path)
    said = io.StringIO()
    names: dict[str, object] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(said):
        for number, cell in enumerate(cells, start=1):
            exec(compile(cell, f"cell {number}", "exec"), names)
    assert "held-out" in said.getvalue()
