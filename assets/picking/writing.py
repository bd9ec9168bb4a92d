"""The picks of a selection as a table and their original records as files.

What belongs here: from positions to rows and records. What does not: formats of records
(``resources/record_writer.py``).
"""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from dsir.selection import joined
from dsir_dagster.assets.picking.rows import RowsOfShard, read_rows
from dsir_dagster.resources.groups import by_file, read_first_rows
from dsir_dagster.resources.plan import Output
from dsir_dagster.resources.record_writer import PROVENANCE, PROVENANCE_OF_PIECES, Part, RecordWriter
from dsir_dagster.resources.records import Records, counted_texts, read_pieces, read_records
from dsir_dagster.resources.settings import Selection
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import PIECE, table


def picks_table(
    snapshot: Snapshot, selection: Selection, output: Output, epochs: list[np.ndarray]
) -> pa.Table:
    """Return the picked documents with their ids and sources, in order of epoch, target and rank."""
    rows = joined(epochs)
    # NumPy sorts small integers in one pass.
    shards = rows["shard"].astype(np.min_scalar_type(len(snapshot.plan.counted)))
    order = np.argsort(shards, kind="stable")
    there, first = np.unique(shards[order], return_index=True)
    picked_rows = np.split(rows["row"][order], first[1:])
    chunked = any(source.chunk_words is not None for source in snapshot.settings.raw)
    columns = ["doc_id", "source", *(PIECE if chunked else ())]
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
    return table(
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


def write_records(
    snapshot: Snapshot,
    picks: pa.Table,
    content_hash: np.ndarray,
    folder: Path,
    output: Literal["jsonl", "jsonl.zst", "parquet"],
) -> list[Part]:
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
    provenance = ordered.select((PROVENANCE if whole else PROVENANCE_OF_PIECES).names)
    provenance = provenance.to_struct_array().combine_chunks()
    epochs, shards, content_hash = epochs[order], shards[order], content_hash[order]
    starts = np.flatnonzero(
        np.concatenate([[True], (shards[1:] != shards[:-1]) | (epochs[1:] != epochs[:-1])])
    )

    def reading(start: int, stop: int) -> Iterator[Records]:
        shard = snapshot.plan.counted[shards[start]]
        file, counts = snapshot.plan.shards[shard], snapshot.plan.raw_counts(shard).origin
        source = snapshot.settings.source(file.source)
        wanted = ordered.slice(start, stop - start)
        pieces = source.chunk_words is not None
        rows = wanted["record" if pieces else "row"].to_numpy()
        for uri, records, at in by_file(file, read_first_rows(snapshot.store, file, counts), rows):
            if pieces:
                begins, ends = (wanted[name].to_numpy()[at] for name in ("begin_byte", "end_byte"))
                read = read_pieces(uri, source, records, begins, ends)
            else:
                read = read_records(uri, source, records)
            yield from counted_texts(uri, shard, source, records, content_hash[start:stop][at], read)

    bounds = itertools.pairwise([*starts.tolist(), len(ordered)])
    streams = [partial(reading, *each) for each in bounds]
    done = 0
    with RecordWriter(folder, output) as writer:
        for records in snapshot.engine.chain(streams):
            writer.write(records, provenance[done : done + len(records)])
            done += len(records)
        return writer.close()
