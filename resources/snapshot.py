"""An open pipeline together with its plan at one moment.

What belongs here: holding the two together, since files are read as the plan describes them. What does not: opening the
pipeline (``workspace.py``), finding its files (``discovery.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsir_dagster.resources.catalog import Catalog
from dsir_dagster.resources.compute import Compute
from dsir_dagster.resources.engine import Engine
from dsir_dagster.resources.plan import Plan
from dsir_dagster.resources.settings import Settings
from dsir_dagster.resources.store import Store

if TYPE_CHECKING:
    from dsir_dagster.resources.workspace import Workspace


@dataclass(frozen=True)
class Snapshot:
    """An open pipeline and what each output is to be made of; from :meth:`Workspace.snapshot`.

    Attributes
    ----------
    workspace : Workspace
    plan : Plan
    """

    workspace: Workspace
    plan: Plan

    @classmethod
    def known(cls, workspace: Workspace) -> tuple[Snapshot, dict[str, str]]:
        """Return the snapshot for commands that only show, and what is absent; see :meth:`Workspace.known_plan`."""
        plan, absent = workspace.known_plan()
        return cls(workspace, plan), absent

    @property
    def settings(self) -> Settings:
        """The configuration."""
        return self.workspace.settings

    @property
    def home(self) -> Path:
        """DSIR_HOME."""
        return self.workspace.home

    @property
    def store(self) -> Store:
        """The files of outputs."""
        return self.workspace.store

    @property
    def catalog(self) -> Catalog:
        """The lineage and the metrics."""
        return self.workspace.catalog

    @property
    def engine(self) -> Engine:
        """The threads of this process."""
        return self.workspace.engine

    @property
    def compute(self) -> Compute:
        """Where work is done."""
        return self.workspace.compute
