"""Selectors for notebooks: fit on texts, weigh, pick, explain, as one does with an estimator of scikit-learn.

What belongs here: the order of the steps (count, weigh, rank, pick) for texts that one process reads. What does not:
the steps themselves (the other modules of ``dsir``), what counts as texts (``dsir.texts``), files and everything
that outlives the process.

The picks are those of the pipeline for the same texts in the same configuration, since the steps are the same and the
noise of a document is a function of its content. Only of equal texts, which the pipeline ranks by id, the first is
preferred here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numba
import numpy as np
import pyarrow as pa

from dsir import evaluation
from dsir.checks import expect_array, expect_instance
from dsir.compilation import ready
from dsir.explain import Contribution, explain
from dsir.features import Features, FeatureSpec, Hash, featurize
from dsir.importance import Weigher, correct_for_length, log_ratios, log_weights, solve_temperature
from dsir.matching import Matching, MatchingOptions, match, over
from dsir.noise import gumbel_noise
from dsir.refinement import hold, refine
from dsir.selection import CANDIDATE, Budget, TopK, joined, needed, pick_in_turn, positions_of, split_budget
from dsir.texts import batches, check_texts

__all__ = ["DSIR", "Match", "Selector", "kl_reduction"]

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S", bound="Selector")

#: The only target, where it is not given a name.
TARGET = "target"

#: Documents whose candidates are made at a time.
_ROWS = 1 << 16

_LENGTHS = ("none", "per_ngram", "sqrt", "poisson")


@dataclass(frozen=True, eq=False)
class _Target:
    """What is counted of a target: its n-grams, its documents and their tokens."""

    totals: np.ndarray
    documents: int
    tokens: int


@dataclass(eq=False, repr=False, kw_only=True)
class Selector:
    """What :class:`DSIR` and :class:`Match` have in common.

    Parameters
    ----------
    ngrams, buckets, hash, tokenizer
        What is counted: :class:`dsir.features.FeatureSpec`.
    min_tokens : int
        Documents with fewer tokens are not picked, though the pool's distribution includes them.

    Attributes
    ----------
    targets_ : list of str
        Names of the targets.
    raw_counts_ : ndarray of int64, shape (buckets,)
        N-gram totals of the pool.
    target_counts_ : dict of str to ndarray of int64, shape (buckets,)
        N-gram totals by target.
    log_ratios_ : dict of str to ndarray of float64, shape (buckets,)
        ``log(p_target + 1e-8) - log(p_raw + 1e-8)`` by target, in nats.
    log_weights_ : ndarray of float64, shape (n,) or, with several targets, (n, targets)
        Log importance weights of the pool's documents, in nats.
    n_tokens_, n_ngrams_ : ndarray of int64, shape (n,)
        Of the pool's documents.
    content_hash_ : ndarray of uint64, shape (n,)
        XXH64 of their UTF-8 bytes; the noise is a function of it.
    """

    ngrams: int = FeatureSpec.ngrams
    buckets: int = FeatureSpec.buckets
    hash: Hash = FeatureSpec.hash
    tokenizer: str = FeatureSpec.tokenizer
    min_tokens: int = 100

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> FeatureSpec:
        """Refuse invalid parameters; return what is counted."""
        if not _is_integer(self.min_tokens) or self.min_tokens < 0:
            raise ValueError(f"min_tokens: {self.min_tokens!r}; expected an integer of at least 0")
        return FeatureSpec(self.tokenizer, self.ngrams, self.buckets, self.hash)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; `deep` is for scikit-learn and changes nothing."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def set_params(self: S, **params: Any) -> S:
        """Set parameters; return the selector.

        What concerns counting is used by the next ``fit``, the rest by the next ``select``.

        Raises
        ------
        ValueError
            There is no such parameter, or its value is not valid; nothing is changed.
        """
        known = self.get_params()
        for name in params:
            if name not in known:
                raise ValueError(f"{name}: no parameter of {type(self).__name__}; it has {', '.join(known)}")
        type(self)(**known | params)
        vars(self).update(params)
        return self

    def __repr__(self) -> str:
        changed = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def fit(self: S, raw: Any, target: Any) -> S:
        """Fit the distributions of pool and target, and weigh the pool's documents.

        Reads `raw` twice. Memory is that of a few batches of 4 MB and of 32 bytes a document, not that of the texts.

        Parameters
        ----------
        raw : iterable of str, or a column of strings
            The pool of n documents: a list, an array, a column of pandas, polars or Arrow, or any object whose
            ``__iter__`` starts over.
        target : like `raw`, or mapping of str to these
            Documents of the target, or of several targets by name.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Naming the argument, what it is and what is expected: an iterator, which can be read only once; documents
            that are not str; no n-grams; a pool that is another the second time.
        """
        spec = self._check()
        named = dict(target) if isinstance(target, Mapping) else {TARGET: target}
        if not named or not all(isinstance(name, str) for name in named):
            raise ValueError(f"target: the names {list(named)}; expected texts, or a mapping of str to texts")
        check_texts("raw", raw)
        for name, texts in named.items():
            check_texts(_called(name, named), texts)
        ready(spec)
        counted = {name: _count_target(_called(name, named), texts, spec) for name, texts in named.items()}
        raw_counts = np.zeros(spec.buckets, np.int64)
        hashes = []
        for features in self._first_pass(raw, spec):
            features.add_totals(raw_counts)
            hashes.append(features.content_hash)
        if not raw_counts.any():
            raise _no_words("raw", sum(map(len, hashes)))
        ratios = np.array([self._log_ratio(each.totals, raw_counts) for each in counted.values()])
        content_hash = np.concatenate(hashes)
        weights, n_tokens, n_ngrams, again = (
            np.concatenate(parts, axis=-1)
            for parts in zip(*self._second_pass(raw, spec, ratios), strict=True)
        )
        if not np.array_equal(content_hash, again):
            raise ValueError(
                f"raw: {len(content_hash):,} documents when first read, and then {len(again):,}, not all the same; "
                "expected an iterable that yields the same documents in the same order every time"
            )
        self._spec, self._counted, self._ratios, self._weights = spec, counted, ratios, weights
        self.targets_ = list(counted)
        self.raw_counts_ = raw_counts
        self.target_counts_ = {name: each.totals for name, each in counted.items()}
        self.log_ratios_ = dict(zip(counted, ratios, strict=True))
        self.log_weights_ = weights[0] if len(counted) == 1 else weights.T
        self.n_tokens_, self.n_ngrams_, self.content_hash_ = n_tokens, n_ngrams, content_hash
        return self

    def _log_ratio(self, target: np.ndarray, raw: np.ndarray) -> np.ndarray:
        return log_ratios(target, raw)

    def _first_pass(self, raw: Any, spec: FeatureSpec) -> Iterator[Features]:
        return _features("raw", raw, spec)

    def _second_pass(
        self, raw: Any, spec: FeatureSpec, ratios: np.ndarray
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield log weights, tokens, n-grams and content hashes of the pool's documents, batch by batch."""
        weigh = Weigher(ratios)
        for features in _features("raw", raw, spec):
            weights, n_ngrams = weigh(features)
            yield weights, features.n_tokens, n_ngrams, features.content_hash

    def log_weights(self, texts: Any) -> np.ndarray:
        """Log importance weights of any documents: how much likelier they are under the target than under the pool.

        Parameters
        ----------
        texts : iterable of str, or a column of strings
            n documents.

        Returns
        -------
        ndarray of float64, shape (n,) or, with several targets, (n, targets)
            In nats.

        Raises
        ------
        ValueError
            The selector is not fitted, or `texts` are none.
        """
        self._check_fitted()
        ready(self._spec)
        found = [log_weights(features, self._ratios) for features in _features("texts", texts, self._spec)]
        weights = np.concatenate([np.empty((len(self.targets_), 0)), *found], axis=1)
        return weights[0] if len(weights) == 1 else weights.T

    def explain(self, text: str, target: str | None = None) -> list[Contribution]:
        """Split a document's log weight into the contributions of its n-grams: those for it first, against it last.

        Parameters
        ----------
        text : str
        target : str, optional
            One of several targets.

        Returns
        -------
        list of Contribution
            With ``ngram``, ``count``, ``bucket`` and ``nats``, one a distinct n-gram. The nats sum to the log weight.

        Raises
        ------
        ValueError
            The selector is not fitted, `text` is no str, or there is no such target.
        """
        self._check_fitted()
        expect_instance("text", text, str)
        if target is None and len(self.targets_) == 1:
            [target] = self.targets_
        if target not in self.log_ratios_:
            raise ValueError(f"target: {target!r}; expected one of {', '.join(self.targets_)}")
        return explain(text, self._spec, self.log_ratios_[target])

    def _check_fitted(self) -> None:
        if not hasattr(self, "targets_"):
            raise ValueError(f"this {type(self).__name__} is not fitted; call fit(raw=…, target=…) first")

    def _budget(self, k: Any, tokens: Any, eligible: np.ndarray) -> Budget:
        if (k is None) == (tokens is None):
            raise ValueError(
                f"k: {k!r} and tokens: {tokens!r}; expected one of the two, a number of documents or of tokens"
            )
        name, value, unit = ("k", k, "documents") if tokens is None else ("tokens", tokens, "tokens")
        there = int(np.count_nonzero(eligible) if tokens is None else self.n_tokens_[eligible].sum())
        n, admitted = len(eligible), np.count_nonzero(eligible)
        admit = "set_params(min_tokens=…) admits shorter ones"
        if not there:
            longest = self.n_tokens_.max(initial=0)
            raise ValueError(
                f"min_tokens: {self.min_tokens}; none of the {n:,} documents has as many tokens: the longest has "
                f"{longest:,}; {admit}"
            )
        if not _is_integer(value) or not 1 <= value <= there:
            raise ValueError(
                f"{name}: {value!r}; expected an integer from 1 to {there:,}, the number of {unit} in the "
                f"{admitted:,} of {n:,} documents that have at least min_tokens={self.min_tokens} tokens; {admit}"
            )
        return Budget(documents=int(value)) if tokens is None else Budget(tokens=int(value))

    def _shares(self, shares: Any, default: list[int]) -> np.ndarray:
        """Return the targets' shares in order of `targets_`."""
        if shares is None:
            return np.array(default, np.float64)
        if not isinstance(shares, Mapping) or set(shares) != set(self.targets_):
            raise ValueError(f"shares: {shares!r}; expected a number for each of {', '.join(self.targets_)}")
        values = np.array([shares[name] for name in self.targets_], np.float64)
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"shares: {shares!r}; expected numbers greater than 0")
        return values

    def _candidates(self, rows: np.ndarray) -> np.ndarray:
        """Return documents of the pool as ndarray of CANDIDATE, without keys."""
        candidates = np.zeros(len(rows), CANDIDATE)
        candidates["row"], candidates["n_tokens"] = rows, self.n_tokens_[rows]
        candidates["content_hash"] = self.content_hash_[rows]
        return candidates


