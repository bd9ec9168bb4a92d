"""Who imports whom, and what an import leaves behind."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pool import REPOSITORY

PRIVATE = ["resources/dagster_private.py", "resources/dagster_storage.py"]
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


def test_private_modules_of_dagster_are_named_in_two_files():
    private = "dagster" + "._"
    paths = {str(path.relative_to(REPOSITORY)): path.read_text() for path in modules(*FOLDERS)}
    assert [path for path, text in paths.items() if private in text] == PRIVATE


def private_names(path: Path) -> set[str]:
    """Return the private names of other modules of this project that a file imports or looks up in what it imports."""
    ours = ("dsir", "dsir_dagster", "benchmarks", "demo", "tests")
    found: set[str] = set()
    imported_as: dict[str, str] = {}
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.asname or alias.name.split(".")[0], alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (f"{node.module}." if node.module else "")
            names = [(alias.asname or alias.name, base + alias.name) for alias in node.names]
        else:
            continue
        imported_as |= {name: of for name, of in names if of.startswith(".") or within(of, ours)}
        found |= {of for _, of in names if of in imported_as.values() and is_private(of.rpartition(".")[2])}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=owner, attr=name):
                pass
            case ast.Call(args=[owner, ast.Constant(value=str(name)), *_]):  # setattr and the like
                pass
            case _:
                continue
        names = ast.unparse(owner).split(".")
        if is_private(name) and names[0] in imported_as:
            found.add(".".join([*names, name]))
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_module_uses_private_names_of_another(folder):
    used = {str(path.relative_to(REPOSITORY)): private_names(path) for path in modules(folder)}
    assert {path: names for path, names in used.items() if names} == {}


def test_private_names_are_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import json, dsir.cache\n"
        "from dsir import features, noise as n\n"
        "from dsir.matching import _match, match\n"
        "from . import _near\n"
        "n._draw(); features.Spec._of(); dsir.cache._folder(); json._x; match.__name__; self._own\n"
        "monkeypatch.setattr(n, '_seed', 3)\n"
    )
    assert private_names(path) == {
        "dsir.matching._match",
        "._near",
        "n._draw",
        "n._seed",
        "features.Spec._of",
        "dsir.cache._folder",
    }


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


def test_a_command_that_only_reads_waits_for_no_library_that_it_does_not_use():
    """They come with Dagster's storage, plots, and methods or measures that few selections use: 0.2 s to 1 s each."""
    unused = ("alembic", "matplotlib", "scipy.linalg", "scipy.optimize", "sklearn", "sqlalchemy")
    code = f"""
import sys
import dsir_dagster.assets.graph, dsir_dagster.cli, dsir_dagster.status
print(*sorted({{*{unused}}} & {{*sys.modules}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
