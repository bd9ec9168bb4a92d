"""Wrong types and shapes are refused in one line that names the argument, before compiled code sees them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from dsir.chunking import cut
from dsir.cynical import cynical
from dsir.evaluation import draw, masked_totals
from dsir.explain import explain
from dsir.features import Features, FeatureSpec, featurize, hash_strings
from dsir.importance import log_ratios, log_weights
from dsir.matching import match, over, scores
from dsir.noise import exponential_noise, gumbel_noise
from dsir.selection import Budget

SPEC = FeatureSpec(buckets=1000)
TEXTS = pa.array(["a b c a", "d"])
FEATURES = featurize(TEXTS, SPEC)
HASHES = FEATURES.content_hash
TOTALS = FEATURES.totals(1000)
#: As many as the features' largest bucket needs, but one.
SHORT = int(FEATURES.buckets.max())
BOTH = np.ones((1, 2), bool)

CALLS = {
    "featurize a list": (lambda: featurize(["a"], SPEC), "texts: list; expected a pyarrow array"),
    "featurize a str": (lambda: featurize("a", SPEC), "texts: str; expected a pyarrow array"),
    "featurize a chunked array": (
        lambda: featurize(pa.chunked_array([TEXTS]), SPEC),
        "texts: chunked array of string; expected",
    ),
    "featurize numbers": (lambda: featurize(pa.array([1]), SPEC), "texts: array of int64; expected"),
    "featurize a null": (lambda: featurize(pa.array(["a", None]), SPEC), "texts: 1 nulls; expected none"),
    "featurize by a dict": (lambda: featurize(TEXTS, {"ngrams": 2}), "spec: dict; expected FeatureSpec"),
    "hash a list": (lambda: hash_strings(["a"]), "strings: list; expected"),
    "cut a list": (lambda: cut(["a"], 2), "texts: list; expected"),
    "cut by a float": (lambda: cut(TEXTS, 2.0), "n_words: 2.0; expected an integer"),
    "one-dimensional ratios": (
        lambda: log_weights(FEATURES, np.zeros(1000)),
        r"ratios: float64\[1000\]; expected floating\[targets, buckets\]",
    ),
    "a list of ratios": (lambda: log_weights(FEATURES, [[0.0] * 1000]), "ratios: list; expected floating"),
    "too few ratios": (
        lambda: log_weights(FEATURES, np.zeros((1, SHORT))),
        f"ratios: {SHORT} buckets, and the features have bucket {SHORT}",
    ),
    "weights of texts": (
        lambda: log_weights(TEXTS, np.zeros((1, 9))),
        "features: array of string; expected Features or",
    ),
    "ratios of lists": (
        lambda: log_ratios([1], [1]),
        r"target_counts: list; expected integer or floating\[buckets\]",
    ),
    "totals of other types": (
        lambda: FEATURES.add_totals(np.zeros(1000)),
        r"totals: float64\[1000\]; expected int64\[buckets\]",
    ),
    "a mask of one dimension": (
        lambda: masked_totals(FEATURES, BOTH[0], TOTALS[None]),
        r"masks: bool\[2\]; expected bool or unsignedinteger\[masks, 2\]",
    ),
    "a mask of other documents": (
        lambda: masked_totals(FEATURES, np.ones((1, 3), bool), TOTALS[None]),
        r"masks: bool\[1, 3\]; expected bool or unsignedinteger\[masks, 2\]",
    ),
    "totals without masks": (
        lambda: masked_totals(FEATURES, BOTH, TOTALS),
        r"totals: int64\[1000\]; expected int64\[1, buckets\]",
    ),
    "too short totals": (
        lambda: masked_totals(FEATURES, BOTH, np.zeros((1, SHORT), np.int64)),
        f"totals: {SHORT} buckets, and the features have bucket {SHORT}",
    ),
    "noise of a list": (lambda: gumbel_noise([1, 2], 0, ""), r"content_hash: list; expected uint64\[n\]"),
    "noise of signed hashes": (
        lambda: exponential_noise(HASHES.astype(np.int64), 0, ""),
        r"content_hash: int64\[2\]; expected uint64\[n\]",
    ),
    "a seed that is none": (lambda: gumbel_noise(HASHES, 1.5, ""), "seed: 1.5; expected an integer"),
    "a name that is none": (lambda: gumbel_noise(HASHES, 0, 1), "selection: 1; expected the name"),
    "a draw of a list": (lambda: draw(FEATURES.n_tokens, [1, 2], 3), "content_hash: list; expected"),
    "explanation by other ratios": (
        lambda: explain("a", SPEC, np.zeros((1, 1000))),
        r"log_ratio: float64\[1, 1000\]; expected floating\[1000\]",
    ),
    "scores of a short theta": (lambda: scores(FEATURES, np.zeros(SHORT)), f"ratios: {SHORT} buckets"),
    "a short target": (
        lambda: cynical(FEATURES, np.zeros(SHORT), Budget(documents=1)),
        f"target: {SHORT} buckets",
    ),
    "a target of counts": (
        lambda: cynical(FEATURES, TOTALS, Budget(documents=1)),
        r"target: int64\[1000\]; expected floating\[buckets\]",
    ),
    "a match of other buckets": (
        lambda: match(over(lambda: [FEATURES]), TOTALS[:9], TOTALS, None),
        "target: .* counts; the pool has",
    ),
    "a match in a list": (
        lambda: match(over(lambda: [FEATURES]), TOTALS, list(TOTALS), None),
        r"raw_counts: list; expected integer\[buckets\]",
    ),
    "features of lists": (
        lambda: dataclasses.replace(FEATURES, offsets=[0, 1, 2]),
        r"offsets: list; expected int64\[documents \+ 1\]",
    ),
    "features of other lengths": (
        lambda: dataclasses.replace(FEATURES, content_hash=HASHES[:1]),
        r"content_hash: uint64\[1\]; expected uint64\[2\]",
    ),
    "features of signed counts": (
        lambda: dataclasses.replace(FEATURES, counts=FEATURES.counts.astype(np.int64)),
        r"counts: int64\[\d+\]; expected uint32 or uint8",
    ),
}


@pytest.mark.parametrize("call", CALLS, ids=lambda name: name.replace(" ", "-"))
def test_it_is_refused_in_one_line(call):
    function, message = CALLS[call]
    with pytest.raises(ValueError, match=message) as error:
        function()
    assert "\n" not in str(error.value)


def test_what_is_right_is_taken():
    assert isinstance(Features.from_arrow(FEATURES.to_arrow()), Features)
    assert log_weights(FEATURES, np.zeros((2, 1000), np.float32)).shape == (2, 2)
    assert log_weights(FEATURES, np.zeros((1, SHORT + 1))).shape == (1, 2)
