"""``dsir changes``: which documents entered or left between two versions of a selection, and why.

What belongs here: choosing the versions to compare, and layout. What does not: the comparison itself
(``sql/macros_changes.sql``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsir_dagster.resources.settings import ConfigError
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.terminal import Terminal, Text, grid, or_dash

#: Documents shown of those that entered, and of those that left.
SHOWN = 10


@dataclass(frozen=True)
class Changes:
    """What differs between two versions of a selection; the keys of ``dsir changes --json``.

    Attributes
    ----------
    selection : str
    versions : list of dict
        The two that are compared, the older first; or fewer, if there are no two whose files are there.
    counts : list of dict
        Documents that entered or left, by reason.
    documents : list of dict
        The best of those that entered, then of those that left.
    listed : list of dict
        Every version that was made.
    """

    selection: str
    versions: Sequence[dict[str, Any]]
    counts: Sequence[dict[str, Any]]
    documents: Sequence[dict[str, Any]]
    listed: Sequence[dict[str, Any]]


def collect_changes(workspace: Workspace, selection: str, old: str | None, new: str | None) -> Changes:
    """Compare two versions of a selection.

    Parameters
    ----------
    workspace : Workspace
    selection : str
    old, new : str or None
        Number or fingerprint of a version. Default for `new`: the latest; for `old`: the one before `new`. Both
        defaults skip versions whose files are gone.

    Raises
    ------
    ConfigError
        No selection or version has this name, or the files of a version are gone.
    """
    catalog = workspace.catalog
    every = catalog.query("changes_versions").to_pylist()
    versions = [row for row in every if row["selection"] == selection]
    if not versions:
        names = ", ".join(dict.fromkeys(row["selection"] for row in every)) or "none, run `dsir run` first"
        raise ConfigError(f"no selection '{selection}' was made; there are: {names}")
    for wanted in (old, new):
        if wanted is not None:
            _check_version(versions, wanted)
    compared = catalog.query("changes_compared", selection=selection, old=old, new=new).to_pylist()
    if len(compared) < 2:
        return Changes(selection, compared, [], [], versions)
    choice = {"selection": selection, "old": compared[0]["version"], "new": compared[1]["version"]}
    counts = catalog.query("changes_counts", **choice).to_pylist()
    documents = catalog.query("changes_documents", **choice, shown=SHOWN).to_pylist() if counts else []
    return Changes(selection, compared, counts, documents, versions)


def print_changes(changes: Changes, console: Terminal) -> None:
    """Show the changes between two versions of a selection."""
    if len(changes.versions) < 2:
        console.print(
            f"nothing to compare: selection '{changes.selection}' has {_listed(changes.listed)}",
            soft_wrap=True,
        )
        return
    _print_versions(changes.selection, changes.versions, console)
    if not changes.counts:
        console.print("the same documents are picked")
        return
    _print_counts(changes.counts, console)
    for change in ("entered", "left"):
        rows = [row for row in changes.documents if row["change"] == change]
        if rows:
            _print_documents(change, rows, console)


def _check_version(versions: Sequence[dict[str, Any]], wanted: str) -> None:
    """Raise ConfigError unless one of the versions has this number or fingerprint, and has its files."""
    found = [row for row in versions if wanted in (str(row["number"]), row["version"])]
    selection = versions[0]["selection"]
    if not found:
        raise ConfigError(
            f"selection '{selection}' has no version '{wanted}'; it has {_listed(versions)}. "
            "Name a version by its number or its fingerprint."
        )
    if not found[0]["on_disk"]:
        raise ConfigError(
            f"the files of version '{wanted}' of selection '{selection}' are gone, so its documents are not known; "
            f"it has {_listed(versions)}"
        )


def _listed(versions: Sequence[dict[str, Any]]) -> str:
    """List versions with number, fingerprint, time, and whether their files still exist."""

    def fate(row: dict) -> str:
        if row["on_disk"]:
            return ""
        return f", pruned {row['pruned_at']:%Y-%m-%d %H:%M:%S}" if row["pruned_at"] else ", files gone"

    return ", ".join(
        f"version {row['number']} ({row['version']}, made {row['finished_at']:%Y-%m-%d %H:%M:%S}{fate(row)})"
        for row in versions
    )


def _print_versions(selection: str, compared: Sequence[dict[str, Any]], console: Terminal) -> None:
    columns = [
        Column(f"selection {selection}"),
        Column("version", "whole"),
        Column("fingerprint"),
        Column("made at"),
        Column("documents", "whole"),
        Column("tokens", "whole"),
    ]
    rows = [
        (
            row["side"],
            row["number"],
            row["version"],
            f"{row['finished_at']:%Y-%m-%d %H:%M:%S}",
            row["documents"],
            row["tokens"],
        )
        for row in compared
    ]
    console.print(grid(Table(columns, rows)))
    if compared[1]["configured"]:
        console.print(f"configuration changed: {compared[1]['configured']}", soft_wrap=True)


def _print_counts(counts: Sequence[dict[str, Any]], console: Terminal) -> None:
    styles = {"entered": "green"}
    rows = [
        (Text(row["change"], styles.get(row["change"], "yellow")), row["documents"], row["why"])
        for row in counts
    ]
    console.print()
    console.print(grid(Table([Column("change"), Column("documents", "whole"), Column("why")], rows)))


def _print_documents(change: str, rows: list[dict], console: Terminal) -> None:
    """Show documents with their keys in both versions; a key no longer known is a dash."""
    numbers = ("old_key", "new_key", "old_threshold", "new_threshold")
    several_reasons = len({row["why"] for row in rows}) > 1  # one alone stands in the table of counts
    columns = [
        Column(f"{change}, the best"),
        Column("rank", "whole"),
        Column("target"),
        *(Column(name.replace("_", "\n"), "number", 3) for name in numbers),
        *([Column("why")] if several_reasons else []),
    ]
    cells = [
        (
            row["doc_id"],
            row["rank"],
            row["target"],
            *(or_dash(row[name]) for name in numbers),
            # The table of counts shows it in full.
            *([Text(row["why"], no_wrap=True, overflow="ellipsis")] if several_reasons else []),
        )
        for row in rows
    ]
    console.print()
    console.print(grid(Table(columns, cells)))
