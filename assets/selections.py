"""``selections``: the picked documents, and their original records.

What belongs here: from a configured selection to a folder with picks and, where they are asked for, records. What
does not: how documents are ranked and picked (``assets/methods/``), formats of records
(``resources/record_writer.py``), how good the selection is, and how that is shown (``assets/evaluations.py``).
"""

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pydantic

from dsir import near_duplicates
from dsir.selection import Budget, joined
from dsir_dagster.assets.candidates import CRITERIA, Candidates, Documents
from dsir_dagster.assets.materialize import (
    Context,
    Made,
    Result,
    RunOptions,
    bring_up_to_date,
    one_by_one,
)
from dsir_dagster.assets.methods import Picked, pick
from dsir_dagster.assets.methods.ranking import noise_keys
from dsir_dagster.resources.graph import Asset, Check, Inputs, Partitions
from dsir_dagster.resources.lineage import output_name
from dsir_dagster.resources.plan import Output, Plan, canonical
from dsir_dagster.resources.progress import Progress
from dsir_dagster.resources.record_writer import PROVENANCE, PROVENANCE_OF_PIECES, Part, RecordWriter
from dsir_dagster.resources.records import Records, counted_texts, read_pieces, read_records
from dsir_dagster.resources.settings import ConfigError, Selection, Size, methods
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import PIECE, REPEATED, FileKind, Stamp, schema_of, sealed_writer, table
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace


