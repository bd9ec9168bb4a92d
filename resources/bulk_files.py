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
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from dsir_dagster.resources.object_stores import arrow_file_system, object_store_errors, open_object

T = TypeVar("T")

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
        """Return a new local path for the file, or the folder of files, to be published under this name."""

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
        folder = self._root / name.split("/")[0] / TEMPORARY / "new"
        folder.mkdir(parents=True, exist_ok=True)
        (self._root / name).parent.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex

    def publish(self, new: Path, name: str) -> None:
        """As :meth:`BulkFiles.publish`."""
        path, old = self._root / name, new.with_name(f"{new.name}.old")
        if not new.is_dir() or not path.exists():
            os.replace(new, path)
            return
        os.replace(path, old)
        try:
            os.replace(new, path)
        finally:
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
            else:
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

    @cached_property
    def _requests(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="request")

    def where(self, name: str) -> str:
        """As :meth:`BulkFiles.where`."""
        return f"{self._uri}/{name}"

    def open(self, name: str, mapped: bool = False) -> pa.NativeFile:
        """As :meth:`BulkFiles.open`."""
        return self._ask(name, lambda store: open_object(store, self._at(name)))

    def look(self, name: str) -> Stored | None:
        """As :meth:`BulkFiles.look`."""
        [info] = self._ask(name, lambda store: store.get_file_info([self._at(name)]))
        return Stored(info.size, info.mtime_ns or 0) if info.is_file else None

    def listing(self, folder: str) -> dict[str, Stored]:
        """As :meth:`BulkFiles.listing`."""
        below = pafs.FileSelector(self._at(folder), recursive=True, allow_not_found=True)
        start = len(self._path) + 1
        return {
            info.path[start:]: Stored(info.size, info.mtime_ns or 0)
            for info in self._ask(folder, lambda store: store.get_file_info(below))
            if info.type == pafs.FileType.File
        }

    def scratch(self, name: str) -> Path:
        """As :meth:`BulkFiles.scratch`."""
        file, path = tempfile.mkstemp(
            prefix="dsir-"
        )  # not a name alone: others must not read what is written
        os.close(file)
        return Path(path)

    def publish(self, new: Path, name: str) -> None:
        """As :meth:`BulkFiles.publish`."""
        # Never an open stream that an error could close: closing is what publishes an object.
        here = pafs.LocalFileSystem()
        self._ask(
            name,
            lambda store: pafs.copy_files(str(new), self._at(name), here, store, chunk_size=READ_BYTES),
        )

    def remove(self, name: str) -> None:
        """As :meth:`BulkFiles.remove`."""
        for each in [name] if self.look(name) else self.listing(name):
            with suppress(FileNotFoundError):
                self._ask(each, partial(_delete, self._at(each)))

    def take_out(self, name: str, to: Path) -> None:
        """As :meth:`BulkFiles.take_out`."""
        here = pafs.LocalFileSystem()
        with suppress(FileNotFoundError):
            self._ask(name, lambda store: pafs.copy_files(self._at(name), str(to), store, here))
            self.remove(name)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _ask(self, name: str, request: Callable[[pafs.FileSystem], T]) -> T:
        """Return what the store answers; the main thread can be interrupted while it waits."""
        with object_store_errors(self.where(name)):
            store, _ = self._connected()  # as of now: of one that was waited for in vain, the next waits less
            if threading.current_thread() is threading.main_thread():
                return self._requests.submit(request, store).result()
            return request(store)


def _delete(path: str, store: pafs.FileSystem) -> None:
    store.delete_file(path)
