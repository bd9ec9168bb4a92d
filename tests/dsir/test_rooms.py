"""Who may import what: names with an underscore stay in their module, the featurizer needs nothing outside itself."""

import ast
from pathlib import Path

import pytest

import dsir

PACKAGE = Path(dsir.__file__).parent
MODULES = sorted([*PACKAGE.rglob("*.py"), *Path(__file__).parent.glob("*.py")])


def imports(path: Path) -> set[tuple[str, str]]:
    """Return the (module, name) pairs that a file imports, those within functions included."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return {(node.module or ".", each.name) for node in froms for each in node.names}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_module_imports_a_private_name(path):
    assert not {(module, name) for module, name in imports(path) if name.startswith("_")}


def test_the_featurizer_imports_nothing_else_of_the_package_but_the_checks_of_arguments():
    files = sorted((PACKAGE / "featurizer").glob("*.py"))
    modules = {module for path in files for module, _ in imports(path) if module.startswith("dsir")}
    assert modules
    assert not {module for module in modules if not module.startswith("dsir.featurizer")} - {"dsir.checks"}
