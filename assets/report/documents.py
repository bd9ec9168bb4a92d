"""Which documents a report shows, and the counts behind its plots, from one look at the pool.

What belongs here: picked documents, the next ones and typical ones, with their verdicts, texts and n-grams. What does
not: what the page says about them (``page.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsir.evaluation import contained, distinct
from dsir.explain import Contribution, explain
from dsir.noise import gumbel_noise
from dsir.selection import Budget, pack_position
from dsir_dagster.assets.importance_estimator import read_log_ratios
from dsir_dagster.assets.methods import METHODS
from dsir_dagster.assets.methods.ranking import Keys, noise_stream
from dsir_dagster.assets.picking.candidates import (
    COLUMNS,
    CRITERIA,
    Candidates,
    Documents,
    Part,
    picked_positions,
)
from dsir_dagster.assets.picking.texts import PoolTexts
from dsir_dagster.resources import plots
from dsir_dagster.resources.compute import Tell
from dsir_dagster.resources.plan import Output, Plan
from dsir_dagster.resources.settings import KeyRule, Selection
from dsir_dagster.resources.snapshot import Snapshot

#: Documents shown: picked ones, the next ones, and typical ones of the rest.
PICKED, NEXT, TYPICAL = 10, 6, 4
#: N-grams shown for a document, and as many against it; characters of its text to look for them in.
NGRAMS, EXPLAINED = 6, 100_000


@dataclass
class Shown:
    """A document that the page shows.

    Attributes
    ----------
    position : int
        From :func:`dsir.selection.pack_position`.
    shard, doc_id, source, target : str
    row, n_tokens : int
    log_weight : float
    verdict : str
    text : str
    contributions : list of Contribution
        Largest first.
    """

    position: int
    shard: str
    row: int
    doc_id: str
    source: str
    n_tokens: int
    target: str
    log_weight: float
    verdict: str
    text: str = ""
    contributions: list[Contribution] = field(default_factory=list)

    @property
    def speaks_for(self) -> list[Contribution]:
        """The n-grams that raise its log weight most."""
        return [each for each in self.contributions[:NGRAMS] if each.nats > 0]

    @property
    def speaks_against(self) -> list[Contribution]:
        """The n-grams that lower its log weight most."""
        return [each for each in self.contributions[: -NGRAMS - 1 : -1] if each.nats < 0]


class Leading:
    """The documents with the largest scores of a stream."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.found: list[tuple[float, Shown]] = []

    def add(self, score: np.ndarray, show: Callable[[int], Shown]) -> None:
        """Offer documents: ndarray of float64, -inf to leave one out; and a callable from place to document."""
        floor = self.found[-1][0] if len(self.found) == self.n else -np.inf
        above = np.flatnonzero(score > floor)
        if len(above) > self.n:  # rare: most blocks have none or a few
            least = np.partition(score[above], -self.n)[-self.n]
            above = above[score[above] >= least]
        best = above[np.argsort(-score[above], kind="stable")][: self.n]
        self._keep([(float(score[at]), show(int(at))) for at in best])

    def merge(self, other: "Leading") -> None:
        """Take those of another part of the stream into account."""
        self._keep(other.found)

    def _keep(self, more: list[tuple[float, Shown]]) -> None:
        self.found += more
        self.found.sort(key=lambda each: (-each[0], each[1].position))
        del self.found[self.n :]

    @property
    def documents(self) -> list[Shown]:
        """The documents, largest score first."""
        return [document for _, document in self.found]


@dataclass
class Look:
    """What one look at the pool gives for the page: documents, and the counts behind its plots."""

    selected: list[Shown]
    next: Leading
    typical: Leading
    histograms: list[plots.Histogram]
    lengths: np.ndarray

    @classmethod
    def of(cls, selection: Selection) -> "Look":
        """Return one at no documents."""
        histograms = [plots.Histogram() for _ in selection.targets[: plots.PANELS]]
        return cls([], Leading(NEXT), Leading(TYPICAL), histograms, np.zeros(plots.LENGTHS, np.int64))

    @property
    def shown(self) -> list[Shown]:
        """All documents that the page shows."""
        return [*self.selected, *self.next.documents, *self.typical.documents]

    @property
    def positions(self) -> np.ndarray:
        """Where they are: ndarray of int64."""
        return np.array([each.position for each in self.shown], np.int64)

    def add(self, other: "Look") -> None:
        """Take a look at another part of the pool into account."""
        self.next.merge(other.next)
        self.typical.merge(other.typical)
        self.lengths += other.lengths
        for mine, theirs in zip(self.histograms, other.histograms, strict=True):
            mine.documents.update(theirs.documents)


