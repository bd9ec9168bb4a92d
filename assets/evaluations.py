"""``evaluations``: how good a selection is, beside random picks, top-k and other methods' picks of the same size.

What belongs here: the asset, its check, and how the numbers are shown. What does not: what they are and what they are
called (``measuring/measures.py``), the picks that a selection is compared with (``measuring/baselines.py``), how plots
are drawn (``resources/plots.py``).
"""

import json
from collections.abc import Sequence
from functools import partial
from itertools import filterfalse

import dagster as dg

from dsir import downstream, proxy
from dsir.selection import Budget
from dsir_dagster.assets.materialize import Result, bring_up_to_date, one_by_one
from dsir_dagster.assets.measuring.baselines import (
    Pick,
    describe,
    pick_with_another_seed,
    picks_by_other_methods,
    survey_pool,
)
from dsir_dagster.assets.measuring.measures import (
    Metrics,
    TargetSample,
    add_figures,
    is_random,
    known_contents,
    measure_buckets,
    measure_composition,
    measure_contents,
    measure_lengths,
    measure_overlap,
    measure_sample,
    read_target,
)
from dsir_dagster.assets.measuring.trained import TEST_TOKENS, downstream_f1, proxy_losses
from dsir_dagster.assets.picking.candidates import Candidates, picked_positions
from dsir_dagster.assets.report import add_report
from dsir_dagster.assets.selections import output_of as selection_output
from dsir_dagster.resources import plots
from dsir_dagster.resources.graph import Asset, Check, Context, Inputs, Made, Partitions, RunOptions
from dsir_dagster.resources.plan import Output, Plan, canonical
from dsir_dagster.resources.progress import Progress
from dsir_dagster.resources.settings import Selection
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import FileKind
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace


def evaluate_selections(
    context: Context, workspace: Workspace, names: Sequence[str], options: RunOptions
) -> Made:
    """Bring the evaluations of some selections up to date, as `one_by_one` does."""
    yield from one_by_one(
        "evaluations",
        {name: partial(_evaluate_selection, context, workspace, name, options) for name in names},
    )


def _evaluate_selection(context: Context, workspace: Workspace, name: str, options: RunOptions) -> Made:
    snapshot = workspace.snapshot()
    selection, source = current_selection(snapshot.plan, name)

    def compute(output: Output, progress: Progress) -> Result:
        result, metrics = evaluate(snapshot, selection, source)
        add_report(snapshot, selection, source, output, result, metrics)
        return result

    yield from bring_up_to_date(
        context, workspace, "evaluations", [output_of(snapshot.plan, source)], compute, options
    )


def check_evaluation(workspace: Workspace, name: str, *_: object) -> dg.AssetCheckResult:
    """Say whether a selection's KL reduction is above that of random picks by more than two standard deviations."""
    found = workspace.catalog.latest()["evaluations", name].metadata
    measured = ("kl_reduction", "kl_reduction_random", "kl_reduction_random_sd")
    numbers = {metric: found[metric] for metric in measured}
    bar = found["kl_reduction_random"] + 2 * found["kl_reduction_random_sd"]
    return dg.AssetCheckResult(
        passed=bool(found["kl_reduction"] > bar),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={**numbers, "bar": bar},
    )


def current_selection(plan: Plan, name: str) -> tuple[Selection, Output]:
    """Return the selection as it was materialized, with what the launchpad changed, and its output.

    Raises
    ------
    dagster.Failure
        It was never materialized, or from other inputs than there are now.
    """
    configured = plan.output("selections", name)
    if configured.found is None:
        raise dg.Failure(f"{configured.name} was never materialized; do that first", allow_retries=False)
    made_of = json.loads(configured.found.inputs["configuration"])
    selection = Selection.model_validate({"name": name, **made_of})
    output = selection_output(plan, selection)
    if output.state != "fresh":
        raise dg.Failure(
            f"{output.name} is {output.state} ({output.why}); materialize it first", allow_retries=False
        )
    return selection, output


