"""Near-duplicates: documents that share nearly all of their runs of five words with a better one.

What belongs here: sketches of texts, which documents of a ranking are nearly the same as a better-ranked one, and
near-copies among a few texts. What does not: documents of equal text (``sql/duplicates.sql``), reading texts, what is
picked instead (``assets/picking/near_duplicates.py``).

Two documents are near-duplicates if the Jaccard similarity of their sets of word 5-grams is at least a threshold
(Broder 1997; for language models: Lee et al., ACL 2022, section 4.2, who use 5-grams and 0.8). Candidate pairs are
found by MinHash (the library rensa, the extra ``near-duplicates``) and locality-sensitive hashing, and then compared
exactly by their sets. A pair at the threshold is missed with a probability below 1 in 500 (for thresholds of 0.06 and
more), one above it with a smaller one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np
import pyarrow as pa

from dsir.evaluation import distinct
from dsir.explain import tokenize
from dsir.features import FeatureSpec, hash_strings
from dsir.featurizer.hashing import K1, K3

#: Raised when other documents are found for the same texts.
VERSION = 1

WORDS = 5  #: an n-gram
DIGESTS = 128  #: a document; the estimate of a similarity s then has a variance of at most s (1 - s) / 128
TEXTS_AT_A_TIME = 1024  #: texts whose words are in memory as Python strings
MISSED = 1e-3  #: largest probability that a pair at the threshold shares no band of its digests


@dataclass(frozen=True, eq=False)
class Sketches:
    """What is compared of some documents, in their order.

    Attributes
    ----------
    ngrams : list of ndarray of uint64
        64-bit hashes of each document's distinct word 5-grams, ascending; at least one.
    digests : ndarray of uint32, shape (n, DIGESTS)
        MinHash signatures.
    """

    ngrams: list[np.ndarray]
    digests: np.ndarray

    def __len__(self) -> int:
        return len(self.ngrams)


def version() -> str:
    """Return the version of this module and of the library, on which the documents found depend."""
    try:
        return f"{VERSION}, rensa {metadata.version('rensa')}"
    except metadata.PackageNotFoundError:
        return f"{VERSION}, rensa is not installed"


def sketch(texts: Sequence[str], spec: FeatureSpec) -> Sketches:
    """Sketch documents that fit into memory, independently of each other.

    Parameters
    ----------
    texts : sequence of str
        A text of fewer than five words has one n-gram, of all its words.
    spec : FeatureSpec
        Its tokenizer is used.

    Raises
    ------
    ImportError
        The library rensa is not installed.
    """
    ngrams: list[np.ndarray] = []
    digests = [np.empty((0, DIGESTS), np.uint32)]
    for first in range(0, len(texts), TEXTS_AT_A_TIME):
        some = _ngrams(texts[first : first + TEXTS_AT_A_TIME], spec)
        ngrams += some
        digests.append(_digests(some))
    return Sketches(ngrams, np.concatenate(digests))


def _ngrams(texts: Sequence[str], spec: FeatureSpec) -> list[np.ndarray]:
    words: list[str] = []
    lengths = np.empty(len(texts), np.int64)
    for i, text in enumerate(texts):
        mine = tokenize(text, spec)
        mine += [""] * (WORDS - len(mine))
        lengths[i] = len(mine)
        words += mine
    encoded = pa.array(words, pa.string()).dictionary_encode()
    hashes = hash_strings(encoded.dictionary)[encoded.indices.to_numpy()]
    # The hash of the n-gram that begins at each place, built as in `dsir.featurizer.hashing` from XXH64 of its words.
    # Those that would extend into the next document are not used.
    n_starts = len(hashes) - WORDS + 1
    ngrams = hashes[:n_starts]
    for k in range(1, WORDS):
        ngrams = ngrams * K1 + hashes[k : k + n_starts]
        ngrams = (ngrams ^ (ngrams >> np.uint64(32))) * K3
        ngrams ^= ngrams >> np.uint64(29)
    begins = np.cumsum(lengths) - lengths
    return [
        distinct(ngrams[begin:end])
        for begin, end in zip(begins.tolist(), (begins + lengths - WORDS + 1).tolist(), strict=True)
    ]


def _digests(sets: list[np.ndarray]) -> np.ndarray:
    from rensa import RMinHash

    offsets = np.concatenate([[0], np.cumsum([len(each) for each in sets])]).astype(np.uint64)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), offsets, DIGESTS, 0)
    return np.array(digests.to_rows(), dtype=np.uint32)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Jaccard similarity of two sets of distinct hashes: the size of the intersection over the union's."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


def near_copies(texts: Sequence[str], spec: FeatureSpec, threshold: float) -> np.ndarray:
    """Find the texts that are nearly the same as an earlier one, by comparing every pair; needs no library.

    Parameters
    ----------
    texts : sequence of str
        A few thousand at most: texts that share n-grams take 12 bytes of memory a pair.
    spec : FeatureSpec
        Its tokenizer is used.
    threshold : float
        The smallest Jaccard similarity of near-copies, in (0, 1].

    Returns
    -------
    ndarray of bool, shape (n,)

    Examples
    --------
    >>> near_copies(["a b c d e f g h", "a b c d e f g h", "h g f e d c b a"], FeatureSpec(), 0.8).tolist()
    [False, True, False]
    """
    from scipy.sparse import csr_array, tril

    if not len(texts):
        return np.zeros(0, dtype=bool)
    sets = _ngrams(texts, spec)
    sizes = np.array([len(each) for each in sets])
    _, column = np.unique(np.concatenate(sets), return_inverse=True)
    row = np.repeat(np.arange(len(sets)), sizes)
    member = csr_array((np.ones(len(row), np.int32), (row, column)))
    shared = tril(member @ member.T, k=-1).tocoo()
    similar = shared.data >= threshold * (sizes[shared.row] + sizes[shared.col] - shared.data)
    found = np.zeros(len(sets), dtype=bool)
    found[shared.row[similar]] = True
    return found


def near_duplicates(sketches: Sketches, threshold: float) -> np.ndarray:
    """Find the documents that are nearly the same as a better one.

    Parameters
    ----------
    sketches : Sketches
        Of n documents in order of rank, best first.
    threshold : float
        The smallest similarity of near-duplicates, in (0, 1).

    Returns
    -------
    ndarray of bool, shape (n,)
        True for a document whose similarity to a better one that is not itself a near-duplicate is at least the
        threshold.
    """
    digests, sizes = sketches.digests, np.array([len(each) for each in sketches.ngrams])
    least = threshold - 4 * np.sqrt(threshold * (1 - threshold) / DIGESTS)
    found = np.zeros(len(sketches), dtype=bool)
    kept: dict[int, list[int]] = defaultdict(list)
    bands = _bands(digests, threshold)
    for i in np.flatnonzero((bands >= 0).any(axis=1)).tolist():
        mine = bands[i][bands[i] >= 0].tolist()
        others = np.array(sorted(set().union(*(kept[band] for band in mine))), dtype=np.int64)
        alike = (digests[others] == digests[i]).mean(axis=1) >= least
        alike &= np.minimum(sizes[others], sizes[i]) / np.maximum(sizes[others], sizes[i]) >= threshold
        ngrams = sketches.ngrams
        if any(jaccard(ngrams[i], ngrams[other]) >= threshold for other in others[alike]):
            found[i] = True
            continue
        for band in mine:
            kept[band].append(i)
    return found


def _bands(digests: np.ndarray, threshold: float) -> np.ndarray:
    """Number the bands of digests: equal numbers for documents that share one, -1 for an unshared band.

    Returns
    -------
    ndarray of int64, shape (n, bands)
    """
    rows = max(
        (r for r in range(1, DIGESTS + 1) if (1 - threshold**r) ** (DIGESTS // r) <= MISSED), default=1
    )
    numbers = np.empty((len(digests), DIGESTS // rows), np.int64)
    for band in range(numbers.shape[1]):
        part = np.ascontiguousarray(digests[:, band * rows : (band + 1) * rows])
        _, which, counts = np.unique(
            part.view(f"V{part.itemsize * rows}").ravel(), return_inverse=True, return_counts=True
        )
        numbers[:, band] = np.where(counts[which] > 1, which + band * len(digests), -1)
    return numbers
