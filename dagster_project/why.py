"""``dsir why``: one document, from the raw file to its place in a selection or outside it.

What belongs here: combining what the catalog, the store and the file know about a document, and showing it. What does
not: its key, the threshold and the verdict (``sql/macros_why.sql``), its lineage (``sql/macros_lineage.sql``), the
n-grams' contributions (``dsir/explain.py``).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

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
from dsir_dagster.resources.settings.types import meant
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.status import print_absent
from dsir_dagster.terminal import Terminal, Text, grid

#: N-grams shown for a document, n-grams shown against it, and pieces of a record.
SHOWN = 10


@dataclass(frozen=True)
class ForTarget:
    """A document beside one target.

    Attributes
    ----------
    verdict : dict
        The row of the macro `why`.
    ngrams : list of Contribution, optional
        Those that count most for the document come first, those that count most against it last; None if its text was
        not read.
    """

    verdict: dict[str, Any]
    ngrams: Sequence[Contribution] | None


@dataclass(frozen=True)
class Explained:
    """One document: where it is, its verdicts, and every step between its file and the selection."""

    doc_id: str
    source: str
    file: str
    row_in_file: int
    bytes: tuple[int, int] | None
    tokens: int
    targets: Sequence[ForTarget]
    made_by: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Why:
    """What there is to say of an id; the keys of ``dsir why --json``.

    Attributes
    ----------
    doc_id, selection : str
    documents : list of Explained
        Every document with this id.
    pieces : list of dict
        If it is the id of a record that was cut into pieces: the first of them, picked ones first.
    absent : dict of str to str
        Why sources and targets have no files at all; see `Workspace.known_plan`.
    """

    doc_id: str
    selection: str
    documents: Sequence[Explained]
    pieces: Sequence[dict[str, Any]]
    absent: dict[str, str]


def collect_why(workspace: Workspace, doc_id: str, name: str) -> Why:
    """Explain a document's place in a selection.

    Parameters
    ----------
    workspace : Workspace
    doc_id : str
        Ids need not be unique: every document with this one is explained. If it is the id of a record that was cut
        into pieces, these are listed.
    name : str
        Name of the selection.

    Raises
    ------
    ConfigError
        No selection has this name, or no document or record has this id.
    dagster.Failure
        The selection is not materialized, or not from the current inputs.
    """
    names = [selection.name for selection in workspace.settings.selections]
    if name not in names:
        raise ConfigError(
            f"no selection is named '{name}'; there are: {', '.join(names)}{meant(name, names)}"
        )
    snapshot, absent = Snapshot.known(workspace)
    current_selection(snapshot.plan, name)
    rows = workspace.catalog.query("why_document", doc_id=doc_id, selection=name).to_pylist()
    if not rows:
        query = {"doc_id": doc_id, "selection": name, "shown": SHOWN}
        if pieces := workspace.catalog.query("why_pieces", **query).to_pylist():
            return Why(doc_id, name, [], pieces, absent)
        raise ConfigError(
            f"no document has the id {doc_id!r}; look for it with: "
            "SELECT doc_id FROM documents WHERE doc_id LIKE '%…%'"
        )
    targets, ratios = read_log_ratios(snapshot)
    spec = workspace.settings.features.spec()
    documents = []
    for shard, row in dict.fromkeys((each["shard"], each["row"]) for each in rows):
        mine = [each for each in rows if (each["shard"], each["row"]) == (shard, row)]
        first = mine[0]
        there = f"source {snapshot.plan.shards[shard].source}" not in absent
        text = read_text(snapshot, first) if there and first["log_weight"] is not None else None
        explained = [
            ForTarget(
                each, None if text is None else explain(text, spec, ratios[targets.index(each["target"])])
            )
            for each in mine
        ]
        piece = None if first["record"] is None else (first["begin_byte"], first["end_byte"])
        chain = workspace.catalog.query("why_chain", version=first["version"], shard=shard).to_pylist()
        file, n_tokens = file_of(snapshot, first), first["n_tokens"]
        documents.append(
            Explained(
                first["doc_id"],
                first["source"],
                file,
                first["row_in_file"],
                piece,
                n_tokens,
                explained,
                chain,
            )
        )
    return Why(doc_id, name, documents, [], absent)


def print_why(why: Why, console: Terminal) -> None:
    """Show a document's place in a selection."""
    print_absent(why.absent, console)
    if why.pieces:
        _print_pieces(why.doc_id, why.pieces, why.selection, console)
    for document in why.documents:
        _print_document(document, console)
        for each in document.targets:
            _print_target(each.verdict, console)
            if each.ngrams is not None:
                _print_ngrams(each.ngrams, console)
        _print_chain(document.made_by, console)


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


def _print_document(document: Explained, console: Terminal) -> None:
    console.print(Text(f"{document.doc_id!r}", style="bold"), Text(f"of source {document.source}"))
    place = f"{document.file}, row {document.row_in_file} (from 0)"
    if document.bytes is not None:
        begin, end = document.bytes
        place += f", bytes {begin:,} to {end:,} of its text"
    console.print(f"  file       {place}", soft_wrap=True)
    console.print(f"  tokens     {document.tokens:,}")


def _print_pieces(doc_id: str, pieces: Sequence[dict[str, Any]], selection: str, console: Terminal) -> None:
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


def _print_ngrams(contributions: Sequence[Contribution], console: Terminal) -> None:
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


def _print_chain(steps: Sequence[dict[str, Any]], console: Terminal) -> None:
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
