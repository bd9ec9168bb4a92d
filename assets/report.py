"""The report of a selection: one HTML file that needs nothing else, beside the rows of ``evaluations``.

What belongs here: which documents are shown, what the page says and in which order. What does not: how it looks
(``assets/report.html``, ``assets/table.html``), what is measured (``assets/evaluations.py``), how plots are drawn
(``assets/plots.py``).

The page is a template of Jinja2, which escapes whatever is put into it. Plots stand in it as SVG, whose colors are
those of the page, light or dark.
"""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from dsir.evaluation import contained, distinct
from dsir.explain import Contribution, explain
from dsir.noise import gumbel_noise
from dsir.selection import CANDIDATE, Budget, pack_position
from dsir_dagster.assets import plots
from dsir_dagster.assets.candidates import COLUMNS, CRITERIA, Candidates, Documents, picked_positions
from dsir_dagster.assets.importance_estimator import read_log_ratios
from dsir_dagster.assets.materialize import Result
from dsir_dagster.assets.measures import Metrics
from dsir_dagster.assets.methods import noise_stream
from dsir_dagster.assets.texts import pool_texts
from dsir_dagster.resources.borders import visible
from dsir_dagster.resources.plan import Output, Plan
from dsir_dagster.resources.settings import KeyRule, Selection
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from markupsafe import Markup

#: Documents that are shown of those picked; of the others, so many that come next and so many typical ones.
PICKED, NEXT, TYPICAL = 10, 6, 4
#: N-grams shown for a document, and as many against it; characters of its text that they are looked for in.
NGRAMS, EXPLAINED = 6, 100_000
#: Characters of a text that are shown at once, and after a click.
EXCERPT, EXCERPT_LONG = 320, 6_000
#: What the plots of the pool beside the picks are called in Dagster's metadata.
LOG_WEIGHTS, LENGTHS = "log weights, plot", "lengths, plot"
#: Files that are listed.
FILES = 1_000
#: What the page keeps though it does not print: the ends of a text's lines, joiners and spaces that scripts are
#: written with. Marks that turn the order of letters act within their element alone.
LETTERS = "\n\t\r\xa0\xad\u200b\u200c\u200d\u200e\u200f\u202f\u3000\ufeff"


@dataclass
class Shown:
    """A document that the page shows.

    Attributes
    ----------
    position : int
        From :func:`dsir.selection.pack_position`.
    shard, doc_id, source, target : str
    row, n_tokens : int
    log_weight : float
    verdict : str
    text : str
    contributions : list of Contribution
        The largest first.
    """

    position: int
    shard: str
    row: int
    doc_id: str
    source: str
    n_tokens: int
    target: str
    log_weight: float
    verdict: str
    text: str = ""
    contributions: list[Contribution] = field(default_factory=list)

    @property
    def speaks_for(self) -> list[Contribution]:
        """N-grams that raise its log weight most."""
        return [each for each in self.contributions[:NGRAMS] if each.nats > 0]

    @property
    def speaks_against(self) -> list[Contribution]:
        """N-grams that lower its log weight most."""
        return [each for each in self.contributions[: -NGRAMS - 1 : -1] if each.nats < 0]


