"""``raw_counts``: read a shard once, cache every document's hashed n-grams, add them up.

What belongs here: from a shard's files to its documents, features, totals and quarantine. What does not: parsing
(``resources/corpus/``), counting (``dsir.features``).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsir.evaluation import duplicates
from dsir.features import Features, FeatureSpec, featurize, hash_strings
from dsir_dagster.assets.materialize import Result, bring_up_to_date, rate
from dsir_dagster.assets.picking.candidates import QUALITY_COLUMNS
from dsir_dagster.resources.compute import Tell, Worker
from dsir_dagster.resources.corpus import (
    BLANK_LINE,
    Block,
    CorpusError,
    Rejected,
    TextBatch,
    is_still,
    no_usable_row,
    read_blocks,
)
from dsir_dagster.resources.graph import Asset, Check, Context, Inputs, Made, Partitions, RunOptions
from dsir_dagster.resources.groups import files_columns
from dsir_dagster.resources.plan import WORDS_COUNTED, Output, Plan, ShardFile
from dsir_dagster.resources.plots import Plot
from dsir_dagster.resources.settings import RawSource, Target
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import PIECE, FileKind, Origin, schema_of, table
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace

#: Rows gathered before they are written as a row group of Parquet.
ROW_GROUP = 1 << 17

#: What is said of a file that is another one by the time it is counted.
REPLACED = (
    "replaced or written to after it was found: nothing of it is used; run again once nobody writes to it"
)


def count_shards(context: Context, workspace: Workspace, keys: Sequence[str], options: RunOptions) -> Made:
    """Bring the counts of some shards up to date, as :func:`dsir_dagster.assets.materialize.bring_up_to_date` does."""
    plan = workspace.plan()
    gone = {
        f"raw_counts[{key}]": CorpusError(
            "no file of the pool has this shard key any longer; the catalog's table `shards` says where it was, "
            "and `dsir prune` removes its partition"
        )
        for key in keys
        if key not in plan.shards
    }

    def item_of(output: Output) -> ShardToCount:
        quarantine = workspace.store.name("quarantine", output.partition)
        listed = output.found is not None and quarantine in output.found.files
        return ShardToCount(plan.shards[output.partition], output.origin, listed)

    outputs = [plan.raw_counts(key) for key in keys if key in plan.shards]

    def work_of(output: Output) -> int:
        return plan.shards[output.partition].size

    yield from bring_up_to_date(
        context, workspace, "raw_counts", outputs, count_shard, options, gone, item_of, work_of
    )


@dataclass(frozen=True)
class ShardToCount:
    """What a shard's counts are made of.

    Attributes
    ----------
    file : ShardFile
    origin : Origin
        Of its counts.
    keeps_quarantine : bool
        Whether a quarantine file belongs to what was counted before, and so has to stay if nothing can be counted now.
    """

    file: ShardFile
    origin: Origin
    keeps_quarantine: bool


def count_shard(worker: Worker, item: ShardToCount, tell: Tell) -> Result:
    """Featurize one shard and write its files."""
    started = time.monotonic()
    store = worker.store
    spec = worker.settings.features.spec()
    shard, parts, source = item.file.shard, item.file.parts, worker.settings.source(item.file.source)
    n_rows = [0] * len(parts)
    ends = np.cumsum([part.size for part in parts])

    def blocks() -> Iterator[tuple[int, int, Block]]:
        """Yield the blocks of all files, each with its file's place and the shard's row at which the file begins."""
        first_row = 0
        for at, part in enumerate(parts):
            with closing(read_blocks(part.uri, source)) as found:
                for block in found:
                    n_rows[at] = max(n_rows[at], block.end)
                    yield at, first_row, block
            if not is_still(part.uri, part.size, part.modified, part.stamp):
                raise CorpusError(f"{part.uri}: {REPLACED}")
            first_row += n_rows[at]

    def work(
        numbered: tuple[int, int, Block],
    ) -> tuple[int, int, int, TextBatch, Features, pa.RecordBatch]:
        at, first_row, block = numbered
        batch = block.parse()
        if source.chunk_words is not None:
            batch = batch.cut(source.chunk_words)
        features = featurize(batch.texts, spec, quality=worker.settings.filters_by_quality)
        return at, first_row, block.read, batch, features, features.to_arrow()

    totals = np.zeros(spec.buckets, dtype=np.int64)
    tally, read = Tally(), 0  # of the files' bytes
    usable = np.zeros(len(parts), dtype=np.int64)
    reasons: list[Counter[str]] = [Counter() for _ in parts]
    schema = featurize(pa.array([], pa.string()), spec).to_arrow().schema
    features_name = store.name("features", shard)
    documents_name = store.name("documents", shard)
    quarantine_name = store.name("quarantine", shard)
    with ExitStack() as files:
        quarantine = files.enter_context(ExitStack())

        def row_groups(name: str, kind: str, join: Join, until: ExitStack = files) -> RowGroups:
            return RowGroups(until.enter_context(store.table_writer(name, kind, item.origin)), join)

        def counted(blocks: list[dict[str, Any]]) -> pa.Table:
            documents = documents_table(shard, source.name, blocks, spec)
            tally.count(documents)
            return documents

        features_file = files.enter_context(store.features_writer(features_name, schema, item.origin))
        document_rows, quarantine_rows = row_groups(documents_name, "documents", counted), None
        for at, first_row, n_read, batch, features, packed in worker.engine.map_blocks(work, blocks()):
            if batch.rejected:
                quarantine_rows = quarantine_rows or row_groups(
                    quarantine_name, "quarantine", pa.concat_tables, quarantine
                )
                quarantine_rows.add(rejected_table(shard, batch.rejected, first_row), len(batch.rejected))
            features_file.write_batch(packed)
            features.add_totals(totals)
            documents = document_columns(parts[at].shard, first_row, batch, features, int(usable.sum()))
            tally.add(batch)
            usable[at] += len(batch.rows)
            reasons[at].update(row.reason for row in batch.rejected)
            document_rows.add(documents, len(batch.rows))
            reached = max(int(ends[at]) - parts[at].size + min(n_read, parts[at].size), read)
            tell(documents=len(features), bytes=batch.n_bytes, work=reached - read)
            read = reached
        tell(work=item.file.size - read)
        document_rows.write()
        if quarantine_rows:
            quarantine_rows.write()
        for at in np.flatnonzero(usable == 0).tolist():
            if error := no_usable_row(parts[at].uri, source, reasons[at]):
                if not item.keeps_quarantine:
                    quarantine.close()  # keep the file: it holds the reasons
                raise error
    if not tally.reasons:
        store.remove(quarantine_name)
    files_name = store.name("files", shard)
    if item.file.files:
        store.write_table(files_name, "files", files_columns(item.file, n_rows), item.origin)
    else:
        store.remove(files_name)
    used = np.flatnonzero(totals)
    counts_name = store.name("raw_counts", shard)
    store.write_table(
        counts_name,
        "raw_counts",
        {"shard": shard, "bucket": used.astype(np.int32), "count": totals[used]},
        item.origin,
    )
    return Result(
        rows=tally.documents,
        files=store.written(
            features_name,
            documents_name,
            counts_name,
            *([quarantine_name] if tally.reasons else []),
            *([files_name] if item.file.files else []),
        ),
        metadata=metadata(tally, source, int(totals.sum()), rate(tally.bytes, started), item.file),
        tables=tables(tally, totals),
    )


def metadata(
    tally: Tally, source: RawSource, n_ngrams: int, mb_per_s: float, file: ShardFile
) -> dict[str, int | float | str]:
    """Return what the lineage and Dagster say about a shard."""
    if_any = {
        "blank_lines": tally.reasons[BLANK_LINE],  # among the quarantined rows
        "ids_replaced": tally.ids_replaced,
        "sources_replaced": tally.sources_replaced,
    }
    return {
        "documents": tally.documents,
        **({"records": tally.records} if source.chunk_words is not None else {}),
        "tokens": tally.tokens,
        "ngrams": n_ngrams,
        "text_bytes": tally.bytes,
        "MB_per_s": mb_per_s,
        "quarantined_rows": tally.reasons.total(),
        **{name: n for name, n in if_any.items() if n},
        "duplicate_documents": tally.duplicates,
        "file": file.uri,
        **({"files": len(file.files)} if file.files else {}),  # of a group, of which `file` is the first
    }


def tables(tally: Tally, totals: np.ndarray) -> dict[str, Table | Plot]:
    """Return what Dagster shows of a shard as tables."""
    shown: dict[str, Table | Plot] = {"top buckets": top_buckets(totals)}
    if len(tally.sources) > 1:
        shown["documents by source"] = Table(
            [Column("source"), Column("documents", "whole")], tally.sources.most_common(50)
        )
    if tally.reasons:
        shown["quarantined rows by reason"] = by_reason(tally.reasons)
    return shown


@dataclass(frozen=True)
class Quarantined:
    """An output with more quarantined rows than its source or target allows.

    Attributes
    ----------
    output : str
        ``asset[partition]``.
    quarantined, rows : int
        Quarantined rows and all rows, both without blank lines.
    allowed : float
        ``max_quarantined`` of the source or target.
    """

    output: str
    quarantined: int
    rows: int
    allowed: float

    def __str__(self) -> str:
        are = "is" if self.quarantined == 1 else "are"
        return (
            f"{self.output}: {self.quarantined:,} of {self.rows:,} rows {are} quarantined "
            f"({self.quarantined / self.rows:.1%}), and max_quarantined is {self.allowed:g}: name the right fields, "
            "repair the file, or allow more; `FROM quarantine` has the rows of shards with their reasons"
        )


def too_many_quarantined(snapshot: Snapshot) -> list[Quarantined]:
    """Return the counted shards, then targets, with a larger share of quarantined rows than allowed."""
    settings, plan = snapshot.settings, snapshot.plan
    counted: list[tuple[Output, RawSource | Target]] = [
        *((plan.raw_counts(key), settings.source(plan.shards[key].source)) for key in plan.counted),
        *((plan.target_counts(name), settings.target(name)) for name in plan.counted_targets),
    ]
    found = []
    for output, reader in counted:
        made = output.made
        bad = made.count("quarantined_rows") - made.count("blank_lines", 0)
        rows = bad + made.count("records", made.count("documents")) + made.count("holdout_documents", 0)
        if bad > reader.max_quarantined * rows:
            found.append(Quarantined(output.name, bad, rows, reader.max_quarantined))
    return found


def check_quarantine(workspace: Workspace, *_: object) -> dg.AssetCheckResult:
    """Evaluate `few_rows_quarantined` for all counted shards and targets."""
    found = too_many_quarantined(workspace.snapshot())
    rows = [(each.output, each.quarantined, each.rows, each.allowed) for each in found]
    worst = Table(
        [
            Column("output"),
            Column("quarantined", "whole"),
            Column("rows", "whole"),
            Column("max_quarantined", "number"),
        ],
        rows[:50],
    )
    metadata = {"over_the_limit": len(found), "quarantined_rows": sum(each.quarantined for each in found)}
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join(map(str, found[:10])) or None,
        metadata={**metadata, **({"outputs": dg.MetadataValue.md(worst.markdown)} if found else {})},
    )


def report_quarantine(context: Context, workspace: Workspace) -> None:
    """Record the check's result in this run, as Dagster skips the check's own step if the asset yields no output."""
    result = check_quarantine(workspace)
    if not result.passed:
        context.log.warning(result.description)
    evaluation = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("raw_counts"),
        check_name="few_rows_quarantined",
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata,
    )
    context.log_event(evaluation)  # type: ignore[arg-type]  # logged as events are; the annotation omits it


class Tally:
    """Running totals over a shard's documents; `records` counts these where documents are pieces.

    A missing or unusable id is replaced by `<file>:<row>`, such a source by the name of the shard's source.
    """

    def __init__(self) -> None:
        self.documents = self.records = self.tokens = self.bytes = 0
        self.ids_replaced = self.sources_replaced = 0
        self.sources: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()  # of rejected rows
        self._hashes: list[np.ndarray] = []

    def add(self, batch: TextBatch) -> None:
        """Take a batch into account, but for its documents."""
        self.bytes += batch.n_bytes
        self.reasons.update(row.reason for row in batch.rejected)
        self.ids_replaced += batch.ids.null_count if batch.ids is not None else 0
        self.sources_replaced += batch.sources.null_count if batch.sources is not None else 0

    def count(self, documents: pa.Table) -> None:
        """Take documents into account."""
        self.documents += len(documents)
        self.records += pc.sum(pc.equal(documents["begin_byte"], 0)).as_py() or 0
        self.tokens += int(documents["n_tokens"].to_numpy().sum())
        for item in documents["source"].value_counts().to_pylist():
            self.sources[item["values"]] += item["counts"]
        self._hashes.append(documents["content_hash"].to_numpy())

    @property
    def duplicates(self) -> int:
        """Documents whose text occurs earlier in the shard."""
        return duplicates(np.concatenate(self._hashes)) if self._hashes else 0


def document_columns(
    file: str, first_row: int, batch: TextBatch, features: Features, first: int
) -> dict[str, Any]:
    """Return what is kept of a block's documents, by columns of their table.

    A record without an id is called ``<file>:<row>``, by the key that its file has as a shard of its own and by its row
    there; a piece ``<id of the record>#<number>``. Records are numbered through the shard, the file's from `first_row`
    on, and so are pieces, from `first` on, so that shard and row identify a document.
    """
    records = batch.rows + first_row
    ids, rows, piece = batch.ids, records, {}
    if ids is None or ids.null_count:
        position = pa.array([f"{file}:{row}" for row in batch.rows.tolist()], pa.string())
        ids = position if ids is None else pc.coalesce(ids, position)
    if batch.pieces is not None:
        numbers = pa.array(batch.pieces.numbers).cast(pa.string())
        ids = pc.binary_join_element_wise(ids, numbers, "#")
        rows = np.arange(first, first + len(batch.rows))
        piece = {"record": records, "begin_byte": batch.pieces.begins, "end_byte": batch.pieces.ends}
    return {
        "row": rows,
        **piece,
        "doc_id": ids,
        "source": batch.sources,
        "n_tokens": features.n_tokens,
        "n_bytes": text_bytes(batch.texts),
        "content_hash": features.content_hash,
        **(vars(features.word_counts) if features.word_counts else {}),
    }


def documents_table(shard: str, source: str, blocks: Sequence[dict[str, Any]], spec: FeatureSpec) -> pa.Table:
    """Return one row a document of blocks, of which there is at least one.

    All at once, since each step on a table of this width takes as long for a hundred rows as for a thousand.
    """
    columns: dict[str, Any] = {name: _joined([block[name] for block in blocks]) for name in blocks[0]}
    columns["id_hash"] = hash_strings(columns["doc_id"])
    columns["source"] = source if columns["source"] is None else columns["source"].fill_null(source)
    columns["n_ngrams"] = spec.n_ngrams(columns["n_tokens"])
    return table("documents", {"shard": shard, **columns})


def _joined(parts: list) -> np.ndarray | pa.Array | None:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return None if parts[0] is None else pa.concat_arrays(parts)


#: Makes a table of what was gathered.
Join: TypeAlias = Callable[[list], pa.Table]


class RowGroups:
    """Write whole batches as row groups of at least `ROW_GROUP` rows, aligned with the batches of features."""

    def __init__(self, file: pq.ParquetWriter, join: Join) -> None:
        self._file, self._join = file, join
        self._waiting: list = []
        self._rows = 0

    def add(self, batch: object, n_rows: int) -> None:
        """Take a batch, and write a row group once there are enough rows."""
        if n_rows:
            self._waiting.append(batch)
        self._rows += n_rows
        if self._rows >= ROW_GROUP:
            self.write()

    def write(self) -> None:
        """Write the remaining rows."""
        if self._waiting:
            self._file.write_table(self._join(self._waiting), row_group_size=self._rows)
        self._waiting.clear()
        self._rows = 0


def text_bytes(texts: pa.Array) -> np.ndarray:
    """Return the UTF-8 length of every text: ndarray of int64."""
    return pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)


def rejected_table(shard: str, rejected: list[Rejected], first_row: int) -> pa.Table:
    """Return one row an unusable record of a file, which begins at this row of the shard."""
    rows = zip(*((first_row + each.row, each.reason, each.excerpt) for each in rejected), strict=True)
    return table("quarantine", {"shard": shard, **dict(zip(("row", "reason", "excerpt"), rows, strict=True))})


def by_reason(reasons: Counter[str]) -> Table:
    """Return a table of the unusable rows by reason."""
    return Table([Column("reason"), Column("rows", "whole")], reasons.most_common(50))


def top_buckets(totals: np.ndarray) -> Table:
    """Return a table of the 10 largest buckets with their shares of all n-grams."""
    order = np.argsort(-totals, kind="stable")[:10]
    total = max(int(totals.sum()), 1)
    return Table(
        [Column("bucket", "whole"), Column("n-grams", "whole"), Column("share", "share", 2)],
        [(int(b), int(totals[b]), totals[b] / total) for b in order],
    )


def inputs(plan: Plan, shard: str) -> Inputs:
    """Return what a shard's counts are made of."""
    file = plan.shards[shard]
    source = plan.settings.source(file.source)
    made_of = {"file": file.stamp, **plan.reading(source), "source": source.source or source.name}
    if more := dict.fromkeys(needs(plan), "counted"):
        return Inputs({**made_of, **more}, decisive={**made_of, "code": plan.code("raw_counts")})
    return Inputs(made_of)


