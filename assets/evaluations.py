"""``evaluations``: how good a selection is, beside random picks and top-k of the same size.

What belongs here: which picks are compared, and how the numbers are shown. What does not: the measures
(``dsir/evaluation.py``), the picking (``assets/selections.py``), how plots are drawn (``assets/plots.py``).
"""

import json
from collections import Counter
from dataclasses import dataclass, field

import dagster as dg
import numpy as np
import pyarrow as pa

from assets import plots
from assets.candidates import stream
from assets.importance_estimator import raw_totals, target_totals
from assets.materialize import Result, RunOptions, markdown_table, materialize_one
from assets.selections import pick
from dsir.evaluation import EffectiveSampleSize, kl_reduction, masked_totals
from dsir.features import Features
from dsir.hashing import gumbel_noise
from dsir.selection import Budget, TopK, pack_position
from resources.plan import CODE_VERSIONS, Output, Plan
from resources.progress import Progress
from resources.settings import Selection
from resources.workspace import Pipeline, Workspace


def build_evaluations(
    partitions: dg.PartitionsDefinition, selections: dg.AssetsDefinition
) -> tuple[dg.AssetsDefinition, dg.AssetChecksDefinition]:
    """Return the asset over the configured selections, and its check."""

    @dg.asset(
        deps=[selections],
        partitions_def=partitions,
        code_version=CODE_VERSIONS["evaluations"],
        kinds={"numba", "duckdb"},
        description=(
            "KL reduction on held-out target text against random picks of equal size, effective sample "
            "size, agreement with top-k, composition by source, lengths.\n\n"
            "KL reduction = KL(target‖pool) - KL(target‖selection) over hashed n-grams, in nats."
        ),
    )
    def evaluations(
        context: dg.AssetExecutionContext, pipeline: Pipeline, config: RunOptions
    ) -> dg.MaterializeResult:
        workspace = pipeline.workspace
        plan = workspace.plan()
        selection, source = current_selection(plan, context.partition_key)

        def compute(output: Output, progress: Progress) -> Result:
            return evaluate(workspace, plan, selection, source, output)

        return materialize_one(context, workspace, plan.evaluations(source), compute, config)

    @dg.asset_check(
        asset=evaluations,
        partitions_def=partitions,
        description=(
            "The KL reduction on held-out target text is above the mean of random picks of equal size "
            "by more than two standard deviations."
        ),
    )
    def kl_reduction_beats_random(
        context: dg.AssetCheckExecutionContext, pipeline: Pipeline
    ) -> dg.AssetCheckResult:
        found = pipeline.workspace.catalog.latest()["evaluations", context.partition_key]["metadata"]
        names = ("kl_reduction", "kl_reduction_random", "kl_reduction_random_sd")
        numbers = {name: found[name] for name in names}
        bar = found["kl_reduction_random"] + 2 * found["kl_reduction_random_sd"]
        return dg.AssetCheckResult(
            passed=bool(found["kl_reduction"] > bar),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={**numbers, "bar": bar},
        )

    return evaluations, kl_reduction_beats_random


def current_selection(plan: Plan, name: str) -> tuple[Selection, Output]:
    """Return the selection as it was materialized, with what the launchpad changed, and its output.

    Raises
    ------
    dagster.Failure
        It was never materialized, or from other inputs than there are now.
    """
    configured = plan.selections(plan.settings.selection(name))
    if configured.found is None:
        raise dg.Failure(f"{configured.name} was never materialized; do that first", allow_retries=False)
    made_of = json.loads(json.loads(configured.found["inputs"])["configuration"])
    selection = Selection.model_validate({"name": name, **made_of})
    output = plan.selections(selection)
    if output.state != "fresh":
        raise dg.Failure(
            f"{output.name} is {output.state} ({output.why}); materialize it first", allow_retries=False
        )
    return selection, output


@dataclass
class Lengths:
    """Documents, tokens and sources of a set of documents."""

    tokens: list[np.ndarray] = field(default_factory=list)
    sources: Counter[str] = field(default_factory=Counter)

    def add(self, n_tokens: np.ndarray, sources: pa.ChunkedArray) -> None:
        """Take a batch into account."""
        self.tokens.append(n_tokens)
        for item in sources.value_counts().to_pylist():
            self.sources[item["values"]] += item["counts"]

    def summary(self) -> dict[str, float]:
        """Return the mean and the median number of tokens."""
        tokens = np.concatenate([*self.tokens, np.empty(0, dtype=np.int64)])
        if not len(tokens):
            return {"mean_tokens": 0.0, "median_tokens": 0.0}
        return {"mean_tokens": float(tokens.mean()), "median_tokens": float(np.median(tokens))}


