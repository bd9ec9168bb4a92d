"""A DuckDB file that processes take turns with: waiting for it, attaching it, and saying what is wrong with it.

What belongs here: the lock beside the file, ATTACH and DETACH, what DuckDB's errors stand for. What does not: which
tables are in it, and what they are for (``resources/catalog.py``).

DuckDB lets one process write and excludes every other while it does, so the file is attached for each
transaction and detached after milliseconds.

DuckDB's ATTACH reads the file's headers before it has its lock and does not read them again: two processes that attach
in turn lose transactions, or the whole file. So this project's processes take turns by a lock of their own,
``catalog.lock``, held from before ATTACH until after DETACH; readers share it. A DuckDB shell takes no such lock.
What it does while a transaction begins is noticed by the headers, which are read before ATTACH and again after it.
What it overwrites later is noticed by the number of transactions, which is kept in the lock's file too.
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
from dsir_dagster.resources.store import DISK_FULL

#: Seconds that a transaction waits for another process to let go of the catalog.
LOCK_TIMEOUT = 120.0

#: A process's locks on a file are gone as soon as it closes the file anywhere, so that two threads must not have
#: the file open at once.
PROCESS_LOCK = threading.Lock()

#: The bytes at the beginning of the file that a checkpoint writes to: three headers of 4 KB.
_HEADERS = 3 * 4096

#: Why a file cannot be opened though it may be in order.
_NOT_OPENED = (*DENIED, errno.EMFILE, errno.ENFILE)


class CatalogError(RuntimeError):
    """The catalog cannot be used as it is; the message says in one line why, and what to do."""


class CatalogLocked(CatalogError):
    """Another process held the catalog for longer than :data:`LOCK_TIMEOUT`."""


class CatalogDamaged(CatalogError):
    """The catalog is not what was written, or is gone though there are outputs."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: {what}; `dsir verify --rebuild` makes the catalog again from its last copy and the outputs' "
            "lineage files, and recomputes nothing"
        )


class CatalogVersion(CatalogError):
    """Another version of this project, or of DuckDB, wrote the catalog, and this one cannot use it."""


class Database:
    """The file, and the lock beside it.

    Parameters
    ----------
    path : Path
        The file; its lock is called like it, with the suffix ``.lock``.

    Attributes
    ----------
    path : Path
    longest_wait : float
        Seconds of this process's longest wait for other processes so far.
    """

    longest_wait: ClassVar[float] = 0.0

    def __init__(self, path: Path) -> None:
        self.path = path

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
        """Return what waits a moment for another process, and raises CatalogLocked when that has taken too long."""
        began = time.monotonic()

        def wait(reason: str) -> None:
            waited = time.monotonic() - began
            if waited > LOCK_TIMEOUT:
                raise CatalogLocked(
                    f"{self.path}: another process has held the catalog for {LOCK_TIMEOUT:.0f} s "
                    f"(an open DuckDB shell?); close it and start again. The system says: {reason}"
                )
            # Others hold it for milliseconds.
            time.sleep(random.uniform(0.002, 0.01))
            Database.longest_wait = max(Database.longest_wait, time.monotonic() - began)

        return wait

    @contextlib.contextmanager
    def attached(self, path: Path, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the file, or a copy of it, as the current database of a new connection; detach it at the end.

        Whoever calls holds the lock.
        """
        with interrupts():
            yield from self._attaching(path, read_only)

    def _attaching(self, path: Path, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            # Closing it would let go of DuckDB's locks, so it stays open until after DETACH.
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise CatalogDamaged(path, "is gone, though outputs were recorded in it") from None
        try:
            instance = started(self.path)
            try:
                with errors_named(path), instance.cursor() as connection:
                    self._attach(connection, path, file, read_only)
                    yield connection
            except BaseException:
                # What failed first is what is told of. An instance that read damage may not work any more.
                started.cache_clear()
                with contextlib.suppress(duckdb.Error, RuntimeError):
                    instance.execute("DETACH catalog")
                raise
            try:
                instance.execute("DETACH catalog")
            except duckdb.Error as error:
                started.cache_clear()
                # Where the disk is full, what is committed is in the log, and is there next time.
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
            # Someone without our lock wrote to it meanwhile, or DuckDB itself, what a killed process left in its log.
            connection.execute("DETACH catalog")
            if os.fstat(file).st_ino != path.stat().st_ino:
                raise CatalogError(
                    f"{path}: another file was put in its place while it was opened; start again"
                )


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """Let an interrupt be one: DuckDB makes an ordinary error of it where it finds it while it works."""
    try:
        yield
    except RuntimeError as error:
        if wording.INTERRUPTED(error):
            raise KeyboardInterrupt from error
        raise


@contextlib.contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Say of errors that are the system's, or damage of the catalog, what they are."""
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
    """Return which file is there, and its headers, which tell one state of it from every other."""
    return path.stat().st_ino, os.pread(file, _HEADERS, 0)


def read_number(lock: int | None) -> int:
    """Return how many transactions were recorded, as the lock's file has it."""
    try:
        return int(os.pread(lock, 20, 0)) if lock is not None else 0
    except ValueError:
        return 0


def write_number(lock: int, number: int) -> None:
    """Keep in the lock's file how many transactions were recorded."""
    # The disk is full, say: what is lost later is then noticed a little later.
    with contextlib.suppress(OSError):
        os.pwrite(lock, b"%019d\n" % number, 0)


@functools.lru_cache(maxsize=1)
def started(path: Path) -> duckdb.DuckDBPyConnection:
    """Start DuckDB for a catalog. That takes ten milliseconds, attaching the file takes one."""
    return duckdb.connect(config={"temp_directory": f"{path}.tmp"})


atexit.register(started.cache_clear)
