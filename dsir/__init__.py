"""Data Selection with Importance Resampling (DSIR), the method alone.

Xie, Santurkar, Ma, Liang: *Data Selection for Language Models via Importance Resampling*, NeurIPS 2023
(arXiv 2302.03169). What belongs here: arrays in, arrays out (numpy, numba, pyarrow). What does not:
files, databases, the orchestrator. The steps, in order:

=====================  ===============================================================
``chunking``           long texts to pieces, where that is wanted
``features``           texts to sparse counts of hashed n-grams
``importance``         counts to log ratios to log importance weights
``classifier``         features of target and pool to the paper's heuristic classification
``matching``           features and totals to the weights that make a selection as a whole like the target
``mixture``            totals of sources to the proportions that are closest to the target
``quality``            counts of words to what the paper's quality filter leaves
``selection``          keys to picked documents (Gumbel top-k), within budgets and caps
``evaluation``         picked documents to KL reduction, effective sample size, …
``ngrams``             texts to n-grams that are not hashed, to measure what no bucket flatters
``explain``            one document's log weight to the n-grams it comes from
=====================  ===============================================================
"""
