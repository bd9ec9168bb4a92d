"""``evaluations``: how good a selection is, beside random picks, top-k and other methods' picks of the same size.

What belongs here: which measures are taken of which picks, and how the numbers are named and shown. What does not:
the measures (``dsir/evaluation.py``, ``dsir/ngrams.py``), the picks that it is compared with
(``assets/baselines.py``), how plots are drawn (``assets/plots.py``).

The metrics, rows of the table ``evaluations``. ``{pick}`` is `top_k`, `random` (the mean over the seeds) or a method
of ``evaluation.compare``; without it, the metric is the selection's. Those marked * have a row for every target, and
one for their mean under the target ''; those marked ± have beside them ``…_low`` and ``…_high``, a 95 % interval
(:class:`dsir.evaluation.CrossEntropies` says of what).

=======================================  =====================================================================
``kl_reduction`` * ±                     KL(target‖pool) - KL(target‖selection), nats, over the selecting hash's
                                         buckets, on held-out text; all picks cut to equal numbers of n-grams
``kl_reduction_{pick}`` * ±              the same of another pick; ``kl_reduction_random_sd`` over the seeds
``over_random`` * ±                      KL(target‖random) - KL(target‖selection) on a sample of
                                         ``evaluation.sample`` n-grams, over the selecting hash's buckets
``over_random_independent_hash`` * ±     the same sample under a hash that selected nothing, 40,009 buckets
``over_random_unhashed`` * ±             the same sample, n-grams as they are
``…_{pick}`` * ±                         the three of another pick
``proxy_loss``, ``proxy_loss_{pick}`` *  loss on held-out text of language models trained on the picks, nats a token;
                                         ``…_sd`` over the seeds. Only with ``evaluation.proxy``
``f1_macro``, ``f1_macro_{pick}`` *      F1 on held-out text of classifiers of the target's labels, on word vectors
``f1_micro``, ``f1_micro_{pick}`` *      learnt from the picks; ``…_sd`` over the seeds. Only with
                                         ``evaluation.downstream``
``effective_sample_size`` *              (Σw)² / Σw² of the eligible documents' weights
``{pick}_agreement``                     share of the selection's documents that are the pick's too
``seed_agreement``                       the same with the selection drawn with the next seed; 1 without noise
``selection_tokens``, ``{pick}_tokens``  tokens of the documents
``…_mean_tokens``, ``…_median_tokens``   length of the documents; of ``pool``, too
``…_p10_tokens``, ``…_p90_tokens``       quantiles of the length
``…_distinct_ngrams``                    different n-grams among 1,000 of the sample
``…_duplicates``                         documents with the content of another one before them
``…_in_target``, ``…_in_holdout`` *      documents whose content is one of the target's; of ``pool``, too. Under the
                                         target '': of any target
``…_share``                              of ``pool`` and ``selection``: share of each source
=======================================  =====================================================================
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import reduce
from itertools import filterfalse

import dagster as dg
import numpy as np
import pyarrow as pa

from assets import plots
from assets.baselines import (
    Pick,
    PoolSummary,
    describe,
    pick_with_another_seed,
    picked_totals,
    picks_by_other_methods,
    survey_pool,
)
from assets.candidates import Candidates
from assets.importance_estimator import raw_totals, target_totals
from assets.materialize import Result, RunOptions, markdown_table, materialize_one
from assets.texts import map_target, pool_texts
from assets.trained import TEST_TOKENS, Figures, downstream_f1, proxy_losses
from dsir.evaluation import (
    CrossEntropies,
    contained,
    distribution,
    duplicates,
    interval,
    overlap,
)
from dsir.features import featurize, hash_strings
from dsir.importance import fit_threshold, log_weights
from dsir.ngrams import Occurrences, number_ngrams
from dsir.selection import Budget, pack_position
from resources.plan import CODE_VERSIONS, Output, Plan
from resources.progress import Progress
from resources.settings import Selection, Target
from resources.workspace import Pipeline, Workspace

#: Buckets of the hash that selected nothing: XXH64 of the n-gram, modulo this.
INDEPENDENT_BUCKETS = 40_009


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
            "KL reduction on held-out target text beside random picks, top-k and other methods, with intervals; the "
            "same under a hash that selected nothing and without a hash; effective sample size, agreement with top-k "
            "and with another seed, composition, lengths, distinct n-grams, duplicates, leakage.\n\n"
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
            result = evaluate(workspace, plan, selection, source)
            if "note" in result.metadata:
                context.log.warning(f"{output.name}: {result.metadata['note']}")
            return result

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


def evaluate(workspace: Workspace, plan: Plan, selection: Selection, source: Output) -> Result:
    """Measure a selection, and picks of the same size by other methods."""
    settings = workspace.settings.evaluation
    folder = workspace.store.selection_folder(selection.name, source.fingerprint)
    table = workspace.store.read_table(folder / "picks.parquet", source.stamp)
    index = {shard: i for i, shard in enumerate(plan.counted)}
    chosen = pack_position(np.array([index[s] for s in table["shard"].to_pylist()]), table["row"].to_numpy())
    of_epoch = table["n_tokens"].to_numpy()[table["epoch"].to_numpy() == 1]
    budget = Budget(documents=len(of_epoch))
    if selection.size.tokens is not None:
        budget = Budget(tokens=int(of_epoch.sum()))

    read = max(settings.sample, 3 * TEST_TOKENS if settings.proxy else 0)
    targets = [
        read_target(workspace, plan, workspace.settings.target(name), read) for name in selection.targets
    ]
    candidates = Candidates(workspace, plan, selection)
    pool, random = survey_pool(candidates, budget, settings.random_seeds, known_contents(targets))
    methods = [
        method for method in (*settings.compare, "top_k") if method != selection.method or method == "top_k"
    ]
    others = picks_by_other_methods(candidates, budget, methods)
    drawn_again = pick_with_another_seed(candidates, budget)
    positions = {"selection": chosen, **others}
    positions |= {f"random {seed}": picked for seed, picked in enumerate(random)}
    picks = describe(workspace, plan, {name: each for name, each in positions.items() if len(each)})

    metrics = Metrics()
    smallest = min(int(each.n_ngrams.sum()) for each in picks.values())
    measure_buckets(
        workspace, plan, targets, {name: each.sample(smallest) for name, each in picks.items()}, metrics
    )
    sampled = {name: each.sample(min(settings.sample, smallest)) for name, each in picks.items()}
    if settings.sample:
        measure_sample(workspace, plan, targets, sampled, metrics)
    if settings.proxy:
        held_out = {target.name: target.texts for target in targets}
        add_figures(proxy_losses(workspace, plan, held_out, picks, settings.proxy), metrics)
    if settings.downstream:
        configured = [target.target for target in targets]
        add_figures(downstream_f1(workspace, plan, configured, picks, settings.downstream), metrics)
    for target in targets:
        metrics.add("effective_sample_size", pool.effective[target.name].value, target.name)
    metrics.average()
    measure_overlap(picks, drawn_again, metrics)
    measure_lengths(picks, pool, metrics)
    measure_contents(picks, pool, targets, metrics)
    composition = measure_composition(table["source"], pool, metrics)
    return Result(
        rows=len(metrics.rows),
        files=[],
        metadata=metadata(workspace, source, selection, picks, min(settings.sample, smallest), metrics),
        tables=tables(selection, targets, [*filterfalse(is_random, picks), "random"], composition, metrics),
        metrics=metrics.table(selection.name, source.fingerprint),
    )


class Metrics:
    """The numbers, by target, name and source, in the order in which they were measured."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], float] = {}
        self._replicates: dict[tuple[str, str], np.ndarray] = {}

    def add(self, metric: str, value: float, target: str = "", source: str = "") -> None:
        """Keep a number."""
        self.rows[target, metric, source] = float(value)

    def add_interval(self, metric: str, value: float, replicates: np.ndarray, target: str) -> None:
        """Keep a number of a target with the interval of its bootstrapped values."""
        self.add(metric, value, target)
        self._replicates[target, metric] = replicates
        for end, bound in zip(("low", "high"), interval(replicates), strict=True):
            self.add(f"{metric}_{end}", bound, target)

    def average(self) -> None:
        """Add the mean over targets of every number so far, with its own interval, under the target ''."""
        values: dict[str, list[float]] = {}
        for (_, metric, _), value in self.rows.items():
            values.setdefault(metric, []).append(value)
        for metric, of_targets in values.items():
            self.add(metric, np.mean(of_targets))
        for metric in {metric for _, metric in self._replicates}:
            of_metric = [each for (_, name), each in self._replicates.items() if name == metric]
            for end, bound in zip(("low", "high"), interval(np.mean(of_metric, axis=0)), strict=True):
                self.add(f"{metric}_{end}", bound)

    def get(self, metric: str, target: str = "") -> float | None:
        """Return a number; None where it was not measured."""
        return self.rows.get((target, metric, ""))

    def bounds(self, metric: str, target: str = "") -> tuple[float, float, float]:
        """Return a number with the ends of its interval, or, of random picks, two standard deviations around it."""
        value, sd = self.get(metric, target), self.get(f"{metric}_sd", target)
        if sd is not None:
            return value, value - 2 * sd, value + 2 * sd
        return value, self.get(f"{metric}_low", target), self.get(f"{metric}_high", target)

    def table(self, selection: str, version: str) -> pa.Table:
        """Return the rows of the table ``evaluations``."""
        targets, metrics, sources = zip(*self.rows, strict=True)
        return pa.table(
            {
                "selection": [selection] * len(targets),
                "version": [version] * len(targets),
                "target": targets,
                "metric": metrics,
                "source": sources,
                "value": list(self.rows.values()),
            }
        )


