"""The methods to compare, and the variants of the ablations.

What belongs here: from a method's settings and a target to the picked pieces of the pool. What does not: the methods
themselves (``dsir``, ``comparators``), measuring the picks.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

import dsir
from benchmarks.paper.comparators import clustered, language_models, neighbours
from benchmarks.paper.comparators.embedding import Embedding
from benchmarks.paper.corpus import Mapper, StudyCorpus, StudyTarget, count, totals_of
from dsir import classifier
from dsir.cynical import cynical
from dsir.features import Features, FeatureSpec
from dsir.importance import correct_for_length, log_ratios, log_weights
from dsir.matching import MatchingOptions, match, numbered, over
from dsir.noise import gumbel_noise
from dsir.refinement import hold, refine
from dsir.relative_entropy import target_distribution
from dsir.selection import CANDIDATE, Budget, TopK


@dataclass(frozen=True)
class MethodSettings:
    """How to select.

    Attributes
    ----------
    method : str
        A key of `KEYS`.
    ngrams, buckets : int
        What is counted.
    smoothing : float
        Pseudo-counts per bucket of the target; for ``match`` and ``cynical``, of the selection.
    temperature : float
        The key of ``resample`` is log weight / temperature + Gumbel noise. The other methods have none.
    length : str
        Correction of log weights for the length of a document, as in :func:`dsir.importance.correct_for_length`.
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


#: As many buckets as cached features hold in two bytes: for methods that smooth what they compare.
_MANY = 65_536

#: The methods of the tables, in order; the others are compared with `random`.
METHODS = {
    "random": MethodSettings("random"),
    "classifier": MethodSettings("classifier"),
    "classifier top-k": MethodSettings("classifier top-k"),
    "top-k": MethodSettings("top_k"),
    "resample, unigrams": MethodSettings("resample", ngrams=1, temperature=1.0),
    "resample": MethodSettings("resample", temperature=1.0),
    # Of 10,000 to 4 million buckets and 0.2 to 10 pseudo-counts, these gave the best models of five targets.
    "moore-lewis": MethodSettings("moore_lewis", buckets=1_000_000, smoothing=1.0, length="per_ngram"),
    "moore-lewis, models": MethodSettings("models"),
    "clustered": MethodSettings("clustered", buckets=_MANY),
    "nearest neighbours": MethodSettings("nearest neighbours", buckets=_MANY),
    "cynical": MethodSettings("cynical", buckets=_MANY, smoothing=MatchingOptions.smoothing),
    "match": MethodSettings("match", buckets=_MANY, smoothing=MatchingOptions.smoothing),
}

#: The baseline of KL reduction: the mean of this many random selections.
RANDOM = [replace(METHODS["random"], seed=seed) for seed in range(3)]

#: The methods that are compared at several budgets.
BUDGETED = ("random", "classifier top-k", "resample", "moore-lewis", "cynical", "match")

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
    *_vary("temperature", "temperature", {"resample": (1.0, 10.0, 100.0)}),
    *_vary("length", "length", {"top_k": ("none", "sqrt", "per_ngram")}),
]


def ablated(targets: list[StudyTarget]) -> list[StudyTarget]:
    """Return the targets that variants are tried on: every third, since `match` takes a quarter of a minute each."""
    return targets[::3]


# --- what is done once for a pool --------------------------------------------------------------------


def _embed(corpus: StudyCorpus, spec: FeatureSpec, mapper: Mapper) -> tuple[Embedding, np.ndarray]:
    pool, _ = corpus.counted(spec)
    embedding = Embedding(pool, spec.buckets)
    return embedding, embedding.vectors(pool, mapper)


def _cluster(corpus: StudyCorpus, spec: FeatureSpec, mapper: Mapper) -> clustered.Clusters:
    return clustered.Clusters.of(corpus.made["vectors"][1])


#: What depends on the pool alone, beside its counts: a function of the corpus, the specification and a mapper.
STEPS: dict[str, Callable] = {"vectors": _embed, "clusters": _cluster}

#: Which steps a method needs, in order.
NEEDS = {"clustered": ("vectors", "clusters"), "nearest neighbours": ("vectors",)}