@dataclass(eq=False, repr=False, kw_only=True)
class DSIR(Selector):
    """Data selection with importance resampling (Xie et al. 2023): draws documents in proportion to their weight.

    A document's weight is how much likelier its n-grams are under the target than under the pool. Documents are drawn
    without replacement, by the Gumbel top-k trick, with noise that depends only on the seed, the selection's name, the
    target's name and the document, so that the picks do not depend on the order of the pool.

    Parameters
    ----------
    ngrams, buckets, hash, tokenizer, min_tokens
        As in :class:`Selector`.
    target_smoothing : float
        Pseudo-counts added to every bucket of the target.
    temperature : float or mapping
        What log weights are divided by before noise is added. ``{"effective_sample_size": m}`` or ``{"acceptance": a}``
        solves for it: :func:`dsir.importance.solve_temperature`.
    length : {"none", "per_ngram", "sqrt", "poisson"}
        Correction of log weights for the document's length: :func:`dsir.importance.correct_for_length`.

    Examples
    --------
    >>> import dsir
    >>> raw = ["the cat sat", "def f(x): return x", "a dog ran", "return f(y)", "the cat ran"]
    >>> target = ["def f(y): return y", "def f(x): return f(x)", "return y"]
    >>> selector = dsir.DSIR(min_tokens=0).fit(raw=raw, target=target)
    >>> picks = selector.select(2, seed=0)
    >>> [raw[i] for i in picks]
    ['def f(x): return x', 'return f(y)']
    >>> selector.log_weights(["return y", "the cat"]).round(1)
    array([ 17.2, -46.5])
    >>> best, *_, worst = selector.explain("return the cat")
    >>> best.ngram, worst.ngram
    ('return', 'the cat')
    >>> selector
    DSIR(min_tokens=0)
    """

    target_smoothing: float = 0.0
    temperature: float | Mapping[str, float] = 1.0
    length: str = "none"

    def _check(self) -> FeatureSpec:
        if not _is_number(self.target_smoothing) or self.target_smoothing < 0:
            raise ValueError(f"target_smoothing: {self.target_smoothing!r}; expected a number of at least 0")
        given = self.temperature
        if isinstance(given, Mapping):
            valid = len(given) == 1 and set(given) <= {"effective_sample_size", "acceptance"}
        else:
            valid = _is_number(given) and given > 0
        if not valid:
            raise ValueError(
                f"temperature: {self.temperature!r}; expected a number greater than 0, "
                "{'effective_sample_size': …} or {'acceptance': …}"
            )
        _check_length(self.length)
        return super()._check()

    def _log_ratio(self, target: np.ndarray, raw: np.ndarray) -> np.ndarray:
        return log_ratios(target, raw, self.target_smoothing)

    def select(
        self,
        k: int | None = None,
        *,
        tokens: int | None = None,
        seed: int = 0,
        name: str = "selection",
        shares: Mapping[str, float] | None = None,
        top_k: bool = False,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:
        """Pick documents of the pool.

        Parameters
        ----------
        k : int
            How many documents.
        tokens : int
            Or how many tokens: documents are taken in order of rank while they fit.
        seed : int
            0 .. 2**64 - 1.
        name : str
            Another name gives independent noise. A selection of the pipeline has that of its own name.
        shares : mapping of str to float, optional
            The targets' shares of the picks, normalized to 1. Default: in proportion to their n-grams. Nothing is
            picked twice.
        top_k : bool
            Without noise: the documents of the largest weights.
        noise : ndarray of float64, shape (n,) or, with several targets, (n, targets), optional
            Noise to add to the weights instead, for comparison with other implementations.

        Returns
        -------
        ndarray of int64
            Indices into `raw`, in order of target and rank.

        Raises
        ------
        ValueError
            The selector is not fitted, or an argument is not valid; names it, its value and what is expected.
        """
        self._check_fitted()
        self._check()
        if noise is not None:
            expect_array("noise", noise, (np.floating,), *self.log_weights_.shape)
            noise = np.atleast_2d(noise.T)
        eligible = self.n_tokens_ >= self.min_tokens
        budget = self._budget(k, tokens, eligible)
        by_ngrams = [int(each.totals.sum()) for each in self._counted.values()]
        budgets = split_budget(budget, self._shares(shares, by_ngrams))
        rows = np.flatnonzero(eligible)
        pools = []
        for t, (target, mine, reach) in enumerate(zip(self.targets_, budgets, needed(budgets), strict=True)):
            weight = self._tempered(t, rows)
            top = TopK(mine, reserve=reach.amount - mine.amount)
            for first in range(0, len(rows), _ROWS):
                some = rows[first : first + _ROWS]
                candidates = self._candidates(some)
                key = weight[first : first + _ROWS]
                if noise is not None:
                    key = key + noise[t][some]
                elif not top_k:
                    key = key + gumbel_noise(candidates["content_hash"], seed, f"{name}/{target}")
                candidates["key"] = key
                top.add(candidates)
            pools.append(top.candidates())
        return _rows(joined(pick_in_turn(pools, budgets)), tokens)

    def _tempered(self, t: int, rows: np.ndarray) -> np.ndarray:
        """Return the log weights of some documents, corrected for length, divided by the temperature."""
        weight, n_tokens = self._weights[t][rows], self.n_tokens_[rows]
        if self.length != "none":
            target = self._counted[self.targets_[t]]
            means = (target.tokens / target.documents, int(n_tokens.sum()) / len(n_tokens))
            weight = correct_for_length(
                weight,
                self.length,
                self.n_ngrams_[rows],
                n_tokens,
                means if self.length == "poisson" else None,
            )
        if isinstance(self.temperature, Mapping):
            try:
                return weight / solve_temperature(lambda function: [function([weight])], **self.temperature)
            except ValueError as error:
                raise ValueError(f"temperature: {dict(self.temperature)}: {error}") from None
        return weight / self.temperature


@dataclass(eq=False, repr=False, kw_only=True)
class Match(Selector):
    """Distribution matching: picks whose n-grams, taken together, resemble the target (:mod:`dsir.matching`).

    The features of the pool stay in memory, about as many bytes as its text: every round looks at all of them.

    Parameters
    ----------
    ngrams, buckets, hash, tokenizer, min_tokens
        As in :class:`Selector`.
    smoothing, objective, rounds, tolerance
        :class:`dsir.matching.MatchingOptions`.

    Attributes
    ----------
    matching_ : Matching
        Of the last ``select``: its ``curve`` has the rounds with their KL divergences.

    Examples
    --------
    >>> import dsir
    >>> raw = ["a b", "b c", "c d", "d e"] * 20
    >>> selector = dsir.Match(buckets=1000, min_tokens=0)
    >>> picks = selector.fit(raw=raw, target=[f"{x} b c" for x in "abcdefghij"]).select(8, seed=0)
    >>> sorted({raw[i] for i in picks})
    ['b c']
    """

    smoothing: float = MatchingOptions.smoothing
    objective: str = MatchingOptions.objective
    rounds: int = MatchingOptions.rounds
    tolerance: float = MatchingOptions.tolerance

    def _check(self) -> FeatureSpec:
        for name in ("smoothing", "tolerance"):
            if not _is_number(getattr(self, name)):
                raise ValueError(f"{name}: {getattr(self, name)!r}; expected a number")
        if not _is_integer(self.rounds):
            raise ValueError(f"rounds: {self.rounds!r}; expected an integer")
        self._options()
        return super()._check()

    def _options(self) -> MatchingOptions:
        return MatchingOptions(self.rounds, self.tolerance, self.smoothing, self.objective)

    def _first_pass(self, raw: Any, spec: FeatureSpec) -> Iterator[Features]:
        self._reading: list[pa.RecordBatch] = []
        for features in _features("raw", raw, spec):
            self._reading.append(features.to_arrow())
            yield features

    def _second_pass(
        self, raw: Any, spec: FeatureSpec, ratios: np.ndarray
    ) -> Iterator[tuple[np.ndarray, ...]]:
        weigh = Weigher(ratios)
        for batch in self._reading:
            weights, n_ngrams = weigh(batch)
            features = Features.from_arrow(batch)
            yield weights, features.n_tokens, n_ngrams, features.content_hash
        self._batches = self._reading  # not before, so that a fit that fails leaves the last one as it was

    def select(
        self,
        k: int | None = None,
        *,
        tokens: int | None = None,
        seed: int = 0,
        name: str = "selection",
        shares: Mapping[str, float] | None = None,
    ) -> np.ndarray:
        """Match a selection of this size to the target, and draw one.

        Parameters
        ----------
        k, tokens, seed, name
            As in :meth:`DSIR.select`.
        shares : mapping of str to float, optional
            The targets' shares of the n-grams to match.

        Returns
        -------
        ndarray of int64
            Indices into `raw`, in order of rank.

        Raises
        ------
        ValueError
            The selector is not fitted, or an argument is not valid.
        """
        self._check_fitted()
        self._check()
        names = sorted(self.targets_)  # sums of floats depend on the order
        counts = np.array([self._counted[each].totals for each in names])
        share = self._shares(shares, counts.sum(axis=1).tolist())
        if shares is not None:
            share = np.array([shares[each] for each in names], np.float64)
        eligible = self.n_tokens_ >= self.min_tokens
        budget = self._budget(k, tokens, eligible)
        options = self._options()

        def read() -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
            first = 0
            for batch in self._batches:
                inside = eligible[first : first + len(batch)]
                rows = first + np.flatnonzero(inside)
                first += len(batch)
                whole = len(rows) == len(batch)
                yield batch if whole else batch.filter(pa.array(inside)), self._candidates(rows)

        passes = over(read, _threaded)
        self.matching_: Matching = match(passes, counts, self.raw_counts_, budget, options, shares=share)
        held = hold(passes, self.matching_, self.ngrams)
        stream = f"{name}/{'+'.join(names)}"
        drawn = refine(self.matching_, held, budget, options, seed=seed, stream=stream)
        top = TopK(budget)
        rows = np.flatnonzero(eligible)
        for first in range(0, len(rows), _ROWS):
            candidates = self._candidates(rows[first : first + _ROWS])
            candidates["key"] = drawn.keys.at(positions_of(candidates))
            top.add(candidates)
        return _rows(top.picked(), tokens)


def kl_reduction(
    target: Any,
    picked: Any,
    raw: Any,
    *,
    ngrams: int = FeatureSpec.ngrams,
    buckets: int = FeatureSpec.buckets,
    hash: Hash = FeatureSpec.hash,
    tokenizer: str = FeatureSpec.tokenizer,
    smoothing: float = evaluation.SMOOTHING,
) -> float:
    """How much closer to the target the picked documents are than the pool, over hashed n-grams.

    ``KL(target‖raw) - KL(target‖picked)`` (paper, section 5). Measure on target documents that the selection was not
    fitted on, and compare with as many documents drawn at random.

    Parameters
    ----------
    target, picked, raw : iterable of str, or a column of strings
        Each is read once.
    ngrams, buckets, hash, tokenizer
        What is counted: :class:`dsir.features.FeatureSpec`.
    smoothing : float
        Pseudo-counts a bucket of every distribution, greater than 0.

    Returns
    -------
    float
        In nats; negative if the pool is closer.

    Raises
    ------
    ValueError
        Naming the argument, what it is, and what is expected.

    Examples
    --------
    >>> import dsir
    >>> round(dsir.kl_reduction(["a b"], ["a b", "b"], ["a b", "c d"], buckets=100), 3)
    0.02
    """
    spec = FeatureSpec(tokenizer, ngrams, buckets, hash)
    if not _is_number(smoothing) or smoothing <= 0:
        raise ValueError(f"smoothing: {smoothing!r}; expected a number greater than 0")
    counts = []
    given = {"target": target, "picked": picked, "raw": raw}
    for name, texts in given.items():
        check_texts(name, texts, again=False)
    ready(spec)
    for name, texts in given.items():
        totals = np.zeros(spec.buckets, np.int64)
        for features in _features(name, texts, spec):
            features.add_totals(totals)
        if not totals.any():
            raise ValueError(f"{name}: no words; expected text")
        counts.append(totals)
    of_target, of_picked, of_raw = counts
    return evaluation.kl_reduction(of_target, of_raw, of_picked, smoothing)


def _features(name: str, texts: Any, spec: FeatureSpec) -> Iterator[Features]:
    return _threaded(lambda batch: featurize(batch, spec), batches(name, texts))


def _count_target(name: str, texts: Any, spec: FeatureSpec) -> _Target:
    totals = np.zeros(spec.buckets, np.int64)
    documents = tokens = 0
    for features in _features(name, texts, spec):
        features.add_totals(totals)
        documents += len(features)
        tokens += int(features.n_tokens.sum())
    if not totals.any():
        raise _no_words(name, documents)
    return _Target(totals, documents, tokens)


def _no_words(name: str, documents: int) -> ValueError:
    what = f"{documents:,} documents without a word" if documents else "empty"
    return ValueError(f"{name}: {what}; expected texts")


def _called(name: str, targets: Mapping[str, Any]) -> str:
    """Return what to call a target in errors."""
    return "target" if list(targets) == [TARGET] else f"target[{name!r}]"


def _threaded(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Map a function in a thread for each CPU; results come in order, and few items are read ahead."""
    n = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set dynamically
    with ThreadPoolExecutor(n) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > n:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _rows(picked: np.ndarray, tokens: int | None) -> np.ndarray:
    if not len(picked):
        raise ValueError(f"tokens: {tokens}; expected at least the tokens of the best document")
    return picked["row"].copy()


def _check_length(length: object) -> None:
    if length not in _LENGTHS:
        raise ValueError(f"length: {length!r}; expected one of {', '.join(_LENGTHS)}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float | np.number)
        and not isinstance(value, bool)
        and bool(np.isfinite(value))
    )
