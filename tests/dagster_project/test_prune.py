"""`dsir prune`: what no configuration refers to is shown, and removed only on request."""

import pytest

from dsir_dagster.cli import main
from dsir_dagster.prune import find_leftovers
from tests.pipeline import sentences


@pytest.fixture
def dsir(done, monkeypatch):
    """Call the command line on the pipeline, with one or more configurations."""
    monkeypatch.setenv("DAGSTER_HOME", str(done.home / "dagster"))

    def call(*arguments, configs=None):
        named = [each for path in configs or [done.config_path] for each in ("--config", str(path))]
        return main([*arguments, *named, "--home", str(done.home)])

    return call


def leftovers(pipeline):
    found, _ = find_leftovers([pipeline.workspace()])
    return {each.name: each.why for each in found}


def test_nothing_is_left_over_after_a_run(done, dsir, capsys):
    assert leftovers(done) == {}
    assert dsir("prune", "--yes") == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert len(done.picks()) == 20


def test_a_vanished_shard_and_an_old_version_stay_until_told_to_go(done, dsir, capsys):
    [(old,)] = done.rows("SELECT version FROM selections GROUP BY ALL")
    [(measured,)] = done.rows("SELECT fingerprint FROM latest WHERE asset = 'evaluations'")
    (done.data / "pool/law.jsonl").unlink()
    assert dsir("run") == 0
    expected = {
        name: "its shard vanished"
        for name in (
            "features/pool.law.arrow",
            "documents/pool.law.parquet",
            "raw_counts/pool.law.parquet",
            "weights/target=medicine/pool.law.parquet",
        )
    } | {
        f"selections/picked/{old}": "an older version",
        f"evaluations/picked/{measured}": "an older version",
    }
    assert leftovers(done) == expected
    capsys.readouterr()
    assert dsir("prune") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in expected) and "dsir prune --yes" in text
    assert leftovers(done) == expected
    assert dsir("prune", "--yes") == 0
    assert not any((done.home / name).exists() for name in expected)
    assert leftovers(done) == {}
    assert dsir("verify") == 0
    assert not any(stage.due for stage in done.run().values())
    assert len(done.picks()) == 20
    # History stays; once the shard is back, it is counted again.
    assert done.rows("SELECT count(*) FROM lineage WHERE pruned_at IS NOT NULL") == [(4,)]
    done.write("pool/law.jsonl", sentences("law", 40, seed=1))
    assert [output.name for output in done.run()["raw_counts"].due] == ["raw_counts[pool.law]"]


def test_what_another_configuration_names_stays_if_it_is_given(done, dsir, tmp_path):
    first = tmp_path / "first.yaml"
    first.write_text(done.config_path.read_text())
    done.config["selections"].append({**done.config["selections"][0], "name": "more"})
    done.config["targets"].append({"name": "other", "uri": "data/medicine.jsonl"})
    assert done.errors() == []
    assert dsir("prune", "--yes", configs=[first, done.config_path]) == 0
    assert len(done.picks("more")) == 20
    assert dsir("prune", "--yes", configs=[first]) == 0
    assert not (done.home / "selections/more").exists() or not any((done.home / "selections/more").iterdir())
    assert not (done.home / "target_counts/other.parquet").exists()
    assert done.rows("SELECT count(*) FROM evaluations WHERE selection = 'more'") == [(0,)]
    assert len(done.picks()) == 20


def test_of_a_pool_that_is_not_there_at_all_nothing_is_removed(done, dsir, capsys):
    for file in (done.data / "pool").iterdir():
        file.unlink()
    assert dsir("prune", "--yes") == 0
    out = capsys.readouterr().out
    assert "data/pool" in out and "nothing of it is removed" in out
    assert (done.home / "raw_counts/pool.law.parquet").exists()