def needs(plan: Plan) -> tuple[str, ...]:
    """Return what counts need that were made for selections without a quality filter, if one has it now."""
    return (WORDS_COUNTED,) if plan.settings.filters_by_quality else ()


#: One row a document.
DOCUMENTS = FileKind(
    "documents",
    schema_of(
        {
            "shard": pa.string(),
            "row": pa.int64(),
            **PIECE,
            "doc_id": pa.string(),
            "id_hash": pa.uint64(),
            "source": pa.string(),
            "n_tokens": pa.int64(),
            "n_ngrams": pa.int64(),
            "n_bytes": pa.int64(),
            "content_hash": pa.uint64(),
            **dict.fromkeys(QUALITY_COLUMNS, pa.int64()),
        },
        nullable={*PIECE, *QUALITY_COLUMNS},
    ),
)
#: Of a group: its files as they were counted, in order, and the rows of the shard that each has.
FILES = FileKind(
    "files",
    schema_of(
        {
            "shard": pa.string(),
            "name": pa.string(),
            "uri": pa.string(),
            "first_row": pa.int64(),
            "rows": pa.int64(),
            "size": pa.int64(),
            "stamp": pa.string(),
        }
    ),
)
#: Unusable rows with the reason.
QUARANTINE = FileKind(
    "quarantine",
    schema_of({"shard": pa.string(), "row": pa.int64(), "reason": pa.string(), "excerpt": pa.string()}),
    read_by_others=False,
)

