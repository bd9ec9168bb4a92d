"""Data Selection with Importance Resampling (DSIR), the method alone.

Xie, Santurkar, Ma, Liang: *Data Selection for Language Models via Importance Resampling*, NeurIPS 2023
(arXiv 2302.03169). What belongs here: arrays in, arrays out (numpy, numba, pyarrow). What does not:
files, databases, the orchestrator. The steps, in order:

=====================  ===============================================================
``features``           texts to sparse counts of hashed n-grams
``importance``         counts to log ratios to log importance weights
``selection``          log weights to picked documents (Gumbel top-k)
``evaluation``         picked documents to KL reduction, effective sample size, …
``explain``            one document's log weight to the n-grams it comes from
=====================  ===============================================================
"""
