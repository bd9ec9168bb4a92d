"""Texts of files for notebooks: an iterable that starts over, which ``dsir.DSIR`` fits on without holding it.

What belongs here: one iterable over the files of a pattern. What does not: how files are read
(``resources/corpus/``), what is done with their texts (``dsir/``).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from dsir_dagster.resources.corpus import BLANK_LINE, TextBatch, expand, no_usable_row, read_blocks
from dsir_dagster.resources.settings import Reader
from dsir_dagster.resources.uris import absolute_uri


class Texts:
    """The texts of some files, in order of path and row, as the pipeline reads them; made by :func:`read_texts`."""

    def __init__(self, uris: list[str], reader: Reader) -> None:
        self._uris = uris
        self._reader = reader
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return (
            f"read_texts({self._uris[0]!r}{', …' if len(self._uris) > 1 else ''}): {len(self._uris):,} files"
        )

    def __iter__(self) -> Iterator[str]:
        for texts in self._batches():
            yield from texts.to_pylist()

    def take(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """Read some texts again, such as the picks of a selector.

        Parameters
        ----------
        rows : sequence of int, or ndarray of int
            Indices, from 0, in the order in which the texts are iterated.

        Returns
        -------
        list of str
            In the order of `rows`.

        Raises
        ------
        IndexError
            There are not as many texts.
        """
        wanted = np.unique(np.asarray(rows, np.int64))
        found: dict[int, str] = {}
        first = 0
        for texts in self._batches():
            inside = wanted[(wanted >= first) & (wanted < first + len(texts))]
            values = texts.take(pa.array(inside - first)).to_pylist()
            found.update(zip(inside.tolist(), values, strict=True))
            first += len(texts)
        if missing := [row for row in wanted.tolist() if row not in found]:
            raise IndexError(f"rows: {missing[0]}; expected integers from 0 to {first - 1:,}")
        return [found[int(row)] for row in rows]

    def _batches(self) -> Iterator[pa.Array]:
        for uri in self._uris:
            reasons: Counter[str] = Counter()
            usable = 0
            first_bad: int | None = None
            for block in read_blocks(uri, self._reader):
                batch: TextBatch = block.parse()
                usable += len(batch.texts)
                for row in batch.rejected:
                    if row.reason != BLANK_LINE:
                        reasons[row.reason] += 1
                        first_bad = row.row if first_bad is None else first_bad
                yield batch.texts
            if not usable and (error := no_usable_row(uri, self._reader, reasons)):
                raise error
            if reasons and uri not in self._told:
                self._told.add(uri)
                why = ", ".join(f"{reason} ({n:,})" for reason, n in reasons.most_common(3))
                warnings.warn(
                    f"{uri}: {reasons.total():,} of {usable + reasons.total():,} rows are left out, the first is row "
                    f"{first_bad}: {why}",
                    stacklevel=3,
                )


def read_texts(uri: str | Sequence[str], text: str | Sequence[str] = "text") -> Texts:
    """Texts of files as an iterable that starts over, for ``dsir.DSIR().fit(raw=…, target=…)``.

    Formats, compression and bad rows are those of the pipeline's readers: JSON Lines, Parquet, Arrow, CSV; a row
    without a usable text is left out, which a warning counts.

    Parameters
    ----------
    uri : str or sequence of str
        Paths or fsspec URIs, with glob characters.
    text : str or sequence of str
        Field that holds the text: a name, a dotted path, or several of these, joined by newlines.

    Returns
    -------
    Texts
        Iterates over str, in order of path and row; holds a few megabytes at a time.

    Raises
    ------
    CorpusError
        A ValueError: no file matches. When it is iterated: a file cannot be read, or has no usable row.

    Examples
    --------
    >>> import dsir, dsir_dagster
    >>> pool = dsir_dagster.read_texts("pool/*.jsonl.zst", text="text")  # doctest: +SKIP
    >>> selector = dsir.DSIR().fit(pool, dsir_dagster.read_texts("target.jsonl"))  # doctest: +SKIP
    >>> picked = pool.take(selector.select(1000, seed=0))  # doctest: +SKIP
    """
    patterns = [uri] if isinstance(uri, str) else list(uri)
    reader = Reader(text=text if isinstance(text, str) else list(text))
    found = [
        file.uri for pattern in patterns for file in expand(absolute_uri(pattern, Path.cwd()), named="it")
    ]
    return Texts(found, reader)
