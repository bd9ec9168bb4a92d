"""The numbers of an evaluation, on pools where they are known."""

import hashlib
import json
import math
from collections import Counter
from itertools import pairwise

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsir.evaluation import INDEPENDENT, kl_reduction
from dsir.explain import tokenize
from dsir.features import FeatureSpec, featurize, hash_strings
from dsir.noise import gumbel_noise
from dsir.selection import pack_position
from dsir_dagster.assets.measuring import counts
from dsir_dagster.assets.measuring.baselines import Pick
from dsir_dagster.assets.measuring.measures import quantile
from dsir_dagster.assets.picking import texts
from dsir_dagster.assets.picking.rows import rows_by_shard
from dsir_dagster.assets.picking.texts import pool_texts
from dsir_dagster.resources import records as chosen
from dsir_dagster.resources.corpus import CorpusError
from dsir_dagster.resources.settings import ConfigError
from tests.pipeline import DOMAINS, SmallPipeline, sentences

SPEC = FeatureSpec(buckets=1000)


def equal_sentences(domain, n, seed):
    """Records of 120 words each, so that samples of equal size are the whole picks."""
    records = sentences(domain, n, seed)
    return [{**record, "text": " ".join(record["text"].split()[:120])} for record in records]


def write(pipeline, shards=1):
    records = [record for seed, domain in enumerate(DOMAINS) for record in equal_sentences(domain, 40, seed)]
    planted = {
        "target": equal_sentences("medicine", 30, 100)[:3],
        "holdout": equal_sentences("medicine", 30, 101)[:2],
        "copy": [records[0]] * 3,
    }
    for name, copies in planted.items():
        records += [{**record, "id": f"{name}-{i}"} for i, record in enumerate(copies)]
    for i in range(shards):
        pipeline.write(f"pool/part-{i}.jsonl", records[i::shards])
    pipeline.write("medicine.jsonl", equal_sentences("medicine", 30, 100))
    pipeline.write("medicine-test.jsonl", equal_sentences("medicine", 30, 101))
    common = {"targets": ["medicine"], "min_tokens": 10}
    pipeline.config["selections"] = [
        {**common, "name": "picked", "method": "top_k", "size": {"documents": 48}},
        {**common, "name": "drawn", "method": "random", "size": {"documents": 30}},
        {**common, "name": "matched", "method": "match", "size": {"documents": 30}},
        {**common, "name": "twice", "method": "random", "size": {"documents": 30}, "epochs": 2},
    ]
    pipeline.config["evaluation"] = {"compare": ["match"]}
    return pipeline


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    pipeline = write(SmallPipeline(tmp_path_factory.mktemp("measured")))
    assert pipeline.errors() == []
    return pipeline


def values(pipeline, selection="picked", target=""):
    """Return numbers by metric and pick, and those that are no values by statistic too."""
    rows = pipeline.rows(
        "SELECT metric, pick, statistic, value FROM evaluations "
        f"WHERE selection = '{selection}' AND target = '{target}' AND source = ''"
    )
    return {
        (metric, pick) if statistic == "value" else (metric, pick, statistic): value
        for metric, pick, statistic, value in rows
    }


def metadata(pipeline, selection="picked"):
    [(text,)] = pipeline.rows(
        f"SELECT metadata FROM latest WHERE asset = 'evaluations' AND partition = '{selection}'"
    )
    return json.loads(text)


def features_of(pipeline, name):
    return featurize(pa.array([json.loads(line)["text"] for line in (pipeline.data / name).open()]), SPEC)


