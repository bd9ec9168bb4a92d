"""Ray: calls as tasks of a cluster.

What belongs here: connecting, tasks in flight and their order, progress of the workers. What does not: what a function
may rely on (``compute.py``), what is computed.

Every node sees the files of the pool and those of outputs under the same names, on a shared disk or in an object store,
and has this project installed in the same version. Ray repeats the tasks of a worker or a node that is lost. Nothing
goes into ``runtime_env``, which Ray logs.
"""

from __future__ import annotations

import logging
import platform
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from dsir_dagster.resources.compute import Tell, Worker
from dsir_dagster.resources.engine import Engine, Stopped
from dsir_dagster.resources.settings import ConfigError, Settings
from dsir_dagster.resources.store import Store
from dsir_dagster.resources.wording import one_line

T = TypeVar("T")
R = TypeVar("R")

#: How often Ray calls again after a worker or a node was lost.
RETRIES = 5
#: Tasks that wait beside each one that runs, so that no worker waits for this process.
AHEAD = 2
#: Seconds between what a task tells of its progress, and between looks at whether work was stopped.
TELL_SECONDS = 0.5


@dataclass(frozen=True)
class _Spec:
    """What a :class:`Worker` is made of on another machine."""

    settings: Settings
    home: Path
    cores: int


@dataclass(frozen=True)
class _Raised:
    """An error of a function, as its result: what a task raises Ray takes for a fault of its own."""

    error: Exception


class TaskLost(RuntimeError):
    """A task ended without a result each time: its process was killed, or ran out of memory."""