def spread(plan: Plan, selection: Selection, picks: pa.Table) -> list[Shown]:
    """Return picked documents evenly spread over the first epoch's rankings, from first to last."""
    index = {shard: i for i, shard in enumerate(plan.counted)}
    thresholds, counts = thresholds_of(picks), {}
    for target in selection.targets:
        counts[target] = pc.sum(of_target(picks, target)).as_py() or 0
    first = picks.filter(pc.equal(picks["epoch"], 1))
    shown = []
    for at in np.unique(np.linspace(0, len(first) - 1, PICKED).round().astype(int)).tolist():
        row = first.slice(at, 1).to_pylist()[0]
        margin = row["key"] - thresholds[row["target"]]
        verdict = f"rank {row['rank']:,} of {counts[row['target']]:,}, key {row['key']:,.2f}"
        verdict += f", above the threshold by {margin:,.2f}" if margin else ": the threshold"
        position = int(pack_position(index[row["shard"]], row["row"]))
        names = ("shard", "row", "doc_id", "source", "n_tokens", "target", "log_weight")
        fields = {name: row[name] for name in names}
        shown.append(Shown(position=position, verdict=verdict, **fields))
    return shown


def of_target(picks: pa.Table, target: str) -> pa.ChunkedArray:
    """Tell which picks belong to the first epoch and a target."""
    return pc.and_(pc.equal(picks["epoch"], 1), pc.equal(picks["target"], target))


def thresholds_of(picks: pa.Table) -> dict[str, float]:
    """Return the smallest key picked in the first epoch, by target."""
    first = picks.filter(pc.equal(picks["epoch"], 1)).group_by("target").aggregate([("key", "min")])
    return dict(zip(first["target"].to_pylist(), first["key_min"].to_pylist(), strict=True))


def look_at_pool(
    snapshot: Snapshot, selection: Selection, source: Output, picks: pa.Table, tell: Tell
) -> Look:
    """Look at all documents once: the next ones, typical ones of the rest, log weights and lengths.

    Parameters
    ----------
    snapshot, selection
    source : Output
        The selection.
    picks : pyarrow.Table
        Rows of its ``picks.parquet``.
    tell : callable
    """
    rule = KeyRule.of(source.made.metadata)
    candidates = Candidates(snapshot, selection, tell=tell)
    keys = METHODS[selection.method].fit(candidates, Budget(documents=1)).keys if rule.decides else None
    chosen = distinct(picked_positions(snapshot.plan, picks))
    look = Look.of(selection)
    look.selected = spread(snapshot.plan, selection, picks)
    of_shard = _ShardLook(selection, keys, thresholds_of(picks), chosen)
    candidates.begin("documents to show")
    for part in candidates.each_shard(of_shard, columns=[*COLUMNS, "doc_id"]):
        look.add(part)
    return look


@dataclass(frozen=True)
class _ShardLook:
    """What the page shows of one shard."""

    selection: Selection
    keys: Keys | None
    thresholds: dict[str, float]
    chosen: np.ndarray

    def __call__(self, part: Part, given: None) -> Look:
        look = Look.of(self.selection)
        for block in part(self._look):
            look.add(block)
        return look

    def _look(self, documents: Documents) -> Look:
        look = Look.of(self.selection)
        look.lengths += np.bincount(length_bin(documents.n_tokens), minlength=plots.LENGTHS)
        for target, histogram in zip(self.selection.targets, look.histograms, strict=False):
            histogram.add(documents.log_weights[target][documents.eligible])
        ranked = Ranked.of(documents, self.selection, self.keys, self.thresholds)
        left = ~contained(ranked.positions, self.chosen)
        look.next.add(np.where(left & documents.eligible, ranked.score, -np.inf), ranked.shown)
        noise = gumbel_noise(documents.content_hash, 0, "report")
        look.typical.add(np.where(left, noise, -np.inf), ranked.shown)
        return look


