"""Counts of picks and of held-out text under features that selected nothing, from their texts.

What belongs here: which features those are, the picks' texts read once and counted, what is kept of held-out text to
tell its n-grams apart. What does not: which documents (``baselines.py``), figures from counts (``measures.py``).

This is an evaluation's one pass over the files of the pool, so it also returns the few texts that something else is to
show or compare. Nothing keeps the texts of a pick: a worker holds a block of them, and counts. The memory taken is 8
bytes a pick and feature: the independent hash's buckets, and the different n-grams of held-out text.

Selections of one size for the same targets are compared with the same picks, so what one evaluation counts is at hand
for the next one of the same run.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from dsir.evaluation import INDEPENDENT, distinct, masked_totals
from dsir.features import FeatureSpec, featurize
from dsir.importance import fit_threshold
from dsir.ngrams import Vocabulary, add_totals, hash_ngrams
from dsir_dagster.assets.importance_estimator import target_totals
from dsir_dagster.assets.measuring.baselines import Pick
from dsir_dagster.assets.picking.rows import RowsOfShard, rows_in
from dsir_dagster.assets.picking.texts import PoolTexts, map_target, text_blocks
from dsir_dagster.resources.compute import Tell, Worker, counted
from dsir_dagster.resources.settings import Settings, Target
from dsir_dagster.resources.snapshot import Snapshot

#: N-grams of each pick among which different ones are counted: a number that depends on the size of the sample.
DISTINCT_AMONG = 200_000
#: Documents of the selection's sample that near-copies are looked for among: every pair is compared.
COMPARED = 2_000


def independent_spec(settings: Settings) -> FeatureSpec:
    """Return the features of the headline figure, with the configuration's tokenizer."""
    return replace(INDEPENDENT, tokenizer=settings.features.tokenizer)


@dataclass(frozen=True)
class HeldOut:
    """The n-grams of a target's held-out text that are told apart, and the documents they are those of.

    Attributes
    ----------
    threshold : uint64
        Documents up to this content hash.
    vocabulary : Vocabulary
    """

    threshold: np.uint64
    vocabulary: Vocabulary


def read_held_out(snapshot: Snapshot, target: Target, contents: np.ndarray, ngrams: int) -> HeldOut:
    """Read the held-out text of a target, or its text if it has no holdout.

    Parameters
    ----------
    snapshot, target
    contents : ndarray of uint64
        Content hashes of its documents, ascending.
    ngrams : int
        Documents with about that many at most, drawn by content, but at least one.
    """
    spec = independent_spec(snapshot.settings)
    counts, holdout = target_totals(snapshot, target.name)
    total = int((holdout if target.holdout else counts).sum())
    threshold = max(np.uint64(fit_threshold(total, ngrams)), contents[0])

    def look(texts: pa.Array) -> np.ndarray:
        found = hash_ngrams(texts, spec)
        return distinct(found.of(found.content_hash <= threshold))

    read = map_target(snapshot.workspace, target, target.holdout or target.uri, look)
    return HeldOut(threshold, Vocabulary(np.concatenate(list(read))))


@dataclass(frozen=True)
class PickCounts:
    """What is counted of a pick.

    Attributes
    ----------
    independent : ndarray of int64, shape (buckets,)
        Under the independent hash.
    plain : ndarray of int64, shape (n-grams told apart,)
    different, sampled : int
        How many different n-grams, of how many in all, a sample of the pick has.
    """

    independent: np.ndarray
    plain: np.ndarray
    different: int
    sampled: int


