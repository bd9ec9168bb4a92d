"""What the quality filter needs to know about a document's words, counted from their hashes.

What belongs here: the lists of words and their compiled counting. What does not: finding and hashing words (`words`,
`kernel`), the criteria on the counts (`dsir.quality`).

A word is uninformative if it is one of NLTK's 179 English stopwords or a single character of `string.punctuation`. A
word of several characters, such as ``...``, is informative. Words are told apart by their 64-bit hashes.
"""

import string
from dataclasses import dataclass

import numpy as np

from dsir.featurizer.hashing import K1, hash_word_bytes
from dsir.featurizer.intrinsics import inner

#: NLTK's English stopwords as of 2023. Those added later all have an apostrophe, so the tokenizer ``wordpunct`` finds
#: none of them.
STOPWORDS = frozenset(
    """
    i me my myself we our ours ourselves you you're you've you'll you'd your yours yourself yourselves he him his
    himself she she's her hers herself it it's its itself they them their theirs themselves what which who whom this
    that that'll these those am is are was were be been being have has had having do does did doing a an the and but
    if or because as until while of at by for with about against between into through during before after above below
    to from up down in out on off over under again further then once here there when where why how all any both each
    few more most other some such no nor not only own same so than too very s t can will just don don't should
    should've now d ll m o re ve y ain aren aren't couldn couldn't didn didn't doesn doesn't hadn hadn't hasn hasn't
    haven haven't isn isn't ma mightn mightn't mustn mustn't needn needn't shan shan't shouldn shouldn't wasn wasn't
    weren weren't won won't wouldn wouldn't
    """.split()
)
UNINFORMATIVE = STOPWORDS | frozenset(string.punctuation)
DIGITS = frozenset(string.digits)


@dataclass(frozen=True, eq=False)
class WordCounts:
    """What the criteria need to know about n documents, besides the number of their words.

    Attributes
    ----------
    most_frequent_word : int64[n]
        How often the document's most frequent word stands in it; 0 if it has no words.
    informative_words : int64[n]
        Words that are neither stopwords nor a single punctuation character.
    single_digits : int64[n]
        Words that are one character of 0-9.
    """

    most_frequent_word: np.ndarray
    informative_words: np.ndarray
    single_digits: np.ndarray


_PLACE_BITS = 12
_PLACE_SHIFT = np.uint64(64 - _PLACE_BITS)
_LAST = np.uint8(len(UNINFORMATIVE))  # the words of the table are numbered from 1: first these, then digits
_1 = np.uint32(1)


def _perfect_hash() -> tuple[np.uint64, np.ndarray, np.ndarray]:
    """Make the table of words that are not informative or digits.

    Returns
    -------
    factor : uint64
        The high `_PLACE_BITS` bits of hash times factor are different for all words of the table.
    numbers : uint8[2**_PLACE_BITS]
        By these bits, the word's number; 0 where there is none.
    hashes : uint64[256]
        By number.
    """
    known = [hash_word_bytes(word.encode()) for word in [*sorted(UNINFORMATIVE), *sorted(DIGITS)]]
    factor = 1
    places: list[int] = []
    while len(set(places)) < len(known):
        factor = (factor * int(K1) + 2) % 2**64
        places = [(h * factor % 2**64) >> int(_PLACE_SHIFT) for h in known]
    numbers = np.zeros(1 << _PLACE_BITS, np.uint8)
    hashes = np.full(256, known[0], np.uint64)  # where there is no number, no word's: that word has a number
    numbers[places] = np.arange(1, len(known) + 1)
    hashes[1 : len(known) + 1] = known
    return np.uint64(factor), numbers, hashes


_FACTOR, _NUMBERS, _HASHES = _perfect_hash()


@inner
def count_classes(hashes, n):
    """Count how many of ``hashes[:n]`` are informative words, and how many are single digits."""
    known = digits = np.int64(0)
    for i in range(n):
        number = _NUMBERS[(hashes[i] * _FACTOR) >> _PLACE_SHIFT]
        same = np.int64(_HASHES[number] == hashes[i])
        known += same
        digits += same & np.int64(number > _LAST)
    return n - (known - digits), digits


@inner
def room_for_counters(n):
    """Number of counters that `count_most_frequent` uses for n words: a power of two."""
    size = 64
    while size < 2 * n:
        size *= 2
    return size


@inner
def count_most_frequent(hashes, n, counters):
    """Count the occurrences of the most frequent word among ``hashes[:n]``; overwrites them.

    Several words may share a counter. The largest counter is an upper bound, nearly always reached by the first word
    counted there, which one pass of comparisons verifies. Otherwise, the words whose counter exceeds the best count so
    far are counted again, under other bits of their hashes.

    Parameters
    ----------
    hashes : uint64[:]
    n : int64
    counters : uint32[:]
        At least ``room_for_counters(n)``, all zero, and all zero again at the end.
    """
    best = np.uint32(0)
    while n > 0:
        size = room_for_counters(n)
        mask = np.uint64(size - 1)
        for i in range(n):
            counters[hashes[i] & mask] += _1
        bound = np.uint32(0)
        for i in range(size):
            bound = max(bound, counters[i])
        first = 0
        while counters[hashes[first] & mask] < bound:
            first += 1
        candidate = hashes[first]
        count = np.uint32(0)
        for i in range(n):
            count += np.uint32(hashes[i] == candidate)
        best = max(best, count)
        kept = np.int64(0)
        if best < bound:
            for i in range(n):
                h = hashes[i]
                hashes[kept] = (h >> np.uint64(11)) | (h << np.uint64(53))
                kept += np.int64((counters[h & mask] > best) & (h != candidate))
        for i in range(size):
            counters[i] = 0
        n = kept
    return np.int64(best)
