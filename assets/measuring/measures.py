"""The numbers of an evaluation: what is measured on which picks, and its name.

What belongs here: the metrics, rows of the table ``evaluations``. What does not: the arithmetic
(``dsir/evaluation.py``), the picks themselves (``baselines.py``), their n-grams (``counts.py``), models trained on them
(``trained.py``), how Dagster shows the numbers (``shown.py``).

Every number has a `pick`: `selection`, `pool`, `random` (the mean over seeds), `top_k` or a method of
``evaluation.compare``; `seed` is the selection drawn with the next seed. With ``evaluation.budgets``, `selection x0.5`
is what its method picks at half of its size, in one epoch, and so on; `selection x1` is its own first epoch. They are
measured whole, and have `over_random` (over random picks of the selection's size), `ahead`, `bits_per_byte`, and
`documents`, `tokens` and `duplicates`. A number's `statistic` is `value`. Metrics marked ±
also have `low` and `high`, a 95 % interval (see :class:`dsir.evaluation.CrossEntropies`), except that random picks have
`sd`, the standard deviation over seeds; metrics marked "sd" have that for every pick. Metrics marked * have a row for
every target, and one for the mean under the target ''.

==================================  ==========================================================================
``over_random`` * ±                 KL(target‖random) - KL(target‖pick), nats: the headline figure, under one
                                    independent hash whatever selected (:func:`independent_distribution`), on all
                                    held-out text and whole picks; the interval also covers what one random pick
                                    differs from their mean
``over_random_unhashed`` * ±        the same over the n-grams of held-out text as they are, all others as one
``kl_reduction`` * ±                KL(target‖pool) - KL(target‖pick), nats, as in the paper, section 5: over the
                                    selecting hash's buckets, smoothed; all picks cut to the same number of n-grams
``ahead`` * ±                       the selection's ``over_random`` less the pick's, paired: both under the same
                                    draws of the target's documents. Of random picks, the mean over seeds, whose
                                    interval also covers what one of them differs from it
``ahead_unhashed`` * ±              the same of ``over_random_unhashed``
``bits_per_byte`` * sd              what held-out text costs under an n-gram model of the pick's bytes, all picks cut
                                    to the same number of tokens; the standard deviation is that of random picks
                                    only. Only with ``evaluation.bits_per_byte``
``proxy_loss`` * sd                 loss on held-out text of language models trained on the pick, nats a token. Only
                                    with ``evaluation.proxy``
``f1_macro``, ``f1_micro`` * sd     F1 on held-out text of classifiers of the target's labels, on word vectors
                                    learnt from the pick. Only with ``evaluation.downstream``
``effective_sample_size`` *         for ``pool``: (Σw)² / Σw² of the eligible documents' weights
``agreement``                       share of the selection's documents that are also in the pick; 1 for ``seed``
                                    if there is no noise
``tokens``                          of the documents
``mean_tokens``, ``median_tokens``  length of the documents; the median also for ``eligible``: the pool's of at
                                    least ``min_tokens``
``p10_tokens``, ``p90_tokens``      quantiles of the length
``distinct_ngrams``                 different n-grams among 1,000, in samples of equal size
``duplicates``                      documents whose content an earlier one has
``near_copies``                     for ``selection``: share of up to 2,000 of its documents that nearly repeat
                                    another of them (Jaccard similarity of word 5-grams from 0.8 on)
``in_target``, ``in_holdout`` *     documents whose content is in the target. Under the target '': in any
``share``                           for ``pool`` and ``selection``: share of each source
==================================  ==========================================================================
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import pyarrow as pa

from dsir.evaluation import (
    CrossEntropies,
    contained,
    distinct,
    distribution,
    duplicates,
    independent_distribution,
    interval,
    overlap,
)
from dsir.features import FeatureSpec, featurize, hash_strings
from dsir.importance import Weigher, fit_threshold
from dsir.near_duplicates import near_copies
from dsir.ngrams import hash_ngrams, sums
from dsir_dagster.assets.importance_estimator import raw_totals, target_totals
from dsir_dagster.assets.measuring.baselines import Pick, PoolSummary, is_random, picked_totals
from dsir_dagster.assets.measuring.counts import (
    Counted,
    HeldOut,
    count_picks,
    independent_spec,
    read_held_out,
)
from dsir_dagster.assets.measuring.trained import Figures
from dsir_dagster.assets.picking.texts import PoolTexts, map_target
from dsir_dagster.resources.compute import Tell
from dsir_dagster.resources.lineage import Metric
from dsir_dagster.resources.settings import EvaluationSettings, Target
from dsir_dagster.resources.settings.evaluation import RANDOM
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.workspace import Workspace

#: The similarity from which on documents are near-copies.
SIMILAR = 0.8
#: The lead over random picks, by how n-grams are told apart, and what that is called.
VIEWS = {"over_random": "independent hash", "over_random_unhashed": "plain n-grams"}
#: Names of the plots of it: by target, and by how n-grams are told apart.
OVER_RANDOM = "KL reduction over random, plot"
BY_VIEW = "KL reduction over random, hashed and not, plot"
#: What is also measured as the selection's lead over every other pick, and the name of that.
AHEAD = {"over_random": "ahead", "over_random_unhashed": "ahead_unhashed"}


class Metrics:
    """The numbers, in the order they were measured."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str, str, str, str], float] = {}
        self._replicates: dict[tuple[str, str, str], np.ndarray] = {}

    def add(
        self,
        metric: str,
        pick: str,
        value: float,
        target: str = "",
        source: str = "",
        statistic: str = "value",
    ) -> None:
        """Keep a number."""
        self._values[target, metric, pick, statistic, source] = float(value)

    def add_interval(self, metric: str, pick: str, value: float, replicates: np.ndarray, target: str) -> None:
        """Keep a number of a target with the interval of its bootstrapped values."""
        self.add(metric, pick, value, target)
        self._replicates[target, metric, pick] = replicates
        for end, bound in zip(("low", "high"), interval(replicates), strict=True):
            self.add(metric, pick, bound, target, statistic=end)

    def average(self) -> None:
        """Add the mean over targets of every number so far, with its interval, under the target ''."""
        values: dict[tuple[str, str, str], list[float]] = {}
        for (_, metric, pick, statistic, _), value in self._values.items():
            values.setdefault((metric, pick, statistic), []).append(value)
        for (metric, pick, statistic), of_targets in values.items():
            self.add(metric, pick, float(np.mean(of_targets)), statistic=statistic)
        drawn: dict[tuple[str, str], list[np.ndarray]] = {}
        for (_, metric, pick), replicates in self._replicates.items():
            drawn.setdefault((metric, pick), []).append(replicates)
        for (metric, pick), of_metric in drawn.items():
            for end, bound in zip(("low", "high"), interval(np.mean(of_metric, axis=0)), strict=True):
                self.add(metric, pick, bound, statistic=end)

    def get(
        self, metric: str, pick: str = "selection", target: str = "", statistic: str = "value"
    ) -> float | None:
        """Return a number; None if it was not measured."""
        return self._values.get((target, metric, pick, statistic, ""))

    def bounds(self, metric: str, pick: str, target: str = "") -> tuple[float, float, float]:
        """Return a measured number with its interval; for random picks, two standard deviations on either side."""

        def at(statistic: str) -> float:
            return self._values[target, metric, pick, statistic, ""]

        value, sd = at("value"), self.get(metric, pick, target, "sd")
        return (value, at("low"), at("high")) if sd is None else (value, value - 2 * sd, value + 2 * sd)

    @property
    def picks(self) -> list[str]:
        """The measured picks: the selection, other methods' and random ones."""
        return [pick for _, metric, pick, *_ in self._values if metric == "mean_tokens" and pick != "pool"]

    @property
    def rows(self) -> list[Metric]:
        """All numbers."""
        return [Metric(*key, value) for key, value in self._values.items()]


