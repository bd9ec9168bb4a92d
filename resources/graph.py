"""What an asset of the graph is: one record declares it, and everything else follows from the records.

What belongs here: the record, the signature of its step, and the graph. What does not: the records themselves, each
beside its step (``assets/``); what follows from them: outputs and fingerprints (``resources/plan.py``), Dagster's
definitions and the job `refresh` (``dagster_project/``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

import dagster as dg
import pydantic

if TYPE_CHECKING:
    from dsir_dagster.resources.plan import Output, Plan
    from dsir_dagster.resources.settings import Settings
    from dsir_dagster.resources.snapshot import Snapshot
    from dsir_dagster.resources.store import FileKind
    from dsir_dagster.resources.workspace import Workspace

Context: TypeAlias = dg.AssetExecutionContext | dg.OpExecutionContext

#: What Dagster shows of an output.
Report: TypeAlias = Mapping[str, int | float | str | dg.MetadataValue]

#: Outputs that are done and recorded, with their reports: those together that were recorded together.
Made: TypeAlias = "Iterator[Sequence[tuple[Output, Report]]]"


class RunOptions(dg.Config):
    """What to change for one run. What is left as it is stays as configured."""

    force: bool = pydantic.Field(default=False, description="Make outputs again even if they are fresh.")

    @classmethod
    def shown(cls, settings: Settings) -> type[Self]:
        """Return the class as the launchpad shows it, with what is configured as the defaults."""
        return cls


#: Class of the options that a step takes.
Options = TypeVar("Options", bound=RunOptions)

#: Takes Dagster's context, a workspace, partitions and options; makes and yields these outputs.
Step: TypeAlias = "Callable[[Context, Workspace, Sequence[str], Options], Made]"


class Partitions(enum.Enum):
    """What an asset has a partition for."""

    SHARDS = "each file of the pool"
    TARGETS = "each target"
    SELECTIONS = "each selection"
    PINNED = "the distribution that the estimator is pinned to, if the configuration pins one"
    NONE = "it has none"

    def keys(self, plan: Plan) -> list[str]:
        """Return a plan's partition keys; ``['']`` without partitions."""
        settings = plan.settings
        if self is Partitions.SHARDS:
            return sorted(plan.shards)
        if self is Partitions.TARGETS:
            return [target.name for target in settings.targets]
        if self is Partitions.SELECTIONS:
            return [selection.name for selection in settings.selections]
        if self is Partitions.PINNED:
            return [settings.estimator.pinned] if settings.estimator.pinned else []
        return [""]

    @property
    def many(self) -> bool:
        """Whether one run makes many of them, with an event for each."""
        return self in (Partitions.SHARDS, Partitions.TARGETS)


@dataclass(frozen=True)
class Inputs:
    """What an output should be made of.

    Attributes
    ----------
    inputs : mapping of str to str
        Name of an input to its fingerprint, or to its text if short.
    decisive : mapping of str to str, optional
        What the fingerprint hashes, if less than the inputs: an input may change in a part the output does not depend
        on.
    """

    inputs: Mapping[str, str]
    decisive: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Check:
    """A check of an asset.

    Attributes
    ----------
    name, description : str
    evaluate : callable
        Takes a workspace, a partition and a log.
    blocking : bool
        Whether downstream assets wait for it to pass.
    by_partition : bool
        Whether it is evaluated for each partition or for the asset as a whole.
    exists : callable
        Takes the settings; tells whether the check applies.
    due : callable
        Takes a snapshot and what a stage of a refresh made; returns the outputs to evaluate it for.
    """

    name: str
    description: str
    evaluate: Callable[[Workspace, str, dg.DagsterLogManager], dg.AssetCheckResult]
    blocking: bool = False
    by_partition: bool = True
    exists: Callable[[Settings], bool] = lambda settings: True
    due: Callable[[Snapshot, Sequence[Output]], Sequence[Output]] = lambda snapshot, made: made


@dataclass(frozen=True)
class Asset(Generic[Options]):
    """One asset: what it is made of, by which step, into which files, and how Dagster shows it.

    Attributes
    ----------
    name : str
    version : str
        Of the code that shapes its outputs; raised when these change for the same inputs. '' if existing outputs stay
        valid whatever the code.
    description : str
        For Dagster.
    partitions : Partitions
    after : tuple of str
        Assets it is made of.
    inputs : callable
        Takes a plan and a partition; returns what the output should be made of, except for the version.
    step : Step, optional
        None: the step of the asset ``made_by`` makes it.
    options : type, optional
        Class of a run's options. Default: `RunOptions`.
    group : str
        Dagster's.
    kinds : tuple of str
        What it is made with; Dagster shows these as labels.
    files : tuple of FileKind
        Kinds of files an output has.
    keeps_versions : bool
        Whether outputs with older fingerprints stay, each in its own folder.
    checks : tuple of Check
    finish : callable, optional
        Takes Dagster's context and a workspace; called at the end of a run, whether it failed or not.
    made_by : str
        The asset whose step makes it; Dagster does not show it then.
    needs : callable, optional
        Takes a plan; returns the names of inputs that an output has to have been made of beside those of its
        fingerprint. Without one it is stale; made again, it has the same fingerprint, so what follows it stays fresh.
    """

    name: str
    version: str
    description: str
    partitions: Partitions
    inputs: Callable[[Plan, str], Inputs]
    step: Step[Options] | None = None
    after: tuple[str, ...] = ()
    options: type[Options] | None = None
    group: str = ""
    kinds: tuple[str, ...] = ()
    files: tuple[FileKind, ...] = ()
    keeps_versions: bool = False
    checks: tuple[Check, ...] = ()
    finish: Callable[[Context, Workspace], None] | None = None
    made_by: str = ""
    needs: Callable[[Plan], Collection[str]] | None = None


@dataclass(frozen=True)
class Graph:
    """The assets, in an order in which each follows those it is made of.

    Attributes
    ----------
    assets : dict of str to Asset
        By name.
    """

    assets: dict[str, Asset[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known: set[str] = set()
        for name, asset in self.assets.items():
            if late := sorted({*asset.after} - known):
                raise ValueError(
                    f"asset {name}: comes before {', '.join(late)}, which it is made of; list it after"
                )
            known.add(name)

    def __getitem__(self, name: str) -> Asset[Any]:
        return self.assets[name]

    def __iter__(self) -> Iterator[Asset[Any]]:
        return iter(self.assets.values())

    @property
    def shown(self) -> list[Asset[Any]]:
        """The assets that Dagster shows: those with a step."""
        return [asset for asset in self if asset.step]

    @property
    def versions(self) -> dict[str, str]:
        """Version of the code of every asset that Dagster shows."""
        return {asset.name: asset.version for asset in self.shown}

    def keeps_versions(self, name: str) -> bool:
        """Whether old versions of an asset's outputs stay; False for an asset no longer in the graph."""
        return name in self.assets and self.assets[name].keeps_versions

    def made_by(self, name: str) -> list[Asset[Any]]:
        """Return the assets whose outputs a step makes, its own last."""
        return [asset for asset in self if name in (asset.name, asset.made_by)]


@cache
def graph() -> Graph:
    """Return the graph, ``assets.graph.GRAPH``, loaded at first use since the assets build on this layer."""
    return import_module("dsir_dagster.assets.graph").GRAPH
