"""``dsir prune``: outputs that no configuration refers to any more, shown, and removed on request.

What belongs here: what may go. What does not: what is due (``resources/plan.py``), arguments
(``dagster_project/cli.py``).

What the configurations name now is kept: the outputs of targets and of shards whose files exist, the distribution that
the estimator is pinned to, and the latest version of each selection. The rest may go: vanished shards, old versions of
selections, outputs whose names are in no configuration, and files that ``dsir verify`` set aside. Lineage stays as
history; its rows are marked as pruned.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from dsir_dagster.resources.graph import Partitions, graph
from dsir_dagster.resources.partitions import shards
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
    path : Path
    why : str
    bytes : int
    """

    path: Path
    why: str
    bytes: int


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
    home = workspaces[0].home
    latest = workspaces[0].latest()
    vanished = {shard for workspace in workspaces for shard in workspace.discovery.vanished()}
    found: list[tuple[Path, str]] = []
    for asset in graph():
        keys = {key for plan in plans for key in asset.partitions.keys(plan)}
        for kind in asset.files:
            if asset.keeps_versions:
                for folder in (home / kind.name).glob(str(Path(kind.glob).parent)):
                    name = folder.parent.name
                    newest = latest.get((asset.name, name))
                    if name not in keys:
                        found.append((folder, "no configuration names it"))
                    elif newest and newest.fingerprint != folder.name:
                        found.append((folder, OLDER_VERSION))
                continue
            named = {Path(kind.path(partition=key, target="")).name for key in keys}
            for path in (home / kind.name).glob(kind.glob):
                if path.name not in named:
                    gone = asset.partitions is Partitions.SHARDS and path.stem in vanished
                    found.append((path, "its shard vanished" if gone else "no configuration names it"))
    found += [
        (path, "set aside by `dsir verify`") for path in (home / "damaged").rglob("*") if path.is_file()
    ]
    return [Leftover(path, why, _size(path)) for path, why in sorted(found)], absent


def remove_leftovers(
    workspace: Workspace, leftovers: Sequence[Leftover], instance: dg.DagsterInstance
) -> None:
    """Remove files, mark their lineage as pruned, remove vanished shards from Dagster's partitions.

    Lineage is marked first: a run in between may miss an output that still exists, but never expect one that is gone.
    """
    names = [str(each.path.relative_to(workspace.home)) for each in leftovers]
    unnamed = {
        each.path.parent.name
        for each in leftovers
        if each.path.is_dir() and each.why != OLDER_VERSION  # selections that no configuration names
    }
    workspace.catalog.record_pruned(names, sorted(unnamed))
    for each in leftovers:
        if each.path.is_dir():
            shutil.rmtree(each.path)
        else:
            each.path.unlink(missing_ok=True)
    assert shards.name, "these partitions have a name"
    known = set(instance.get_dynamic_partitions(shards.name))
    gone = {each.path.stem for each in leftovers if each.path.parent.name == "raw_counts"}
    for key in sorted(known & gone):
        instance.delete_dynamic_partition(shards.name, key)


def print_leftovers(leftovers: Sequence[Leftover], home: Path, console: Terminal) -> None:
    """Show the leftovers in order of paths, with the reason and the size."""
    rows = [(each.path.relative_to(home), each.why, each.bytes / 1e6) for each in leftovers[:SHOWN]]
    console.print(grid(Table([Column("what"), Column("why"), Column("MB", "number", 1)], rows)))
    if len(leftovers) > SHOWN:
        console.print(f"and {len(leftovers) - SHOWN} more")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