@dataclass(frozen=True)
class TargetTexts:
    """What selections are measured on: the content hashes of a target's documents, and some of its texts.

    Attributes
    ----------
    target : Target
    train, holdout : ndarray of uint64
        Content hashes, sorted, without duplicates.
    texts : list of str
        A sample of the text measured on: of the holdout, if there is one.
    """

    target: Target
    train: np.ndarray
    holdout: np.ndarray
    texts: list[str] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the target."""
        return self.target.name

    @property
    def measured_on(self) -> str:
        """The files that selections are measured on."""
        return self.target.holdout or self.target.uri

    @property
    def measured_contents(self) -> np.ndarray:
        """Content hashes of the documents that selections are measured on."""
        return self.holdout if self.target.holdout else self.train


def read_target(snapshot: Snapshot, target: Target, ngrams: int) -> TargetTexts:
    """Read a target's files: the content hashes of all documents, and texts with about that many n-grams."""
    counts, holdout = target_totals(snapshot, target.name)
    total = int((holdout if target.holdout else counts).sum())
    threshold = np.uint64(fit_threshold(total, ngrams)) if ngrams else None
    if target.holdout is None:
        train, texts = read_part(snapshot.workspace, target, target.uri, threshold)
        return TargetTexts(target, train, train[:0], texts)
    train, _ = read_part(snapshot.workspace, target, target.uri, None)
    return TargetTexts(target, train, *read_part(snapshot.workspace, target, target.holdout, threshold))


