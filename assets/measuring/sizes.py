"""Whether fewer documents would be better, or more: the same selection at other sizes.

What belongs here: picking again at the factors of ``evaluation.budgets``, and measuring these picks. What does not: the
picks of other methods (``baselines.py``), what the numbers mean (``assets/report/verdict.py``), table and plot
(``shown.py``).

Every pick is measured whole, as a corpus: on one side what it is made of, on the other how much of it there is.
"""

from functools import partial, reduce

import numpy as np
import pyarrow as pa

from dsir.evaluation import (
    CrossEntropies,
    distinct,
    duplicates,
    independent_distribution,
    masked_totals,
)
from dsir.features import FeatureSpec, featurize
from dsir.importance import Weigher
from dsir.ngram_model import NgramModel
from dsir.selection import Budget
from dsir_dagster.assets.measuring.baselines import Pick, pick_positions
from dsir_dagster.assets.measuring.counts import independent_spec
from dsir_dagster.assets.measuring.measures import Metrics, TargetTexts
from dsir_dagster.assets.measuring.trained import training_texts
from dsir_dagster.assets.picking.candidates import Candidates
from dsir_dagster.assets.picking.rows import RowsOfShard, rows_by_shard
from dsir_dagster.assets.picking.survey import survey
from dsir_dagster.assets.picking.texts import map_target, text_blocks
from dsir_dagster.resources.compute import Tell, Worker, counted, untold
from dsir_dagster.resources.settings import ConfigError
from dsir_dagster.resources.settings.evaluation import RANDOM, size_name
from dsir_dagster.resources.snapshot import Snapshot


def picks_of_other_sizes(
    candidates: Candidates, budget: Budget, positions: np.ndarray
) -> dict[str, np.ndarray]:
    """Pick by the selection's own method at every size, one epoch: positions by name.

    Parameters
    ----------
    candidates : Candidates
    budget : Budget
        Of the selection.
    positions : ndarray of int64
        Of its first epoch.

    Raises
    ------
    ConfigError
        The method cannot pick so many.
    """
    factors = candidates.snapshot.settings.evaluation.sizes
    if not factors:
        return {}
    pool = survey(candidates)
    most = pool.eligible if budget.tokens is None else pool.eligible_tokens
    once = candidates.selection.model_copy(update={"epochs": 1})
    picks = {}
    for factor in factors:
        if factor == 1:
            picks[size_name(factor)] = positions
            continue
        size = budget.scaled(max(round(factor * budget.amount), 1))
        if size.amount > most:
            continue  # it would be the whole pool, at some other size
        try:
            picks[size_name(factor)] = pick_positions(candidates, size, once, f"at {factor:g} times the size")
        except ConfigError as error:
            raise ConfigError(f"evaluation.budgets, {factor:g}: {error}") from error
    return picks


def measure_sizes(
    snapshot: Snapshot,
    targets: list[TargetTexts],
    sizes: dict[str, Pick],
    random: list[Pick],
    metrics: Metrics,
    tell: Tell,
) -> None:
    """Measure the picks of every size.

    Parameters
    ----------
    snapshot, targets
    sizes : dict of str to Pick
        By name, as from :func:`picks_of_other_sizes`.
    random : list of Pick
        Of the selection's size; the base of every size's lead.
    metrics : Metrics
        Added to.
    tell : callable
    """
    for name, pick in sizes.items():
        metrics.add("documents", name, len(pick))
        metrics.add("tokens", name, pick.n_tokens.sum())
        metrics.add("duplicates", name, duplicates(pick.content_hash))
    _measure_leads(snapshot, targets, sizes, random, metrics, tell)
    if snapshot.settings.evaluation.bits_per_byte:
        _measure_bits(snapshot, targets, sizes, metrics, tell)


