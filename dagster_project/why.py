"""``dsir why``: one document, from the raw file to its place in a selection or outside of it.

What belongs here: putting together what the catalog, the store and the file say of a document, and showing
it. What does not: the n-grams' contributions (``dsir/explain.py``), the queries (``sql/why_*.sql``).
"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from assets.evaluations import current_selection
from assets.importance_estimator import read_log_ratios
from assets.selections import noise_stream
from dsir.explain import Contribution, explain
from dsir.hashing import gumbel_noise
from resources.corpus import CorpusError, read_blocks
from resources.plan import Output, Plan
from resources.settings import ConfigError, Selection
from resources.workspace import Workspace

#: N-grams shown for a document, and as many against it.
SHOWN = 10


def print_why(workspace: Workspace, doc_id: str, name: str, console: Console) -> None:
    """Explain a document's place in a selection.

    Parameters
    ----------
    workspace : Workspace
    doc_id : str
        Every document of this id is explained; ids need not be unique.
    name : str
        Name of the selection.
    console : rich.console.Console

    Raises
    ------
    ConfigError
        No selection or no document has this name.
    dagster.Failure
        The selection is not materialized, or not from the inputs of today.
    """
    names = [selection.name for selection in workspace.settings.selections]
    if name not in names:
        raise ConfigError(f"no selection is named '{name}'; there are: {', '.join(names)}")
    plan = workspace.plan()
    selection, output = current_selection(plan, name)
    rows = workspace.catalog.query(
        "why_document", doc_id=doc_id, selection=name, targets=selection.targets
    ).to_pylist()
    if not rows:
        raise ConfigError(
            f"no document has the id {doc_id!r}; look for it with: "
            "SELECT doc_id FROM documents WHERE doc_id LIKE '%…%'"
        )
    thresholds = {
        row["target"]: row for row in workspace.catalog.query("why_thresholds", selection=name).to_pylist()
    }
    targets, ratios = read_log_ratios(workspace, plan)
    for position in dict.fromkeys((row["shard"], row["row"]) for row in rows):
        mine = [row for row in rows if (row["shard"], row["row"]) == position]
        text = read_text(workspace, plan, *position)
        _print_document(plan, mine[0], console)
        for row in mine:
            threshold = thresholds.get(row["target"])
            _print_target(selection, row, threshold and threshold["threshold"], console)
            contributions = explain(
                text, workspace.settings.features.spec(), ratios[targets.index(row["target"])]
            )
            _print_ngrams(contributions, console)
        _print_chain(plan, output, position[0], console)


def read_text(workspace: Workspace, plan: Plan, shard: str, row: int) -> str:
    """Read one document's text from its file.

    Raises
    ------
    CorpusError
        The file has no such row any more.
    """
    file = plan.shards[shard]
    source = workspace.settings.source(file.source)
    for block in read_blocks(file.uri, source):
        batch = block.parse()
        at = np.flatnonzero(batch.rows == row)
        if len(at):
            return batch.texts[int(at[0])].as_py()
    raise CorpusError(f"{file.uri}: no usable record at row {row}; the file changed since it was counted")


def _print_document(plan: Plan, row: dict, console: Console) -> None:
    console.print(Text(f"{row['doc_id']!r}", style="bold"), Text(f"of source {row['source']}"))
    file = plan.shards[row["shard"]]
    console.print(f"  file       {file.uri}, row {row['row']} (from 0)", soft_wrap=True, markup=False)
    console.print(f"  tokens     {row['n_tokens']:,}", markup=False)


def _print_target(selection: Selection, row: dict, threshold: float | None, console: Console) -> None:
    log_weight = row["log_weight"]
    noise = 0.0
    if selection.method == "resample":
        stream = noise_stream(selection, row["target"])
        noise = float(gumbel_noise(np.array([row["content_hash"]], np.uint64), selection.seed, stream)[0])
    key = log_weight + noise
    console.print(
        f"  target     {row['target']}: log weight {log_weight:,.3f}, noise {noise:+.3f}, key {key:,.3f}",
        markup=False,
    )
    if row["n_tokens"] < selection.min_tokens:
        verdict = f"not eligible: it has {row['n_tokens']} tokens, min_tokens is {selection.min_tokens}"
    elif threshold is None:
        verdict = "nothing was picked for this target"
    elif row["picked_for"] == row["target"]:
        verdict = (
            f"picked, rank {row['rank']:,}; above the threshold {threshold:,.3f} by {key - threshold:,.3f}"
        )
    elif row["picked_for"]:
        verdict = f"not picked for this target, since picked for {row['picked_for']} (rank {row['rank']:,})"
    else:
        verdict = f"not picked; below the threshold {threshold:,.3f} by {threshold - key:,.3f}"
    console.print(Text(f"  verdict    {verdict}", style="green" if row["picked_for"] else "yellow"))


def _print_ngrams(contributions: list[Contribution], console: Console) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("  speaks for it", "nats", "speaks against it", "nats"):
        table.add_column(header, justify="right" if header == "nats" else "left", no_wrap=True)
    best = [each for each in contributions if each.nats > 0][:SHOWN]
    worst = [each for each in contributions[::-1] if each.nats < 0][:SHOWN]
    for i in range(max(len(best), len(worst))):
        cells: list[str | Text] = []
        for side in (best, worst):
            if i < len(side):
                times = f" ({side[i].count} times)" if side[i].count > 1 else ""
                indent = "  " if side is best else ""
                cells += [Text(f"{indent}{side[i].ngram[:30]}{times}"), f"{side[i].nats:+.2f}"]
            else:
                cells += ["", ""]
        table.add_row(*cells)
    console.print(table)


def _print_chain(plan: Plan, selection: Output, shard: str, console: Console) -> None:
    """Show every step between the raw file and the selection: fingerprint, run, time."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for header in ("  made by", "fingerprint", "Dagster run", "at"):
        table.add_column(header)
    for output in (plan.raw_counts(shard), plan.importance_estimator, plan.weights(shard), selection):
        found = output.found
        table.add_row(
            Text(f"  {output.name}"),
            found["fingerprint"],
            found["run_id"],
            f"{found['finished_at']:%Y-%m-%d %H:%M:%S}",
        )
    console.print(table)
    console.print(f"  SHA-256 of the file: {plan.shards[shard].stamp}", soft_wrap=True, markup=False)
