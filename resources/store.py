"""The store: immutable files of bulk rows, one per output and partition, below DSIR_HOME.

What belongs here: paths, schemas, writing to a temporary name and renaming, reading back with a check
of the fingerprint. What does not: how damage is noticed (``resources/sealed.py``), small rows
(``resources/catalog.py``), the corpus (``resources/corpus/``).

Which kinds of files there are, and where, the records of the assets say (``assets/``).

Every file carries, in its schema's metadata, the fingerprint it was written under and the feature
configuration behind it. A reader says which fingerprint it expects and is refused otherwise. A damaged file is
refused in any case.
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

#: What a document is that is a piece of a record: the record's row in its file, and where the piece begins and ends
#: in the UTF-8 bytes of its text. Null where the document is the whole record, the one at `row`.
PIECE = {"record": pa.int64(), "begin_byte": pa.int64(), "end_byte": pa.int64()}

#: A string that many rows have: in memory as in the file, a number for each row, and every string once.
REPEATED = pa.dictionary(pa.int32(), pa.string())


def schema_of(columns: dict[str, pa.DataType]) -> pa.Schema:
    """Only what tells of a piece may be null. Parquet keeps and reads a bit for every value that may be."""
    return pa.schema([pa.field(name, type_, nullable=name in PIECE) for name, type_ in columns.items()])


@dataclass(frozen=True)
class FileKind:
    """A kind of files that an asset's outputs have, in a folder of its own below DSIR_HOME.

    Attributes
    ----------
    name : str
        Of the folder.
    schema : pyarrow.Schema or None
        Of its rows; None where it is no table of Parquet.
    pattern : str
        Path of an output's file below the folder: ``{partition}``, ``{target}`` and ``{fingerprint}`` stand for the
        output's.
    read_by_others : bool
        Whether other outputs are made from it.
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
        """Where the file without rows is, below DSIR_HOME: a view over a glob fails where nothing matches."""
        path = self.path(partition="~empty", target="~", fingerprint="~")
        return path if "{partition}" in self.pattern else f"{self.name}/~empty.parquet"

    @property
    def glob(self) -> str:
        """What matches its files, and no file without rows, below its folder."""
        return re.sub(r"{\w+}", "*", self.pattern.replace("{partition}", "[!~.]*"))


def file_kinds() -> dict[str, FileKind]:
    """Return the kinds of files that the assets of the graph have, by name."""
    return {kind.name: kind for asset in graph() for kind in asset.files}


#: Columns in which strings repeat are worth a dictionary.
_REPEATING = ["shard", "source", "target", "selection", "version", "reason"]
#: Noise, that nothing makes smaller.
_NOISE = {"content_hash", "id_hash", "log_weight", "log_ratio", "key"}


def parquet_options(schema: pa.Schema) -> dict[str, object]:
    """Return how `pyarrow.parquet.ParquetWriter` is to write a table of this schema.

    Whole numbers take as few bits as the largest difference of their neighbors needs: that is as small as what zstd
    leaves of them, and read four times as fast. Of strings, ids among them, lz4 leaves an eighth more than zstd, and
    they are read in a quarter less time.
    """
    whole = [field.name for field in schema if pa.types.is_signed_integer(field.type)]
    return {
        "compression": {name: "none" if name in _NOISE or name in whole else "lz4" for name in schema.names},
        "use_dictionary": [name for name in schema.names if name in _REPEATING],
        "column_encoding": {name: "DELTA_BINARY_PACKED" for name in whole} or None,
    }


_METADATA_KEY = b"dsir"

#: What the system says where there is no room: on the disk, or in its user's share of it.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

#: Folder, in each kind's, of files that are being written.
TEMPORARY = ".tmp"
#: Age at which a file that is being written is taken for a killed process's.
LEFTOVER_SECONDS = 24 * 3600


