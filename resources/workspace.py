"""One pipeline's configuration, store, catalog and threads, opened together.

What belongs here: putting the parts of ``resources/`` together, and finding the pool's files. What does
not: what is done with them.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO

import dagster as dg
import pyarrow as pa

from dsir_dagster.resources.catalog import Catalog, Rebuilt
from dsir_dagster.resources.compute import Worker, compute_for
from dsir_dagster.resources.corpus import (
    CorpusError,
    FileInfo,
    Shard,
    content_stamp,
    discover,
    expand,
    file_exists,
)
from dsir_dagster.resources.engine import Engine
from dsir_dagster.resources.lineage import Lineage, output_name
from dsir_dagster.resources.plan import Plan, ShardFile, fingerprint
from dsir_dagster.resources.settings import Settings, Target, load_settings
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import Store, file_kinds

#: Begins the stamp of a file that cannot be read.
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


@dataclass(frozen=True)
class Verified:
    """What became of all files when they were compared with their checksums.

    Attributes
    ----------
    damages : list of Damage
    followers : list of (str, str)
        Outputs, by asset and partition, that were made from damaged files and set aside with them; sorted.
    """

    damages: list[Damage]
    followers: list[tuple[str, str]]


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
        private_folder(self.home)
        self.store = Store(self.home)
        self.catalog = Catalog(self.home)
        self.engine = Engine(threads or self._configured_threads)
        self.worker = Worker(self.settings, self.store, self.engine)
        self.compute = compute_for(self.worker)
        self._held: IO | None = None

    def stop(self) -> None:
        """End all work for good."""
        self.compute.stop()
        self.engine.stop()

    @property
    def _configured_threads(self) -> int | None:
        compute = self.settings.compute
        return compute.cores if compute.engine == "threads" else None

    def discover(self, absent: dict[str, str] | None = None) -> list[ShardFile]:
        """Find the files of every source and stamp those that are new or changed.

        A file keeps its stamp as :meth:`kept_stamp` says; any other is read once to hash it. A new file with the
        content of a shard whose own file is gone was renamed: it is this shard from now on, unless a file comes whose
        name stands for the shard. What is found, and what is gone, is recorded in the table ``shards`` where the home
        can be written to. Files in DSIR_HOME are left out.

        Parameters
        ----------
        absent : dict, optional
            Takes why a source's files are not found, if none of them is, by ``source <name>``; its shards are then
            those that were there last. Without it, that is an error.

        Raises
        ------
        CorpusError
            A source matches no file, or two files have the same key.
        """
        rows = self.catalog.query("known_shards").to_pylist()
        found: list[Shard] = []
        for source in self.settings.raw:
            try:
                found += discover(source, self.home)
            except CorpusError as error:
                if absent is None:
                    raise
                absent[f"source {source.name}"] = str(error)
                last = [row for row in rows if row["source"] == source.name and not row["vanished"]]
                found += [
                    Shard(
                        row["uri"],
                        row["size"],
                        row["modified"],
                        row["stamp"],
                        key=row["shard"],
                        source=row["source"],
                    )
                    for row in last
                ]
        by_key: dict[str, str] = {}
        for shard in found:
            if by_key.setdefault(shard.key, shard.uri) != shard.uri:
                raise CorpusError(
                    f"{by_key[shard.key]} and {shard.uri}: both files have the shard key '{shard.key}'; "
                    "rename one of their sources"
                )
        known = {row["uri"]: row for row in rows}
        stamps = {shard: self.kept_stamp(shard, known.get(shard.uri)) for shard in found}
        new = [shard for shard, stamp in stamps.items() if stamp is None]
        stamps |= zip(new, self.engine.map_blocks(_stamp, new), strict=True)
        files = [
            ShardFile(shard.key, shard.source, shard.uri, shard.size, shard.modified, stamp)
            for shard, stamp in stamps.items()
        ]
        missing = self._without_file(rows, files)
        files = renamed(files, rows, missing)
        if self.catalog.writable:
            self._record(rows, files, missing)
        return files

    @staticmethod
    def kept_stamp(shard: Shard, row: Mapping | None) -> str | None:
        """Return a file's stamp where it need not be read for it.

        Its store's tag, where there is one; else the stamp of the last time, where path, size and modification time
        are what they were. A file without a time is read every time: its size alone does not say that it is the same.

        Parameters
        ----------
        shard : Shard
            The file as it is now.
        row : mapping or None
            The row of the table ``shards`` that has this file.
        """
        if shard.tag is not None:
            return shard.tag
        same = row and (row["uri"], row["size"], row["modified"]) == (shard.uri, shard.size, shard.modified)
        return row["stamp"] if same and shard.modified else None

    def _without_file(self, rows: list[dict], files: list[ShardFile]) -> set[str]:
        """Return the recorded shards of the configured sources that no file is named for, and whose file is gone."""
        sources = {source.name for source in self.settings.raw}
        there, named = {file.uri for file in files}, {file.shard for file in files}
        unnamed = [row for row in rows if row["source"] in sources and row["shard"] not in named]
        # Another configuration of this home may have a source of the same name with other files.
        doubtful = [row["uri"] for row in unnamed if not row["vanished"] and row["uri"] not in there]
        exists = dict(zip(doubtful, self.engine.map_blocks(file_exists, doubtful), strict=True))
        return {row["shard"] for row in unnamed if not exists.get(row["uri"], False)}

    def _record(self, rows: list[dict], files: list[ShardFile], missing: set[str]) -> None:
        """Record what is new, changed, gone or back in the table ``shards``; nothing, where nothing is."""
        recorded = {row["shard"]: row for row in rows}
        there = {file.shard for file in files}
        gone = [shard for shard in sorted(missing - there) if not recorded[shard]["vanished"]]
        back = sorted(shard for shard in there & recorded.keys() if recorded[shard]["vanished"])
        if gone or back:
            self.catalog.record_vanished(gone, back)
        changed = [
            vars(file)
            for file in files
            if not file.stamp.startswith(UNREADABLE)
            and any(recorded.get(file.shard, {}).get(name) != value for name, value in vars(file).items())
        ]
        if changed:
            self.catalog.record_shards(pa.Table.from_pylist(changed))

    def vanished(self) -> list[str]:
        """Return the shards of the configured sources whose files are not found any more, sorted."""
        sources = [source.name for source in self.settings.raw]
        return self.catalog.query("vanished_shards", sources=sources)["shard"].to_pylist()

    def plan(self) -> Plan:
        """Return the plan over the files that are there now and the lineage as it is now."""
        stamps = {target.name: _target_stamp(target, self.home) for target in self.settings.targets}
        return Plan(self.settings, self.discover(), stamps, self.latest())

    def snapshot(self) -> Snapshot:
        """Return this workspace with its plan as it is now."""
        return Snapshot(self, self.plan())

    def known_plan(self) -> tuple[Plan, dict[str, str]]:
        """Return the plan, and why the files of sources and targets are not there, by ``source <name>`` and so on.

        For commands that only show: a source or target that is absent as a whole is more likely a disk that is not
        mounted than a pool that is empty, and is taken for what it was when it was there last.
        """
        absent: dict[str, str] = {}
        shards, latest = self.discover(absent), self.latest()
        stamps = {}
        for target in self.settings.targets:
            stamp = _target_stamp(target, self.home)
            made = latest.get(("target_counts", target.name))
            if stamp.startswith(UNREADABLE) and made:
                absent[f"target {target.name}"] = stamp.removeprefix(f"{UNREADABLE}: ")
                stamp = made.inputs["file"]
            stamps[target.name] = stamp
        return Plan(self.settings, shards, stamps, latest), absent

    @contextmanager
    def exclusive(self, say: Callable[[str], None]) -> Iterator[None]:
        """Hold the home while the body runs; see :meth:`hold`."""
        self.hold(say)
        try:
            yield
        finally:
            self.release()

    def hold(self, say: Callable[[str], None]) -> bool:
        """Hold the home against other runs of the whole graph; wait for one that has it.

        The system lets go of it when the process ends, however it ends.

        Parameters
        ----------
        say : callable
            Takes a line of text, where there is something to wait for.

        Returns
        -------
        bool
            False where this workspace held it already.
        """
        if self._held:
            return False
        file = (self.home / "run.lock").open("a")
        try:
            if not _lock(file):
                say(f"another run is bringing {self.home} up to date; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
        except BaseException:  # whoever waits may be told to stop
            file.close()
            raise
        self._held = file
        return True

    def release(self) -> None:
        """Let go of the home, if it is held."""
        if self._held:
            self._held.close()
            self._held = None

    def busy(self) -> bool:
        """Return whether a run of the whole graph has the home, in any process."""
        with (self.home / "run.lock").open("a") as file:
            return not _lock(file)

    def verify(self) -> Verified:
        """Read every file that the newest lineage names, and compare it with its checksum.

        A file that differs is moved to ``damaged/``, and so are the files of all that was made from it, directly or
        not: nobody knows what was read of it. The next run makes all of it again.
        """
        latest = self.latest()
        named = [
            (key, name, checksum)
            for key, row in sorted(latest.items())
            for name, checksum in row.files.items()
        ]
        damages, read_from = [], []
        now = self.engine.map_shards(lambda item: self._checksum(item[1]), named)
        for (key, name, checksum), found in zip(named, now, strict=True):
            if found != checksum:
                what = "is gone" if found is None else "is not what was written"
                damages.append(Damage(output_name(*key), name, what))
                if found is not None and is_read_by_others(name):
                    read_from.append(key)
        followers = made_from(latest, read_from)
        # What was made from a damaged file goes first: as long as that one is there, it is found again.
        for name in [name for key in followers for name in latest[key].files]:
            self._set_aside(name)
        for damage in damages:
            self._set_aside(damage.file)
        return Verified(damages, [key for key in sorted(latest) if key in followers])

    def _set_aside(self, name: str) -> None:
        aside = self._aside(name)
        aside.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            shutil.move(self.home / name, aside)  # a kind of files may be on a disk of its own

    def _aside(self, name: str) -> Path:
        return self.home / "damaged" / name

    def _checksum(self, name: str) -> str | None:
        path = self.home / name
        return content_stamp(str(path)) if path.exists() else None

    def rebuild(self) -> Rebuilt:
        """Make the catalog again from its last copy and the outputs' lineage files; nothing is computed.

        Raises
        ------
        CatalogVersion
            A newer version of this project wrote the catalog.
        """

        def holds(files: Mapping[str, str]) -> bool:
            return all(self._checksum(name) == checksum for name, checksum in files.items())

        rebuilt = self.catalog.rebuild(lambda outputs: list(self.engine.map_shards(holds, outputs)))
        # Of shards that only lineage files tell of, the file is read again when it is looked for.
        recorded = set(self.catalog.query("known_shards")["shard"].to_pylist())
        shards = [
            ShardFile(
                shard,
                self._source_of(shard),
                str(row.metadata["file"]),
                -1,
                0.0,
                row.inputs["file"],
            )
            for (asset, shard), row in self.catalog.latest().items()
            if asset == "raw_counts" and shard not in recorded
        ]
        if shards:
            self.catalog.record_shards(pa.Table.from_pylist([vars(shard) for shard in shards]))
            there = self.engine.map_blocks(file_exists, [shard.uri for shard in shards])
            gone = [shard.shard for shard, exists in zip(shards, there, strict=True) if not exists]
            self.catalog.record_vanished(gone, [])
        return rebuilt

    def _source_of(self, shard: str) -> str:
        names = [each.name for each in self.settings.raw if shard.startswith(f"{each.name}.")]
        return max(names, key=len, default=shard.split(".")[0])

    def latest(self) -> dict[tuple[str, str], Lineage]:
        """Return the newest lineage of every output.

        Each with its files that are not there (``absent``), and whether :meth:`verify` took one of them (``aside``).
        """
        found = {}
        for key, row in self.catalog.latest().items():
            # The files of weights carry the fingerprint of their target's.
            made = {row.fingerprint, *row.mapping("log_weights").values()}
            absent = [
                name for name in row.files if not self.store.is_there(name, made, row.modified.get(name))
            ]
            aside = any(
                aside.exists() and aside.stat().st_ctime >= row.finished_at.timestamp()
                for aside in map(self._aside, absent)
            )
            found[key] = replace(row, absent=absent, aside=aside) if absent else row
        return found


def is_read_by_others(name: str) -> bool:
    """Whether other outputs are made from a file: not from quarantined rows, chosen records or reports."""
    path = Path(name)
    kind = file_kinds().get(path.parts[0])  # none of an asset that is not in the graph any more
    return kind is not None and kind.read_by_others and path.match(re.sub(r"{\w+}", "*", kind.pattern))


def made_from(
    latest: Mapping[tuple[str, str], Lineage], outputs: Iterable[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Return the outputs that were made from some outputs as these are now, or from what was made from them.

    Parameters
    ----------
    latest : mapping of (asset, partition) to Lineage
    outputs : iterable of (asset, partition)
    """
    inputs = {key: row.inputs for key, row in latest.items()}
    found = set(outputs)
    new, followers = found, set()
    while new:
        names = {output_name(*key): latest[key].fingerprint for key in new}
        new = {
            key
            for key, made_of in inputs.items()
            if key not in found
            # A file of weights stays as it is, under another fingerprint of its output, when there are other targets.
            and any(made_of[n] == names[n] or n.startswith("weights[") for n in names.keys() & made_of.keys())
        }
        found |= new
        followers |= new
    return followers


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

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Let go of the home at the end of a run that held it."""
        if "workspace" in self.__dict__:
            self.workspace.release()


def private_folder(path: Path) -> None:
    """Make a folder that only its owner can look into; one that is there stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)