def read_part(
    workspace: Workspace, target: Target, uri: str, threshold: np.uint64 | None
) -> tuple[np.ndarray, list[str]]:
    """Return the distinct content hashes of a target's documents, sorted, and the texts up to a hash, at least one."""

    def look(texts: pa.Array) -> tuple[np.ndarray, list[str]]:
        content_hash = hash_strings(texts)
        if threshold is None or not len(texts):
            return content_hash, []
        # The one with the smallest hash is kept in case there is no other.
        kept = content_hash <= max(threshold, content_hash.min())
        return content_hash, texts.filter(pa.array(kept)).to_pylist()

    hashes, sampled = zip(*map_target(workspace, target, uri, look), strict=True)
    texts = [text for of_block in sampled for text in of_block]
    if threshold is not None:
        content_hash = hash_strings(pa.array(texts, pa.large_string()))
        kept = content_hash <= max(threshold, content_hash.min())
        texts = [text for text, keep in zip(texts, kept, strict=True) if keep]
    return distinct(np.concatenate(hashes)), texts


def known_contents(targets: list[TargetTexts]) -> dict[tuple[str, str], np.ndarray]:
    """Return sorted content hashes by the metric and target that leakage is reported under."""
    known: dict[tuple[str, str], np.ndarray] = {}
    for part in ("target", "holdout"):
        of_part = {each.name: each.train if part == "target" else each.holdout for each in targets}
        known |= {(f"in_{part}", name): hashes for name, hashes in of_part.items()}
        known[f"in_{part}", ""] = reduce(np.union1d, of_part.values())
    return known


def add_figures(figures: Figures, metrics: Metrics) -> None:
    """Add the mean of what models scored on every pick, and of several the standard deviation."""
    for target, of_target in figures.items():
        for metric, of_metric in of_target.items():
            for pick, each in of_metric.items():
                metrics.add(metric, pick, each.mean(), target)
                if len(each) > 1:
                    metrics.add(metric, pick, each.std(ddof=1), target, statistic="sd")


def by_pick(values: Mapping[str, float]) -> dict[str, float]:
    """Replace the random picks by their mean."""
    random = [value for pick, value in values.items() if is_random(pick)]
    others = {pick: value for pick, value in values.items() if not is_random(pick)}
    return others | {RANDOM: float(np.mean(random))}


def compare(
    name: str, cross: CrossEntropies, picks: list[str], base: np.ndarray, target: str, metrics: Metrics
) -> None:
    """Add the KL reduction of every pick: the cross-entropy with the base, less that with the pick.

    Some are also added as the selection's lead. Its interval is that of the difference: the two move together from one
    holdout to another, so the intervals of two picks may overlap where their difference is certain. Over random picks,
    whether as a lead or as the base, their spread over seeds comes on top, with the same draws for every target, since
    the picks are the same.

    Parameters
    ----------
    name : str
        Of the metric.
    cross : CrossEntropies
        Its last distributions are those of the picks, in order.
    picks : list of str
    base : ndarray of int
        Indices of the distributions to compare with: one, or several whose mean is taken.
    target : str
    metrics : Metrics
        Added to.
    """
    values, replicates = cross.values, cross.replicates(target)
    reductions = values[base].mean() - values[-len(picks) :]
    drawn = replicates[:, base].mean(axis=1, keepdims=True) - replicates[:, -len(picks) :]
    random = reductions[[is_random(pick) for pick in picks]]
    chance = np.random.default_rng(list(RANDOM.encode())).standard_normal(len(drawn)) * random.std(ddof=1)
    from_random = base.min() >= len(values) - len(picks)  # or from the pool, which is none of the picks
    for i, pick in enumerate(picks):
        if not is_random(pick):
            metrics.add_interval(name, pick, reductions[i], drawn[:, i] + from_random * chance, target)
    # With random picks as the base it is 0 up to rounding.
    metrics.add(name, RANDOM, round(random.mean(), 12) + 0.0, target)
    metrics.add(name, RANDOM, random.std(ddof=1), target, statistic="sd")
    if name in AHEAD:
        mine = picks.index("selection")
        for pick in by_pick(dict.fromkeys(picks, 0.0)):
            if pick != "selection":
                theirs = [
                    i for i, each in enumerate(picks) if each == pick or (pick == RANDOM and is_random(each))
                ]
                lead = reductions[mine] - reductions[theirs].mean()
                of_draws = drawn[:, mine] - drawn[:, theirs].mean(axis=1)
                if pick == RANDOM:
                    of_draws = of_draws + chance
                # Between equal picks it is 0 up to rounding.
                metrics.add_interval(
                    AHEAD[name], pick, round(lead, 12) + 0.0, of_draws.round(12) + 0.0, target
                )


