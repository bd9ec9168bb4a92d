"""Options of a selection beside its method: what each does to the picks, and that `why` knows of it."""

import copy
import json
from functools import partial

import numpy as np
import pytest

from dsir.evaluation import EffectiveSampleSize
from dsir_dagster.assets import raw_counts
from dsir_dagster.assets.picking.candidates import Candidates
from dsir_dagster.resources.corpus import read_blocks
from dsir_dagster.resources.settings import ConfigError
from tests.pipeline import DOMAINS, SmallPipeline, sentences

EXPLAINED = (
    "SELECT count(*) FROM documents AS d, why(d.doc_id, '{0}') AS w "
    "WHERE (w.key >= w.threshold - 1e-9) = (w.rank IS NOT NULL)"
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Three sources of 40 documents and some of double length, with several selections of them."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("options"))
    pipeline.write_pool()
    pipeline.write("pool/long.jsonl", sentences("medicine", 20, seed=7, length=260))
    pipeline.write("law.jsonl", sentences("law", 30, seed=100))
    pipeline.config["raw"][0]["source"] = "domain"
    pipeline.config["targets"] += [{"name": "law", "uri": "data/law.jsonl"}]
    size = {"documents": 30}
    pipeline.config["selections"] = [
        {"name": name, "targets": ["medicine"], "size": size, **options}
        for name, options in {
            "plain": {},
            "hot": {"temperature": 1e6},
            "even": {"temperature": {"effective_sample_size": 20}},
            "mild": {"temperature": {"acceptance": 0.5}, "length": "sqrt"},
            "top": {"method": "top_k"},
            "top-per-ngram": {"method": "top_k", "length": "per_ngram"},
            "poisson": {"length": "poisson"},
            "capped": {"source_caps": {"medicine": 0.5}},
            "all-capped": {"source_caps": 0.34, "method": "top_k"},
            "thrice": {"epochs": 3, "temperature": 1e3},
        }.items()
    ]
    assert pipeline.errors(until="selections") == []
    return pipeline


def domains(pipeline, selection):
    picked = [doc_id.partition("-")[0] for _, _, doc_id, _, _ in pipeline.picks(selection)]
    return {domain: picked.count(domain) for domain in picked}


def metadata(pipeline, selection):
    [(text,)] = pipeline.rows(
        f"SELECT metadata FROM latest WHERE asset = 'selections' AND partition = '{selection}'"
    )
    return json.loads(text)


@pytest.mark.parametrize(
    "selection", ["plain", "hot", "even", "mild", "top", "top-per-ngram", "poisson", "thrice"]
)
def test_why_computes_the_keys_of_all_documents_as_the_pick_did(pool, selection):
    [(n,)] = pool.rows(EXPLAINED.format(selection))
    assert n == 140 * (3 if selection == "thrice" else 1)


def test_a_high_temperature_is_a_random_pick_and_a_low_one_top_k(pool):
    assert domains(pool, "plain") == {"medicine": 30}
    assert len(domains(pool, "hot")) == 3


def test_a_solved_temperature_gives_the_effective_sample_size_asked_for(pool):
    solved = json.loads(metadata(pool, "even")["temperatures"])["medicine"]
    log_weights = np.array(pool.rows("SELECT log_weight FROM weights WHERE target = 'medicine'"))[:, 0]
    reached = EffectiveSampleSize()
    reached.add(log_weights / solved)
    assert reached.value == pytest.approx(20, rel=0.02)


def test_a_temperature_that_there_is_not_is_refused(pipeline):
    pipeline.write_pool()
    pipeline.config["selections"][0]["temperature"] = {"effective_sample_size": 200}
    message = pipeline.errors()[0]
    assert (
        "target 'medicine': no temperature gives an effective sample size of 200: with 120 documents"
        in message
    )


def test_length_corrections_favor_what_they_say(pool):
    def long_ones(selection):
        return sum(doc_id.startswith("medicine-7-") for _, _, doc_id, _, _ in pool.picks(selection))

    assert long_ones("top") == 20  # the sum of log ratios grows with the length
    assert long_ones("top-per-ngram") < 20


def test_caps_hold_for_each_source_and_others_fill_the_budget(pool):
    assert domains(pool, "capped")["medicine"] == 15 and sum(domains(pool, "capped").values()) == 30
    assert max(domains(pool, "all-capped").values()) <= 11
    verdicts = pool.rows(
        "SELECT DISTINCT verdict FROM documents AS d, why(d.doc_id, 'capped') AS w "
        "WHERE d.source = 'medicine' AND w.rank IS NULL AND w.margin > 0"
    )
    assert verdicts and all("its source has its share" in verdict for (verdict,) in verdicts)


def test_an_unknown_source_is_refused_with_those_that_there_are(pipeline):
    pipeline.write_pool()
    pipeline.config["selections"][0]["source_caps"] = {"physics": 0.5}
    message = pipeline.errors()[0]
    assert "source_caps names physics" in message and "there are: pool" in message


def test_epochs_are_drawn_afresh_and_written_one_after_the_other(pool):
    rows = pool.rows("SELECT epoch, doc_id FROM selections WHERE selection = 'thrice'")
    epochs = [{doc_id for epoch, doc_id in rows if epoch == each} for each in (1, 2, 3)]
    assert [len(each) for each in epochs] == [30, 30, 30]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    written = [(record["_dsir"]["epoch"], record["id"]) for record in map(json.loads, pool.records("thrice"))]
    assert [epoch for epoch, _ in written] == [1] * 30 + [2] * 30 + [3] * 30
    assert sorted(written) == sorted(rows)


def test_duplicates_collapse_to_the_first_by_id_whatever_the_sharding(pipeline, tmp_path):
    records = sentences("medicine", 30, seed=1)
    copies = [{**record, "id": f"copy-{i}"} for i, record in enumerate(records[:10])]
    pipeline.config["selections"][0] |= {"collapse_duplicates": True, "size": {"fraction": 1.0}}
    pipeline.write("pool/a.jsonl", copies[:5] + records)
    pipeline.write("pool/b.jsonl", copies[5:])
    assert pipeline.errors(until="selections") == []
    picks = pipeline.picks()
    assert sorted(p[2] for p in picks) == sorted(
        [f"copy-{i}" for i in range(10)] + [f"medicine-1-{i}" for i in range(10, 30)]
    )
    assert metadata(pipeline, "picked")["excluded_by_collapse_duplicates"] == 10
    assert pipeline.rows("SELECT verdict FROM why('medicine-1-3', 'picked')") == [
        ("not eligible: its text is also that of copy-3",)
    ]
    other = SmallPipeline(tmp_path / "other")
    other.config["selections"] = pipeline.config["selections"]
    for i in range(7):
        other.write(f"pool/{i}.jsonl", (records + copies)[i::7])
    assert other.errors(until="selections") == []
    assert other.picks() == picks


@pytest.mark.parametrize("method", ["resample", "match"])
def test_the_order_of_targets_does_not_matter_where_each_document_goes_to_the_best(pool, tmp_path, method):
    picked = []
    for i, targets in enumerate((["medicine", "law"], ["law", "medicine"])):
        pipeline = SmallPipeline(tmp_path / str(i))
        pipeline.write_pool()
        pipeline.write("law.jsonl", sentences("law", 30, seed=100))
        pipeline.config["targets"] += [{"name": "law", "uri": "data/law.jsonl"}]
        overlap = {"overlap": "best"} if method == "resample" else {"objective": "worst"}
        pipeline.config["selections"] = [
            {"name": "picked", "targets": targets, "size": {"documents": 51}, "method": method, **overlap}
        ]
        assert pipeline.errors(until="selections") == []
        picked.append(pipeline.picks())
        assert len(picked[-1]) == 51
    assert picked[0] == picked[1]
    assert {target for target, *_ in picked[0]} == {"law", "medicine"}


def test_match_obeys_caps_and_draws_afresh_in_every_epoch(pool):
    pool.config["selections"].append(
        {
            "name": "matched",
            "targets": ["medicine", "law"],
            "size": {"tokens": 4000},
            "method": "match",
            "source_caps": {"law": 0.2},
            "epochs": 2,
        }
    )
    assert pool.errors(until="selections") == []
    epochs = {}
    for epoch, source, tokens, ids in pool.rows(
        "SELECT epoch, source, sum(n_tokens), list(doc_id ORDER BY doc_id) FROM selections "
        "WHERE selection = 'matched' GROUP BY ALL ORDER BY ALL"
    ):
        epochs.setdefault(epoch, {})[source] = (tokens, ids)
    assert len(epochs) == 2 and epochs[1] != epochs[2]
    for each in epochs.values():
        assert 0 < each["law"][0] < 0.2 * 4000 + 150
        assert 4000 - 300 < sum(tokens for tokens, _ in each.values()) <= 4000


@pytest.mark.slow
def test_match_takes_a_solved_temperature_and_the_poisson_correction(pool):
    """Of the medicine documents, 40 are of the target's length and 20 of twice that."""
    pool.config["selections"] = [
        {"name": name, "targets": ["medicine"], "size": {"documents": 30}, "method": "match", **options}
        for name, options in {
            "even": {"temperature": {"effective_sample_size": 20}},
            "very-even": {"temperature": {"effective_sample_size": 120}},
            "by-length": {"length": "poisson"},
            "whole": {"length": "none"},
        }.items()
    ]
    assert pool.errors(until="selections") == []
    assert 0 < metadata(pool, "even")["temperature"] < metadata(pool, "very-even")["temperature"]
    assert domains(pool, "even")["medicine"] > domains(pool, "very-even")["medicine"]
    long = dict(pool.rows("SELECT selection, count_if(n_tokens > 200) FROM selections GROUP BY selection"))
    assert long["by-length"] == 0 and long["whole"] == 20


def test_options_of_other_methods_are_refused_by_name(pipeline):
    pipeline.config["selections"][0] |= {"method": "top_k", "temperature": 2}
    with pytest.raises(ConfigError, match="method top_k takes no temperature; resample does"):
        pipeline.workspace()


def test_documents_are_the_same_with_and_without_their_features(pipeline, monkeypatch):
    """Of shards of several row groups, each of several batches of features, with rows that cannot be read."""
    monkeypatch.setattr(raw_counts, "ROW_GROUP", 5)
    monkeypatch.setattr(raw_counts, "read_blocks", partial(read_blocks, block_bytes=3000))
    bad = b"{bad\n" * 1000
    for seed, domain in enumerate(DOMAINS):
        path = pipeline.write(f"pool/{domain}.jsonl", sentences(domain, 20, seed))
        path.write_bytes(bad + path.read_bytes() + bad)
    pipeline.write("law.jsonl", sentences("law", 30, seed=100))
    pipeline.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    options = {
        "targets": ["law", "medicine"],
        "collapse_duplicates": True,
        "quality": True,
        "min_tokens": 125,
    }
    pipeline.config["selections"] = [{"name": "picked", "size": {"documents": 5}, **options}]
    assert pipeline.run()["weights"].errors == []
    workspace = pipeline.workspace()
    candidates = Candidates(workspace.snapshot(), workspace.settings.selection("picked"))

    def flat(features):
        rows = []
        for each in candidates.each_block(copy.copy, features=features):
            if features:
                assert each.features.content_hash.tolist() == each.content_hash.tolist()
            columns = each.table.to_pydict().values(), each.log_weights.values()
            rows += zip(
                *columns[0], *(w.tolist() for w in columns[1]), each.excluded_by.tolist(), strict=True
            )
        return rows

    assert flat(True) == flat(False)
    assert len(flat(True)) == 60 and {row[-1] for row in flat(True)} > {0, 1}
    blocks = {
        features: len(list(candidates.each_block(copy.copy, features=features))) for features in (True, False)
    }
    assert blocks[True] > blocks[False] > 6
