"""Models of n-grams, and the same selection at other sizes, on a pool where narrower and wider are known."""

import json
from dataclasses import replace

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from dsir.evaluation import INDEPENDENT, cross_entropy, independent_distribution
from dsir.features import featurize
from dsir.ngram_model import NgramModel
from dsir_dagster.assets.measuring.baselines import describe
from dsir_dagster.assets.measuring.trained import bits_per_byte
from dsir_dagster.assets.report.numbers import Difference, OfSize
from dsir_dagster.assets.report.verdict import judge
from dsir_dagster.resources.compute import untold
from dsir_dagster.resources.settings import BitsPerByteSettings
from tests.assets.test_evaluations import equal_sentences, metadata, values
from tests.assets.test_report import page_of
from tests.assets.test_verdict import PLAIN
from tests.pipeline import DOMAINS, SmallPipeline

BUDGETS = [4, 0.5, 2]
MANY, FEW = 80, 10  # of 40 documents of the target's domain, and 80 of others


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """`wide` picks twice the documents of the target's domain that there are, `narrow` a quarter of them."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("sizes"))
    for seed, domain in enumerate(DOMAINS):
        pipeline.write(f"pool/{domain}.jsonl", equal_sentences(domain, 40, seed))
    pipeline.write("medicine-test.jsonl", equal_sentences("medicine", 30, 101))
    common = {"targets": ["medicine"], "min_tokens": 10}
    pipeline.config["selections"] = [
        {**common, "name": "wide", "method": "top_k", "size": {"documents": MANY}},
        {**common, "name": "narrow", "size": {"tokens": 120 * FEW}, "epochs": 2},
    ]
    pipeline.config["evaluation"] = {"budgets": BUDGETS, "random_seeds": 2, "bits_per_byte": {}}
    assert pipeline.errors() == []
    return pipeline


def test_every_size_has_its_numbers(measured):
    for selection, documents in (("wide", MANY), ("narrow", FEW)):
        found = values(measured, selection)
        for factor in (0.5, 1, 2, 4):
            name = f"selection x{factor:g}"
            of_size = round(factor * documents)
            if of_size > 120:  # more than the pool has
                assert ("documents", name) not in found
                continue
            assert found["documents", name] == of_size and found["tokens", name] == 120 * of_size
            assert found["over_random", name, "low"] <= found["over_random", name, "high"]
            assert (("ahead", name) in found) == (factor != 1)
            assert found["duplicates", name] == 0
        for end in ((), ("low",), ("high",)):
            of_own = found["over_random", "selection x1", *end]
            assert of_own == pytest.approx(found["over_random", "selection", *end], abs=1e-9)
        assert found["ahead", "selection x0.5"] == pytest.approx(
            found["over_random", "selection x1"] - found["over_random", "selection x0.5"]
        )
        of_target = values(measured, selection, "medicine")
        assert of_target["ahead", "selection x0.5"] == found["ahead", "selection x0.5"]
    assert ("documents", "selection x4") in found and ("documents", "selection x4") not in values(
        measured, "wide"
    )


def texts_of(pipeline, selection=None):
    """The texts of a selection's first epoch, best first, or those held out."""
    held_out = [json.loads(line)["text"] for line in (pipeline.data / "medicine-test.jsonl").open()]
    if selection is None:
        return held_out
    texts = {
        (path.name, row): json.loads(line)["text"]
        for path in (pipeline.data / "pool").iterdir()
        for row, line in enumerate(path.open())
    }
    rows = pipeline.rows(
        'SELECT parse_filename(uri), "row" FROM selections JOIN shards USING (shard) '
        f"WHERE selection = '{selection}' AND epoch = 1 ORDER BY rank"
    )
    return [texts[row] for row in rows]