def evaluate(snapshot: Snapshot, selection: Selection, source: Output) -> tuple[Result, Metrics]:
    """Measure a selection, and picks of the same size by other methods; return the numbers too."""
    settings = snapshot.settings.evaluation
    folder = snapshot.store.selection_folder(selection.name, source.fingerprint)
    table = snapshot.store.read_table(folder / "picks.parquet", source.origin)
    chosen = picked_positions(snapshot.plan, table)
    of_epoch = table["n_tokens"].to_numpy()[table["epoch"].to_numpy() == 1]
    budget = Budget(documents=len(of_epoch))
    if selection.size.tokens is not None:
        budget = Budget(tokens=int(of_epoch.sum()))

    read = max(settings.sample, 3 * TEST_TOKENS if settings.proxy else 0)
    targets = [read_target(snapshot, snapshot.settings.target(name), read) for name in selection.targets]
    candidates = Candidates(snapshot, selection)
    pool, random = survey_pool(candidates, budget, settings.random_seeds, known_contents(targets))
    methods = [
        method for method in (*settings.compare, "top_k") if method != selection.method or method == "top_k"
    ]
    others = picks_by_other_methods(candidates, budget, methods)
    drawn_again = pick_with_another_seed(candidates, budget)
    positions = {"selection": chosen, **others}
    positions |= {f"random {seed}": picked for seed, picked in enumerate(random)}
    picks = describe(snapshot, {name: each for name, each in positions.items() if len(each)})

    metrics = Metrics()
    smallest = min(int(each.n_ngrams.sum()) for each in picks.values())
    measure_buckets(snapshot, targets, {name: each.sample(smallest) for name, each in picks.items()}, metrics)
    sampled = {name: each.sample(min(settings.sample, smallest)) for name, each in picks.items()}
    if settings.sample:
        measure_sample(snapshot, targets, sampled, metrics)
    if settings.proxy:
        measured_on = {target.name: target.texts for target in targets}
        add_figures(proxy_losses(snapshot, measured_on, picks, settings.proxy), metrics)
    if settings.downstream:
        configured = [target.target for target in targets]
        add_figures(downstream_f1(snapshot, configured, picks, settings.downstream), metrics)
    for target in targets:
        metrics.add("effective_sample_size", "pool", pool.effective[target.name].value, target.name)
    metrics.average()
    measure_overlap(picks, drawn_again, metrics)
    measure_lengths(picks, pool, metrics)
    measure_contents(picks, pool, targets, metrics)
    composition = measure_composition(table["source"], pool, metrics)
    result = Result(
        rows=len(metrics.rows),
        files=[],
        metadata=metadata(
            snapshot.workspace, source, selection, picks, min(settings.sample, smallest), metrics
        ),
        tables=tables(selection, targets, [*filterfalse(is_random, picks), "random"], composition, metrics),
        metrics=metrics.rows,
    )
    return result, metrics


#: KL reductions, as measured: on all held-out text, and on a sample under three views of its n-grams.
MAIN = ("kl_reduction", "over_random", "over_random_independent_hash", "over_random_unhashed")
#: What models made of the picks, and how it is called in the table of methods.
MODELS = {"proxy_loss": "proxy loss", "f1_macro": "F1, macro", "f1_micro": "F1, micro"}
#: Picks that Dagster shows numbers of, and how they are called in the numbers' names.
PICKS = {"selection": "", "top_k": "_top_k", "random": "_random"}
#: What Dagster shows one by one, as (metric, pick, statistic); the rest is in the tables and in the catalog.
SHOWN = {
    "kl_reduction": ("kl_reduction", "selection", "value"),
    "kl_reduction_low": ("kl_reduction", "selection", "low"),
    "kl_reduction_high": ("kl_reduction", "selection", "high"),
    "kl_reduction_top_k": ("kl_reduction", "top_k", "value"),
    "kl_reduction_random": ("kl_reduction", "random", "value"),
    "kl_reduction_random_sd": ("kl_reduction", "random", "sd"),
    **{metric: (metric, "selection", "value") for metric in MAIN[1:]},
    **{f"{metric}{end}": (metric, pick, "value") for metric in MODELS for pick, end in PICKS.items()},
    "effective_sample_size": ("effective_sample_size", "pool", "value"),
    "top_k_agreement": ("agreement", "top_k", "value"),
    "seed_agreement": ("agreement", "seed", "value"),
    **{
        f"{pick}_{metric}": (metric, pick, "value")
        for pick, metrics in {
            "selection": (
                "tokens",
                "mean_tokens",
                "median_tokens",
                "distinct_ngrams",
                "duplicates",
                "in_target",
                "in_holdout",
            ),
            "pool": ("in_holdout", "mean_tokens", "median_tokens"),
        }.items()
        for metric in metrics
    },
}
#: Numbers that are whole.
COUNTED = ("tokens", "duplicates", "in_target", "in_holdout")


def metadata(
    workspace: Workspace,
    source: Output,
    selection: Selection,
    picks: dict[str, Pick],
    ngrams: int,
    metrics: Metrics,
) -> dict[str, int | float | str]:
    """Return the numbers that Dagster and the lineage show, and what is to be said of them."""
    numbers = {
        name: metrics.get(metric, pick, statistic=statistic)
        for name, (metric, pick, statistic) in SHOWN.items()
    }
    with_holdout = all(workspace.settings.target(target).holdout for target in selection.targets)
    settings = workspace.settings.evaluation
    notes = []
    if leaked := int(metrics.get("in_holdout")):
        notes.append(
            f"{leaked:,} of the selected documents are in the holdout, word for word: what is measured on it is "
            "too good; take them out of the holdout or of the pool"
        )
    if settings.downstream and numbers["f1_macro"] is None:
        notes.append(
            f"no target of the selection has a holdout and a field {settings.downstream.label!r}: no F1 is measured"
        )
    compared = {*settings.compare, "top_k"} - {selection.method}
    if absent := sorted(compared - picks.keys()):
        notes.append(f"no document of {', '.join(absent)} fits into the budget")
    return {
        "documents": len(picks["selection"]),
        "selection_version": source.fingerprint,
        **{
            name: int(value) if SHOWN[name][0] in COUNTED else value
            for name, value in numbers.items()
            if value is not None
        },
        "random_selections": settings.random_seeds,
        "sampled_ngrams": ngrams,
        "measured_on": "held-out target text" if with_holdout else "the fitted target text (no holdout)",
        **({"note": "; ".join(notes)} if notes else {}),
    }