# --- what is done for a target -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Task:
    """One selection to make.

    Attributes
    ----------
    settings : MethodSettings
    corpus : StudyCorpus
    target : StudyTarget
    budget : Budget
    mapper : callable
    pool : list of Features
    raw : ndarray of int64, shape (buckets,)
        Totals of the pool.
    """

    settings: MethodSettings
    corpus: StudyCorpus
    target: StudyTarget
    budget: Budget
    mapper: Mapper
    pool: list[Features]
    raw: np.ndarray

    @cached_property
    def counted(self) -> list[Features]:
        """The target's features."""
        return count(self.target.train.arrow, self.settings.spec)

    @cached_property
    def wanted(self) -> np.ndarray:
        """Totals of the target: ndarray of int64, shape (buckets,)."""
        return totals_of(self.counted, self.settings.buckets)

    def split(self, keys: np.ndarray) -> list[np.ndarray]:
        """Cut the keys of all of the pool's documents into those of its batches."""
        return np.split(keys, np.cumsum([len(batch) for batch in self.pool])[:-1])


def _by_chance(task: _Task) -> Iterable[np.ndarray]:
    return [gumbel_noise(batch.content_hash, task.settings.seed, "random") for batch in task.pool]


def _by_weight(task: _Task) -> Iterable[np.ndarray]:
    settings = task.settings
    ratios = log_ratios(task.wanted, task.raw, settings.smoothing)

    def key(batch: Features) -> np.ndarray:
        out = log_weights(batch, ratios[np.newaxis])[0]
        out = correct_for_length(out, settings.length, batch.n_ngrams, batch.n_tokens)
        if settings.method == "resample":
            out = out / settings.temperature + gumbel_noise(
                batch.content_hash, settings.seed, task.target.name
            )
        return out

    return task.mapper(key, task.pool)


def _by_classifier(task: _Task) -> Iterable[np.ndarray]:
    documents = sum(map(len, task.pool))
    sample = [classifier.pool_sample(batch, documents, sum(map(len, task.counted))) for batch in task.pool]
    fitted = classifier.fit_classifier(task.counted, sample, task.settings.buckets)
    if task.settings.method == "classifier top-k":
        return task.mapper(lambda batch: classifier.logits(batch, fitted), task.pool)
    noise = classifier.ClassifierOptions(seed=task.settings.seed, stream=task.target.name)
    return task.mapper(lambda batch: classifier.keys(batch, fitted, noise), task.pool)


def _by_models(task: _Task) -> Iterable[np.ndarray]:
    sizes = [len(batch) for batch in task.pool]
    return language_models.keys(task.corpus.pool, task.target.train.arrow, sizes, task.mapper)


def _by_cluster(task: _Task) -> Iterable[np.ndarray]:
    embedding, _ = task.corpus.made["vectors"]
    clusters, noise = task.corpus.made["clusters"], (task.settings.seed, task.target.name)
    return clustered.keys(clusters, embedding, task.pool, task.counted, *noise, task.mapper)


def _by_neighbours(task: _Task) -> Iterable[np.ndarray]:
    embedding, vectors = task.corpus.made["vectors"]
    n_tokens = np.concatenate([batch.n_tokens for batch in task.pool])
    target = embedding.vectors(task.counted, task.mapper)
    found = neighbours.scores_for(vectors, n_tokens, target, task.budget.amount, task.mapper)
    return task.split(found)


def _by_matching(task: _Task) -> Iterable[np.ndarray]:
    settings = task.settings
    options = MatchingOptions(smoothing=settings.smoothing)
    pool = list(numbered(task.pool))
    passes = over(lambda: pool, task.mapper)
    found = match(passes, task.wanted, task.raw, task.budget, options)
    held = hold(passes, found, settings.ngrams)
    drawn = refine(found, held, task.budget, options, seed=settings.seed, stream=task.target.name)
    return task.split(drawn.keys.at(np.arange(sum(map(len, task.pool)))))