class Leading:
    """The documents with the largest scores of a stream."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.found: list[tuple[float, Shown]] = []

    def add(self, score: np.ndarray, show: Callable[[int], Shown]) -> None:
        """Offer documents: ndarray of float64, -inf of those that are none; and what makes one of its place."""
        floor = self.found[-1][0] if len(self.found) == self.n else -np.inf
        above = np.flatnonzero(score > floor)
        if len(above) > self.n:  # most blocks have none or a few
            least = np.partition(score[above], -self.n)[-self.n]
            above = above[score[above] >= least]
        best = above[np.argsort(-score[above], kind="stable")][: self.n]
        self.found += [(float(score[at]), show(int(at))) for at in best]
        self.found.sort(key=lambda each: (-each[0], each[1].position))
        del self.found[self.n :]

    @property
    def documents(self) -> list[Shown]:
        """The documents, the largest score first."""
        return [document for _, document in self.found]


@dataclass
class Look:
    """What one look at the pool gives for the page."""

    next: list[Shown]
    typical: list[Shown]
    histograms: list[plots.Histogram]
    lengths: np.ndarray


def add_report(
    snapshot: Snapshot, selection: Selection, source: Output, output: Output, result: Result, metrics: Metrics
) -> None:
    """Write the report of a selection, and add it to what its evaluation left behind.

    Parameters
    ----------
    snapshot, selection
    source : Output
        The selection.
    output : Output
        Its evaluation.
    result : Result
        What it left behind; the file, its path and the plots of log weights and lengths are added.
    metrics : Metrics
        What was measured.
    """
    folder = snapshot.store.selection_folder(selection.name, source.fingerprint)
    picks = snapshot.store.read_table(folder / "picks.parquet", source.stamp)
    path = snapshot.store.report(selection.name, output.fingerprint)
    look = look_at_pool(snapshot, selection, picks, KeyRule.of(source.found.metadata))
    drawn = {LOG_WEIGHTS: weights_plot(selection, picks, look), LENGTHS: lengths_plot(picks, look)}
    page = template().render(
        page_of(snapshot, selection, source, output, result, metrics, picks, look, drawn)
    )
    result.tables = drawn | result.tables
    with snapshot.store.replacing(path) as temporary:
        # What UTF-8 has no bytes for, as in the name of a file that is not UTF-8, is written as an escape.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    result.files.append(path)
    result.metadata["report"] = str(path.relative_to(snapshot.home))


def page_of(
    snapshot: Snapshot,
    selection: Selection,
    source: Output,
    output: Output,
    result: Result,
    metrics: Metrics,
    picks: pa.Table,
    look: Look,
    drawn: dict[str, plots.Plot],
) -> dict[str, object]:
    """Return what the template shows."""
    made = source.found.metadata
    selected = spread(snapshot.plan, selection, picks)
    read_documents(snapshot, [*selected, *look.next, *look.typical])
    # What this page shows in a place of its own, and whatever else there is.
    placed = ("methods side by side", "composition, plot", "composition", "all metrics")
    parts = [
        (key.removesuffix(", plot"), shown, numbers_behind(key, selection.targets, metrics))
        for key, shown in result.tables.items()
        if key not in placed
    ]
    return {
        "selection": selection,
        "made": made,
        "all_tokens": int(pc.sum(picks["n_tokens"]).as_py()),
        "metadata": result.metadata,
        "notes": [each["note"] for each in (made, result.metadata) if "note" in each],
        "value": lambda metric, pick="selection", statistic="value": metrics.get(
            metric, pick, statistic=statistic
        ),
        "methods": result.tables["methods side by side"],
        "parts": parts,
        "composition_plot": result.tables["composition, plot"],
        "composition": result.tables["composition"],
        "all_metrics": result.tables["all metrics"],
        "all_targets": len(selection.targets) > 1,
        "weights_plot": drawn[LOG_WEIGHTS],
        "weights_table": bars_table(drawn[LOG_WEIGHTS], selection.targets),
        "lengths_plot": drawn[LENGTHS],
        "lengths_table": lengths_table(metrics),
        "selected": selected,
        "next": look.next,
        "typical": look.typical,
        "keyed": KeyRule.of(made).decides,
        "excerpt": EXCERPT,
        "excerpt_long": EXCERPT_LONG,
        "numbers": {
            key: value
            for key, value in made.items()
            if key not in ("noise_keys", "key_rule", "folder", "note", "seconds", "files", "bytes_written")
        },
        "configuration": configuration(snapshot.workspace, selection),
        "lineage": list(lineage(snapshot.plan, selection, source)),
        "output": output,
        "source": source,
        "files": [snapshot.plan.shards[shard] for shard in snapshot.plan.counted[:FILES]],
        "n_files": len(snapshot.plan.counted),
        "versions": {
            **snapshot.plan.graph.versions,
            "kernel": snapshot.plan.raw_counts(snapshot.plan.counted[0]).inputs["kernel"],
        },
        "folder": snapshot.home / made["folder"],
    }


# --- documents ----------------------------------------------------------------------------------------------------


def spread(plan: Plan, selection: Selection, picks: pa.Table) -> list[Shown]:
    """Return picked documents from the first to the last of the first epoch's ranking, evenly spread, by target."""
    index = {shard: i for i, shard in enumerate(plan.counted)}
    thresholds, counts = thresholds_of(picks), {}
    for target in selection.targets:
        counts[target] = pc.sum(of_target(picks, target)).as_py() or 0
    first = picks.filter(pc.equal(picks["epoch"], 1))
    shown = []
    for at in np.unique(np.linspace(0, len(first) - 1, PICKED).round().astype(int)).tolist():
        row = first.slice(at, 1).to_pylist()[0]
        margin = row["key"] - thresholds[row["target"]]
        verdict = f"rank {row['rank']:,} of {counts[row['target']]:,}, key {row['key']:,.2f}"
        verdict += f", above the threshold by {margin:,.2f}" if margin else ": the threshold"
        position = int(pack_position(index[row["shard"]], row["row"]))
        names = ("shard", "row", "doc_id", "source", "n_tokens", "target", "log_weight")
        shown.append(Shown(position, *(row[name] for name in names), verdict))
    return shown


