"""``dsir report``: one page in the terminal on what was read, what was picked, and where it is.

What belongs here: layout. What does not: the figures (``sql/report_*.sql``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from dsir_dagster.assets.importance_estimator import Drift, measure_drift
from dsir_dagster.resources.borders import several, visible
from dsir_dagster.resources.lineage import output_name
from dsir_dagster.resources.plan import Output
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.status import print_absent
from dsir_dagster.terminal import Terminal, Text, grid, or_dash

QUERIES = (
    (
        "the best documents of a selection",
        "SELECT rank, source, doc_id, round(log_weight, 1) AS log_weight\n"
        "FROM selections WHERE selection = '{selection}' ORDER BY rank LIMIT 10;",
    ),
    (
        "mean log weight of every source of the pool",
        "SELECT source, target, count(*) AS documents, round(avg(log_weight), 1) AS mean_log_weight\n"
        'FROM weights JOIN documents USING (shard, "row") GROUP BY ALL ORDER BY mean_log_weight DESC;',
    ),
    (
        "what was computed, when, by which Dagster run",
        "SELECT asset, partition, fingerprint, run_id, finished_at, rows, bytes\n"
        "FROM lineage ORDER BY finished_at DESC LIMIT 20;",
    ),
)

#: Columns that a narrow terminal has no room for; the first to go comes first.
FIRST_TO_GO = (
    "distinct\nn-grams",
    "effective\nsample size",
    "KL reduction\n(paper)",
    "on plain\nn-grams",
)
COLUMNS = (
    Column("selection"),
    Column("method"),
    Column("tokens", "number", 0),
    Column("over\nrandom", "nats"),
    Column("its 95%\ninterval", "range"),
    Column("on plain\nn-grams", "nats"),
    Column("KL reduction\n(paper)", "nats"),
    Column("distinct\nn-grams", "number", 0),
    Column("same\npicks", "share"),
    Column("effective\nsample size", "size"),
)


@dataclass(frozen=True)
class Report:
    """What was read and picked; the keys of ``dsir report --json``.

    Attributes
    ----------
    absent : dict of str to str
        Why sources and targets have no files at all; see `Workspace.known_plan`.
    catalog : Path
    pool : dict
        Its size; ``uncounted`` shards are not counted, or changed since.
    drift : Drift, optional
        From the distribution that the estimator is pinned to.
    selections : list of dict
        Each with its ``picks``, measured: its own, where ``pick`` is None, and those of other methods; and with its
        ``composition``, shares of the documents by source.
    notes : list of str
        On selections that are not up to date.
    """

    absent: Mapping[str, str]
    catalog: str
    pool: dict[str, Any]
    drift: Drift | None
    selections: Sequence[dict[str, Any]]
    notes: Sequence[str]


def collect_report(workspace: Workspace) -> Report:
    """Return the report of the configured selections, each in the version that this configuration asks for.

    If that version was never made, the report shows the latest one and calls it stale. It leaves out a version that
    cannot belong to this configuration because its targets or all of its shards are others.
    """
    snapshot, absent = Snapshot.known(workspace)
    catalog, plan = workspace.catalog, snapshot.plan
    [pool] = catalog.query("report_pool", shards=sorted(plan.shards)).to_pylist()
    pool |= {"uncounted": len(plan.uncounted), "of_shards": len(plan.shards)}
    if not pool["shards"]:
        return Report(absent, str(catalog.path), pool, None, [], [])
    pinned = plan.raw_distribution and plan.raw_distribution.state == "fresh"
    drift = measure_drift(snapshot) if pinned else None
    selections, notes = _choose(snapshot)
    names, versions = [row["selection"] for row in selections], [row["version"] for row in selections]
    measured = (
        catalog.query("report_methods", selections=names, versions=versions).to_pylist() if names else []
    )
    for row in selections:
        choice = {"selection": row["selection"], "version": row["version"]}
        row["composition"] = catalog.query("report_composition", **choice).to_pylist()
        row["picks"] = [each for each in measured if each["selection"] == row["selection"]]
        for each in ("configuration", "inputs"):
            del row[each]
    return Report(absent, str(catalog.path), pool, drift, selections, notes)


def print_report(report: Report, console: Terminal) -> None:
    """Print a report."""
    print_absent(report.absent, console)
    if not report.pool["shards"]:
        console.print("Nothing is computed yet; `dsir run` does that.", soft_wrap=True)
        return
    console.print()
    print_pool(report.pool, report.drift, console)
    if report.selections:
        _print_verdicts(report.selections, console)
        _print_selections(report.selections, console)
    else:
        console.print("No selection is materialized yet; `dsir run` does that.", soft_wrap=True)
    for note in report.notes:
        console.print(note, style="yellow", soft_wrap=True)
    if report.selections:
        _print_compositions(report.selections, console)
        _print_files(report, console)
        _print_queries(report.selections[0]["selection"], console)


def print_pool(pool: dict[str, Any], drift: Drift | None, console: Terminal) -> None:
    """Show what was read, how much was not, and how far the pool has drifted from a pinned distribution."""
    text = (
        f"  {several(pool['documents'], 'document')} in {several(pool['shards'], 'shard')}, "
        f"{several(pool['tokens'], 'token')}, {pool['megabytes']:,.1f} MB of text, "
        f"counted at {pool['megabytes_per_second']:,.0f} MB/s; {several(pool['quarantined'], 'row')} quarantined"
    )
    console.print(Text.assemble(("Pool", "bold"), text))
    if pool["uncounted"]:
        are = "is" if pool["uncounted"] == 1 else "are"
        says = f"{pool['uncounted']:,} of {several(pool['of_shards'], 'shard')} {are} not counted, or changed since"
        console.print(says, style="yellow")
    if drift is not None:
        text = str(drift)
        console.print(text[0].upper() + text[1:], style=None if drift.passed else "yellow")


def _choose(snapshot: Snapshot) -> tuple[list[dict], list[str]]:
    """Return a row for each selection to show, and notes on those that are not up to date."""
    wanted = {output.partition: output for output in snapshot.plan.outputs_of("selections")}
    versions = [output.fingerprint for output in wanted.values()]
    made = snapshot.catalog.query(
        "report_selections", selections=list(wanted), wanted=versions, home=str(snapshot.home)
    ).to_pylist()
    targets = {target.name for target in snapshot.settings.targets}
    weights = {output_name("weights", shard) for shard in snapshot.plan.shards}
    shown, notes = [], []
    for row in made:
        name = row["selection"]
        its_targets = set(json.loads(row["configuration"])["targets"])
        if its_targets <= targets and not weights.isdisjoint(row["inputs"]):
            shown.append(row)
            note = _note(row, wanted[name], snapshot.plan.output("evaluations", name))
        else:
            note = f"{name}: the one on disk is of another configuration; `dsir run` makes this one's"
        notes += [note] if note else []
    return shown, notes


def _note(row: dict, selection: Output, evaluation: Output) -> str:
    """Say why a selection that is shown is not up to date; '' if it is."""
    name = row["selection"]
    if row["version"] != selection.fingerprint and row["overridden"]:
        return f"{name} was overridden in the launchpad, `dsir run` goes back: {selection.why}"
    if row["version"] != selection.fingerprint:
        return f"{name} is stale: {selection.why}"
    if not row["current"]:
        return (
            f"{name}: a version with another configuration was made since; the catalog's views show that one, and "
            "`dsir run` goes back to this one"
        )
    late = next((each for each in (selection, evaluation) if each.state != "fresh"), None)
    if late is None:
        return ""
    return f"{name if late is selection else late.name} is {late.state}: {late.why}"


def _print_selections(selections: Sequence[dict[str, Any]], console: Terminal) -> None:
    """Show each selection, and below it the picks of other methods, in as many columns as there is room for."""
    rows = [row for selection in selections for row in _selection_rows(selection)]
    console.print()
    says = (
        "  and other methods' picks of the same size. KL reduction over random picks, in nats, measured on "
    )
    console.print(Text.assemble(("Selections", "bold"), says, measured_on(selections)))
    unlimited = console.options.update(width=1_000)
    for n_left_out in range(len(FIRST_TO_GO) + 1):
        shown = [i for i, column in enumerate(COLUMNS) if column.name not in FIRST_TO_GO[:n_left_out]]
        table = Table([COLUMNS[i] for i in shown], [[row[i] for i in shown] for row in rows])
        laid_out = grid(table, gap=1, styles=["" if row[0] else "dim" for row in rows])
        if console.measure(laid_out, options=unlimited).maximum <= console.width:
            break
    console.print(laid_out)
    if n_left_out:
        more = several(n_left_out, "more column")
        console.print(f"{more} in a wider terminal, or in the report's file", style="dim")


def measured_on(selections: Sequence[dict[str, Any]]) -> str:
    """Say which text was measured on, by selection where it is not the same for all of them."""
    by_text: dict[str, list[str]] = {}
    for row in selections:
        if row["measured_on"]:
            by_text.setdefault(row["measured_on"], []).append(row["selection"])
    if len(by_text) < 2:
        return next(iter(by_text), "target text")  # none is evaluated
    return "; ".join(f"{text}: {', '.join(names)}" for text, names in by_text.items())


def _selection_rows(selection: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """Yield a selection's own row, then a row for each pick that it was compared with; as in `COLUMNS`."""
    for row in selection["picks"] or [{"pick": None, "tokens": selection["tokens"]}]:
        own = row["pick"] is None
        yield (
            selection["selection"] if own else "",
            selection["method"] if own else f"  {row['pick']}",
            row["tokens"],
            or_dash(row.get("over_random")),
            None if row.get("low") is None else (row["low"], row["high"]),
            row.get("over_random_unhashed"),
            row.get("kl_reduction"),
            row.get("distinct_ngrams"),
            None if own else or_dash(row.get("agreement")),
            or_dash(selection["effective_sample_size"]) if own else None,
        )


