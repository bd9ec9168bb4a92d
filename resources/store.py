"""The store: immutable files of bulk rows, one per output and partition, below DSIR_HOME.

What belongs here: paths, schemas, writing to a temporary name and renaming, checking fingerprints when reading. What
does not: how damage is noticed (``resources/sealed.py``), small rows (``resources/catalog.py``), the corpus
(``resources/corpus/``).

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
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsir_dagster.resources.graph import graph
from dsir_dagster.resources.sealed import BatchWriter, ParquetFile, parquet_writer, read_batches

#: Columns of a document that is a piece of a record: the record's row in its file, and the bounds of the piece in the
#: UTF-8 bytes of its text. Null if the document is the whole record at `row`.
PIECE = {"record": pa.int64(), "begin_byte": pa.int64(), "end_byte": pa.int64()}

#: A string that many rows share, dictionary-encoded in memory as in the file.
REPEATED = pa.dictionary(pa.int32(), pa.string())


def schema_of(columns: dict[str, pa.DataType]) -> pa.Schema:
    """Return a schema; only columns of `PIECE` may be null, as Parquet keeps a bit for every value that may be."""
    return pa.schema([pa.field(name, type_, nullable=name in PIECE) for name, type_ in columns.items()])


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
    """

    name: str
    schema: pa.Schema | None = None
    pattern: str = "{partition}.parquet"
    read_by_others: bool = True

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

#: Folder of unfinished files, in the folder of each kind.
TEMPORARY = ".tmp"
#: Age in seconds at which an unfinished file counts as a killed process's.
LEFTOVER_SECONDS = 24 * 3600


class StaleInput(RuntimeError):
    """A file is missing, or was written under another fingerprint than its reader expects."""


