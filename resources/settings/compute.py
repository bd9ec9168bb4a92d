"""Where work is done: the section ``compute``.

What belongs here: the engine and its size. What does not: the engines (``resources/compute.py``).
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from dsir_dagster.resources.settings.types import Model


class ComputeSettings(Model):
    """Where work is done; results are the same bytes wherever that is."""

    engine: Literal["threads", "ray"] = "threads"
    """`threads` of this machine, or `ray`: tasks of a Ray cluster (the extra `ray`). The outputs are the same
    bytes."""
    address: Annotated[str, pydantic.Field(pattern=r"^(auto|[^\s:/@]+:\d+)$")] = "auto"
    """The Ray cluster, which this machine is a node of: `auto`, or `host:port` if it is one of several."""
    cores: Annotated[int, pydantic.Field(gt=0)] | None = None
    """Of threads: how many (default: all that the process may use). Of Ray: cores that each task takes
    (default: 1)."""
