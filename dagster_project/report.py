"""``dsir report``: a terminal page on what was read, what was picked, and where it is.

What belongs here: layout. What does not: the figures (``sql/report_*.sql``).
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from assets.importance_estimator import measure_drift
from resources.workspace import Workspace

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


def print_report(workspace: Workspace, console: Console) -> None:
    """Print the report of the configured selections.

    Parameters
    ----------
    workspace : Workspace
    console : rich.console.Console
    """
    catalog = workspace.catalog
    plan = workspace.plan()
    pool = catalog.query("report_pool", shards=sorted(plan.shards)).to_pylist()[0]
    if not pool["shards"]:
        console.print("Nothing is computed yet; `dsir run` does that.")
        return
    console.print()
    console.print(
        f"[bold]Pool[/]  {pool['documents']:,} documents in {pool['shards']} shards, "
        f"{pool['tokens']:,} tokens, {pool['megabytes']:,.1f} MB of text, "
        f"counted at {pool['megabytes_per_second']:,.0f} MB/s; {pool['quarantined']:,} rows quarantined"
    )
    if plan.raw_distribution and plan.raw_distribution.state == "fresh":
        drift = measure_drift(workspace, plan)
        text = str(drift)
        console.print(Text(text[0].upper() + text[1:], style="" if drift.passed else "yellow"))
    names = [selection.name for selection in workspace.settings.selections]
    selections = catalog.query("report_selections", selections=names).to_pylist()
    if not selections:
        console.print("No selection is materialized yet; `dsir run` does that.")
        return

    table = _table(
        "selection",
        "method",
        ">\ntokens",
        ">KL\nreduction",
        ">\n95 % interval",
        ">over random,\nother hash",
        ">\nnot hashed",
        ">distinct\nn-grams",
        ">same\npicks",
        ">effective\nsample size",
    )
    measured = catalog.query("report_methods", selections=names).to_pylist()
    for row in selections:
        mine = [each for each in measured if each["selection"] == row["selection"]]
        for each in mine or [{"pick": None, "tokens": row["tokens"]}]:
            own = each["pick"] is None
            interval = ""
            if each.get("low") is not None:
                interval = f"{each['low']:.3f} to {each['high']:.3f}"
            table.add_row(
                row["selection"] if own else "",
                row["method"] if own else f"  {each['pick']}",
                f"{each['tokens']:,.0f}",
                _number(each.get("kl_reduction"), "{:.3f}"),
                interval,
                _number(each.get("independent_hash"), "{:.3f}", ""),
                _number(each.get("unhashed"), "{:.3f}", ""),
                _number(each.get("distinct_ngrams"), "{:.0f}", ""),
                "" if own else _number(each.get("agreement"), "{:.0%}"),
                _number(row["effective_sample_size"], "{:,.1f}") if own else "",
                style="" if own else "dim",
            )
    console.print()
    console.print(
        "[bold]Selections[/]  and other methods' picks of the same size. KL reduction in nats, on held-out target text "
        "where there is some"
    )
    console.print(table)

    compositions = {
        row["selection"]: catalog.query("report_composition", selection=row["selection"]).to_pylist()
        for row in selections
    }
    sources = {entry["source"]: entry["pool_share"] for rows in compositions.values() for entry in rows}
    shares = {
        (name, entry["source"]): entry["selection_share"]
        for name, rows in compositions.items()
        for entry in rows
    }
    table = _table("source", ">pool", *(f">{name}" for name in compositions), " ")
    first = next(iter(compositions))
    for source in sorted(sources, key=lambda name: -shares.get((first, name), 0.0)):
        share = shares.get((first, source), 0.0)
        table.add_row(
            source,
            f"{sources[source]:.1%}",
            *(_number(shares.get((name, source)), "{:.1%}") for name in compositions),
            Text("█" * round(share * 30), style="green"),
        )
    if sources:
        console.print()
        console.print("[bold]Where the documents come from[/]  share of the documents: pool → selection")
        console.print(table)

    console.print()
    console.print("[bold]Files[/]")
    console.print(f"  catalog   {catalog.path}", soft_wrap=True)
    for row in selections:
        console.print(f"  {row['selection']}   {row['folder']}", soft_wrap=True)
        if row["report"]:
            console.print(f"  {' ' * len(row['selection'])}   {row['report']}", soft_wrap=True)
    console.print()
    console.print("[bold]Go on[/] with `dsir status`, `make dev` for the Dagster UI, or SQL on the catalog:")
    for title, query in QUERIES:
        console.print(f"  [dim]-- {title}[/]")
        text = query.format(selection=selections[0]["selection"])
        console.print(Text("  " + text.replace("\n", "\n  ")), soft_wrap=True)


def _table(*headers: str) -> Table:
    """Make a plain table; a header that begins with > is right-aligned."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for header in headers:
        table.add_column(
            header.removeprefix(">"), justify="right" if header.startswith(">") else "left", no_wrap=True
        )
    return table


def _number(value: float | None, form: str, absent: str = "-") -> str:
    return absent if value is None else form.format(value)