@dataclass(frozen=True)
class TargetSample:
    """A target as it is needed to measure a selection: content hashes of all, texts of some.

    Attributes
    ----------
    target : Target
    train, holdout : ndarray of uint64
        Content hashes, sorted, each once.
    texts : list of str
        A sample of the text that is measured on: of the holdout, where there is one.
    """

    target: Target
    train: np.ndarray
    holdout: np.ndarray
    texts: list[str] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the target."""
        return self.target.name

    @property
    def measured_on(self) -> str:
        """The files that selections are measured on."""
        return self.target.holdout or self.target.uri


def read_target(workspace: Workspace, plan: Plan, target: Target, ngrams: int) -> TargetSample:
    """Read a target's files: the content of all documents, the text of about so many n-grams."""
    counts, held_out = target_totals(workspace, plan, target.name)
    total = int((held_out if target.holdout else counts).sum())
    threshold = np.uint64(fit_threshold(total, ngrams)) if ngrams else None
    if target.holdout is None:
        train, texts = read_part(workspace, target, target.uri, threshold)
        return TargetSample(target, train, train[:0], texts)
    train, _ = read_part(workspace, target, target.uri, None)
    return TargetSample(target, train, *read_part(workspace, target, target.holdout, threshold))


def read_part(
    workspace: Workspace, target: Target, uri: str, threshold: np.uint64 | None
) -> tuple[np.ndarray, list[str]]:
    """Return the content hashes of a target's documents, sorted, each once; the texts up to a hash, at least one."""

    def look(texts: pa.Array) -> tuple[np.ndarray, list[str]]:
        content_hash = hash_strings(texts)
        if threshold is None or not len(texts):
            return content_hash, []
        # The one with the smallest hash is kept in case that there is no other.
        kept = content_hash <= max(threshold, content_hash.min())
        return content_hash, texts.filter(pa.array(kept)).to_pylist()

    hashes, sampled = zip(*map_target(workspace, target, uri, look), strict=True)
    texts = [text for of_block in sampled for text in of_block]
    if threshold is not None:
        content_hash = hash_strings(pa.array(texts, pa.large_string()))
        kept = content_hash <= max(threshold, content_hash.min())
        texts = [text for text, keep in zip(texts, kept, strict=True) if keep]
    return np.unique(np.concatenate(hashes)), texts