class SelectionOptions(RunOptions):
    """Parameters of a selection to override for one run, in the launchpad.

    Attributes
    ----------
    method, min_tokens, temperature, length, collapse_duplicates, epochs, seed, output
        As in the configuration; None leaves the configuration's value.
    quality
        True for the paper's bounds, False for none.
    documents, fraction, tokens
        Size; at most one of them, None leaves the configuration's size.
    """

    method: str | None = None
    documents: int | None = None
    fraction: float | None = None
    tokens: int | None = None
    min_tokens: int | None = None
    quality: bool | None = None
    temperature: float | None = None
    length: str | None = None
    collapse_duplicates: bool | None = None
    epochs: int | None = None
    seed: int | None = None
    output: str | None = None

    def apply(self, selection: Selection) -> Selection:
        """Return the selection with the given parameters replaced.

        Raises
        ------
        ConfigError
            The parameters are not valid together.
        """
        values = (selection.by(self.method) if self.method in methods() else selection).model_dump()
        names = ("method", "min_tokens", "quality", "temperature", "length", "collapse_duplicates", "epochs")
        names += ("seed", "output")
        values |= {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        size = {name: getattr(self, name) for name in ("documents", "fraction", "tokens")}
        if any(value is not None for value in size.values()):
            values["size"] = size
        try:
            return Selection.model_validate(values)
        except pydantic.ValidationError as error:
            reasons = "; ".join(
                f"{'.'.join(str(part) for part in e['loc'] if part != 'options')}: {e['msg']}"
                for e in error.errors()
            )
            raise ConfigError(f"selection '{selection.name}', launchpad: {reasons}") from None


def make_selections(
    context: Context, workspace: Workspace, names: Sequence[str], options: SelectionOptions
) -> Made:
    """Bring some selections up to date, as :func:`dsir_dagster.assets.materialize.one_by_one` does."""
    yield from one_by_one(
        "selections", {name: partial(_make_selection, context, workspace, name, options) for name in names}
    )


def _make_selection(context: Context, workspace: Workspace, name: str, options: SelectionOptions) -> Made:
    snapshot = workspace.snapshot()
    if not snapshot.plan.counted:
        raise dg.Failure("no shard is counted yet; materialize raw_counts first", allow_retries=False)
    configured = workspace.settings.selection(name)
    selection = options.apply(configured)
    unknown = [name for name in selection.targets if name not in snapshot.plan.counted_targets]
    if unknown:
        raise dg.Failure(
            f"selection '{selection.name}': the targets {', '.join(unknown)} are not counted; "
            "materialize target_counts, importance_estimator and weights first",
            allow_retries=False,
        )
    if snapshot.plan.without:
        context.log.warning(snapshot.plan.without)

    def compute(output: Output, progress: Progress) -> Result:
        result = select(snapshot, selection, output, progress)
        if selection != configured:
            then, now = configured.model_dump(), selection.model_dump()
            changed = {k: now.get(k) for k in {**then, **now} if now.get(k) != then.get(k)}
            result.metadata["launchpad"] = json.dumps(changed)
        return result

    yield from bring_up_to_date(
        context, workspace, "selections", [output_of(snapshot.plan, selection)], compute, options
    )


def check_selection(workspace: Workspace, name: str, *_: object) -> dg.AssetCheckResult:
    """Say whether the newest version of a selection is what its metadata say it is."""
    latest = workspace.catalog.latest()["selections", name]
    folder = workspace.store.selection_folder(name, latest.fingerprint)
    stamp = Stamp(output_name("selections", name), latest.fingerprint, {})
    columns = ["epoch", "shard", "row", "n_tokens"]
    picks = workspace.store.read_table(folder / "picks.parquet", stamp, columns)
    unique = picks.group_by(["epoch", "shard", "row"]).aggregate([]).num_rows
    expected = latest.metadata
    tokens = pc.sum(picks["n_tokens"]).as_py() or 0
    numbers = {
        "documents": picks.num_rows,
        "documents_expected": expected["documents"],
        "distinct_documents": unique,
        "records_written": expected["records"],
        "tokens": tokens,
        "tokens_expected": expected["tokens"],
    }
    largest = picks.group_by("epoch").aggregate([("n_tokens", "sum"), ("n_tokens", "count")])
    budgets = {"n_tokens_sum": "token_budget", "n_tokens_count": "document_budget"}
    passed = (
        picks.num_rows == unique == expected["documents"]
        and expected["records"] == (0 if expected["output"] == "none" else picks.num_rows)
        and tokens == expected["tokens"]
        and all(pc.max(largest[c]).as_py() <= expected[b] for c, b in budgets.items() if b in expected)
    )
    return dg.AssetCheckResult(passed=passed, metadata=numbers)


@dataclass
class Pool:
    """What one look at the pool's documents says, before anything is picked; ``sources``, where caps name some."""

    documents: int = 0
    eligible: int = 0
    eligible_tokens: int = 0
    longest: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    sources: set[str] = field(default_factory=set)


def survey(candidates: Candidates) -> Pool:
    """Count the eligible documents, and the others by the first criterion that they do not meet."""
    named = isinstance(candidates.selection.source_caps, dict)

    def look(documents: Documents) -> Pool:
        n_tokens = documents.n_tokens
        eligible, *excluded = np.bincount(documents.excluded_by, minlength=len(CRITERIA) + 1).tolist()
        return Pool(
            len(n_tokens),
            eligible,
            int(n_tokens[documents.eligible].sum()),
            int(n_tokens.max(initial=0)),
            Counter(dict(zip(CRITERIA, excluded, strict=True))),
            set(pc.unique(documents.table["source"]).to_pylist()) if named else set(),
        )

    pool = Pool()
    for part in candidates.map(look, targets=[], columns=["source"] if named else []):
        pool.documents += part.documents
        pool.eligible += part.eligible
        pool.eligible_tokens += part.eligible_tokens
        pool.longest = max(pool.longest, part.longest)
        pool.excluded.update(part.excluded)
        pool.sources |= part.sources
    return pool


def budget_of(size: Size, pool: Pool, selection: str) -> tuple[Budget, str | None]:
    """Return what is to be picked, and a note where the pool has less than was asked for.

    Raises
    ------
    ConfigError
        A fraction of the eligible documents that is less than one document.
    """
    if size.tokens is not None:
        if size.tokens >= pool.eligible_tokens:
            note = f"asked for {size.tokens:,} tokens, took all {pool.eligible_tokens:,} eligible ones"
            return Budget(tokens=pool.eligible_tokens), note
        return Budget(tokens=size.tokens), None
    if size.documents is not None and size.documents > pool.eligible:
        note = f"asked for {size.documents:,} documents, took all {pool.eligible:,} eligible ones"
        return Budget(documents=pool.eligible), note
    documents = int(size.fraction * pool.eligible) if size.documents is None else size.documents
    if documents == 0:
        raise ConfigError(
            f"selection '{selection}': a fraction of {size.fraction} of {pool.eligible:,} eligible "
            "documents is no document; raise size.fraction or let more documents be eligible"
        )
    return Budget(documents=documents), None


def short_of(budget: Budget, found: Picked, pool: Pool, n_targets: int) -> str | None:
    """Return a note where the pool has too few documents that are not near-duplicates, else None."""
    unit, room = ("documents", 0) if budget.tokens is None else ("tokens", pool.longest * n_targets)
    least = min(int(budget.of(epoch).sum()) for epoch in found.epochs)
    if least + room >= budget.amount:
        return None
    return (
        f"picked {least:,} of {budget.amount:,} {unit}: what else may be picked is nearly the same as documents that "
        "rank better"
    )


def select(snapshot: Snapshot, selection: Selection, output: Output, progress: Progress) -> Result:
    """Pick, write the picks and, unless ``output`` is none, the records, as one new folder."""
    started = time.monotonic()
    candidates = Candidates(snapshot, selection)
    pool = survey(candidates)
    excluded = {name: n for name, n in pool.excluded.items() if n or name == "min_tokens"}
    if pool.eligible == 0:
        if not pool.documents:
            raise ConfigError(f"selection '{selection.name}': the counted shards hold no document")
        by = ", ".join(f"{name} {n:,}" for name, n in excluded.items() if n)
        raise ConfigError(
            f"selection '{selection.name}': none of {pool.documents:,} documents is eligible: min_tokens is "
            f"{selection.min_tokens}, the longest has {pool.longest:,}. Excluded by: {by or 'none'}. "
            "Lower min_tokens or widen the bounds of quality."
        )
    check_sources(selection, pool)
    budget, note = budget_of(selection.size, pool, selection.name)
    found = pick(candidates, budget, progress)
    picked = joined(found.epochs)
    if not len(picked):
        raise ConfigError(
            f"selection '{selection.name}': the best document is longer than the budget of "
            f"{budget.amount:,} tokens; raise size.tokens"
        )
    if found.near_duplicates_dropped:
        note = short_of(budget, found, pool, len(selection.targets)) or note
    folder = snapshot.store.selection_folder(selection.name, output.fingerprint)
    with snapshot.store.replacing(folder) as temporary:
        temporary.mkdir(parents=True)
        picks = picks_table(snapshot, selection, output, found.epochs)
        with sealed_writer(temporary / "picks.parquet", "selections", output.stamp) as writer:
            writer.write_table(picks)
        files = []
        if selection.output != "none":
            content_hash = picked["content_hash"]
            files = write_records(snapshot, picks, content_hash, temporary, selection.output)
        for name, content in found.ranking.files.items():
            csv.write_csv(content, temporary / name)
    by_target = [picked[["n_tokens", "key"]][picked["target"] == i] for i in range(len(selection.targets))]
    result = Result(
        rows=len(picks),
        files=sorted(folder.iterdir()),
        metadata={
            "documents": len(picks),
            "output": selection.output,
            "records": sum(file.records for file in files),
            "tokens": int(picked["n_tokens"].sum()),
            "eligible_documents": pool.eligible,
            "pool_documents": pool.documents,
            **{f"excluded_by_{name}": n for name, n in excluded.items()},
            f"{'token' if budget.documents is None else 'document'}_budget": budget.amount,
            **({"epochs": selection.epochs} if selection.epochs > 1 else {}),
            "shards": len(snapshot.plan.counted),
            "shards_not_counted": len(snapshot.plan.uncounted),
            "threshold": float(min(epoch["key"].min(initial=np.inf) for epoch in found.epochs)),
            "method": selection.method,
            "seed": selection.seed,
            "noise_keys": json.dumps(noise_keys(selection)),
            "key_rule": selection.declared.keys.recorded(),
            **(
                {"near_duplicates_dropped": found.near_duplicates_dropped}
                if selection.near_duplicates
                else {}
            ),
            **found.ranking.numbers,
            "seconds": time.monotonic() - started,
            "files": len(files),
            "folder": str(folder.relative_to(snapshot.home)),
        },
        tables={
            **found.ranking.tables,
            "by target": Table(
                [
                    Column("target"),
                    Column("documents", "whole"),
                    Column("tokens", "whole"),
                    Column("smallest key", "number"),
                ],
                [
                    (name, len(p), int(p["n_tokens"].sum()), float(p["key"].min()) if len(p) else None)
                    for name, p in zip(selection.targets, by_target, strict=True)
                ],
            ),
            "by source": by_source(picks),
            "not eligible": Table(
                [Column("first criterion not met"), Column("documents", "whole")], list(excluded.items())
            ),
        },
    )
    if note:
        result.metadata["note"] = note
    return result


def check_sources(selection: Selection, pool: Pool) -> None:
    """Refuse caps on sources that the pool does not have.

    Raises
    ------
    ConfigError
        Names them, and some that there are.
    """
    caps = selection.source_caps
    unknown = sorted(caps.keys() - pool.sources) if isinstance(caps, dict) else []
    if unknown:
        there = sorted(pool.sources)
        raise ConfigError(
            f"selection '{selection.name}': source_caps names {', '.join(unknown)}, which no document of the pool "
            f"comes from; there are: {', '.join(there[:20])}{' …' if len(there) > 20 else ''}"
        )


def picks_table(
    snapshot: Snapshot, selection: Selection, output: Output, epochs: list[np.ndarray]
) -> pa.Table:
    """Return the picked documents with their ids and sources, in order of epoch, target and rank."""
    rows = joined(epochs)
    # Small numbers are sorted in one pass.
    shards = rows["shard"].astype(np.min_scalar_type(len(snapshot.plan.counted)))
    order = np.argsort(shards, kind="stable")
    there, first = np.unique(shards[order], return_index=True)
    picked_rows = np.split(rows["row"][order], first[1:])
    chunked = any(source.chunk_words is not None for source in snapshot.settings.raw)
    columns = ["row", "doc_id", "source", *(PIECE if chunked else ())]

    def look_up(index: int, wanted: np.ndarray) -> pa.Table:
        shard = snapshot.plan.counted[index]
        path = snapshot.store.path("documents", shard)
        with snapshot.store.open_table(path, snapshot.plan.raw_counts(shard).stamp, ["source"]) as file:
            documents = file.read(columns=columns)
        at = np.searchsorted(documents["row"].to_numpy(), wanted)
        return documents.drop_columns("row").take(pa.array(at))

    ids = list(snapshot.engine.map_shards(lambda each: look_up(*each), zip(there, picked_rows, strict=True)))
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
    snapshot: Snapshot, picks: pa.Table, content_hash: np.ndarray, folder: Path, output: str
) -> list[Part]:
    """Write the original records of the picks, in order of epoch, shard and row; return the files.

    Of a piece: its record, with the piece in the place of the text.

    Raises
    ------
    CorpusError
        A file is missing, damaged, or a text in it is not the one that was counted.
    """
    epochs, rows = picks["epoch"].to_numpy(), picks["row"].to_numpy()
    shards = picks["shard"].combine_chunks().indices.to_numpy()  # into the counted ones, which are sorted
    order = np.lexsort((rows, shards, epochs))
    ordered = picks.take(pa.array(order))
    whole = picks["record"].null_count == len(picks)
    provenance = ordered.select((PROVENANCE if whole else PROVENANCE_OF_PIECES).names)
    provenance = provenance.to_struct_array().combine_chunks()
    epochs, shards, content_hash = epochs[order], shards[order], content_hash[order]
    starts = np.flatnonzero(
        np.concatenate([[True], (shards[1:] != shards[:-1]) | (epochs[1:] != epochs[:-1])])
    )

    def reading(start: int, stop: int) -> Callable[[], Iterator[Records]]:
        file = snapshot.plan.shards[snapshot.plan.counted[shards[start]]]
        source = snapshot.settings.source(file.source)
        wanted = ordered.slice(start, stop - start)
        if source.chunk_words is None:
            rows = wanted["row"].to_numpy()
            read = partial(read_records, file.uri, source, rows)
        else:
            rows = wanted["record"].to_numpy()
            read = partial(read_pieces, file.uri, source, *(wanted[name].to_numpy() for name in PIECE))
        same = partial(counted_texts, file.uri, file.shard, source, rows, content_hash[start:stop])
        return lambda: same(read())

    streams = [reading(*each) for each in itertools.pairwise([*starts.tolist(), len(ordered)])]
    done = 0
    with RecordWriter(folder, output) as writer:
        for records in snapshot.engine.chain(streams):
            writer.write(records, provenance[done : done + len(records)])
            done += len(records)
        return writer.close()