def of_target(picks: pa.Table, target: str) -> pa.ChunkedArray:
    """Tell which picks are of the first epoch and of a target."""
    return pc.and_(pc.equal(picks["epoch"], 1), pc.equal(picks["target"], target))


def thresholds_of(picks: pa.Table) -> dict[str, float]:
    """Return the smallest key picked in the first epoch, by target."""
    first = picks.filter(pc.equal(picks["epoch"], 1)).group_by("target").aggregate([("key", "min")])
    return dict(zip(first["target"].to_pylist(), first["key_min"].to_pylist(), strict=True))


def look_at_pool(snapshot: Snapshot, selection: Selection, picks: pa.Table, rule: KeyRule) -> Look:
    """Look at all documents once: those that come next, some typical of what was left, log weights and lengths."""
    candidates = Candidates(snapshot, selection)
    thresholds = thresholds_of(picks)
    keys = None
    if rule.decides:
        keys = selection.declared.fit(candidates, Budget(documents=1)).keys
    chosen = distinct(picked_positions(snapshot.plan, picks))
    following, typical = Leading(NEXT), Leading(TYPICAL)
    look = Look(
        [],
        [],
        [plots.Histogram() for _ in selection.targets[: plots.PANELS]],
        np.zeros(plots.LENGTHS, np.int64),
    )
    for documents in candidates.stream(columns=[*COLUMNS, "doc_id"]):
        look.lengths += np.bincount(length_bin(documents.n_tokens), minlength=plots.LENGTHS)
        for target, histogram in zip(selection.targets, look.histograms, strict=False):
            histogram.add(documents.log_weights[target][documents.eligible])
        positions = pack_position(documents.shard, documents.table["row"].to_numpy())
        left = ~contained(positions, chosen)
        weights = np.array([documents.log_weights[target] for target in selection.targets])
        scores = weights
        if keys is not None:
            streams = {target: noise_stream(selection, target) for target in selection.targets}
            scores = np.array(
                [
                    keys(documents, target, stream, -np.inf) - thresholds.get(target, np.inf)
                    for target, stream in streams.items()
                ]
            )
        best = scores.argmax(axis=0)
        score = scores.max(axis=0, initial=-np.inf)

        def show(
            at: int,
            documents: Documents = documents,
            positions: np.ndarray = positions,
            weights: np.ndarray = weights,
            best: np.ndarray = best,
            score: np.ndarray = score,
        ) -> Shown:
            row = documents.table.slice(at, 1).to_pylist()[0]
            target = selection.targets[best[at]]
            weight = float(weights[best[at], at])
            if excluded := documents.excluded_by[at]:
                verdict = f"not eligible: {CRITERIA[excluded - 1]}"
            elif keys is None:
                verdict = f"log weight {weight:,.2f}"
            elif score[at] >= 0:
                verdict = f"key {score[at] + thresholds[target]:,.2f}; {passed_over(selection)}"
            else:
                verdict = (
                    f"key {score[at] + thresholds[target]:,.2f}, below the threshold by {-score[at]:,.2f}"
                )
            names = ("row", "doc_id", "source", "n_tokens")
            shard = snapshot.plan.counted[documents.shard]
            return Shown(int(positions[at]), shard, *(row[name] for name in names), target, weight, verdict)

        following.add(np.where(left & documents.eligible, score, -np.inf), show)
        noise = gumbel_noise(documents.content_hash, 0, "report")
        typical.add(np.where(left, noise, -np.inf), show)
    look.next, look.typical = following.documents, typical.documents
    return look


