"""What a verdict says of known numbers: each finding, its level, the line for a terminal, the banner."""

from dataclasses import replace

import pytest

from dsir_dagster.assets.report.numbers import Difference, Numbers, OfTarget
from dsir_dagster.assets.report.verdict import judge
from dsir_dagster.resources.table import Column, written

AHEAD = Difference(0.4, 0.35, 0.45)
BEHIND = Difference(-0.098, -0.11, -0.09)
UNKNOWN = Difference(0.006, -0.01, 0.02)
TINY = Difference(0.001, 0.001, 0.002)
MEDICINE = OfTarget(
    "medicine", True, Difference(0.385, 0.36, 0.41), -0.015, 3000.0, AHEAD, UNKNOWN, AHEAD, UNKNOWN
)
LAW = replace(MEDICINE, name="law")
PLAIN = Numbers("resample", True, 1000, 30_000, replace(MEDICINE, name=""), [MEDICINE], 0.746)


def of_mean(numbers=PLAIN, **values):
    """Numbers of one target."""
    return replace(numbers, mean=replace(numbers.mean, **values), targets=[replace(MEDICINE, **values)])


def finding(numbers, about):
    """The level and text of the first finding about something."""
    found = [each for each in judge(numbers).sentences if each.about == about]
    return found[0].level, found[0].text


def test_a_good_selection_is_called_good_with_its_lead_and_interval():
    verdict = judge(PLAIN)
    assert verdict.level == "good" and not verdict.banner and not verdict.note
    assert {each.level for each in verdict.sentences} == {"good"}
    assert verdict.summary == (
        "better than random by 0.400 nats (95% interval 0.350 to 0.450), as good as top-k, on held-out target text"
    )
    assert finding(PLAIN, "Random picks") == (
        "good",
        "Better than random picks by 0.400 nats (95% interval 0.350 to 0.450).",
    )


def test_worse_than_random_is_said_first_and_last():
    below = Difference(-0.313, -0.33, -0.3)
    verdict = judge(of_mean(over_pool=below, of_random=-0.215, over_random=BEHIND, plain_over_random=None))
    assert verdict.level == "bad" and verdict.summary.startswith("WORSE than random by 0.098 nats")
    assert "Worse than random picks, by 0.098 nats" in verdict.banner and "`method: match`" in verdict.banner
    assert "0.098 nats (95% interval 0.090 to 0.110)" in verdict.note
    matched = judge(of_mean(replace(PLAIN, method="match"), over_random=BEHIND))
    assert matched.banner and "method: match" not in matched.banner


def test_a_difference_that_may_be_chance_is_no_better_than_random():
    numbers = of_mean(over_random=UNKNOWN, plain_over_random=None)
    level, text = finding(numbers, "Random picks")
    assert level == "caution" and text.startswith("No better than random picks") and "may be chance" in text
    assert judge(numbers).level == "caution" and not judge(numbers).banner


def test_a_selection_with_less_text_than_it_is_compared_with_says_so():
    """Of equally many documents, short ones cover less of a target."""
    numbers = replace(of_mean(over_top_k=BEHIND), of_random_tokens=0.787, of_top_k_tokens=0.88)
    assert finding(numbers, "Random picks")[1].endswith(" to 0.450), with 21% fewer tokens.")
    assert (
        "0.110), with 12% fewer tokens; 74.6%"
        in finding(replace(numbers, mean=replace(numbers.mean, plain_over_top_k=BEHIND)), "Top-k")[1]
    )
    assert "worse than top-k, with 12% fewer tokens, on held-out" in judge(numbers).summary
    more = replace(of_mean(over_random=UNKNOWN), of_random_tokens=1.4)
    assert finding(more, "Random picks")[1].startswith("No better than random picks, with 40% more tokens:")
    worse = replace(of_mean(over_random=BEHIND), of_random_tokens=0.1)
    assert "0.110), with 90% fewer tokens. Do not use" in judge(worse).banner
    assert "tokens" not in finding(replace(numbers, of_random_tokens=0.96), "Random picks")[1]