def test_every_metric_that_is_documented_is_there_and_no_other(measured):
    reductions = ("kl_reduction", "over_random", "over_random_unhashed")
    by_target = {("effective_sample_size", "pool")}
    for name in reductions:
        by_target |= {(name, "random"), (name, "random", "sd")}
        for pick in ("selection", "match", "top_k"):
            by_target |= {(name, pick), (name, pick, "low"), (name, pick, "high")}
    for name in ("ahead", "ahead_unhashed"):
        for pick in ("match", "top_k", "random"):
            by_target |= {(name, pick), (name, pick, "low"), (name, pick, "high")}
    leaked = {(f"in_{part}", pick) for pick in PICKS for part in ("target", "holdout")}
    lengths = {("median_tokens", "eligible")}
    lengths |= {
        (f"{name}tokens", pick) for pick in PICKS for name in ("", "mean_", "median_", "p10_", "p90_")
    }
    of_picks = {(name, pick) for pick in PICKS[1:] for name in ("distinct_ngrams", "duplicates")}
    agreement = {("agreement", pick) for pick in ("match", "top_k", "random", "seed")}
    of_picks.add(("near_copies", "selection"))
    assert values(measured, target="medicine").keys() == by_target | leaked
    assert values(measured).keys() == by_target | leaked | lengths | of_picks | agreement


PICKS = ["pool", "selection", "match", "top_k", "random"]


@pytest.mark.parametrize("selection", ["picked", "drawn", "matched"])
def test_the_kl_reduction_is_that_of_the_texts(measured, selection):
    pool, holdout = features_of(measured, "pool/part-0.jsonl"), features_of(measured, "medicine-test.jsonl")
    rows = measured.rows(f"SELECT \"row\" FROM selections WHERE selection = '{selection}'")
    selected = sum(pool.dense(row, 1000) for (row,) in rows)
    expected = kl_reduction(holdout.totals(1000), pool.totals(1000), selected, 0.5)
    found = values(measured, selection)
    assert found["kl_reduction", "selection"] == pytest.approx(expected, rel=1e-9)
    assert found["kl_reduction", "selection", "low"] < expected < found["kl_reduction", "selection", "high"]


def headline_of(texts, held_out, picks):
    """The lead of the first of several picks over the mean of the others, in both views, written out n-gram by n-gram.

    Parameters
    ----------
    texts, held_out : list of str
    picks : list of list of int
        Places of documents in `texts`.
    """

    def ngrams(text):
        words = tokenize(text, INDEPENDENT)
        return [*words, *(f"{a} {b}" for a, b in pairwise(words))]

    def bucket(ngram):
        return int(hashlib.sha256(ngram.encode()).hexdigest(), 16) % 40_009

    of_text = [Counter(ngrams(text)) for text in texts]
    target = sum((Counter(ngrams(text)) for text in held_out), Counter())
    leads = []
    for view, features in (
        (bucket, 40_009),
        (lambda ngram: ngram if ngram in target else "other", len(target) + 1),
    ):
        p = Counter()
        for ngram, n in target.items():
            p[view(ngram)] += n
        cross = []
        for pick in picks:
            q = Counter()
            for place in pick:
                for ngram, n in of_text[place].items():
                    q[view(ngram)] += n
            logs = {each: math.log(0.99 * q[each] / q.total() + 0.01 / features) for each in p}
            cross.append(-sum(n * logs[each] for each, n in p.items()) / p.total())
        leads.append(np.mean(cross[1:]) - cross[0])
    return leads


VIEWS = ("over_random", "over_random_unhashed")


def leads_of(pipeline, selection, n, held_out):
    """The leads over random picks of n documents, of one epoch of a selection from the pool that `write` writes."""
    texts, held_out = (
        [json.loads(line)["text"] for line in (pipeline.data / name).open()]
        for name in ("pool/part-0.jsonl", held_out)
    )
    chosen = f"SELECT \"row\" FROM selections WHERE selection = '{selection}' AND epoch = 1"
    rows = [row for (row,) in pipeline.rows(chosen)]
    content_hash = features_of(pipeline, "pool/part-0.jsonl").content_hash
    random = [np.argsort(-gumbel_noise(content_hash, seed, "random"), kind="stable")[:n] for seed in range(5)]
    return headline_of(texts, held_out, [rows, *random])


@pytest.mark.parametrize(("selection", "n"), [("picked", 48), ("drawn", 30), ("matched", 30), ("twice", 30)])
def test_the_lead_over_random_is_that_of_the_whole_picks_texts(measured, selection, n):
    found = values(measured, selection)
    for name, lead in zip(VIEWS, leads_of(measured, selection, n, "medicine-test.jsonl"), strict=True):
        assert found[name, "selection"] == pytest.approx(lead, rel=1e-9, abs=1e-12)
        assert found[name, "selection", "low"] < lead < found[name, "selection", "high"]


