"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Processes that compile at the same time overwrite each other's files in Numba's cache on disk, so each worker
# of pytest-xdist has a cache of its own. Numba looks this up when it is imported.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "numba" / worker)

# Output that goes to no terminal has the width that COLUMNS says, which pytest-xdist sets.
os.environ.pop("COLUMNS", None)

from tests.pipeline import SmallPipeline

# Workers share the cores, so how long an example takes says nothing of it.
settings.register_profile("without deadlines", settings(), deadline=None)
settings.load_profile("without deadlines")


@pytest.fixture
def pipeline(tmp_path):
    """An empty pool, a target with a holdout, and a configuration over them."""
    return SmallPipeline(tmp_path)


@pytest.fixture(scope="session")
def ran_once(tmp_path_factory):
    """The pipeline that `done` is a copy of; not to be changed."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("done"))
    pipeline.write_pool()
    assert pipeline.errors() == []
    return pipeline


@pytest.fixture
def done(ran_once, tmp_path):
    """A pipeline that ran once."""
    return ran_once.copy(tmp_path)