class Ray:
    """Calls as tasks of a Ray cluster.

    Parameters
    ----------
    worker : Worker
        Of this process; the configuration says where the cluster is, and how many cores a task takes.

    Raises
    ------
    ConfigError
        On first use: Ray is not installed, or there is no cluster at this address.
    """

    def __init__(self, worker: Worker) -> None:
        settings = worker.settings
        self._address = settings.compute.address
        self._spec = _Spec(settings, worker.home, settings.compute.cores or 1)
        self._stopped = False

    @cached_property
    def _ray(self) -> Any:
        """Ray, connected at first use: what only reads needs neither it nor the cluster."""
        if find_spec("ray") is None:
            raise ConfigError(
                "compute.engine: ray is not installed; install it with `pip install -e .[ray]`, on every node of the "
                "cluster too, or choose threads"
            )
        import ray

        if not ray.is_initialized():
            try:
                ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
            except ConnectionError as error:
                raise ConfigError(
                    f"compute.address: no Ray cluster at {self._address} that this machine is a node of; start one "
                    "with `ray start --head`, or join it with `ray start --address=HOST:6379 --num-cpus=0`"
                ) from error
        return ray

    @cached_property
    def _task(self) -> Any:
        return self._ray.remote(num_cpus=self._spec.cores, max_retries=RETRIES)(_call)

    @cached_property
    def _shared_spec(self) -> Any:
        return self._ray.put(self._spec)

    def _window(self) -> int:
        """How many tasks to have in flight; nodes come and go."""
        cores = self._ray.cluster_resources().get("CPU", 0)
        return AHEAD * max(int(cores // self._spec.cores), 1)

    def map(self, function: Callable[[Worker, T], R], items: Iterable[T]) -> Iterator[R]:
        """As :meth:`dsir_dagster.resources.compute.Compute.map`."""
        shared = self._ray.put(function)
        remaining = iter(items)
        running: deque[Any] = deque()
        try:
            while True:
                for item in islice(remaining, max(self._window() - len(running), 0)):
                    running.append(self._task.remote(self._shared_spec, shared, item))
                if not running:
                    return
                self._go_on()
                while not self._ray.wait([running[0]], timeout=TELL_SECONDS)[0]:
                    self._go_on()
                outcome = self._outcome(running.popleft())
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
        finally:
            self._cancel(running)

    def map_threaded(self, function: Callable[[Worker, T], R], items: Iterable[T]) -> Iterator[R]:
        """As :meth:`dsir_dagster.resources.compute.Compute.map_threaded`: each task has an engine of its own."""
        return self.map(function, items)

    def map_outputs(
        self, function: Callable[[Worker, T, Tell], R], items: Iterable[T], tell: Tell, patience: float = 0.5
    ) -> Iterator[tuple[int, R | Exception] | None]:
        """As :meth:`dsir_dagster.resources.compute.Compute.map_outputs`."""
        shared = self._ray.put(function)
        board = self._board()
        told: dict[int, dict[str, int]] = {}
        remaining = enumerate(items)
        running: dict[Any, int] = {}
        try:
            while True:
                for number, item in islice(remaining, max(self._window() - len(running), 0)):
                    reference = self._task.remote(self._shared_spec, shared, item, (board, number))
                    running[reference] = number
                if not running:
                    return
                done, _ = self._ray.wait(list(running), timeout=patience)
                self._go_on()
                _tell_of(told, self._ray.get(board.read.remote()), tell)
                for reference in done:
                    yield running.pop(reference), self._outcome(reference)
                if not done:
                    yield None
        finally:
            self._cancel(running)
            self._ray.kill(board)

    def _board(self) -> Any:
        """Start the board on this machine, with which it ends: a node that is lost takes no progress with it."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        return self._ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()

    def stop(self) -> None:
        """As :meth:`dsir_dagster.resources.compute.Compute.stop`."""
        self._stopped = True

    def _go_on(self) -> None:
        if self._stopped:
            raise Stopped

    def _outcome(self, reference: Any) -> Any:
        """Return a task's result, or the error that its function raised, or that Ray could not have it done."""
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return TaskLost(f"given up by Ray after {RETRIES} retries: {one_line(error)}")
        return result.error if isinstance(result, _Raised) else result

    def _cancel(self, running: Iterable[Any]) -> None:
        for reference in running:
            self._ray.cancel(reference)


def _call(spec: _Spec, function: Callable, item: object, telling: tuple[Any, int] | None = None) -> object:
    """Call a function on a worker of the cluster."""
    worker = Worker(spec.settings, _store(spec.home, spec.settings.store), _engine(spec.cores))
    try:
        if telling is None:
            return function(worker, item)
        with _Telling(*telling) as tell:
            return function(worker, item, tell)
    except Exception as error:
        error.add_note(f"On {platform.node()}:\n{traceback.format_exc()}")  # which pickling leaves behind
        return _Raised(error)


@cache
def _store(home: Path, uri: str | None) -> Store:
    return Store(home, uri)


@cache
def _engine(cores: int) -> Engine:
    return Engine(cores)


class _Board:
    """Where tasks tell of their progress: an actor, so that the process that leads the run can look at all of it."""

    def __init__(self) -> None:
        self._told: dict[int, dict[str, int]] = {}

    def write(self, task: int, told: dict[str, int]) -> None:
        """Set what a task has done so far; one that is repeated begins again."""
        self._told[task] = told

    def read(self) -> dict[int, dict[str, int]]:
        """Return what was told since the last time."""
        told, self._told = self._told, {}
        return told


class _Telling:
    """Adds up what a task tells, and tells the board now and then."""

    def __init__(self, board: Any, task: int) -> None:
        self._board, self._task = board, task
        self._sums: dict[str, int] = {}
        self._last = 0.0

    def __enter__(self) -> Tell:
        return self._add

    def __exit__(self, *_: object) -> None:
        self._board.write.remote(self._task, self._sums)

    def _add(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self._sums[name] = self._sums.get(name, 0) + number
        if time.monotonic() - self._last >= TELL_SECONDS:
            self._last = time.monotonic()
            self._board.write.remote(self._task, dict(self._sums))


def _tell_of(told: dict[int, dict[str, int]], now: dict[int, dict[str, int]], tell: Tell) -> None:
    """Tell what is new: the difference to what was told of the same tasks before."""
    for task, sums in now.items():
        before = told.get(task, {})
        new = {name: number - before.get(name, 0) for name, number in sums.items()}
        if any(new.values()):
            tell(**new)
        told[task] = sums
