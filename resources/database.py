"""A DuckDB file that processes take turns with: waiting for it, attaching it, naming its faults.

What belongs here: the lock beside the file, ATTACH and DETACH, the meaning of DuckDB's errors there. What does not:
its tables (``resources/catalog.py``), the wording of those errors (``resources/wording.py``).

A process that writes excludes every other one, so the file is attached for each transaction and detached milliseconds
later.

ATTACH reads the file's headers before it takes DuckDB's lock, and does not read them again: two processes that attach
in turn lose transactions, or the whole file. So this project's processes take turns with a lock of their own,
``catalog.lock``, held from before ATTACH until after DETACH; readers share it. A DuckDB shell does not take that lock.
If it writes while a transaction begins, the headers tell, which are read before and after ATTACH. If it overwrites
something later, the number of transactions tells, which the lock's file keeps as well.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import functools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import duckdb

from dsir_dagster.resources import wording
from dsir_dagster.resources.errors import DENIED
from dsir_dagster.resources.object_stores import fsspec_file_system
from dsir_dagster.resources.store import DISK_FULL

#: Seconds that a transaction waits for another process to release the catalog.
LOCK_TIMEOUT = 120.0

#: Closing a file anywhere in a process drops all of the process's locks on it, so two threads must not have it open
#: at once.
PROCESS_LOCK = threading.Lock()

#: The bytes at the beginning of the file that a checkpoint rewrites: three headers of 4 KB.
_HEADERS = 3 * 4096

#: System errors that prevent opening a file that may be intact.
_NOT_OPENED = (*DENIED, errno.EMFILE, errno.ENFILE)


class CatalogError(RuntimeError):
    """The catalog is unusable; the message says in one line why and what to do."""


class CatalogLocked(CatalogError):
    """Another process held the catalog for longer than :data:`LOCK_TIMEOUT`."""


class CatalogDamaged(CatalogError):
    """The catalog is damaged, or gone although there are outputs."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: {what}; `dsir verify --rebuild` makes the catalog again from its last copy and the outputs' "
            "lineage files, and recomputes nothing"
        )


class CatalogVersion(CatalogError):
    """Another version of this project or of DuckDB wrote the catalog, and this one cannot use it."""