HEADLINE = ("over_random", "over_random_unhashed", "ahead", "ahead_unhashed")


def headlines(pipeline, selection, *picks):
    """The figures that no configuration changes, of some picks."""
    found = values(pipeline, selection)
    return {key: value for key, value in found.items() if key[0] in HEADLINE and key[1] in picks}


@pytest.mark.parametrize(
    "features", [{"buckets": 50}, {"buckets": 65_536}, {"hash": "sha256"}, {"buckets": 40_009, "ngrams": 3}]
)
def test_the_same_picks_have_the_same_lead_whatever_buckets_selected(measured, pipeline, features):
    write(pipeline)
    pipeline.config["features"] = features
    pipeline.config["evaluation"] = {"smoothing": 3}
    pipeline.config["selections"] = [
        measured.config["selections"][1]
    ]  # by `random`, which looks at no feature
    assert pipeline.errors() == []
    same = ("selection", "random")
    assert headlines(pipeline, "drawn", *same) == headlines(measured, "drawn", *same) != {}
    papers = [values(each, "drawn")["kl_reduction", "selection"] for each in (pipeline, measured)]
    assert abs(papers[0] - papers[1]) > 0.01 * abs(papers[1])


def test_repeating_all_documents_held_out_or_picked_changes_no_lead(measured, pipeline):
    write(pipeline)
    (pipeline.data / "pool/again.jsonl").write_bytes((pipeline.data / "pool/part-0.jsonl").read_bytes())
    pipeline.write("medicine-test.jsonl", equal_sentences("medicine", 30, 101) * 3)
    pipeline.config["selections"] = [{**measured.config["selections"][0], "size": {"documents": 2 * 48}}]
    assert pipeline.errors() == []
    twice, once = (headlines(each, "picked", "selection", "top_k", "random") for each in (pipeline, measured))
    assert twice == pytest.approx(once, rel=1e-9, abs=1e-12) and once
    assert values(pipeline)["tokens", "selection"] == 2 * values(measured)["tokens", "selection"]


def test_a_few_hundred_short_questions_do_not_drown_in_many_buckets(pipeline):
    """The paper's figure does: 65,536 buckets have 32,768 pseudo-counts, the questions 5,000 n-grams."""
    figures = []
    for buckets in (2_000, 65_536):
        write(pipeline)
        questions = [" ".join(each["text"].split()[:10]) for each in equal_sentences("medicine", 250, 102)]
        pipeline.write("medicine-test.jsonl", [{"text": question} for question in questions])
        pipeline.config["features"] = {"buckets": buckets}
        pipeline.config["selections"] = pipeline.config["selections"][:1]
        assert pipeline.errors() == []
        figures.append(values(pipeline))
    few, many = figures
    assert many["over_random", "selection"] == few["over_random", "selection"] > 0.5
    assert many["kl_reduction", "selection"] < 0.6 * few["kl_reduction", "selection"]


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20),
    epochs=st.integers(1, 3),
    limit=st.integers(1, 600),
)
def test_a_pick_is_measured_whole_or_cut_without_parting_the_copies_of_a_document(lengths, epochs, limit):
    positions = np.repeat(np.arange(len(lengths)), epochs)
    numbers = np.array(lengths)[positions]
    pick = Pick(positions, numbers, numbers, hash_strings(pa.array([str(each) for each in positions])))
    kept = pick.up_to(limit)
    counted = Counter(kept.positions.tolist())
    assert set(counted.values()) == {epochs}
    of_one_epoch = sum(lengths[each] for each in counted)
    assert of_one_epoch <= limit or len(counted) == 1
    assert len(kept) == len(pick) or of_one_epoch + max(lengths) > limit
    assert sum(lengths) > limit or len(kept) == len(pick)


