"""``dsir doctor`` finds planted trouble, says how much there is, and is quiet about a sane pool."""

import random

import pytest

from dsir_dagster import cli
from dsir_dagster.doctor import examine
from tests.pipeline import QUICK_EVALUATION, SmallPipeline

VOCABULARY = [f"{a}{b}" for a in ("lo", "mi", "ra", "te", "su", "ka") for b in ("na", "ro", "li", "ta", "ve")]


def documents(domain, n, seed, length=60):
    """Make documents of one vocabulary with the frequencies of a domain."""
    words = VOCABULARY[:]
    random.Random(domain).shuffle(words)
    chance, weights = random.Random(f"{domain} {seed}"), [1 / (i + 2) for i in range(len(words))]
    return [
        {"id": f"{domain}-{seed}-{i}", "text": " ".join(chance.choices(words, weights, k=length))}
        for i in range(n)
    ]


@pytest.fixture
def sane(tmp_path):
    """Three domains, one of them the target's; nothing is computed yet."""
    pipeline = SmallPipeline(tmp_path)
    for domain in ("medicine", "law", "code"):
        pipeline.write(f"pool/{domain}.jsonl", documents(domain, 60, 0))
    pipeline.write("medicine.jsonl", documents("medicine", 200, 1))
    pipeline.write("medicine-test.jsonl", documents("medicine", 60, 2))
    pipeline.config["selections"][0]["min_tokens"] = 20
    pipeline.config["features"]["buckets"] = 300
    return pipeline


def warnings(pipeline):
    findings, _ = examine(pipeline.workspace())
    return {each.check: each for each in findings if each.warning}


def test_a_sane_pool_is_told_so_before_anything_is_computed(sane):
    findings, [curve] = examine(sane.workspace())
    assert [each for each in findings if each.warning] == []
    assert {each.check for each in findings} == {
        "fields",
        "words",
        "length",
        "fragments",
        "duplicates",
        "leakage",
        "size of the target",
        "empty buckets",
        "collisions",
        "likeness of the pool",
    }
    assert curve.points[-1].documents == 200 and curve.points[-1].kl < curve.points[0].kl < curve.pool
    assert sane.rows("SELECT count(*) FROM lineage") == [(0,)]


def test_a_small_target_is_told_by_its_learning_curve(sane):
    sane.write("medicine.jsonl", documents("medicine", 20, 1, length=5))
    finding = warnings(sane)["size of the target"]
    assert "to 20 documents" in finding.says or "its 20 documents" in finding.says
    assert "more documents" in finding.advice or "add documents" in finding.advice


def test_a_target_of_three_documents_is_too_small_to_judge(sane):
    sane.write("medicine.jsonl", documents("medicine", 3, 1))
    finding = warnings(sane)["size of the target"]
    assert finding.says == "3 documents are too few to fit a distribution or to judge a selection"
    assert examine(sane.workspace())[1] == []


def test_fields_that_are_misspelt_are_told_with_those_that_there_are(sane):
    sane.config["raw"][0].update(text="txt", id="key")
    sane.config["targets"][0]["text"] = "body"
    findings, _ = examine(sane.workspace())
    [pool, *targets] = [each for each in findings if each.check == "fields"]
    assert pool.says.startswith("180 of 180 rows cannot be used, 180 of them because of this: no field 'txt'")
    assert "taken from 'txt'; the records have: id, text;" in pool.advice
    assert [each.about for each in targets] == ["medicine", "medicine, holdout"]
    sane.config["raw"][0]["text"] = "text"
    findings, _ = examine(sane.workspace())
    assert any(each.says.startswith("180 of 180 rows have no `key`") for each in findings)


def test_empty_buckets_are_counted_until_they_are_smoothed(sane):
    sane.config["features"]["buckets"] = 1_000_000
    finding = warnings(sane)["empty buckets"]
    assert "1,000,000 buckets" in finding.says and "target_smoothing" in finding.advice
    sane.config["estimator"] = {"target_smoothing": 0.5}
    assert "empty buckets" not in warnings(sane)


def test_too_few_buckets_are_told_with_what_more_would_give(sane):
    sane.config["features"]["buckets"] = 20
    finding = warnings(sane)["collisions"]
    assert "for 20 buckets" in finding.says
    assert "`features.buckets: 10000` would bring it to" in finding.advice


def test_leaks_are_found_in_the_sample_and_named_once_the_pool_is_counted(sane):
    target, holdout = documents("medicine", 200, 1), documents("medicine", 60, 2)
    sane.write("medicine-test.jsonl", [*holdout, *target[:3]])
    pool = [*documents("code", 60, 0), *({**each, "id": f"copy-{each['id']}"} for each in holdout[:2])]
    sane.write("pool/code.jsonl", pool)

    def found():
        findings, _ = examine(sane.workspace())
        return [each.says for each in findings if each.check == "leakage" and each.warning]

    assert found() == [
        "3 of 63 held-out texts are in the target too",
        "2 of 182 sampled documents repeat a text of its holdout",
    ]
    # Beyond the sample, which sees only the beginning of a file.
    late = [*documents("law", 400, 7), *({**each, "id": f"late-{each['id']}"} for each in target[10:11])]
    sane.write("pool/late.jsonl", late)
    assert sane.run()["raw_counts"].errors == []
    both, of_target, of_holdout = found()
    assert both == "3 of 63 held-out texts are in the target too"
    assert (
        of_target
        == "1 of 583 documents of the pool repeat a text of its target, such as 'late-medicine-1-10'"
    )
    assert of_holdout.startswith("2 of 583 documents of the pool") and "'copy-medicine-2-" in of_holdout


