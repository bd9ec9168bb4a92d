"""What the report of a selection says, and in which order.

What belongs here: the values that the template shows, tables of the numbers behind plots, how the selection was made.
What does not: which documents are shown (``documents.py``), how values become HTML (``rendering.py``), how plots are
drawn (``resources/plots.py``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from dsir.selection import CANDIDATE
from dsir_dagster.assets.materialize import Result
from dsir_dagster.assets.measuring.measures import BY_VIEW, OVER_RANDOM, VIEWS, Metrics
from dsir_dagster.assets.report.documents import Look, length_bin
from dsir_dagster.assets.report.verdict import Verdict
from dsir_dagster.resources import plots
from dsir_dagster.resources.plan import Output, Plan, ShardFile
from dsir_dagster.resources.settings import KeyRule, Selection
from dsir_dagster.resources.settings.evaluation import RANDOM
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace

#: Characters of a text shown at once, and after a click.
EXCERPT, EXCERPT_LONG = 320, 6_000
#: Names of the plots of the pool beside the picks in Dagster's metadata.
LOG_WEIGHTS, LENGTHS = "log weights, plot", "lengths, plot"
#: Most files listed.
FILES = 1_000


@dataclass(frozen=True)
class Page:
    """What a report is made from.

    Attributes
    ----------
    snapshot, selection
    source, output : Output
        The selection, and its evaluation.
    result : Result
        Of the evaluation.
    metrics, verdict
        What was measured, and what that means.
    picks : pyarrow.Table
        Rows of ``picks.parquet``.
    look : Look
    """

    snapshot: Snapshot
    selection: Selection
    source: Output
    output: Output
    result: Result
    metrics: Metrics
    verdict: Verdict
    picks: pa.Table
    look: Look

    @cached_property
    def plots_of_pool(self) -> dict[str, plots.Plot]:
        """Log weights and lengths of the pool's documents and of those picked."""
        picks, selection, by_target = self.picks, self.selection, []
        for target in selection.targets:
            mine = picks.filter(pc.equal(picks["target"], target)).sort_by([("key", "descending")])
            rows = np.zeros(len(mine), dtype=CANDIDATE)
            rows["log_weight"], rows["key"] = mine["log_weight"].to_numpy(), mine["key"].to_numpy()
            by_target.append(rows)
        lengths = np.bincount(length_bin(picks["n_tokens"].to_numpy()), minlength=plots.LENGTHS)
        return {
            LOG_WEIGHTS: plots.log_weights(
                selection.targets, self.look.histograms, by_target, selection.keys_are_log_weights
            ),
            LENGTHS: plots.lengths(self.look.lengths, lengths),
        }

    def values(self) -> dict[str, object]:
        """Return what the template shows."""
        plan, targets, metrics = self.snapshot.plan, self.selection.targets, self.metrics
        made, measured, tables = self.source.made.metadata, self.result.metadata, self.result.tables
        # Tables with a place of their own on the page; the others follow each other.
        sizes = ("other sizes, plot", "other sizes")
        placed = ("methods side by side", "composition, plot", "composition", "all metrics", *sizes)
        own = ("noise_keys", "key_rule", "folder", "note", "seconds", "files", "bytes_written")
        return {
            "selection": self.selection,
            "made": made,
            "all_tokens": int(pc.sum(self.picks["n_tokens"]).as_py()),
            "metadata": measured,
            "verdict": self.verdict,
            "notes": [made["note"]] if "note" in made else [],
            "chunked": [source for source in self.snapshot.settings.raw if source.chunk_words is not None],
            "by_tokens": self.selection.size.tokens is not None,
            "bounds": lambda metric, pick="selection": metrics.bounds(metric, pick)[1:],
            "sample": self.snapshot.settings.evaluation.sample,
            "smoothing": self.snapshot.settings.evaluation.smoothing,
            "value": lambda metric, pick="selection", statistic="value": metrics.get(
                metric, pick, statistic=statistic
            ),
            "methods": tables["methods side by side"],
            "parts": [
                (key.removesuffix(", plot"), shown, numbers_behind(key, targets, metrics))
                for key, shown in tables.items()
                if key not in placed
            ],
            "sizes": [tables[key] for key in sizes if key in tables],
            "composition_plot": tables["composition, plot"],
            "composition": tables["composition"],
            "all_metrics": tables["all metrics"],
            "all_targets": len(targets) > 1,
            "weights_plot": self.plots_of_pool[LOG_WEIGHTS],
            "weights_table": bars_table(self.plots_of_pool[LOG_WEIGHTS], targets),
            "lengths_plot": self.plots_of_pool[LENGTHS],
            "lengths_table": lengths_table(metrics),
            "selected": self.look.selected,
            "next": self.look.next.documents,
            "typical": self.look.typical.documents,
            "keyed": KeyRule.of(made).decides,
            "excerpt": EXCERPT,
            "excerpt_long": EXCERPT_LONG,
            "numbers": {key: value for key, value in made.items() if key not in own},
            "configuration": configuration(self.snapshot.workspace, self.selection),
            "lineage": list(lineage(plan, self.selection, self.source)),
            "output": self.output,
            "source": self.source,
            "files": list(islice(files_of(plan), FILES)),
            "n_files": sum(1 for _ in files_of(plan)),
            "grouped": any(plan.shards[shard].files for shard in plan.counted),
            "versions": {**plan.graph.versions, "kernel": plan.raw_counts(plan.counted[0]).inputs["kernel"]},
            "folder": self.snapshot.store.where(str(made["folder"])),
        }


