"""One pipeline's configuration, store, catalog and threads, opened together.

What belongs here: putting the parts of ``resources/`` together, and finding the pool's files. What does
not: what is done with them.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import dagster as dg
import pyarrow as pa

from resources.catalog import Catalog
from resources.corpus import CorpusError, FileInfo, Shard, content_stamp, discover, expand
from resources.engine import Engine
from resources.plan import Plan, ShardFile, fingerprint, output_name
from resources.settings import Settings, Target, load_settings
from resources.store import Store

#: Begins the stamp of a file that can not be read.
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Damage:
    """A file of an output that is not as it was written.

    Attributes
    ----------
    output : str
        ``asset[partition]``.
    file : str
        Path below DSIR_HOME.
    what : str
    """

    output: str
    file: str
    what: str


class Workspace:
    """An open pipeline.

    Parameters
    ----------
    config : Path
        The YAML file.
    home : Path
        DSIR_HOME; made if absent.
    threads : int, optional
        Default: the cores this process may run on.
    """

    def __init__(self, config: Path, home: Path, threads: int | None = None) -> None:
        self.config = config
        self.settings: Settings = load_settings(config)
        self.home = home.resolve()
        self.store = Store(self.home)
        self.catalog = Catalog(self.home)
        self.engine = Engine(threads)

    def discover(self) -> list[ShardFile]:
        """Find the files of every source and stamp those that are new or changed.

        A file keeps its stamp as :meth:`kept_stamp` says; any other is read once to hash it. What is found, and
        what is not found any more, is recorded in the table ``shards``. Files in DSIR_HOME are left out.

        Raises
        ------
        CorpusError
            A source matches no file, or two files have the same key.
        """
        rows = self.catalog.query("known_shards").to_pylist()
        known = {row["shard"]: row for row in rows}
        found = [shard for source in self.settings.raw for shard in discover(source, self.home)]
        by_key: dict[str, str] = {}
        for shard in found:
            if by_key.setdefault(shard.key, shard.uri) != shard.uri:
                raise CorpusError(
                    f"{by_key[shard.key]} and {shard.uri}: both files have the shard key '{shard.key}'; "
                    "rename one of their sources"
                )
        sources = {source.name for source in self.settings.raw}
        gone = [
            row["shard"]
            for row in rows
            if row["source"] in sources and row["shard"] not in by_key and not row["vanished"]
        ]
        back = [row["shard"] for row in rows if row["shard"] in by_key and row["vanished"]]
        if gone or back:
            self.catalog.record_vanished(gone, back)
        stamps = {shard: self.kept_stamp(shard, known.get(shard.key)) for shard in found}
        new = [shard for shard, stamp in stamps.items() if stamp is None]
        stamps |= zip(new, self.engine.map_blocks(_stamp, new), strict=True)
        files = [
            ShardFile(shard.key, shard.source, shard.uri, shard.size, shard.modified, stamp)
            for shard, stamp in stamps.items()
        ]
        differ = [
            vars(file)
            for file in files
            if not file.stamp.startswith(UNREADABLE)
            and any(known.get(file.shard, {}).get(name) != value for name, value in vars(file).items())
        ]
        if differ:
            self.catalog.record_shards(pa.Table.from_pylist(differ))
        return files

    @staticmethod
    def kept_stamp(shard: Shard, row: dict | None) -> str | None:
        """Return a file's stamp where it need not be read for it.

        Its store's tag, where there is one; else the stamp of the last time, where path, size and modification time
        are what they were. A file without a time is read every time: its size alone does not say that it is the same.

        Parameters
        ----------
        shard : Shard
            The file as it is now.
        row : dict or None
            The shard's row of the table ``shards``.
        """
        if shard.tag is not None:
            return shard.tag
        same = row and (row["uri"], row["size"], row["modified"]) == (shard.uri, shard.size, shard.modified)
        return row["stamp"] if same and shard.modified else None

    def vanished(self) -> list[str]:
        """Return the shards of the configured sources whose files are not found any more, sorted."""
        sources = [source.name for source in self.settings.raw]
        return self.catalog.query("vanished_shards", sources=sources)["shard"].to_pylist()

    def plan(self) -> Plan:
        """Return the plan over the files that are there now and the lineage as it is now."""
        stamps = {target.name: _target_stamp(target, self.home) for target in self.settings.targets}
        return Plan(self.settings, self.discover(), stamps, self.latest())

    @contextmanager
    def exclusive(self, say: Callable[[str], None]) -> Iterator[None]:
        """Hold the home against other runs of the whole graph; wait for one that has it.

        The system lets go of it when the process ends, however it ends.

        Parameters
        ----------
        say : callable
            Takes a line of text, where there is something to wait for.
        """
        with (self.home / "run.lock").open("a") as file:
            if not _lock(file):
                say(f"another run is bringing {self.home} up to date; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def busy(self) -> bool:
        """Return whether a run of the whole graph has the home, in any process."""
        with (self.home / "run.lock").open("a") as file:
            return not _lock(file)

    def damaged(self) -> list[Damage]:
        """Read every file that the newest lineage names, and compare it with its checksum.

        A file that differs is moved to ``damaged/``, so that the next run makes it again; the reader of a
        damaged file is never told that it is fresh.
        """
        rows = self.latest()
        named = [
            (output_name(*output), name, checksum)
            for output, row in sorted(rows.items())
            for name, checksum in row["files"].items()
        ]
        found = []
        stamps = self.engine.map_shards(lambda item: self._checksum(item[1]), named)
        for (output, name, checksum), stamp in zip(named, stamps, strict=True):
            if stamp == checksum:
                continue
            found.append(Damage(output, name, "is gone" if stamp is None else "is not what was written"))
            if stamp is not None:
                aside = self.home / "damaged" / name
                aside.parent.mkdir(parents=True, exist_ok=True)
                (self.home / name).replace(aside)
        return found

    def _checksum(self, name: str) -> str | None:
        path = self.home / name
        return content_stamp(str(path)) if path.exists() else None

    def latest(self) -> dict[tuple[str, str], dict]:
        """Return the newest lineage of every output, each with its files that are not there (``absent``)."""
        latest = self.catalog.latest()
        for row in latest.values():
            # The files of weights carry the fingerprint of their target's.
            of_targets = json.loads(row["metadata"].get("log_weights", "{}")).values()
            made = {row["fingerprint"], *of_targets}, row["finished_at"]
            row["absent"] = [name for name in row["files"] if not self.store.is_there(name, *made)]
        return latest


class Pipeline(dg.ConfigurableResource):
    """The pipeline that a code location serves.

    Attributes
    ----------
    config : str
        Path of the YAML file.
    home : str
        DSIR_HOME: where outputs and the catalog are.
    threads : int
        0: the cores this process may run on.
    """

    config: str
    home: str
    threads: int = 0

    @cached_property
    def workspace(self) -> Workspace:
        """The workspace, opened at first use."""
        return Workspace(Path(self.config), Path(self.home), self.threads or None)


def _lock(file: IO) -> bool:
    """Lock a file if nobody else has; say whether that went well."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _stamp(file: FileInfo) -> str:
    """Stamp a file by its tag or its content; where it cannot be read, the stamp says so: its partition will fail."""
    try:
        return file.tag or content_stamp(file.uri)
    except (CorpusError, OSError) as error:
        return f"{UNREADABLE}: {error}"


def _target_stamp(target: Target, home: Path) -> str:
    """Hash a target's files and its held-out files, in order."""
    parts = {}
    for role, uri in (("train", target.uri), ("holdout", target.holdout)):
        try:
            files = expand(uri, home) if uri else []
        except CorpusError as error:
            return f"{UNREADABLE}: {error}"
        parts |= {f"{role} {index}": _stamp(file) for index, file in enumerate(files)}
    return fingerprint(parts)