def known_contents(targets: list[TargetSample]) -> dict[str, np.ndarray]:
    """Return sorted content hashes by the names that leakage is reported under."""
    known = {}
    for part in ("target", "holdout"):
        of_part = {each.name: each.train if part == "target" else each.holdout for each in targets}
        known |= {f"in_{part} {name}": hashes for name, hashes in of_part.items()}
        known[f"in_{part} "] = reduce(np.union1d, of_part.values())
    return known


def add_figures(figures: Figures, metrics: Metrics) -> None:
    """Add the mean and the standard deviation over seeds of what models made of every pick."""
    for target, of_target in figures.items():
        for metric, of_metric in of_target.items():
            for pick, each in of_metric.items():
                name = metric if pick == "selection" else f"{metric}_{pick}"
                metrics.add(name, each.mean(), target)
                metrics.add(f"{name}_sd", each.std(ddof=min(1, len(each) - 1)), target)


def is_random(pick: str) -> bool:
    """Tell whether a pick is one of the random ones, ``random 0`` and so on."""
    return pick.startswith("random ")


def by_pick(values: dict[str, float]) -> dict[str, float]:
    """Put the mean of all random picks in the place of each."""
    random = [value for pick, value in values.items() if is_random(pick)]
    return {pick: value for pick, value in values.items() if not is_random(pick)} | {
        "random": np.mean(random)
    }


