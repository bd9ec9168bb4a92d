"""``method: moore_lewis``: the documents of the largest cross-entropy difference (Moore & Lewis, ACL 2010).

What belongs here: the method's declaration. Its score, the cross-entropy of a document under the pool's distribution
less that under the target's, in nats an n-gram, is the log importance weight divided by the number of n-grams; the
distributions are those of the hashed n-grams. (Moore and Lewis take n-gram language models;
``benchmarks/paper`` compares both.)
"""

import numpy as np

from dsir.importance import correct_for_length
from dsir.selection import Budget
from dsir_dagster.assets.methods.ranking import Ranking
from dsir_dagster.assets.picking.candidates import Candidates, Documents
from dsir_dagster.resources.settings import KeyRule, Method

RULE = KeyRule(log_weight=True, length="per_ngram")

#: Key of a document without n-grams: below that of any other, whose mean log ratio is -18.5 at least.
_WITHOUT_NGRAMS = -100.0


def fit(candidates: Candidates, budget: Budget) -> Ranking:
    """Rank by the mean log ratio of a document's n-grams."""
    return Ranking(_keys, ("n_ngrams",))


def _keys(documents: Documents, target: str, stream: str, floor: float) -> np.ndarray:
    mean = correct_for_length(
        documents.log_weights[target], "per_ngram", documents.n_ngrams, documents.n_tokens
    )
    return np.where(documents.n_ngrams > 0, mean, _WITHOUT_NGRAMS)


METHOD = Method("moore_lewis", fit, RULE, noise=False)
