"""``method: mixture``: random documents in the proportions of the pool's sources that come closest to the target.

What belongs here: running :mod:`dsir.mixture` over the store; from shares of n-grams to shares of the budget. What
does not: the method itself (``dsir/mixture.py``). The weights are written beside the picks as ``mixture.csv``.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic

from dsir.evaluation import masked_totals
from dsir.features import featurize
from dsir.mixture import PARTS, MixtureOptions, SourceMixture, fit_mixture, part_of
from dsir.selection import Budget
from dsir_dagster.assets.methods import random
from dsir_dagster.assets.methods.ranking import Ranking
from dsir_dagster.assets.picking.candidates import Candidates, Documents, Part
from dsir_dagster.assets.picking.texts import map_target
from dsir_dagster.resources import plots
from dsir_dagster.resources.settings import ConfigError, KeyRule, Method, MethodOptions
from dsir_dagster.resources.settings.types import Number
from dsir_dagster.resources.table import Column, Table

#: The most totals held in memory: sources, or parts, times buckets.
LARGEST = 1 << 27


class MixingOptions(MethodOptions):
    """Options of ``mixture``."""

    sources: Annotated[int, pydantic.Field(gt=0)] | None = None
    """Use at most this many sources."""
    smoothing: Annotated[Number, pydantic.Field(gt=0)] = MixtureOptions.smoothing
    """Pseudo-counts per bucket of the target and of every source."""


@dataclass(frozen=True)
class Sources:
    """A pool's eligible documents by source.

    Attributes
    ----------
    names : list of str
        Sorted.
    totals : ndarray of int64, shape (sources, buckets)
    documents, tokens : ndarray of int64, shape (sources,)
    """

    names: list[str]
    totals: np.ndarray
    documents: np.ndarray
    tokens: np.ndarray


def fit(candidates: Candidates, budget: Budget) -> Ranking:
    """Fit the weights of the sources, and rank by noise within each.

    Raises
    ------
    ConfigError
        There are too many sources, or their caps add up to less than the budget.
    """
    selection = candidates.selection
    [name] = selection.targets
    sources = count_sources(candidates)
    amounts = sources.documents if budget.tokens is None else sources.tokens
    n_ngrams = np.maximum(sources.totals.sum(axis=1), 1)
    # No source can give the selection more n-grams than it has.
    selected = budget.amount * n_ngrams.sum() / max(amounts.sum(), 1)
    caps = np.minimum(n_ngrams / selected, 1.0)
    if isinstance(selection.source_caps, dict):
        caps = np.minimum(caps, [selection.source_caps.get(each, 1.0) for each in sources.names])
    elif selection.source_caps is not None:
        caps = np.minimum(caps, selection.source_caps)
    configured = cast(MixingOptions, selection.options)
    options = MixtureOptions(configured.smoothing, configured.sources, seed=selection.seed)
    candidates.tell(part="fitting the mixture")
    try:
        mixture = fit_mixture(sources.totals, target_parts(candidates, name), options, caps=caps)
    except ValueError as error:
        raise ConfigError(f"selection '{selection.name}', target '{name}': {error}") from None
    share = mixture.weights * amounts / n_ngrams
    shares = {
        source: float(each) for source, each in zip(sources.names, share / share.sum(), strict=True) if each
    }
    return Ranking(
        random.fit(candidates, budget).keys,
        source_shares=shares,
        numbers={
            "kl_mixture": mixture.kl,
            "kl_pool": mixture.kl_pool,
            "gap": mixture.gap,
            "converged": str(mixture.converged).lower(),
            "sources": len(shares),
        },
        tables=tables(sources, mixture),
        files={"mixture.csv": weights_table(sources, mixture)},
    )


METHOD = Method(
    "mixture",
    fit,
    KeyRule(noise=True, besides="its source has its share of the mixture"),
    MixingOptions,
    joint=True,
    one_target=True,
)


def count_sources(candidates: Candidates) -> Sources:
    """Add up the n-grams of the eligible documents of each source, in one pass over the cached features."""
    name = f"selection '{candidates.selection.name}'"
    found = BySource(name, candidates.snapshot.settings.features.buckets)
    counted = partial(_count_shard, name, found.buckets)
    candidates.begin("n-grams by source")
    for part in candidates.each_shard(counted, targets=[], features=True):
        found.add(part)
    names = sorted(found.totals)
    sizes = np.array([found.sizes[each] for each in names])
    return Sources(names, np.array([found.totals[each] for each in names]), sizes[:, 0], sizes[:, 1])


@dataclass
class BySource:
    """N-gram totals, documents and tokens by source.

    Attributes
    ----------
    name : str
        Of the selection, for messages.
    buckets : int
    totals : dict of str to ndarray of int64, shape (buckets,)
    sizes : dict of str to ndarray of int64, shape (2,)
        Documents and tokens.
    """

    name: str
    buckets: int
    totals: dict[str, np.ndarray] = field(default_factory=dict)
    sizes: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, other: "BySource") -> None:
        """Add those of another part of the pool.

        Raises
        ------
        ConfigError
            There are more sources than fit into memory.
        """
        self.make_room(len(self.totals.keys() | other.totals.keys()))
        for mine, theirs in ((self.totals, other.totals), (self.sizes, other.sizes)):
            for source, values in theirs.items():
                mine[source] = mine[source] + values if source in mine else values

    def make_room(self, n_sources: int) -> None:
        """Refuse so many sources before their totals are made."""
        if n_sources * self.buckets > LARGEST:
            raise ConfigError(
                f"{self.name}: method mixture holds the totals of every source, and there are {n_sources:,} sources of "
                f"{self.buckets:,} buckets, or more; name coarser sources in raw[].source, or use fewer buckets"
            )


def _count_shard(name: str, buckets: int, part: Part, given: None) -> BySource:
    found = BySource(name, buckets)
    for block in part(partial(_count_block, name, buckets)):
        found.add(block)
    return found


def _count_block(name: str, buckets: int, documents: Documents) -> BySource:
    codes = documents.table["source"].combine_chunks().dictionary_encode()
    found = BySource(name, buckets)
    found.make_room(len(codes.dictionary))
    features = documents.features
    for code, source in enumerate(codes.dictionary.to_pylist()):
        mask = documents.eligible & (codes.indices.to_numpy() == code)
        totals = np.zeros((1, buckets), dtype=np.int64)
        masked_totals(features, mask[np.newaxis], totals)
        found.totals[source] = totals[0]
        found.sizes[source] = np.array([mask.sum(), documents.n_tokens[mask].sum()])
    return found


def target_parts(candidates: Candidates, name: str) -> np.ndarray:
    """Count the n-grams of a target in parts: ndarray of int64, shape (parts, buckets)."""
    workspace = candidates.snapshot.workspace
    target, spec = workspace.settings.target(name), workspace.settings.features.spec()
    parts = max(2, min(PARTS, LARGEST // spec.buckets))
    totals = np.zeros((parts, spec.buckets), dtype=np.int64)
    for features in map_target(workspace, target, target.uri, lambda texts: featurize(texts, spec)):
        part = part_of(features.content_hash, parts)
        masks = part[np.newaxis] == np.arange(parts)[:, np.newaxis]
        masked_totals(features, masks, totals)
    return totals


def weights_table(sources: Sources, mixture: SourceMixture) -> pa.Table:
    """Return the sources' weights with their uncertainty, largest first."""
    table = pa.table(
        {
            "source": sources.names,
            "weight": mixture.weights,
            "standard_error": mixture.standard_error,
            "lower": mixture.lower,
            "upper": mixture.upper,
            "pool_share": mixture.pool_shares,
            "alignment": mixture.alignment,
            "documents": sources.documents,
            "tokens": sources.tokens,
        }
    )
    return table.sort_by([("weight", "descending"), ("source", "ascending")])


