"""Where work is done: the section ``compute``.

What belongs here: the engine and its size. What does not: the engines (``resources/compute.py``).
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from dsir_dagster.resources.settings.types import Model


class ComputeSettings(Model):
    """Where work is done; results are the same bytes wherever that is.

    Attributes
    ----------
    engine : {"threads", "ray"}
        Threads of this machine, or tasks of a Ray cluster (the extra `ray`).
    address : str
        Of the Ray cluster: ``auto`` for the one that this machine is part of, or ``host:port``.
    cores : int, optional
        Of the threads: how many; default all that the process may run on. Of Ray: what each task takes; default 1.
    """

    engine: Literal["threads", "ray"] = "threads"
    address: Annotated[str, pydantic.Field(pattern=r"^(auto|[^\s:/@]+:\d+)$")] = "auto"
    cores: Annotated[int, pydantic.Field(gt=0)] | None = None
