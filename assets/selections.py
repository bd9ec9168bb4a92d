"""``selections``: the picked documents, and their original records.

What belongs here: from a configured selection to a folder with picks and, if configured, records. What does not: how
documents are ranked and picked (``assets/methods/``), formats of records (``resources/record_writer.py``), how good the
selection is (``assets/evaluations.py``).
"""

import enum
import json
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pydantic

from dsir import near_duplicates
from dsir.selection import Budget, joined
from dsir_dagster.assets.materialize import Result, bring_up_to_date, one_by_one
from dsir_dagster.assets.methods import METHODS, Picked, pick
from dsir_dagster.assets.methods.ranking import noise_keys
from dsir_dagster.assets.methods.resample import LENGTHS
from dsir_dagster.assets.picking.candidates import Candidates
from dsir_dagster.assets.picking.survey import (
    PoolSurvey,
    budget_of,
    check_eligible,
    check_sources,
    short_of,
    survey,
)
from dsir_dagster.assets.picking.writing import picks_table, write_records
from dsir_dagster.resources.compute import Tell, Worker
from dsir_dagster.resources.graph import Asset, Check, Context, Inputs, Made, Partitions, RunOptions
from dsir_dagster.resources.lineage import canonical, output_name, together
from dsir_dagster.resources.plan import Output, Plan
from dsir_dagster.resources.plots import Plot
from dsir_dagster.resources.settings import ConfigError, Selection, Settings
from dsir_dagster.resources.settings.selection import OUTPUTS, Quality, Size
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import (
    PIECE,
    REPEATED,
    FileKind,
    Origin,
    Written,
    schema_of,
    sealed_writer,
)
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace

#: What a closed choice says to keep what is configured, where selections differ in it.
AS_CONFIGURED = "as_configured"


def choice(name: str, values: Iterable[str]) -> Any:
    """Return the values as an enum, which the launchpad offers and checks; the first is :data:`AS_CONFIGURED`."""
    return enum.Enum(name, {value: value for value in (AS_CONFIGURED, *values)}, type=str)


if TYPE_CHECKING:
    MethodChoice: TypeAlias = str
    LengthChoice: TypeAlias = str
    OutputChoice: TypeAlias = str
else:
    MethodChoice = choice("Method", METHODS)
    LengthChoice = choice("Length", LENGTHS)
    OutputChoice = choice("Output", OUTPUTS)


class SelectionOptions(RunOptions):
    """What to change in a selection for one run.

    What equals the configuration changes nothing; an option that the configured method takes and another one does not
    may stay when the method changes. `dsir run` and `refresh` go back to the configuration.
    """

    method: MethodChoice = pydantic.Field(
        default=MethodChoice(AS_CONFIGURED), description="How documents are ranked and picked."
    )
    documents: int | None = pydantic.Field(default=None, description="Size: number of documents.")
    fraction: float | None = pydantic.Field(
        default=None, description="Size: share of the eligible documents, above 0 and at most 1."
    )
    tokens: int | None = pydantic.Field(default=None, description="Size: budget of tokens.")
    min_tokens: int | None = pydantic.Field(
        default=None, description="Documents with fewer tokens are not eligible."
    )
    quality: bool | None = pydantic.Field(
        default=None,
        description="Whether documents outside of the paper's bounds of quality are not eligible.",
    )
    temperature: float | None = pydantic.Field(
        default=None, description="What log weights are divided by before noise is added; 1 if not set."
    )
    length: LengthChoice = pydantic.Field(
        default=LengthChoice(AS_CONFIGURED),
        description="How log weights are corrected for a document's length.",
    )
    collapse_duplicates: bool | None = pydantic.Field(
        default=None, description="Whether only one of several documents with equal texts is eligible."
    )
    epochs: int | None = pydantic.Field(
        default=None, description="Number of selections of this size, each drawn afresh."
    )
    seed: int | None = pydantic.Field(default=None, description="Seed of the noise.")
    output: OutputChoice = pydantic.Field(
        default=OutputChoice(AS_CONFIGURED),
        description="Format of the chosen records; with none, only the picks are written.",
    )

    @classmethod
    def shown(cls, settings: Settings) -> type["SelectionOptions"]:
        """Return the class with the value that all configured selections share as each field's default.

        Of a field in which they differ, the description says what each of them has.
        """
        configured = {each.name: values_of(each) for each in settings.selections}
        fields: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            if name in RunOptions.model_fields:
                continue
            values = {selection: mine[name] for selection, mine in configured.items()}
            first, *others = values.values()
            same = all(other == first for other in others)
            default = first if same and first is not None else field.default
            if same:
                now = "not set" if first is None else _in_yaml(first)
            else:
                now = ", ".join(
                    f"{selection} {'not set' if value is None else _in_yaml(value)}"
                    for selection, value in values.items()
                )
            description = f"{field.description} Configured: {now}."
            if isinstance(field.annotation, type) and issubclass(field.annotation, enum.Enum):
                default = field.annotation(default)
            fields[name] = (field.annotation, pydantic.Field(default, description=description))
        return pydantic.create_model(cls.__name__, __base__=cls, __doc__=cls.__doc__, **fields)

    def apply(self, selection: Selection) -> Selection:
        """Return the selection with the given parameters replaced.

        Raises
        ------
        ConfigError
            The parameters are not valid together.
        """
        configured = values_of(selection)
        asked = self.model_dump(exclude={"force"}, exclude_none=True, mode="json")
        changed = {
            name: value
            for name, value in asked.items()
            if value != AS_CONFIGURED and value != configured[name]
        }
        if not changed:
            return selection
        values = (selection.by(changed["method"]) if "method" in changed else selection).model_dump()
        sizes = {name: changed.pop(name) for name in Size.model_fields if name in changed}
        values |= changed
        if sizes:
            values["size"] = sizes
        try:
            return Selection.model_validate(values)
        except pydantic.ValidationError as error:
            found = [
                (".".join(str(part) for part in each["loc"] if part != "options"), each["msg"])
                for each in error.errors()
            ]
            reasons = "; ".join(f"{where}: {what.removeprefix('Value error, ')}" for where, what in found)
            raise ConfigError(f"selection '{selection.name}', launchpad: {reasons}") from None


