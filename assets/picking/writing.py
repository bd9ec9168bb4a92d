"""The picks of a selection as a table and their original records as files.

What belongs here: from positions to rows and records, which records a file has. What does not: formats of records
(``resources/record_writer.py``).
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa

from dsir.selection import joined
from dsir_dagster.assets.picking.rows import RowsOfShard, read_rows
from dsir_dagster.resources.compute import Tell, Worker
from dsir_dagster.resources.groups import by_file, read_first_rows
from dsir_dagster.resources.plan import Output, ShardFile
from dsir_dagster.resources.record_writer import PROVENANCE, PROVENANCE_OF_PIECES, RecordWriter
from dsir_dagster.resources.records import Records, counted_texts, read_pieces, read_records
from dsir_dagster.resources.settings import Selection
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import PIECE, NewFolder, Origin, Written, table


def picks_table(
    snapshot: Snapshot, selection: Selection, output: Output, epochs: list[np.ndarray]
) -> tuple[pa.Table, np.ndarray]:
    """Return the picked documents in order of epoch, target and rank, and the bytes of each one's text."""
    rows = joined(epochs)
    # NumPy sorts small integers in one pass.
    shards = rows["shard"].astype(np.min_scalar_type(len(snapshot.plan.counted)))
    order = np.argsort(shards, kind="stable")
    there, first = np.unique(shards[order], return_index=True)
    picked_rows = np.split(rows["row"][order], first[1:])
    chunked = any(source.chunk_words is not None for source in snapshot.settings.raw)
    columns = ["doc_id", "source", "n_bytes", *(PIECE if chunked else ())]
    plan = snapshot.plan
    items = (
        RowsOfShard.of(plan, plan.counted[index], mine)
        for index, mine in zip(there, picked_rows, strict=True)
    )
    ids = list(snapshot.compute.map(partial(read_rows, columns=columns, dictionaries=["source"]), items))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    named = pa.concat_tables(ids).unify_dictionaries().take(pa.array(back))
    epoch = np.repeat(np.arange(1, len(epochs) + 1), [len(each) for each in epochs])
    group = epoch * len(selection.targets) + rows["target"]
    first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    rank = np.arange(len(rows)) - np.repeat(first, np.diff([*first, len(rows)])) + 1
    n_bytes = named["n_bytes"].to_numpy()
    named = named.drop_columns("n_bytes")
    picks = table(
        "selections",
        {
            "selection": selection.name,
            "version": output.fingerprint,
            "epoch": epoch,
            "rank": rank,
            "target": pa.DictionaryArray.from_arrays(rows["target"], selection.targets),
            "shard": pa.DictionaryArray.from_arrays(rows["shard"], snapshot.plan.counted),
            "row": rows["row"],
            **{name: named[name].combine_chunks() for name in named.column_names},
            "n_tokens": rows["n_tokens"],
            "log_weight": rows["log_weight"],
            "key": rows["key"],
        },
    )
    return picks, n_bytes


Format: TypeAlias = Literal["jsonl", "jsonl.zst", "parquet"]

#: Bytes of text in a file of records; one with more has a single document.
FILE_BYTES = 256 << 20
#: Bytes of the pool's files that a task reads, unless one of them is larger.
READ_BYTES = 8 << 30


@dataclass(frozen=True)
class RecordsToWrite:
    """Chosen documents of some shards, whose records go together into files of their own.

    Attributes
    ----------
    shards : list of (ShardFile, Origin, int, int)
        Each shard, the origin of its counts, and which of the documents below are its own: the first, and the one after
        the last.
    rows : Table
        Columns ``row`` and `PIECE` of the documents.
    content_hash : ndarray of uint64
    provenance : pyarrow.StructArray
    sizes : list of int
        Records of each file.
    first : int
        Number of the first file.
    folder : NewFolder
    format : {"jsonl", "jsonl.zst", "parquet"}
    """

    shards: list[tuple[ShardFile, Origin, int, int]]
    rows: pa.Table
    content_hash: np.ndarray
    provenance: pa.StructArray
    sizes: list[int]
    first: int
    folder: NewFolder
    format: Format