def test_a_method_is_compared_as_it_is_when_it_is_selected_by(measured):
    """But for its noise, which has the name of the selection."""
    drawn, matched = values(measured, "drawn"), values(measured, "matched")
    assert drawn["kl_reduction", "match"] == pytest.approx(matched["kl_reduction", "selection"], rel=0.15)
    assert drawn["kl_reduction", "top_k"] == pytest.approx(matched["kl_reduction", "top_k"], rel=1e-9)
    assert ("kl_reduction", "match") not in matched
    for name in ("over_random", "over_random_unhashed"):
        assert drawn[name, "match"] == pytest.approx(matched[name, "selection"], rel=0.15)
        assert (
            matched[name, "selection", "low"]
            <= matched[name, "selection"]
            <= matched[name, "selection", "high"]
        )
        assert matched[name, "selection"] > 3 * drawn[name, "random", "sd"] > 0


def test_what_was_planted_is_found(measured):
    found = values(measured)
    assert values(measured, target="medicine")["in_target", "pool"] == found["in_target", "pool"] == 3
    assert found["in_holdout", "pool"] == 2
    # All documents of the domain are picked: 40, those of the target and the holdout, and three copies.
    assert found["in_target", "selection"] == 3 and found["in_holdout", "selection"] == 2
    assert found["duplicates", "selection"] == 3
    assert found["near_copies", "selection"] == pytest.approx(3 / 48)
    assert found["in_holdout", "random"] <= 2
    assert "2 picked documents are in the holdout" in metadata(measured)["note"]
    assert (
        metadata(measured)["verdict_level"] == "bad"
        and "2 picked documents in the holdout" in metadata(measured)["verdict"]
    )


@pytest.mark.parametrize("selection", ["picked", "matched"])
def test_the_lead_over_another_pick_is_the_difference_with_an_interval_of_its_own(measured, selection):
    found = values(measured, selection)
    for lead, reduction in (("ahead", "over_random"), ("ahead_unhashed", "over_random_unhashed")):
        for pick in ("top_k", "random"):
            value, low, high = (found[lead, pick, *end] for end in ((), ("low",), ("high",)))
            assert value == pytest.approx(found[reduction, "selection"] - found[reduction, pick], abs=1e-9)
            assert low <= value <= high
        # Two standard deviations over seeds at least: it covers chance too.
        wide = found[lead, "random", "high"] - found[lead, "random", "low"]
        assert wide > 3.5 * found[reduction, "random", "sd"]
    # One number with one interval: the lead over random is the same where it is called `over_random`.
    for end in ((), ("low",), ("high",)):
        for lead, reduction in (("ahead", "over_random"), ("ahead_unhashed", "over_random_unhashed")):
            assert found[lead, "random", *end] == pytest.approx(found[reduction, "selection", *end], abs=1e-9)
    own = found["over_random", "selection", "high"] - found["over_random", "selection", "low"]
    paired = found["ahead", "top_k", "high"] - found["ahead", "top_k", "low"]
    assert paired < own  # both picks move with the holdout
    if selection == "picked":  # by top_k
        assert found["ahead", "top_k"] == paired == 0


def test_agreement_with_the_same_picks_and_with_those_of_another_seed(measured):
    found = values(measured)
    assert found["agreement", "top_k"] == found["agreement", "seed"] == 1
    drawn = {doc_id for _, _, doc_id, _, _ in measured.picks("drawn")}
    measured.config["selections"][1]["seed"] = 1
    assert measured.materialize("selections", partition="drawn").success
    again = {doc_id for _, _, doc_id, _, _ in measured.picks("drawn")}
    measured.config["selections"][1]["seed"] = 0
    expected = len(drawn & again) / 30
    assert 0 < expected < 1
    assert values(measured, "drawn")["agreement", "seed"] == pytest.approx(expected)
    assert measured.errors() == []


def test_lengths_and_epochs(measured):
    found = values(measured, "twice")
    assert found["tokens", "selection"] == 2 * 30 * 120 == 2 * found["tokens", "top_k"]
    assert (
        found["median_tokens", "selection"]
        == found["p10_tokens", "selection"]
        == found["p90_tokens", "pool"]
        == found["median_tokens", "eligible"]
        == 120
    )
    drawn = {doc_id for _, _, doc_id, _, _ in measured.picks("twice")}
    assert found["duplicates", "selection"] <= 3 and len(drawn) < 60


