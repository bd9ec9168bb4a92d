"""Digests of the sources behind each asset's step, so that a version cannot be forgotten.

What belongs here: which sources those are, their digests, recording them. What does not: the test
(``test_versions.py``).

    python -m tests.assets.versions        records the digests of the sources as they are now, in versions.json
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path

from dsir_dagster.assets.graph import GRAPH

RECORDED = Path(__file__).with_name("versions.json")
SQL = Path(__file__).parents[2] / "sql"

#: Followed from a step's module: the method, the steps and methods of assets, how files are read and records written.
#: Not followed: how outputs are kept, planned, logged and shown, on which their rows do not depend.
FOLLOWED = (
    "dsir.",
    "dsir_dagster.assets.",
    "dsir_dagster.resources.corpus",
    "dsir_dagster.resources.records",
    "dsir_dagster.resources.record_writer",
    "dsir_dagster.resources.settings",
)
#: How a run goes, and what Dagster and the report show: an output's rows do not depend on it.
NOT_FOLLOWED = ("dsir_dagster.assets.materialize", "dsir_dagster.assets.report")


def sources_of(asset: str) -> list[str]:
    """Return the sources behind an asset's step, sorted: modules, as far as imports are followed, and their SQL."""
    found: set[str] = set()
    new = {GRAPH[asset].step.__module__}
    while new:
        module = new.pop()
        found.add(module)
        imported = {each for each in imports_of(module) if each.startswith(FOLLOWED)}
        new |= {each for each in imported - found if not each.startswith(NOT_FOLLOWED)}
    return sorted(found | {statement for module in found for statement in statements_of(module)})


def statements_of(module: str) -> set[str]:
    """Return the files in sql/ that a module names."""
    strings = {node.value for node in ast.walk(tree_of(module)) if isinstance(node, ast.Constant)}
    return {f"sql/{path.name}" for path in SQL.glob("*.sql") if path.stem in strings}


@cache
def source_of(module: str) -> str:
    """Return a module's source."""
    return Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")


@cache
def tree_of(module: str) -> ast.Module:
    """Return a module's source, parsed."""
    return ast.parse(source_of(module))


def imports_of(module: str) -> set[str]:
    """Return the modules that one imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dsir"):
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("dsir") and _is_module(name)}


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def digest_of(source: str) -> str:
    """Return the digest of a source without its docstrings, lines of comment and blank lines."""
    if source.startswith("sql/"):
        lines = (SQL / source.removeprefix("sql/")).read_text(encoding="utf-8").splitlines()
        code = [line for line in lines if line.strip() and not line.strip().startswith("--")]
        return hashlib.sha256("\n".join(code).encode()).hexdigest()[:16]
    dropped: set[int] = set()
    for node in ast.walk(tree_of(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            dropped |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    code = [
        line
        for number, line in enumerate(source_of(source).splitlines(), start=1)
        if number not in dropped and line.strip() and not line.strip().startswith("#")
    ]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:16]


def current() -> dict[str, dict[str, str]]:
    """Return the version of every asset, and the digest of every module behind their steps."""
    sources = sorted({source for asset in GRAPH.shown for source in sources_of(asset.name)})
    return {"versions": GRAPH.versions, "digests": {source: digest_of(source) for source in sources}}


def forgotten(recorded: dict[str, dict[str, str]], now: dict[str, dict[str, str]]) -> list[str]:
    """Say of each asset whose sources changed without a new record what to do; none where all is recorded."""
    lines = []
    for asset in GRAPH.shown:
        changed = [
            module
            for module in sources_of(asset.name)
            if recorded["digests"].get(module) != now["digests"][module]
        ]
        if changed:
            was = recorded["versions"].get(asset.name)
            lines.append(
                f"{asset.name}, version {asset.version}: {', '.join(changed)} changed. "
                + (
                    "It is new: record it"
                    if was is None
                    else "Its version was raised: record that"
                    if was != asset.version
                    else f"If its outputs differ now for the same inputs, raise `version` in "
                    f"{asset.step.__module__}; if they are the same, leave it. Then record the sources"
                )
                + " with `python -m tests.assets.versions`."
            )
    return lines


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(current(), indent=1) + "\n")
