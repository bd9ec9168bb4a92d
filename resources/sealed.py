"""Files of outputs whose damage is noticed when they are read.

What belongs here: sealing Parquet and Arrow IPC files when they are written, and checking them when they are read.
What does not: which files there are (``resources/store.py``).

Any reader of the format can read either.

- Parquet: every page has the format's own CRC, which leaves out the pages' headers and the footer. The footer is
  sealed; a damaged header that Arrow can still read gives another number of rows than the footer, which is an error.
- Arrow IPC has no checksums. Every batch is sealed, header and body, and so is the footer.

A seal is the hash of the bytes around it, with zeros in its own place. It stands in the metadata that both formats
have. The seal of a batch also hashes the file's fingerprint and the batch's number, so that a batch of another file,
or from another place in this one, does not pass.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsir.featurizer.checksum import checksum
from dsir_dagster.resources.object_stores import store_error
from dsir_dagster.resources.stamps import open_new

_KEY = "dsir_seal"
#: Begins a seal; names in the metadata are JSON, which has no such control character.
_MARK = b"\x1fseal:"
_DIGITS = 16
_UNSEALED = _MARK + b"0" * _DIGITS
#: How the files of a format end, after four bytes with the size of the footer.
_PARQUET_END, _IPC_END = b"PAR1", b"ARROW1"
#: Bytes at the beginning of an IPC file: its name, padded to eight.
_IPC_BEGIN = 8
#: Bytes at the beginning of a message: a mark, and the size of its header.
_MESSAGE_BEGIN = 8


class DamagedFile(RuntimeError):
    """A file of an output is damaged.

    Parameters
    ----------
    path : str
        Or URI.
    what : object
        What is wrong.
    """

    def __init__(self, path: str, what: object) -> None:
        super().__init__(
            f"{path}: the file is damaged ({what}); `dsir verify` sets it aside, with what was made from it, and "
            "`dsir run` then makes both again"
        )


@contextlib.contextmanager
def parquet_writer(path: Path, schema: pa.Schema, **options: object) -> Iterator[pq.ParquetWriter]:
    """Write a Parquet file; it is sealed when the body ends."""
    with open_new(path) as file:
        with pq.ParquetWriter(
            pa.PythonFile(file, "w"), schema, write_page_checksum=True, **options
        ) as writer:
            yield writer
            writer.add_key_value_metadata({_KEY: _UNSEALED})
            file.hold()
        file.write(_with_footer_sealed(file.held(), _PARQUET_END))


class ParquetFile(pq.ParquetFile):
    """A Parquet file whose pages are checked as they are read.

    Parameters
    ----------
    source : pyarrow.NativeFile
        Closed with this one.
    path : str
        Path or URI, for errors.
    dictionaries : sequence of str
        Columns of strings to be read dictionary-encoded.
    read_ahead : bool
        Whether to read what a row group needs in few large pieces. Of a mapped file, that would be a copy.

    Raises
    ------
    DamagedFile
        Here, or when rows are read.
    """

    def __init__(
        self, source: pa.NativeFile, path: str, dictionaries: Sequence[str] = (), read_ahead: bool = False
    ) -> None:
        self._path = path
        self._source = source
        with _damage_named(path):
            _check_footer(source, path, _PARQUET_END)
            super().__init__(
                source,
                read_dictionary=list(dictionaries),
                pre_buffer=read_ahead,
                page_checksum_verification=True,
            )

    def close(self, force: bool = False) -> None:
        """Close the file and its source."""
        super().close(force)
        self._source.close()

    def read_row_group(self, i: int, columns: Sequence[str] | None = None, **_: object) -> pa.Table:
        """Read a row group, or some of its columns, in this thread."""
        return self._checked(super().read_row_group, self.metadata.row_group(i).num_rows, i, columns=columns)

    def read(self, columns: Sequence[str] | None = None, **_: object) -> pa.Table:
        """Read all rows, or some of their columns, in this thread."""
        return self._checked(super().read, self.metadata.num_rows, columns=columns)

    def _checked(self, read: Callable[..., pa.Table], n_rows: int, *arguments: object, **options: object):
        with _damage_named(self._path):
            table = read(*arguments, use_threads=False, **options)
            for column in table.columns:  # a damaged header may give a shorter dictionary
                column.validate(full=pa.types.is_dictionary(column.type))
        # A damaged header that gives fewer values, or no data, is readable.
        if len(table) != n_rows:
            raise DamagedFile(self._path, f"{len(table):,} rows where {n_rows:,} were written")
        return table


class BatchWriter:
    """Write record batches of one schema, without dictionaries, to an Arrow IPC file; a context manager.

    Parameters
    ----------
    path : Path
    schema : pyarrow.Schema
    made_of : str
        Fingerprint of the file's inputs; a reader has to know it.
    """

    def __init__(self, path: Path, schema: pa.Schema, made_of: str) -> None:
        self._path = path
        self._schema = schema
        self._made_of = made_of
        self._batches = 0

    def __enter__(self) -> BatchWriter:
        self._file = open_new(self._path)
        self._file.hold()
        # Not compressed: what is written is packed, and lz4 saved 1 % of it.
        sink = pa.PythonFile(self._file, "w")
        self._writer = pa.ipc.new_file(sink, self._schema, metadata={_KEY: _UNSEALED})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            self._writer.close()
            ending = self._file.held()
            if kind is None:
                self._file.write(_with_footer_sealed(ending, _IPC_END))

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append a batch."""
        self._writer.write_batch(batch, custom_metadata={_KEY: _UNSEALED})
        written = self._file.held()
        source = pa.BufferReader(pa.py_buffer(written))
        if self._batches == 0:
            source.seek(_IPC_BEGIN)
            pa.ipc.read_message(source)  # the schema
        header = source.tell() + _MESSAGE_BEGIN
        message = pa.ipc.read_message(source)
        _, digits, at = _seal_of_batch(message, self._made_of, self._batches)
        written[header + at : header + at + _DIGITS] = digits
        self._file.write(written)
        self._file.hold()
        self._batches += 1


