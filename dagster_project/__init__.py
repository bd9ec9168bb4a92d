"""The code location: definitions, partitions, jobs, settings and the command line.

What belongs here: assembling the graph and driving it. What does not: the method (``dsir/``), the steps of assets
(``assets/``), files and databases (``resources/``).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsir_dagster.resources.texts import read_texts

__all__ = ["read_texts"]


def __getattr__(name: str) -> Any:
    """Import what is exported when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dsir_dagster.resources.texts import read_texts

    return read_texts
