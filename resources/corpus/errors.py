"""What is said of a file that cannot be used, and how files are called in messages and by their suffixes.

What belongs here: the errors of corpus files, whoever raises them. What does not: opening files (``opening``).
"""

from __future__ import annotations

import contextlib
import shlex
import zlib
from collections.abc import Iterator

import pyarrow as pa

from dsir_dagster.resources import wording
from dsir_dagster.resources.object_stores import ObjectStoreError, Unreachable, object_store_errors
from dsir_dagster.resources.uris import masked

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

_AGAIN = "nothing of it is used, get or write the file again"
_CUT_OFF = (
    "the compressed stream ends early; the file was cut off or is still being written: nothing of it is used, get the "
    "whole file"
)


class CorpusError(ValueError):
    """A corpus file cannot be used; the message names it, what was expected and what to do, but no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))


class NoFiles(CorpusError):
    """There is no file where a path or a pattern points."""


class StoreUnreachable(CorpusError):
    """The file's store does not serve it now; nothing is known to be wrong with the file."""


@contextlib.contextmanager
def corpus_errors(uri: str) -> Iterator[None]:
    """Turn errors of file systems, codecs and Arrow into a :class:`CorpusError` that names the file.

    Stores raise anything (botocore's and aiohttp's errors are not OSErrors), so every exception about a remote file
    counts as one of its store.
    """
    try:
        with object_store_errors(uri):
            yield
    except (CorpusError, MemoryError):
        raise
    except ObjectStoreError as error:
        raise (StoreUnreachable if isinstance(error, Unreachable) else CorpusError)(str(error)) from error
    except FileNotFoundError as error:
        raise CorpusError(f"{uri}: no such file; check the uri, or run again once it is there") from error
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


def file_format(uri: str) -> str:
    """Return the format for a file's suffix: ``jsonl``, ``csv``, ``tsv``, ``parquet`` or ``ipc``.

    Raises
    ------
    CorpusError
        The suffix is not known.
    """
    _, kind = split_suffix(uri.split("::")[0].split("?")[0] if "://" in uri else uri)
    if kind is None:
        raise CorpusError(
            f"{uri}: this suffix is not known; expected one of {', '.join(FORMATS)}, with {' or '.join(CODECS)} after "
            "those of JSON Lines, CSV and TSV. Rename the file, narrow the pattern, or name a function that reads "
            "it with `reader: package.module:function`"
        )
    return kind


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


def split_suffix(path: str) -> tuple[str, str | None]:
    """Split a path into the part before its known suffixes, and the format."""
    stem = path
    for suffix in CODECS:
        if path.lower().endswith(suffix):
            stem = path[: -len(suffix)]
    for suffix, kind in FORMATS.items():
        if stem.lower().endswith(suffix) and (stem == path or kind in COMPRESSIBLE):
            return stem[: -len(suffix)], kind
    return path, None
