"""The examples in docstrings of the method run, and say what they do."""

import doctest
import importlib
import pkgutil

import pytest

import dsir

MODULES = [
    "dsir",
    *(name for _, name, _ in pkgutil.walk_packages(dsir.__path__, "dsir.") if name != "dsir.proxy"),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_right(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_what_is_for_notebooks_has_examples():
    finder = doctest.DocTestFinder()
    for name in ("DSIR", "Match", "kl_reduction"):
        assert any(each.examples for each in finder.find(getattr(dsir, name), name)), name