def test_neither_shards_nor_their_order_change_a_number(measured, pipeline):
    write(pipeline, shards=5)
    pipeline.config["selections"] = [measured.config["selections"][2]]
    assert pipeline.errors() == []
    assert values(pipeline, "matched") == pytest.approx(values(measured, "matched"), rel=1e-9, abs=1e-12)


def test_several_targets_have_their_own_numbers_and_their_mean(pipeline):
    write(pipeline)
    pipeline.write("law.jsonl", equal_sentences("law", 20, 100))
    pipeline.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    pipeline.config["selections"] = [
        {"name": "picked", "targets": ["law", "medicine"], "size": {"documents": 30}}
    ]
    assert pipeline.errors() == []
    of_all, *of_targets = (values(pipeline, target=target) for target in ("", "law", "medicine"))
    for metric in (
        ("kl_reduction", "selection"),
        ("kl_reduction", "top_k"),
        ("over_random", "selection"),
        ("over_random_unhashed", "selection"),
        ("effective_sample_size", "pool"),
    ):
        assert of_all[metric] == pytest.approx(np.mean([each[metric] for each in of_targets]))
    widths = [
        each["kl_reduction", "selection", "high"] - each["kl_reduction", "selection", "low"]
        for each in (of_all, *of_targets)
    ]
    assert widths[0] < max(widths[1:])
    assert [each["in_target", "pool"] for each in (of_all, *of_targets)] == [3, 0, 3]
    for target, name in (("law", "law.jsonl"), ("medicine", "medicine-test.jsonl")):
        leads = leads_of(pipeline, "picked", 30, name)
        assert [values(pipeline, target=target)[each, "selection"] for each in VIEWS] == pytest.approx(leads)


def test_the_table_of_methods_and_the_plots(measured):
    event = measured.instance.get_latest_materialization_event(dg.AssetKey("evaluations"))
    shown = {key: str(value.value) for key, value in event.asset_materialization.metadata.items()}
    rows = [line.split(" | ") for line in shown["methods side by side"].splitlines()]
    assert [row[0].strip("| ") for row in rows[2:]] == ["random", "match", "top-k", "random"]
    assert len({len(row) for row in (rows[0], *rows[2:])}) == 1
    assert "data:image/png" in shown["KL reduction over random, plot"]
    assert "data:image/png" in shown["KL reduction over random, hashed and not, plot"]


def test_without_a_holdout(pipeline):
    pipeline.write_pool()
    del pipeline.config["targets"][0]["holdout"]
    pipeline.config["evaluation"] = {"random_seeds": 2, "sample": 500}  # two documents of each
    assert pipeline.errors() == []
    found = values(pipeline)
    assert ("over_random", "match") not in found
    assert found["over_random", "selection", "low"] > 0 < found["over_random_unhashed", "selection", "low"]
    assert found["kl_reduction", "selection"] > found["kl_reduction", "random"]
    assert found["in_holdout", "selection"] == 0 and "no holdout" in metadata(pipeline)["measured_on"]


@pytest.mark.slow
def test_language_models_are_trained_where_that_is_asked_for(pipeline):
    pytest.importorskip("torch")
    pipeline.write_pool()
    pipeline.config["evaluation"] = {"random_seeds": 2, "proxy": {"seeds": 3, "tokens": 2000}}
    assert pipeline.errors() == []
    found = values(pipeline)
    losses = {
        ("proxy_loss", pick, *end) for pick in ("selection", "top_k", "random") for end in ((), ("sd",))
    }
    assert losses < found.keys() and losses < values(pipeline, target="medicine").keys()
    assert found["proxy_loss", "selection"] < found["proxy_loss", "random"]
    assert metadata(pipeline)["proxy_loss"] == found["proxy_loss", "selection"]
    assert pipeline.materialize("evaluations", partition="picked", force=True).success
    assert values(pipeline) == found
    pipeline.config["evaluation"]["proxy"]["tokens"] = 1000
    [error] = pipeline.errors()
    assert "evaluation.proxy: the selection or its target is too small" in error


