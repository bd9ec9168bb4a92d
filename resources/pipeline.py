"""The pipeline as a Dagster resource.

What belongs here: what a code location configures, and what happens to it at the end of a run. What does not: the
pipeline itself (``resources/workspace.py``).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import dagster as dg
import pydantic

from dsir_dagster.resources.workspace import Workspace


class PipelineResource(dg.ConfigurableResource):
    """The pipeline that a code location serves."""

    config: str = pydantic.Field(description="Path of the YAML file.")
    home: str = pydantic.Field(description="DSIR_HOME: where outputs and the catalog are.")
    threads: int = pydantic.Field(
        default=0, description="Threads of a run; 0: as many as the cores it may use."
    )

    @cached_property
    def workspace(self) -> Workspace:
        """The workspace, opened at first use."""
        return Workspace(Path(self.config), Path(self.home), self.threads or None)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Release the home at the end of a run that held it."""
        if "workspace" in self.__dict__:
            self.workspace.lock.release()
