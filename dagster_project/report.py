"""``dsir report``: a terminal page on what was read, what was picked, and where it is.

What belongs here: layout. What does not: the figures (``sql/report_*.sql``).
"""

from __future__ import annotations

import json

from dsir_dagster.assets.importance_estimator import measure_drift
from dsir_dagster.resources.lineage import output_name
from dsir_dagster.resources.plan import Plan
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.terminal import Terminal, Text, absences, grid

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

#: Columns that a narrow terminal has no room for, the first to be left out first.
FIRST_TO_GO = ("\nnot hashed", "distinct\nn-grams", "effective\nsample size", "over random,\nother hash")
COLUMNS = (
    Column("selection"),
    Column("method"),
    Column("\ntokens", "number", 0),
    Column("KL\nreduction", "number", 3),
    Column("\n95 % interval", "range"),
    Column("over random,\nother hash", "number", 3),
    Column("\nnot hashed", "number", 3),
    Column("distinct\nn-grams", "number", 0),
    Column("same\npicks", "share", 0),
    Column("effective\nsample size", "number", 1),
)


def print_report(workspace: Workspace, console: Terminal) -> None:
    """Print the report of the configured selections: of each, the version that this configuration asks for.

    Where that was not made, the one made last is shown, and said to be stale. One that cannot be of this configuration,
    since its targets or all its shards are others, is not shown.

    Parameters
    ----------
    workspace : Workspace
    console : Terminal
    """
    catalog = workspace.catalog
    plan, absent = workspace.known_plan()
    snapshot = Snapshot(workspace, plan)
    for line in absences(absent):
        console.print(line, soft_wrap=True)
    pool = catalog.query("report_pool", shards=sorted(plan.shards)).to_pylist()[0]
    if not pool["shards"]:
        console.print("Nothing is computed yet; `dsir run` does that.")
        return
    console.print()
    _print_pool(pool, plan, console)
    if plan.raw_distribution and plan.raw_distribution.state == "fresh":
        drift = measure_drift(snapshot)
        text = str(drift)
        console.print(Text(text[0].upper() + text[1:], style="" if drift.passed else "yellow"))
    selections, notes = _choose(snapshot)
    if selections:
        _print_selections(workspace, selections, console)
    else:
        console.print("No selection is materialized yet; `dsir run` does that.")
    for note in notes:
        console.print(Text(note, style="yellow"))
    if not selections:
        return
    _print_compositions(workspace, selections, console)
    console.print()
    console.print("Files", style="bold")
    console.print(f"  catalog   {catalog.path}", soft_wrap=True)
    for row in selections:
        console.print(f"  {row['selection']}   {row['folder']}", soft_wrap=True)
        if row["report"]:
            console.print(f"  {' ' * len(row['selection'])}   {row['report']}", soft_wrap=True)
    console.print()
    rest = " with `dsir status`, `make dev` for the Dagster UI, or SQL on the catalog:"
    console.print(Text.assemble(("Go on", "bold"), rest))
    for title, query in QUERIES:
        console.print(f"  -- {title}", style="dim")
        for line in query.format(selection=selections[0]["selection"]).split("\n"):
            console.print(f"  {line}", soft_wrap=True)


def _print_pool(pool: dict, plan: Plan, console: Terminal) -> None:
    text = (
        f"  {pool['documents']:,} documents in {pool['shards']} shards, "
        f"{pool['tokens']:,} tokens, {pool['megabytes']:,.1f} MB of text, "
        f"counted at {pool['megabytes_per_second']:,.0f} MB/s; {pool['quarantined']:,} rows quarantined"
    )
    console.print(Text.assemble(("Pool", "bold"), text))
    if plan.uncounted:
        waiting = (
            f"{len(plan.uncounted)} of {len(plan.shards)} shards are not counted yet, or not as they are now"
        )
        console.print(Text(waiting, style="yellow"))


