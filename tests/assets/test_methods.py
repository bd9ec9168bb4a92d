"""The methods beside resampling and top-k, on pools where the right answer is known."""

import copy
import json
from types import SimpleNamespace

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsir.features import FeatureSpec, featurize
from dsir.matching import MatchingOptions, match, over
from dsir.refinement import hold, refine
from dsir.selection import Budget
from dsir_dagster.assets.methods import METHODS, mixture
from dsir_dagster.assets.picking.candidates import Candidates
from tests.pipeline import SmallPipeline, sentences


def configure(pipeline, **selection):
    pipeline.config["selections"] = [
        {"name": "picked", "targets": ["medicine"], "size": {"documents": 20}, **selection}
    ]
    return pipeline


def domains(pipeline):
    return [doc_id.partition("-")[0] for _, _, doc_id, _, _ in pipeline.picks()]


def test_random_picks_by_noise_alone_and_by_the_seed(pipeline):
    pipeline.write_pool()
    assert configure(pipeline, method="random").errors(until="selections") == []
    first = pipeline.picks()
    assert len(first) == 20 and len(set(domains(pipeline))) == 3
    assert configure(pipeline, method="random", seed=1).errors(until="selections") == []
    assert pipeline.picks() != first
    [(n,)] = pipeline.rows(
        "SELECT count(*) FROM documents AS d, why(d.doc_id, 'picked') AS w "
        "WHERE (w.key >= w.threshold - 1e-9) = (w.rank IS NOT NULL)"
    )
    assert n == 120


def test_no_method_depends_on_shards_or_threads_and_each_obeys_a_budget_of_tokens(tmp_path):
    records = [
        record
        for seed, domain in enumerate(("medicine", "law", "code"))
        for record in sentences(domain, 40, seed=seed)
    ]
    found = []
    for name, files, threads in (("one", [records], 1), ("five", [records[::-1][i::5] for i in range(5)], 3)):
        pipeline = SmallPipeline(tmp_path / name)
        pipeline.config["raw"][0]["source"] = "domain"
        # With noise in all of them, and a budget that the documents of the target do not fill.
        pipeline.config["selections"] = [
            {"name": method, "targets": ["medicine"], "method": method, "size": {"tokens": 6000}, "seed": 4}
            for method in METHODS
        ]
        for i, part in enumerate(files):
            pipeline.write(f"pool/part-{i}.jsonl", part)
        assert not any(stage.errors for stage in pipeline.run(threads, until="selections").values())
        found.append({method: pipeline.picks(method) for method in METHODS})
        sizes = pipeline.rows("SELECT selection, sum(n_tokens) FROM selections GROUP BY selection")
        assert len(sizes) == len(METHODS) and all(6000 - 150 < tokens <= 6000 for _, tokens in sizes)
    assert found[0] == found[1]
    assert len({tuple(doc_id for _, _, doc_id, _, _ in picks) for picks in found[0].values()}) == len(METHODS)


@pytest.mark.parametrize("options", [{}, {"temperature": 30.0}, {"length": "sqrt"}])
def test_resample_spares_the_noise_only_of_documents_that_none_makes_large_enough(done, options):
    workspace = configure(done, **options).workspace()
    candidates = Candidates(workspace.snapshot(), workspace.settings.selection("picked"))
    keys = METHODS["resample"].fit(candidates, Budget(documents=20)).keys
    spared = 0
    for documents in candidates.each_block(copy.copy):
        whole = keys(documents, "medicine", "noise", -np.inf)
        for floor in (*np.quantile(whole, [0.0, 0.5, 0.9]), whole.max()):
            found = keys(documents, "medicine", "noise", floor)
            assert np.array_equal(found >= floor, whole >= floor)
            assert np.array_equal(found[found >= floor], whole[whole >= floor])
            spared += (found != whole).sum()
    # The temperature brings the log weights of a small pool together.
    assert (spared > 0) == ("temperature" not in options)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A target that is two thirds law and one third code, and a selection matched to it."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("mixed"))
    pipeline.write_pool()
    pipeline.write("medicine.jsonl", sentences("law", 40, seed=200) + sentences("code", 20, seed=200))
    pipeline.write("medicine-test.jsonl", sentences("law", 40, seed=201) + sentences("code", 20, seed=201))
    assert configure(pipeline, method="match", size={"documents": 30}, output="parquet").errors() == []
    return pipeline


def test_match_recovers_the_mixture_of_the_target(mixed):
    picked = domains(mixed)
    assert len(picked) == 30 and "medicine" not in picked
    assert 15 <= picked.count("law") <= 25
    [metadata] = mixed.rows("SELECT metadata FROM latest WHERE asset = 'selections'")
    metadata = json.loads(metadata[0])
    assert metadata["converged"] == "true" and metadata["gap"] <= MatchingOptions.tolerance
    event = mixed.instance.get_latest_materialization_event(dg.AssetKey("selections"))
    assert "data:image/png" in event.asset_materialization.metadata["rounds, plot"].value


