"""``dsir why``: one document, from the raw file to its place in a selection or outside it.

What belongs here: combining what the catalog, the store and the file know about a document, and showing it. What does
not: its key, the threshold and the verdict (``sql/macros_why.sql``), its lineage (``sql/macros_lineage.sql``), the
n-grams' contributions (``dsir/explain.py``).
"""

from __future__ import annotations

import shlex
from itertools import zip_longest

import numpy as np

from dsir.explain import Contribution, explain
from dsir.selection import pack_position
from dsir_dagster.assets.evaluations import current_selection
from dsir_dagster.assets.importance_estimator import read_log_ratios
from dsir_dagster.assets.picking.rows import rows_by_shard
from dsir_dagster.assets.picking.texts import texts_of_shard
from dsir_dagster.resources.groups import GROUP, by_file, read_first_rows
from dsir_dagster.resources.lineage import output_name
from dsir_dagster.resources.settings import ConfigError
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.status import print_absent
from dsir_dagster.terminal import Terminal, Text, grid

#: N-grams shown for a document, n-grams shown against it, and pieces of a record.
SHOWN = 10


def print_why(workspace: Workspace, doc_id: str, name: str, console: Terminal) -> None:
    """Explain a document's place in a selection.

    Parameters
    ----------
    workspace : Workspace
    doc_id : str
        Ids need not be unique: every document with this one is explained. If it is the id of a record that was cut
        into pieces, these are listed.
    name : str
        Name of the selection.
    console : Terminal

    Raises
    ------
    ConfigError
        No selection has this name, or no document or record has this id.
    dagster.Failure
        The selection is not materialized, or not from the current inputs.
    """
    names = [selection.name for selection in workspace.settings.selections]
    if name not in names:
        raise ConfigError(f"no selection is named '{name}'; there are: {', '.join(names)}")
    snapshot, absent = Snapshot.known(workspace)
    print_absent(absent, console)
    current_selection(snapshot.plan, name)
    rows = workspace.catalog.query("why_document", doc_id=doc_id, selection=name).to_pylist()
    if not rows:
        query = {"doc_id": doc_id, "selection": name, "shown": SHOWN}
        if pieces := workspace.catalog.query("why_pieces", **query).to_pylist():
            _print_pieces(doc_id, pieces, name, console)
            return
        raise ConfigError(
            f"no document has the id {doc_id!r}; look for it with: "
            "SELECT doc_id FROM documents WHERE doc_id LIKE '%…%'"
        )
    targets, ratios = read_log_ratios(snapshot)
    for shard, row in dict.fromkeys((each["shard"], each["row"]) for each in rows):
        mine = [each for each in rows if (each["shard"], each["row"]) == (shard, row)]
        _print_document(mine[0], file_of(snapshot, mine[0]), console)
        there = f"source {snapshot.plan.shards[shard].source}" not in absent
        text = read_text(snapshot, mine[0]) if there and mine[0]["log_weight"] is not None else None
        for each in mine:
            _print_target(each, console)
            if text is not None:
                spec = workspace.settings.features.spec()
                _print_ngrams(explain(text, spec, ratios[targets.index(each["target"])]), console)
        chain = workspace.catalog.query("why_chain", version=mine[0]["version"], shard=shard)
        _print_chain(chain.to_pylist(), console)


def read_text(snapshot: Snapshot, document: dict) -> str:
    """Read one document's text from its file; for a piece of a record, the piece.

    Parameters
    ----------
    snapshot
    document : dict
        Its shard and row, as in the view `documents`.

    Raises
    ------
    CorpusError
        The file no longer has the row, or has another text there.
    """
    position = pack_position(snapshot.plan.counted.index(document["shard"]), document["row"])
    [shard] = rows_by_shard(snapshot.plan, np.array([position]))
    [text] = texts_of_shard(snapshot.workspace.worker, shard)  # here, whatever works on whole pools
    return text