def _by_greed(task: _Task) -> Iterable[np.ndarray]:
    documents = np.arange(sum(map(len, task.pool)))
    features = Features.gathered([batch.to_arrow() for batch in task.pool], documents)
    order = cynical(features, target_distribution(task.wanted), task.budget, task.settings.smoothing)
    keys = np.full(len(features), -np.inf)
    keys[order] = -np.arange(len(order))
    return task.split(keys)


#: How a method ranks the pool: a function of a task that returns keys, batch by batch; -inf for what is never picked.
KEYS: dict[str, Callable[[_Task], Iterable[np.ndarray]]] = {
    "random": _by_chance,
    "classifier": _by_classifier,
    "classifier top-k": _by_classifier,
    "top_k": _by_weight,
    "resample": _by_weight,
    "moore_lewis": _by_weight,
    "models": _by_models,
    "clustered": _by_cluster,
    "nearest neighbours": _by_neighbours,
    "cynical": _by_greed,
    "match": _by_matching,
}


#: Modules of `dsir` whose code shapes every selection.
_ALL = ("chunking", "features", "noise", "selection")

#: Modules of `dsir`, and of this package, that shape a method's selections beside those and what `KEYS` has.
_OF_METHOD = {
    "random": (),
    "classifier": ("classifier",),
    "classifier top-k": ("classifier",),
    "top_k": ("importance",),
    "resample": ("importance",),
    "moore_lewis": ("importance",),
    "models": ("ngram_model", "comparators/language_models"),
    "clustered": ("comparators/embedding", "comparators/clustered"),
    "nearest neighbours": ("comparators/embedding", "comparators/neighbours"),
    "cynical": ("cynical", "relative_entropy"),
    "match": ("evaluation", "importance", "matching", "refinement", "relative_entropy"),
}


def code_version(method: str) -> str:
    """Return the hash of the code that shapes a method's selections."""
    library, here = Path(dsir.__file__).parent, Path(__file__).parent
    sources = [*sorted(library.glob("featurizer/*.py"))]
    for name in (*_ALL, *_OF_METHOD[method]):
        sources.append((here if "/" in name else library) / f"{name}.py")
    digest = hashlib.sha256()
    for path in sources:
        digest.update(path.read_bytes())
    for each in (_Task, KEYS[method], select):
        digest.update(inspect.getsource(each).encode())
    return digest.hexdigest()[:32]


def counting(settings: MethodSettings) -> str:
    """Return the name of the step that counts the pool."""
    return f"counts, {settings.ngrams}-grams in {settings.buckets} buckets"


def prepare(
    settings: MethodSettings,
    corpus: StudyCorpus,
    mapper: Mapper = map,
    step: Callable[[str], AbstractContextManager] = nullcontext,
) -> None:
    """Do what a method needs once for a pool, if it has not been done: count, and its `NEEDS`.

    Parameters
    ----------
    settings : MethodSettings
    corpus : StudyCorpus
    mapper : callable
        Like `map`, perhaps in several threads.
    step : callable
        Takes the name of a step that has to be done, and returns a context in which it is done.
    """
    if not corpus.has_counted(settings.spec):
        corpus.forget_counts()  # before memory is measured
        with step(counting(settings)):
            corpus.counted(settings.spec)
    for name in NEEDS.get(settings.method, ()):
        if name not in corpus.made:
            with step(name):
                corpus.made[name] = STEPS[name](corpus, settings.spec, mapper)


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
    prepare(settings, corpus, mapper)
    pool, raw = corpus.counted(settings.spec)
    task = _Task(settings, corpus, target, Budget(tokens=tokens), mapper, pool, raw)
    top, first = TopK(task.budget), 0
    for batch, keys in zip(pool, KEYS[settings.method](task), strict=True):
        candidates = np.zeros(len(batch), dtype=CANDIDATE)
        candidates["key"], candidates["content_hash"] = keys, batch.content_hash
        candidates["n_tokens"], candidates["row"] = batch.n_tokens, np.arange(first, first + len(batch))
        top.add(candidates[keys > -np.inf])
        first += len(batch)
    return np.random.default_rng(0).permutation(top.picked()["row"])