def files_of(plan: Plan) -> Iterator[tuple[str, ShardFile]]:
    """Yield the files of the counted shards, each with its shard."""
    return ((shard, part) for shard in plan.counted for part in plan.shards[shard].parts)


def bars_table(plot: plots.Plot, targets: list[str]) -> Table:
    """Return the numbers behind a plot of log weights, as drawn."""
    from matplotlib.patches import StepPatch

    rows = []
    for ax, target in zip(plot.figure.axes, targets, strict=False):
        drawn = (each.get_data() for each in ax.patches if isinstance(each, StepPatch))
        (eligible, edges, _), (picked, *_) = drawn
        for low, n, m in zip(edges, eligible, picked, strict=False):
            if n or m:
                rows.append((target, int(low), int(n), int(m)))
    numbers = ("log weight from, nats", "eligible", "picked")
    return Table([Column("target"), *(Column(name, "whole") for name in numbers)], rows)


def lengths_table(metrics: Metrics) -> Table:
    """Return the lengths of the pool's documents and of every pick's."""
    columns = {
        "mean": "mean",
        "a tenth has at most": "p10",
        "median": "median",
        "nine tenths have at most": "p90",
    }
    rows = [
        (
            name.replace("_", "-"),
            *(metrics.get(f"{each}_tokens", name) for each in columns.values()),
        )
        for name in ("pool", *metrics.picks)
    ]
    return Table([Column("tokens of a document"), *(Column(name, "size") for name in columns)], rows)


def numbers_behind(plot: str, targets: list[str], metrics: Metrics) -> Table | None:
    """Return the numbers behind a plot of picks, by group of bars and pick; None for other plots and tables."""
    rows = {
        OVER_RANDOM: [(target, target, "over_random") for target in targets],
        BY_VIEW: [(label, "", view) for view, label in VIEWS.items()],
    }.get(plot)
    if rows is None:
        return None

    def cell(target: str, metric: str, pick: str) -> tuple[float, ...] | None:
        value, sd = (metrics.get(metric, pick, target, each) for each in ("value", "sd"))
        if value is None:
            return None
        return metrics.bounds(metric, pick, target) if sd is None else (value, 2 * sd)

    cells = [(name, *(cell(target, metric, pick) for pick in metrics.picks)) for name, target, metric in rows]
    columns = [
        Column(pick.replace("_", "-"), "spread" if pick == RANDOM else "interval") for pick in metrics.picks
    ]
    return Table([Column("nats"), *columns], cells)


def configuration(workspace: Workspace, selection: Selection) -> str:
    """Return a configuration file that makes this selection, and no other."""
    settings = workspace.settings
    values = {
        "raw": [each.model_dump(exclude_defaults=True) for each in settings.raw],
        "targets": [each.model_dump(exclude_defaults=True) for each in settings.targets],
        **{
            part: getattr(settings, part).model_dump(mode="json")
            for part in ("features", "estimator", "evaluation")
        },
        "selections": [selection.model_dump(mode="json", exclude_none=True)],
    }
    for section in ("raw", "targets"):  # names first
        values[section] = [{"name": each["name"], **each} for each in values[section]]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def lineage(plan: Plan, selection: Selection, source: Output) -> Iterator[tuple[str, str, str, str]]:
    """Yield the outputs that the selection was made of: name, fingerprint, Dagster run, time; shards by run."""

    def row(output: Output) -> tuple[str, str, str, str]:
        made = output.made
        return output.name, made.fingerprint, made.run_id, when(made.finished_at)

    yield row(source)
    for outputs in (map(plan.weights, plan.counted), map(plan.raw_counts, plan.counted)):
        runs: dict[str, list[Output]] = {}
        for output in outputs:
            runs.setdefault(output.made.run_id, []).append(output)
        for run_id, of_run in runs.items():
            if len(of_run) == 1:
                yield row(of_run[0])
            else:
                last = max(each.made.finished_at for each in of_run)
                yield f"{of_run[0].asset}, {len(of_run):,} shards", "", run_id, when(last)
        if of_run[0].asset == "weights":
            yield row(plan.importance_estimator)
            yield from ([row(plan.raw_distribution)] if plan.raw_distribution else [])
            yield from (row(plan.target_counts(target)) for target in selection.targets)


def when(time: datetime) -> str:
    """Return a time to the second, with its zone."""
    return f"{time:%Y-%m-%d %H:%M:%S %Z}".strip()
