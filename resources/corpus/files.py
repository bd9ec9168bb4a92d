"""Finding files: the shards of a source, their keys, what tells that a file is still the same.

What belongs here: listing and stamping, the same for all formats. What does not: opening files (``opening``), their
content (``lines``, ``tables``).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
from fsspec.archive import AbstractArchiveFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from dsir_dagster.resources.corpus.errors import CorpusError, NoFiles, corpus_errors, split_suffix
from dsir_dagster.resources.corpus.opening import (
    ArrowStore,
    file_system,
    file_system_of,
    in_sequence,
    open_binary,
)
from dsir_dagster.resources.uris import local_name, split_pattern

if TYPE_CHECKING:
    from dsir_dagster.resources.settings import RawSource

_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
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
        The file system's identifier of the content (``ETag …``), if a listing has it.
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
    for relative, info in _find(source.uri, f"the uri of the source '{source.name}'", leave_out):
        key = shard_key(source.name, relative)
        if key in shards:
            raise CorpusError(
                f"{shards[key].uri} and {info.uri}: both files have the shard key '{key}'; rename or remove "
                f"one of them, or narrow the pattern {source.uri} of the source '{source.name}'"
            )
        shards[key] = Shard(**vars(info), key=key, source=source.name)
    return [shards[key] for key in sorted(shards)]


def expand(uri: str, leave_out: Path | None = None, named: str = "the uri of a target") -> list[FileInfo]:
    """Find the files of a path, URI or pattern, by the same rules as :func:`discover`.

    Parameters
    ----------
    uri : str
    leave_out : Path, optional
        As there.
    named : str
        What to correct if nothing matches.

    Returns
    -------
    list of FileInfo
        Sorted by URI.

    Raises
    ------
    CorpusError
        Nothing matches.
    """
    return sorted((info for _, info in _find(uri, named, leave_out)), key=lambda info: info.uri)


def file_exists(uri: str) -> bool:
    """Return whether there is a file; True if its store does not say."""
    try:
        filesystem, path = file_system(uri)
        return filesystem.exists(path)
    except Exception:  # file systems raise whatever their libraries do
        return True


def stamp_of(file: FileInfo) -> str:
    """Return what tells a file's content from another: its store's tag and its size, or else a hash of its bytes.

    Raises
    ------
    CorpusError
        The file is missing or cannot be read.
    """
    if is_remote(file.uri):
        with corpus_errors(file.uri):
            tag = file.tag
            size = file.size
            if tag is None:
                filesystem, path = file_system(file.uri)
                tag, size = _said_of(filesystem.info(path))
        if tag is not None:
            return f"{tag} {size}"
    return content_stamp(file.uri)


def content_stamp(uri: str) -> str:
    """Return the SHA-256 of a file's bytes in 64 hexadecimal digits, without holding the file in memory.

    Raises
    ------
    CorpusError
        The file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    with corpus_errors(uri), open_binary(uri) as file:
        stream = in_sequence(file)
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
    tag, size_now = _said_of(info)
    then = stamp.split(" ")
    if len(then) == 3:  # a tag; some stores list tags and give none, or others, of a single file
        now = f"{tag} {size_now}".split(" ")
        return now == then if now[0] == then[0] else str(size_now) == then[2]
    same = size_now == size and modified_of(info) == modified
    return bool(modified and same) or content_stamp(uri) == stamp


def is_remote(uri: str) -> bool:
    """Return whether a file is asked for over a network, or as if it were."""
    return "://" in uri and not uri.startswith("file://")


def _said_of(info: dict) -> tuple[str | None, int]:
    """Return the tag and the size that a file system tells of a file."""
    return tag_of(info), int(info.get("size") or 0)


def _find(uri: str, named: str, leave_out: Path | None) -> list[tuple[str, FileInfo]]:
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
        raise NoFiles(f"{shown}: {what}{notes}; correct {named}, for example folder/*.jsonl.zst")
    return files


def _listed_anew(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a pattern, with its cache of listings dropped."""
    filesystem, path = file_system_of(uri)
    if isinstance(filesystem, AbstractArchiveFileSystem):  # keeps the old archive open
        type(filesystem).clear_instance_cache()
        filesystem, path = file_system_of(uri)
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
    if isinstance(filesystem, ArrowStore):  # an Azure container may be written with its account
        return "/".join([*pattern.split("/")[:3], path.partition("/")[2]])
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
    """Return the identifier of an object's content, without quotes, which only some give; a weak ETag is none."""
    for key in _TAG_KEYS:
        value = info.get(key)
        if isinstance(value, str | int) and value and not str(value).startswith("W/"):
            return key + " " + str(value).strip('"')
    return None


def shard_key(source: str, relative: str) -> str:
    """Return a shard key that Dagster accepts; a hash keeps rewritten names distinct and stable."""
    tail = split_suffix(relative)[0].replace("/", ".")
    if _KEY.fullmatch(tail) and len(source) + len(tail) < _MAX_KEY:
        return f"{source}.{tail}"
    tail = re.sub(r"[^A-Za-z0-9_.-]", "_", tail)
    tail = re.sub(r"^\.+|\.+$|\.{2,}", lambda match: "_" * len(match[0]), tail)
    digest = hashlib.sha256(relative.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{source}.{tail[: _MAX_KEY - len(source) - 10].rstrip('.')}-{digest}"
