"""The code on the pages about the library runs in order, and prints what the pages say."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from tests.pipeline import sentences

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the language and the content of a page's blocks of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```", (DOCS / page).read_text(), flags=re.S | re.M)


def printed(code: str, names: dict[str, object]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "block", "exec"), names)
    return out.getvalue()


def test_the_page_on_migrating_shows_the_picks_that_come_out(pipeline, monkeypatch):
    pipeline.folder.mkdir(exist_ok=True)
    monkeypatch.chdir(pipeline.folder)
    said, names = "", {"__name__": "__main__"}
    compared = 0
    for language, content in blocks("migrating.md"):
        if language == "python":
            said = printed(content, names)
        elif language == "yaml":
            pipeline.config = yaml.safe_load(content) | {"evaluation": {"random_seeds": 2}}
            assert pipeline.errors() == []
            said = " ".join(sorted(doc_id for _, _, doc_id, *_ in pipeline.picks("like-target"))) + "\n"
            assert {json.loads(line)["id"] for line in pipeline.records("like-target")} == set(said.split())
        else:
            assert said == content
            compared += 1
    assert compared == 4


def test_every_argument_of_data_selection_is_mapped():
    import inspect

    from data_selection import HashedNgramDSIR

    page = (DOCS / "migrating.md").read_text()
    methods = ("__init__", "fit_importance_estimator", "compute_importance_weights", "resample")
    for method in methods:
        for argument in list(inspect.signature(getattr(HashedNgramDSIR, method)).parameters)[1:]:
            assert f"`{argument}" in page or f"({argument}" in page or argument == "num_tokens_to_fit", (
                argument
            )


def test_the_page_on_the_library_and_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pool = [each for domain in ("medicine", "law", "code") for each in sentences(domain, 40, seed=0)]
    Path("pool").mkdir()
    with pa.output_stream("pool/00.jsonl.zst", compression="zstd") as file:
        file.write("".join(json.dumps(each) + "\n" for each in pool).encode())
    names: dict[str, object] = {
        "raw": [each["text"] for each in pool],
        "target": [each["text"] for each in sentences("medicine", 30, seed=1)],
        "held_out": [each["text"] for each in sentences("medicine", 30, seed=2)],
        "paths": ["lines.txt"],
    }
    Path("lines.txt").write_text("\n".join(each["text"] for each in pool))
    [in_readme] = [content for language, content in blocks("../README.md") if language == "python"]
    assert printed(in_readme, dict(names)) == ""
    said, compared = "", 0
    for language, content in blocks("python-api.md"):
        if language == "python":
            said = printed(content, names)
        else:
            assert said == content
            compared += 1
    assert compared == 1
    assert len(names["picked"]) == 50


def test_texts_of_files(tmp_path, monkeypatch):
    import dsir_dagster

    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"text": "one"}\n{"text": 2}\n\n{"text": "two"}\n{"other": 1}\n')
    Path("b.csv").write_text("text\nthree\n")
    texts = dsir_dagster.read_texts(["a.jsonl", "*.csv"])
    with pytest.warns(UserWarning, match=r"a\.jsonl: 2 of 4 rows are left out, the first is row 1: .* \(1\)"):
        assert list(texts) == ["one", "two", "three"]
    assert list(texts) == ["one", "two", "three"], "told once"
    assert texts.take([2, 0]) == ["three", "one"]
    with pytest.raises(IndexError, match="rows: 3; expected integers from 0 to 2"):
        texts.take([3])
    with pytest.raises(ValueError, match="no file matches this pattern"):
        dsir_dagster.read_texts("*.parquet")
    with pytest.raises(ValueError, match=r"none of its 4 rows can be used.*the records have: text, other"):
        list(dsir_dagster.read_texts("a.jsonl", text="body"))
