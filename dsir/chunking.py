"""Cutting texts into pieces of a number of words, without copying them.

What belongs here: where a text is cut. What does not: the ids of pieces and finding them again
(``resources/corpus/fields.py``), words as they are counted (`dsir.featurizer.words`).

Long documents are cut so that a selection need not take a whole book for one chapter; the paper's authors select from
passages of 128 words of The Pile. A word is what `str.split` returns: it ends at any Unicode white space. A piece
begins where a word begins, and the white space between two pieces belongs to the first, so that the pieces of a text,
joined, are the text.

The authors' ``preprocessing/reformat_and_chunk_data.py`` splits only at spaces: there a line break does not end a word,
two spaces enclose an empty word, and the space between two pieces is lost. Words separated by single spaces are cut at
the same places by both.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numba import njit

from dsir.checks import expect_strings
from dsir.features import utf8_ranges
from dsir.featurizer.words import decode


@dataclass(frozen=True, eq=False)
class Pieces:
    """The m pieces of n texts, in order.

    Attributes
    ----------
    texts : pyarrow.Array of string or large_string, length m
        The pieces; they share the bytes of the texts.
    parents : int64[m]
        Index of a piece's text; ascending, each of 0 .. n - 1 at least once.
    begins, ends : int64[m]
        The piece is ``text.encode()[begin:end]``.
    """

    texts: pa.Array
    parents: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of the pieces within their texts, from 0: int64[m]."""
        first = np.flatnonzero(self.begins == 0)
        return np.arange(len(self.parents)) - first[self.parents]


def cut(texts: pa.Array, n_words: int) -> Pieces:
    """Cut texts into pieces of `n_words` words; the last piece of a text has the rest.

    Compiled code in one thread, which releases the GIL.

    Parameters
    ----------
    texts : pyarrow.Array of string or large_string
        n texts in valid UTF-8, without nulls; may be a slice.
    n_words : int
        At least 1.

    Returns
    -------
    Pieces
        A text with fewer words, or none, is one piece.

    Raises
    ------
    ValueError
        If `texts` has another type or nulls, or `n_words` is less than 1.
    """
    expect_strings("texts", texts)
    if not isinstance(n_words, int) or n_words < 1:
        raise ValueError(f"n_words: {n_words!r}; expected an integer of at least 1")
    data, starts, ends = utf8_ranges(texts)
    room = (int(ends[-1] - starts[0]) // (2 * n_words) if len(texts) else 0) + len(texts)
    parents, offsets = _cut(data, starts, ends, n_words, *_white_space(), room)
    dtype = np.int32 if texts.type == pa.string() else np.int64
    bounds = np.append(offsets, ends[-1:] if len(texts) else 0).astype(dtype)
    values = texts.buffers()[2] or pa.py_buffer(b"")
    pieces = pa.Array.from_buffers(texts.type, len(parents), [None, pa.py_buffer(bounds), values])
    lengths = np.diff(bounds).astype(np.int64)
    begins = offsets - starts[parents]
    return Pieces(pieces, parents, begins, begins + lengths)


@lru_cache(maxsize=1)
def _white_space() -> tuple[np.ndarray, np.ndarray]:
    """What the running Python considers white space.

    Returns
    -------
    first_byte : uint8[256]
        1 for a byte that is white space, 2 for the first byte of some longer white space, else 0.
    is_space : bool[]
        By code point, up to the last white space.
    """
    code_points = [c for c in range(0x110000) if chr(c).isspace()]
    is_space = np.zeros(code_points[-1] + 1, np.bool_)
    is_space[code_points] = True
    first_byte = np.zeros(256, np.uint8)
    for encoded in (chr(c).encode() for c in code_points):
        first_byte[encoded[0]] = 1 if len(encoded) == 1 else 2
    return first_byte, is_space


@njit(cache=True, nogil=True)
def _cut(data, starts, ends, n_words, first_byte, is_space, room):
    """The parents of the pieces, and where in `data` they begin (int64[m] twice).

    There are at most `room` pieces: a word takes two bytes, except the last of a text, and a text is at least a piece.
    """
    parents, offsets = np.empty(room, np.int64), np.empty(room, np.int64)
    n = 0
    for d in range(len(starts)):
        i, end = starts[d], ends[d]
        parents[n], offsets[n] = d, i
        n += 1
        # The words that began in this piece; whether there is white space before i.
        words, before = np.int64(0), np.int64(1)
        while i < end:
            space, length = np.int64(first_byte[data[i]]), 1
            if space == 2:
                code_point, length = decode(data, i)
                space = np.int64(code_point < len(is_space) and is_space[code_point])
            words += before & (space ^ 1)
            before = space
            if words > n_words:
                parents[n], offsets[n] = d, i
                n += 1
                words = np.int64(1)
            i += length
    return parents[:n], offsets[:n]
