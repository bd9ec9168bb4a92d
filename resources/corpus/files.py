"""Files and file systems: shards of a source, their keys and stamps, opening and decompressing.

What belongs here: everything that is the same for all formats. What does not: the content of files (``lines``,
``tables``).
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import re
import shlex
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import fsspec
import pyarrow as pa
from fsspec.archive import AbstractArchiveFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from dsir_dagster.resources import wording
from dsir_dagster.resources.corpus.signatures import HEAD, compression, container, encoding
from dsir_dagster.resources.uris import local_name, local_path, masked, split_pattern

if TYPE_CHECKING:
    from dsir_dagster.resources.settings import RawSource

CODECS = (".gz", ".gzip", ".zst", ".zstd")  # the first bytes decide which of them it is
FORMATS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".ipc": "ipc",
    ".feather": "ipc",
}
COMPRESSIBLE = ("jsonl", "csv", "tsv")

_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_AGAIN = "nothing of it is used, get or write the file again"
_CUT_OFF = (
    "the compressed stream ends early; the file was cut off or is still being written: nothing of it is used, get the "
    "whole file"
)
_PADDING = bytes(4)  # gzip ends with the length of the text, which is zero only for an empty one
_MAX_KEY = 200  # a key becomes a file name; leaves room for suffixes within 255 bytes
_MODIFIED_KEYS = ("mtime", "modified", "LastModified", "last_modified", "Last-Modified", "updated")
#: Keys under which stores give the identity of an object's content, the surest first.
_TAG_KEYS = (
    "ETag",
    "etag",
    "md5Hash",
    "content_hash",
    "Content-MD5",
    "sha256",
    "sha",
    "version_id",
    "VersionId",
    "generation",
)


class CorpusError(ValueError):
    """A corpus file cannot be used; the message names it, what was expected and what to do, but no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))


@dataclass(frozen=True)
class FileInfo:
    """One file.

    Attributes
    ----------
    uri : str
        Path or fsspec URI; valid Unicode, printable where the file is local (`local_name`).
    size : int
        Bytes on the file system.
    modified : float
        Seconds since the epoch; 0.0 if the file system does not tell.
    tag : str or None
        The file system's identifier of the content (``ETag …``); None for local files.
    """

    uri: str
    size: int
    modified: float
    tag: str | None = None


@dataclass(frozen=True, kw_only=True)
class Shard(FileInfo):
    """One file of a raw source.

    Attributes
    ----------
    key : str
        ``<source>.<path below the glob's fixed folder>``; the partition key.
    source : str
        Name of the source.
    """

    key: str
    source: str


def discover(source: RawSource, leave_out: Path | None = None) -> list[Shard]:
    """Find the shards of a source.

    Files and folders whose names start with ``.`` or ``_`` or end with ``.tmp`` are left out.

    Parameters
    ----------
    source : RawSource
        Its ``uri`` is a path or fsspec URI, with glob characters (``**`` too).
    leave_out : Path, optional
        A folder whose files are not part of the corpus: DSIR_HOME.

    Returns
    -------
    list of Shard
        Sorted by key.

    Raises
    ------
    CorpusError
        Nothing matches, or two files have the same key.
    """
    shards: dict[str, Shard] = {}
    for relative, info in _find(source.uri, f"the source '{source.name}'", leave_out):
        key = shard_key(source.name, relative)
        if key in shards:
            raise CorpusError(
                f"{shards[key].uri} and {info.uri}: both files have the shard key '{key}'; rename or remove "
                f"one of them, or narrow the pattern {source.uri} of the source '{source.name}'"
            )
        shards[key] = Shard(**vars(info), key=key, source=source.name)
    return [shards[key] for key in sorted(shards)]


def expand(uri: str, leave_out: Path | None = None) -> list[FileInfo]:
    """Find the files of a path, URI or pattern, by the same rules as :func:`discover`.

    Returns
    -------
    list of FileInfo
        Sorted by URI.

    Raises
    ------
    CorpusError
        Nothing matches.
    """
    return sorted((info for _, info in _find(uri, "a target", leave_out)), key=lambda info: info.uri)


