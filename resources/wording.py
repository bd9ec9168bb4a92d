"""What libraries say in their errors, where the words alone tell one error from another.

What belongs here: every wording of another library that this project recognizes, by library. What does not: what is
done about the error, and errors that have a type of their own.

A new version may word an error otherwise. ``tests/resources/test_wording.py`` provokes each of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable


class Wording:
    """A predicate of errors.

    Parameters
    ----------
    *patterns : str
        Regular expressions; one of them is found in the error's text, with each run of white space as one space.
    """

    def __init__(self, *patterns: str) -> None:
        self.patterns = patterns
        self._any = re.compile("|".join(patterns))

    def __call__(self, error: BaseException) -> bool:
        """Return whether the error says this."""
        return self.match(error) is not None

    def match(self, error: BaseException) -> re.Match[str] | None:
        """Return the match in the error's text."""
        return self._any.search(one_line(error))


def one_line(error: BaseException) -> str:
    """Return an error's text with single spaces for all white space."""
    return " ".join(str(error).split())


# --- Python ----------------------------------------------------------------------------------------------------------

#: Another value follows the first one (``json``).
SEVERAL_JSON_VALUES = Wording("^Extra data")

# --- Arrow's JSON and CSV --------------------------------------------------------------------------------------------

#: A field is a number where a string was expected; the group is its path, with slashes.
NUMBER_FOR_STRING = Wording(r"Column\(/(.+)\) changed from string to number")
#: A number that int64 cannot hold.
NO_INTEGER = Wording("Failed to convert JSON to int64")
#: There is no text, not even a header.
EMPTY_CSV = Wording("^Empty CSV file$")
#: The header does not end within the first block, or nothing follows it.
HEADER_BEYOND_BLOCK = Wording("cannot infer number of columns")
#: A record does not end within a block.
RECORD_BEYOND_BLOCK = Wording("straddling")

# --- Decompression, by Arrow and by Python's gzip --------------------------------------------------------------------

#: The stream ends early; Python says the second where one byte is left of the mark that begins a gzip member.
CUT_OFF = Wording("Truncated compressed stream", re.escape(r"(b'\x1f')"))
#: What follows a gzip member is not another one.
NO_GZIP_MEMBER = Wording("incorrect header check", "unknown compression method", "Not a gzipped file")
#: A zstd frame needs a larger window than the decoder allows.
LARGE_WINDOW = Wording("requires too much memory")

# --- Object stores, by Arrow ------------------------------------------------------------------------------------------

#: The store, or the way to it, refused a request to S3; the groups say how.
S3_SAID = Wording(
    r"AWS Error (?P<code>\w+)(?: \(HTTP status (?P<status>\d+)\))? during (?P<operation>\w+) operation: ?(?P<said>.*)"
)
#: An answer to S3 was larger than what was asked for, as a refusal can be: Arrow has room for no more, and its client
#: does not ask again.
S3_NO_ROOM = Wording("INTERNAL_FAILURE.*Failed to flush response stream")
#: The same of Google Cloud Storage.
GCS_SAID = Wording(
    r"google::cloud::Status\((?P<code>\w+): (?P<said>.*?)(?: error_info=.*)?\)\.?(?: Detail: .*)?$"
)
#: The same of Azure.
AZURE_SAID = Wording(
    r"Azure Error: \[(?P<code>\w*)\] (?:(?P<status>\d{3}) )?(?P<said>.*?)(?: Request ID:.*)?$"
)

# --- DuckDB ----------------------------------------------------------------------------------------------------------

#: Another process has the database open.
LOCKED = Wording("Could not set lock on file")
#: Another version of DuckDB wrote the database.
OTHER_DUCKDB = Wording("version number")
#: A signal handler raised an exception during the query.
INTERRUPTED = Wording("Query interrupted")
#: The database is open for reading only.
READ_ONLY = Wording("read-only")
#: The database is not as it was written.
DAMAGED = Wording(
    "Corrupt database file", "Could not read enough bytes", "database has been invalidated", "deserialize"
)
#: The file was never a database, or is damaged: the database, or anything else that is read.
NO_DATABASE = Wording("not a valid DuckDB database", "orrupt")
#: The footer of a Parquet file cannot be parsed.
BAD_PARQUET_FOOTER = Wording("TProtocolException")


def system_error(error: BaseException, numbers: Iterable[int]) -> int | None:
    """Return which of the system's errors DuckDB quotes, as it has no other place for them.

    Parameters
    ----------
    error : BaseException
    numbers : iterable of int
        As in :mod:`errno`.
    """
    return next((number for number in numbers if os.strerror(number) in str(error)), None)


# --- SQLite ----------------------------------------------------------------------------------------------------------

#: The disk is full, or the database has its greatest size.
SQLITE_FULL = Wording("is full")
#: The database, or its folder, cannot be written.
SQLITE_NOT_WRITABLE = Wording("readonly", "unable to open")
#: Another connection has the database locked.
SQLITE_LOCKED = Wording("locked")
#: The file is not a database, or not as it was written.
SQLITE_DAMAGED = Wording("malformed", "not a database")
#: The system failed to read or write.
SQLITE_IO = Wording("disk I/O")

# --- Dagster ---------------------------------------------------------------------------------------------------------

#: ``dagster.yaml`` names a variable of the environment; the group is its name.
UNSET_VARIABLE = Wording(r'environment variable "(\w+)" which is not set')
#: It names a class whose package is not installed; the group is the package.
MISSING_CLASS = Wording(r"Couldn't import module (\w+)")
