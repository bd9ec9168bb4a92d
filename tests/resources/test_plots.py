"""Pictures in the metadata: they are there, they show what the catalog says, and no input breaks them."""

import base64
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from dsir.selection import CANDIDATE
from dsir_dagster.resources import plots
from tests.pipeline import sentences


def picture(markdown):
    """Decode the picture of a markdown text as a browser does."""
    _, _, rest = markdown.partition("](data:image/png;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(rest.partition(")")[0], validate=True)))
    image.load()
    return image


def check(markdown):
    image = picture(markdown)
    assert image.format == "PNG" and image.width == 770 and 150 < image.height < 800
    assert len(image.convert("RGB").getcolors()) > 5
    assert len(markdown) < 40_000
    return markdown


def shown(pipeline, asset):
    """Return the pictures of the newest materialization, by key."""
    event = pipeline.instance.get_latest_materialization_event(dg.AssetKey(asset))
    entries = event.asset_materialization.metadata.items()
    return {key: check(value.value) for key, value in entries if "data:image" in str(value.value)}


def evaluated(pipeline):
    assert not shown(pipeline, "selections")  # they are made without matplotlib
    evaluations = shown(pipeline, "evaluations")
    over = "KL reduction over random"
    names = ("log weights", "lengths", over, f"{over}, hashed and not", "composition")
    assert evaluations.keys() == {f"{name}, plot" for name in names}
    return evaluations


def histogram_of(*log_weights):
    histogram = plots.Histogram()
    histogram.add(np.array(log_weights, dtype=float))
    return histogram


def candidates(log_weight, key):
    picks = np.zeros(len(key), dtype=CANDIDATE)
    picks["log_weight"], picks["key"] = log_weight, key
    return picks


def test_materializations_hold_pictures_and_the_lineage_does_not(done):
    evaluated(done)
    assert done.rows("SELECT count(*) FROM lineage WHERE metadata::VARCHAR LIKE '%data:image%'") == [(0,)]


@pytest.mark.slow
def test_a_pool_of_one_document(pipeline):
    pipeline.write("pool/one.jsonl", sentences("medicine", 1, 0))
    assert pipeline.errors() == []
    evaluated(pipeline)


def test_a_pool_in_which_all_weights_are_equal(pipeline):
    pipeline.write("pool/same.jsonl", sentences("medicine", 1, 0) * 50)
    assert pipeline.errors() == []
    evaluated(pipeline)


@pytest.mark.slow
def test_many_targets_and_sources(pipeline):
    pipeline.write_pool()
    names = ["medicine", "$law$", "code", "b\nroken", "医学", *(f"source {i}" for i in range(20))]
    records = [{**record, "from": name} for name in names for record in sentences("law", 5, len(name))]
    pipeline.write("pool/many.jsonl", records)
    pipeline.config["raw"][0]["source"] = "from"
    targets = [{"name": f"target-{i}", "uri": "data/medicine.jsonl"} for i in range(5)]
    pipeline.config["targets"] += targets
    pipeline.config["selections"][0]["targets"] = [target["name"] for target in targets]
    assert pipeline.errors() == []
    assert "The first 4 of 5 targets." in evaluated(pipeline)["log weights, plot"]


def test_the_histogram_counts_every_eligible_document_once(done, monkeypatch):
    drawn, log_weights = [], plots.log_weights
    monkeypatch.setattr(plots, "log_weights", lambda *args: drawn.append(args) or log_weights(*args))
    done.config["selections"][0]["min_tokens"] = 135
    assert done.errors() == []
    [(_, [histogram], *_)] = drawn
    expected = done.rows(
        "SELECT floor(log_weight), count(*) FROM weights JOIN documents USING (shard, row) "
        "WHERE n_tokens >= 135 GROUP BY ALL ORDER BY ALL"
    )
    assert sorted(histogram.documents.items()) == expected
    assert 10 < histogram.documents.total() < 110


def test_no_document_is_lost_at_the_ends_of_a_histogram():
    histogram = histogram_of(-1e9, -131072.5, -3.5, -3, 0, 0.5, 10_000, 1e9)
    assert histogram.documents.total() == 8
    assert histogram.wider(-4, 2, 3).tolist() == [4, 0, 4]
    assert histogram.wider(-4, 1, 6).tolist() == [3, 1, 0, 0, 2, 2]


