"""Where the files of outputs lie: a folder of this machine, or a part of an object store.

What belongs here: opening, listing, publishing and removing files by name. What does not: which files there are
(``resources/store.py``), what is in them (``resources/sealed.py``), connecting to object stores
(``resources/object_stores.py``).

A name is a path below the root, with slashes, as the lineage has it. A file appears under its name when it is
finished, or not at all: a local one is renamed, one for an object store is uploaded from a finished local file.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.fs as pafs

from dsir_dagster.resources.object_stores import arrow_file_system, object_store_errors

#: Folder of unfinished files, in the folder of each kind.
TEMPORARY = ".tmp"
#: Bytes of an object that are read at a time, from its beginning to its end.
READ_BYTES = 8 << 20


@dataclass(frozen=True)
class Stored:
    """A file that is there.

    Attributes
    ----------
    bytes : int
    modified : int
        When it was written, by the clock of its file system or store: nanoseconds since the epoch.
    """

    bytes: int
    modified: int


class BulkFiles(Protocol):
    """Files by name.

    Attributes
    ----------
    remote : bool
        Whether reading a part costs a request.
    """

    remote: bool

    def where(self, name: str) -> str:
        """Return a file's full path or URI."""

    def open(self, name: str, mapped: bool = False) -> pa.NativeFile:
        """Open a file for random access, mapped into memory if asked for and possible; FileNotFoundError if absent."""

    def look(self, name: str) -> Stored | None:
        """Return what is known of a file; None if it is absent."""

    def listing(self, folder: str) -> dict[str, Stored]:
        """Return the finished files below a folder, by name; a listing costs less than a look at each."""

    def scratch(self, name: str) -> Path:
        """Return a new local folder for what will be published under this name."""

    def publish(self, new: Path, name: str) -> None:
        """Put a finished local file in its place, or, below a folder of this machine, a folder of files."""

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with its files, if it is there."""

    def take_out(self, name: str, to: Path) -> None:
        """Move a file to a local path, if it is there."""


class Folder:
    """Files below a folder of this machine.

    Parameters
    ----------
    root : Path
    """

    remote = False

    def __init__(self, root: Path) -> None:
        self._root = root

    def where(self, name: str) -> str:
        """As :meth:`BulkFiles.where`."""
        return str(self._root / name)

    def open(self, name: str, mapped: bool = False) -> pa.NativeFile:
        """As :meth:`BulkFiles.open`."""
        return pa.memory_map(self.where(name)) if mapped else pa.OSFile(self.where(name))

    def look(self, name: str) -> Stored | None:
        """As :meth:`BulkFiles.look`."""
        try:
            found = os.stat(self._root / name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Stored(found.st_size, found.st_mtime_ns)

    def listing(self, folder: str) -> dict[str, Stored]:
        """As :meth:`BulkFiles.listing`."""
        return dict(self._below(self._root / folder, folder))

    def _below(self, path: Path, name: str) -> Iterator[tuple[str, Stored]]:
        try:
            entries = os.scandir(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        with entries:
            for entry in entries:
                inner = f"{name}/{entry.name}"
                with suppress(FileNotFoundError):  # it went away meanwhile, or leads nowhere
                    if entry.is_dir():
                        if entry.name != TEMPORARY:
                            yield from self._below(Path(entry.path), inner)
                    else:
                        found = entry.stat()
                        yield inner, Stored(found.st_size, found.st_mtime_ns)

    def scratch(self, name: str) -> Path:
        """As :meth:`BulkFiles.scratch`."""
        # Beside the kind's files, as a kind may have a disk of its own, and deeper than any view looks.
        path = self._root / name.split("/")[0] / TEMPORARY / uuid.uuid4().hex
        path.mkdir(parents=True, exist_ok=True)
        (self._root / name).parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, new: Path, name: str) -> None:
        """As :meth:`BulkFiles.publish`."""
        path, old = self._root / name, new.with_name("old")
        try:
            if new.is_dir() and path.exists():
                os.replace(path, old)
            os.replace(new, path)
        finally:
            if old.exists() and not path.exists():
                os.replace(old, path)

    def remove(self, name: str) -> None:
        """As :meth:`BulkFiles.remove`."""
        path = self._root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def take_out(self, name: str, to: Path) -> None:
        """As :meth:`BulkFiles.take_out`."""
        with suppress(FileNotFoundError):
            shutil.move(self._root / name, to)  # a kind of files may be on a disk of its own


class Objects:
    """Files below a prefix of an object store.

    Parameters
    ----------
    uri : str
        ``s3://bucket/prefix`` or the like.

    Raises
    ------
    ValueError
        It is no URI of an object store that Arrow serves.
    """

    remote = True

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        self._path = self._connected()[1]

    def _connected(self) -> tuple[pafs.FileSystem, str]:
        found = arrow_file_system(self._uri)
        if found is None:
            raise ValueError(f"{self._uri}: not an object store that Arrow serves")
        return found

    @property
    def _filesystem(self) -> pafs.FileSystem:
        """As of now: of a store that was waited for in vain, the next request waits less."""
        return self._connected()[0]

    def where(self, name: str) -> str:
        """As :meth:`BulkFiles.where`."""
        return f"{self._uri}/{name}"

    def open(self, name: str, mapped: bool = False) -> pa.NativeFile:
        """As :meth:`BulkFiles.open`."""
        with self._named(name):
            return self._filesystem.open_input_file(self._at(name))

    def look(self, name: str) -> Stored | None:
        """As :meth:`BulkFiles.look`."""
        with self._named(name):
            [info] = self._filesystem.get_file_info([self._at(name)])
        return Stored(info.size, info.mtime_ns or 0) if info.is_file else None

    def listing(self, folder: str) -> dict[str, Stored]:
        """As :meth:`BulkFiles.listing`."""
        below = pafs.FileSelector(self._at(folder), recursive=True, allow_not_found=True)
        with self._named(folder):
            found = self._filesystem.get_file_info(below)
        start = len(self._path) + 1
        return {
            info.path[start:]: Stored(info.size, info.mtime_ns or 0)
            for info in found
            if info.type == pafs.FileType.File
        }

    def scratch(self, name: str) -> Path:
        """As :meth:`BulkFiles.scratch`."""
        return Path(tempfile.mkdtemp(prefix="dsir-"))

    def publish(self, new: Path, name: str) -> None:
        """As :meth:`BulkFiles.publish`."""
        # Never an open stream that an error could close: closing is what publishes an object.
        with self._named(name):
            pafs.copy_files(
                str(new), self._at(name), pafs.LocalFileSystem(), self._filesystem, chunk_size=READ_BYTES
            )

    def remove(self, name: str) -> None:
        """As :meth:`BulkFiles.remove`."""
        for each in [name] if self.look(name) else self.listing(name):
            with self._named(each), suppress(FileNotFoundError):
                self._filesystem.delete_file(self._at(each))

    def take_out(self, name: str, to: Path) -> None:
        """As :meth:`BulkFiles.take_out`."""
        with self._named(name), suppress(FileNotFoundError):
            pafs.copy_files(self._at(name), str(to), self._filesystem, pafs.LocalFileSystem())
            self._filesystem.delete_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _named(self, name: str) -> AbstractContextManager[None]:
        return object_store_errors(self.where(name))
