"""Data Selection with Importance Resampling (DSIR), the method alone.

Xie, Santurkar, Ma, Liang: *Data Selection for Language Models via Importance Resampling*, NeurIPS 2023
(arXiv 2302.03169). What belongs here: arrays in, arrays out (numpy, numba, pyarrow; scikit-learn and SciPy where models
are fitted). What does not: files, databases, the orchestrator. The steps, in order:

=====================  ===============================================================
``chunking``           long texts to pieces, where that is wanted
``features``           texts to sparse counts of hashed n-grams
``importance``         counts to log ratios to log importance weights
``classifier``         features of target and pool to the paper's heuristic classification
``matching``           features and totals to rounds of picks whose mean is like the target, and a draw
``mixture``            totals of sources to the proportions that are closest to the target
``quality``            counts of words to what the paper's quality filter leaves
``selection``          keys to picked documents (Gumbel top-k), within budgets and caps
``evaluation``         picked documents to KL reduction, effective sample size, …
``ngrams``             texts to n-grams that are not hashed, to measure what no bucket flatters
``near_duplicates``    texts to pairs that are nearly the same
``downstream``         texts of a selection and a labelled target to F1
``proxy``              texts of a selection to the loss of a small language model (extra ``paper``)
``doctor``             texts of a target and of a pool to signs that a selection will not be what one hopes for
``explain``            one document's log weight to the n-grams it comes from
``compilation``        compiled code, made ready before it is needed
``cache``              a place for compiled code where there is none
=====================  ===============================================================
"""

from dsir.cache import ensure_cache

ensure_cache()
