"""One look at the pool before anything is picked: how many documents are eligible, and what the budget is.

What belongs here: counts of eligible documents, the budget they allow, refusing what the pool cannot give. What does
not: which documents are eligible (``candidates.py``).
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow.compute as pc

from dsir.selection import Budget
from dsir_dagster.assets.methods import Picked
from dsir_dagster.assets.picking.candidates import CRITERIA, Candidates, Documents, Part
from dsir_dagster.resources.settings import ConfigError, Selection, Size


@dataclass
class PoolSurvey:
    """What the pool holds, before anything is picked; ``sources`` only if caps name some."""

    documents: int = 0
    eligible: int = 0
    eligible_tokens: int = 0
    longest: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    sources: set[str] = field(default_factory=set)

    def add(self, other: "PoolSurvey") -> None:
        """Take what another part of the pool says into account."""
        self.documents += other.documents
        self.eligible += other.eligible
        self.eligible_tokens += other.eligible_tokens
        self.longest = max(self.longest, other.longest)
        self.excluded.update(other.excluded)
        self.sources |= other.sources


def survey(candidates: Candidates) -> PoolSurvey:
    """Count the eligible documents, and the others by the first criterion they fail."""
    named = isinstance(candidates.selection.source_caps, dict)
    pool = PoolSurvey()
    candidates.begin("eligible documents")
    for part in candidates.each_shard(
        partial(_survey, named), targets=[], columns=["source"] if named else []
    ):
        pool.add(part)
    return pool


def _survey(named: bool, part: Part, given: None) -> PoolSurvey:
    pool = PoolSurvey()
    for block in part(partial(_look, named)):
        pool.add(block)
    return pool


def _look(named: bool, documents: Documents) -> PoolSurvey:
    n_tokens = documents.n_tokens
    eligible, *excluded = np.bincount(documents.excluded_by, minlength=len(CRITERIA) + 1).tolist()
    return PoolSurvey(
        len(n_tokens),
        eligible,
        int(n_tokens[documents.eligible].sum()),
        int(n_tokens.max(initial=0)),
        Counter(dict(zip(CRITERIA, excluded, strict=True))),
        set(pc.unique(documents.table["source"]).to_pylist()) if named else set(),
    )


def budget_of(size: Size, pool: PoolSurvey, selection: str) -> tuple[Budget, str | None]:
    """Return the budget, and a note if the pool has less than requested.

    Raises
    ------
    ConfigError
        The fraction of the eligible documents is less than one document.
    """
    if size.tokens is not None:
        if size.tokens >= pool.eligible_tokens:
            note = f"asked for {size.tokens:,} tokens, took all {pool.eligible_tokens:,} eligible ones"
            return Budget(tokens=pool.eligible_tokens), note
        return Budget(tokens=size.tokens), None
    if size.fraction is not None:
        documents = int(size.fraction * pool.eligible)
        if documents == 0:
            raise ConfigError(
                f"selection '{selection}': a fraction of {size.fraction} of {pool.eligible:,} eligible "
                "documents is less than one document; raise size.fraction or let more documents be eligible"
            )
        return Budget(documents=documents), None
    assert size.documents is not None, "a size is one of the three"
    if size.documents > pool.eligible:
        note = f"asked for {size.documents:,} documents, took all {pool.eligible:,} eligible ones"
        return Budget(documents=pool.eligible), note
    return Budget(documents=size.documents), None


def short_of(selection: Selection, budget: Budget, found: Picked, pool: PoolSurvey) -> str | None:
    """Return a note if caps and near-duplicates leave too few documents of the pool, else None."""
    reasons = {
        "near-duplicates of better-ranked documents": bool(found.near_duplicates_dropped),
        "above the caps of their sources": selection.source_caps is not None,
    }
    why = " or ".join(reason for reason, given in reasons.items() if given)
    if not why:
        return None
    room = pool.longest * len(selection.targets)
    unit, room = ("documents", 0) if budget.tokens is None else ("tokens", room)
    least = min(int(budget.of(epoch).sum()) for epoch in found.epochs)
    if least + room >= budget.amount:
        return None
    return f"picked {least:,} of {budget.amount:,} {unit}: the rest are {why}"


def check_eligible(selection: Selection, pool: PoolSurvey) -> None:
    """Refuse a pool without eligible documents.

    Raises
    ------
    ConfigError
        Names the criteria that exclude them.
    """
    if not pool.documents:
        raise ConfigError(f"selection '{selection.name}': the counted shards hold no document")
    if not pool.eligible:
        by = ", ".join(f"{name} {n:,}" for name, n in pool.excluded.items() if n)
        raise ConfigError(
            f"selection '{selection.name}': none of {pool.documents:,} documents is eligible: min_tokens is "
            f"{selection.min_tokens}, the longest has {pool.longest:,}. Excluded by: {by or 'none'}. "
            "Lower min_tokens or widen the bounds of quality."
        )


def check_sources(selection: Selection, pool: PoolSurvey) -> None:
    """Refuse caps on sources that the pool does not have.

    Raises
    ------
    ConfigError
        Names them, and some that exist.
    """
    caps = selection.source_caps
    unknown = sorted(caps.keys() - pool.sources) if isinstance(caps, dict) else []
    if unknown:
        there = sorted(pool.sources)
        raise ConfigError(
            f"selection '{selection.name}': source_caps names {', '.join(unknown)}, which no document of the pool "
            f"comes from; there are: {', '.join(there[:20])}{' …' if len(there) > 20 else ''}"
        )
