"""``dsir prune``: outputs that no configuration refers to any more, shown, and removed on request.

What belongs here: what may go. What does not: what is due (``resources/plan.py``), arguments
(``dagster_project/cli.py``).

What the configurations name now is kept: the outputs of targets and of shards whose files exist, the distribution that
the estimator is pinned to, and the latest version of each selection. The rest may go: vanished shards, old versions of
selections, outputs whose names are in no configuration, and files that ``dsir verify`` set aside. Lineage stays as
history; its rows are marked as pruned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import dagster as dg

from dsir_dagster.resources.bulk_files import Stored
from dsir_dagster.resources.graph import Partitions, graph
from dsir_dagster.resources.partitions import shards
from dsir_dagster.resources.store import DAMAGED
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.terminal import Terminal, grid

#: Leftovers listed by name.
SHOWN = 50

OLDER_VERSION = "an older version"


@dataclass(frozen=True)
class Leftover:
    """A file, or the folder of a selection's version, that no configuration refers to.

    Attributes
    ----------
    name : str
        Its path below DSIR_HOME, or below the object store's prefix.
    why : str
    bytes : int
    folder : bool
    """

    name: str
    why: str
    bytes: int
    folder: bool = False


def find_leftovers(workspaces: Sequence[Workspace]) -> tuple[list[Leftover], dict[str, str]]:
    """Return what no configuration of a home refers to, sorted by path, and the absent sources and targets.

    A source that matches no file at all loses nothing: it is more likely an unmounted disk than an empty pool. Absent
    ones are named as in `Workspace.known_plan`.
    """
    known = [workspace.known_plan() for workspace in workspaces]
    plans, absent = (
        [plan for plan, _ in known],
        {name: why for _, each in known for name, why in each.items()},
    )
    store, latest = workspaces[0].store, workspaces[0].latest()
    vanished = {shard for workspace in workspaces for shard in workspace.discovery.vanished()}
    found: list[Leftover] = []
    for asset in graph():
        keys = {key for plan in plans for key in asset.partitions.keys(plan)}
        for kind in asset.files:
            listing = store.listing(kind.name)
            if asset.keeps_versions:
                for folder, size in _by_version(listing).items():
                    _, name, version = folder.split("/")
                    newest = latest.get((asset.name, name))
                    if name not in keys:
                        found.append(Leftover(folder, "no configuration names it", size, folder=True))
                    elif newest and newest.fingerprint != version:
                        found.append(Leftover(folder, OLDER_VERSION, size, folder=True))
                continue
            named = {PurePosixPath(kind.path(partition=key, target="")).name for key in keys}
            for name, stored in listing.items():
                path = PurePosixPath(name)
                if path.match(f"{kind.name}/{kind.glob}") and path.name not in named:
                    gone = asset.partitions is Partitions.SHARDS and path.stem in vanished
                    why = "its shard vanished" if gone else "no configuration names it"
                    found.append(Leftover(name, why, stored.bytes))
    found += [
        Leftover(name, "set aside by `dsir verify`", stored.bytes)
        for name, stored in store.listing(DAMAGED).items()
    ]
    return sorted(found, key=lambda each: each.name), absent


def remove_leftovers(
    workspace: Workspace, leftovers: Sequence[Leftover], instance: dg.DagsterInstance
) -> None:
    """Remove files, mark their lineage as pruned, remove vanished shards from Dagster's partitions.

    Lineage is marked first: a run in between may miss an output that still exists, but never expect one that is gone.
    """
    unnamed = {
        PurePosixPath(each.name).parent.name
        for each in leftovers
        if each.folder and each.why != OLDER_VERSION  # selections that no configuration names
    }
    workspace.catalog.record_pruned([each.name for each in leftovers], sorted(unnamed))
    for each in leftovers:
        workspace.store.remove(each.name)
    assert shards.name, "these partitions have a name"
    known = set(instance.get_dynamic_partitions(shards.name))
    paths = [PurePosixPath(each.name) for each in leftovers]
    gone = {path.stem for path in paths if path.parent.name == "raw_counts"}
    for key in sorted(known & gone):
        instance.delete_dynamic_partition(shards.name, key)


def print_leftovers(leftovers: Sequence[Leftover], console: Terminal) -> None:
    """Show the leftovers in order of paths, with the reason and the size."""
    rows = [(each.name, each.why, each.bytes / 1e6) for each in leftovers[:SHOWN]]
    console.print(grid(Table([Column("what"), Column("why"), Column("MB", "number", 1)], rows)))
    if len(leftovers) > SHOWN:
        console.print(f"and {len(leftovers) - SHOWN} more")


def _by_version(listing: Mapping[str, Stored]) -> dict[str, int]:
    """Return the bytes of each version's folder."""
    sizes: dict[str, int] = {}
    for name, stored in listing.items():
        folder = "/".join(name.split("/")[:3])
        sizes[folder] = sizes.get(folder, 0) + stored.bytes
    return sizes