def test_better_on_the_buckets_alone_is_a_caution():
    found = judge(of_mean(plain_over_random=UNKNOWN)).sentences[2]
    assert found.level == "caution" and "On plain n-grams it is no better than random picks" in found.text


@pytest.mark.parametrize(
    ("over_pool", "level", "says", "summary"),
    [
        (
            Difference(-0.035, -0.05, -0.02),
            "bad",
            "Not closer to the target than the pool: the paper's KL reduction is -0.035 nats (95% interval -0.050 to "
            "-0.020). Nor are random picks of this size",
            "NOT closer to the target than the pool (KL reduction -0.035); better than random by 0.400 nats",
        ),
        (
            Difference(0.01, -0.01, 0.03),
            "caution",
            "Not closer to the target than the pool: the paper's KL reduction is 0.010 nats (95% interval -0.010 to "
            "0.030), which may be chance.",
            "not closer to the target than the pool (KL reduction 0.010); better than random by 0.400 nats",
        ),
        (
            Difference(0.385, 0.36, 0.41),
            "good",
            "Closer to the target than the pool: the paper's KL reduction is 0.385 nats (95% interval 0.360 to 0.410).",
            "better than random by 0.400 nats",
        ),
    ],
)
def test_better_than_random_is_not_enough_where_the_pool_itself_is_closer(over_pool, level, says, summary):
    verdict = judge(of_mean(over_pool=over_pool))
    first = verdict.sentences[0]
    assert (first.about, first.level) == ("Pool", level) and first.text.startswith(says)
    assert verdict.level == level and verdict.summary.startswith(summary)
    assert bool(verdict.banner) == (level == "bad")
    assert (says.removesuffix(".") in verdict.note) == (level == "bad")


def test_one_target_may_be_farther_than_the_pool_though_the_mean_is_closer():
    verdict = judge(replace(PLAIN, targets=[MEDICINE, replace(LAW, over_pool=BEHIND)]))
    assert (
        verdict.level == "bad"
        and "than the pool for law: the paper's KL reduction is -0.098" in verdict.banner
    )
    assert verdict.summary.endswith("not closer than the pool for law")
    assert [each.level for each in verdict.sentences if each.about == "Pool"] == ["good", "bad"]


def test_where_nothing_is_chosen_the_pool_is_no_yardstick():
    below = of_mean(over_pool=BEHIND)
    for numbers in (replace(below, method="random"), replace(below, documents=30_000)):
        verdict = judge(numbers)
        assert not verdict.banner and "Pool" not in {each.about for each in verdict.sentences}


@pytest.mark.parametrize(
    ("difference", "level", "says", "summary"),
    [
        (AHEAD, "good", "Better than top-k by 0.400 nats", "better than top-k"),
        (UNKNOWN, "good", "As good as top-k: the difference of 0.006 nats", "as good as top-k"),
        (TINY, "good", "The same as top-k: the difference is under 0.005 nats", "the same as top-k"),
        (Difference(-0.002, -0.003, -0.001), "good", "The same as top-k", "the same as top-k"),
        (Difference(0, 0, 0), "good", "The same as top-k", "the same as top-k"),
        (
            BEHIND,
            "caution",
            "Worse than top-k by 0.098 nats (95% interval 0.090 to 0.110)",
            "worse than top-k",
        ),
    ],
)
def test_beside_top_k(difference, level, says, summary):
    numbers = of_mean(over_top_k=difference, plain_over_top_k=None)
    found = finding(numbers, "Top-k")
    assert found[0] == level and found[1].startswith(says)
    assert found[1].endswith("; 74.6% of the documents are the same.")
    assert summary in judge(numbers).summary


@pytest.mark.parametrize("difference", [AHEAD, TINY, UNKNOWN, BEHIND])
def test_picks_that_are_almost_top_ks_are_neither_better_nor_worse(difference):
    """Their difference is that of a few documents, which another seed replaces."""
    numbers = replace(of_mean(over_top_k=difference, plain_over_top_k=BEHIND), same_as_top_k=0.993)
    assert finding(numbers, "Top-k") == (
        "good",
        "Picks almost the same documents as top-k: 99.3% of them are the same.",
    )
    summary = judge(numbers).summary
    assert ", almost the same picks as top-k, on" in summary and "plain n-grams" not in summary
    assert "almost" not in judge(replace(numbers, same_as_top_k=0.979)).summary