def test_the_numbers_are_those_of_the_picked_texts(measured):
    """By `top_k`, what it picks at half the size is known: the first half of the selection."""
    ranked, held_out = texts_of(measured, "wide"), texts_of(measured)
    p = featurize(pa.array(held_out), INDEPENDENT).totals(INDEPENDENT.buckets)

    def entropy(picked):
        counts = featurize(pa.array(picked), INDEPENDENT).totals(INDEPENDENT.buckets)
        return cross_entropy(p, independent_distribution(counts))

    found = values(measured, "wide")
    assert found["ahead", "selection x0.5"] == pytest.approx(
        entropy(ranked[: MANY // 2]) - entropy(ranked), abs=1e-9
    )
    bits = NgramModel.fit(ranked[: MANY // 2]).bits_per_byte(held_out)
    assert found["bits_per_byte", "selection x0.5"] == pytest.approx(bits, abs=1e-9)


def test_bits_per_byte_are_those_of_a_model_of_the_pick(measured):
    """All documents have the same length, so that no pick is cut."""
    found, held_out = values(measured, "wide"), texts_of(measured)
    expected = NgramModel.fit(texts_of(measured, "wide")).bits_per_byte(held_out)
    assert found["bits_per_byte", "selection"] == pytest.approx(expected, abs=1e-9)
    assert found["bits_per_byte", "selection"] < found["bits_per_byte", "random"]
    assert found["bits_per_byte", "random", "sd"] > 0
    assert ("bits_per_byte", "selection", "sd") not in found  # there is one
    assert metadata(measured, "wide")["bits_per_byte"] == found["bits_per_byte", "selection"]


def test_models_are_of_as_many_tokens_and_of_every_document_once(measured):
    snapshot = measured.workspace().snapshot()
    positions = np.arange(40)  # of the first shard
    picks = describe(snapshot, {"whole": positions, "twice": np.repeat(positions, 2)}, untold)
    measured_on = {"medicine": texts_of(measured)}

    def bits(tokens):
        settings = BitsPerByteSettings(tokens=tokens)
        return bits_per_byte(snapshot, measured_on, picks, settings, untold)["medicine"]["bits_per_byte"]

    whole, cut = bits(1_000_000), bits(120 * 5)
    assert whole["twice"] == whole["whole"] and cut["twice"] == cut["whole"] != whole["whole"]
    some = {name: pick.sample(int(pick.n_ngrams[:5].sum())) for name, pick in picks.items()}
    assert len(some["whole"]) == 5
    picks["five"] = some["whole"]
    assert bits(1_000_000)["whole"] == cut["whole"]  # the smallest has five documents


def test_fewer_documents_are_advised_where_the_rest_is_of_other_kinds(measured):
    found = values(measured, "wide")
    assert found["over_random", "selection x0.5"] > found["over_random", "selection x1"] + 0.05
    assert found["bits_per_byte", "selection x0.5"] < found["bits_per_byte", "selection x1"]
    page = page_of(measured, "wide").text
    assert "Fewer documents are closer to the target: 40 documents (0.5 times the size) by" in page
    assert "Pick fewer." in page and "More documents can be picked" not in page


def test_more_documents_are_advised_where_there_are_more_of_their_kind(measured):
    page = page_of(measured, "narrow").text
    assert "More documents can be picked without loss: 40 documents (4 times the size) are" in page
    assert "Pick fewer." not in page
    assert "Other sizes" in page and metadata(measured, "narrow")["documents"] == 2 * FEW


def test_the_table_and_the_plot_are_shown(measured):
    event = measured.instance.get_latest_materialization_event(dg.AssetKey("evaluations"))
    shown = {key: str(value.value) for key, value in event.asset_materialization.metadata.items()}
    assert "| bits per byte |" in shown["methods side by side"] and "±" in shown["methods side by side"]
    rows = [line.split(" | ")[0].strip("| ") for line in shown["other sizes"].splitlines()[2:]]
    assert rows == ["0.5", "1", "2", "4"]
    assert "data:image/png" in shown["other sizes, plot"]


def test_other_sizes_are_no_methods_to_compare_with(measured):
    measured_picks = {
        row["pick"]
        for row in measured.workspace()
        .catalog.query(
            "report_methods", selections=["wide"], versions=[metadata(measured, "wide")["selection_version"]]
        )
        .to_pylist()
    }
    assert measured_picks == {None, "random", "top_k"}


@pytest.mark.parametrize(
    ("budgets", "message"),
    [([1], "the selection itself"), ([2, 2.0], "named twice"), ([0], "greater than 0")],
)
def test_sizes_that_mean_nothing_are_refused(pipeline, budgets, message):
    pipeline.write_pool()
    pipeline.config["evaluation"] = {"budgets": budgets}
    with pytest.raises(ValueError, match=rf"evaluation\.budgets.*{message}"):
        pipeline.workspace()


OWN = OfSize(1.0, 1000, Difference(0.4, 0.35, 0.45), bits_per_byte=2.0)
AS_CLOSE, WORSE, BETTER = (
    Difference(0.001, -0.01, 0.01),
    Difference(0.1, 0.05, 0.15),
    Difference(-0.1, -0.15, -0.05),
)


def size(factor, lead, bits):
    return OfSize(factor, int(1000 * factor), Difference(0.4 - lead.value, 0.3, 0.5), lead, bits)


def judged(*sizes, **numbers):
    sizes = sorted([*sizes, OWN], key=lambda each: each.factor)
    found = judge(replace(PLAIN, sizes=sizes, bits_of_chance=0.01, **numbers)).sentences
    return [(each.level, each.text) for each in found if each.about == "Size"]


def test_what_is_said_of_sizes():
    [(level, text)] = judged(size(0.5, WORSE, 2.1), size(2, WORSE, 2.01))
    assert level == "good"
    assert text.startswith(
        "No other size that was measured is better: 500 documents (0.5 times the size) and 2,000"
    )
    [(level, text)] = judged(size(0.5, BETTER, 2.01))
    assert level == "caution" and text == (
        "Fewer documents are closer to the target: 500 documents (0.5 times the size) by 0.100 nats (95% interval "
        "0.050 to 0.150), and a model of them predicts held-out text as well: 2.010 bits per byte against 2.000. "
        "Pick fewer."
    )
    # Closer, n-gram for n-gram, but too little to learn from: nothing is advised.
    [(_, text)] = judged(size(0.5, BETTER, 2.1))
    assert text.startswith("No other size")
    [(level, text)] = judged(size(2, AS_CLOSE, 1.985), size(4, AS_CLOSE, 1.985))
    assert level == "good" and text == (
        "More documents can be picked without loss: 4,000 documents (4 times the size) are as close to the target, and "
        "a model of them predicts held-out text as well: 1.985 bits per byte against 2.000."
    )
    [(level, text)] = judged(size(2, WORSE, 2.01), size(4, WORSE, 2.1))
    assert level == "good" and text.startswith(
        "A model of the selection predicts held-out text better than one of 4,000 documents (4 times the size): 2.000 "
        "bits per byte against 2.100. To train longer, repeat the smaller pick rather than add documents:"
    )
    assert text.endswith("(Muennighoff et al. 2023; not measured here).")
    levels = [level for level, _ in judged(size(0.5, BETTER, 1.9), size(2, WORSE, 2.1))]
    assert levels == ["caution", "caution"]
    assert judged(size(2, BETTER, 1.9), method="random") == [] and judge(PLAIN).level == "good"
