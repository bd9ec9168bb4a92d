"""The pages' SQL runs, their links lead somewhere, and the configuration reference is complete."""

import importlib.util
import re
from pathlib import Path

import pyarrow as pa
import pytest
import typer

from dsir_dagster.cli.commands import app
from tests.pipeline import sentences

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
CATALOG = (ROOT / "docs" / "catalog.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()


def test_every_query_of_the_docs_returns_rows_on_what_is_named_like_the_demo(pipeline):
    for name in ("aws", "encyclopedia"):
        records = sentences("medicine" if name == "encyclopedia" else "code", 30, seed=1)
        if name == "encyclopedia":
            records[0]["id"] = "Skin cancer"
        path = pipeline.write(f"{name}-00.jsonl", records)
        with pa.CompressedOutputStream(f"{path}.zst", "zstd") as file:
            file.write(path.read_bytes())
    names = ("aws", "encyclopedia")
    pipeline.config["raw"] = [{"name": n, "uri": f"data/{n}-*.jsonl.zst", "id": "id"} for n in names]
    pipeline.config["selections"][0] |= {"name": "medicine"}
    assert pipeline.errors() == []
    blocks = re.findall(r"```sql\n(.*?)```", README + CATALOG, flags=re.S)
    assert len(blocks) == 2
    queries = [query for block in blocks for query in block.split(";") if re.sub("--.*", "", query).strip()]
    assert len(queries) >= 11
    for query in queries:
        assert pipeline.rows(query) or "the demo has none" in query, query


def test_the_query_for_what_was_made_from_a_file_finds_all_of_it(done):
    queries = re.findall(r"```sql\n(.*?)```", CATALOG, flags=re.S)[0].split(";")
    [query] = [query for query in queries if "dependents(" in query]
    found = {
        f"{asset}[{partition}]" if partition else asset
        for asset, partition, *_ in done.rows(query.replace("aws-00.jsonl.zst", "law.jsonl"))
    }
    weights = {f"weights[pool.{domain}]" for domain in ("medicine", "law", "code")}
    assert found == weights | {
        "raw_counts[pool.law]",
        "importance_estimator",
        "selections[picked]",
        "evaluations[picked]",
    }


def test_the_tables_of_the_configuration_are_those_of_the_code():
    """`python docs/configuration.py` writes them."""
    spec = importlib.util.spec_from_file_location("configuration", ROOT / "docs" / "configuration.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert tables.with_tables(CONFIGURATION) == CONFIGURATION
    assert CONFIGURATION.count("| `") > 60


def anchors(page):
    """The anchors that GitHub gives a page's headings."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    headings = re.findall(r"^#+ (.*)$", prose, flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_project_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_the_readme_is_read_in_ten_minutes():
    assert len(README.splitlines()) <= 200


def test_the_figures_of_the_readme_are_those_of_the_pages_that_it_names():
    table = README.partition("## Figures")[2].partition("## ")[0]
    figures = re.findall(r"(?<=\| )\d[\d.,]*(?= )", table)
    pages = "".join((ROOT / "docs" / page).read_text() for page in ("benchmarks.md", "paper.md"))
    assert len(figures) >= 8
    for figure in figures:
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.])", pages), figure


def test_every_command_of_the_pages_exists_with_its_options():
    """Those in blocks of code that a shell runs, and in the table of commands."""
    commands = typer.main.get_command(app).commands
    asked = 0
    for page in PAGES:
        text = page.read_text()
        lines = [
            line for block in re.findall(r"```sh\n(.*?)```", text, flags=re.S) for line in block.splitlines()
        ]
        lines += re.findall(r"`(dsir [^`]+)`", text)
        for line in lines:
            name, *words = (re.findall(r"^dsir ([a-z]+)(.*?)(?:#|\||$)", line) or [("", "")])[0]
            if not name:
                continue
            options = {option for each in commands[name].params for option in each.opts}
            given = re.findall(r"(?<=\s)--?[a-z][a-z-]*", words[0])
            assert set(given) <= options, f"{page.name}: {line}"
            asked += 1
    assert asked > 30


def test_every_target_of_make_in_the_pages_exists():
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.M))
    for page in PAGES:
        named = re.findall(r"(?:^|`)make ([a-z][a-z0-9-]*)", page.read_text(), flags=re.M)
        assert set(named) <= targets, page.name
