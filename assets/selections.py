"""``selections``: noise, keys, the picked documents, and their original records.

What belongs here: from log weights to a folder with picks and records. What does not: the order and the
budget (``dsir/selection.py``), formats of records (``resources/records.py``), how good the selection is
(``assets/evaluations.py``), how plots are drawn (``assets/plots.py``).
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pydantic

from assets import plots
from assets.candidates import CRITERIA, Documents, stream
from assets.importance_estimator import target_totals
from assets.matching import pick_matched
from assets.materialize import Result, RunOptions, markdown_table, materialize_one
from dsir.hashing import gumbel_noise, noise_key
from dsir.selection import Budget, TopK, needed, pack_position, pick_in_turn, split_budget
from resources.plan import CODE_VERSIONS, Output, Plan
from resources.progress import Progress
from resources.records import PROVENANCE, Part, Records, RecordWriter, read_records
from resources.settings import ConfigError, Selection, Size
from resources.store import table
from resources.workspace import Pipeline, Workspace


class SelectionOptions(RunOptions):
    """Parameters of a selection to override for one run, in the launchpad.

    Attributes
    ----------
    method, min_tokens, seed, output
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
    seed: int | None = None
    output: str | None = None

    def apply(self, selection: Selection) -> Selection:
        """Return the selection with the given parameters replaced.

        Raises
        ------
        ConfigError
            The parameters are not valid together.
        """
        values = selection.model_dump()
        names = ("method", "min_tokens", "quality", "seed", "output")
        values |= {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        size = {name: getattr(self, name) for name in ("documents", "fraction", "tokens")}
        if any(value is not None for value in size.values()):
            values["size"] = size
        try:
            return Selection.model_validate(values)
        except pydantic.ValidationError as error:
            reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"selection '{selection.name}', launchpad: {reasons}") from None


def build_selections(
    partitions: dg.PartitionsDefinition, weights: dg.AssetsDefinition
) -> tuple[dg.AssetsDefinition, dg.AssetChecksDefinition]:
    """Return the asset over the configured selections, and its blocking check."""

    @dg.asset(
        # Every shard takes part, whichever selection it is.
        deps=[dg.AssetDep(weights, partition_mapping=dg.AllPartitionMapping())],
        partitions_def=partitions,
        code_version=CODE_VERSIONS["selections"],
        kinds={"numpy", "parquet"},
        description=(
            "The picked documents, and their original records with a `_dsir` object.\n\n"
            "Resamples by importance weight without replacement (Gumbel top-k), or takes the largest "
            "weights. The noise of a document is a function of seed, selection, target and its content, "
            "so the pick does not depend on shards, their order, threads or retries."
        ),
    )
    def selections(
        context: dg.AssetExecutionContext, pipeline: Pipeline, config: SelectionOptions
    ) -> dg.MaterializeResult:
        workspace = pipeline.workspace
        plan = workspace.plan()
        configured = workspace.settings.selection(context.partition_key)
        selection = config.apply(configured)
        unknown = [name for name in selection.targets if name not in plan.counted_targets]
        if unknown:
            raise dg.Failure(
                f"selection '{selection.name}': the targets {', '.join(unknown)} are not counted; "
                "materialize target_counts, importance_estimator and weights first",
                allow_retries=False,
            )
        if plan.uncounted:
            context.log.warning(
                f"{len(plan.uncounted)} of {len(plan.shards)} shards are not counted and take no part: "
                + ", ".join(plan.uncounted[:10])
            )

        def compute(output: Output, progress: Progress) -> Result:
            result = select(workspace, plan, selection, output, progress)
            if selection != configured:
                then, now = configured.model_dump(), selection.model_dump()
                changed = {k: now.get(k) for k in {**then, **now} if now.get(k) != then.get(k)}
                result.metadata["launchpad"] = json.dumps(changed)
            if "note" in result.metadata:
                context.log.warning(f"{output.name}: {result.metadata['note']}")
            return result

        return materialize_one(context, workspace, plan.selections(selection), compute, config)

    @dg.asset_check(
        asset=selections,
        partitions_def=partitions,
        blocking=True,
        description="The newest version holds the number of documents it reports, none of them twice.",
    )
    def size_and_uniqueness(
        context: dg.AssetCheckExecutionContext, pipeline: Pipeline
    ) -> dg.AssetCheckResult:
        workspace = pipeline.workspace
        name = context.partition_key
        latest = workspace.catalog.latest()["selections", name]
        folder = workspace.store.selection_folder(name, latest["fingerprint"])
        picks = pq.read_table(folder / "picks.parquet", columns=["shard", "row", "n_tokens"])
        unique = picks.group_by(["shard", "row"]).aggregate([]).num_rows
        expected = latest["metadata"]
        tokens = pc.sum(picks["n_tokens"]).as_py() or 0
        numbers = {
            "documents": picks.num_rows,
            "documents_expected": expected["documents"],
            "distinct_documents": unique,
            "records_written": expected["records"],
            "tokens": tokens,
            "tokens_expected": expected["tokens"],
        }
        passed = (
            picks.num_rows == unique == expected["documents"] == expected["records"]
            and tokens == expected["tokens"]
            and tokens <= expected.get("token_budget", tokens)
            and picks.num_rows <= expected.get("document_budget", picks.num_rows)
        )
        return dg.AssetCheckResult(passed=passed, metadata=numbers)

    return selections, size_and_uniqueness