#: How a verdict's level looks.
STYLES = {"good": "green", "caution": "yellow", "bad": "bold red"}


def _print_verdicts(selections: Sequence[dict[str, Any]], console: Terminal) -> None:
    """Show what the numbers of each selection mean, in a sentence."""
    rows = [
        (row["selection"], Text(row["verdict_level"], STYLES[row["verdict_level"]]), row["verdict"])
        for row in selections
        if row["verdict"] is not None
    ]
    if rows:
        console.print()
        console.print("Verdicts", style="bold")
        columns = [Column("selection"), Column("level"), Column("what the numbers mean; more in its report")]
        console.print(grid(Table(columns, rows), gap=1))


def _print_compositions(selections: Sequence[dict[str, Any]], console: Terminal) -> None:
    """Show the share of each source in the pool and in each selection."""
    pool: dict[str, float] = {}
    shares: dict[str, dict[str, float]] = {}
    for row in selections:
        for entry in row["composition"]:
            pool[entry["source"]] = entry["pool_share"]
            shares.setdefault(row["selection"], {})[entry["source"]] = entry["selection_share"]
    if not shares:
        return
    first = next(iter(shares.values()))
    bar = max(4, min(30, console.width - 24 - 10 * (1 + len(shares))))  # what the other columns leave
    rows = [
        (
            source or "(empty)",
            pool[source],
            *(or_dash(mine.get(source)) for mine in shares.values()),
            Text("█" * round(first.get(source, 0.0) * bar), style="green"),
        )
        for source in sorted(pool, key=lambda source: -first.get(source, 0.0))
    ]
    columns = [Column("source"), *(Column(name, "share") for name in ("pool", *shares)), Column(" ")]
    console.print()
    says = "  share of the documents: pool → selection"
    console.print(Text.assemble(("Where the documents come from", "bold"), says))
    console.print(grid(Table(columns, rows), gap=1))


def _print_files(report: Report, console: Terminal) -> None:
    console.print()
    console.print("Files", style="bold")
    files = [("catalog", report.catalog)]
    for row in report.selections:
        files += [(row["selection"], row["folder"])]
        files += [("", row["report"])] if row["report"] else []
    width = max(cell_len(visible(name)) for name, _ in files)
    for name, path in files:
        console.print(f"  {name}{' ' * (width - cell_len(visible(name)))}  {path}", soft_wrap=True)


def _print_queries(selection: str, console: Terminal) -> None:
    console.print()
    rest = " with `dsir status`, `dsir ui` for the Dagster UI, or SQL on the catalog:"
    console.print(Text.assemble(("Go on", "bold"), rest), soft_wrap=True)
    for title, query in QUERIES:
        console.print(f"  -- {title}", style="dim")
        for line in query.format(selection=selection).split("\n"):
            console.print(f"  {line}", soft_wrap=True)