def test_top_k_is_judged_on_plain_n_grams_too():
    for found, plain, says, level in (
        (AHEAD, BEHIND, "better than top-k (worse on plain n-grams)", "caution"),
        (TINY, BEHIND, "the same as top-k (worse on plain n-grams)", "caution"),
        (BEHIND, AHEAD, "worse than top-k (better on plain n-grams)", "caution"),
        (AHEAD, TINY, "better than top-k,", "good"),
    ):
        numbers = of_mean(over_top_k=found, plain_over_top_k=plain)
        verdict = judge(numbers)
        assert verdict.level == level and says in verdict.summary
        [one] = [each for each in verdict.sentences if each.about == "Top-k"]
        assert one.level == level and "; on plain n-grams, " in one.text
    text = finding(of_mean(over_top_k=TINY, plain_over_top_k=BEHIND), "Top-k")[1]
    assert "on plain n-grams, worse by 0.098 nats (95% interval 0.090 to 0.110)" in text


def test_it_says_which_text_was_measured_on():
    fitted = replace(MEDICINE, held_out=False)
    level, text = finding(replace(PLAIN, targets=[fitted]), "Measured on")
    assert level == "caution" and text == (
        "The text it was fitted to, so the figures are optimistic; give the target a `holdout`."
    )
    random = finding(replace(PLAIN, method="random", targets=[fitted]), "Measured on")
    assert random[0] == "good" and "optimistic" not in random[1]
    two = replace(PLAIN, targets=[LAW, fitted])
    level, text = finding(two, "Measured on")
    assert level == "caution"
    assert "Held-out text of law and the fitted text of medicine (no holdout), so medicine's figures" in text
    assert judge(two).measured_on in judge(two).summary


def test_one_target_may_be_served_badly_though_the_mean_is_good():
    worse = replace(LAW, over_random=BEHIND, of_random=0.5)
    verdict = judge(replace(PLAIN, targets=[MEDICINE, worse]))
    assert verdict.level == "bad" and "Worse than random picks for law" in verdict.banner
    assert verdict.summary.startswith("better than random") and "worse than random for law" in verdict.summary
    unknown = judge(replace(PLAIN, targets=[MEDICINE, replace(LAW, over_random=UNKNOWN)]))
    assert unknown.level == "caution" and not unknown.banner


@pytest.mark.parametrize(
    ("size", "level", "says"),
    [
        (1.04, "caution", "sample size of 1.0 of 30,000 eligible documents: a few documents have nearly all"),
        (500.0, "caution", "fewer than the 1,000 picked"),
        (1000.0, "good", "at least as many as the 1,000 picked"),
    ],
)
def test_what_an_effective_sample_size_means(size, level, says):
    numbers = of_mean(effective_sample_size=size)
    found = finding(numbers, "Effective sample size")
    assert found[0] == level and says in found[1]
    assert ("effective sample size 1.0, nearly top-k" in judge(numbers).summary) == (size < 2)


def test_an_effective_sample_size_binds_only_those_who_draw_by_these_weights():
    few = of_mean(effective_sample_size=1.0)
    for numbers, says in (
        (replace(few, method="match"), "`match` does not draw by weight"),
        (replace(few, plain_weights=False), "before the temperature"),
    ):
        level, text = finding(numbers, "Effective sample size")
        assert level == "good" and says in text and "nearly top-k" not in judge(numbers).summary
    two = replace(PLAIN, targets=[MEDICINE, replace(LAW, effective_sample_size=1.0)])
    assert (
        "The weights for law have an effective sample size of 1.0" in finding(two, "Effective sample size")[1]
    )