@dataclass
class Pool:
    """What one look at the pool's documents says, before anything is picked."""

    documents: int = 0
    eligible: int = 0
    eligible_tokens: int = 0
    longest: int = 0
    excluded: Counter[str] = field(default_factory=Counter)


def survey(workspace: Workspace, plan: Plan, selection: Selection) -> Pool:
    """Count the eligible documents, and the others by the first criterion that they do not meet."""
    pool = Pool()
    for documents in stream(workspace, plan, selection, targets=[]):
        n_tokens = documents.n_tokens
        eligible, *excluded = np.bincount(documents.excluded_by, minlength=len(CRITERIA) + 1).tolist()
        pool.documents += len(n_tokens)
        pool.eligible += eligible
        pool.eligible_tokens += int(n_tokens[documents.eligible].sum())
        pool.longest = max(pool.longest, int(n_tokens.max(initial=0)))
        pool.excluded.update(dict(zip(CRITERIA, excluded, strict=True)))
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


def noise_stream(selection: Selection, target: str) -> str:
    """Return the name of the noise of one target's draw, so that several targets draw independently."""
    return f"{selection.name}/{target}"


def noise_keys(selection: Selection) -> dict[str, str]:
    """Return the key of each target's noise as hexadecimal digits, for `sql/macros_why.sql`, if there is noise."""
    targets = selection.targets if selection.method in ("resample", "random") else []
    return {
        target: f"{noise_key(selection.seed, noise_stream(selection, target)):016x}" for target in targets
    }


def keys(selection: Selection, target: str, documents: Documents) -> np.ndarray:
    """Return the key of every document: log weight plus noise; one of them alone for top-k and random."""
    log_weight = documents.log_weights[target]
    if selection.method == "top_k":
        return log_weight
    noise = gumbel_noise(documents.content_hash, selection.seed, noise_stream(selection, target))
    return noise if selection.method == "random" else log_weight + noise


def shares_of(workspace: Workspace, plan: Plan, selection: Selection) -> np.ndarray:
    """Return each target's share: as configured, else in proportion to its n-grams."""
    if selection.shares is not None:
        return np.array(selection.shares)
    return np.array([target_totals(workspace, plan, name)[0].sum() for name in selection.targets])


