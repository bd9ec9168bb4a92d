"""The graph: every asset once. A new one is a module with its record and a line here.

What belongs here: which assets there are, each after those it is made of. What does not: what an asset is
(``resources/graph.py``).
"""

from dsir_dagster.assets.evaluations import EVALUATIONS
from dsir_dagster.assets.importance_estimator import IMPORTANCE_ESTIMATOR, RAW_DISTRIBUTION
from dsir_dagster.assets.raw_counts import RAW_COUNTS
from dsir_dagster.assets.selections import SELECTIONS
from dsir_dagster.assets.target_counts import TARGET_COUNTS
from dsir_dagster.assets.weights import WEIGHTS
from dsir_dagster.resources.graph import Graph

GRAPH = Graph(
    {
        asset.name: asset
        for asset in (
            RAW_COUNTS,
            TARGET_COUNTS,
            RAW_DISTRIBUTION,
            IMPORTANCE_ESTIMATOR,
            WEIGHTS,
            SELECTIONS,
            EVALUATIONS,
        )
    }
)