@dataclass
class Counted:
    """The counts of the evaluation before, by what they depend on: the texts, and what is counted in them."""

    by_key: dict[bytes, PickCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """What is counted of some picks.

    Attributes
    ----------
    picks : list of PickCounts
    vocabulary : Vocabulary
        What `PickCounts.plain` tells apart: the n-grams of all targets.
    compared : list of str
        Texts of the selection to compare with each other.
    texts : PoolTexts
        These, and those that were asked for.
    """

    picks: list[PickCounts]
    vocabulary: Vocabulary
    compared: list[str]
    texts: PoolTexts


def count_picks(
    snapshot: Snapshot,
    picks: dict[str, Pick],
    held_out: Sequence[HeldOut],
    shown: np.ndarray,
    before: Counted,
    tell: Tell,
) -> Counts:
    """Read the texts of picks again, each document once, and count their n-grams.

    Parameters
    ----------
    snapshot
    picks : dict of str to Pick
        One is the ``selection``.
    held_out : sequence of HeldOut
        Of every target.
    shown : ndarray of int64
        Positions of documents whose texts are returned, whether picked or not.
    before : Counted
        What need not be counted again; becomes that of these picks.
    tell : callable

    Returns
    -------
    Counts
        Of the picks, in order.
    """
    vocabulary = Vocabulary(np.concatenate([each.vocabulary.hashes for each in held_out]))
    # Samples of equal size: a larger one has fewer different n-grams among a thousand.
    among = min(DISTINCT_AMONG, *(int(each.n_ngrams.sum()) for each in picks.values()))
    samples = {name: each.sample(among) for name, each in picks.items()}
    mine = samples["selection"]
    # Those of the smallest hash, which do not depend on where a document lies; each document once.
    positions, first = np.unique(mine.positions, return_index=True)
    compared = np.sort(positions[np.argsort(mine.content_hash[first], kind="stable")[:COMPARED]])
    kept = distinct(np.concatenate([compared, shown]))
    keys = {name: _key(pick, among, vocabulary) for name, pick in picks.items()}
    due = {key: name for name, key in keys.items() if key not in before.by_key}
    of_picks, of_samples = ([some[name].positions for name in due.values()] for some in (picks, samples))
    shards = list(_by_shard(snapshot, of_picks, of_samples, kept))

    spec = independent_spec(snapshot.settings)
    independent = np.zeros((len(due), spec.buckets), np.int64)
    plain = np.zeros((len(due), len(vocabulary)), np.int64)
    different: list[list[np.ndarray]] = [[] for _ in due]
    sampled = np.zeros(len(due), np.int64)
    texts: list[str] = []
    found = snapshot.compute.map(_CountShard(spec, vocabulary), shards)
    for part in counted(tell, "reading the picks", found, len(shards)):
        independent += part.independent
        plain.reshape(-1)[part.at] += part.times
        sampled += part.sampled
        texts += part.kept
        for gathered, some in zip(different, part.different, strict=True):
            gathered.append(some)
    n_different = [len(distinct(np.concatenate(each))) for each in different]
    new = map(PickCounts, independent, plain, n_different, sampled.tolist())
    known = before.by_key | dict(zip(due, new, strict=True))
    before.by_key = {key: known[key] for key in keys.values()}
    read = PoolTexts(kept, texts)
    return Counts([known[key] for key in keys.values()], vocabulary, read.of(compared), read)


def _key(pick: Pick, among: int, vocabulary: Vocabulary) -> bytes:
    """Return what the counts of a pick depend on, within one configuration."""
    made_of = hashlib.sha256(pick.content_hash.tobytes())
    made_of.update(vocabulary.hashes.tobytes())
    made_of.update(str(among).encode())
    return made_of.digest()


@dataclass(frozen=True)
class _ShardOfPicks:
    """The documents of a shard that are read, and the rows of each pick, of its sample, and of the texts to keep.

    A row is there as often as it was picked.
    """

    documents: RowsOfShard
    picks: list[np.ndarray]
    samples: list[np.ndarray]
    kept: np.ndarray


def _by_shard(
    snapshot: Snapshot, picks: list[np.ndarray], samples: list[np.ndarray], kept: np.ndarray
) -> Iterator[_ShardOfPicks]:
    plan = snapshot.plan
    for index, shard in enumerate(plan.counted):
        of_picks, of_samples = ([rows_in(index, each) for each in some] for some in (picks, samples))
        of_kept = rows_in(index, kept)
        if len(rows := distinct(np.concatenate([*of_picks, of_kept]))):  # a sample is part of its pick
            yield _ShardOfPicks(RowsOfShard.of(plan, shard, rows), of_picks, of_samples, of_kept)


@dataclass(frozen=True)
class _CountsOfShard:
    """The attributes of `Counts` for a shard; where `plain` is above 0, flattened, and what it is there."""

    independent: np.ndarray
    at: np.ndarray
    times: np.ndarray
    different: list[np.ndarray]  # the n-grams themselves
    sampled: np.ndarray
    kept: list[str]


@dataclass(frozen=True)
class _CountShard:
    """Count the picks' n-grams in a shard."""

    spec: FeatureSpec
    vocabulary: Vocabulary

    def __call__(self, worker: Worker, item: _ShardOfPicks) -> _CountsOfShard:
        rows = item.documents.rows
        times, in_sample = (_times(rows, each) for each in (item.picks, item.samples))
        keep = np.isin(rows, item.kept)
        independent = np.zeros((len(times), self.spec.buckets), np.int64)
        plain = np.zeros((len(times), len(self.vocabulary)), np.int64)
        different: list[list[np.ndarray]] = [[np.zeros(0, np.uint64)] for _ in times]
        sampled = np.zeros(len(times), np.int64)
        kept_texts: list[str] = []
        for texts, at in text_blocks(worker, item.documents):
            counted_here = np.ascontiguousarray(times[:, at])
            masked_totals(featurize(texts, self.spec), counted_here, independent)
            ngrams = hash_ngrams(texts, self.spec)
            add_totals(ngrams.offsets, self.vocabulary.numbers(ngrams.hashes), counted_here, plain)
            sampled += (in_sample[:, at] * ngrams.n_ngrams).sum(axis=1)
            for mine, kept in zip(in_sample[:, at], different, strict=True):
                kept.append(distinct(ngrams.of(mine > 0)))
            kept_texts += texts.filter(pa.array(keep[at])).to_pylist()
        where = np.flatnonzero(plain)
        return _CountsOfShard(
            independent,
            where,
            plain.reshape(-1)[where],
            [distinct(np.concatenate(each)) for each in different],
            sampled,
            kept_texts,
        )


def _times(rows: np.ndarray, picks: list[np.ndarray]) -> np.ndarray:
    """Return how often each row is in each pick: ndarray of uint16, shape (picks, rows)."""
    times = np.zeros((len(picks), len(rows)), np.uint16)
    for mine, picked in zip(times, picks, strict=True):
        np.add.at(mine, np.searchsorted(rows, picked), 1)
    return times