def _lock(file: IO) -> bool:
    """Lock a file if nobody else has; say whether that went well."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def renamed(files: list[ShardFile], rows: Sequence[Mapping], missing: Collection[str]) -> list[ShardFile]:
    """Give files that were renamed the keys of the shards that they are.

    Parameters
    ----------
    files : list of ShardFile
        As they are called now, with the keys that their names stand for.
    rows : sequence of mapping
        The shards that are recorded: shard, source, uri, stamp.
    missing : collection of str
        Those of them that no file is named for, and whose file is gone or has another name now.

    Returns
    -------
    list of ShardFile
        In the same order. Which file is which shard does not depend on it.
    """
    recorded = {row["shard"] for row in rows}
    free = sorted((row for row in rows if row["shard"] in missing), key=lambda row: row["shard"])
    at = {(row["source"], row["uri"]): row["shard"] for row in free}  # renamed before, to this name
    taken = {(file.source, file.uri) for file in files} & at.keys()
    keys: dict[tuple[str, str], str] = {name: at[name] for name in taken}
    of_content: dict[tuple[str, str], list[str]] = {}
    for row in free:
        if (row["source"], row["uri"]) not in taken:
            of_content.setdefault((row["source"], row["stamp"]), []).append(row["shard"])
    for file in sorted(files, key=lambda file: file.shard):
        name = file.source, file.uri
        if (
            name not in keys
            and file.shard not in recorded
            and (same := of_content.get((file.source, file.stamp)))
        ):
            keys[name] = same.pop(0)
    return [replace(file, shard=keys.get((file.source, file.uri), file.shard)) for file in files]


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