class Database:
    """The file, and the lock beside it.

    Parameters
    ----------
    path : Path
        The file; its lock has the same name with the suffix ``.lock``.
    files : str
        Path or URI below which views read.

    Attributes
    ----------
    path : Path
    longest_wait : float
        This process's longest wait for another process so far, in seconds.
    """

    longest_wait: ClassVar[float] = 0.0

    def __init__(self, path: Path, files: str) -> None:
        self.path = path
        self._files = files

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the lock beside the file for writing; yield its descriptor."""
        with self._locked(self._open_lock(os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX) as lock:
            yield lock

    @contextlib.contextmanager
    def locked_shared(self) -> Iterator[int | None]:
        """Hold the lock together with other readers; yield its descriptor.

        None if there is no such file and this process cannot make one.
        """
        try:
            lock = self._open_lock(os.O_RDWR | os.O_CREAT)
        except OSError:
            try:
                lock = self._open_lock(os.O_RDONLY)
            except OSError:
                yield None
                return
        with self._locked(lock, fcntl.LOCK_SH):
            yield lock

    def _open_lock(self, flags: int) -> int:
        return os.open(self.path.with_suffix(".lock"), flags, 0o666)

    @contextlib.contextmanager
    def _locked(self, lock: int, how: int) -> Iterator[int]:
        try:
            waiting = self._waiting()
            while True:
                try:
                    fcntl.flock(lock, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    waiting(str(error))
            yield lock
        finally:
            os.close(lock)

    def _waiting(self) -> Callable[[str], None]:
        """Return a function that waits a moment, and raises CatalogLocked once the waits exceed the time limit."""
        began = time.monotonic()

        def wait(reason: str) -> None:
            waited = time.monotonic() - began
            if waited > LOCK_TIMEOUT:
                raise CatalogLocked(
                    f"{self.path}: another process has held the catalog for {LOCK_TIMEOUT:.0f} s "
                    f"(an open DuckDB shell?); close it and start again. The system says: {reason}"
                )
            time.sleep(random.uniform(0.002, 0.01))
            Database.longest_wait = max(Database.longest_wait, time.monotonic() - began)

        return wait

    @contextlib.contextmanager
    def attached(self, path: Path, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the file, or a copy of it, as the current database of a new connection; detach it at the end.

        The caller holds the lock.
        """
        with interrupts():
            yield from self._attaching(path, read_only)

    def _attaching(self, path: Path, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            # Closing it would drop DuckDB's locks, so it stays open until after DETACH.
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise CatalogDamaged(path, "is gone, though outputs were recorded in it") from None
        try:
            instance = started(self.path, self._files)
            try:
                with errors_named(path), instance.cursor() as connection:
                    self._attach(connection, path, file, read_only)
                    yield connection
            except BaseException:
                # The first failure is the one to report. An instance that read damage may be broken.
                started.cache_clear()
                with contextlib.suppress(duckdb.Error, RuntimeError):
                    instance.execute("DETACH catalog")
                raise
            try:
                instance.execute("DETACH catalog")
            except duckdb.Error as error:
                started.cache_clear()
                # On a full disk, committed rows are in the log, from which the next process reads them.
                if wording.system_error(error, DISK_FULL) is None:
                    raise CatalogDamaged(
                        path, f"what was recorded last may not be in it ({error})"
                    ) from error
        finally:
            os.close(file)

    def _attach(self, connection: duckdb.DuckDBPyConnection, path: Path, file: int, read_only: bool) -> None:
        if not os.fstat(file).st_size:
            raise CatalogDamaged(path, "has 0 bytes")
        waiting = self._waiting()
        options = " (READ_ONLY)" if read_only else ""
        while True:
            before = _headers(path, file)
            try:
                connection.execute(f"ATTACH $path AS catalog{options}", {"path": str(path)})
            except duckdb.Error as error:
                if wording.LOCKED(error):
                    waiting(str(error))
                    continue
                if wording.OTHER_DUCKDB(error):
                    raise CatalogVersion(f"{path}: another version of DuckDB wrote it: {error}") from error
                if wording.system_error(error, (*_NOT_OPENED, *DISK_FULL)) is None:
                    raise CatalogDamaged(path, f"cannot be opened ({wording.one_line(error)})") from error
                raise
            if _headers(path, file) == before:
                connection.execute("USE catalog")
                return
            # A process without our lock wrote to it meanwhile, or DuckDB itself replayed a killed process's log.
            connection.execute("DETACH catalog")
            if os.fstat(file).st_ino != path.stat().st_ino:
                raise CatalogError(
                    f"{path}: another file was put in its place while it was opened; start again"
                )


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt for an interrupt that DuckDB noticed during a query and turned into an error."""
    try:
        yield
    except RuntimeError as error:
        if wording.INTERRUPTED(error):
            raise KeyboardInterrupt from error
        raise


@contextlib.contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Raise the system's errors as OSError, and damage as CatalogDamaged."""
    try:
        yield
    except duckdb.Error as error:
        if (number := wording.system_error(error, DISK_FULL)) is not None:
            message = f"{os.strerror(number)}; nothing was recorded: make room and start again"
            raise OSError(number, message, str(path)) from error
        names_it = str(path) in str(error)
        if names_it and (number := wording.system_error(error, _NOT_OPENED)) is not None:
            raise OSError(number, os.strerror(number), str(path)) from error
        # An error of reading that does not name the catalog is one of an output's file.
        if wording.DAMAGED(error) and (names_it or not isinstance(error, duckdb.IOException)):
            raise CatalogDamaged(path, f"is damaged ({wording.one_line(error)[:200]})") from error
        raise


def _headers(path: Path, file: int) -> tuple[int, bytes]:
    """Return the inode at the path and the file's headers, which differ between any two states of it."""
    return path.stat().st_ino, os.pread(file, _HEADERS, 0)


def read_number(lock: int | None) -> int:
    """Return the number of recorded transactions from the lock's file."""
    try:
        return int(os.pread(lock, 20, 0)) if lock is not None else 0
    except ValueError:
        return 0


def write_number(lock: int, number: int) -> None:
    """Keep the number of recorded transactions in the lock's file."""
    # If the disk is full, say, a later loss is noticed later.
    with contextlib.suppress(OSError):
        os.pwrite(lock, b"%019d\n" % number, 0)


@functools.lru_cache(maxsize=1)
def started(path: Path, files: str) -> duckdb.DuckDBPyConnection:
    """Start DuckDB for a catalog whose views read below a path or URI, once: starting takes ten milliseconds."""
    connection = duckdb.connect(config={"temp_directory": f"{path}.tmp"})
    if "://" in files:
        connection.register_filesystem(fsspec_file_system(files))
    return connection


atexit.register(started.cache_clear)
