"""The store: immutable files of bulk rows, one per output and partition, in DSIR_HOME or an object store.

What belongs here: names, schemas, writing whole files, checking fingerprints when reading. What does not: where files
lie (``resources/bulk_files.py``), how damage is noticed (``resources/sealed.py``), small rows
(``resources/catalog.py``), the corpus (``resources/corpus/``).

The records of the assets (``assets/``) declare the kinds of files and their places.

Every file carries its fingerprint and its feature configuration in its schema's metadata. A reader says which
fingerprint it expects; any other file is refused, and so is a damaged one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsir_dagster.resources.bulk_files import (
    READ_BYTES,
    TEMPORARY,
    BulkFiles,
    Folder,
    Objects,
    Stored,
)
from dsir_dagster.resources.graph import graph
from dsir_dagster.resources.object_stores import object_store_errors
from dsir_dagster.resources.sealed import BatchWriter, ParquetFile, parquet_writer, read_batches
from dsir_dagster.resources.stamps import NewFile, checksum_of

#: Columns of a document that is a piece of a record: the record's row in its file, and the bounds of the piece in the
#: UTF-8 bytes of its text. Null if the document is the whole record at `row`.
PIECE = {"record": pa.int64(), "begin_byte": pa.int64(), "end_byte": pa.int64()}

#: A string that many rows share, dictionary-encoded in memory as in the file.
REPEATED = pa.dictionary(pa.int32(), pa.string())


def schema_of(columns: dict[str, pa.DataType], nullable: Collection[str] = PIECE) -> pa.Schema:
    """Return a schema; few columns may be null, as Parquet keeps a bit for every value that may be."""
    return pa.schema([pa.field(name, type_, nullable=name in nullable) for name, type_ in columns.items()])


@dataclass(frozen=True)
class FileKind:
    """A kind of files of an asset's outputs, in a folder of its own below DSIR_HOME.

    Attributes
    ----------
    name : str
        Of the folder.
    schema : pyarrow.Schema or None
        Of its rows; None if it is not a Parquet table.
    pattern : str
        Path of an output's file below the folder, with ``{partition}``, ``{target}`` and ``{fingerprint}``.
    read_by_others : bool
        Whether other outputs are made from its files.
    local : bool
        Whether its files stay in DSIR_HOME where the others are in an object store, since people open them.
    """

    name: str
    schema: pa.Schema | None = None
    pattern: str = "{partition}.parquet"
    read_by_others: bool = True
    local: bool = False

    def path(self, **values: str) -> str:
        """Return where a file is, below DSIR_HOME."""
        return f"{self.name}/{self.pattern.format(**values)}"

    @property
    def empty(self) -> str:
        """Path of the file without rows below DSIR_HOME: a view over a glob fails if nothing matches."""
        path = self.path(partition="~empty", target="~", fingerprint="~")
        return path if "{partition}" in self.pattern else f"{self.name}/~empty.parquet"

    @property
    def glob(self) -> str:
        """Pattern below its folder that matches its files, but not the one without rows."""
        return re.sub(r"{\w+}", "*", self.pattern.replace("{partition}", "[!~.]*"))


def file_kinds() -> dict[str, FileKind]:
    """Return the kinds of files of all assets in the graph, by name."""
    return {kind.name: kind for asset in graph() for kind in asset.files}


#: Columns whose strings repeat, which are worth a dictionary.
_REPEATING = ["shard", "source", "target", "selection", "version", "reason"]
#: Columns of noise, which do not compress.
_NOISE = {"content_hash", "id_hash", "log_weight", "log_ratio", "key"}


def parquet_options(schema: pa.Schema) -> dict[str, object]:
    """Return the options of `pyarrow.parquet.ParquetWriter` for a table of this schema.

    Whole numbers take as few bits as the largest difference between neighbors needs: as small as with zstd, and read
    four times as fast. Strings, ids among them, are an eighth larger with lz4 than with zstd, and read in a quarter
    less time.
    """
    whole = [field.name for field in schema if pa.types.is_signed_integer(field.type)]
    return {
        "compression": {name: "none" if name in _NOISE or name in whole else "lz4" for name in schema.names},
        "use_dictionary": [name for name in schema.names if name in _REPEATING],
        "column_encoding": {name: "DELTA_BINARY_PACKED" for name in whole} or None,
    }


_METADATA_KEY = b"dsir"

#: What the system says when the disk, or the user's quota, is full.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

#: Folder of the home for files that `dsir verify` set aside.
DAMAGED = "damaged"
#: Age in seconds at which an unfinished file counts as a killed process's.
LEFTOVER_SECONDS = 24 * 3600


class StaleInput(RuntimeError):
    """A file is missing, or was written under another fingerprint than its reader expects."""


@dataclass(frozen=True)
class Written(Stored):
    """A file that this process has written.

    Attributes
    ----------
    checksum : str
        Of its bytes (``resources/stamps.py``).
    """

    checksum: str


@dataclass(frozen=True)
class NewFolder:
    """A folder of files in the making, which several processes may write to.

    Attributes
    ----------
    name : str
        Of the folder.
    path : Path or None
        Where the files are until all are there; None: each goes straight to its place in the object store.
    files : dict of str to Written
        The files by name, as far as whoever leads has heard of them.
    """

    name: str
    path: Path | None
    files: dict[str, Written] = field(default_factory=dict)


class Store:
    """Names, atomic writes and checked reads of the files of one home.

    Parameters
    ----------
    home : Path
        DSIR_HOME.
    uri : str, optional
        Where the bulk files are: ``s3://bucket/prefix`` or the like. Default: in the home.

    Attributes
    ----------
    uri : str
        Where the bulk files are: the path of the home, or the URI.
    """

    def __init__(self, home: Path, uri: str | None = None) -> None:
        self.home = home
        self.uri = uri or str(home)
        self._home_files = Folder(home)
        self._bulk_files: BulkFiles = self._home_files
        if uri:
            self._bulk_files = Objects(uri)
        self._written: dict[str, Written] = {}

    def prepare(self) -> Store:
        """Make what views and writers need, unless it is there or the home is not writable; return this store."""
        if self.home.is_dir() and not os.access(self.home, os.W_OK):
            return self  # another user's, or on a read-only disk: reading still works
        for kind in file_kinds().values():
            (self.home / kind.name).mkdir(parents=True, exist_ok=True)
            if kind.schema is not None and not _has_schema(self.home / kind.empty, kind.schema):
                # The one in the home is written last, and says that there is one in the object store.
                for files in dict.fromkeys((self._files(kind.empty), self._home_files)):
                    with _publishing(files, kind.empty) as temporary:
                        pq.write_table(kind.schema.empty_table(), temporary)
            self._remove_leftovers(self.home / kind.name / TEMPORARY)
        return self

    def _files(self, name: str) -> BulkFiles:
        folder = name.partition("/")[0]
        kind = file_kinds().get(folder)
        local = folder == DAMAGED or (kind is not None and kind.local)
        return self._home_files if local else self._bulk_files

    # --- names -----------------------------------------------------------------------------------------------

    def name(self, kind: str, partition: str = "", target: str = "", fingerprint: str = "") -> str:
        """Return the name of the file of this kind and partition: its path below the home, or the prefix."""
        return file_kinds()[kind].path(partition=partition, target=target, fingerprint=fingerprint)

    def weights(self, shard: str, target: str) -> str:
        """Return the name of the log weights of a shard's documents for a target."""
        return self.name("weights", shard, target)

    def picks(self, selection: str, fingerprint: str) -> str:
        """Return the name of the picks of one version of a selection."""
        return self.name("selections", selection, fingerprint=fingerprint)

    def selection_folder(self, selection: str, fingerprint: str) -> str:
        """Return the name of the folder of one version of a selection."""
        return str(PurePosixPath(self.picks(selection, fingerprint)).parent)

    def where(self, name: str) -> str:
        """Return a file's full path or URI."""
        return self._files(name).where(name)

    def aside(self, name: str) -> Path:
        """Return where a damaged file goes, always in the home."""
        return self.home / DAMAGED / name

    # --- files as a whole ------------------------------------------------------------------------------------

    def look(self, name: str) -> Stored | None:
        """Return the size and the time of a file; None if it is absent."""
        return self._files(name).look(name)

    def listing(self, kind: str) -> dict[str, Stored]:
        """Return the finished files of a kind by name, without the one that has no rows."""
        empty = file_kinds()[kind].empty if kind in file_kinds() else ""
        return {name: stored for name, stored in self._files(kind).listing(kind).items() if name != empty}

    def checksum(self, name: str, recorded: str) -> str | None:
        """Return the checksum of a file's bytes by the algorithm of the recorded one, or None if it is absent."""
        try:
            with object_store_errors(self.where(name)), self._files(name).open(name) as file:
                return checksum_of(file, recorded)
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with its files, if it is there."""
        self._files(name).remove(name)

    def set_aside(self, name: str) -> None:
        """Move a damaged file to its place in ``damaged/``, if it is there."""
        aside = self.aside(name)
        aside.parent.mkdir(parents=True, exist_ok=True)
        self._files(name).take_out(name, aside)

    def has_origin(self, name: str, fingerprints: Collection[str]) -> bool:
        """Return whether a file that is there was written under one of these fingerprints."""
        if PurePosixPath(name).parent.name in fingerprints:
            return True
        try:
            with self._files(name).open(name) as source:
                if name.endswith(".parquet"):
                    metadata = pq.read_schema(source).metadata
                else:
                    with pa.ipc.open_file(source) as reader:
                        metadata = reader.schema.metadata
            found = json.loads((metadata or {}).get(_METADATA_KEY, b"{}"))
        except (OSError, ValueError, pa.ArrowException):
            return False
        return found.get("fingerprint") in fingerprints

    # --- writing ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path for a file; put it in its place if the body succeeds.

        If anything fails, what was there is unchanged and the temporary is gone.
        """
        files = self._files(name)
        with _publishing(files, name) as scratch:
            new = NewFile(scratch)
            yield new
            size, checksum = new.checksum()
        stored = files.look(name)
        if stored is None or stored.bytes != size:
            arrived = stored.bytes if stored else 0
            raise OSError(errno.EIO, f"{arrived:,} of {size:,} bytes arrived", files.where(name))
        self._written[name] = Written(size, stored.modified, checksum)

    @contextlib.contextmanager
    def new_folder(self, name: str) -> Iterator[NewFolder]:
        """Yield a folder for files of :meth:`file_of`; it replaces what was there if the body succeeds.

        In an object store each file appears by itself; what was there and is not in ``files`` is then removed.
        """
        files = self._files(name)
        if files.remote:
            folder = NewFolder(name, None)
            yield folder
            for old in files.listing(name).keys() - folder.files.keys():
                files.remove(old)
            return
        with _publishing(files, name) as new:
            new.mkdir()
            yield NewFolder(name, new)

    @contextlib.contextmanager
    def file_of(self, folder: NewFolder, file: str) -> Iterator[Path]:
        """Yield the path of a file to be written in a folder in the making, in whatever process."""
        name = f"{folder.name}/{file}"
        if folder.path is None:
            with self.replacing(name) as path:
                yield path
            return
        new = NewFile(folder.path / file)
        yield new
        size, checksum = new.checksum()
        modified = new.stat().st_mtime_ns
        self._written[name] = Written(size, modified, checksum)

    def written(self, *names: str) -> dict[str, Written]:
        """Return what is known of files that this process has just written; KeyError if it has not."""
        return {name: self._written.pop(name) for name in names}

    def _remove_leftovers(self, folder: Path) -> None:
        """Remove files that killed processes left, once they are too old to be still in progress."""
        for scratch in folder.glob("*/*"):
            with contextlib.suppress(OSError):
                if time.time() - scratch.stat().st_mtime > LEFTOVER_SECONDS:
                    _discard(scratch)

    @contextlib.contextmanager
    def table_writer(self, name: str, kind: str, origin: Origin) -> Iterator[pq.ParquetWriter]:
        """Write a Parquet file of this kind piece by piece; it appears under its name when the body ends."""
        with self.replacing(name) as temporary, sealed_writer(temporary, kind, origin) as writer:
            yield writer

    def write_table(self, name: str, kind: str, columns: dict, origin: Origin) -> None:
        """Write a whole Parquet file."""
        with self.table_writer(name, kind, origin) as writer:
            writer.write_table(table(kind, columns))

    @contextlib.contextmanager
    def features_writer(self, name: str, schema: pa.Schema, origin: Origin) -> Iterator[BatchWriter]:
        """Write batches of features; the file appears under its name when the body ends."""
        schema = schema.with_metadata(origin.metadata())
        with self.replacing(name) as temporary, BatchWriter(temporary, schema, origin.fingerprint) as writer:
            yield writer

    # --- reading ---------------------------------------------------------------------------------------------

    def open_table(self, name: str, expected: Origin, dictionaries: Sequence[str] = ()) -> ParquetFile:
        """Open a Parquet file for reading after checking its origin.

        Parameters
        ----------
        name : str
        expected : Origin
        dictionaries : sequence of str
            Columns of strings to be read dictionary-encoded.

        Raises
        ------
        StaleInput
            The file is absent, or was written under another fingerprint.
        DamagedFile
            It is damaged; here, or when its rows are read.
        """
        files = self._files(name)
        with self._expected(name, expected):
            source = files.open(name, mapped=True)
        file = ParquetFile(source, files.where(name), dictionaries, read_ahead=files.remote)
        expected.check(files.where(name), file.metadata.metadata)
        return file

    def read_table(self, name: str, expected: Origin, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a Parquet file, or some of its columns; see :meth:`open_table`."""
        with self.open_table(name, expected) as file:
            return file.read(columns=columns)

    def read_features(self, name: str, expected: Origin) -> Iterator[pa.RecordBatch]:
        """Yield the batches of a features file after checking its origin; raises like :meth:`open_table`."""
        files = self._files(name)
        with self._expected(name, expected):
            # Not mapped: the pages of a mapped file count as memory of the process.
            source = files.open(name)
        where, ahead = files.where(name), READ_BYTES if files.remote else 0
        with source:
            yield from read_batches(
                source, where, expected.fingerprint, partial(expected.check, where), ahead
            )

    @contextlib.contextmanager
    def _expected(self, name: str, expected: Origin) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise StaleInput(f"{self.where(name)}: not there; materialize {expected.output} first") from None


class There:
    """Which files of the lineage are there, looked up in one listing of each kind.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listings: dict[str, dict[str, Stored]] = {}

    def unchanged(self, name: str, modified: int | None) -> bool:
        """Return whether a file is there, and was written when the lineage says."""
        found = self._look(name)
        return found is not None and found.modified == modified

    def made(self, name: str, fingerprints: Collection[str]) -> bool:
        """Return whether a file is there, and was written under one of these fingerprints.

        A run that ends between writing a file and recording it leaves the lineage of the previous file. So a file whose
        time differs from the lineage's is checked for its origin.
        """
        return self._look(name) is not None and self._store.has_origin(name, fingerprints)

    def _look(self, name: str) -> Stored | None:
        kind = name.partition("/")[0]
        if kind not in self._listings:
            self._listings[kind] = self._store.listing(kind)
        return self._listings[kind].get(name)


@contextlib.contextmanager
def _publishing(files: BulkFiles, name: str) -> Iterator[Path]:
    """Yield a temporary path for a file or folder; publish it if the body succeeds, remove it in any case."""
    scratch = None
    try:
        scratch = files.scratch(name)
        yield scratch
        files.publish(scratch, name)
    except OSError as error:
        # The error of any other file that the body reads or writes names that file already.
        if error.errno is not None and str(error.filename or scratch or "").startswith(str(scratch or "")):
            message = f"{error.strerror or error}; nothing was changed"
            if error.errno in DISK_FULL:
                message += ": make room and start again"
            raise OSError(error.errno, message, files.where(name)) from error
        raise
    finally:
        if scratch:
            _discard(scratch)


def _discard(path: Path) -> None:
    """Remove an unfinished file or folder, if it is there and this process may."""
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


class Origin:
    """Origin of a file, kept in its metadata: output, fingerprint, feature configuration.

    Parameters
    ----------
    output : str
        ``asset[partition]``.
    fingerprint : str
    features : dict
        The feature configuration behind its rows.
    """

    def __init__(self, output: str, fingerprint: str, features: dict) -> None:
        self.output = output
        self.fingerprint = fingerprint
        self.features = features

    def metadata(self) -> dict[bytes, bytes]:
        """Return the origin as a schema's metadata."""
        return {_METADATA_KEY: json.dumps(vars(self), sort_keys=True).encode()}

    def check(self, path: str, metadata: dict[bytes, bytes] | None) -> None:
        """Raise :class:`StaleInput` if a file's metadata has another origin; say what differs."""
        found = json.loads((metadata or {}).get(_METADATA_KEY, b"{}"))
        if found.get("fingerprint") == self.fingerprint:
            return
        theirs = found.get("features", {})
        differences = [
            f"features.{key} is {theirs.get(key)!r} there, {self.features.get(key)!r} here"
            for key in sorted({*theirs, *self.features})
            if theirs.get(key) != self.features.get(key)
        ]
        if differences:
            what = f"the configuration changed since it was made, or meanwhile ({'; '.join(differences)})"
        else:
            what = "other inputs than these made it: it is stale, or was made again meanwhile"
        raise StaleInput(f"{path}: {what}; materialize {self.output} again")


@contextlib.contextmanager
def sealed_writer(path: Path, kind: str, origin: Origin) -> Iterator[pq.ParquetWriter]:
    """Write a Parquet file of this kind piece by piece, in place; the caller renames it, or the folder around it."""
    schema = columns_of(kind).with_metadata(origin.metadata())
    with parquet_writer(path, schema, **parquet_options(schema)) as writer:
        yield writer


def _has_schema(path: Path, schema: pa.Schema) -> bool:
    """Return whether a Parquet file is there, readable, and has this schema."""
    try:
        return pq.read_schema(path).equals(schema)
    except (OSError, ValueError, pa.ArrowException):
        return False


def columns_of(kind: str) -> pa.Schema:
    """Return the schema of a kind of files; ValueError if its files are not tables."""
    schema = file_kinds()[kind].schema
    if schema is None:
        raise ValueError(f"{kind}: its files are not tables")
    return schema


def table(kind: str, columns: dict) -> pa.Table:
    """Build a table of this kind; a single string fills its column, columns that may be null are by default."""
    schema = columns_of(kind)
    n_rows = max(len(value) for value in columns.values() if not isinstance(value, str))
    arrays = []
    for column in schema:
        name, type_ = column.name, column.type
        value = columns.get(name, pa.nulls(n_rows, type_)) if column.nullable else columns[name]
        if isinstance(value, str) and type_ == REPEATED:
            indices = pa.array(np.zeros(n_rows, np.int32))
            arrays.append(pa.DictionaryArray.from_arrays(indices, pa.array([value])))
        elif isinstance(value, str):
            arrays.append(pa.repeat(pa.scalar(value, type_), n_rows))
        else:
            arrays.append(pa.array(value, type_) if not isinstance(value, pa.Array) else value.cast(type_))
    return pa.Table.from_arrays(arrays, schema=schema)
