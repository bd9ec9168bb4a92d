"""An estimator pinned to a named version of the raw distribution, and shards that come and go."""

import dagster as dg
import numpy as np
import pytest

from dsir_dagster.cli import main
from tests.pipeline import SmallPipeline, sentences


@pytest.fixture(scope="module")
def pinned_once(tmp_path_factory):
    pipeline = SmallPipeline(tmp_path_factory.mktemp("pinned"))
    pipeline.config["estimator"] = {"fit": {"pinned": "v1", "max_drift": 0.01}}
    pipeline.write_pool()
    assert pipeline.errors() == []
    return pipeline


@pytest.fixture
def pinned(pinned_once, tmp_path):
    return pinned_once.copy(tmp_path)


def made(pipeline, asset):
    """Return how often each partition of an asset was materialized."""
    query = "SELECT partition, count(*) FROM lineage WHERE asset = '{}' GROUP BY ALL"
    return dict(pipeline.rows(query.format(asset)))


def totals(pipeline, view):
    counts = np.zeros(1000)
    for bucket, count in pipeline.rows(f"SELECT bucket, sum(count) FROM {view} GROUP BY ALL"):
        counts[bucket] = count
    return counts


def drift_checks(pipeline):
    """Return the evaluations of the drift check, oldest first."""
    key = dg.AssetCheckKey(dg.AssetKey("importance_estimator"), "pool_has_not_drifted")
    history = pipeline.instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    return [each.event.dagster_event.asset_check_evaluation_data for each in history[::-1] if each.event]


def test_a_new_shard_leaves_the_weights_of_the_others_fresh(pinned):
    before = pinned.rows("SELECT * FROM weights ORDER BY ALL")
    pinned.write("pool/more.jsonl", sentences("medicine", 40, seed=9))
    stages = pinned.run()
    assert {name: [o.partition for o in stage.due] for name, stage in stages.items()} == {
        "raw_counts": ["pool.more"],
        "target_counts": [],
        "importance_estimator": [],
        "weights": ["pool.more"],
        "selections": ["picked"],
        "evaluations": ["picked"],
    }
    assert pinned.rows("SELECT * FROM weights WHERE shard <> 'pool.more' ORDER BY ALL") == before
    assert pinned.rows("SELECT count(*) FROM weights WHERE shard = 'pool.more'") == [(40,)]
    assert any(doc.startswith("medicine-9-") for _, _, doc, _, _ in pinned.picks())


def test_the_first_fit_under_a_name_is_that_of_the_whole_pool(pinned):
    weights = pinned.rows("SELECT * FROM weights ORDER BY ALL")
    pinned.config["estimator"] = {"fit": "all"}
    assert pinned.errors() == []
    assert pinned.rows("SELECT * FROM weights ORDER BY ALL") == weights


def test_drift_is_measured_whenever_the_pool_changes_checked_and_reported(pinned, capsys):
    [check] = drift_checks(pinned)
    assert check.passed and check.metadata["drift"].value == 0
    pinned.write("pool/more.jsonl", sentences("law", 200, seed=9))
    assert pinned.errors() == []
    check = drift_checks(pinned)[-1]
    pool, fitted = (totals(pinned, view) + 0.5 for view in ("raw_counts", "raw_distributions"))
    pool, fitted = pool / pool.sum(), fitted / fitted.sum()
    assert check.metadata["drift"].value == pytest.approx(np.sum(pool * np.log(pool / fitted)))
    assert check.metadata["shards"].value == 4 and check.metadata["pinned_shards"].value == 3
    assert not check.passed
    main(["report", "--config", str(pinned.config_path), "--home", str(pinned.home)])
    assert "nats from the distribution pinned as 'v1', above max_drift 0.01" in capsys.readouterr().out
    pinned.run()
    assert len(drift_checks(pinned)) == 2


def test_max_drift_moves_the_bar_and_nothing_else(pinned):
    pinned.config["estimator"]["fit"]["max_drift"] = 1.0
    assert not any(stage.due for stage in pinned.run().values())


def test_a_new_name_fits_anew_and_an_old_one_comes_back(pinned):
    before = pinned.rows("SELECT * FROM weights ORDER BY ALL")
    pinned.write("pool/more.jsonl", sentences("law", 200, seed=9))
    pinned.config["estimator"]["fit"]["pinned"] = "v2"
    assert pinned.errors() == []
    assert made(pinned, "weights") == {
        "pool.code": 2,
        "pool.law": 2,
        "pool.medicine": 2,
        "pool.more": 1,
    }
    assert drift_checks(pinned)[-1].passed
    pinned.config["estimator"]["fit"]["pinned"] = "v1"
    assert pinned.errors() == []
    assert pinned.rows("SELECT * FROM weights WHERE shard <> 'pool.more' ORDER BY ALL") == before
    assert made(pinned, "raw_distribution") == {"v1": 1, "v2": 1}


def test_other_features_than_the_pinned_ones_are_refused_by_name(pinned):
    pinned.config["features"]["buckets"] = 500
    errors = pinned.errors()
    assert errors[0].startswith(
        "importance_estimator: the raw distribution pinned as 'v1' was fitted under other features (buckets is 1000 "
        "there, 500 here)"
    )
    assert made(pinned, "importance_estimator") == {"": 1}


def test_a_lost_file_is_fitted_again_from_the_same_shards_and_else_refused(pinned):
    file = pinned.home / "raw_distribution/v1.parquet"
    content = file.read_bytes()
    file.unlink()
    pinned.write("pool/more.jsonl", sentences("law", 20, seed=9))
    assert pinned.errors() == []
    assert file.read_bytes() == content
    assert made(pinned, "weights")["pool.law"] == 1
    file.unlink()
    pinned.write("pool/law.jsonl", sentences("law", 20, seed=10))
    errors = pinned.errors()
    assert "v1.parquet, and it cannot be fitted again, since 1 shards have changed" in errors[0]
    assert "raw_counts[pool.law]" in errors[0]


def test_a_vanished_shard_leaves_the_totals_and_makes_its_selections_stale(done):
    (done.data / "pool/law.jsonl").unlink()
    plan = done.workspace().plan()
    stale = {output.name for output in plan.outputs() if output.state == "stale"}
    assert {"importance_estimator", "selections[picked]", "evaluations[picked]"} <= stale
    assert "gone: weights[pool.law]" in plan.output("selections", "picked").why
    pool = done.rows(
        "SELECT sum(metadata.pool_ngrams::BIGINT) FROM latest WHERE asset = 'importance_estimator'"
    )
    lost = done.rows("SELECT sum(metadata.ngrams::BIGINT) FROM latest WHERE partition = 'pool.law'")
    assert done.errors() == []
    left = done.rows(
        "SELECT sum(metadata.pool_ngrams::BIGINT) FROM latest WHERE asset = 'importance_estimator'"
    )
    assert left[0][0] == pool[0][0] - lost[0][0]
    assert (done.home / "raw_counts/pool.law.parquet").exists()
    assert done.rows("SELECT shard FROM shards WHERE vanished_at IS NOT NULL") == [("pool.law",)]
