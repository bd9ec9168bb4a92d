"""Fixtures that all tests share."""

import pytest

from tests.pipeline import SmallPipeline


@pytest.fixture
def pipeline(tmp_path):
    """An empty pool, a target with a holdout, and a configuration over them."""
    return SmallPipeline(tmp_path)


@pytest.fixture
def done(pipeline):
    """A pipeline that ran once."""
    pipeline.write_pool()
    assert pipeline.errors() == []
    return pipeline