@dataclass
class Ranked:
    """A block of documents, ranked by how far they are above the threshold of their best target.

    Attributes
    ----------
    documents, selection, thresholds
    keyed : bool
        Whether a score is the key less the threshold; if keys do not decide, it is the log weight.
    positions : ndarray of int64, shape (n_documents,)
        From :func:`dsir.selection.pack_position`.
    weights : ndarray of float64, shape (n_targets, n_documents)
        Log weights.
    best : ndarray of int64, shape (n_documents,)
        Index of the target with the largest score.
    score : ndarray of float64, shape (n_documents,)
        The largest score.
    """

    documents: Documents
    selection: Selection
    thresholds: dict[str, float]
    keyed: bool
    positions: np.ndarray
    weights: np.ndarray
    best: np.ndarray
    score: np.ndarray

    @classmethod
    def of(
        cls,
        documents: Documents,
        selection: Selection,
        keys: Keys | None,
        thresholds: dict[str, float],
    ) -> "Ranked":
        """Rank a block by its keys, or by its log weights if it has none."""
        scores = weights = np.array([documents.log_weights[target] for target in selection.targets])
        if keys is not None:
            scores = np.array(
                [
                    keys(documents, target, noise_stream(selection, target), -np.inf)
                    - thresholds.get(target, np.inf)
                    for target in selection.targets
                ]
            )
        positions = pack_position(documents.shard, documents.table["row"].to_numpy())
        best, score = scores.argmax(axis=0), scores.max(axis=0, initial=-np.inf)
        return cls(documents, selection, thresholds, keys is not None, positions, weights, best, score)

    def shown(self, at: int) -> Shown:
        """Return what the page shows of the document at a place in the block."""
        row = self.documents.table.slice(at, 1).to_pylist()[0]
        target = self.selection.targets[self.best[at]]
        weight, score = float(self.weights[self.best[at], at]), self.score[at]
        if excluded := self.documents.excluded_by[at]:
            verdict = f"not eligible: {CRITERIA[excluded - 1]}"
        elif not self.keyed:
            verdict = f"log weight {weight:,.2f}"
        else:
            verdict = f"key {score + self.thresholds[target]:,.2f}"
            if score >= 0:
                verdict += f"; {passed_over(self.selection)}"
            else:
                verdict += f", below the threshold by {-score:,.2f}"
        fields = {name: row[name] for name in ("row", "doc_id", "source", "n_tokens")}
        position, shard = int(self.positions[at]), self.documents.key
        return Shown(position, shard, target=target, log_weight=weight, verdict=verdict, **fields)


def passed_over(selection: Selection) -> str:
    """Say why a document with a key above the threshold was left out, as ``sql/macros_why.sql`` does."""
    reasons = []
    if selection.near_duplicates:
        reasons.append("a better-ranked document is nearly the same")
    if selection.source_caps is not None:
        reasons.append("its source has its share")
    return " or ".join(reasons) or "another one of this key came first"


def add_texts(snapshot: Snapshot, look: Look, texts: PoolTexts) -> None:
    """Give the documents that the page shows their texts, and explain these."""
    targets, ratios = read_log_ratios(snapshot)
    spec = snapshot.settings.features.spec()
    for each, text in zip(look.shown, texts.of(look.positions), strict=True):
        each.text = text
        each.contributions = explain(each.text[:EXPLAINED], spec, ratios[targets.index(each.target)])


def length_bin(n_tokens: np.ndarray) -> np.ndarray:
    """Return the bins of :func:`dsir_dagster.resources.plots.lengths` that the lengths are in."""
    return np.minimum(np.floor(4 * np.log2(np.maximum(n_tokens, 1)) + 1e-9), plots.LENGTHS - 1).astype(
        np.int64
    )
