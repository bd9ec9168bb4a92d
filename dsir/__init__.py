"""Data Selection with Importance Resampling (DSIR), the method alone.

Xie, Santurkar, Ma, Liang: *Data Selection for Language Models via Importance Resampling*, NeurIPS 2023
(arXiv 2302.03169). What belongs here: arrays in, arrays out (numpy, numba, pyarrow; scikit-learn and SciPy where models
are fitted). What does not: files, databases, the orchestrator.

In a notebook, ``dsir.DSIR``, ``dsir.Match`` and ``dsir.kl_reduction`` are all one needs:

>>> import dsir
>>> raw = ["the cat sat", "def f(x): return x", "the dog ran"]
>>> selector = dsir.DSIR(min_tokens=0).fit(raw=raw, target=["def f(y): return y", "f(x)"])
>>> selector.select(1, seed=0)
array([1])

=====================  ===============================================================
*for notebooks*
``selector``           texts to picks, in scikit-learn's manner: ``DSIR``, ``Match``, ``kl_reduction``
``texts``              lists, columns and iterables of texts to batches
``checks``             wrong types and shapes to errors of one line

*features*
``chunking``           long texts to pieces
``features``           texts to sparse counts of hashed n-grams
``featurizer``         the compiled code behind it
``noise``              content hashes to Gumbel and exponential noise
``quality``            counts of words to what the paper's quality filter keeps

*methods*
``importance``         counts to log ratios to log importance weights
``classifier``         features of target and pool to the paper's heuristic classification
``relative_entropy``   what a document is worth to a selection that is to resemble the target
``matching``           features and totals to rounds of picks whose mean resembles the target, and a draw
``refinement``         a draw to picks that resemble the target more
``cynical``            features and a target to documents, one after the other
``mixture``            totals of sources to the proportions closest to the target
``selection``          keys to picked documents (Gumbel top-k), within budgets and caps
``near_duplicates``    ranked texts to those nearly the same as a better one

*measures*
``evaluation``         picked documents to KL reduction, effective sample size, …
``ngrams``             texts to unhashed n-grams, for measures that no bucket flatters
``downstream``         texts of a selection and a labelled target to F1
``ngram_model``        texts of a selection to what other texts cost under a model of them, in bits per byte
``proxy``              texts of a selection to the loss of a small language model (extra ``paper``)
``explain``            a document's log weight to the n-grams behind it
``doctor``             texts of a target and of a pool to signs that a selection will disappoint

*compiled code*
``compilation``        compiled before it is needed
``cache``              a place on disk if Numba has none
=====================  ===============================================================
"""

from typing import TYPE_CHECKING, Any

from dsir.cache import ensure_cache

if TYPE_CHECKING:
    from dsir.explain import Contribution
    from dsir.features import FeatureSpec
    from dsir.selector import DSIR, Match, kl_reduction

__all__ = ["DSIR", "Contribution", "FeatureSpec", "Match", "kl_reduction"]

ensure_cache()


def __getattr__(name: str) -> Any:
    """Import what is exported when it is first used: the compiler takes most of a second."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dsir import selector

    return getattr(selector, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
