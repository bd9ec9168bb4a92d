"""Files and file systems: shards of a source, their keys and stamps, opening and decompressing.

What belongs here: everything that is the same for all formats. What does not: what is inside a file
(``lines``, ``tables``).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import fsspec
import pyarrow as pa
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

if TYPE_CHECKING:
    from resources.settings import RawSource

CODECS = {".gz": "gzip", ".zst": "zstd"}
FORMATS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "ipc",
    ".ipc": "ipc",
    ".feather": "ipc",
}
COMPRESSIBLE = ("jsonl", "csv")

_GLOB = re.compile(r"[*?\[]")
_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_MAX_KEY = 200  # a key becomes a file name; leaves room for suffixes within 255 bytes
_MODIFIED_KEYS = ("mtime", "modified", "LastModified", "last_modified", "updated", "created")


class CorpusError(ValueError):
    """A corpus file can not be used; the message names it, what was expected and what to do."""


@dataclass(frozen=True)
class FileInfo:
    """One file: its path or URI, bytes, and seconds since the epoch (0.0 where unknown)."""

    uri: str
    size: int
    modified: float


@dataclass(frozen=True)
class Shard:
    """One file of a raw source.

    Attributes
    ----------
    key : str
        ``<source>.<path below the glob's fixed folder>``; the partition key.
    source : str
        Name of the source.
    uri : str
        Path or fsspec URI of the file.
    size : int
        Bytes on the file system.
    modified : float
        Seconds since the epoch; 0.0 where the file system has none.
    """

    key: str
    source: str
    uri: str
    size: int
    modified: float


def discover(source: RawSource) -> list[Shard]:
    """Find the shards of a source.

    Names that start with ``.`` or ``_`` or end with ``.tmp`` are left out, as are folders of such names.

    Parameters
    ----------
    source : RawSource
        Its ``uri`` is a path or fsspec URI, with glob characters (``**`` too).

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
    for relative, info in _find(source.uri, f"the source '{source.name}'"):
        key = _shard_key(source.name, relative)
        if key in shards:
            raise CorpusError(
                f"{shards[key].uri} and {info.uri}: both files have the shard key '{key}'; rename or remove "
                f"one of them, or narrow the pattern {source.uri} of the source '{source.name}'"
            )
        shards[key] = Shard(key, source.name, info.uri, info.size, info.modified)
    return [shards[key] for key in sorted(shards)]


def expand(uri: str) -> list[FileInfo]:
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
    return sorted((info for _, info in _find(uri, "a target")), key=lambda info: info.uri)


def file_exists(uri: str) -> bool:
    """Return whether there is a file; True where that cannot be found out."""
    try:
        filesystem, path = file_system(uri)
        return filesystem.exists(path)
    except Exception:  # file systems raise whatever their libraries do
        return True


def content_stamp(uri: str) -> str:
    """Return the SHA-256 of the file's bytes, as 64 hexadecimal digits; streams.

    Raises
    ------
    CorpusError
        The file is missing or can not be read.
    """
    digest = hashlib.sha256()
    with corpus_errors(uri), open_binary(uri) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def file_format(uri: str) -> tuple[str, str | None]:
    """Return the format and the codec that a file's suffix stands for.

    Returns
    -------
    tuple of str and (str or None)
        ``jsonl``, ``csv``, ``parquet`` or ``ipc``; ``gzip``, ``zstd`` or None.

    Raises
    ------
    CorpusError
        The suffix is not known.
    """
    _, kind, codec = _split_suffix(uri.split("::")[0].split("?")[0] if "://" in uri else uri)
    if kind is None:
        raise CorpusError(
            f"{uri}: this suffix is not known; expected one of {', '.join(FORMATS)}, with .gz or .zst after "
            "the JSON Lines and CSV ones. Rename the file, narrow the pattern, or name a function that reads "
            "it with `reader: package.module:function`"
        )
    return kind, codec


@contextlib.contextmanager
def corpus_errors(uri: str) -> Iterator[None]:
    """Turn what file systems and Arrow raise into a :class:`CorpusError` that names the file."""
    try:
        yield
    except CorpusError:
        raise
    except FileNotFoundError as error:
        raise CorpusError(f"{uri}: no such file; check the uri, or materialize again if it moved") from error
    except (OSError, pa.ArrowException) as error:
        text = " ".join(str(error).split())
        if "Truncated compressed stream" in text:
            raise CorpusError(
                f"{uri}: the compressed stream ends early; the file was cut off or is still being written: "
                "nothing of it is used, get the whole file"
            ) from error
        raise CorpusError(
            f"{uri}: can not be read: {text}; nothing of it is used, get or write the file again"
        ) from error


