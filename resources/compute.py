"""Where a step's work is done: functions of one item, called by threads here or by tasks of a cluster.

What belongs here: what such a function may rely on, and the two ways in which a step has it called. What does not: the
threads themselves (``engine.py``), Ray (``ray_compute.py``), what is computed.

A function that is handed to :class:`Compute` can be pickled (a function of a module, a ``functools.partial`` of one, or
a dataclass with ``__call__``), and so can its items and results. It gets everything from its arguments: the catalog,
the plan and the run stay in the process that leads the run. Results depend on the item alone, so it does not matter
where it was called, in which order, or whether it was called again because a machine was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dsir_dagster.resources.engine import Engine
from dsir_dagster.resources.settings import Settings
from dsir_dagster.resources.store import Store

T = TypeVar("T")
R = TypeVar("R")

#: Tells what was done since the last call: takes ``documents``, ``bytes`` and ``work``. A function that is called in
#: this process may do its work in parts, and tells what begins: ``part``, and ``of``, the part's work
#: (:meth:`dsir_dagster.resources.progress.Progress.add`).
Tell = Callable[..., None]


def untold(**_: Any) -> None:
    """Tell nobody."""


def within(tell: Tell, heading: str) -> Tell:
    """Return what tells of the parts of a larger one."""

    def told(*, part: str | None = None, **numbers: int) -> None:
        tell(part=part if part is None else f"{heading}: {part}", **numbers)

    return told


def counted(tell: Tell, part: str, results: Iterable[R], n: int) -> Iterator[R]:
    """Yield the ``n`` results that are all the work of a part, telling of each."""
    tell(part=part, of=n)
    for result in results:
        tell(work=1)
        yield result


@dataclass(frozen=True)
class Worker:
    """What a function has at hand where it is called.

    Attributes
    ----------
    settings : Settings
        The configuration.
    store : Store
        The files of outputs.
    engine : Engine
        Threads for the blocks of its item.
    """

    settings: Settings
    store: Store
    engine: Engine

    @property
    def home(self) -> Path:
        """DSIR_HOME."""
        return self.store.home


class Compute(Protocol):
    """Calls a function of one item for many items."""

    def map(self, function: Callable[[Worker, T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield ``function(worker, item)`` of all items, in their order.

        An item is taken when its call is due, so that it can hold what the results before it gave.
        """

    def map_threaded(self, function: Callable[[Worker, T], R], items: Iterable[T]) -> Iterator[R]:
        """As :meth:`map`, for a function that keeps all threads of the worker's engine busy by itself."""

    def map_outputs(
        self, function: Callable[[Worker, T, Tell], R], items: Iterable[T], tell: Tell, patience: float = 0.5
    ) -> Iterator[tuple[int, R | Exception] | None]:
        """Yield ``function(worker, item, tell)`` with its item's number as they are done, or the error that it raised.

        None whenever none was done for ``patience`` seconds.

        Parameters
        ----------
        function : callable
        items : iterable
        tell : callable
            Called with what the calls told, here, now and then.
        patience : float
        """

    def stop(self) -> None:
        """End all work for good."""


class Threads:
    """Calls in threads of this process.

    Parameters
    ----------
    worker : Worker
        Of this process.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def map(self, function: Callable[[Worker, T], R], items: Iterable[T]) -> Iterator[R]:
        """As :meth:`Compute.map`."""
        return self._worker.engine.map_shards(partial(function, self._worker), items)

    def map_threaded(self, function: Callable[[Worker, T], R], items: Iterable[T]) -> Iterator[R]:
        """As :meth:`Compute.map_threaded`: one call after the other."""
        return (function(self._worker, item) for item in items)

    def map_outputs(
        self, function: Callable[[Worker, T, Tell], R], items: Iterable[T], tell: Tell, patience: float = 0.5
    ) -> Iterator[tuple[int, R | Exception] | None]:
        """As :meth:`Compute.map_outputs`."""

        def call(numbered: tuple[int, T]) -> tuple[int, R | Exception]:
            number, item = numbered
            try:
                return number, function(self._worker, item, tell)
            except Exception as error:
                return number, error

        return self._worker.engine.map_outputs(call, enumerate(items), patience)

    def stop(self) -> None:
        """As :meth:`Compute.stop`."""
        self._worker.engine.stop()


def compute_for(worker: Worker) -> Compute:
    """Return what the configuration asks for."""
    if worker.settings.compute.engine == "threads":
        return Threads(worker)
    from dsir_dagster.resources.ray_compute import Ray  # a heavy library, and an extra

    return Ray(worker)