def test_copies():
    level, text = finding(replace(PLAIN, duplicates=12), "Copies")
    assert level == "caution" and text.startswith(
        "12 picked documents repeat the text of another word for word (1.2%)"
    )
    assert finding(PLAIN, "Copies")[1].endswith("No near-copies in the sample checked.")
    for share, level in ((0.002, "good"), (0.031, "caution")):
        found = finding(replace(PLAIN, near_copies=share), "Copies")
        assert found[0] == level and f"{share:.1%} of a sample nearly repeat another document" in found[1]
    assert (
        "Near-copies, from a similarity of 0.8, were left out"
        in finding(replace(PLAIN, near_duplicates=0.8), "Copies")[1]
    )


@pytest.mark.parametrize(
    ("leaked", "level", "says"),
    [
        ({"in_holdout": 20, "pool_in_holdout": 20}, "bad", "20 picked documents are in the holdout"),
        ({"in_holdout": 1}, "caution", "1 picked document is in the holdout"),
        ({"pool_in_holdout": 3}, "caution", "3 documents of the pool are in the holdout, none picked"),
        (
            {"in_target": 3, "pool_in_target": 3},
            "caution",
            "3 picked documents are in the target, word for word, and bring nothing new",
        ),
        ({"pool_in_target": 1}, "good", "1 document of the pool is in the target, none picked"),
        ({}, "good", "No document of the pool is in a target"),
    ],
)
def test_leaks(leaked, level, says):
    numbers = replace(PLAIN, **leaked)
    found = finding(numbers, "Leakage")
    assert found[0] == level and says in found[1]
    assert (says in judge(numbers).note) == ("in_holdout" in leaked)
    assert ("in the holdout" in judge(numbers).summary) == ("in_holdout" in leaked)


def test_nothing_is_chosen_where_everything_fits_or_chance_decides():
    everything = judge(replace(of_mean(over_random=BEHIND), documents=30_000))
    assert everything.summary.startswith("every eligible document was picked") and not everything.banner
    assert "Top-k" not in {each.about for each in everything.sentences}
    random = judge(replace(of_mean(over_random=BEHIND), method="random"))
    assert random.summary.startswith("random picks, a baseline") and not random.banner
    assert random.level == "caution" and "Top-k" not in {each.about for each in random.sentences}
    top_k = judge(replace(of_mean(over_top_k=Difference(0, 0, 0)), method="top_k"))
    assert "Top-k" not in {each.about for each in top_k.sentences} and "top-k" not in top_k.summary


def test_what_could_not_be_measured_is_said():
    verdict = judge(
        replace(of_mean(over_top_k=None), not_measured=["no document of top_k fits into the budget"])
    )
    assert verdict.sentences[-1].text == "No document of top_k fits into the budget."
    assert verdict.note == "no document of top_k fits into the budget" and "top-k" not in verdict.summary
    assert judge(of_mean(over_random=None)).level == "caution"


def test_a_number_reads_the_same_in_a_sentence_and_in_a_table():
    for kind in ("nats", "share", "size"):
        assert written(0.99612, kind) == Column("any", kind).text(0.99612)
    assert written(0.9996, "share") == "99.9%" and written(1.0, "share") == "100.0%"
    assert written(-0.0001, "nats") == "0.000" and written((-0.0001, 0.1), "range") == "0.000 to 0.100"


def test_picks_much_shorter_than_the_eligible_documents_are_called_fragments():
    """The figures are those of `resample` for chemprot in a real pool cut into pieces of 128 words."""
    numbers = replace(PLAIN, documents=58_070, eligible=531_701, tokens=1_999_995, median_eligible=142)
    level, text = finding(replace(numbers, median_tokens=23), "Lengths")
    assert level == "caution" and text == (
        "Fragments: half of the picked documents have at most 23 tokens, half of the eligible ones 142 or more. 58,070 "
        "were picked; 14,084 of the eligible ones' median length have as many tokens. `min_tokens: 100` leaves them "
        "out; `evaluation.bits_per_byte` tells whether that is better."
    )
    for fine in (replace(numbers, median_tokens=58), replace(numbers, median_tokens=23, method="random")):
        assert "Lengths" not in {each.about for each in judge(fine).sentences}