def file_exists(uri: str) -> bool:
    """Return whether there is a file; True if its store does not say."""
    try:
        filesystem, path = file_system(uri)
        return filesystem.exists(path)
    except Exception:  # file systems raise whatever their libraries do
        return True


def content_stamp(uri: str) -> str:
    """Return the SHA-256 of a file's bytes in 64 hexadecimal digits, without holding the file in memory.

    Raises
    ------
    CorpusError
        The file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    with corpus_errors(uri), open_binary(uri) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_still(uri: str, size: int, modified: float, stamp: str) -> bool:
    """Return whether a file is the one that was stamped: by its tag, its size and time, or else its content.

    Raises
    ------
    CorpusError
        The file is missing or cannot be read.
    """
    with corpus_errors(uri):
        filesystem, path = file_system(uri)
        filesystem.invalidate_cache()
        info = filesystem.info(path)
    same_size = int(info.get("size") or 0) == size
    key, _, tag = stamp.rpartition(" ")
    if key:  # a tag; some stores list tags and give none, or others, of a single file
        now = (tag_of(info) or "").rpartition(" ")
        return now[2] == tag if now[0] == key else same_size
    return bool(modified and same_size and modified_of(info) == modified) or content_stamp(uri) == stamp


def file_format(uri: str) -> str:
    """Return the format for a file's suffix: ``jsonl``, ``csv``, ``tsv``, ``parquet`` or ``ipc``.

    Raises
    ------
    CorpusError
        The suffix is not known.
    """
    _, kind = _split_suffix(uri.split("::")[0].split("?")[0] if "://" in uri else uri)
    if kind is None:
        raise CorpusError(
            f"{uri}: this suffix is not known; expected one of {', '.join(FORMATS)}, with {' or '.join(CODECS)} after "
            "those of JSON Lines, CSV and TSV. Rename the file, narrow the pattern, or name a function that reads "
            "it with `reader: package.module:function`"
        )
    return kind


@contextlib.contextmanager
def corpus_errors(uri: str) -> Iterator[None]:
    """Turn errors of file systems, codecs and Arrow into a :class:`CorpusError` that names the file.

    Stores raise anything (botocore's and aiohttp's errors are not OSErrors), so every exception about a remote file
    counts as one of its store.
    """
    try:
        yield
    except (CorpusError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise CorpusError(f"{uri}: no such file; check the uri, or materialize again if it moved") from error
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{uri}: begins as {error.encoding}, but is not: {error.reason}; nothing of it is used, write it as UTF-8"
        ) from error
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        if wording.CUT_OFF(error) or isinstance(error, EOFError):
            raise CorpusError(f"{uri}: {_CUT_OFF}") from error
        if wording.NO_GZIP_MEMBER(error):
            name = base_name(uri)
            raise CorpusError(
                f"{uri}: after the end of a gzip stream there is something that is neither gzip nor zeros: nothing of "
                f"it is used, get the file again, or drop what follows: `gzip -dc {name} | gzip > new-{name}`"
            ) from error
        if wording.LARGE_WINDOW(error):
            name = base_name(uri)
            raise CorpusError(
                f"{uri}: compressed with a zstd window of more than 128 MiB (zstd --long), as much as is held to "
                f"decode a file; compress it again: `zstd -dc --long=31 {name} | zstd -o new-{name}`"
            ) from error
        raise CorpusError(f"{uri}: cannot be read: {wording.one_line(error)}; {_AGAIN}") from error
    except Exception as error:
        if "://" not in uri or uri.startswith("file://"):
            raise
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise CorpusError(
            f"{uri}: cannot be read: {text}; nothing of it is used; try again once its store serves it"
        ) from error


@contextlib.contextmanager
def open_binary(uri: str) -> Iterator[pa.NativeFile]:
    """Open a file for random access; a local one without a Python object in between."""
    filesystem, path = file_system(uri)
    with contextlib.ExitStack() as stack:
        if isinstance(filesystem, LocalFileSystem):
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise CorpusError(
                    f"{uri}: a pipe, a socket or a device, expected a file; move it out of the pattern"
                )
            yield stack.enter_context(pa.OSFile(os.fsencode(path), "rb"))
        else:
            file = stack.enter_context(filesystem.open(path, "rb"))
            yield stack.enter_context(pa.PythonFile(file, mode="r"))


@contextlib.contextmanager
def open_text(uri: str) -> Iterator[pa.NativeFile]:
    """Open a text file as UTF-8, decompressed while it is read; concatenated frames are one stream.

    Compression and encoding follow from the first bytes, whatever the file's name. UTF-16 and UTF-32 are recognized by
    their byte order mark, or by the zeros between ASCII; a byte order mark of UTF-8 is kept.

    Raises
    ------
    CorpusError
        By its first bytes, the file is not text.
    """
    with open_binary(uri) as raw:
        head = raw.read(HEAD)
        padded = True
        if isinstance(raw, pa.OSFile):
            raw.seek(max(raw.size() - len(_PADDING), 0))
            padded = raw.read() == _PADDING
            raw.seek(0)
        else:  # some stores cannot seek
            raw = pa.PythonFile(_PutBack(head, raw), mode="r")
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
        yield stream


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


def base_name(uri: str) -> str:
    """Return a file's name, quoted for a shell command in a message."""
    path = uri.split("::")[0].split("?")[0] if "://" in uri else uri
    return shlex.quote(path.rpartition("/")[2])


