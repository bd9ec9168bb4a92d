"""Who imports whom, and what an import leaves behind."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pool import REPOSITORY

PRIVATE = "resources/dagster_private.py"
FOLDERS = ("dsir", "sql", "resources", "assets", "dagster_project", "benchmarks", "demo", "tests")

#: What the modules of a folder may import of this project, but for the folder itself.
LAYERS = {
    "dsir": (),
    "sql": (),
    "resources": ("dsir", "dsir_dagster.sql"),
    "assets": ("dsir", "dsir_dagster.resources", "dsir_dagster.sql"),
}


def modules(*folders: str) -> list[Path]:
    """Return the Python files of some folders; links into others are not followed."""
    found = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]
    return [path for path in found if not any(parent.is_symlink() for parent in path.parents)]


def name_of(path: Path) -> str:
    """Return the name by which a module is imported."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    if parts[0] == "dagster_project":
        parts = parts[1:]
    if path.relative_to(REPOSITORY).parts[0] != "dsir":
        parts = ("dsir_dagster", *parts)
    return ".".join(part for part in parts if part != "__init__")


def imported(path: Path) -> set[str]:
    """Return what a file imports: `from a import b` as a.b, relative ones too, within functions too."""
    found = set()
    package = name_of(path).split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("folder", LAYERS)
def test_a_layer_imports_only_those_below_it(folder):
    own = name_of(REPOSITORY / folder / "__init__.py")
    paths = modules(folder)
    assert paths
    for path in paths:
        ours = {name for name in imported(path) if within(name, ("dsir", "dsir_dagster"))}
        assert {name for name in ours if not within(name, (own, *LAYERS[folder]))} == set(), path


def test_the_method_knows_neither_dagster_nor_duckdb():
    for path in modules("dsir"):
        assert not {name for name in imported(path) if within(name, ("dagster", "duckdb"))}, path


def test_folders_are_imported_by_the_names_that_are_installed():
    others = ("assets", "resources", "sql", "dagster_project")
    for path in modules(*FOLDERS):
        assert not {name for name in imported(path) if within(name, others)}, path


def test_private_modules_of_dagster_are_named_in_one_file():
    private = "dagster" + "._"
    paths = {str(path.relative_to(REPOSITORY)): path.read_text() for path in modules(*FOLDERS)}
    assert [path for path, text in paths.items() if private in text] == [PRIVATE]


IMPORT = """
import json, os, sys, importlib, warnings
import dagster, numba, matplotlib, sklearn, scipy, duckdb, pyarrow  # what these do is theirs
changed = {}
for name in sys.argv[1:]:
    with warnings.catch_warnings(record=True) as said:
        environment, filters = dict(os.environ), list(warnings.filters)
        importlib.import_module(name)
        changes = [dict(os.environ) != environment, warnings.filters != filters, *map(str, said)]
        if any(changes):
            changed[name] = changes
print(json.dumps(changed))
"""


def test_an_import_sets_no_environment_variable_silences_no_warning_and_causes_none():
    names = [name_of(path) for path in modules("dsir", "sql", "resources", "assets", "dagster_project")]
    command = [sys.executable, "-c", IMPORT, *names]
    # Not the environment of the tests, whose own imports may have set something.
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {}
