"""``evaluations``: how good a selection is, beside random picks, top-k and other methods' picks of the same size.

What belongs here: the asset and its check. What does not: the numbers (``measuring/measures.py``), the picks that a
selection is compared with (``measuring/baselines.py``), how Dagster shows the numbers (``measuring/shown.py``).
"""

import json
from collections.abc import Sequence
from functools import partial
from itertools import filterfalse

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsir import downstream, ngram_model, proxy
from dsir.selection import Budget
from dsir_dagster.assets.materialize import Result, bring_up_to_date, one_by_one
from dsir_dagster.assets.measuring.baselines import (
    Pick,
    describe,
    is_random,
    pick_with_another_seed,
    picks_by_other_methods,
    survey_pool,
)
from dsir_dagster.assets.measuring.counts import Counted
from dsir_dagster.assets.measuring.measures import (
    Metrics,
    TargetTexts,
    add_figures,
    known_contents,
    measure_composition,
    measure_contents,
    measure_lengths,
    measure_on_texts,
    measure_overlap,
    read_target,
)
from dsir_dagster.assets.measuring.shown import metadata, not_measured, tables
from dsir_dagster.assets.measuring.sizes import measure_sizes, picks_of_other_sizes
from dsir_dagster.assets.measuring.trained import (
    TEST_NGRAMS,
    TEST_TOKENS,
    bits_per_byte,
    downstream_f1,
    proxy_losses,
)
from dsir_dagster.assets.picking.candidates import Candidates, picked_positions
from dsir_dagster.assets.picking.texts import PoolTexts
from dsir_dagster.assets.report import add_report
from dsir_dagster.assets.report.documents import add_texts, look_at_pool
from dsir_dagster.assets.report.numbers import numbers_of
from dsir_dagster.assets.report.page import Page
from dsir_dagster.assets.report.verdict import Verdict, judge
from dsir_dagster.assets.selections import output_of as selection_output
from dsir_dagster.resources.compute import Tell, Worker, within
from dsir_dagster.resources.graph import Asset, Check, Context, Inputs, Made, Partitions, RunOptions
from dsir_dagster.resources.lineage import canonical
from dsir_dagster.resources.plan import Output, Plan
from dsir_dagster.resources.settings import Selection
from dsir_dagster.resources.settings.evaluation import RANDOM
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import FileKind
from dsir_dagster.resources.workspace import Workspace


def evaluate_selections(
    context: Context, workspace: Workspace, names: Sequence[str], options: RunOptions
) -> Made:
    """Bring the evaluations of some selections up to date, as `one_by_one` does."""
    counted = Counted()
    yield from one_by_one(
        "evaluations",
        {name: partial(_evaluate_selection, context, workspace, name, counted, options) for name in names},
    )


def _evaluate_selection(
    context: Context, workspace: Workspace, name: str, counted: Counted, options: RunOptions
) -> Made:
    snapshot = workspace.snapshot()
    selection, source = current_selection(snapshot.plan, name)

    def compute(worker: Worker, output: Output, tell: Tell) -> Result:
        picks = snapshot.store.read_table(snapshot.store.picks(name, source.fingerprint), source.origin)
        look = look_at_pool(snapshot, selection, source, picks, within(tell, "report"))
        result, metrics, verdict, texts = evaluate(
            snapshot, selection, source, picks, look.positions, counted, tell
        )
        add_texts(snapshot, look, texts)
        tell(part="report: the page")
        add_report(Page(snapshot, selection, source, output, result, metrics, verdict, picks, look))
        return result

    yield from bring_up_to_date(
        context, workspace, "evaluations", [output_of(snapshot.plan, source)], compute, options
    )


def check_evaluation(workspace: Workspace, name: str, *_: object) -> dg.AssetCheckResult:
    """Check that a selection is closer to its targets than random picks, as its verdict says."""
    found = workspace.catalog.latest()["evaluations", name]
    measured = ("over_random", "over_random_low", "over_random_high")
    numbers = {metric: found.number(metric) for metric in measured}
    return dg.AssetCheckResult(
        passed=numbers["over_random_low"] > 0, severity=dg.AssetCheckSeverity.WARN, metadata=numbers
    )


