"""Which n-grams speak for a document and which against it.

What belongs here: the n-grams of one text with their buckets and contributions, in plain Python. What does not:
anything that runs over a pool (``dsir.features`` counts without ever building an n-gram).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from dsir.checks import expect_array
from dsir.features import FeatureSpec, custom_tokenizer
from dsir.featurizer.hashing import K1, K3, hash_word_bytes

_WORDPUNCT = re.compile(r"\w+|[^\w\s]+")
_MASK = 2**64 - 1


@dataclass(frozen=True)
class Contribution:
    """An n-gram of a document and its part of the log weight.

    Attributes
    ----------
    ngram : str
        Its words, joined by one space.
    count : int
        How often it occurs in the document.
    bucket : int
    nats : float
        Count times the bucket's log ratio.
    """

    ngram: str
    count: int
    bucket: int
    nats: float


def explain(text: str, spec: FeatureSpec, log_ratio: np.ndarray) -> list[Contribution]:
    """Split a document's log weight into the contributions of its n-grams.

    Parameters
    ----------
    text : str
    spec : FeatureSpec
        What the log ratios were fitted on.
    log_ratio : ndarray of float64, shape (buckets,)
        Of one target.

    Returns
    -------
    list of Contribution
        One a distinct n-gram, largest first. They sum to the log weight (paper, equation 1).

    Raises
    ------
    ValueError
        If `log_ratio` has another type or shape.
    """
    expect_array("log_ratio", log_ratio, (np.floating,), spec.buckets)
    words = tokenize(text, spec)
    counts: Counter[tuple[str, ...]] = Counter()
    for n in range(1, spec.ngrams + 1):
        counts.update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    out = []
    for ngram, count in counts.items():
        bucket = bucket_of(ngram, spec)
        out.append(Contribution(" ".join(ngram), count, bucket, count * float(log_ratio[bucket])))
    return sorted(out, key=lambda each: (-each.nats, each.ngram))


def tokenize(text: str, spec: FeatureSpec) -> list[str]:
    """Return the words of a text as the featurizer finds them."""
    lowered = text.lower()
    if spec.tokenizer == "wordpunct":
        return _WORDPUNCT.findall(lowered)
    if spec.tokenizer == "whitespace":
        return lowered.split()
    return custom_tokenizer(spec.tokenizer)(lowered)


def bucket_of(ngram: tuple[str, ...], spec: FeatureSpec) -> int:
    """Return the bucket of an n-gram, given as its words."""
    if spec.hash == "sha256":
        return int(hashlib.sha256(" ".join(ngram).encode()).hexdigest(), 16) % spec.buckets
    h = hash_word_bytes(ngram[0].encode())
    for word in ngram[1:]:
        h = (h * int(K1) + hash_word_bytes(word.encode())) & _MASK
        h ^= h >> 32
        h = h * int(K3) & _MASK
        h ^= h >> 29
    return ((h >> 32) * spec.buckets) >> 32
