"""The paper's quality filter: which documents pass, judged by counts of their words.

What belongs here: the criteria and the paper's bounds. What does not: counting words
(``dsir.featurizer.word_counts``), which bounds a selection has (``resources/settings/``), n-grams.

The filter is that of Xie et al. 2023, as their repository computes it (``compute_quality_stats.py``,
``get_quality_mask``): bounds on the number of words and on three shares of them. There, words are from NLTK's
``word_tokenize`` on the lowercased text; here, they are the words counted as features, so that the text is read once:
``).`` is one word here and two there.
"""

from collections.abc import Mapping

import numpy as np

from dsir.featurizer.word_counts import WordCounts

#: The criteria, in the order tried, with the paper's bounds. All bounds are exclusive; None is no bound. `words` is a
#: number, the others are shares of the words.
PAPER = {
    "words": (40.0, 500.0),
    "most_frequent_word": (0.02, 0.2),
    "informative_words": (0.3, 0.7),
    "not_digits": (0.8, None),
}


def failing(
    n_words: np.ndarray, counts: WordCounts, bounds: Mapping[str, tuple[float | None, float | None]] = PAPER
) -> np.ndarray:
    """Tell which criterion each document fails first.

    Parameters
    ----------
    n_words : int64[n]
    counts : WordCounts
    bounds : mapping of str to (float or None, float or None)
        By criterion of `PAPER`.

    Returns
    -------
    int8[n]
        0 for a document that passes all, else the criterion's place in `PAPER`, counted from 1.
    """
    share_of = np.maximum(n_words, 1)  # a document without words has shares of 0, as in the reference
    values = {
        "words": n_words,
        "most_frequent_word": counts.most_frequent_word / share_of,
        "informative_words": counts.informative_words / share_of,
        "not_digits": (n_words - counts.single_digits) / share_of,
    }
    failed = np.zeros(len(n_words), np.int8)
    for number, name in reversed(list(enumerate(PAPER, start=1))):
        low, high = bounds[name]
        if low is not None:
            failed[~(values[name] > low)] = number
        if high is not None:
            failed[~(values[name] < high)] = number
    return failed
