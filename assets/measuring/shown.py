"""How Dagster and the lineage show the numbers of an evaluation.

What belongs here: which numbers are shown singly, notes on them, tables and plots. What does not: the numbers
(``measures.py``), the report (``assets/report/``), how plots are drawn (``resources/plots.py``).
"""

from dsir_dagster.assets.measuring.baselines import Pick, other_methods
from dsir_dagster.assets.measuring.measures import BY_VIEW, OVER_RANDOM, VIEWS, Metrics, TargetTexts
from dsir_dagster.assets.report.verdict import Verdict
from dsir_dagster.resources import plots
from dsir_dagster.resources.plan import Output
from dsir_dagster.resources.settings import Selection
from dsir_dagster.resources.settings.evaluation import RANDOM, TOP_K, size_name
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.table import Column, Table

#: Scores of models trained on the picks, and their names in the table of methods.
MODELS = {
    "bits_per_byte": "bits per byte",
    "proxy_loss": "proxy loss",
    "f1_macro": "F1, macro",
    "f1_micro": "F1, micro",
}
#: Picks whose numbers Dagster shows, and the suffixes of the numbers' names.
PICKS = {"selection": "", TOP_K: "_top_k", RANDOM: "_random"}
#: Numbers that Dagster shows singly, as (metric, pick, statistic); the rest is in the tables and in the catalog.
SHOWN = {
    "over_random": ("over_random", "selection", "value"),
    "over_random_low": ("over_random", "selection", "low"),
    "over_random_high": ("over_random", "selection", "high"),
    "over_random_top_k": ("over_random", TOP_K, "value"),
    "over_random_unhashed": ("over_random_unhashed", "selection", "value"),
    **{f"kl_reduction{end}": ("kl_reduction", pick, "value") for pick, end in PICKS.items()},
    **{f"{metric}{end}": (metric, pick, "value") for metric in MODELS for pick, end in PICKS.items()},
    "effective_sample_size": ("effective_sample_size", "pool", "value"),
    "top_k_agreement": ("agreement", TOP_K, "value"),
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
    snapshot: Snapshot,
    source: Output,
    picks: dict[str, Pick],
    metrics: Metrics,
    verdict: Verdict,
) -> dict[str, int | float | str]:
    """Return the verdict and the numbers that Dagster and the lineage show."""
    numbers = {
        name: metrics.get(metric, pick, statistic=statistic)
        for name, (metric, pick, statistic) in SHOWN.items()
    }
    return {
        "verdict": verdict.summary,
        "verdict_level": verdict.level,
        "documents": len(picks["selection"]),
        "selection_version": source.fingerprint,
        **{
            name: int(value) if SHOWN[name][0] in COUNTED else value
            for name, value in numbers.items()
            if value is not None
        },
        "random_selections": snapshot.settings.evaluation.random_seeds,
        "measured_on": verdict.measured_on,
        **({"note": verdict.note} if verdict.note else {}),
    }


def not_measured(
    snapshot: Snapshot, selection: Selection, picks: dict[str, Pick], metrics: Metrics
) -> list[str]:
    """Return what was asked for and could not be measured, and why."""
    settings, missing = snapshot.settings.evaluation, []
    if settings.downstream and metrics.get("f1_macro") is None:
        missing.append(
            f"no target of the selection has a holdout and a field {settings.downstream.label!r}: no F1 is measured"
        )
    compared = {*other_methods(snapshot, selection)} - {selection.method}
    if absent := sorted(compared - picks.keys()):
        missing.append(f"no document of {', '.join(absent)} fits into the budget")
    sizes = [each for each in settings.sizes if metrics.get("documents", size_name(each)) is None]
    if sizes:
        missing.append(
            f"nothing at {_factors(sizes)} times the size: no document fits into it, or the pool has fewer"
        )
    return missing


def _factors(sizes: list[float]) -> str:
    return ", ".join(f"{each:g}" for each in sizes)


