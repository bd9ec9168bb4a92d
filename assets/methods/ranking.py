"""What a method returns, and what several methods need.

What belongs here: the interface between a method and ``assets.methods.pick``, names of noise, caps per source. What
does not: any one method.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from dsir.features import hash_strings
from dsir.noise import noise_key
from dsir.selection import Budget, Caps
from dsir_dagster.assets.picking.candidates import Documents
from dsir_dagster.resources.plots import Plot
from dsir_dagster.resources.settings import Selection
from dsir_dagster.resources.table import Table

#: Keys of documents for a target, given the name of the noise and a floor; see :attr:`Ranking.keys`.
Keys = Callable[[Documents, str, str, float], np.ndarray]


@dataclass(frozen=True)
class Ranking:
    """A method ready to rank documents.

    Attributes
    ----------
    keys : callable
        Takes documents, a target (for a joint method, the names of all targets joined by ``+``), the name of the noise
        and a floor; returns the documents' keys, ndarray of float64: the largest are picked. A key below the floor may
        be replaced by any other below it, and that of a document that is not eligible by anything. Called from several
        threads, with documents in any order.
    columns : sequence of str
        Columns of the documents that ``keys`` reads, besides those every candidate has.
    needs_features : bool
        Whether the documents must come with their cached features.
    source_shares : mapping of str to float, optional
        Each source's share of the budget; other sources get nothing. Default: the configured caps.
    numbers : mapping of str to int, float or str
        For the lineage and Dagster.
    tables : mapping of str to Table or Plot
        For Dagster.
    files : mapping of str to pyarrow.Table
        To be written beside the picks, by name, as CSV.
    """

    keys: Keys
    columns: Sequence[str] = ()
    needs_features: bool = False
    source_shares: Mapping[str, float] | None = None
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)
    tables: Mapping[str, Table | Plot] = field(default_factory=dict)
    files: Mapping[str, pa.Table] = field(default_factory=dict)


def draws_of(selection: Selection) -> list[str]:
    """Return what to draw for: each target, or all of them together."""
    if selection.declared.joint:
        return ["+".join(sorted(selection.targets))]
    return selection.targets


def noise_stream(selection: Selection, draw: str, epoch: int = 1) -> str:
    """Return the name of a draw's noise; targets and epochs draw independently of each other."""
    return f"{selection.name}/{draw}" + (f"#{epoch}" if epoch > 1 else "")


def noise_keys(selection: Selection) -> dict[str, str]:
    """Return the noise keys by target and epoch as hexadecimal digits, for `sql/macros_why.sql`."""
    keys = {}
    for epoch in range(1, selection.epochs + 1):
        for draw in draws_of(selection):
            key = f"{noise_key(selection.seed, noise_stream(selection, draw, epoch)):016x}"
            for target in selection.targets if selection.declared.joint else [draw]:
                keys[f"{target}#{epoch}" if epoch > 1 else target] = key
    return keys


def source_hashes(names: Sequence[str]) -> dict[str, int]:
    """Return the hash by which candidates name their source, by name."""
    return dict(zip(names, map(int, hash_strings(pa.array(names, pa.string()))), strict=True))


def caps_of(selection: Selection, source_shares: Mapping[str, float] | None, budget: Budget) -> Caps | None:
    """Return the caps per source within a budget: from the shares that a method chose, else as configured."""
    shares = selection.source_caps if source_shares is None else source_shares
    if shares is None:
        return None
    if isinstance(shares, float):
        return Caps(others=math.ceil(shares * budget.amount))
    hashes = source_hashes(list(shares))
    caps = {h: math.ceil(shares[name] * budget.amount) for name, h in hashes.items()}
    return Caps(caps, others=None if source_shares is None else 0)