def by_source(picks: pa.Table) -> Table:
    """Return a table of the picks by source."""
    source = picks["source"].combine_chunks()
    documents = np.bincount(source.indices, minlength=len(source.dictionary))
    tokens = np.zeros(len(documents), np.int64)
    np.add.at(tokens, source.indices, picks["n_tokens"].to_numpy())
    rows = zip(source.dictionary.to_pylist(), documents.tolist(), tokens.tolist(), strict=True)
    rows = sorted(rows, key=lambda row: -row[1])
    return Table(
        [
            Column("source"),
            Column("documents", "whole"),
            Column("share", "share"),
            Column("tokens", "whole"),
        ],
        [(name, n, n / len(picks), n_tokens) for name, n, n_tokens in rows[:50] if n],
    )


def inputs_of(plan: Plan, selection: Selection) -> Inputs:
    """Return what a selection is made of: the shards that are counted. Other targets than its own do not count."""
    outputs = [plan.weights(shard) for shard in plan.counted]
    rest = {"configuration": canonical(selection.model_dump(exclude={"name"}))}
    if selection.near_duplicates:
        rest["near_duplicates"] = near_duplicates.version()
    decisive = {
        f"{output.name} {target}": plan.log_weights(output.partition, target).fingerprint
        for output in outputs
        for target in selection.targets
    }
    code = plan.code("importance_estimator", "weights", "selections")
    made_of = {output.name: output.fingerprint for output in outputs}
    return Inputs({**made_of, **rest}, {**decisive, **rest, "code": code})