def sizes_plot(snapshot: Snapshot, metrics: Metrics) -> plots.Plot:
    """Return a plot of what was measured against size."""
    factors = [
        each
        for each in snapshot.settings.evaluation.sizes
        if metrics.get("documents", size_name(each)) is not None
    ]
    names = [size_name(each) for each in factors]
    measures = {"KL reduction over random, nats": [metrics.bounds("over_random", each) for each in names]}
    bits = [each for name in names if (each := metrics.get("bits_per_byte", name)) is not None]
    if bits:
        measures["bits per byte"] = [(each, each, each) for each in bits]
    return plots.sizes(factors, measures)


def sizes_table(snapshot: Snapshot, metrics: Metrics) -> Table:
    """Return what was measured at every size."""
    bits = metrics.get("bits_per_byte", size_name(1)) is not None
    columns = [
        Column("times the size", "number"),
        Column("documents", "whole"),
        Column("tokens", "whole"),
        Column("KL reduction over random", "interval"),
        Column("selection's lead", "interval"),
        *([Column("bits per byte", "nats")] if bits else []),
        Column("repeated texts", "share"),
    ]
    rows = []
    for factor in snapshot.settings.evaluation.sizes:
        name = size_name(factor)
        documents, tokens, repeated = (
            int(metrics.get(metric, name) or 0) for metric in ("documents", "tokens", "duplicates")
        )
        if documents:
            rows.append(
                (
                    factor,
                    documents,
                    tokens,
                    metrics.bounds("over_random", name),
                    None if factor == 1 else metrics.bounds("ahead", name),
                    *([metrics.get("bits_per_byte", name)] if bits else []),
                    repeated / documents,
                )
            )
    return Table(columns, rows)


def tables(
    snapshot: Snapshot,
    selection: Selection,
    targets: list[TargetTexts],
    names: list[str],
    composition: list[tuple[str, float, float]],
    metrics: Metrics,
) -> dict[str, Table | plots.Plot]:
    """Return what Dagster shows as tables and plots.

    Parameters
    ----------
    names : list of str
        The picks: selection, other methods, baselines.
    """
    labels = {name: name.replace("_", "-") for name in names} | {"selection": "selection"}

    def bounds(metric: str, target: str = "") -> dict[str, tuple[float, float, float]]:
        return {labels[name]: metrics.bounds(metric, name, target) for name in names}

    by_target = [(target.name, bounds("over_random", target.name)) for target in targets]
    by_view = [(view, bounds(metric)) for metric, view in VIEWS.items() if metrics.get(metric) is not None]
    shown: dict[str, Table | plots.Plot] = {
        OVER_RANDOM: plots.over_random(by_target),
        BY_VIEW: plots.over_random(by_view, ", hashed and not"),
    }
    if snapshot.settings.evaluation.sizes:
        shown["other sizes, plot"] = sizes_plot(snapshot, metrics)
        shown["other sizes"] = sizes_table(snapshot, metrics)
    models = [metric for metric in MODELS if metrics.get(metric) is not None]

    def row(name: str) -> list[object]:
        return [
            selection.method if name == "selection" else labels[name],
            metrics.bounds("over_random", name),
            None if name == "selection" else metrics.bounds("ahead", name),
            metrics.bounds("over_random_unhashed", name) if len(by_view) > 1 else None,
            metrics.bounds("kl_reduction", name),
            *((metrics.get(each, name), metrics.get(each, name, statistic="sd")) for each in models),
            *(metrics.get(each, name) for each in ("tokens", "mean_tokens", "distinct_ngrams")),
            None if name == "selection" else metrics.get("agreement", name),
        ]

    columns = [
        Column("picks"),
        *(
            Column(each, "interval")
            for each in (
                "KL reduction over random",
                "selection's lead",
                "over random on plain n-grams",
                "KL reduction (paper, section 5)",
            )
        ),
        *(Column(MODELS[metric], "spread") for metric in models),
        Column("tokens", "number", 0),
        Column("mean length", "size"),
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