def test_match_is_nearer_to_the_held_out_target_than_top_k(mixed):
    [(match_, top_k, random)] = mixed.rows(
        "SELECT max(value) FILTER (pick = 'selection'), max(value) FILTER (pick = 'top_k'), "
        "max(value) FILTER (pick = 'random') FROM evaluations "
        "WHERE target = '' AND metric = 'kl_reduction' AND statistic = 'value'"
    )
    assert match_ > top_k + 0.01 and match_ > random


def test_match_is_that_of_the_library_on_the_same_documents(mixed):
    """The asset adds storage and threads to ``dsir.matching``, no arithmetic."""
    spec = FeatureSpec(buckets=1000)

    def read(name):
        lines = (mixed.data / name).read_text().splitlines()
        return [json.loads(line) for line in lines]

    records = [record for name in ("code", "law", "medicine") for record in read(f"pool/{name}.jsonl")]
    pool = featurize(pa.array([record["text"] for record in records]), spec)
    target = featurize(pa.array([record["text"] for record in read("medicine.jsonl")]), spec)
    raw, counts = pool.totals(1000), target.totals(1000)
    budget, options, passes = Budget(documents=30), MatchingOptions(), over(lambda: [pool])
    found = match(passes, counts, raw, budget, options)
    drawn = refine(found, hold(passes, found, 2), budget, options, seed=0, stream="picked/medicine")
    keys = dict(zip((record["id"] for record in records), drawn.keys.at(np.arange(len(pool))), strict=True))
    picks = mixed.picks()
    assert {doc_id: key for _, _, doc_id, _, key in picks} == {
        doc_id: keys[doc_id] for _, _, doc_id, _, _ in picks
    }


def test_match_leaves_log_weights_as_they_are_and_says_so_of_keys(mixed):
    [(n,)] = mixed.rows(
        'SELECT count(*) FROM selections JOIN weights USING (shard, "row", target) '
        "WHERE selections.log_weight = weights.log_weight"
    )
    assert n == 30
    verdicts = mixed.rows("SELECT DISTINCT verdict FROM why('medicine-0-0', 'picked')")
    assert verdicts == [("not picked; keys of method match are kept of picked documents only",)]


def test_match_obeys_quality_and_a_budget_of_tokens(pipeline):
    pipeline.write_pool()
    pipeline.write("pool/long.jsonl", sentences("medicine", 10, seed=5, length=600))
    assert (
        configure(pipeline, method="match", size={"tokens": 1500}, quality={"words": [40, 500]}).errors()
        == []
    )
    [(tokens, longest)] = pipeline.rows("SELECT sum(n_tokens), max(n_tokens) FROM selections")
    assert 1500 - longest < tokens <= 1500 and longest < 500


def test_match_and_cynical_come_as_close_to_a_target_of_one_document(pipeline):
    pipeline.write_pool()
    pipeline.write("medicine.jsonl", sentences("medicine", 1, seed=100))
    for method in ("match", "cynical"):
        assert configure(pipeline, method=method).errors(until="selections") == []
        assert domains(pipeline).count("medicine") >= 18


@pytest.mark.parametrize("method", ["match", "cynical", "moore_lewis"])
def test_documents_without_words_come_last(pipeline, method):
    pipeline.write_pool()
    pipeline.write("pool/empty.jsonl", [{"id": f"empty-{i}", "text": " "} for i in range(5)])
    assert (
        configure(pipeline, method=method, size={"documents": 20}, min_tokens=0).errors(until="selections")
        == []
    )
    assert domains(pipeline).count("empty") == 0
    if method == "moore_lewis":  # whose keys `why` knows: the least that a mean log ratio can be
        [(key,)] = pipeline.rows("SELECT key FROM why('empty-0', 'picked')")
        assert key == pytest.approx(np.log(1e-8))


def test_cynical_keeps_to_the_caps_and_takes_no_pool_that_does_not_fit(pipeline, monkeypatch):
    pipeline.write_pool()
    pipeline.config["raw"][0]["source"] = "domain"
    caps = {"source_caps": {"medicine": 0.5}}
    assert (
        configure(pipeline, method="cynical", size={"documents": 20}, **caps).errors(until="selections") == []
    )
    assert domains(pipeline).count("medicine") == 10
    assert (
        configure(pipeline, method="cynical", size={"documents": 100}, source_caps=0.1).errors(
            until="selections"
        )
        == []
    )
    [(metadata,)] = pipeline.rows("SELECT metadata FROM latest WHERE asset = 'selections'")
    assert "picked 30 of 100 documents: the rest are above the caps of their sources" in metadata
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=100_000))
    [error] = configure(pipeline, method="cynical").errors()
    assert "method cynical keeps the pool's features in memory" in error and "method match" in error


@pytest.mark.parametrize("method", ["match", "cynical"])
def test_a_dropped_near_duplicate_is_replaced_by_a_document_like_the_target(pipeline, method):
    pipeline.write_pool()
    records = sentences("medicine", 12, seed=1)
    again = [record | {"id": f"{record['id']}-{n}"} for record in records for n in range(6)]
    pipeline.write("pool/again.jsonl", again)
    assert (
        configure(pipeline, method=method, size={"documents": 30}, near_duplicates=0.8).errors(
            until="selections"
        )
        == []
    )
    assert domains(pipeline) == ["medicine"] * 30