def pick(
    workspace: Workspace,
    plan: Plan,
    selection: Selection,
    budget: Budget,
    progress: Progress | None = None,
    histograms: Sequence[plots.Histogram] = (),
) -> list[np.ndarray]:
    """Pick the documents of each target.

    Parameters
    ----------
    workspace, plan, selection, budget
    progress : Progress, optional
        Told of the documents that were looked at.
    histograms : sequence of plots.Histogram
        One for each of the first targets, to add the log weights of the eligible documents to.

    Returns
    -------
    list of ndarray of dsir.selection.CANDIDATE
        For each target, ranked.
    """
    budgets = split_budget(budget, shares_of(workspace, plan, selection))
    best = [TopK(each) for each in needed(budgets)]
    for documents in stream(workspace, plan, selection):
        for target, top in zip(selection.targets, best, strict=True):
            key = keys(selection, target, documents)
            documents.offer(top, documents.log_weights[target], key)
        for target, histogram in zip(selection.targets, histograms, strict=False):
            histogram.add(documents.log_weights[target][documents.eligible])
        if progress:
            progress.add(documents=len(documents.n_tokens))
    return pick_in_turn([top.candidates() for top in best], budgets)


def select(
    workspace: Workspace, plan: Plan, selection: Selection, output: Output, progress: Progress
) -> Result:
    """Pick, write the picks and the records, as one new folder."""
    started = time.monotonic()
    pool = survey(workspace, plan, selection)
    if pool.eligible == 0:
        excluded = ", ".join(f"{name} {n:,}" for name, n in pool.excluded.items() if n)
        raise ConfigError(
            f"selection '{selection.name}': none of {pool.documents:,} documents is eligible: min_tokens is "
            f"{selection.min_tokens}, the longest has {pool.longest:,}. Excluded by: {excluded or 'none'}. "
            "Lower min_tokens or widen the bounds of quality."
        )
    excluded = {name: pool.excluded[name] for name in CRITERIA if name == "min_tokens" or selection.quality}
    budget, note = budget_of(selection.size, pool, selection.name)
    histograms = [plots.Histogram() for _ in selection.targets[: plots.PANELS]]
    matched = None
    if selection.method == "match":
        matched = pick_matched(workspace, plan, selection, budget, histograms[0], progress)
        picked = [matched.picked]
    else:
        picked = pick(workspace, plan, selection, budget, progress, histograms)
    if not any(map(len, picked)):
        raise ConfigError(
            f"selection '{selection.name}': the best document is longer than the budget of "
            f"{budget.amount:,} tokens; raise size.tokens"
        )
    folder = workspace.store.selection_folder(selection.name, output.fingerprint)
    with workspace.store.replacing(folder) as temporary:
        temporary.mkdir(parents=True)
        picks = picks_table(workspace, plan, selection, output, picked)
        metadata = output.stamp.metadata()
        pq.write_table(
            picks.replace_schema_metadata(metadata), temporary / "picks.parquet", compression="zstd"
        )
        files = write_records(workspace, plan, picks, temporary, selection.output)
    tokens = pc.sum(picks["n_tokens"]).as_py() or 0
    result = Result(
        rows=len(picks),
        files=sorted(folder.iterdir()),
        metadata={
            "documents": len(picks),
            "records": sum(file.records for file in files),
            "tokens": tokens,
            "eligible_documents": pool.eligible,
            "pool_documents": pool.documents,
            **{f"excluded_by_{name}": n for name, n in excluded.items()},
            f"{'token' if budget.documents is None else 'document'}_budget": budget.amount,
            "shards": len(plan.counted),
            "shards_not_counted": len(plan.uncounted),
            "threshold": float(min((p["key"][-1] for p in picked if len(p)), default=float("nan"))),
            "method": selection.method,
            "seed": selection.seed,
            "noise_keys": json.dumps(noise_keys(selection)),
            **(matched.metadata() if matched else {}),
            "seconds": time.monotonic() - started,
            "files": len(files),
            "folder": str(folder),
        },
        tables={
            "log weights, histogram": plots.log_weights(
                selection.targets, histograms, picked, cut=selection.method in ("resample", "top_k")
            ),
            **(matched.tables() if matched else {}),
            "by target": markdown_table(
                ["target", "documents", "tokens", "smallest key"],
                [
                    (name, len(p), int(p["n_tokens"].sum()), float(p["key"][-1]) if len(p) else "")
                    for name, p in zip(selection.targets, picked, strict=True)
                ],
            ),
            "by source": by_source(picks),
            "not eligible": markdown_table(["first criterion not met", "documents"], list(excluded.items())),
        },
    )
    if note:
        result.metadata["note"] = note
    return result


