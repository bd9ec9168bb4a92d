"""A tokenizer learnt from the random text: byte pairs, and bytes for what is left.

What belongs here: learning the vocabulary, encoding. What does not: which texts, arrays. None of the project's packages
trains a tokenizer, and this one is not worth another.

Text is cut into words with the space before them, digits, runs of punctuation and white space. Pairs of adjacent tokens
are merged within these, the most frequent first (Sennrich et al. 2016, arXiv 1508.07909), starting from bytes, so that
every text has tokens and its tokens give the text. To encode, the longest known token is taken from the left, which
compresses as well as repeating the merges (Uzan et al. 2024, arXiv 2403.01289).
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from benchmarks.gpu.prepared import END

_WORDS = re.compile(r" ?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+|\s+?(?= \S|$)|\s+")


class Tokenizer:
    """From text to tokens and back.

    Parameters
    ----------
    pieces : list of bytes
        What tokens 1, 2, ... stand for; includes every single byte.

    Attributes
    ----------
    sizes : ndarray of int64, shape (vocabulary,)
        Bytes of every token; `END` has none.
    """

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.sizes = np.array([0, *map(len, pieces)])
        self._ids = {piece: i for i, piece in enumerate(pieces, 1)}
        self._longest = max(map(len, pieces))
        self._known: dict[str, list[int]] = {}

    @classmethod
    def learn(cls, texts: Iterable[str], vocabulary: int) -> Tokenizer:
        """Learn from texts.

        Parameters
        ----------
        texts : iterable of str
        vocabulary : int
            Tokens, including the 256 bytes and `END`; fewer if the texts have no more pairs.
        """
        counted = Counter(word for text in texts for word in _WORDS.findall(text))
        words = [[bytes([byte]) for byte in _bytes(word)] for word in counted]
        counts = list(counted.values())
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        where: defaultdict[tuple[bytes, bytes], set[int]] = defaultdict(set)
        for i, word in enumerate(words):
            for pair in pairwise(word):
                pairs[pair] += counts[i]
                where[pair].add(i)
        heap = [(-count, pair) for pair, count in pairs.items()]
        heapq.heapify(heap)
        pieces = dict.fromkeys(bytes([byte]) for byte in range(256))
        while heap and len(pieces) + 1 < vocabulary:
            count, merged = heapq.heappop(heap)
            if -count != pairs[merged]:  # has changed since
                if pairs[merged]:
                    heapq.heappush(heap, (-pairs[merged], merged))
                continue
            pieces[b"".join(merged)] = None
            changed = set()
            for i in where.pop(merged, ()):
                for pair in pairwise(words[i]):
                    pairs[pair] -= counts[i]
                words[i] = _merge(words[i], merged)
                for pair in pairwise(words[i]):
                    pairs[pair] += counts[i]
                    where[pair].add(i)
                    changed.add(pair)
            for pair in changed:
                heapq.heappush(heap, (-pairs[pair], pair))
        return cls(list(pieces))

    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text and `END`: ndarray of uint16, shape (n,)."""
        ids: list[int] = []
        for word in _WORDS.findall(text):
            found = self._known.get(word)
            if found is None:
                found = self._known[word] = self._encode(_bytes(word))
            ids += found
        ids.append(END)
        return np.array(ids, dtype=np.uint16)

    def decode(self, ids: np.ndarray) -> str:
        """Return the text of tokens, without ends."""
        found = b"".join(self.pieces[i - 1] for i in ids.tolist() if i != END)
        return found.decode("utf-8", "surrogatepass")

    def _encode(self, word: bytes) -> list[int]:
        ids, first = [], 0
        while first < len(word):
            last = min(len(word), first + self._longest)
            while word[first:last] not in self._ids:
                last -= 1
            ids.append(self._ids[word[first:last]])
            first = last
        return ids


def _bytes(word: str) -> bytes:
    return word.encode("utf-8", "surrogatepass")


def _merge(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """Join every such pair of a word."""
    out, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out
