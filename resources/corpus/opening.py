"""Opening files, wherever they are: file systems, decompression, text.

What belongs here: from a URI to a stream of bytes or of UTF-8, the same for all formats. What does not: finding files
(``files``), their content (``lines``, ``tables``).

Files of object stores that Arrow serves are read in requests of several megabytes, each byte once.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
from fsspec.core import url_to_fs
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile

from dsir_dagster.resources.corpus.errors import CorpusError
from dsir_dagster.resources.corpus.signatures import HEAD, compression, container, encoding
from dsir_dagster.resources.object_stores import ObjectFile, ObjectStoreError, arrow_file_system, open_object
from dsir_dagster.resources.uris import local_path

#: Bytes that a request to an object store asks for. A file that is not larger is fetched as a whole.
REQUEST_BYTES = 1 << 23

_PADDING = bytes(4)  # gzip ends with the length of the text, which is zero only for an empty one


class ArrowStore(ArrowFSWrapper):
    """An object store that Arrow serves, as a file system of fsspec.

    Listings are not cached, and an error while a folder is listed is an error; fsspec's own methods leave the folder
    out.
    """

    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def find(self, path: str, maxdepth: int | None = None, **_: Any) -> dict[str, dict[str, Any]]:
        """Return the files in a folder, or in those below it as well, by path; deeper ones do no harm."""
        try:
            found = self.fs.get_file_info(pafs.FileSelector(path, recursive=maxdepth != 1))
        except FileNotFoundError:
            return {}
        return {info.path: self._make_entry(info) for info in found if info.type == pafs.FileType.File}

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Describe a file by what its store says of it, its tag among it."""
        try:
            with self.fs.open_input_file(path) as file:
                said = {name: value.decode() for name, value in (file.metadata() or {}).items()}
                return {**said, "name": path, "size": file.size(), "type": "file"}
        except (FileNotFoundError, IsADirectoryError):
            return self._make_entry(self.fs.get_file_info(path))


def file_system(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return a file's file system, and its path there."""
    return file_system_of(local_path(uri))


def file_system_of(pattern: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a pattern, or of a path that is written as it is, and the path there."""
    try:
        if (found := arrow_file_system(pattern)) is not None:
            return ArrowStore(found[0]), found[1]
        return url_to_fs(pattern)
    except ObjectStoreError as error:
        raise CorpusError(str(error)) from error
    except (ValueError, ImportError) as error:
        raise CorpusError(
            f"{pattern}: no file system for this URI: {error}; check the scheme, or install the fsspec package "
            "that serves it"
        ) from error


@contextlib.contextmanager
def open_binary(uri: str) -> Iterator[pa.NativeFile]:
    """Open a file for random access, without a Python object in between where Arrow serves its file system."""
    filesystem, path = file_system(uri)
    with contextlib.ExitStack() as stack:
        if isinstance(filesystem, LocalFileSystem):
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise CorpusError(
                    f"{uri}: a pipe, a socket or a device, expected a file; move it out of the pattern"
                )
            yield stack.enter_context(pa.OSFile(os.fsencode(path), "rb"))
        elif isinstance(filesystem, ArrowStore):
            file = stack.enter_context(open_object(filesystem.fs, path))
            if (size := file.size()) > REQUEST_BYTES:
                yield file
            else:
                whole = file.read_buffer(size)
                if len(whole) < size:
                    raise CorpusError(f"{uri}: its store sent {len(whole):,} of {size:,} bytes; try again")
                yield pa.BufferReader(whole)
        else:
            file = stack.enter_context(filesystem.open(path, "rb"))
            yield stack.enter_context(pa.PythonFile(file, mode="r"))


def read_so_far(raw: pa.NativeFile) -> int:
    """Return how many bytes of a file were read from its beginning on, for progress; 0 if that is not known."""
    try:
        return raw.tell()
    except (OSError, ValueError, NotImplementedError):  # of some stores
        return 0


def is_distant(stream: pa.NativeFile) -> bool:
    """Return whether each read of a stream from :func:`open_binary` is a request to an object store."""
    return isinstance(stream, ObjectFile)


def in_sequence(stream: pa.NativeFile) -> pa.NativeFile:
    """Return a stream from :func:`open_binary` that is read from beginning to end, in requests of a good size."""
    return pa.BufferedInputStream(stream, REQUEST_BYTES) if is_distant(stream) else stream


def ahead(stream: pa.NativeFile) -> pa.NativeFile:
    """Return a stream from :func:`open_binary` that is read here and there, but mostly forward."""
    return pa.PythonFile(_Ahead(stream), mode="r") if is_distant(stream) else stream


class _Ahead(AbstractBufferedFile):
    """Reads blocks of the size of a request, and holds a few: those of the beginning, of the end, and in use."""

    def __init__(self, stream: pa.NativeFile) -> None:
        held = {"cache_type": "blockcache", "cache_options": {"maxblocks": 4}}
        super().__init__(None, "", block_size=REQUEST_BYTES, size=stream.size(), **held)
        self._stream = stream

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._stream.read_at(end - start, start)


@contextlib.contextmanager
def open_text(uri: str) -> Iterator[tuple[pa.NativeFile, pa.NativeFile]]:
    """Open a text file as UTF-8, decompressed while it is read; concatenated frames are one stream.

    Yields the stream, and the file that it comes from, for :func:`read_so_far`.

    Compression and encoding follow from the first bytes, whatever the file's name. UTF-16 and UTF-32 are recognized by
    their byte order mark, or by the zeros between ASCII; a byte order mark of UTF-8 is kept.

    Raises
    ------
    CorpusError
        By its first bytes, the file is not text.
    """
    with open_binary(uri) as file:
        raw, padded = file, True
        if isinstance(raw, pa.PythonFile) and not is_distant(raw):  # some stores cannot seek
            head = raw.read(HEAD)
            raw = pa.PythonFile(_PutBack(head, raw), mode="r")
        else:
            size = raw.size()
            head = raw.read_at(min(HEAD, size), 0)
            if compression(head) == "gzip":
                padded = raw.read_at(min(len(_PADDING), size), max(size - len(_PADDING), 0)) == _PADDING
            raw.seek(0)
            raw = in_sequence(raw)
        codec = compression(head)
        if codec is not None:
            packed, head = head, b""
            with contextlib.suppress(
                OSError, EOFError, zlib.error
            ):  # damage shows when the whole file is read
                head = _decompressed(pa.BufferReader(packed), codec).read(64)
        if (found := container(head)) is not None:
            inside = f"compressed with {codec}, and within it " if codec else ""
            raise CorpusError(
                f"{uri}: by its first bytes this is {inside}{found}, but its suffix says otherwise; rename it, or "
                "write it in the format of its suffix"
            )
        stream = raw if codec is None else _decompressed(raw, codec, padded)
        if (encoded := encoding(head)) is not None:
            stream = pa.transcoding_input_stream(stream, encoded.lower(), "utf-8")
        yield stream, file


def _decompressed(raw: pa.NativeFile, codec: str, padded: bool = False) -> pa.NativeFile:
    """Decompress a stream; like gzip(1), accept zeros after its end, with which tapes and archives pad."""
    if codec == "gzip" and padded:
        return pa.PythonFile(gzip.GzipFile(fileobj=raw), mode="r")
    return pa.CompressedInputStream(raw, codec)


class _PutBack(io.RawIOBase):
    """A stream with its first bytes put back."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = io.BytesIO(head), rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._head.read(size) or self._rest.read(size)