def current_selection(plan: Plan, name: str) -> tuple[Selection, Output]:
    """Return the selection as materialized, with changes from the launchpad, and its output.

    Raises
    ------
    dagster.Failure
        It was never materialized, or its inputs have changed since.
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


#: Of the positions that are described: what a selection picked in its first epoch.
FIRST_EPOCH = "first epoch"


def evaluate(
    snapshot: Snapshot,
    selection: Selection,
    source: Output,
    table: pa.Table,
    shown: np.ndarray,
    counted: Counted,
    tell: Tell,
) -> tuple[Result, Metrics, Verdict, PoolTexts]:
    """Measure a selection, and picks of the same size by other methods.

    Parameters
    ----------
    snapshot, selection
    source : Output
        The selection.
    table : pyarrow.Table
        Rows of its ``picks.parquet``.
    shown : ndarray of int64
        Positions of documents whose texts the report shows; they are read along with the picks.
    counted : Counted
        By the evaluation before.
    tell : callable

    Returns
    -------
    Result
    Metrics
    Verdict
    PoolTexts
        Those to show, among others.
    """
    settings = snapshot.settings.evaluation
    of_epoch = table["n_tokens"].to_numpy()[table["epoch"].to_numpy() == 1]
    budget = Budget(documents=len(of_epoch))
    if selection.size.tokens is not None:
        budget = Budget(tokens=int(of_epoch.sum()))

    read = max(TEST_NGRAMS if settings.bits_per_byte else 0, 3 * TEST_TOKENS if settings.proxy else 0)
    tell(part="reading the targets")
    targets = [read_target(snapshot, snapshot.settings.target(name), read) for name in selection.targets]
    candidates = Candidates(snapshot, selection, tell=tell)
    first_epoch = picked_positions(snapshot.plan, table.filter(pc.equal(table["epoch"], 1)))
    of_sizes = picks_of_other_sizes(candidates, budget, first_epoch)
    pool, random = survey_pool(candidates, budget, settings.random_seeds, known_contents(targets))
    others = picks_by_other_methods(candidates, budget)
    drawn_again = pick_with_another_seed(candidates, budget)
    positions = {"selection": picked_positions(snapshot.plan, table), **others}
    positions |= {f"{RANDOM} {seed}": picked for seed, picked in enumerate(random)}
    asked = {**positions, **of_sizes, FIRST_EPOCH: first_epoch}
    described = describe(snapshot, {name: each for name, each in asked.items() if len(each)}, tell)
    picks = {name: each for name, each in described.items() if name in positions}
    sizes = {name: each for name, each in described.items() if name in of_sizes}

    metrics = Metrics()
    # One epoch, as of the other methods: more text is closer to any target.
    once = {**picks, "selection": described[FIRST_EPOCH]}
    texts = measure_on_targets(snapshot, targets, once, shown, counted, metrics, tell)
    if sizes:
        random_picks = [pick for name, pick in picks.items() if is_random(name)]
        measure_sizes(snapshot, targets, sizes, random_picks, metrics, tell)
    for target in targets:
        metrics.add("effective_sample_size", "pool", pool.effective[target.name].value, target.name)
    metrics.average()
    measure_overlap(picks, drawn_again, metrics)
    measure_lengths(picks, pool, selection.min_tokens, metrics)
    measure_contents(picks, pool, targets, metrics)
    composition = measure_composition(table["source"], pool, metrics)
    names = [*filterfalse(is_random, picks), RANDOM]
    missing = not_measured(snapshot, selection, picks, metrics)
    holdouts = {each.name: each.target.holdout is not None for each in targets}
    verdict = judge(
        numbers_of(selection, source.made.metadata, holdouts, metrics.get, missing, settings.sizes)
    )
    result = Result(
        rows=len(metrics.rows),
        files={},
        metadata=metadata(snapshot, source, picks, metrics, verdict),
        tables=tables(snapshot, selection, targets, names, composition, metrics),
        metrics=metrics.rows,
    )
    return result, metrics, verdict, texts


def measure_on_targets(
    snapshot: Snapshot,
    targets: list[TargetTexts],
    picks: dict[str, Pick],
    shown: np.ndarray,
    counted: Counted,
    metrics: Metrics,
    tell: Tell,
) -> PoolTexts:
    """Measure what is measured for each target; return the texts to show."""
    settings = snapshot.settings.evaluation
    texts = measure_on_texts(snapshot, targets, picks, settings, shown, counted, metrics, tell)
    measured_on = {target.name: target.texts for target in targets}
    if settings.bits_per_byte:
        add_figures(bits_per_byte(snapshot, measured_on, picks, settings.bits_per_byte, tell), metrics)
    if settings.proxy:
        add_figures(proxy_losses(snapshot, measured_on, picks, settings.proxy, tell), metrics)
    if settings.downstream:
        configured = [target.target for target in targets]
        add_figures(downstream_f1(snapshot, configured, picks, settings.downstream, tell), metrics)
    return texts


def inputs_of(plan: Plan, selection: Output) -> Inputs:
    """Return what the evaluation of one version of a selection is made of."""
    settings = plan.settings.evaluation
    return Inputs(
        {
            selection.name: selection.fingerprint,
            "configuration": canonical(settings.model_dump()),
            **({"ngram_model": str(ngram_model.VERSION)} if settings.bits_per_byte else {}),
            **({"proxy": str(proxy.VERSION)} if settings.proxy else {}),
            **({"downstream": str(downstream.VERSION)} if settings.downstream else {}),
        }
    )


def output_of(plan: Plan, selection: Output) -> Output:
    """Return the evaluation of one version of a selection."""
    return plan.made_of("evaluations", selection.partition, inputs_of(plan, selection))


EVALUATIONS = Asset(
    name="evaluations",
    version="7",
    description=(
        "KL reduction over random picks on held-out target text, with its interval, beside top-k and other methods; "
        "the same on plain n-grams; the paper's KL reduction; effective sample size, agreement with top-k and with "
        "another seed, composition, lengths, distinct n-grams, duplicates, leakage.\n\n"
        "KL reduction over random = KL(target‖random picks) - KL(target‖selection) over n-grams under an independent "
        "hash, in nats."
    ),
    partitions=Partitions.SELECTIONS,
    after=("selections",),
    inputs=lambda plan, name: inputs_of(plan, plan.output("selections", name)),
    step=evaluate_selections,
    group="selections",
    kinds=("numba", "duckdb"),
    files=(
        FileKind(
            "evaluations",
            pattern="{partition}/{fingerprint}/report.html",
            read_by_others=False,
            local=True,
        ),
    ),
    keeps_versions=True,
    checks=(
        Check(
            name="better_than_random",
            description=(
                "On held-out target text the selection is closer to its targets than random picks of equal size: the "
                "95% interval of the KL reduction over random is above 0."
            ),
            evaluate=check_evaluation,
        ),
    ),
)