def compare(
    name: str, cross: CrossEntropies, picks: list[str], base: np.ndarray, target: str, metrics: Metrics
) -> None:
    """Add the KL reduction of every pick: the cross-entropy with what it is compared with, less that with the pick.

    Parameters
    ----------
    name : str
        Of the metric.
    cross : CrossEntropies
        The distributions of the picks are its last ones, in their order.
    picks : list of str
    base : ndarray of int
        Which distributions the picks are compared with: one, or several to take the mean of.
    target : str
    metrics : Metrics
        Added to.
    """
    values, replicates = cross.values, cross.replicates(target)
    reductions = values[base].mean() - values[-len(picks) :]
    drawn = replicates[:, base].mean(axis=1, keepdims=True) - replicates[:, -len(picks) :]
    for i, pick in enumerate(picks):
        if not is_random(pick):
            metric = name if pick == "selection" else f"{name}_{pick}"
            metrics.add_interval(metric, reductions[i], drawn[:, i], target)
    random = reductions[[is_random(pick) for pick in picks]]
    # Over random picks it is 0 but for rounding.
    metrics.add(f"{name}_random", round(random.mean(), 12) + 0.0, target)
    metrics.add(f"{name}_random_sd", random.std(ddof=1), target)


def measure_buckets(
    workspace: Workspace, plan: Plan, targets: list[TargetSample], picks: dict[str, Pick], metrics: Metrics
) -> None:
    """Measure the KL reduction over the buckets that selected, on all of the held-out text."""
    smoothing, spec = workspace.settings.evaluation.smoothing, workspace.settings.features.spec()
    totals = [raw_totals(workspace, plan), *picked_totals(workspace, plan, list(picks.values()))]
    q = np.array([distribution(each, smoothing) for each in totals])
    for target in targets:
        cross = CrossEntropies(q, smoothing)

        def score(texts: pa.Array, log_q: np.ndarray = cross.log_q) -> tuple[np.ndarray, ...]:
            features = featurize(texts, spec)
            # One by one: together they would be copied for every block.
            scores = np.concatenate([log_weights(features, each[None, :]) for each in log_q])
            return features.content_hash, features.n_ngrams, scores

        for documents in map_target(workspace, target.target, target.measured_on, score):
            cross.add(*documents)
        compare("kl_reduction", cross, list(picks), np.array([0]), target.name, metrics)


def measure_sample(
    workspace: Workspace, plan: Plan, targets: list[TargetSample], picks: dict[str, Pick], metrics: Metrics
) -> None:
    """Measure samples of the picks and of the held-out text under three views of their n-grams; distinct n-grams."""
    smoothing, spec = workspace.settings.evaluation.smoothing, workspace.settings.features.spec()
    positions = reduce(np.union1d, [pick.positions for pick in picks.values()])
    texts = pool_texts(workspace, plan, positions)
    starts = np.cumsum([len(texts), *(len(target.texts) for target in targets)])
    texts += [text for target in targets for text in target.texts]
    times = {name: np.zeros(len(texts), dtype=np.int64) for name in picks}
    for name, pick in picks.items():
        np.add.at(times[name], np.searchsorted(positions, pick.positions), 1)

    ngrams = number_ngrams(texts, spec)
    features = featurize(pa.array(texts, pa.large_string()), spec)
    counted = {name: ngrams.distinct(each) for name, each in times.items()}
    for name, value in by_pick({name: 1000 * d / max(n, 1) for name, (d, n) in counted.items()}).items():
        metrics.add(f"{name}_distinct_ngrams", value)
    base = np.flatnonzero([is_random(pick) for pick in picks])
    for target, first, last in zip(targets, starts[:-1], starts[1:], strict=True):
        mine = np.arange(len(texts))
        mine = (first <= mine) & (mine < last)
        views = {
            "over_random": Occurrences.of_features(features, spec.buckets),
            "over_random_independent_hash": ngrams.buckets(INDEPENDENT_BUCKETS),
            "over_random_unhashed": ngrams.known(mine),
        }
        for name, view in views.items():
            q = np.array([distribution(view.totals(each), smoothing) for each in times.values()])
            cross = CrossEntropies(q, smoothing)
            held_out = view.of(mine)
            scores = np.array([held_out.sums(log_q, len(texts))[mine] for log_q in cross.log_q])
            cross.add(features.content_hash[mine], features.n_ngrams[mine], scores)
            compare(name, cross, list(picks), base, target.name, metrics)


