"""``dsir report --html``: one page that compares all selections of a home.

What belongs here: which selections, which of their numbers stand side by side, where the page goes. What does not: the
figures (``sql/report_*.sql``), how it looks (``assets/report/comparison.html``), the page of one selection
(``assets/report/``).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

from dsir_dagster.assets.report.rendering import template
from dsir_dagster.resources.borders import several
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.terminal import Terminal

NAME = "report.html"
#: Sources that the table of composition lists.
SOURCES = 50


def print_comparison(workspace: Workspace, path: Path, console: Terminal) -> None:
    """Write the page, and say where it is.

    Parameters
    ----------
    workspace : Workspace
    path : Path
        A file, or a folder for a file `report.html`; an empty one is the home.
    console : Terminal
    """
    names = sorted(partition for asset, partition in workspace.catalog.latest() if asset == "selections")
    if not names:
        console.print("No selection is materialized yet; `dsir run` does that.")
        return
    path = workspace.home / NAME if path == Path() else path
    path = (path / NAME if path.is_dir() else path).absolute()
    text = template("comparison.html").render(_values(workspace, names, path.parent))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    partial.replace(path)
    console.print(f"{several(len(names), 'selection')} compared in {path}", soft_wrap=True)


def _values(workspace: Workspace, names: list[str], folder: Path) -> dict[str, object]:
    """Return what the template shows; links are relative to the page's folder."""
    catalog = workspace.catalog
    latest = catalog.latest()
    versions = [latest["selections", name].fingerprint for name in names]
    home = str(workspace.home)
    found = catalog.query("report_selections", selections=names, wanted=versions, home=home).to_pylist()
    versions = [row["version"] for row in found]
    measured = catalog.query("report_methods", selections=names, versions=versions).to_pylist()
    beside = {(row["selection"], row["pick"]): row for row in measured}
    for row in found:
        row["targets"] = ", ".join(json.loads(row["configuration"])["targets"])
        row["link"] = (
            quote(os.path.relpath(row["report"], folder).replace(os.sep, "/")) if row["report"] else ""
        )
    return {
        "home": home,
        "selections": found,
        "worse": [row["selection"] for row in found if row["verdict_level"] == "bad"],
        "same_targets": len({row["targets"] for row in found}) == 1,
        "measures": Table(MEASURES, [_measures(row, beside) for row in found]),
        "composition": _composition(workspace, found),
        "n_sources": SOURCES,
    }


MEASURES = (
    Column("selection"),
    Column("targets"),
    Column("measured on"),
    Column("method"),
    Column("documents", "whole"),
    Column("tokens", "whole"),
    Column("KL reduction over random, nats", "interval"),
    Column("lead over top-k", "interval"),
    Column("over random on plain n-grams", "nats"),
    Column("KL reduction (paper, section 5)", "nats"),
    Column("the same of random picks", "nats"),
    Column("same documents as top-k", "share"),
    Column("effective sample size", "size"),
    Column("distinct n-grams in 1,000", "number", 0),
    Column("mean length", "size"),
    Column("version"),
)


def _measures(row: dict, beside: dict[tuple[str, str | None], dict]) -> tuple[object, ...]:
    """Return the cells of a selection, as in `MEASURES`; empty where it was not evaluated."""
    mine, random, top_k = (beside.get((row["selection"], pick), {}) for pick in (None, "random", "top_k"))

    def interval(numbers: dict, *names: str) -> tuple[object, ...] | None:
        values = [numbers.get(name) for name in names]
        return None if None in values else tuple(values)

    return (
        row["selection"],
        row["targets"],
        row["measured_on"],
        row["method"],
        row["documents"],
        row["tokens"],
        interval(mine, "over_random", "low", "high"),
        interval(top_k, "ahead", "ahead_low", "ahead_high"),
        mine.get("over_random_unhashed"),
        mine.get("kl_reduction"),
        random.get("kl_reduction"),
        top_k.get("agreement"),
        row["effective_sample_size"],
        mine.get("distinct_ngrams"),
        mine.get("mean_tokens"),
        row["version"],
    )


def _composition(workspace: Workspace, found: list[dict]) -> dict[str, list[float | None]]:
    """Return, by source, its share of the pool and of each selection; those with the largest shares first."""
    pool: dict[str, float] = {}
    shares: list[dict[str, float]] = []
    for row in found:
        choice = {"selection": row["selection"], "version": row["version"]}
        entries = workspace.catalog.query("report_composition", **choice).to_pylist()
        pool |= {entry["source"]: entry["pool_share"] for entry in entries}
        shares.append({entry["source"]: entry["selection_share"] for entry in entries})
    ordered = sorted(pool, key=lambda source: (-max(mine.get(source) or 0.0 for mine in shares), source))
    return {source: [pool[source], *(mine.get(source) for mine in shares)] for source in ordered}