def test_without_pytorch_language_models_are_refused_with_what_to_install(pipeline, monkeypatch):
    pipeline.write_pool()
    pipeline.config["evaluation"] = {"proxy": {}}
    monkeypatch.setattr("dsir_dagster.assets.measuring.trained.find_spec", lambda name: None)
    [error] = pipeline.errors()
    assert "evaluation.proxy trains language models, which needs PyTorch; install it with" in error


def test_classifiers_of_labelled_targets(pipeline):
    pipeline.write_pool()
    for name, seed in (("medicine", 100), ("medicine-test", 101)):
        records = sentences("medicine", 20, seed) + sentences("law", 20, seed)
        pipeline.write(f"{name}.jsonl", records)
    pipeline.config["evaluation"] = {
        "downstream": {"label": "domain", "tokens": 5000, "seeds": 2},
    }
    assert pipeline.errors() == []
    found = values(pipeline, target="medicine")
    for metric in ("f1_macro", "f1_micro"):
        assert 0.5 < found[metric, "selection"] <= 1
        assert {(metric, pick, *end) for pick in ("top_k", "random") for end in ((), ("sd",))} < found.keys()
    assert "f1_micro_random" in metadata(pipeline)

    pipeline.config["evaluation"]["downstream"]["label"] = "extra.topic"
    assert pipeline.errors() == []
    assert ("f1_macro", "selection") not in values(pipeline)
    assert "a holdout and a field 'extra.topic': no F1 is measured" in metadata(pipeline)["note"]

    del records[3]["domain"]
    pipeline.write("medicine-test.jsonl", records)
    pipeline.config["evaluation"]["downstream"]["label"] = "domain"
    [error] = pipeline.errors()
    assert "evaluation.downstream.label: 1 of 40 records of target 'medicine' have no field 'domain'" in error


@pytest.mark.parametrize("methods", [["top_k"], ["random", "match"], ["match", "match"], ["best"]])
def test_methods_that_cannot_be_compared_with_are_refused(pipeline, methods):
    pipeline.write_pool()
    pipeline.config["evaluation"] = {"compare": methods}
    with pytest.raises(ValueError, match=r"evaluation\.compare"):
        pipeline.workspace()


def with_law(pipeline, **selection):
    """A pool, and a selection of two targets."""
    pipeline.write_pool()
    pipeline.write("law.jsonl", sentences("law", 30, seed=100))
    pipeline.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    pipeline.config["selections"][0] |= {"targets": ["medicine", "law"], **selection}


def test_a_method_of_one_target_is_not_compared_with_a_selection_of_two(pipeline):
    with_law(pipeline)
    pipeline.config["evaluation"] = {"compare": ["mixture"]}
    message = (
        r"evaluation\.compare, mixture: selection 'picked': method mixture takes one target; targets names 2"
    )
    with pytest.raises(ConfigError, match=message):
        pipeline.workspace()


def test_methods_whose_first_document_is_longer_than_the_budget_are_left_out(pipeline):
    """The noise of `random` prefers a document of 5 words now and then, the other methods one of 120."""
    pipeline.write_pool()
    pipeline.write("pool/short.jsonl", sentences("code", 400, seed=9, length=5))
    selection = pipeline.config["selections"][0]
    selection |= {"method": "random", "min_tokens": 1, "size": {"tokens": 90}}
    pipeline.config["evaluation"] = {"compare": ["match"]}
    assert pipeline.errors() == []
    assert metadata(pipeline)["note"] == "no document of match, top_k fits into the budget"
    assert ("kl_reduction", "match") not in values(pipeline)


