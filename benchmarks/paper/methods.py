"""The methods to compare, and the variants of the ablations.

What belongs here: from a method's settings and a target to the picked pieces of the pool. What does not: the methods
themselves (``dsir``), measuring the picks.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

import dsir
from benchmarks.paper.corpus import Mapper, StudyCorpus, StudyTarget, count, totals_of
from dsir import classifier
from dsir.features import Features, FeatureSpec
from dsir.importance import correct_for_length, log_ratios, log_weights
from dsir.matching import MatchingOptions, match, over
from dsir.noise import gumbel_noise
from dsir.refinement import hold, refine
from dsir.selection import CANDIDATE, Budget, TopK


@dataclass(frozen=True)
class MethodSettings:
    """How to select.

    Attributes
    ----------
    method : str
        ``random``, ``classifier``, ``classifier top-k``, ``top_k``, ``resample`` or ``match``.
    ngrams, buckets : int
        What is counted.
    smoothing : float
        Pseudo-counts per bucket of the target; for ``match``, of every distribution.
    temperature : float
        The key of ``resample`` is log weight / temperature + Gumbel noise, that of a round of ``match`` log score +
        temperature * Gumbel noise. The other methods have none.
    length : str
        Correction for the length of a document, as in :func:`dsir.importance.correct_for_length` and in
        :class:`dsir.matching.MatchingOptions`.
    seed : int
        Of the noise.
    """

    method: str
    ngrams: int = 2
    buckets: int = 10_000
    smoothing: float = 0.0
    temperature: float = 0.0
    length: str = "none"
    seed: int = 0

    @property
    def spec(self) -> FeatureSpec:
        """What is counted in a document."""
        return FeatureSpec(ngrams=self.ngrams, buckets=self.buckets)

    def cell(self) -> dict:
        """Everything here, for a fingerprint."""
        return asdict(self)


#: The methods of the tables, in order; the others are compared with `random`.
METHODS = {
    "random": MethodSettings("random"),
    "classifier": MethodSettings("classifier"),
    "classifier top-k": MethodSettings("classifier top-k"),
    "top-k": MethodSettings("top_k"),
    "resample, unigrams": MethodSettings("resample", ngrams=1, temperature=1.0),
    "resample": MethodSettings("resample", temperature=1.0),
    "match": MethodSettings(
        "match",
        buckets=65_536,
        smoothing=MatchingOptions.smoothing,
    ),
}

#: The baseline of KL reduction: the mean of this many random selections.
RANDOM = [replace(METHODS["random"], seed=seed) for seed in range(3)]

_OWN = {"resample": METHODS["resample"], "top_k": METHODS["top-k"], "match": METHODS["match"]}


def _vary(what: str, field: str, values: dict[str, tuple]) -> list[tuple[str, str, MethodSettings]]:
    return [
        (
            what,
            f"{value:,}" if isinstance(value, int) else str(value),
            replace(_OWN[method], **{field: value}),
        )
        for method, of_method in values.items()
        for value in of_method
    ]


#: One setting changed at a time: (what, value, settings), the method's own settings included.
ABLATIONS = [
    *_vary("buckets", "buckets", {"resample": (1_000, 10_000, 100_000), "match": (1_000, 10_000, 65_536)}),
    *_vary("longest n-gram", "ngrams", {method: (1, 2, 3) for method in ("resample", "match")}),
    *_vary("smoothing", "smoothing", {"resample": (0.0, 0.1, 1.0, 10.0), "match": (0.02, 0.2, 2.0)}),
    *_vary("temperature", "temperature", {"resample": (1.0, 10.0, 100.0), "match": (0.0, 0.03, 0.1, 0.3)}),
    *_vary("length", "length", {method: ("none", "sqrt", "per_ngram") for method in ("top_k", "match")}),
]


def ablated(targets: list[StudyTarget]) -> list[StudyTarget]:
    """Return the targets that variants are tried on: every third, since `match` takes a quarter of a minute each."""
    return targets[::3]


def code_version() -> str:
    """Return the hash of the modules that make selections."""
    digest = hashlib.sha256()
    folder = Path(dsir.__file__).parent
    names = "chunking classifier features importance matching noise selection".split()
    sources = [*sorted(folder.glob("featurizer/*.py")), *(folder / f"{name}.py" for name in names)]
    for path in (*sources, Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def select(
    settings: MethodSettings, corpus: StudyCorpus, target: StudyTarget, tokens: int, mapper: Mapper = map
) -> np.ndarray:
    """Return the positions of the picked pieces in arbitrary order: int64[n].

    Parameters
    ----------
    settings : MethodSettings
    corpus : StudyCorpus
    target : StudyTarget
        Its training split is used.
    tokens : int
        Budget.
    mapper : callable
        Like `map`, perhaps in several threads.
    """
    pool, raw = corpus.counted(settings.spec)
    budget = Budget(tokens=tokens)
    if settings.method == "random":
        found = [gumbel_noise(batch.content_hash, settings.seed, "random") for batch in pool]
    else:
        counted = count(target.train.arrow, settings.spec)
        found = list(_keys(settings, pool, raw, counted, target.name, budget, mapper))
    return np.random.default_rng(0).permutation(_best(pool, budget, found))


def _keys(settings, pool, raw, target: list[Features], name: str, budget, mapper):
    """Return the keys that rank the pool, batch by batch."""
    everything = totals_of(target, settings.buckets)
    if settings.method == "match":
        options = MatchingOptions(smoothing=settings.smoothing)
        passes = over(lambda: pool, mapper)
        found = match(passes, everything, raw, budget, options)
        held = hold(passes, found, settings.ngrams)
        drawn = refine(found, held, budget, options, seed=settings.seed, stream=name)
        ends = np.cumsum([len(batch) for batch in pool])
        return (
            drawn.keys.at(np.arange(end - len(batch), end)) for batch, end in zip(pool, ends, strict=True)
        )
    if settings.method.startswith("classifier"):
        wanted = sum(map(len, target))
        sample = [classifier.pool_sample(batch, sum(map(len, pool)), wanted) for batch in pool]
        fitted = classifier.fit_classifier(target, sample, settings.buckets)
        if settings.method == "classifier top-k":
            return mapper(lambda batch: classifier.logits(batch, fitted), pool)
        noise = classifier.ClassifierOptions(seed=settings.seed, stream=name)
        return mapper(lambda batch: classifier.keys(batch, fitted, noise), pool)
    ratios = log_ratios(everything, raw, settings.smoothing)[np.newaxis]

    def key(batch: Features) -> np.ndarray:
        out = log_weights(batch, ratios)[0]
        out = correct_for_length(out, settings.length, batch.n_ngrams, batch.n_tokens)
        if settings.method == "resample":
            out = out / settings.temperature + gumbel_noise(batch.content_hash, settings.seed, name)
        return out

    return mapper(key, pool)


def _best(pool: list[Features], budget: Budget, found: list[np.ndarray]) -> np.ndarray:
    """Return the positions of the documents with the largest keys, up to a budget."""
    top, first = TopK(budget), 0
    for batch, each in zip(pool, found, strict=True):
        candidates = np.zeros(len(batch), dtype=CANDIDATE)
        candidates["key"], candidates["content_hash"] = each, batch.content_hash
        candidates["n_tokens"], candidates["row"] = batch.n_tokens, np.arange(first, first + len(batch))
        top.add(candidates)
        first += len(batch)
    return top.picked()["row"]