def test_short_documents_are_told_with_the_median(sane):
    sane.config["selections"][0]["min_tokens"] = 100
    finding = warnings(sane)["length"]
    assert finding.about == "picked"
    assert finding.says == "100.0% of 180 sampled documents are shorter than min_tokens 100"
    assert "60 tokens or fewer" in finding.advice


def test_short_documents_that_would_fill_a_budget_are_told_for_methods_that_prefer_them(sane):
    sane.write("pool/short.jsonl", documents("code", 60, 5, length=12))  # of 240, 180 of which have 60 tokens
    plain = sane.config["selections"][0] | {"min_tokens": 10, "size": {"tokens": 3000}}
    others = [
        plain | {"name": "longer", "min_tokens": 20},
        plain | {"name": "corrected", "length": "per_ngram"},
        plain | {"name": "matched", "method": "match"},
    ]
    sane.config["selections"] = [plain, *others]

    def told():
        findings, _ = examine(sane.workspace())
        return {each.about: each for each in findings if each.check == "fragments"}

    found = told()
    assert found.keys() == {"picked", "longer"} and not found["longer"].warning
    assert found["picked"].warning and found["picked"].says == (
        "25.0% of 240 sampled documents of 10 tokens or more are shorter than 30% of their median of 60 tokens; "
        "`resample` ranks by a sum over n-grams, so such documents tend to fill its budget: 3,000 tokens are 50 of the "
        "median length, 250 of theirs"
    )
    assert found["picked"].advice == (
        "`min_tokens: 60` leaves them out; `evaluation.bits_per_byte` tells whether that is better"
    )
    sane.config["selections"] = [plain]
    sane.config["evaluation"] = QUICK_EVALUATION
    assert sane.run()["raw_counts"].errors == []
    assert "25.0% of 240 documents of the pool" in told()["picked"].says


def test_duplicates_are_counted_unless_they_are_collapsed(sane):
    sane.write("pool/again.jsonl", documents("law", 30, 0))
    assert warnings(sane)["duplicates"].says.startswith("30 of 210 sampled documents")
    sane.config["selections"][0]["collapse_duplicates"] = True
    assert "duplicates" not in warnings(sane)


def test_text_without_spaces_is_told_apart_from_text_with_a_tokenizer_of_its_own(sane):
    chance = random.Random(0)
    sentences = ["".join(chance.choices("我能吞下玻璃而不伤身体的是在了", k=200)) for _ in range(40)]
    sane.write("pool/zh.jsonl", [{"id": f"zh-{i}", "text": text} for i, text in enumerate(sentences)])
    finding = warnings(sane)["words"]
    assert finding.about == "pool" and "scripts without spaces" in finding.says
    assert "features.tokenizer" in finding.advice
    sane.config["features"]["tokenizer"] = "tests.dagster_project.test_doctor:characters"
    assert "words" not in warnings(sane)


def characters(text):
    """Tokenize into characters."""
    return [character for character in text if not character.isspace()]


def test_fields_that_are_missing_or_empty_are_named_with_their_place(sane):
    broken = documents("law", 40, 3)
    for record in broken[5:25]:
        del record["text"]
    for record in broken[25:]:
        record["text"] = "  "
        record["id"] = None
    path = sane.write("pool/law.jsonl", broken)
    findings, _ = examine(sane.workspace())
    says = [each.says for each in findings if each.check == "fields" and each.warning]
    assert (
        says[0]
        == f"20 of 160 rows cannot be used, 20 of them because of this: no field 'text' (row 5 of {path})"
    )
    assert says[1] == "15 of 160 texts have no words"
    assert says[2].startswith("15 of 160 rows have no `id`, the field of the id")
    sane.config["raw"][0]["text"] = "body"
    findings, curves = examine(sane.workspace())
    assert curves == [] and "160 of 160 rows" in next(each.says for each in findings if each.warning)


def test_a_pool_that_has_nothing_like_the_target_is_told(sane):
    (sane.data / "pool/medicine.jsonl").unlink()
    finding = warnings(sane)["likeness of the pool"]
    assert finding.says.startswith("0 of 120 sampled documents")


def test_the_command_prints_warnings_with_advice_and_ends_well(sane, capsys):
    arguments = ["--config", str(sane.config_path), "--home", str(sane.home)]
    assert cli.main(["doctor", *arguments]) == 0
    assert "checks passed" in capsys.readouterr().out
    sane.config["selections"][0]["min_tokens"] = 100
    assert cli.main(["doctor", "--config", str(sane.config_path), "--home", str(sane.home)]) == 0
    printed = capsys.readouterr().out
    assert "! length, picked: 100.0%" in printed and "→ half of the documents" in printed
    assert "█" in printed and "1 warning" in printed
    sane.config["raw"][0]["uri"] = "data/nowhere/*"
    assert cli.main(["doctor", "--config", str(sane.config_path), "--home", str(sane.home)]) == 1
    assert "no file matches" in capsys.readouterr().err