def values_of(selection: Selection) -> dict[str, Any]:
    """Return what a selection has for each field of the launchpad; None if it is not set, or if no field can say it."""
    temperature = getattr(selection.options, "temperature", None)
    quality = {None: False, Quality(): True}.get(selection.quality)
    return {
        "method": selection.method,
        **selection.size.model_dump(),
        "min_tokens": selection.min_tokens,
        "quality": quality,
        "temperature": temperature if isinstance(temperature, float | int) else None,
        "length": getattr(selection.options, "length", None),
        "collapse_duplicates": selection.collapse_duplicates,
        "epochs": selection.epochs,
        "seed": selection.seed,
        "output": selection.output,
    }


def _in_yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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

    def compute(worker: Worker, output: Output, tell: Tell) -> Result:
        result = select(snapshot, selection, output, tell)
        if selection != configured:
            then, now = configured.model_dump(), selection.model_dump()
            changed = {k: now.get(k) for k in {**then, **now} if now.get(k) != then.get(k)}
            result.metadata["launchpad"] = json.dumps(changed)
        return result

    yield from bring_up_to_date(
        context, workspace, "selections", [output_of(snapshot.plan, selection)], compute, options
    )


def check_selection(workspace: Workspace, name: str, *_: object) -> dg.AssetCheckResult:
    """Check that the newest version of a selection is what its metadata says."""
    latest = workspace.catalog.latest()["selections", name]
    origin = Origin(output_name("selections", name), latest.fingerprint, {})
    columns = ["epoch", "shard", "row", "n_tokens"]
    picks = workspace.store.read_table(workspace.store.picks(name, latest.fingerprint), origin, columns)
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


def select(snapshot: Snapshot, selection: Selection, output: Output, tell: Tell) -> Result:
    """Pick; write the picks and, unless ``output`` is none, the records, as one new folder."""
    started = time.monotonic()
    candidates = Candidates(snapshot, selection, tell=tell)
    pool = survey(candidates)
    check_eligible(selection, pool)
    check_sources(selection, pool)
    budget, note = budget_of(selection.size, pool, selection.name)
    found = pick(candidates, budget)
    if not any(map(len, found.epochs)):
        raise ConfigError(
            f"selection '{selection.name}': the best document is longer than the budget of "
            f"{budget.amount:,} tokens; raise size.tokens"
        )
    note = short_of(selection, budget, found, pool) or note
    tell(part="looking up the picks")
    picks, n_bytes = picks_table(snapshot, selection, output, found.epochs)
    files = write_folder(snapshot, selection, output, found, picks, n_bytes, tell)
    metadata = {
        **described(snapshot, selection, pool, budget, found, picks),
        "records": 0 if selection.output == "none" else len(picks),
        "seconds": time.monotonic() - started,
        "files": len(files),
        "folder": snapshot.store.selection_folder(selection.name, output.fingerprint),
    }
    if note:
        metadata["note"] = note
    return Result(len(picks), files, metadata, tables(selection, pool, found, picks))


def write_folder(
    snapshot: Snapshot,
    selection: Selection,
    output: Output,
    found: Picked,
    picks: pa.Table,
    n_bytes: np.ndarray,
    tell: Tell,
) -> dict[str, Written]:
    """Write picks, records and the method's own files as one new folder; return the files by name."""
    store = snapshot.store
    with store.new_folder(store.selection_folder(selection.name, output.fingerprint)) as folder:
        if selection.output != "none":
            content_hash = joined(found.epochs)["content_hash"]
            folder.files.update(
                write_records(snapshot, picks, content_hash, n_bytes, folder, selection.output, tell)
            )
        for name, content in found.ranking.files.items():
            with store.file_of(folder, name) as path:
                csv.write_csv(content, path)
            folder.files.update(store.written(f"{folder.name}/{name}"))
        with (
            store.file_of(folder, "picks.parquet") as path,
            sealed_writer(path, "selections", output.origin) as writer,
        ):
            writer.write_table(picks)
        folder.files.update(store.written(f"{folder.name}/picks.parquet"))
    return dict(sorted(folder.files.items()))