def tables(
    selection: Selection,
    targets: list[TargetSample],
    names: list[str],
    composition: list[tuple[str, float, float]],
    metrics: Metrics,
) -> dict[str, Table | plots.Plot]:
    """Return what Dagster shows as tables and plots.

    Parameters
    ----------
    names : list of str
        The picks: selection, other methods, top_k, random.
    """
    labels = {name: name.replace("_", "-") for name in names} | {"selection": "selection"}

    def bounds(metric: str, target: str = "") -> dict[str, tuple[float, float, float]]:
        return {labels[name]: metrics.bounds(metric, name, target) for name in names}

    by_target = [(target.name, bounds("kl_reduction", target.name)) for target in targets]
    shown: dict[str, Table | plots.Plot] = {"KL reduction, plot": plots.kl_reduction(by_target)}
    measured = [metric for metric in MAIN if metrics.get(metric) is not None]
    views = zip(("selecting hash", "independent hash", "not hashed"), measured[1:], strict=False)
    if views := [(label, bounds(metric)) for label, metric in views]:
        shown["KL reduction over random, plot"] = plots.kl_over_random(views)

    models = [metric for metric in MODELS if metrics.get(metric) is not None]

    def row(name: str) -> list[object]:
        cells = [selection.method if name == "selection" else labels[name]]
        for metric in measured:
            cells.append(metrics.bounds(metric, name))
        for metric in models:
            cells.append(tuple(metrics.get(metric, name, statistic=each) for each in ("value", "sd")))
        cells += [metrics.get(each, name) for each in ("tokens", "mean_tokens", "distinct_ngrams")]
        return [*cells, None if name == "selection" else metrics.get("agreement", name)]

    over = ("over random", "over random, independent hash", "over random, not hashed")
    columns = [
        Column("picks"),
        *(Column(each, "interval") for each in ("KL reduction", *over[: len(measured) - 1])),
        *(Column(MODELS[metric], "spread") for metric in models),
        Column("tokens", "number", 0),
        Column("mean length", "number", 1),
        Column("distinct n-grams in 1,000", "number", 0),
        Column("same documents as the selection", "share"),
    ]
    by_metric = [
        (each.target or "all", each.metric, each.pick, each.statistic, each.value)
        for each in metrics.rows
        if not each.source
    ]
    return shown | {
        "composition, plot": plots.composition(composition),
        "methods side by side": Table(columns, [row(name) for name in names]),
        "composition": Table(
            [Column("source"), Column("pool share", "share"), Column("selection share", "share")],
            composition[:50],
        ),
        "all metrics": Table(
            [
                *(Column(name) for name in ("target", "metric", "pick", "statistic")),
                Column("value", "number"),
            ],
            by_metric,
        ),
    }


def inputs_of(plan: Plan, selection: Output) -> Inputs:
    """Return what the evaluation of one version of a selection is made of."""
    settings = plan.settings.evaluation
    return Inputs(
        {
            selection.name: selection.fingerprint,
            "configuration": canonical(settings.model_dump()),
            **({"proxy": str(proxy.VERSION)} if settings.proxy else {}),
            **({"downstream": str(downstream.VERSION)} if settings.downstream else {}),
        }
    )


def output_of(plan: Plan, selection: Output) -> Output:
    """Return the evaluation of one version of a selection."""
    return plan.made_of("evaluations", selection.partition, inputs_of(plan, selection))


EVALUATIONS = Asset(
    name="evaluations",
    version="3",
    description=(
        "KL reduction on held-out target text beside random picks, top-k and other methods, with intervals; the "
        "same under a hash that selected nothing and without a hash; effective sample size, agreement with top-k "
        "and with another seed, composition, lengths, distinct n-grams, duplicates, leakage.\n\n"
        "KL reduction = KL(target‖pool) - KL(target‖selection) over hashed n-grams, in nats."
    ),
    partitions=Partitions.SELECTIONS,
    after=("selections",),
    inputs=lambda plan, name: inputs_of(plan, plan.output("selections", name)),
    step=evaluate_selections,
    group="selections",
    kinds=("numba", "duckdb"),
    files=(FileKind("evaluations", pattern="{partition}/{fingerprint}/report.html", read_by_others=False),),
    keeps_versions=True,
    checks=(
        Check(
            name="kl_reduction_beats_random",
            description=(
                "The KL reduction on held-out target text is above the mean of random picks of equal size "
                "by more than two standard deviations."
            ),
            evaluate=check_evaluation,
        ),
    ),
)