class Store:
    """Paths, atomic writes and checked reads of one home folder.

    Parameters
    ----------
    home : Path
        DSIR_HOME; made if absent.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        if home.is_dir() and not os.access(home, os.W_OK):
            return  # another user's, or on a read-only disk: reading still works
        for kind in file_kinds().values():
            (home / kind.name).mkdir(parents=True, exist_ok=True)
            if kind.schema is not None and not _has_schema(home / kind.empty, kind.schema):
                with self.replacing(home / kind.empty) as temporary:
                    pq.write_table(kind.schema.empty_table(), temporary)
            self._remove_leftovers(home / kind.name / TEMPORARY)

    def path(self, kind: str, partition: str = "", target: str = "", fingerprint: str = "") -> Path:
        """Return where the file of this kind and partition is, or will be."""
        where = file_kinds()[kind]
        return self.home / where.path(partition=partition, target=target, fingerprint=fingerprint)

    def weights(self, shard: str, target: str) -> Path:
        """Return where the log weights of a shard's documents for a target are, or will be."""
        return self.path("weights", shard, target)

    def selection_folder(self, selection: str, fingerprint: str) -> Path:
        """Return the folder of one version of a selection."""
        return self.path("selections", selection, fingerprint=fingerprint).parent

    def report(self, selection: str, fingerprint: str) -> Path:
        """Return where the report of an evaluation is, or will be."""
        return self.path("evaluations", selection, fingerprint=fingerprint)

    def aside(self, name: str) -> Path:
        """Return where a damaged file goes; ``name`` is its path below the home folder."""
        return self.home / "damaged" / name

    def is_there(self, name: str, fingerprints: Collection[str], modified: int | None) -> bool:
        """Return whether a file of the lineage is there, rather than another one in its place.

        A run that ends between writing a file and recording it leaves the lineage of the previous file. So a file whose
        modification time differs from the lineage's is checked for its origin.

        Parameters
        ----------
        name : str
            Path below the home folder.
        fingerprints : collection of str
            Those of the output's files.
        modified : int or None
            When it was written according to the lineage: nanoseconds by the file system's clock.
        """
        path = self.home / name
        try:
            if path.stat().st_mtime_ns == modified or path.parent.name in fingerprints:
                return True
            if path.suffix == ".parquet":
                metadata = pq.read_schema(path).metadata
            else:
                with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                    metadata = reader.schema.metadata
            found = json.loads((metadata or {}).get(_METADATA_KEY, b"{}"))
        except (OSError, ValueError, pa.ArrowException):
            return False
        return found.get("fingerprint") in fingerprints

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Yield a temporary path for a file or folder; rename it to ``path`` if the body succeeds.

        If anything fails, ``path`` is unchanged and the temporary is gone.
        """
        # Beside the kind's files, as a kind may have a disk of its own, and deeper than any view looks.
        scratch = self.home / path.relative_to(self.home).parts[0] / TEMPORARY / uuid.uuid4().hex
        new, old = scratch / "new", scratch / "old"
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield new
            if new.is_dir() and path.exists():
                os.replace(path, old)
            os.replace(new, path)
        except OSError as error:
            # The error of any other file that the body reads or writes names that file already.
            if error.errno is not None and str(error.filename or scratch).startswith(str(scratch)):
                message = f"{error.strerror or error}; nothing was changed"
                if error.errno in DISK_FULL:
                    message += ": make room and start again"
                raise OSError(error.errno, message, str(path)) from error
            raise
        finally:
            if old.exists() and not path.exists():
                os.replace(old, path)
            shutil.rmtree(scratch, ignore_errors=True)

    def _remove_leftovers(self, folder: Path) -> None:
        """Remove files that killed processes left, once they are too old to be still in progress."""
        for scratch in folder.glob("*"):
            with contextlib.suppress(OSError):
                if time.time() - scratch.stat().st_mtime > LEFTOVER_SECONDS:
                    shutil.rmtree(scratch, ignore_errors=True)

    @contextlib.contextmanager
    def table_writer(self, path: Path, kind: str, origin: Origin) -> Iterator[pq.ParquetWriter]:
        """Write a Parquet file of this kind piece by piece; it appears at ``path`` when the body ends."""
        with self.replacing(path) as temporary, sealed_writer(temporary, kind, origin) as writer:
            yield writer

    def write_table(self, path: Path, kind: str, columns: dict, origin: Origin) -> None:
        """Write a whole Parquet file."""
        with self.table_writer(path, kind, origin) as writer:
            writer.write_table(table(kind, columns))

    def open_table(self, path: Path, expected: Origin, dictionaries: Sequence[str] = ()) -> ParquetFile:
        """Open a Parquet file for reading after checking its origin.

        Parameters
        ----------
        path : Path
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
        try:
            file = ParquetFile(path, dictionaries)
        except FileNotFoundError:
            raise StaleInput(f"{path}: not there; materialize {expected.output} first") from None
        expected.check(path, file.metadata.metadata)
        return file

    def read_table(self, path: Path, expected: Origin, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a Parquet file, or some of its columns; see :meth:`open_table`."""
        with self.open_table(path, expected) as file:
            return file.read(columns=columns)

    @contextlib.contextmanager
    def features_writer(self, path: Path, schema: pa.Schema, origin: Origin) -> Iterator[BatchWriter]:
        """Write batches of features; the file appears at ``path`` when the body ends."""
        schema = schema.with_metadata(origin.metadata())
        with self.replacing(path) as temporary, BatchWriter(temporary, schema, origin.fingerprint) as writer:
            yield writer

    def read_features(self, path: Path, expected: Origin) -> Iterator[pa.RecordBatch]:
        """Yield the batches of a features file after checking its origin; raises like :meth:`open_table`."""
        if not path.exists():
            raise StaleInput(f"{path}: not there; materialize {expected.output} first")
        yield from read_batches(path, expected.fingerprint, partial(expected.check, path))


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

    def check(self, path: Path, metadata: dict[bytes, bytes] | None) -> None:
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
    """Build a table of this kind; a single string fills its column, columns of `PIECE` are null by default."""
    schema = columns_of(kind)
    n_rows = max(len(value) for value in columns.values() if not isinstance(value, str))
    arrays = []
    for name, type_ in zip(schema.names, schema.types, strict=True):
        value = columns[name] if name not in PIECE else columns.get(name, pa.nulls(n_rows, type_))
        if isinstance(value, str) and type_ == REPEATED:
            indices = pa.array(np.zeros(n_rows, np.int32))
            arrays.append(pa.DictionaryArray.from_arrays(indices, pa.array([value])))
        elif isinstance(value, str):
            arrays.append(pa.repeat(pa.scalar(value, type_), n_rows))
        else:
            arrays.append(pa.array(value, type_) if not isinstance(value, pa.Array) else value.cast(type_))
    return pa.Table.from_arrays(arrays, schema=schema)