def test_moore_lewis_ranks_by_the_mean_log_ratio_and_why_knows_it(pipeline):
    pipeline.write_pool()
    assert configure(pipeline, method="moore_lewis").errors(until="selections") == []
    assert domains(pipeline) == ["medicine"] * 20
    rows = pipeline.rows(
        "SELECT s.key, w.log_weight / d.n_ngrams FROM selections AS s "
        'JOIN documents AS d USING (shard, "row") JOIN weights AS w USING (shard, "row", target)'
    )
    assert len(rows) == 20 and all(key == mean for key, mean in rows)
    [(verdict, key, threshold)] = pipeline.rows(
        "SELECT verdict, key, threshold FROM why('law-1-0', 'picked')"
    )
    assert "below the threshold" in verdict and key < threshold


def test_the_picks_of_a_match_are_a_file_as_any(mixed):
    [(folder,)] = mixed.rows("SELECT folder FROM selection_versions")
    assert pq.read_table(f"{folder}/picks.parquet").num_rows == 30


# --- classifier and mixture --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["classifier", "classifier_top_k"])
def test_a_classifier_finds_the_documents_of_the_target(pipeline, method):
    pipeline.write_pool()
    assert configure(pipeline, method=method).errors(until="selections") == []
    wrong = 20 - domains(pipeline).count("medicine")
    assert wrong <= 2 if method == "classifier" else wrong == 0  # the noise lets a few in
    [(metadata,)] = pipeline.rows("SELECT metadata FROM latest WHERE asset = 'selections'")
    assert json.loads(json.loads(metadata)["validation_accuracy"]) == {"medicine": 1.0}
    assert pipeline.rows("SELECT DISTINCT verdict FROM why('law-1-0', 'picked')") == [
        (f"not picked; keys of method {method} are kept of picked documents only",)
    ]


@pytest.fixture
def blend(pipeline):
    """A target that is three quarters law and one quarter code, and a pool of three sources."""
    pipeline.write_pool()
    pipeline.write("medicine.jsonl", sentences("law", 90, seed=200) + sentences("code", 30, seed=200))
    pipeline.write("medicine-test.jsonl", sentences("law", 45, seed=201) + sentences("code", 15, seed=201))
    pipeline.config["raw"][0]["source"] = "domain"
    return pipeline


def test_a_mixture_gives_the_shares_of_the_sources_and_documents_in_these(blend):
    assert configure(blend, method="mixture", size={"documents": 40}).errors(until="selections") == []
    picked = domains(blend)
    assert len(picked) == 40 and picked.count("law") == pytest.approx(30, abs=2)
    assert "medicine" not in picked
    [(folder,)] = blend.rows("SELECT folder FROM selection_versions")
    rows = blend.rows(f"SELECT source, weight, lower, upper FROM read_csv('{folder}/mixture.csv')")
    assert [source for source, *_ in rows] == ["law", "code", "medicine"]
    for (_, weight, lower, upper), truth in zip(rows, (0.75, 0.25, 0.0), strict=True):
        assert weight == pytest.approx(truth, abs=0.03) and lower - 0.02 <= truth <= upper + 0.02
    event = blend.instance.get_latest_materialization_event(dg.AssetKey("selections"))
    assert "data:image/png" in event.asset_materialization.metadata["mixture, plot"].value
    assert blend.rows("SELECT verdict FROM why('medicine-0-0', 'picked')") == [
        ("not picked; its source has its share of the mixture",)
    ]


def test_a_mixture_obeys_caps_and_the_number_of_sources(blend):
    assert (
        configure(blend, method="mixture", size={"documents": 40}, source_caps={"law": 0.5}).errors(
            until="selections"
        )
        == []
    )
    assert domains(blend).count("law") in (20, 21)  # half of the n-grams
    assert (
        configure(blend, method="mixture", size={"documents": 30}, sources=1).errors(until="selections") == []
    )
    assert set(domains(blend)) == {"law"}
    errors = configure(blend, method="mixture", size={"documents": 100}, sources=1).errors()
    assert "caps: those of the 1 largest sum to" in errors[0]


def test_more_sources_than_memory_holds_are_refused_before_their_totals_are_made(blend, monkeypatch):
    made = []
    monkeypatch.setattr(mixture, "masked_totals", lambda *_: made.append(1))
    monkeypatch.setattr(mixture, "LARGEST", 2999)
    for name in ("medicine", "law", "code"):  # one shard with three sources
        (blend.data / f"pool/{name}.jsonl").rename(blend.data / f"{name}.part")
    parts = [(blend.data / f"{name}.part").read_bytes() for name in ("medicine", "law", "code")]
    blend.write_bytes("pool/all.jsonl", b"".join(parts))
    errors = configure(blend, method="mixture", size={"documents": 40}).errors()
    assert "there are 3 sources of 1,000 buckets, or more; name coarser sources in raw[].source" in errors[0]
    assert not made
