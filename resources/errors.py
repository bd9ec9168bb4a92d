"""Foreign errors, each in one line with what to do.

What belongs here: what to say of errors that DuckDB, SQLite, Dagster, the system and Python raise. What does not: how
they are recognized by their wording (``resources/wording.py``), this project's own errors, whose messages say it all.
"""

from __future__ import annotations

import errno
import os
import sqlite3

import duckdb

from dsir_dagster.resources import wording
from dsir_dagster.resources.store import DISK_FULL

#: Packages whose exceptions are messages to the user.
OURS = ("dsir", "dsir_dagster")

#: What the system says when a user may not write.
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)

_NO_WRITING = "it is read-only or another user's: name another folder, or have its owner do this"
_NO_MEMORY = (
    "not enough memory; end other programs, or let this one use fewer cores, each of which holds a batch of documents "
    "(`taskset -c 0 dsir …`)"
)
_REBUILD = "`dsir verify --rebuild` makes the catalog again from the files"


def explained(error: BaseException) -> str | None:
    """Explain a foreign error in one line, with what to do.

    Parameters
    ----------
    error : BaseException
        If it says nothing itself, its cause is explained.

    Returns
    -------
    str or None
        None for a bug, whose traceback is wanted: an error that is neither foreign nor one of :data:`OURS`.
    """
    if type(error).__module__.split(".")[0] in OURS:
        return str(error)
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, MemoryError | duckdb.OutOfMemoryException):
        said = _first_line(error)
        return f"{_NO_MEMORY}: {said}" if said else _NO_MEMORY
    if isinstance(error, RecursionError):
        return "a record or the configuration is nested deeper than Python can follow; flatten it"
    if isinstance(error, UnicodeEncodeError):
        bad = error.object[error.start : error.end]
        return f"{bad!r} cannot be written as {error.encoding}: a name that is not UTF-8? Rename the file"
    if isinstance(error, UnicodeError):
        return f"text that is not UTF-8: {error}; write it again as UTF-8"
    if isinstance(error, duckdb.Error):
        return _of_duckdb(error)
    module = type(error).__module__.split(".")[0]
    if module == "yaml":
        return f"not YAML: {' '.join(str(error).split())}"
    if isinstance(error, sqlite3.Error) or module == "sqlalchemy":
        return _of_history(error)
    cause = explained(error.__cause__) if error.__cause__ else None
    if module == "dagster":
        return cause or f"Dagster: {' '.join(str(error).split())[:500]}"
    if module == "rich":
        return f"the terminal cannot show it: {_first_line(error)}"
    return cause


def _of_system(error: OSError) -> str:
    text = error.strerror or str(error)
    if error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {text}"
    if error.errno in DENIED:
        return f"{text}; {_NO_WRITING}"
    if error.errno in DISK_FULL and "make room" not in text:
        return f"{text}; finished work is kept: make room and start again"
    return text


def _of_duckdb(error: duckdb.Error) -> str:
    text = _first_line(error)
    if wording.READ_ONLY(error) or wording.system_error(error, DENIED) is not None:
        return f"{text}; {_NO_WRITING}"
    if wording.system_error(error, DISK_FULL) is not None:
        return f"{text}; finished work is kept: make room and start again"
    if wording.BAD_PARQUET_FOOTER(error):
        return "a file of an output is damaged; `dsir verify` names it and sets it aside, `dsir run` makes it again"
    damage = duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException
    if isinstance(error, damage) or wording.NO_DATABASE(error):
        return f"{text} If it stays so, the catalog is damaged: {_REBUILD}"
    return text


def _of_history(error: BaseException) -> str:
    error = getattr(error, "orig", None) or error  # SQLAlchemy wraps the driver's
    home = os.environ.get("DAGSTER_HOME", "DAGSTER_HOME")
    if type(error).__module__.split(".")[0] == "psycopg2":
        return f"{home}/dagster.yaml names a database that cannot be used: {' '.join(str(error).split())}"
    where = f"{home}, where Dagster keeps its history: {_first_line(error)}"
    if wording.SQLITE_FULL(error):
        return f"{where}; finished work is kept: make room and start again"
    if wording.SQLITE_NOT_WRITABLE(error):
        return f"{where}; {_NO_WRITING}"
    if wording.SQLITE_LOCKED(error):
        return f"{where}; another process has held it for too long: end it and start again"
    if wording.SQLITE_DAMAGED(error) or wording.SQLITE_IO(error):
        return f"{where}; move the folder away, a new one is made: outputs and the catalog are not in it"
    return where


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