def not_eligible(pool: PoolSurvey) -> dict[str, int]:
    """Return how many documents each criterion excludes, without those that exclude none except min_tokens."""
    return {name: n for name, n in pool.excluded.items() if n or name == "min_tokens"}


def described(
    snapshot: Snapshot, selection: Selection, pool: PoolSurvey, budget: Budget, found: Picked, picks: pa.Table
) -> dict[str, Any]:
    """Return what the lineage and Dagster say about a pick."""
    numbers: dict[str, Any] = {
        "documents": len(picks),
        "output": selection.output,
        "tokens": pc.sum(picks["n_tokens"]).as_py(),
        "eligible_documents": pool.eligible,
        "pool_documents": pool.documents,
        **{f"excluded_by_{name}": n for name, n in not_eligible(pool).items()},
        f"{'token' if budget.documents is None else 'document'}_budget": budget.amount,
        "shards": len(snapshot.plan.counted),
        "shards_not_counted": len(snapshot.plan.uncounted),
        "threshold": pc.min(picks["key"]).as_py(),
        "method": selection.method,
        "seed": selection.seed,
        "noise_keys": json.dumps(noise_keys(selection)),
        "key_rule": selection.declared.keys.recorded(),
        **found.ranking.numbers,
    }
    if selection.epochs > 1:
        numbers["epochs"] = selection.epochs
    if selection.near_duplicates:
        numbers["near_duplicates_dropped"] = found.near_duplicates_dropped
    return numbers


def tables(selection: Selection, pool: PoolSurvey, found: Picked, picks: pa.Table) -> dict[str, Table | Plot]:
    """Return what Dagster shows as tables and plots."""
    return {
        **found.ranking.tables,
        "by target": by_target(selection, picks),
        "by source": by_source(picks),
        "not eligible": Table(
            [Column("first criterion not met"), Column("documents", "whole")],
            list(not_eligible(pool).items()),
        ),
    }


def by_target(selection: Selection, picks: pa.Table) -> Table:
    """Return a table of the picks by target."""
    numbers = [("n_tokens", "count"), ("n_tokens", "sum"), ("key", "min")]
    found = picks.group_by("target").aggregate(numbers).to_pydict()
    rows = {name: tuple(numbers) for name, *numbers in zip(*found.values(), strict=True)}
    columns = [Column("documents", "whole"), Column("tokens", "whole"), Column("smallest key", "number")]
    return Table(
        [Column("target"), *columns],
        [(name, *rows.get(name, (0, 0, None))) for name in selection.targets],
    )


def by_source(picks: pa.Table) -> Table:
    """Return a table of the picks by source."""
    source = picks["source"].combine_chunks()
    documents = np.bincount(source.indices, minlength=len(source.dictionary))
    tokens = np.zeros(len(documents), np.int64)
    np.add.at(tokens, source.indices, picks["n_tokens"].to_numpy())
    unsorted = zip(source.dictionary.to_pylist(), documents.tolist(), tokens.tolist(), strict=True)
    rows = sorted(unsorted, key=lambda row: -row[1])
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
    """Return what a selection is made of: the counted shards. Its fingerprint ignores the targets of others."""
    rest = {"configuration": canonical(selection.model_dump(exclude={"name"}))}
    if selection.near_duplicates:
        rest["near_duplicates"] = near_duplicates.version()
    code = plan.code("importance_estimator", "weights", "selections")
    decisive = together({**rest, "code": code}, plan.listed_log_weights(selection.targets))
    return Inputs(together(rest, plan.listed("weights")), decisive)


def output_of(plan: Plan, selection: Selection) -> Output:
    """Return a selection as configured, or as changed in the launchpad."""
    return plan.made_of("selections", selection.name, inputs_of(plan, selection))


SELECTIONS = Asset(
    name="selections",
    version="7",
    description=(
        "The picked documents, and their original records with a `_dsir` object.\n\n"
        "Resamples by importance weight without replacement (Gumbel top-k), or ranks by another method in "
        "`assets/methods/`. A document's noise is a function of seed, selection, target and its content, so the pick "
        "does not depend on shards, their order, threads or retries."
    ),
    partitions=Partitions.SELECTIONS,
    after=("weights",),  # every selection, on every shard
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
                "The newest version has as many documents as it reports, none of them twice in an epoch."
            ),
            evaluate=check_selection,
            blocking=True,
        ),
    ),
)
