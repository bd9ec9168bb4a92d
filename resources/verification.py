"""Are the files of outputs what was written? And the catalog, rebuilt from them.

What belongs here: comparing files with their checksums, setting damaged ones aside with what was made from them. What
does not: how damage is noticed while a file is read (``resources/sealed.py``), computing outputs again (``assets/``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dsir_dagster.resources.catalog import Rebuilt
from dsir_dagster.resources.corpus import file_exists
from dsir_dagster.resources.lineage import Lineage, output_name
from dsir_dagster.resources.plan import ShardFile
from dsir_dagster.resources.store import file_kinds
from dsir_dagster.resources.workspace import Workspace


@dataclass(frozen=True)
class Damage:
    """A file of an output that is not as it was written.

    Attributes
    ----------
    output : str
        ``asset[partition]``.
    file : str
        Its name.
    what : str
    """

    output: str
    file: str
    what: str


@dataclass(frozen=True)
class Verified:
    """The result of comparing all files with their checksums.

    Attributes
    ----------
    damages : list of Damage
    followers : list of (str, str)
        Outputs, by asset and partition, that were made from damaged files and set aside with them; sorted.
    """

    damages: list[Damage]
    followers: list[tuple[str, str]]


def verify_files(workspace: Workspace) -> Verified:
    """Read every file that the newest lineage names, and compare it with its checksum.

    A file that differs is moved to ``damaged/``, with the files of everything made from it, directly or not: nobody
    knows what was read from it. The next run makes all of them again.
    """
    latest = workspace.latest()
    named = [
        (key, name, checksum) for key, row in sorted(latest.items()) for name, checksum in row.files.items()
    ]
    damages, read_from = [], []
    now = workspace.engine.map_shards(lambda item: workspace.store.checksum(item[1], item[2]), named)
    for (key, name, checksum), found in zip(named, now, strict=True):
        if found != checksum:
            what = "is gone" if found is None else "is not what was written"
            damages.append(Damage(output_name(*key), name, what))
            if found is not None and is_read_by_others(name):
                read_from.append(key)
    followers = made_from(latest, read_from)
    # What was made from a damaged file goes first: as long as the damaged file is there, it is found again.
    for name in [name for key in followers for name in latest[key].files]:
        workspace.store.set_aside(name)
    for damage in damages:
        workspace.store.set_aside(damage.file)
    return Verified(damages, [key for key in sorted(latest) if key in followers])


def is_read_by_others(name: str) -> bool:
    """Whether other outputs are made from a file; none are from quarantined rows, chosen records or reports."""
    path = Path(name)
    kind = file_kinds().get(path.parts[0])  # None if its asset has left the graph
    return kind is not None and kind.read_by_others and path.match(re.sub(r"{\w+}", "*", kind.pattern))


def made_from(
    latest: Mapping[tuple[str, str], Lineage], outputs: Iterable[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Return the outputs that were made, directly or not, from the present versions of some outputs.

    Parameters
    ----------
    latest : mapping of (asset, partition) to Lineage
    outputs : iterable of (asset, partition)
    """
    found = set(outputs)
    new, followers = found, set()
    while new:
        names = {output_name(*key): latest[key].fingerprint for key in new}
        new = {
            key
            for key, row in latest.items()
            if key not in found
            # A file of weights stays as it is, under another fingerprint of its output, when there are other targets.
            and any(
                row.inputs[name] == names[name] or name.startswith("weights[")
                for name in names.keys() & row.inputs.keys()
            )
        }
        found |= new
        followers |= new
    return followers


def rebuild_catalog(workspace: Workspace) -> Rebuilt:
    """Make the catalog again from its last copy and the outputs' lineage files; nothing is computed.

    Raises
    ------
    CatalogVersion
        A newer version of this project wrote the catalog.
    """
    catalog, engine = workspace.catalog, workspace.engine

    def hold(files: Mapping[str, str]) -> bool:
        return all(workspace.store.checksum(name, recorded) == recorded for name, recorded in files.items())

    rebuilt = catalog.rebuild(lambda outputs: list(engine.map_shards(hold, outputs)))
    # Lineage files do not say how large a shard's file was, or how old: with these values it is read again.
    size, modified = -1, 0.0
    recorded = set(catalog.query("known_shards")["shard"].to_pylist())
    shards = [
        ShardFile(
            shard,
            _source_of(workspace, shard),
            str(row.metadata["file"]),
            size,
            modified,
            row.inputs["file"],
        )
        for (asset, shard), row in catalog.latest().items()
        if asset == "raw_counts" and shard not in recorded
    ]
    if shards:
        catalog.record_shards(pa.Table.from_pylist([shard.row for shard in shards]))
        there = engine.map_blocks(file_exists, [shard.uri for shard in shards])
        gone = [shard.shard for shard, exists in zip(shards, there, strict=True) if not exists]
        catalog.record_vanished(gone, [])
    return rebuilt


def _source_of(workspace: Workspace, shard: str) -> str:
    names = [source.name for source in workspace.settings.raw if shard.startswith(f"{source.name}.")]
    return max(names, key=len, default=shard.split(".")[0])