def _choose(snapshot: Snapshot) -> tuple[list[dict], list[str]]:
    """Return a row for each selection that is shown, and what there is to say of those that are not up to date."""
    wanted = {output.partition: output for output in snapshot.plan.outputs_of("selections")}
    versions = [output.fingerprint for output in wanted.values()]
    made = snapshot.catalog.query("report_selections", selections=list(wanted), wanted=versions).to_pylist()
    targets = {target.name for target in snapshot.plan.settings.targets}
    weights = {output_name("weights", shard) for shard in snapshot.plan.shards}
    shown, notes = [], []
    for row in made:
        name, output = row["selection"], wanted[row["selection"]]
        its_targets = set(json.loads(row["configuration"])["targets"])
        evaluation = snapshot.plan.output("evaluations", output.partition)
        if not its_targets <= targets or weights.isdisjoint(row["inputs"]):
            notes.append(
                f"{name}: what is there under this name is of another configuration; `dsir run` makes this one's"
            )
            continue
        shown.append(row)
        if row["version"] != output.fingerprint and row["overridden"]:
            notes.append(f"{name} was overridden in the launchpad, `dsir run` goes back: {output.why}")
        elif row["version"] != output.fingerprint:
            notes.append(f"{name} is stale: {output.why}")
        elif not row["current"]:
            notes.append(
                f"{name}: a version that is configured otherwise was made since; it is what the catalog's views show, "
                "and `dsir run` goes back to this one"
            )
        elif output.state != "fresh":
            notes.append(f"{name} is {output.state}: {output.why}")
        elif evaluation.state != "fresh":
            notes.append(f"{evaluation.name} is {evaluation.state}: {evaluation.why}")
    return shown, notes


def _print_selections(workspace: Workspace, selections: list[dict], console: Terminal) -> None:
    """Show each selection, and below it the picks that it was compared with."""
    names, versions = [row["selection"] for row in selections], [row["version"] for row in selections]
    measured = workspace.catalog.query("report_methods", selections=names, versions=versions).to_pylist()
    rows: list[list[object]] = []
    for row in selections:
        mine = [each for each in measured if each["selection"] == row["selection"]]
        for each in mine or [{"pick": None, "tokens": row["tokens"]}]:
            own = each["pick"] is None
            rows.append(
                [
                    row["selection"] if own else "",
                    row["method"] if own else f"  {each['pick']}",
                    each["tokens"],
                    _or_dash(each.get("kl_reduction")),
                    None if each.get("low") is None else (each["low"], each["high"]),
                    each.get("independent_hash"),
                    each.get("unhashed"),
                    each.get("distinct_ngrams"),
                    None if own else _or_dash(each.get("agreement")),
                    _or_dash(row["effective_sample_size"]) if own else None,
                ]
            )
    console.print()
    says = "  and other methods' picks of the same size. KL reduction in nats, on held-out target text where there is "
    console.print(Text.assemble(("Selections", "bold"), says, "some"))
    unlimited = console.options.update(width=1_000)
    for n_left_out in range(len(FIRST_TO_GO) + 1):
        shown = [i for i, each in enumerate(COLUMNS) if each.name not in FIRST_TO_GO[:n_left_out]]
        table = Table([COLUMNS[i] for i in shown], [[row[i] for i in shown] for row in rows])
        laid_out = grid(table, gap=1, styles=["" if row[0] else "dim" for row in rows])
        if console.measure(laid_out, options=unlimited).maximum <= console.width:
            break
    console.print(laid_out)
    if n_left_out:
        console.print(f"{n_left_out} columns more in a wider terminal, or in the report's file", style="dim")


def _print_compositions(workspace: Workspace, selections: list[dict], console: Terminal) -> None:
    """Show the share of each source in the pool and in each selection."""
    compositions = {
        row["selection"]: workspace.catalog.query(
            "report_composition", selection=row["selection"], version=row["version"]
        ).to_pylist()
        for row in selections
    }
    compositions = {name: rows for name, rows in compositions.items() if rows}
    if not compositions:
        return
    sources = {entry["source"]: entry["pool_share"] for rows in compositions.values() for entry in rows}
    shares = {
        (name, entry["source"]): entry["selection_share"]
        for name, rows in compositions.items()
        for entry in rows
    }
    shown = (Column(name, "share") for name in ("pool", *compositions))
    rows = []
    first = next(iter(compositions))
    for source in sorted(sources, key=lambda name: -shares.get((first, name), 0.0)):
        share = shares.get((first, source), 0.0)
        of_selections = (_or_dash(shares.get((name, source))) for name in compositions)
        bar = Text("█" * round(share * 30), style="green")
        rows.append((source or "(empty)", sources[source], *of_selections, bar))
    console.print()
    says = "  share of the documents: pool → selection"
    console.print(Text.assemble(("Where the documents come from", "bold"), says))
    console.print(grid(Table([Column("source"), *shown, Column(" ")], rows), gap=1))


def _or_dash(value: float | None) -> float | Text:
    return Text("-") if value is None else value