def tables(sources: Sources, mixture: SourceMixture) -> dict[str, Table | plots.Plot]:
    """Return the weights as a plot and a table."""
    rows = weights_table(sources, mixture).slice(0, plots.ROWS)
    weight, lower, upper = (rows[name].to_numpy() for name in ("weight", "lower", "upper"))
    errors = np.maximum([weight - lower, upper - weight], 0)
    names = rows["source"].to_pylist()
    groups: list[plots.Bars] = [
        ("pool", plots.POOL, rows["pool_share"].to_numpy(), None),
        ("mixture, with 95% interval", plots.SELECTION, weight, errors),
    ]
    used = pc.sum(pc.greater(weights_table(sources, mixture)["weight"], 0)).as_py()
    note = f"{len(names)} of {len(sources.names)} sources" if len(names) < len(sources.names) else ""
    return {
        "mixture, plot": plots.bars(names, groups, "share of the n-grams", ".1%", note),
        f"mixture, {used} sources": Table(
            [
                Column("source"),
                Column("weight", "number", 3),
                Column("95% interval", "range"),
                Column("pool share", "number", 3),
                Column("alignment", "number", 3),
            ],
            [
                (r["source"], r["weight"], (r["lower"], r["upper"]), r["pool_share"], r["alignment"])
                for r in rows.to_pylist()
            ],
        ),
    }