@pytest.mark.parametrize("chunk_words", [None, 50])
def test_texts_of_documents_and_of_pieces_are_read_again(pipeline, chunk_words):
    records = [*sentences("law", 7, 1), {"id": "é", "text": "naïve “patient”\n" * 60}]
    pipeline.write("pool/a.jsonl", records)
    pipeline.write("pool/b.jsonl", sentences("code", 5, 2))
    if chunk_words:
        pipeline.config["raw"][0]["chunk_words"] = chunk_words
    assert pipeline.run()["raw_counts"].errors == []
    workspace = pipeline.workspace()
    snapshot = workspace.snapshot()
    places = pipeline.rows('SELECT shard, "row", content_hash FROM documents ORDER BY ALL')
    positions = np.array([pack_position(snapshot.plan.counted.index(shard), row) for shard, row, _ in places])
    texts = pool_texts(snapshot, positions)
    assert featurize(pa.array(texts), SPEC).content_hash.tolist() == [each for _, _, each in places]
    some = np.arange(0, len(places), 2)
    assert pool_texts(snapshot, positions[some]) == [texts[i] for i in some]
    assert pool_texts(snapshot, positions[:0]) == []


def test_a_piece_that_its_text_no_longer_has_is_an_error_that_names_the_record(pipeline):
    path = pipeline.write("pool/a.jsonl", sentences("law", 3, 1))
    pipeline.config["raw"][0]["chunk_words"] = 50
    assert pipeline.run()["raw_counts"].errors == []
    workspace = pipeline.workspace()
    snapshot = workspace.snapshot()
    positions = np.arange(9)
    assert len(pool_texts(snapshot, positions)) == 9
    records = sentences("law", 3, 1)
    records[1]["text"] = "short"
    pipeline.write("pool/a.jsonl", records)
    with pytest.raises(
        CorpusError, match=f"{path}: the text at row 1 has 5 bytes, .* were expected; the file changed"
    ):
        pool_texts(snapshot, positions)


def test_an_evaluation_reads_a_file_once_and_the_next_one_counts_only_its_own_picks(pipeline, monkeypatch):
    write(pipeline, shards=2)
    pipeline.config["evaluation"] = {}
    common = {"targets": ["medicine"], "min_tokens": 10, "size": {"documents": 30}, "output": "none"}
    methods = ("random", "moore_lewis")
    pipeline.config["selections"] = [{**common, "name": each, "method": each} for each in methods]
    read, n_counted = Counter(), []
    read_blocks, featurize_ = chosen.read_blocks, counts.featurize
    monkeypatch.setattr(
        chosen, "read_blocks", lambda uri, *rest: read.update([uri[-7:]]) or read_blocks(uri, *rest)
    )
    monkeypatch.setattr(
        counts, "featurize", lambda texts, spec: n_counted.append(len(texts)) or featurize_(texts, spec)
    )
    assert pipeline.errors() == []
    assert read == {"0.jsonl": 2, "1.jsonl": 2}
    assert sum(n_counted[:2]) > 100 and sum(n_counted[2:]) <= 30 + 20  # its picks, and what its report shows
    found = values(pipeline, "moore_lewis")
    assert pipeline.materialize("evaluations", partition="moore_lewis", force=True).success
    assert sum(n_counted[4:]) > 100 and values(pipeline, "moore_lewis") == found


def test_few_long_records_are_parsed_at_a_time(pipeline, monkeypatch):
    records = [{"id": str(i), "text": f"{i} " + "x" * 400_000} for i in range(12)]
    pipeline.write("pool/a.jsonl", records)
    assert pipeline.run()["raw_counts"].errors == []
    workspace = pipeline.workspace()
    parsed = []
    whole = texts.texts_of
    monkeypatch.setattr(texts, "texts_of", lambda *args: parsed.append(len(args[2].data)) or whole(*args))
    assert pool_texts(workspace.snapshot(), np.arange(12)) == [each["text"] for each in records]
    assert max(parsed) < 2.5 * chosen.BLOCK_BYTES
    [rows] = rows_by_shard(workspace.snapshot().plan, np.arange(12))
    blocks = list(texts.text_blocks(workspace.worker, rows))
    assert max(block.nbytes for block, _ in blocks) < 2.5 * chosen.BLOCK_BYTES
    assert [i for _, at in blocks for i in range(12)[at]] == list(range(12))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.sampled_from([0.1, 0.5, 0.9]))
def test_quantiles_of_counted_numbers_are_those_of_the_numbers(numbers, q):
    assert quantile(Counter(numbers), q) == np.quantile(numbers, q)
    assert quantile(Counter(numbers), 0.5) == np.median(numbers)