def measure_on_texts(
    snapshot: Snapshot,
    targets: list[TargetTexts],
    picks: dict[str, Pick],
    settings: EvaluationSettings,
    shown: np.ndarray,
    counted: Counted,
    metrics: Metrics,
    tell: Tell,
) -> PoolTexts:
    """Measure the KL reductions, distinct n-grams and near-copies of picks; return the texts at positions to show."""
    names = list(picks)
    tell(part="n-grams of the targets")
    held_out = [
        read_held_out(snapshot, each.target, each.measured_contents, settings.sample) for each in targets
    ]
    measured = {name: each.up_to(settings.sample) for name, each in picks.items()}
    counts = count_picks(snapshot, measured, held_out, shown, counted, tell)
    per_thousand = [1000 * each.different / max(each.sampled, 1) for each in counts.picks]
    for name, value in by_pick(dict(zip(names, per_thousand, strict=True))).items():
        metrics.add("distinct_ngrams", name, value)
    tell(part="near-copies")
    copies = near_copies(counts.compared, independent_spec(snapshot.settings), SIMILAR)
    metrics.add("near_copies", "selection", copies.mean())

    smallest = min(int(each.n_ngrams.sum()) for each in picks.values())
    cut = [each.sample(smallest) for each in picks.values()]
    totals = [raw_totals(snapshot), *picked_totals(snapshot, cut, tell)]
    selecting = np.array([distribution(each, settings.smoothing) for each in totals])
    independent = np.array([independent_distribution(pick.independent) for pick in counts.picks])
    random = np.flatnonzero([is_random(name) for name in names])
    for target, mine in zip(targets, held_out, strict=True):
        tell(part=f"KL on target {target.name}")
        own = counts.vocabulary.numbers(mine.vocabulary.hashes)
        crosses = {
            "over_random": CrossEntropies(independent, 0.0),
            "over_random_unhashed": CrossEntropies(
                np.array([independent_distribution(apart(pick.plain, own)) for pick in counts.picks]), 0.0
            ),
            "kl_reduction": CrossEntropies(selecting, settings.smoothing),
        }
        score = _Score(
            independent_spec(snapshot.settings),
            snapshot.settings.features.spec(),
            mine,
            independent=Weigher(crosses["over_random"].log_q),
            plain=crosses["over_random_unhashed"].log_q,
            selecting=Weigher(crosses["kl_reduction"].log_q),
        )
        for of_block in map_target(snapshot.workspace, target.target, target.measured_on, score):
            for cross, documents in zip(crosses.values(), of_block, strict=True):
                cross.add(*documents)
        for name, cross in crosses.items():
            if cross.n_ngrams:  # those told apart may be of one document, without a word
                base = np.array([0]) if name == "kl_reduction" else random
                compare(name, cross, names, base, target.name, metrics)
    return counts.texts