def measure_overlap(picks: dict[str, Pick], drawn_again: np.ndarray | None, metrics: Metrics) -> None:
    """Measure which share of the selection's documents the other picks have too."""
    mine = np.unique(picks["selection"].positions)
    shares = {name: overlap(mine, pick.positions) for name, pick in picks.items() if name != "selection"}
    for name, share in by_pick(shares).items():
        metrics.add(f"{name}_agreement", share)
    metrics.add("seed_agreement", 1.0 if drawn_again is None else overlap(mine, np.sort(drawn_again)))


def measure_lengths(picks: dict[str, Pick], pool: PoolSummary, metrics: Metrics) -> None:
    """Measure tokens, and tokens a document."""
    lengths = {"pool": np.concatenate(pool.n_tokens)} | {name: pick.n_tokens for name, pick in picks.items()}
    measures = {
        "tokens": np.sum,
        "mean_tokens": np.mean,
        "p10_tokens": lambda tokens: np.quantile(tokens, 0.1),
        "median_tokens": np.median,
        "p90_tokens": lambda tokens: np.quantile(tokens, 0.9),
    }
    for measure, function in measures.items():
        for name, value in by_pick({name: function(tokens) for name, tokens in lengths.items()}).items():
            metrics.add(f"{name}_{measure}", value)


def measure_contents(
    picks: dict[str, Pick], pool: PoolSummary, targets: list[TargetSample], metrics: Metrics
) -> None:
    """Count duplicates, and documents that are the target's."""
    contents = {}
    for name, pick in picks.items():
        _, first = np.unique(pick.positions, return_index=True)  # of several epochs, once
        contents[name] = pick.content_hash[first]
    for name, value in by_pick({name: duplicates(each) for name, each in contents.items()}).items():
        metrics.add(f"{name}_duplicates", value)
    for name, hashes in known_contents(targets).items():
        part, _, target = name.partition(" ")
        metrics.add(f"pool_{part}", pool.leaked[name], target)
        for pick, value in by_pick(
            {pick: contained(each, hashes).sum() for pick, each in contents.items()}
        ).items():
            metrics.add(f"{pick}_{part}", value, target)


def measure_composition(
    sources: pa.ChunkedArray, pool: PoolSummary, metrics: Metrics
) -> list[tuple[str, float, float]]:
    """Measure each source's share of the pool and of the selection; return them, largest in the selection first."""
    picked = Counter({item["values"]: item["counts"] for item in sources.value_counts().to_pylist()})
    composition = []
    for name, count in pool.sources.most_common():
        shares = count / pool.sources.total(), picked[name] / max(picked.total(), 1)
        composition.append((name, *shares))
        metrics.add("pool_share", shares[0], source=name)
        metrics.add("selection_share", shares[1], source=name)
    return sorted(composition, key=lambda row: -row[2])


#: KL reductions, as measured: on all held-out text, and on a sample under three views of its n-grams.
MAIN = ("kl_reduction", "over_random", "over_random_independent_hash", "over_random_unhashed")
#: What models made of the picks, and how it is called in the table of methods.
MODELS = {"proxy_loss": "proxy loss", "f1_macro": "F1, macro", "f1_micro": "F1, micro"}
#: What Dagster shows one by one; the rest is in the tables and in the catalog.
SHOWN = (
    *(f"kl_reduction{end}" for end in ("", "_low", "_high", "_top_k", "_random", "_random_sd")),
    *MAIN[1:],
    *(f"{metric}{pick}" for metric in MODELS for pick in ("", "_top_k", "_random")),
    "effective_sample_size",
    "top_k_agreement",
    "seed_agreement",
    "selection_tokens",
    "selection_mean_tokens",
    "selection_median_tokens",
    "selection_distinct_ngrams",
    "selection_duplicates",
    "selection_in_target",
    "selection_in_holdout",
    "pool_in_holdout",
    "pool_mean_tokens",
    "pool_median_tokens",
)
#: Ends of the names of numbers that are whole.
COUNTED = ("selection_tokens", "_duplicates", "_in_target", "_in_holdout")