class StaleInput(RuntimeError):
    """A file was written under another fingerprint than the reader expects."""


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
            return  # another user's, or on a read-only disk: what is there can be read
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
        """Return where the log weights of a shard's documents under a target are, or will be."""
        return self.path("weights", shard, target)

    def selection_folder(self, selection: str, fingerprint: str) -> Path:
        """Return the folder of one version of a selection."""
        return self.path("selections", selection, fingerprint=fingerprint).parent

    def report(self, selection: str, fingerprint: str) -> Path:
        """Return where the report of one evaluation of a selection is, or will be."""
        return self.path("evaluations", selection, fingerprint=fingerprint)

    def aside(self, name: str) -> Path:
        """Return where a damaged file goes; ``name`` is its path below the home folder."""
        return self.home / "damaged" / name

    def is_there(self, name: str, fingerprints: Collection[str], modified: int | None) -> bool:
        """Whether a file of the lineage is there, and no other one in its place.

        A run that ends between writing a file and recording it leaves the lineage of the file before. So a file
        that was not written when the lineage says is asked for its origin.

        Parameters
        ----------
        name : str
            Path below the home folder.
        fingerprints : collection of str
            Under which its output's files were written.
        modified : int or None
            When it was written, as the lineage has it: nanoseconds, by the file system's clock.
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
        """Give a temporary path (file or folder); rename it to ``path`` if the body succeeds.

        Whatever fails, ``path`` is as it was and the temporary is gone.
        """
        # Beside the kind's files, since a kind may be on a disk of its own, and deeper than any view looks.
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
            # A file that the body reads, or another that it writes, is named already.
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
        """Remove what killed processes left, once no living one can be writing it any more."""
        for scratch in folder.glob("*"):
            with contextlib.suppress(OSError):
                if time.time() - scratch.stat().st_mtime > LEFTOVER_SECONDS:
                    shutil.rmtree(scratch, ignore_errors=True)

    @contextlib.contextmanager
    def table_writer(self, path: Path, kind: str, origin: Origin) -> Iterator[pq.ParquetWriter]:
        """Write a Parquet file of this kind in pieces; it appears at ``path`` when the body ends."""
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
            Columns of strings to be read as a dictionary and a number for each row.

        Raises
        ------
        StaleInput
            The file is absent, or was written under another fingerprint.
        DamagedFile
            It is not as it was written; here, or where its rows are read.
        """
        try:
            file = ParquetFile(path, dictionaries)
        except FileNotFoundError:
            raise StaleInput(f"{path}: not there; materialize {expected.output} first") from None
        expected.check(path, file.metadata.metadata)
        return file

    def read_table(self, path: Path, expected: Origin, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a Parquet file, or some of its columns, after checking its origin; see :meth:`open_table`."""
        with self.open_table(path, expected) as file:
            return file.read(columns=columns)

    @contextlib.contextmanager
    def features_writer(self, path: Path, schema: pa.Schema, origin: Origin) -> Iterator[BatchWriter]:
        """Write record batches of features; the file appears at ``path`` when the body ends."""
        schema = schema.with_metadata(origin.metadata())
        with self.replacing(path) as temporary, BatchWriter(temporary, schema, origin.fingerprint) as writer:
            yield writer

    def read_features(self, path: Path, expected: Origin) -> Iterator[pa.RecordBatch]:
        """Yield the record batches of a features file after checking its origin; errors as :meth:`open_table`'s."""
        if not path.exists():
            raise StaleInput(f"{path}: not there; materialize {expected.output} first")
        yield from read_batches(path, expected.fingerprint, partial(expected.check, path))


class Origin:
    """What a file says of its origin: output, fingerprint, feature configuration.

    Parameters
    ----------
    output : str
        ``asset[partition]``.
    fingerprint : str
    features : dict
        The feature configuration that the rows depend on.
    """

    def __init__(self, output: str, fingerprint: str, features: dict) -> None:
        self.output = output
        self.fingerprint = fingerprint
        self.features = features

    def metadata(self) -> dict[bytes, bytes]:
        """Return the origin as a schema's metadata."""
        return {_METADATA_KEY: json.dumps(vars(self), sort_keys=True).encode()}

    def check(self, path: Path, metadata: dict[bytes, bytes] | None) -> None:
        """Raise :class:`StaleInput` if a file's metadata is not this origin; say what became of it."""
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
    """Write a Parquet file of this kind in pieces, in place: whoever calls it renames it, or a folder around it."""
    schema = columns_of(kind).with_metadata(origin.metadata())
    with parquet_writer(path, schema, **parquet_options(schema)) as writer:
        yield writer


def _has_schema(path: Path, schema: pa.Schema) -> bool:
    """Whether a Parquet file is there, can be read and has these columns."""
    try:
        return pq.read_schema(path).equals(schema)
    except (OSError, ValueError, pa.ArrowException):
        return False


def columns_of(kind: str) -> pa.Schema:
    """Return the schema of a kind of files that is a table."""
    schema = file_kinds()[kind].schema
    if schema is None:
        raise ValueError(f"{kind}: its files are no tables")
    return schema


def table(kind: str, columns: dict) -> pa.Table:
    """Build a table of this kind; a single string fills its whole column, `PIECE` is null where it is not given."""
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