def picks_table(
    workspace: Workspace, plan: Plan, selection: Selection, output: Output, picked: list[np.ndarray]
) -> pa.Table:
    """Return the picked documents with their ids and sources, in order of target and rank."""
    rows = np.concatenate(picked)
    position = np.argsort(pack_position(rows["shard"], rows["row"]), kind="stable")
    ids: list[pa.Array] = []
    for shard_index in np.unique(rows["shard"]):
        shard = plan.counted[shard_index]
        path = workspace.store.path("documents", shard)
        file = workspace.store.open_table(path, plan.raw_counts(shard).stamp)
        with file:
            documents = file.read(columns=["row", "doc_id", "source"])
        wanted = np.sort(rows["row"][rows["shard"] == shard_index])
        at = np.searchsorted(documents["row"].to_numpy(), wanted)
        ids.append(documents.select(["doc_id", "source"]).take(at))
    back = np.empty_like(position)
    back[position] = np.arange(len(position))
    named = pa.concat_tables(ids).take(back)
    names = pa.array(plan.counted)
    lengths = [len(each) for each in picked]
    return table(
        "selections",
        {
            "selection": selection.name,
            "version": output.fingerprint,
            "rank": np.concatenate([np.arange(1, n + 1) for n in lengths]),
            "target": np.repeat(np.array(selection.targets, dtype=object), lengths),
            "shard": names.take(pa.array(rows["shard"])),
            "row": rows["row"],
            "doc_id": named["doc_id"].combine_chunks(),
            "source": named["source"].combine_chunks(),
            "n_tokens": rows["n_tokens"],
            "log_weight": rows["log_weight"],
            "key": rows["key"],
        },
    )


def write_records(workspace: Workspace, plan: Plan, picks: pa.Table, folder: Path, output: str) -> list[Part]:
    """Write the original records of the picks, in order of shard and row; return the files."""
    ordered = picks.sort_by([("shard", "ascending"), ("row", "ascending")])
    provenance = ordered.select([field.name for field in PROVENANCE]).to_struct_array().combine_chunks()
    shards = ordered["shard"].to_numpy()
    rows = ordered["row"].to_numpy()
    names, starts = np.unique(shards, return_index=True)

    def reading(shard: str, wanted: np.ndarray) -> Callable[[], Iterator[Records]]:
        file = plan.shards[shard]
        source = workspace.settings.source(file.source)
        return lambda: read_records(file.uri, source, wanted)

    streams = [
        reading(shard, wanted) for shard, wanted in zip(names, np.split(rows, starts[1:]), strict=True)
    ]
    done = 0
    with RecordWriter(folder, output) as writer:
        for records in workspace.engine.chain(streams):
            writer.write(records, provenance[done : done + len(records)])
            done += len(records)
        return writer.close()


def by_source(picks: pa.Table) -> str:
    """Return a table of the picks by source."""
    counts = picks.group_by("source").aggregate([("row", "count"), ("n_tokens", "sum")])
    rows = sorted(counts.to_pylist(), key=lambda row: -row["row_count"])
    total = max(len(picks), 1)
    return markdown_table(
        ["source", "documents", "share", "tokens"],
        [
            (r["source"], r["row_count"], f"{r['row_count'] / total:.1%}", r["n_tokens_sum"])
            for r in rows[:50]
        ],
    )