def metadata(
    workspace: Workspace,
    source: Output,
    selection: Selection,
    picks: dict[str, Pick],
    ngrams: int,
    metrics: Metrics,
) -> dict[str, int | float | str]:
    """Return the numbers that Dagster and the lineage show, and what is to be said of them."""
    numbers = {name: metrics.get(name) for name in SHOWN}
    held_out = all(workspace.settings.target(target).holdout for target in selection.targets)
    settings = workspace.settings.evaluation
    notes = []
    if leaked := int(metrics.get("selection_in_holdout")):
        notes.append(
            f"{leaked:,} of the selected documents are in the holdout, word for word: what is measured on it is "
            "too good; take them out of the holdout or of the pool"
        )
    if settings.downstream and numbers["f1_macro"] is None:
        notes.append(
            f"no target of the selection has a holdout and a field {settings.downstream.label!r}: no F1 is measured"
        )
    if absent := [method for method in (*settings.compare, "top_k") if method not in picks]:
        notes.append(f"no document of {', '.join(absent)} fits into the budget")
    return {
        "documents": len(picks["selection"]),
        "selection_version": source.fingerprint,
        **{
            name: int(value) if name.endswith(COUNTED) else value
            for name, value in numbers.items()
            if value is not None
        },
        "random_selections": settings.random_seeds,
        "sampled_ngrams": ngrams,
        "measured_on": "held-out target text" if held_out else "the fitted target text (no holdout)",
        **({"note": "; ".join(notes)} if notes else {}),
    }


def tables(
    selection: Selection,
    targets: list[TargetSample],
    names: list[str],
    composition: list[tuple[str, float, float]],
    metrics: Metrics,
) -> dict[str, str]:
    """Return what Dagster shows as tables and plots.

    Parameters
    ----------
    names : list of str
        The picks: selection, other methods, top_k, random.
    """
    labels = {name: name.replace("_", "-") for name in names} | {"selection": "selection"}
    suffixes = {name: "" if name == "selection" else f"_{name}" for name in names}

    def bounds(metric: str, target: str = "") -> dict[str, tuple[float, float, float]]:
        return {labels[name]: metrics.bounds(metric + suffixes[name], target) for name in names}

    by_target = [(target.name, bounds("kl_reduction", target.name)) for target in targets]
    shown = {"KL reduction, plot": plots.kl_reduction(by_target)}
    measured = [metric for metric in MAIN if metrics.get(metric) is not None]
    views = zip(("selecting hash", "independent hash", "not hashed"), measured[1:], strict=False)
    if views := [(label, bounds(metric)) for label, metric in views]:
        shown["KL reduction over random, plot"] = plots.kl_over_random(views)

    models = [metric for metric in MODELS if metrics.get(metric) is not None]

    def row(name: str) -> list[object]:
        cells = [selection.method if name == "selection" else labels[name]]
        for metric in measured:
            value, low, high = metrics.bounds(metric + suffixes[name])
            cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
        for metric in models:
            value, sd = (metrics.get(f"{metric}{suffixes[name]}{end}") for end in ("", "_sd"))
            cells.append(f"{value:.3f} ± {sd:.3f}")
        cells += [round(metrics.get(f"{name}_tokens")), f"{metrics.get(f'{name}_mean_tokens'):,.1f}"]
        distinct = metrics.get(f"{name}_distinct_ngrams")
        cells.append("" if distinct is None else f"{distinct:.0f}")
        return [*cells, "" if name == "selection" else f"{metrics.get(f'{name}_agreement'):.1%}"]

    over = ("over random", "over random, independent hash", "over random, not hashed")
    header = ["picks", "KL reduction", *over[: len(measured) - 1]]
    header += [MODELS[metric] for metric in models]
    header += ["tokens", "mean length", "distinct n-grams in 1,000", "same documents as the selection"]
    by_metric = [
        (target or "all", metric, value)
        for (target, metric, source), value in metrics.rows.items()
        if not source
    ]
    return shown | {
        "composition, plot": plots.composition(composition),
        "methods side by side": markdown_table(header, map(row, names)),
        "composition": markdown_table(
            ["source", "pool share", "selection share"],
            [(name, f"{a:.1%}", f"{b:.1%}") for name, a, b in composition[:50]],
        ),
        "all metrics": markdown_table(["target", "metric", "value"], by_metric),
    }