def passed_over(selection: Selection) -> str:
    """Say why a document may be left out whose key is above the threshold; as ``sql/macros_why.sql`` does."""
    reasons = []
    if selection.near_duplicates:
        reasons.append("a better-ranked document is nearly the same")
    if selection.source_caps is not None:
        reasons.append("its source has its share")
    return " or ".join(reasons) or "another one of this key came first"


def read_documents(snapshot: Snapshot, shown: list[Shown]) -> None:
    """Read the texts again, and explain them."""
    targets, ratios = read_log_ratios(snapshot)
    spec = snapshot.settings.features.spec()
    positions = np.unique([each.position for each in shown]).astype(np.int64)
    texts = dict(zip(positions.tolist(), pool_texts(snapshot, positions), strict=True))
    for each in shown:
        each.text = texts[each.position]
        each.contributions = explain(each.text[:EXPLAINED], spec, ratios[targets.index(each.target)])


# --- plots and tables ---------------------------------------------------------------------------------------------


def length_bin(n_tokens: np.ndarray) -> np.ndarray:
    """Return the bin of :func:`dsir_dagster.assets.plots.lengths` that each length is in."""
    return np.minimum(np.floor(4 * np.log2(np.maximum(n_tokens, 1)) + 1e-9), plots.LENGTHS - 1).astype(
        np.int64
    )


def weights_plot(selection: Selection, picks: pa.Table, look: Look) -> plots.Plot:
    """Plot the log weights of the eligible documents and of those picked."""
    by_target = []
    for target in selection.targets:
        mine = picks.filter(pc.equal(picks["target"], target)).sort_by([("key", "descending")])
        rows = np.zeros(len(mine), dtype=CANDIDATE)
        rows["log_weight"], rows["key"] = mine["log_weight"].to_numpy(), mine["key"].to_numpy()
        by_target.append(rows)
    return plots.log_weights(selection.targets, look.histograms, by_target, selection.keys_are_log_weights)


def lengths_plot(picks: pa.Table, look: Look) -> plots.Plot:
    """Plot the lengths of the pool's documents and of those picked."""
    picked = np.bincount(length_bin(picks["n_tokens"].to_numpy()), minlength=plots.LENGTHS)
    return plots.lengths(look.lengths, picked)


def bars_table(plot: plots.Plot, targets: list[str]) -> Table:
    """Return the numbers behind a plot of log weights, as they are drawn."""
    rows = []
    for ax, target in zip(plot.figure.axes, targets, strict=False):
        eligible, picked = (patch.get_data() for patch in ax.patches)
        for low, n, m in zip(eligible.edges, eligible.values, picked.values, strict=False):
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
    return Table([Column("tokens of a document"), *(Column(name, "number", 1) for name in columns)], rows)