@pytest.mark.parametrize("n_picks", [0, 1, 40])
@pytest.mark.parametrize("n_targets", [1, 2, 3, 4, 7])
def test_weights_of_long_tails_and_targets_without_picks(n_picks, n_targets):
    log_weight = np.sort(np.random.default_rng(0).standard_cauchy(500) * 300).clip(-1e5, 1e4)
    pool = [histogram_of(*log_weight)] * n_targets
    picks = log_weight[::-1][:n_picks]
    check(plots.log_weights(["target"] * n_targets, pool, [candidates(picks, picks)] * n_targets).markdown)


def test_the_bars_are_the_numbers_of_the_catalog(done, monkeypatch):
    drawn, bars = [], plots.bars
    monkeypatch.setattr(plots, "bars", lambda *args: drawn.append(args) or bars(*args))
    assert done.materialize("evaluations", partition="picked", force=True).success
    rows = done.rows("SELECT metric, pick, statistic, value FROM evaluations WHERE target = 'medicine'")
    value = {tuple(key): value for *key, value in rows}
    [(names, of_targets, *_), (views, of_views, *_), (sources, shares, *_)] = drawn
    assert names == ["medicine"]
    for (label, _, values, errors), pick in zip(of_targets, ("selection", "top_k"), strict=False):
        measured = value["over_random", pick, "value"]
        ends = [abs(value["over_random", pick, end] - measured) for end in ("low", "high")]
        assert (label, values) == (pick.replace("_", "-"), (measured,))
        assert errors.T.tolist() == [ends]
    label, _, values, errors = of_targets[2]
    assert (label, values) == ("random", (0.0,)) and value["over_random", "random", "value"] == 0
    assert errors.T.tolist() == [pytest.approx([2 * value["over_random", "random", "sd"]] * 2)]
    assert views == ["independent hash", "plain n-grams"]
    assert of_views[0][2] == tuple(
        value[f"over_random{view}", "selection", "value"] for view in ("", "_unhashed")
    )
    assert sources == ("pool",) and [values for _, _, values, _ in shares] == [(1.0,), (1.0,)]


@pytest.mark.parametrize("n_others", [0, 1, 7])
@pytest.mark.parametrize("n_targets", [1, 20])
def test_selections_that_are_compared_with_many(n_others, n_targets):
    picks = ["selection", *(f"method-{i}" for i in range(n_others)), "top-k", "random"]
    measured = {pick: (0.1 * i, 0.1 * i - 0.02, 0.1 * i + 0.03) for i, pick in enumerate(picks)}
    markdown = plots.over_random([(f"target-{i}", measured) for i in range(n_targets)]).markdown
    assert picture(markdown).width == 770
    assert ("The first 15 of 20 targets." in markdown) == (n_targets == 20)


def test_sources_beyond_fifteen_are_added_up(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "bars", lambda *args: drawn.append(args) or "")
    # The one that the selection left out is large in the pool, so it is shown.
    shares = [(f"small {i}", 0.02, 0.05) for i in range(20)] + [("left out", 0.6, 0.0)]
    plots.composition(shares)
    [(names, groups, *_)] = drawn
    assert names == (*(f"small {i}" for i in range(14)), "left out", "other (6 sources)")
    for (_, _, values, _), other in zip(groups, (0.12, 0.3), strict=True):
        assert values[-1] == pytest.approx(other) and sum(values) == pytest.approx(1)


def test_the_same_numbers_give_the_same_bytes_also_from_threads():
    pool, picks = histogram_of(*range(-300, 100)), candidates(np.arange(90, 60, -1), np.arange(91, 61, -1))
    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(plots.log_weights, ["target"], [pool], [picks]) for _ in range(8)]
    expected = plots.log_weights(["target"], [pool], [picks]).markdown
    assert {job.result().markdown for job in jobs} == {expected}


def test_matplotlib_is_loaded_by_the_first_plot_and_pyplot_never():
    code = (
        "import sys, dsir_dagster.cli, dsir_dagster.definitions\n"
        "from dsir_dagster.resources import plots\n"
        "assert not {'matplotlib', 'PIL'} & sys.modules.keys()\n"
        "plots.composition([('pool', 1.0, 1.0)])\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