def output_of(plan: Plan, selection: Selection) -> Output:
    """Return a selection as it is configured, or as the launchpad changed it."""
    return plan.made_of("selections", selection.name, inputs_of(plan, selection))


SELECTIONS = Asset(
    name="selections",
    version="5",
    description=(
        "The picked documents, and their original records with a `_dsir` object.\n\n"
        "Resamples by importance weight without replacement (Gumbel top-k), or ranks by another method of "
        "`assets/methods/`. The noise of a document is a function of seed, selection, target and its content, "
        "so the pick does not depend on shards, their order, threads or retries."
    ),
    partitions=Partitions.SELECTIONS,
    after=("weights",),  # of every shard, whichever selection it is
    inputs=lambda plan, name: inputs_of(plan, plan.settings.selection(name)),
    step=make_selections,
    options=SelectionOptions,
    group="selections",
    kinds=("numpy", "parquet"),
    files=(
        FileKind(
            "selections",
            schema_of(
                {
                    "selection": REPEATED,
                    "version": REPEATED,
                    "epoch": pa.int64(),
                    "rank": pa.int64(),
                    "target": REPEATED,
                    "shard": REPEATED,
                    "row": pa.int64(),
                    **PIECE,
                    "doc_id": pa.string(),
                    "source": REPEATED,
                    "n_tokens": pa.int64(),
                    "log_weight": pa.float64(),
                    "key": pa.float64(),
                }
            ),
            pattern="{partition}/{fingerprint}/picks.parquet",  # the chosen records beside it
        ),
    ),
    keeps_versions=True,
    checks=(
        Check(
            name="size_and_uniqueness",
            description=(
                "The newest version holds the number of documents it reports, none of them twice in an epoch."
            ),
            evaluate=check_selection,
            blocking=True,
        ),
    ),
)