def numbers_behind(plot: str, targets: list[str], metrics: Metrics) -> Table | None:
    """Return a table of the numbers that a plot shows: a row for every group of bars, a column for every pick."""
    views = ("over_random", "over_random_independent_hash", "over_random_unhashed")
    rows = {
        "KL reduction, plot": [(target, target, "kl_reduction") for target in targets],
        "KL reduction over random, plot": [(view.replace("_", " "), "", view) for view in views],
    }.get(plot)
    if rows is None:
        return None

    def cell(target: str, metric: str, pick: str) -> tuple[float, ...] | None:
        value, low, high, sd = (
            metrics.get(metric, pick, target, each) for each in ("value", "low", "high", "sd")
        )
        if sd is not None:
            return value, 2 * sd
        return None if value is None else (value, low, high)

    cells = [(name, *(cell(target, metric, pick) for pick in metrics.picks)) for name, target, metric in rows]
    columns = [
        Column(pick.replace("_", "-"), "spread" if pick == "random" else "interval", 4)
        for pick in metrics.picks
    ]
    return Table([Column("nats"), *columns], cells)


#: Colors of a plot, and those of the page that stand for them.
COLORS = {
    plots.INK: "currentColor",
    plots.POOL: "var(--pool)",
    plots.SELECTION: "var(--accent)",
    "#e9ecf0": "var(--line)",
    "#9aa1ab": "var(--muted)",
}


def svg(plot: plots.Plot) -> "Markup":
    """Draw a plot as SVG whose colors and letters are those of the page, with its notes below."""
    import matplotlib
    from markupsafe import Markup, escape

    file = io.StringIO()
    # As text, so that it can be read, searched, and is no larger than it has to be; the same bytes every time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.alt}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        plot.figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    # Ids are only told apart within one plot.
    prefix = re.sub(r"\W", "-", plot.alt)
    drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", drawn)
    for theirs, ours in COLORS.items():
        drawn = drawn.replace(theirs, ours)
    drawn = drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(plot.alt)}" ', 1)
    notes = "".join(f"<figcaption>{escape(note)}</figcaption>" for note in plot.notes)
    return Markup(f'<figure><div class="plot">{drawn}</div>{notes}</figure>')


# --- how it was made ----------------------------------------------------------------------------------------------


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
    """Yield the outputs that the selection was made of: name, fingerprint, Dagster run, when; shards by run."""

    def row(output: Output) -> tuple[str, str, str, str]:
        found = output.found
        return output.name, found.fingerprint, found.run_id, when(found.finished_at)

    yield row(source)
    for outputs in (map(plan.weights, plan.counted), map(plan.raw_counts, plan.counted)):
        runs: dict[str, list[Output]] = {}
        for output in outputs:
            runs.setdefault(output.found.run_id, []).append(output)
        for run_id, of_run in runs.items():
            if len(of_run) == 1:
                yield row(of_run[0])
            else:
                last = max(each.found.finished_at for each in of_run)
                yield f"{of_run[0].asset}, {len(of_run):,} shards", "", run_id, when(last)
        if of_run[0].asset == "weights":
            yield row(plan.importance_estimator)
            yield from ([row(plan.raw_distribution)] if plan.raw_distribution else [])
            yield from (row(plan.target_counts(target)) for target in selection.targets)


def when(time: datetime) -> str:
    """Return a time to the second, with its zone."""
    return f"{time:%Y-%m-%d %H:%M:%S %Z}".strip()


def template() -> "Template":
    """Return the page."""
    return templates().get_template("report.html")


@cache
def templates() -> "Environment":
    """Return what templates are read and filled in with."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: visible(value, keep=LETTERS) if type(value) is str else value,
    )
    environment.filters["nats"] = lambda value: f"{value:+,.2f}"
    environment.filters["number"] = lambda value: (
        f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else value
    )
    environment.filters["svg"] = svg
    environment.tests["plot"] = lambda value: isinstance(value, plots.Plot)
    return environment
