"""``method: moore_lewis``: the documents of the largest cross-entropy difference (Moore & Lewis, ACL 2010).

What belongs here: the method's declaration. Its score, the cross-entropy of a document under the pool's distribution
less that under the target's, in nats an n-gram, is the log importance weight divided by the number of n-grams; the
distributions are those of the hashed n-grams. (Moore and Lewis take n-gram language models;
``benchmarks/paper`` compares both.)
"""

from dsir.selection import Budget
from dsir_dagster.assets.methods.ranking import Ranking
from dsir_dagster.assets.methods.resample import LengthCorrection
from dsir_dagster.assets.methods.top_k import rank_by_weight
from dsir_dagster.assets.picking.candidates import Candidates
from dsir_dagster.resources.settings import KeyRule, Method

RULE = KeyRule(log_weight=True, length="per_ngram")


def fit(candidates: Candidates, budget: Budget) -> Ranking:
    """Rank by the mean log ratio of a document's n-grams."""
    return rank_by_weight(LengthCorrection(RULE.length, {}, 0.0))


METHOD = Method("moore_lewis", fit, RULE, noise=False)
