"""Character classes and lowercase mappings of the running Python, one entry a code point.

What belongs here: what `re` and `str` say about single code points, as arrays for the kernel. What does not: walking
over text (`words`).

An entry is a uint32: the lowercase code point in bits 0 .. 20, the class in bits 21 .. 22. The classes are
those of the regular expression ``\\w+|[^\\w\\s]+`` (NLTK 3.8.1's ``WordPunctTokenizer``, the reference's
tokenizer), or of ``str.split``, under which everything but whitespace is a word.
"""

import re
from functools import lru_cache

import numpy as np

SPACE, WORD, PUNCTUATION = 0, 1, 2
CLASS_SHIFT = 21

# Not lowercased one code point at a time: U+0130 becomes two code points, and U+03A3 depends on the letters
# around it (final sigma). Documents with either go through `str.lower` as a whole; see `needs_str_lower`.
NOT_ONE_TO_ONE = (0x0130, 0x03A3)

_AT_ONCE = 0x800  # code points tabulated together: all surrogates, or none


@lru_cache(maxsize=2)
def code_point_table(tokenizer: str) -> np.ndarray:
    """Class and lowercase mapping of every code point.

    Parameters
    ----------
    tokenizer : {"wordpunct", "whitespace"}

    Returns
    -------
    uint32[0x110000]
        Read-only. Surrogates, which UTF-8 cannot hold, have class 0.

    Raises
    ------
    RuntimeError
        If the running Python's Unicode data breaks an assumption of the kernel: lowercasing is one to one
        outside `NOT_ONE_TO_ONE`, changes nothing when repeated, and classes of ASCII are the known ones.
    """
    table = np.zeros(0x110000, np.uint32)
    for first in range(0, len(table), _AT_ONCE):
        if not 0xD800 <= first < 0xE000:
            table[first : first + _AT_ONCE] = _entries(first, tokenizer)
    _check(table, tokenizer)
    table.flags.writeable = False
    return table


def _entries(first: int, tokenizer: str) -> np.ndarray:
    """Entries of `_AT_ONCE` code points from `first` on."""
    code_points = np.arange(first, first + _AT_ONCE, dtype="<u4")
    text = code_points.tobytes().decode("utf-32-le")
    classes = np.full(len(text), PUNCTUATION if tokenizer == "wordpunct" else WORD, np.uint32)
    for pattern, character_class in ((r"\w+", WORD), (r"\s+", SPACE)):
        for match in re.finditer(pattern, text):
            classes[match.start() : match.end()] = character_class

    special = np.isin(code_points, NOT_ONE_TO_ONE)
    for each in code_points[special]:
        text = text.replace(chr(each), "\0")
    lowered = np.frombuffer(text.lower().encode("utf-32-le"), "<u4")
    if len(lowered) != len(text):
        raise RuntimeError("this Python lowercases a code point other than U+0130 to several")
    return np.where(special, code_points, lowered) | classes << CLASS_SHIFT


def _check(table: np.ndarray, tokenizer: str) -> None:
    lower, classes = table & 0x1FFFFF, table >> CLASS_SHIFT
    if not np.array_equal(lower[lower], lower):
        raise RuntimeError("lowercasing twice differs from lowercasing once in this Python")
    letters = [ord(c) for c in "abcdefghijklmnopqrstuvwxyz"]
    expected_lower = np.arange(128)
    expected_lower[65:91] = letters
    expected = np.full(128, PUNCTUATION if tokenizer == "wordpunct" else WORD)
    expected[[*letters, *range(48, 58), *range(65, 91), ord("_")]] = WORD
    expected[[*range(9, 14), *range(28, 33)]] = SPACE
    if not (np.array_equal(lower[:128], expected_lower) and np.array_equal(classes[:128], expected)):
        raise RuntimeError("the ASCII classes of this Python's `re` are not the expected ones")