@contextlib.contextmanager
def open_binary(uri: str) -> Iterator[pa.NativeFile]:
    """Open a file for random access, local ones without a Python object in between."""
    filesystem, path = file_system(uri)
    with contextlib.ExitStack() as stack:
        if isinstance(filesystem, LocalFileSystem):
            yield stack.enter_context(pa.OSFile(path, "rb"))
        else:
            file = stack.enter_context(filesystem.open(path, "rb"))
            yield stack.enter_context(pa.PythonFile(file, mode="r"))


@contextlib.contextmanager
def open_stream(uri: str, codec: str | None) -> Iterator[pa.NativeFile]:
    """Open a file and decompress it while reading; concatenated frames are one stream."""
    with open_binary(uri) as raw:
        if codec is None:
            yield raw
        else:
            with pa.CompressedInputStream(raw, codec) as stream:
                yield stream


def _split_suffix(path: str) -> tuple[str, str | None, str | None]:
    """Split a path into the part before the known suffixes, the format and the codec."""
    stem, codec = path, None
    for suffix, name in CODECS.items():
        if path.lower().endswith(suffix):
            stem, codec = path[: -len(suffix)], name
    for suffix, kind in FORMATS.items():
        if stem.lower().endswith(suffix) and (codec is None or kind in COMPRESSIBLE):
            return stem[: -len(suffix)], kind, codec
    return path, None, None


def file_system(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URI and the path in it."""
    try:
        return url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise CorpusError(
            f"{uri}: no file system for this URI: {error}; check the scheme, or install the fsspec package "
            "that serves it"
        ) from error


def _find(uri: str, owner: str) -> list[tuple[str, FileInfo]]:
    """List files with their path below the pattern's fixed folder."""
    filesystem, pattern = file_system(uri)
    is_glob = bool(_GLOB.search(pattern))
    with corpus_errors(uri):
        if is_glob:
            found = filesystem.glob(pattern, detail=True)
        else:
            found = {pattern: filesystem.info(pattern)}
    folder = _GLOB.split(pattern)[0].rpartition("/")[0]
    files, hidden = [], 0
    for path, info in found.items():
        if info.get("type") == "directory":
            continue
        relative = path[len(folder) :].lstrip("/")
        if is_glob and any(
            part.startswith((".", "_")) or part.endswith(".tmp") for part in relative.split("/")
        ):
            hidden += 1
            continue
        size = int(info.get("size") or 0)
        files.append((relative, FileInfo(_full_uri(uri, filesystem, path), size, _modified(info))))
    if not files:
        what = "no file matches this pattern" if is_glob else "this is a folder; expected a file or a pattern"
        note = f" ({hidden} hidden or temporary files were left out)" if hidden else ""
        raise CorpusError(f"{uri}: {what}{note}; correct the uri of {owner}, for example folder/*.jsonl.zst")
    return files


def _full_uri(pattern: str, filesystem: fsspec.AbstractFileSystem, path: str) -> str:
    """Return the URI under which ``path``, found by ``pattern``, can be opened."""
    if isinstance(filesystem, LocalFileSystem):
        return path
    segments = pattern.split("::")  # chained: zip://*.jsonl::s3://bucket/pool.zip, simplecache::s3://…
    index = next(i for i, segment in enumerate(segments) if "://" in segment)
    scheme = segments[index].split("://")[0]
    segments[index] = path if "://" in path else f"{scheme}://{path}"
    return "::".join(segments)


def _modified(info: dict) -> float:
    for key in _MODIFIED_KEYS:
        value = info.get(key)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0


def _shard_key(source: str, relative: str) -> str:
    """Build a shard key that Dagster accepts; a hash keeps changed names apart and stable."""
    tail = _split_suffix(relative)[0].replace("/", ".")
    if _KEY.fullmatch(tail) and len(source) + len(tail) < _MAX_KEY:
        return f"{source}.{tail}"
    tail = re.sub(r"[^A-Za-z0-9_.-]", "_", tail)
    tail = re.sub(r"^\.+|\.+$|\.{2,}", lambda match: "_" * len(match[0]), tail)
    digest = hashlib.sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{source}.{tail[: _MAX_KEY - len(source) - 10].rstrip('.')}-{digest}"
