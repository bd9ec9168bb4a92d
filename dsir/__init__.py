"""Data Selection with Importance Resampling (DSIR), the method alone.

Xie, Santurkar, Ma, Liang: *Data Selection for Language Models via Importance Resampling*, NeurIPS 2023
(arXiv 2302.03169). What belongs here: arrays in, arrays out (numpy, numba, pyarrow; scikit-learn and SciPy where models
are fitted). What does not: files, databases, the orchestrator.

=====================  ===============================================================
*features*
``chunking``           long texts to pieces, where that is wanted
``features``           texts to sparse counts of hashed n-grams
``featurizer``         what is compiled for it
``noise``              content hashes to Gumbel and exponential noise
``quality``            counts of words to what the paper's quality filter leaves

*methods*
``importance``         counts to log ratios to log importance weights
``classifier``         features of target and pool to the paper's heuristic classification
``matching``           features and totals to rounds of picks whose mean is like the target, and a draw
``mixture``            totals of sources to the proportions that are closest to the target
``selection``          keys to picked documents (Gumbel top-k), within budgets and caps
``near_duplicates``    texts to pairs that are nearly the same

*measures*
``evaluation``         picked documents to KL reduction, effective sample size, …
``ngrams``             texts to n-grams that are not hashed, to measure what no bucket flatters
``downstream``         texts of a selection and a labelled target to F1
``proxy``              texts of a selection to the loss of a small language model (extra ``paper``)
``explain``            one document's log weight to the n-grams it comes from
``doctor``             texts of a target and of a pool to signs that a selection will disappoint

*compiled code*
``compilation``        made ready before it is needed
``cache``              a place on disk where there is none
=====================  ===============================================================
"""

from dsir.cache import ensure_cache

ensure_cache()
