"""The files of sources and targets as they are now: found, stamped, and matched with the shards that are recorded.

What belongs here: which shard a file is, whether it changed, and which shards have lost their files. What does not:
listing and reading files (``resources/corpus/``), what follows from a change (``resources/plan.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from dsir_dagster.resources.catalog import Catalog
from dsir_dagster.resources.corpus import (
    CorpusError,
    FileInfo,
    Shard,
    discover,
    expand,
    file_exists,
    is_remote,
    stamp_of,
)
from dsir_dagster.resources.engine import Engine
from dsir_dagster.resources.groups import GROUP, Listings, grouped
from dsir_dagster.resources.lineage import Lineage
from dsir_dagster.resources.plan import UNREADABLE, ShardFile, fingerprint
from dsir_dagster.resources.settings import Settings, Target

#: A store's times are not finer than this, in seconds: a file stamped so soon after it was written may have been
#: written again since.
SAME_SECOND = 2.0

R = TypeVar("R")

#: A row of the table ``shards``.
Row = Mapping[str, Any]


class Discovery:
    """Finds the files of one pipeline.

    Parameters
    ----------
    settings : Settings
    home : Path
        DSIR_HOME, whose files are no corpus.
    catalog : Catalog
        Remembers the shards.
    engine : Engine
        Reads files.
    """

    def __init__(self, settings: Settings, home: Path, catalog: Catalog, engine: Engine) -> None:
        self._settings = settings
        self._home = home
        self._catalog = catalog
        self._engine = engine
        self._listings = Listings(home)

    def shards(self, absent: dict[str, str] | None = None) -> list[ShardFile]:
        """Find the files of every source and stamp those that are new or changed.

        :func:`kept_stamp` says which files keep their stamp. A store is asked for the tags of the others; those that
        have none are read once to hash them. A new file with the content of a shard whose own file is gone was renamed:
        it is this shard from now on, unless another file has a name that stands for the shard. What is found and what
        is gone is recorded in the table ``shards``, if the home is writable. Files in DSIR_HOME are left out. The files
        of a source with ``group`` become groups; a renamed one is another file.

        Parameters
        ----------
        absent : dict, optional
            Takes, by ``source <name>``, why a source has no files; its shards are then those of the last time.
            Without this argument, a source without files is an error.

        Raises
        ------
        CorpusError
            A source matches no file, or two files have the same key.
        """
        rows: list[Row] = self._catalog.query("known_shards").to_pylist()
        found: list[Shard] = []
        stamps: dict[Shard, str] = {}
        for source in self._settings.raw:
            try:
                found += asked(self._engine, partial(discover, source, self._home))
            except CorpusError as error:
                if absent is None:
                    raise
                absent[f"source {source.name}"] = str(error)
                for row in rows:
                    if row["source"] == source.name and not row["vanished"]:
                        at = row["uri"], row["size"], row["modified"]
                        as_it_was = Shard(*at, key=row["shard"], source=row["source"])
                        stamps[as_it_was] = row["stamp"]
                        found.append(as_it_was)
        _refuse_equal_keys(found)
        known = self.known_files(rows)
        for shard in found:
            if shard not in stamps and (stamp := kept_stamp(shard, known.get(shard.uri))) is not None:
                stamps[shard] = stamp
        new = [shard for shard in found if shard not in stamps]
        stamps |= zip(new, stamps_of(new, self._engine), strict=True)
        files = [
            ShardFile(shard.key, shard.source, shard.uri, shard.size, shard.modified, stamps[shard])
            for shard in found
        ]
        files = self._grouped(files, absent or {})
        missing = self._without_file(rows, files)
        files = renamed(files, rows, missing)
        if self._catalog.writable:
            self._record(rows, files, missing, {shard.uri for shard in new})
        return files

    def known_files(self, rows: Sequence[Row]) -> dict[str, Row]:
        """Return, by URI, what :func:`kept_stamp` takes of every file that was stamped before.

        Parameters
        ----------
        rows : sequence of mapping
            The recorded shards.
        """
        known = {row["uri"]: row for row in rows if not row["stamp"].startswith(GROUP)}
        for source in self._settings.raw:
            if source.group:
                known |= {row["uri"]: row for row in self._listings.read(source.name)}
        return known

    def _grouped(self, files: list[ShardFile], absent: Collection[str]) -> list[ShardFile]:
        """Group the files of the sources that ask for it, and remember their stamps."""
        found: list[ShardFile] = []
        for source in self._settings.raw:
            mine = [file for file in files if file.source == source.name]
            if source.group and f"source {source.name}" not in absent:
                if self._catalog.writable:
                    self._listings.write(source.name, mine)
                mine = grouped(mine, source.group.bytes)
            found += mine
        return found

    def _without_file(self, rows: Sequence[Row], files: list[ShardFile]) -> set[str]:
        """Return the recorded shards of the configured sources that no file is named for, and whose file is gone."""
        sources = {source.name for source in self._settings.raw}
        there = {part.uri for file in files for part in file.parts}
        named = {file.shard for file in files}
        unnamed = [row for row in rows if row["source"] in sources and row["shard"] not in named]
        # Another configuration of this home may have a source of the same name with other files.
        doubtful = [row["uri"] for row in unnamed if not row["vanished"] and row["uri"] not in there]
        exists = dict(zip(doubtful, self._engine.map_requests(file_exists, doubtful), strict=True))
        return {row["shard"] for row in unnamed if not exists.get(row["uri"], False)}

    def _record(
        self, rows: Sequence[Row], files: list[ShardFile], missing: set[str], stamped: set[str]
    ) -> None:
        """Record what is new, changed, gone or back in the table ``shards``; write nothing if nothing is.

        A file that was asked for again, since it was recorded right after it was written, is recorded again.
        """
        recorded = {row["shard"]: row for row in rows}
        there = {file.shard for file in files}
        gone = [shard for shard in sorted(missing - there) if not recorded[shard]["vanished"]]
        back = sorted(shard for shard in there & recorded.keys() if recorded[shard]["vanished"])
        if gone or back:
            self._catalog.record_vanished(gone, back)
        changed = [
            file.row
            for file in files
            if file.readable
            and (
                any(recorded.get(file.shard, {}).get(name) != value for name, value in file.row.items())
                or (file.uri in stamped and file.modified and is_remote(file.uri))
            )
        ]
        if changed:
            self._catalog.record_shards(pa.Table.from_pylist(changed))

    def vanished(self) -> list[str]:
        """Return the recorded shards of the configured sources whose files are gone, sorted."""
        sources = [source.name for source in self._settings.raw]
        return self._catalog.query("vanished_shards", sources=sources)["shard"].to_pylist()

    def target_stamps(
        self, latest: Mapping[tuple[str, str], Lineage], absent: dict[str, str] | None = None
    ) -> dict[str, str]:
        """Return the stamp of every target, by name.

        Parameters
        ----------
        latest : mapping of (asset, partition) to Lineage
        absent : dict, optional
            Takes, by ``target <name>``, why the files of a target that was counted cannot be read; its stamp is then
            that of the last time.
        """
        stamps = {}
        for target in self._settings.targets:
            stamp = target_stamp(target, self._home, self._engine)
            counted = latest.get(("target_counts", target.name))
            if absent is not None and counted and stamp.startswith(UNREADABLE):
                absent[f"target {target.name}"] = stamp.removeprefix(f"{UNREADABLE}: ")
                stamp = counted.inputs["file"]
            stamps[target.name] = stamp
        return stamps


def _refuse_equal_keys(shards: list[Shard]) -> None:
    by_key: dict[str, str] = {}
    for shard in shards:
        if by_key.setdefault(shard.key, shard.uri) != shard.uri:
            raise CorpusError(
                f"{by_key[shard.key]} and {shard.uri}: both files have the shard key '{shard.key}'; "
                "rename one of their sources"
            )


def kept_stamp(shard: Shard, row: Row | None) -> str | None:
    """Return the stamp of a file if it is known without reading the file.

    It is the tag that the file's store lists; else the stamp of the last time, if path, size and modification time
    are unchanged. A file without a modification time is read every time: equal sizes prove nothing.

    Parameters
    ----------
    shard : Shard
        The file as it is now.
    row : mapping or None
        The row of the table ``shards`` that has this file.
    """
    if shard.tag is not None:
        return stamp_of(shard)
    if row is None or not shard.modified:
        return None
    if is_remote(shard.uri) and row["seen_at"].timestamp() - shard.modified < SAME_SECOND:
        return None
    same = (row["uri"], row["size"], row["modified"]) == (shard.uri, shard.size, shard.modified)
    return row["stamp"] if same else None


def renamed(files: list[ShardFile], rows: Sequence[Row], missing: Collection[str]) -> list[ShardFile]:
    """Give renamed files the keys of the shards that they are; groups keep their own.

    Parameters
    ----------
    files : list of ShardFile
        Under their present names, with the keys that these stand for.
    rows : sequence of mapping
        The recorded shards: shard, source, uri, stamp.
    missing : collection of str
        Those of them that no file is named for, and whose file is gone or has another name now.

    Returns
    -------
    list of ShardFile
        In the same order, which has no influence on which file is which shard.
    """
    recorded = {row["shard"] for row in rows}
    alone = [file for file in files if not file.files]
    free = sorted(
        (row for row in rows if row["shard"] in missing and not row["stamp"].startswith(GROUP)),
        key=lambda row: row["shard"],
    )
    at = {(row["source"], row["uri"]): row["shard"] for row in free}  # renamed before, to this name
    taken = {(file.source, file.uri) for file in alone} & at.keys()
    keys: dict[tuple[str, str], str] = {name: at[name] for name in taken}
    of_content: dict[tuple[str, str], list[str]] = {}
    for row in free:
        if (row["source"], row["uri"]) not in taken:
            of_content.setdefault((row["source"], row["stamp"]), []).append(row["shard"])
    for file in sorted(alone, key=lambda file: file.shard):
        name = file.source, file.uri
        if (
            name not in keys
            and file.shard not in recorded
            and (same := of_content.get((file.source, file.stamp)))
        ):
            keys[name] = same.pop(0)
    return [
        file if file.files else replace(file, shard=keys.get((file.source, file.uri), file.shard))
        for file in files
    ]


def asked(engine: Engine, request: Callable[[], R]) -> R:
    """Return the result of a request to a store; the calling thread can be interrupted while it waits."""
    [result] = engine.map_requests(lambda call: call(), [request])
    return result


def stamps_of(files: Sequence[FileInfo], engine: Engine) -> list[str]:
    """Stamp files: many remote ones at a time, local ones in as many threads as there are cores."""
    remote = [file for file in files if is_remote(file.uri)]
    local = [file for file in files if not is_remote(file.uri)]
    stamps = dict(zip(remote, engine.map_requests(_stamp, remote), strict=True))
    stamps |= zip(local, engine.map_blocks(_stamp, local), strict=True)
    return [stamps[file] for file in files]


def _stamp(file: FileInfo) -> str:
    """Stamp a file by its tag or its content; the stamp of an unreadable one says so, and its partition will fail."""
    try:
        return stamp_of(file)
    except (CorpusError, OSError) as error:
        return f"{UNREADABLE}: {error}"


def target_stamp(target: Target, home: Path, engine: Engine) -> str:
    """Hash the stamps of a target's files and of its held-out files, in order."""
    parts: dict[str, str] = {}
    for role, uri in (("train", target.uri), ("holdout", target.holdout)):
        try:
            files = asked(engine, partial(expand, uri, home)) if uri else []
        except CorpusError as error:
            return f"{UNREADABLE}: {error}"
        parts |= {f"{role} {index}": stamp for index, stamp in enumerate(stamps_of(files, engine))}
    return fingerprint(parts)