def write_records(
    snapshot: Snapshot,
    picks: pa.Table,
    content_hash: np.ndarray,
    n_bytes: np.ndarray,
    folder: NewFolder,
    output: Format,
    tell: Tell,
) -> dict[str, Written]:
    """Write the original records of the picks, in order of epoch, shard and row; return the files.

    For a piece: its record, with the piece in place of the text.

    Raises
    ------
    CorpusError
        A file is missing or damaged, or a text in it is not the one that was counted.
    """
    epochs, rows = picks["epoch"].to_numpy(), picks["row"].to_numpy()
    shards = picks["shard"].combine_chunks().indices.to_numpy()  # into the sorted list of counted shards
    order = np.lexsort((rows, shards, epochs))
    ordered = picks.take(pa.array(order))
    whole = picks["record"].null_count == len(picks)
    recorded = (PROVENANCE if whole else PROVENANCE_OF_PIECES).names
    epochs, shards = epochs[order], shards[order]
    content_hash, n_bytes = content_hash[order], n_bytes[order]
    another = (shards[1:] != shards[:-1]) | (epochs[1:] != epochs[:-1])
    bounds = [*np.flatnonzero(np.concatenate([[True], another])).tolist(), len(ordered)]
    files = [snapshot.plan.shards[snapshot.plan.counted[shards[start]]] for start in bounds[:-1]]
    text = np.add.reduceat(n_bytes, bounds[:-1]).tolist()
    runs = runs_of(text, [file.size for file in files])

    def items() -> Iterator[RecordsToWrite]:
        number = 0
        for first, last in runs:
            start, stop = bounds[first], bounds[last]
            # Copied: a slice of an Arrow table is pickled with all of the table.
            mine = ordered.take(pa.array(np.arange(start, stop)))
            sizes = cut(n_bytes[start:stop])
            yield RecordsToWrite(
                [
                    (
                        files[i],
                        snapshot.plan.raw_counts(files[i].shard).origin,
                        bounds[i] - start,
                        bounds[i + 1] - start,
                    )
                    for i in range(first, last)
                ],
                mine.select(["row", *PIECE]),
                content_hash[start:stop],
                mine.select(recorded).to_struct_array().combine_chunks(),
                sizes,
                number,
                folder,
                output,
            )
            number += len(sizes)

    written: dict[str, Written] = {}
    tell(part="writing records", of=len(picks))
    for (first, last), each in zip(runs, snapshot.compute.map_threaded(write_files, items()), strict=True):
        written |= each
        n_records = bounds[last] - bounds[first]
        tell(documents=n_records, bytes=sum(text[first:last]), work=n_records)
    return written


def runs_of(text: Sequence[int], sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Divide shards into runs, each with no more to write and to read than a task has; or with one shard.

    Parameters
    ----------
    text : sequence of int
        Bytes of text to be written from each shard.
    sizes : sequence of int
        Bytes of each shard's file.

    Returns
    -------
    list of (int, int)
        First shard of each run, and the one after its last.
    """
    starts, to_write, to_read = [0], 0, 0
    for i, (writing, reading) in enumerate(zip(text, sizes, strict=True)):
        to_write, to_read = to_write + writing, to_read + reading
        if i > starts[-1] and (to_write > FILE_BYTES or to_read > READ_BYTES):
            starts.append(i)
            to_write, to_read = writing, reading
    return list(itertools.pairwise([*starts, len(text)]))


def cut(n_bytes: np.ndarray) -> list[int]:
    """Return how many of some records go into each file, by the bytes of their texts."""
    ends = np.cumsum(n_bytes)
    sizes, done = [], 0
    while done < len(ends):
        before = int(ends[done - 1]) if done else 0
        stop = max(int(np.searchsorted(ends, before + FILE_BYTES, "right")), done + 1)
        sizes.append(stop - done)
        done = stop
    return sizes


def write_files(worker: Worker, item: RecordsToWrite) -> dict[str, Written]:
    """Read the chosen records of some shards, and write them into files."""
    chain = worker.engine.chain([partial(read_chosen, worker, item, *shard) for shard in item.shards])
    names: list[str] = []
    with closing(chain):
        pieces = pieces_of(chain, item.sizes)
        done = 0
        for number, of_file in enumerate(pieces, item.first):
            name = f"records-{number:05d}.{item.format}"
            names.append(f"{item.folder.name}/{name}")
            with (
                worker.store.file_of(item.folder, name) as path,
                RecordWriter(path, item.format) as writer,
            ):
                for records in of_file:
                    writer.write(records, item.provenance[done : done + len(records)])
                    done += len(records)
    return worker.store.written(*names)


def pieces_of(stream: Iterator[Records], sizes: Sequence[int]) -> Iterator[Iterator[Records]]:
    """Yield the records of each file, which are to be consumed before the next file's.

    The last file's end with the stream, which compares some texts only then.
    """
    rest: Records | None = None
    last = len(sizes) - 1

    def take(numbered: tuple[int, int]) -> Iterator[Records]:
        nonlocal rest
        number, n = numbered
        while n:
            records = next(stream) if rest is None else rest
            rest = records.slice(n) if len(records) > n else None
            records = records.slice(0, n)
            n -= len(records)
            yield records
        if number == last and next(stream, None) is not None:
            raise AssertionError("more records than were chosen")

    return map(take, enumerate(sizes))


def read_chosen(
    worker: Worker, item: RecordsToWrite, file: ShardFile, counts: Origin, start: int, stop: int
) -> Iterator[Records]:
    """Read the chosen records of a shard; refuse texts that are not those that were counted."""
    source, wanted = worker.settings.source(file.source), item.rows.slice(start, stop - start)
    content_hash = item.content_hash[start:stop]
    pieces = source.chunk_words is not None
    rows = wanted["record" if pieces else "row"].to_numpy()
    for uri, records, at in by_file(file, read_first_rows(worker.store, file, counts), rows):
        if pieces:
            begins, ends = (wanted[name].to_numpy()[at] for name in ("begin_byte", "end_byte"))
            found = read_pieces(uri, source, records, begins, ends)
        else:
            found = read_records(uri, source, records)
        yield from counted_texts(uri, file.shard, source, records, content_hash[at], found)