def read_batches(
    source: pa.NativeFile,
    path: str,
    made_of: str,
    check: Callable[[dict | None], None],
    read_ahead: int = 0,
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file of :class:`BatchWriter`, each checked before it is decoded.

    Parameters
    ----------
    source : pyarrow.NativeFile
    path : str
        Path or URI, for errors.
    made_of : str
        As given when it was written.
    check : callable
        Takes the schema's metadata before the first batch is read.
    read_ahead : int
        Bytes to read at a time; 0: what a batch needs.

    Raises
    ------
    DamagedFile
    """
    with _damage_named(path):
        _check_footer(source, path, _IPC_END)
        file = pa.ipc.open_file(source)
    check(file.schema.metadata)
    schema, n_batches = file.schema, file.num_record_batches
    with _damage_named(path):
        source.seek(_IPC_BEGIN)
        stream = pa.BufferedInputStream(source, read_ahead) if read_ahead else source
        pa.ipc.read_message(stream)  # the schema, which the footer has too
    for index in range(n_batches):
        # Not bound to a name, so that its memory is free for the next one.
        yield _read_batch(stream, path, schema, made_of, index)


def _read_batch(
    source: pa.NativeFile, path: str, schema: pa.Schema, made_of: str, index: int
) -> pa.RecordBatch:
    # As few steps as possible: weighing a batch has evicted the interpreter from the processor's cache.
    try:
        message = pa.ipc.read_message(source)
        found, digits, _ = _seal_of_batch(message, made_of, index)
        if found == digits:
            return pa.ipc.read_record_batch(message, schema)
    except _UNREADABLE as error:
        raise _damage(path, error) from None
    raise DamagedFile(path, f"checksum of batch {index}")


def _seal_of_batch(message: pa.ipc.Message, made_of: str, index: int) -> tuple[bytes, bytes, int]:
    """Return the seal of a batch, the one it should have, and its place in the header."""
    words = np.frombuffer(message.body, np.uint64)  # a body is aligned, and whole words long
    return _seal(message.metadata.to_pybytes(), f"{made_of} {index} {checksum(words)}".encode())


def _seal(data: bytes, about: bytes = b"") -> tuple[bytes, bytes, int]:
    """Return the seal of some bytes (b"" if there is none), the one they should have, and its place."""
    at = data.rfind(_MARK) + len(_MARK)
    if at < len(_MARK):
        return b"", b"?", 0
    masked = data[:at] + b"0" * _DIGITS + data[at + _DIGITS :]
    should = hashlib.blake2b(masked + about, digest_size=_DIGITS // 2).hexdigest().encode()
    return data[at : at + _DIGITS], should, at


def _with_footer_sealed(ending: bytearray, end: bytes) -> bytearray:
    """Return the last bytes of a file, its footer among them, with the footer's seal."""
    size = len(ending) - len(end) - 4
    begin = size - int.from_bytes(ending[size : size + 4], "little")
    _, digits, at = _seal(bytes(ending[begin:]))
    ending[begin + at : begin + at + _DIGITS] = digits
    return ending


def _check_footer(file: pa.NativeFile, path: str, end: bytes) -> None:
    """Raise :class:`DamagedFile` if a file's footer, its size or the end of the file is damaged."""
    size = file.size()
    footer = b""
    if size > len(end) + 4:
        file.seek(size - len(end) - 4)
        begin = size - len(end) - 4 - int.from_bytes(file.read(4), "little")
        if 0 <= begin:
            file.seek(begin)
            footer = file.read()
    found, digits, _ = _seal(footer)
    if found != digits or not footer.endswith(end):
        raise DamagedFile(path, "checksum of its footer" if found else "no checksum in its footer")
    file.seek(0)


#: What Arrow raises for bytes that it cannot read.
_UNREADABLE = (OSError, ValueError, EOFError, pa.ArrowException)


@contextlib.contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """Raise :class:`DamagedFile` for bytes that Arrow cannot read; pass the system's errors through."""
    try:
        yield
    except _UNREADABLE as error:
        raise _damage(path, error) from None


def _damage(path: str, error: Exception) -> Exception:
    if (of_store := store_error(path, error)) is not None:
        return of_store
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return DamagedFile(path, str(error).partition("\n")[0])
