"""JSON with other layouts than one value a line: an array of records, objects over several lines.

What belongs here: recognizing such a file by its beginning, and rewriting its bytes so that every value has a line of
its own, block by block. What does not: lines (``lines``), the meaning of a value (``fields``).

Rows of such a file are numbered by value, from 0. Values are not parsed here: only strings and brackets are tracked, so
a bad value becomes a bad line and the next one is found. If brackets or quotes are unbalanced, no value's end is
certain, and the file is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Literal

import numpy as np

from dsir_dagster.resources.corpus.errors import CorpusError

Layout = Literal["lines", "array", "values"]

_BLANK, _BETWEEN = b" \t\r\n", b" \t\r"
_NEWLINE, _QUOTE, _BACKSLASH, _COMMA, _SPACE = b'\n"\\, '
_LOWER = 0x20  # "[" and "]" with this bit are "{" and "}"
_OPEN, _CLOSE = b"{}"
_AROUND_NEWLINE = re.compile(rb"[ \t\r]*\n[ \t\r]*")


def layout(head: bytes) -> Layout:
    """Return the layout of a JSON file, by its beginning.

    Returns
    -------
    {"lines", "array", "values"}
        An array begins with a bracket; if its first line is complete and others follow, it is a bad line among lines.
        Values over several lines (pretty-printed ones) begin with an object that the second line continues; if the
        second line begins an object of its own, the first is a bad line.
    """
    first, _, others = head.lstrip(_BLANK).partition(b"\n")
    first, others = first.rstrip(_BLANK), others.lstrip(_BLANK)
    if first.startswith(b"["):
        return "lines" if others and _is_json(first) else "array"
    if first.startswith(b"{") and first.endswith((b"{", b"[", b",", b":")):
        second = others.partition(b"\n")[0].rstrip(_BLANK)
        if second.startswith(b'"'):
            return "values"
        if first.endswith((b"[", b":")) and second.endswith((b",", b"{", b"[")):
            return "values"
    return "lines"


def one_a_line(uri: str, chunks: Iterator[bytes], array: bool) -> Iterator[bytes]:
    """Rewrite JSON so that every value has a line of its own.

    Parameters
    ----------
    uri : str
        For error messages.
    chunks : iterator of bytes
        The file, in blocks of any size.
    array : bool
        Whether the values are the elements of one array, rather than a sequence.

    Yields
    ------
    bytes
        Blocks of about the same size. White space between values is dropped, newlines within them become spaces. A
        newline in a string, which JSON forbids, becomes a zero, which JSON forbids as well.

    Raises
    ------
    CorpusError
        The file ends within a value, closes more brackets than it opens, or goes on after the array.
    """
    depth, inside, escaped, ended = 0, False, False, False
    begin, blanks = True, b""  # at the beginning of a value; white space that a newline may follow
    done = 0
    for chunk in chunks:
        if ended:
            _nothing_follows(uri, chunk)
            continue
        octets = np.frombuffer(chunk, np.uint8)
        strings, escaped = _strings(octets, inside, escaped)
        inside = bool(strings[-1])
        folded = octets | _LOWER
        signs = (folded == _OPEN).view(np.int8) - (folded == _CLOSE).view(np.int8)
        at = np.flatnonzero(((signs != 0) | (octets == _COMMA)) & ~strings)
        depths = depth + np.cumsum(signs[at], dtype=np.int64)
        closed = np.flatnonzero((depths <= 0) & (signs[at] < 0))
        out, newlines = octets.copy(), octets == _NEWLINE
        out[newlines] = _SPACE
        out[newlines & strings] = 0
        if array:
            if len(closed):
                ended, end = True, int(at[closed[0]])
                _nothing_follows(uri, chunk[end + 1 :])
                at, depths, out, inside = at[: closed[0]], depths[: closed[0]], out[:end], False
            if len(at) and depth == 0:
                out[: at[0] + 1] = _SPACE  # the bracket that opens it
            out[at[(octets[at] == _COMMA) & (depths == 1)]] = _NEWLINE
        else:
            if (depths[closed] < 0).any():
                wrong = done + int(at[depths < 0][0])
                raise CorpusError(
                    f"{uri}: at byte {wrong} of the text a bracket is closed that was not opened; a quote or bracket "
                    "before it is missing: repair the file, or write one object a line"
                )
            out = np.insert(out, at[closed] + 1, _NEWLINE)
        depth = int(depths[-1]) if len(depths) else depth
        done += len(chunk)
        data = _AROUND_NEWLINE.sub(b"\n", blanks + out.tobytes())
        if begin:
            data = data.lstrip(_BETWEEN)
        whole = data.rstrip(_BETWEEN)
        blanks = data[len(whole) :]
        if whole:
            begin = whole.endswith(b"\n")
            yield whole
    if not ended and (array or inside or depth):
        raise CorpusError(
            f"{uri}: the file ends within {'its JSON array' if array else 'a JSON value'}; it was cut off, is still "
            "being written, or a quote or bracket is missing: nothing of it is used, get the whole file"
        )


def _nothing_follows(uri: str, rest: bytes) -> None:
    if rest.strip(_BLANK):
        raise CorpusError(
            f"{uri}: something follows after the end of the JSON array that the file begins with; expected one array, "
            "or one object a line"
        )


def _strings(octets: np.ndarray, inside: bool, escaped: bool) -> tuple[np.ndarray, bool]:
    """Mark the bytes within strings; return whether the byte after these is escaped.

    Parameters
    ----------
    octets : ndarray of uint8, shape (n,)
        n > 0.
    inside, escaped : bool
        Whether the first byte is within a string, and whether it is escaped.

    Returns
    -------
    ndarray of bool, shape (n,)
        Opening quotes are marked, closing ones not.
    bool
    """
    quotes = octets == _QUOTE
    back = np.flatnonzero(octets == _BACKSLASH)
    if escaped:
        quotes[0] = False
        back = back[back > 0]
    escaped = False
    if len(back):
        # In a run of backslashes, the first, third, … escape what follows.
        begins = np.concatenate([[0], np.flatnonzero(np.diff(back) != 1) + 1])
        first = np.repeat(back[begins], np.diff(np.append(begins, len(back))))
        targets = back[(back - first) % 2 == 0] + 1
        escaped = bool(targets[-1] == len(octets))
        quotes[targets[: len(targets) - escaped]] = False
    return np.logical_xor.accumulate(quotes) ^ inside, escaped


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