def file_of(snapshot: Snapshot, document: dict) -> str:
    """Return where the file with a document is now, or was the last time."""
    file = snapshot.plan.shards[document["shard"]]
    if not file.files:
        return document["uri"]
    row = document["row"] if document["record"] is None else document["record"]
    counts = snapshot.plan.raw_counts(file.shard).origin
    [(uri, _, _)] = by_file(file, read_first_rows(snapshot.store, file, counts), np.array([row]))
    return uri


def _print_document(row: dict, uri: str, console: Terminal) -> None:
    console.print(Text(f"{row['doc_id']!r}", style="bold"), Text(f"of source {row['source']}"))
    place = f"{uri}, row {row['row_in_file']} (from 0)"
    if row["record"] is not None:
        place += f", bytes {row['begin_byte']:,} to {row['end_byte']:,} of its text"
    console.print(f"  file       {place}", soft_wrap=True)
    console.print(f"  tokens     {row['n_tokens']:,}")


def _print_pieces(doc_id: str, pieces: list[dict], selection: str, console: Terminal) -> None:
    """Show what a record was cut into: picked pieces first."""
    n, picked = pieces[0]["pieces"], pieces[0]["picked"]
    console.print(
        f"{doc_id!r} is the id of a record that was cut into {n:,} documents, {picked:,} of them picked; "
        f"name one, as in `dsir why {shlex.quote(pieces[0]['doc_id'])} --selection {selection}`",
        soft_wrap=True,
    )
    columns = [Column("  document"), Column("tokens", "whole"), Column("rank", "whole")]
    rows = [
        (
            f"  {piece['doc_id']}",
            piece["n_tokens"],
            Text("not picked") if piece["rank"] is None else piece["rank"],
        )
        for piece in pieces
    ]
    console.print(grid(Table(columns, rows)))
    if n > len(pieces):
        console.print(f"  and {n - len(pieces):,} more")


def _print_target(row: dict, console: Terminal) -> None:
    known = [
        f"{name.replace('_', ' ')} {row[name]:{form}}"
        for name, form in (("log_weight", ",.3f"), ("noise", "+.3f"), ("key", ",.3f"))
        if row[name] is not None
    ]
    epoch = f", epoch {row['epoch']}" if row["epoch"] > 1 else ""
    console.print(f"  target     {row['target']}{epoch}: {', '.join(known) or 'not known'}")
    style = "green" if row["picked_for"] else "yellow"
    console.print(Text(f"  verdict    {row['verdict']}", style=style), soft_wrap=True)


def _print_ngrams(contributions: list[Contribution], console: Terminal) -> None:
    """Show the n-grams that speak most for the document beside those that speak most against it."""
    best = [each for each in contributions if each.nats > 0][:SHOWN]
    worst = [each for each in contributions[::-1] if each.nats < 0][:SHOWN]
    columns = [
        Column("  speaks for it"),
        Column("nats", "signed", 2),
        Column("speaks against it"),
        Column("nats", "signed", 2),
    ]
    rows = [
        (*_cells(for_it, indent="  "), *_cells(against_it)) for for_it, against_it in zip_longest(best, worst)
    ]
    console.print(grid(Table(columns, rows)))


def _cells(contribution: Contribution | None, indent: str = "") -> tuple[str | None, float | None]:
    if contribution is None:
        return None, None
    times = f" ({contribution.count} times)" if contribution.count > 1 else ""
    return f"{indent}{contribution.ngram[:30]}{times}", contribution.nats


def _print_chain(steps: list[dict], console: Terminal) -> None:
    """Show every step between the raw file and the selection: fingerprint, run, time."""
    columns = [Column(name) for name in ("  made by", "fingerprint", "Dagster run", "at")]
    rows = [
        (
            f"  {output_name(step['asset'], step['partition'])}",
            step["fingerprint"],
            step["run_id"],
            f"{step['finished_at']:%Y-%m-%d %H:%M:%S}",
        )
        for step in steps
    ]
    console.print(grid(Table(columns, rows)))
    for step in steps:
        if step["sha256"]:
            of = "names and stamps of the shard's files" if step["sha256"].startswith(GROUP) else "file"
            stamp = step["sha256"].removeprefix(GROUP)
            console.print(f"  SHA-256 of the {of}: {stamp}", soft_wrap=True)
