"""A run that ends after it replaced an output's file and before it recorded that: the next one finds out."""

import pytest

from dsir_dagster.resources.catalog import Catalog
from tests.assets.test_kill import outputs


@pytest.mark.parametrize("asset", ["raw_counts", "target_counts", "importance_estimator", "weights"])
def test_a_file_that_was_replaced_but_not_recorded_is_made_again_if_the_configuration_goes_back(
    done, monkeypatch, asset
):
    picks, files = done.picks(), outputs(done.home)
    record = Catalog.record

    def stop_at(self, lineage):
        if any(row.asset == asset for row in lineage):
            raise RuntimeError("the run ends here")
        record(self, lineage)

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "record", stop_at)
        done.config["features"]["buckets"] = 1001
        assert any("the run ends here" in error for error in done.errors())
    done.config["features"]["buckets"] = 1000
    assert done.errors() == []
    after = outputs(done.home)
    assert {name: after.get(name) for name in files} == files
    assert done.picks() == picks


def test_a_home_that_is_copied_stays_fresh(done):
    for path in done.home.rglob("*"):
        path.touch()
    assert [output.name for output in done.workspace().plan().outputs() if output.state != "fresh"] == []
