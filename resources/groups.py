"""Many small files as one shard: which files form a group, what is remembered of them, where a row of the shard is.

What belongs here: everything that only sources with ``group`` need. What does not: listing and reading files
(``resources/corpus/``), the table of shards (``resources/discovery.py``).

A file begins a group or does not by its own name and size, so a file that comes, goes or changes leaves all groups but
its own alone, as a rule; a neighbor changes too where a file that begins a group comes or goes, and where groups are
cut for being too large.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsir_dagster.resources.plan import ShardFile
from dsir_dagster.resources.store import Origin, Store

#: Begins the stamp of a group.
GROUP = "files "

#: A file counts as at least this part of a group's bytes: opening one takes time too, and a store may not tell sizes.
SMALLEST = 4096

#: A group's bytes, cut for being too large, are at most this many times those that are wanted.
LARGEST = 2


def starts(names: Sequence[str], sizes: Sequence[int], n_bytes: int) -> list[int]:
    """Return the places of the files that begin a group, ascending; the first file does.

    A file of `size` bytes begins a group with a probability of `size / n_bytes`, by a hash of its name, which makes
    groups of `n_bytes` on average. A file that would make a group larger than `LARGEST` times that begins the next.

    Parameters
    ----------
    names : sequence of str
        In order.
    sizes : sequence of int
    n_bytes : int
    """
    found: list[int] = []
    held = 0
    for at, (name, size) in enumerate(zip(names, sizes, strict=True)):
        size = max(size, -(-n_bytes // SMALLEST))
        chance = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
        if not found or chance * n_bytes < size << 64 or held + size > LARGEST * n_bytes:
            found.append(at)
            held = 0
        held += size
    return found


def grouped(files: Sequence[ShardFile], n_bytes: int) -> list[ShardFile]:
    """Return the groups of a source's files as shards.

    Parameters
    ----------
    files : sequence of ShardFile
        Each under its own key, sorted by it.
    n_bytes : int
        Wanted in a group.
    """
    first = starts([file.shard for file in files], [file.size for file in files], n_bytes)
    return [_group(files[begin:end]) for begin, end in zip(first, [*first[1:], len(files)], strict=True)]


def _group(files: Sequence[ShardFile]) -> ShardFile:
    names = json.dumps([(file.shard, file.stamp) for file in files])
    unreadable = (file.stamp for file in files if not file.readable)
    return replace(
        files[0],
        size=sum(file.size for file in files),
        modified=max(file.modified for file in files),
        stamp=next(unreadable, GROUP + hashlib.sha256(names.encode()).hexdigest()),
        files=tuple(files),
    )


def read_first_rows(store: Store, file: ShardFile, counts: Origin) -> np.ndarray:
    """Return the row of a counted shard at which each of its files begins: ndarray of int64."""
    if not file.files:
        return np.zeros(1, np.int64)
    return store.read_table(store.name("files", file.shard), counts, ["first_row"])["first_row"].to_numpy()


def by_file(
    file: ShardFile, first_rows: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[str, np.ndarray, slice]]:
    """Split rows of a shard by its files.

    Parameters
    ----------
    file : ShardFile
    first_rows : ndarray of int64
        From :func:`read_first_rows`.
    rows : ndarray of int64, shape (n,)
        Of records, ascending.

    Yields
    ------
    uri : str
        Of a file that has some of them.
    rows : ndarray of int64
        Those rows, as the file numbers them.
    at : slice
        Their place in ``rows``.
    """
    bounds = [*np.searchsorted(rows, first_rows[1:]).tolist(), len(rows)]
    begin = 0
    for part, first, end in zip(file.parts, first_rows.tolist(), bounds, strict=True):
        if end > begin:
            yield part.uri, rows[begin:end] - first, slice(begin, end)
        begin = end


def files_columns(file: ShardFile, n_rows: Sequence[int]) -> dict[str, Any]:
    """Return the columns of the kind ``files`` for a group whose files have these numbers of rows."""
    ends = np.cumsum(n_rows, dtype=np.int64)
    return {
        "shard": file.shard,
        "name": [part.shard for part in file.files],
        "uri": [part.uri for part in file.files],
        "first_row": ends - n_rows,
        "rows": n_rows,
        "size": [part.size for part in file.files],
        "stamp": [part.stamp for part in file.files],
    }


class Listings:
    """The files of grouped sources as they were last found, so that a file is hashed once.

    The table ``shards`` has the stamps of groups only. A lost or damaged listing costs reading the files once more.

    Parameters
    ----------
    home : Path
        DSIR_HOME.
    """

    COLUMNS = ("uri", "size", "modified", "stamp")

    def __init__(self, home: Path) -> None:
        self._folder = home / "listings"

    def read(self, source: str) -> list[dict]:
        """Return uri, size, modified and stamp of a source's files, and when they were listed (``seen_at``)."""
        path = self._path(source)
        try:
            seen_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            rows = pq.read_table(path, columns=list(self.COLUMNS)).to_pylist()
            return [{**row, "seen_at": seen_at} for row in rows]
        except (OSError, ValueError, pa.ArrowException):
            return []

    def write(self, source: str, files: Sequence[ShardFile]) -> None:
        """Replace a source's listing, if it is another one; what could not be read is left out."""
        rows = [{name: getattr(file, name) for name in self.COLUMNS} for file in files if file.readable]
        known = [{name: row[name] for name in self.COLUMNS} for row in self.read(source)]
        if rows == known:
            return
        self._folder.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as new:
            try:
                pq.write_table(pa.Table.from_pylist(rows), new)
                new.close()
                os.replace(new.name, self._path(source))
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(new.name)
                raise

    def _path(self, source: str) -> Path:
        return self._folder / f"{source}.parquet"