def cat(uri: str) -> str:
    """Return a shell command for a message that prints a file's text."""
    name = base_name(uri)
    suffix = name.rstrip("'").rpartition(".")[2].lower()
    return {"gz": "gzip -dc", "gzip": "gzip -dc", "zst": "zstd -dc", "zstd": "zstd -dc"}.get(
        suffix, "cat"
    ) + f" {name}"


def _split_suffix(path: str) -> tuple[str, str | None]:
    """Split a path into the part before its known suffixes, and the format."""
    stem = path
    for suffix in CODECS:
        if path.lower().endswith(suffix):
            stem = path[: -len(suffix)]
    for suffix, kind in FORMATS.items():
        if stem.lower().endswith(suffix) and (stem == path or kind in COMPRESSIBLE):
            return stem[: -len(suffix)], kind
    return path, None


def file_system(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return a file's file system, and its path there."""
    return _file_system(local_path(uri))


def _file_system(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        return url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise CorpusError(
            f"{uri}: no file system for this URI: {error}; check the scheme, or install the fsspec package "
            "that serves it"
        ) from error


def _find(uri: str, owner: str, leave_out: Path | None) -> list[tuple[str, FileInfo]]:
    """List files with their path below the pattern's fixed folder."""
    with corpus_errors(uri):
        filesystem, path = _listed_anew(uri)
        # In a URL, a question mark begins the query.
        folder, pattern = split_pattern(path, "*[" if uri.startswith(("http://", "https://")) else "*?[")
    shown = local_name(uri if pattern else folder) if isinstance(filesystem, LocalFileSystem) else uri
    with corpus_errors(shown):
        if pattern is None:
            path, folder = folder, folder.rpartition("/")[0]
            found = {path: filesystem.info(path)}
        else:
            found = _matches(shown, filesystem, folder, pattern)
    left_out = _below(leave_out, filesystem, folder)
    files, hidden, ours = [], 0, 0
    for path, info in found.items():
        if info.get("type") == "directory":
            continue
        relative = path[len(folder) :].lstrip("/")
        if pattern and any(
            part.startswith((".", "_")) or part.endswith(".tmp") for part in relative.split("/")
        ):
            hidden += 1
        elif pattern and left_out and Path(path).resolve().is_relative_to(left_out):
            ours += 1
        else:
            size = int(info.get("size") or 0)
            files.append(
                (relative, FileInfo(_full_uri(uri, filesystem, path), size, modified_of(info), tag_of(info)))
            )
    if not files:
        what = "no file matches this pattern" if pattern else "this is a folder; expected a file or a pattern"
        notes = f" ({hidden} hidden or temporary files were left out)" if hidden else ""
        notes += f" ({ours} files in DSIR_HOME were left out)" if ours else ""
        raise CorpusError(
            f"{shown}: {what}{notes}; correct the uri of {owner}, for example folder/*.jsonl.zst"
        )
    return files


def _listed_anew(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a pattern, with its cache of listings dropped."""
    filesystem, path = _file_system(uri)
    if isinstance(filesystem, AbstractArchiveFileSystem):  # keeps the old archive open
        type(filesystem).clear_instance_cache()
        filesystem, path = _file_system(uri)
    filesystem.invalidate_cache()
    return filesystem, path


def _matches(
    uri: str, filesystem: fsspec.AbstractFileSystem, folder: str, pattern: str
) -> dict[str, dict[str, object]]:
    """Return the matching files below a folder; fsspec's ``glob`` takes the folder's own name for a pattern."""
    try:
        match = re.compile(glob_translate(pattern)).match
    except ValueError as error:
        raise CorpusError(f"{uri}: {error}; correct the pattern") from error
    depth = None if "**" in pattern else pattern.count("/") + 1
    found = filesystem.find(folder, maxdepth=depth, detail=True)
    return {path: found[path] for path in sorted(found) if match(path[len(folder) :].lstrip("/"))}


def _below(leave_out: Path | None, filesystem: fsspec.AbstractFileSystem, folder: str) -> Path | None:
    """Return ``leave_out``, resolved, if it is within ``folder``; a pattern within it is meant to read it."""
    if leave_out is None or not isinstance(filesystem, LocalFileSystem):
        return None
    home, top = leave_out.resolve(), Path(folder).resolve()
    return home if home.is_relative_to(top) else None


def _full_uri(pattern: str, filesystem: fsspec.AbstractFileSystem, path: str) -> str:
    """Return the URI under which ``path``, found by ``pattern``, can be opened."""
    if isinstance(filesystem, LocalFileSystem):
        return local_name(path)
    segments = pattern.split("::")  # chained: zip://*.jsonl::s3://bucket/pool.zip, simplecache::s3://…
    index = next(i for i, segment in enumerate(segments) if "://" in segment)
    scheme = segments[index].split("://")[0]
    segments[index] = path if "://" in path else f"{scheme}://{path}"
    return "::".join(segments)


def modified_of(info: dict) -> float:
    """Return when a file was modified; 0.0 if only its creation time is known, which proves nothing."""
    for key in _MODIFIED_KEYS:
        value = info.get(key)
        if isinstance(value, str):
            value = _time(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0


def _time(text: str) -> datetime | None:
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        with contextlib.suppress(ValueError):
            return parse(text)
    return None


def tag_of(info: dict) -> str | None:
    """Return the identifier of an object's content; a weak ETag is none."""
    for key in _TAG_KEYS:
        value = info.get(key)
        if isinstance(value, str | int) and value and not str(value).startswith("W/"):
            return f"{key} {value}"
    return None


def shard_key(source: str, relative: str) -> str:
    """Return a shard key that Dagster accepts; a hash keeps rewritten names distinct and stable."""
    tail = _split_suffix(relative)[0].replace("/", ".")
    if _KEY.fullmatch(tail) and len(source) + len(tail) < _MAX_KEY:
        return f"{source}.{tail}"
    tail = re.sub(r"[^A-Za-z0-9_.-]", "_", tail)
    tail = re.sub(r"^\.+|\.+$|\.{2,}", lambda match: "_" * len(match[0]), tail)
    digest = hashlib.sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{source}.{tail[: _MAX_KEY - len(source) - 10].rstrip('.')}-{digest}"