def _measure_leads(
    snapshot: Snapshot,
    targets: list[TargetTexts],
    sizes: dict[str, Pick],
    random: list[Pick],
    metrics: Metrics,
    tell: Tell,
) -> None:
    """Measure how much closer to the target than random picks each is, and how far ahead of it the selection is."""
    spec = independent_spec(snapshot.settings)
    # The same share of every size, so that the selection's own is measured as it is measured elsewhere.
    most = snapshot.settings.evaluation.sample
    share = min(most / max(int(sizes[size_name(1)].n_ngrams.sum()), 1), 1.0)
    parts = [pick.up_to(round(share * int(pick.n_ngrams.sum()))) for pick in sizes.values()]
    totals = _totals(snapshot, [*parts, *(pick.up_to(most) for pick in random)], spec, tell)
    q = np.array([independent_distribution(each) for each in totals])
    for target in targets:
        tell(part=f"sizes on target {target.name}")
        cross = CrossEntropies(q, smoothing=0)

        weigh = Weigher(cross.log_q)

        def score(texts: pa.Array, weigh: Weigher = weigh) -> tuple[np.ndarray, ...]:
            features = featurize(texts, spec)
            scores, n_ngrams = weigh(features)
            return features.content_hash, n_ngrams, scores

        for documents in map_target(snapshot.workspace, target.target, target.measured_on, score):
            cross.add(*documents)
        values, drawn = cross.values, cross.replicates(target.name)
        base, of_draws = values[len(sizes) :], drawn[:, len(sizes) :].mean(axis=1)
        chance = np.random.default_rng(list(RANDOM.encode())).standard_normal(len(drawn)) * base.std(ddof=1)
        own = list(sizes).index(size_name(1))
        for i, name in enumerate(sizes):
            over = of_draws - drawn[:, i] + chance
            metrics.add_interval("over_random", name, base.mean() - values[i], over, target.name)
            if i != own:
                lead = drawn[:, i] - drawn[:, own]
                metrics.add_interval("ahead", name, values[i] - values[own], lead, target.name)


def _totals(snapshot: Snapshot, picks: list[Pick], spec: FeatureSpec, tell: Tell) -> np.ndarray:
    """Add up the n-grams of several picks, read again: ndarray of int64, shape (picks, buckets)."""
    wanted = distinct(np.concatenate([pick.positions for pick in picks]))
    shards = list(rows_by_shard(snapshot.plan, wanted))
    ends = np.cumsum([len(each.rows) for each in shards])
    times = np.zeros((len(picks), len(wanted)), np.uint16)
    for mine, pick in zip(times, picks, strict=True):
        np.add.at(mine, np.searchsorted(wanted, pick.positions), 1)
    items = zip(shards, np.split(times, ends[:-1], axis=1), strict=True)
    found = snapshot.compute.map(partial(_totals_of_shard, spec), items)
    return reduce(np.add, counted(tell, "n-grams of the sizes", found, len(shards)))


def _totals_of_shard(spec: FeatureSpec, worker: Worker, item: tuple[RowsOfShard, np.ndarray]) -> np.ndarray:
    rows, times = item
    totals = np.zeros((len(times), spec.buckets), np.int64)
    for texts, at in text_blocks(worker, rows):
        masked_totals(featurize(texts, spec), np.ascontiguousarray(times[:, at]), totals)
    return totals


def _measure_bits(
    snapshot: Snapshot, targets: list[TargetTexts], sizes: dict[str, Pick], metrics: Metrics, tell: Tell
) -> None:
    """Measure bits per byte under a model of every size: of all of it, or of the same share of all sizes.

    The selection's share is that of ``evaluation.bits_per_byte.tokens``, so that memory stays bounded.
    """
    asked = snapshot.settings.evaluation.bits_per_byte
    assert asked is not None, "only where asked for"
    share = min(asked.tokens / int(sizes[size_name(1)].n_tokens.sum()), 1.0)
    tell(part="training models of the sizes", of=len(sizes))
    for name, pick in sizes.items():
        tokens = round(share * int(pick.n_tokens.sum()))
        try:
            [texts] = training_texts(snapshot, {name: pick}, tokens, untold).values()
            model = NgramModel.fit(texts)
            for target in targets:
                metrics.add("bits_per_byte", name, model.bits_per_byte(target.texts), target.name)
        except ValueError as error:
            raise ConfigError(f"evaluation.bits_per_byte, {name}: {error}") from error
        tell(work=1)