def apart(counts: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return the counts of a target's own n-grams, and of all others together."""
    mine = counts[own]
    return np.append(mine, counts.sum() - mine.sum())


@dataclass(frozen=True)
class _Score:
    """What `CrossEntropies.add` takes, of the texts of a block: under the independent hash, unhashed, as selected."""

    independent_spec: FeatureSpec
    selecting_spec: FeatureSpec
    held_out: HeldOut
    independent: Weigher
    plain: np.ndarray
    selecting: Weigher

    def __call__(self, texts: pa.Array) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        scored = []
        for spec, weigh in (
            (self.independent_spec, self.independent),
            (self.selecting_spec, self.selecting),
        ):
            features = featurize(texts, spec)
            scores, n_ngrams = weigh(features)
            scored.append((features.content_hash, n_ngrams, scores))
        independent, selecting = scored
        told_apart = independent[0] <= self.held_out.threshold
        ngrams = hash_ngrams(texts.filter(pa.array(told_apart)), self.independent_spec)
        scores = sums(ngrams, self.held_out.vocabulary.numbers(ngrams.hashes), self.plain)
        return [independent, (ngrams.content_hash, ngrams.n_ngrams, scores), selecting]


def measure_overlap(picks: dict[str, Pick], drawn_again: np.ndarray | None, metrics: Metrics) -> None:
    """Measure the share of the selection's documents that other picks have too."""
    mine = distinct(picks["selection"].positions)
    shares = {name: overlap(mine, pick.positions) for name, pick in picks.items() if name != "selection"}
    for name, share in by_pick(shares).items():
        metrics.add("agreement", name, share)
    again = 1.0 if drawn_again is None else overlap(mine, np.sort(drawn_again))
    metrics.add("agreement", "seed", again)


def measure_lengths(picks: dict[str, Pick], pool: PoolSummary, min_tokens: int, metrics: Metrics) -> None:
    """Measure tokens, and tokens a document."""
    lengths = {"pool": pool.lengths} | {name: Counter(pick.n_tokens.tolist()) for name, pick in picks.items()}
    measures = {
        "tokens": total,
        "mean_tokens": lambda each: total(each) / each.total(),
        "p10_tokens": lambda each: quantile(each, 0.1),
        "median_tokens": lambda each: quantile(each, 0.5),
        "p90_tokens": lambda each: quantile(each, 0.9),
    }
    for measure, function in measures.items():
        for name, value in by_pick({name: function(each) for name, each in lengths.items()}).items():
            metrics.add(measure, name, value)
    long_enough = Counter({length: n for length, n in pool.lengths.items() if length >= min_tokens})
    metrics.add("median_tokens", "eligible", quantile(long_enough, 0.5))


def total(counts: Counter[int]) -> int:
    """Return the sum of counted numbers."""
    return sum(number * count for number, count in counts.items())


def quantile(counts: Counter[int], q: float) -> float:
    """Return what ``np.quantile`` returns for counted numbers, bit for bit."""
    numbers = sorted(counts)
    ends = np.cumsum([counts[number] for number in numbers])
    at = q * (ends[-1] - 1)
    below = int(at)
    # The two neighbors; the quantile lies between them.
    first, second = np.searchsorted(ends, [below, min(below + 1, ends[-1] - 1)], side="right")
    return np.quantile([numbers[first], numbers[second]], at - below)


def measure_contents(
    picks: dict[str, Pick], pool: PoolSummary, targets: list[TargetTexts], metrics: Metrics
) -> None:
    """Count duplicates, and documents that are in the target."""
    contents = {name: pick.once().content_hash for name, pick in picks.items()}
    for name, value in by_pick({name: duplicates(each) for name, each in contents.items()}).items():
        metrics.add("duplicates", name, value)
    for (metric, target), hashes in known_contents(targets).items():
        metrics.add(metric, "pool", pool.leaked[metric, target], target)
        found = {name: contained(each, hashes).sum() for name, each in contents.items()}
        for name, value in by_pick(found).items():
            metrics.add(metric, name, value, target)


def measure_composition(
    sources: pa.ChunkedArray, pool: PoolSummary, metrics: Metrics
) -> list[tuple[str, float, float]]:
    """Measure the sources' shares of pool and selection; return them, largest in the selection first."""
    picked = Counter({item["values"]: item["counts"] for item in sources.value_counts().to_pylist()})
    composition = []
    for name, count in pool.sources.most_common():
        shares = count / pool.sources.total(), picked[name] / max(picked.total(), 1)
        composition.append((name, *shares))
        metrics.add("share", "pool", shares[0], source=name)
        metrics.add("share", "selection", shares[1], source=name)
    return sorted(composition, key=lambda row: -row[2])
