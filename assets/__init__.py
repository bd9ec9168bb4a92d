"""The six assets of the graph, one module each: read inputs, call ``dsir``, write, report.

What belongs here: which step follows which, and what a person is shown of it. What does not: the
method (``dsir/``), file formats and databases (``resources/``).
"""

import warnings

import dagster as dg

# Both are what the graph is built on, and pinned: one run for many partitions, checks with partitions.
warnings.filterwarnings("ignore", message=".*backfill_policy", category=dg.BetaWarning)
warnings.filterwarnings("ignore", message=".*partitions_def on an AssetCheckSpec", category=dg.PreviewWarning)
