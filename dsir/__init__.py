"""Data Selection with Importance Resampling (DSIR), the method alone.

Xie, Santurkar, Ma, Liang: *Data Selection for Language Models via Importance Resampling*, NeurIPS 2023
(arXiv 2302.03169). What belongs here: arrays in, arrays out (numpy, numba, pyarrow; scikit-learn and SciPy where models
are fitted). What does not: files, databases, the orchestrator.

=====================  ===============================================================
*features*
``chunking``           long texts to pieces
``features``           texts to sparse counts of hashed n-grams
``featurizer``         the compiled code behind it
``noise``              content hashes to Gumbel and exponential noise
``quality``            counts of words to what the paper's quality filter keeps

*methods*
``importance``         counts to log ratios to log importance weights
``classifier``         features of target and pool to the paper's heuristic classification
``matching``           features and totals to rounds of picks whose mean resembles the target, and a draw
``mixture``            totals of sources to the proportions closest to the target
``selection``          keys to picked documents (Gumbel top-k), within budgets and caps
``near_duplicates``    ranked texts to those nearly the same as a better one

*measures*
``evaluation``         picked documents to KL reduction, effective sample size, …
``ngrams``             texts to unhashed n-grams, for measures that no bucket flatters
``downstream``         texts of a selection and a labelled target to F1
``proxy``              texts of a selection to the loss of a small language model (extra ``paper``)
``explain``            a document's log weight to the n-grams behind it
``doctor``             texts of a target and of a pool to signs that a selection will disappoint

*compiled code*
``compilation``        compiled before it is needed
``cache``              a place on disk if Numba has none
=====================  ===============================================================
"""

from dsir.cache import ensure_cache

ensure_cache()