RAW_COUNTS = Asset(
    name="raw_counts",
    version="8",
    description=(
        "Sparse counts of hashed n-grams of every document of a shard, and their totals.\n\n"
        "Reads the shard's files once and tokenizes nothing twice: everything downstream works on what "
        "is cached here. Unusable rows go to `quarantine` with their reason; a file that cannot be read, or has "
        "no usable row, fails its own partition and no other."
    ),
    partitions=Partitions.SHARDS,
    inputs=inputs,
    needs=needs,
    step=count_shards,
    finish=report_quarantine,
    group="counts",
    kinds=("numba", "arrow", "parquet"),
    files=(
        FileKind("features", pattern="{partition}.arrow"),  # sparse counts of every document, Arrow IPC
        DOCUMENTS,
        FILES,
        QUARANTINE,
        FileKind("raw_counts", schema_of({"shard": pa.string(), "bucket": pa.int32(), "count": pa.int64()})),
    ),
    checks=(
        Check(
            name="few_rows_quarantined",
            description=(
                "No shard or target has more quarantined rows than its `max_quarantined` allows. The table "
                "`quarantine` has the rows of shards with their reasons: name the right fields, repair the files, or "
                "allow more."
            ),
            evaluate=check_quarantine,
            by_partition=False,
            due=lambda snapshot, made: (),  # `report_quarantine` covers all shards and targets at once
        ),
    ),
)