def evaluate(
    workspace: Workspace, plan: Plan, selection: Selection, source: Output, output: Output
) -> Result:
    """Measure a selection, and random and top-k picks of the same size."""
    settings = workspace.settings.evaluation
    folder = workspace.store.selection_folder(selection.name, source.fingerprint)
    picks = workspace.store.read_table(folder / "picks.parquet", source.stamp)
    index = {shard: i for i, shard in enumerate(plan.counted)}
    chosen = pack_position(np.array([index[s] for s in picks["shard"].to_pylist()]), picks["row"].to_numpy())
    n_tokens = picks["n_tokens"].to_numpy()

    budget = Budget(documents=len(picks))
    if selection.size.tokens is not None:
        budget = Budget(tokens=int(n_tokens.sum()))
    random = [TopK(budget) for _ in range(settings.random_seeds)]
    pool, effective = Lengths(), {target: EffectiveSampleSize() for target in selection.targets}
    for documents in stream(workspace, plan, selection):
        pool.add(documents.n_tokens, documents.table["source"])
        for target in selection.targets:
            effective[target].add(documents.log_weights[target][documents.eligible])
        for seed, top in enumerate(random):
            noise = gumbel_noise(documents.content_hash, seed, "random")
            documents.offer(top, noise, noise)
    top_k = pick(workspace, plan, selection.model_copy(update={"method": "top_k"}), budget)

    compared = [chosen]
    compared += [
        pack_position(rows["shard"], rows["row"])
        for rows in (np.concatenate(top_k), *(t.picked() for t in random))
    ]
    totals = picked_totals(workspace, plan, compared)
    raw = raw_totals(workspace, plan)
    rows: list[tuple[str, str, str, float]] = []
    by_target: list[tuple[str, float, float, float, float]] = []
    for target in selection.targets:
        counts, holdout = target_totals(workspace, plan, target)
        if workspace.settings.target(target).holdout:
            counts = holdout
        reductions = [kl_reduction(counts, raw, each, settings.smoothing) for each in totals]
        by_chance = np.array(reductions[2:])
        mean, sd = float(by_chance.mean()), float(by_chance.std(ddof=1))
        by_target.append((target, reductions[0], reductions[1], mean, sd))
        rows += [
            (target, "kl_reduction", "", reductions[0]),
            (target, "kl_reduction_top_k", "", reductions[1]),
            (target, "kl_reduction_random", "", mean),
            (target, "kl_reduction_random_sd", "", sd),
            (target, "effective_sample_size", "", effective[target].value),
        ]
    means = {
        metric: float(np.mean([row[3] for row in rows if row[1] == metric]))
        for metric in dict.fromkeys(row[1] for row in rows)
    }
    picked = Lengths()
    picked.add(n_tokens, picks["source"])
    means |= {
        "top_k_agreement": len(np.intersect1d(chosen, compared[1])) / max(len(chosen), 1),
        **{f"selection_{name}": value for name, value in picked.summary().items()},
        **{f"pool_{name}": value for name, value in pool.summary().items()},
    }
    rows += [("", metric, "", value) for metric, value in means.items()]
    composition = []
    for name, count in pool.sources.most_common():
        shares = count / pool.sources.total(), picked.sources[name] / max(picked.sources.total(), 1)
        composition.append((name, *shares))
        rows += [("", "pool_share", name, shares[0]), ("", "selection_share", name, shares[1])]
    composition.sort(key=lambda row: -row[2])
    metrics = pa.Table.from_pylist(
        [
            {
                "selection": selection.name,
                "version": source.fingerprint,
                "target": target,
                "metric": metric,
                "source": name,
                "value": value,
            }
            for target, metric, name, value in rows
        ]
    )
    held_out = all(workspace.settings.target(target).holdout for target in selection.targets)
    return Result(
        rows=len(metrics),
        files=[],
        metadata={
            "documents": len(picks),
            "selection_version": source.fingerprint,
            **means,
            "random_selections": settings.random_seeds,
            "measured_on": "held-out target text" if held_out else "the fitted target text (no holdout)",
        },
        tables={
            "KL reduction, plot": plots.kl_reduction(by_target),
            "composition, plot": plots.composition(composition),
            "composition": markdown_table(
                ["source", "pool share", "selection share"],
                [(name, f"{a:.1%}", f"{b:.1%}") for name, a, b in composition[:50]],
            ),
            "by target": markdown_table(
                ["target", "metric", "value"], [(t, m, v) for t, m, _, v in rows if t]
            ),
        },
        metrics=metrics,
    )


def picked_totals(workspace: Workspace, plan: Plan, picks: list[np.ndarray]) -> np.ndarray:
    """Add up the n-grams of several sets of documents, in one pass over the cached features.

    Parameters
    ----------
    picks : list of ndarray of int64
        Positions from :func:`dsir.selection.pack_position`, in any order.

    Returns
    -------
    ndarray of int64, shape (picks, buckets)
    """
    picks = [np.sort(each) for each in picks]

    def work(item: tuple[int, str]) -> np.ndarray:
        index, shard = item
        stamp = plan.raw_counts(shard).stamp
        totals = np.zeros((len(picks), workspace.settings.features.buckets), dtype=np.int64)
        with workspace.store.open_table(workspace.store.path("documents", shard), stamp) as documents:
            rows = documents.read(columns=["row"])["row"].to_numpy()
        masks = np.zeros((len(picks), len(rows)), dtype=bool)
        for mask, each in zip(masks, picks, strict=True):
            first, last = np.searchsorted(each, pack_position([index, index + 1], 0))
            mask[np.searchsorted(rows, each[first:last] - pack_position(index, 0))] = True
        done = 0
        for batch in workspace.store.read_features(workspace.store.path("features", shard), stamp):
            mask = masks[:, done : done + batch.num_rows]
            masked_totals(Features.from_arrow(batch), np.ascontiguousarray(mask), totals)
            done += batch.num_rows
        return totals

    return sum(workspace.engine.map_shards(work, enumerate(plan.counted)))
