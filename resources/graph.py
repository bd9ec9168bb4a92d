"""What an asset of the graph is: one record says all of it, and everything else follows from the records.

What belongs here: the record, and the graph that they make. What does not: the records themselves, each beside its
asset's step (``assets/``); what follows from them: outputs and fingerprints (``resources/plan.py``), Dagster's
definitions and the job `refresh` (``dagster_project/``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsir_dagster.resources.plan import Output, Plan
    from dsir_dagster.resources.settings import Settings
    from dsir_dagster.resources.snapshot import Snapshot
    from dsir_dagster.resources.store import FileKind


class Partitions(enum.Enum):
    """What an asset has a partition for."""

    SHARDS = "each file of the pool"
    TARGETS = "each target"
    SELECTIONS = "each selection"
    PINNED = "the distribution that the estimator is pinned to, where the configuration pins one"
    NONE = "it has none"

    def keys(self, plan: Plan) -> list[str]:
        """Return the partition keys of a plan; ``['']`` without partitions."""
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
        """Whether one run makes many of them, each an event of its own."""
        return self in (Partitions.SHARDS, Partitions.TARGETS)


@dataclass(frozen=True)
class Inputs:
    """What an output has to be made of.

    Attributes
    ----------
    inputs : mapping of str to str
        Name of an input to its fingerprint, or to its text where that is short.
    decisive : mapping of str to str, optional
        What the fingerprint is the hash of, where that is less than the inputs: an input may change in a part that
        the output does not depend on.
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
        Takes a workspace, a partition and a log; returns Dagster's AssetCheckResult.
    blocking : bool
        Whether what follows waits for it to pass.
    by_partition : bool
        Whether it is evaluated of each partition, or of the asset as a whole.
    exists : callable
        Takes the settings: whether there is such a check.
    due : callable
        Takes a snapshot and what a stage of a refresh made; returns the outputs that it is evaluated of.
    """

    name: str
    description: str
    evaluate: Callable[..., Any]
    blocking: bool = False
    by_partition: bool = True
    exists: Callable[[Settings], bool] = lambda settings: True
    due: Callable[[Snapshot, Sequence[Output]], Sequence[Output]] = lambda snapshot, made: made


@dataclass(frozen=True)
class Asset:
    """One asset: what it is made of, by what, into which files, and how it is shown.

    Attributes
    ----------
    name : str
    version : str
        Of the code that shapes its outputs: raised when they change for the same inputs. '' where outputs that are
        there hold whatever becomes of the code.
    description : str
        For Dagster.
    partitions : Partitions
    after : tuple of str
        Assets that it is made of.
    inputs : callable
        Takes a plan and a partition; returns what the output has to be made of, but for the version.
    step : callable, optional
        Takes Dagster's context, a workspace, partitions and options; makes these outputs, as
        ``assets.materialize.Made`` says. None: another asset's step makes it, the one named by ``made_by``.
    options : type, optional
        Class of the options of a run. Default: ``assets.materialize.RunOptions``.
    group : str
        Dagster's.
    kinds : tuple of str
        What it is made with: Dagster shows these as labels.
    files : tuple of FileKind
        Kinds of files that an output has.
    keeps_versions : bool
        Whether outputs of older fingerprints stay, each in a folder of its own.
    checks : tuple of Check
    finish : callable, optional
        Takes Dagster's context and a workspace; is called at the end of a run of it, whether that failed or not.
    made_by : str
        The asset whose step makes it; it is none of Dagster's assets then.
    """

    name: str
    version: str
    description: str
    partitions: Partitions
    inputs: Callable[[Plan, str], Inputs]
    step: Callable[..., Any] | None = None
    after: tuple[str, ...] = ()
    options: type | None = None
    group: str = ""
    kinds: tuple[str, ...] = ()
    files: tuple[FileKind, ...] = ()
    keeps_versions: bool = False
    checks: tuple[Check, ...] = ()
    finish: Callable[..., None] | None = None
    made_by: str = ""


@dataclass(frozen=True)
class Graph:
    """The assets, each after those that it is made of.

    Attributes
    ----------
    assets : dict of str to Asset
        By name.
    """

    assets: dict[str, Asset] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Asset:
        return self.assets[name]

    def __iter__(self) -> Iterator[Asset]:
        return iter(self.assets.values())

    @property
    def shown(self) -> list[Asset]:
        """Dagster's assets: those that have a step."""
        return [asset for asset in self if asset.step]

    @property
    def versions(self) -> dict[str, str]:
        """Version of the code of each asset of Dagster's."""
        return {asset.name: asset.version for asset in self.shown}

    def keeps_versions(self, name: str) -> bool:
        """Whether old versions of an asset's outputs stay; no, of an asset that is not in the graph any more."""
        return name in self.assets and self.assets[name].keeps_versions

    def made_by(self, name: str) -> list[Asset]:
        """Return the assets whose outputs a step makes: its own last."""
        return [asset for asset in self if name in (asset.name, asset.made_by)]


@cache
def graph() -> Graph:
    """Return the graph, ``assets.graph.GRAPH``; it is loaded at first use, since the assets build on this layer."""
    return import_module("dsir_dagster.assets.graph").GRAPH
