"""A compute engine that treats tasks as a bad cluster does: out of order, twice, on machines that are lost.

What belongs here: the engine. What does not: what is computed with it.
"""

import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from dsir_dagster.resources.compute import Tell, Worker
from dsir_dagster.resources.engine import Stopped


class BadCluster:
    """Pickles functions, items and results; calls in any order, some twice and some of these only half.

    Parameters
    ----------
    worker : Worker
    seed : int
        Of the order, and of what is called twice.
    window : int
        Calls in flight.
    """

    def __init__(self, worker: Worker, seed: int = 0, window: int = 5) -> None:
        self._worker, self._random, self._window = worker, random.Random(seed), window
        self._stopped = False
        self.calls = self.repeated = 0

    def map(self, function: Callable, items: Iterable) -> Iterator[Any]:
        """As :meth:`dsir_dagster.resources.compute.Compute.map`."""
        for outcomes in self._windows(function, items):
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome

    def map_threaded(self, function: Callable, items: Iterable) -> Iterator[Any]:
        """As :meth:`dsir_dagster.resources.compute.Compute.map_threaded`."""
        return self.map(function, items)

    def map_outputs(
        self, function: Callable, items: Iterable, tell: Tell, patience: float = 0.5
    ) -> Iterator[Any]:
        """As :meth:`dsir_dagster.resources.compute.Compute.map_outputs`."""
        done = 0
        for outcomes in self._windows(function, items, tell):
            yield None
            numbered = list(enumerate(outcomes, start=done))
            done += len(outcomes)
            yield from self._random.sample(numbered, len(numbered))

    def stop(self) -> None:
        """As :meth:`dsir_dagster.resources.compute.Compute.stop`."""
        self._stopped = True

    def _windows(self, function: Callable, items: Iterable, *tell: Tell) -> Iterator[list[Any]]:
        function = pickle.dumps(function)
        remaining = iter(items)
        while taken := [pickle.dumps(item) for item in islice(remaining, self._window)]:
            outcomes = {}
            for at in self._random.sample(range(len(taken)), len(taken)):
                if self._random.random() < 0.3:
                    self.repeated += 1
                    self._call(function, taken[at], *tell)
                outcomes[at] = self._call(function, taken[at], *tell)
            if self._stopped:
                raise Stopped
            yield [outcomes[at] for at in range(len(taken))]

    def _call(self, function: bytes, item: bytes, *tell: Tell) -> Any:
        self.calls += 1
        try:
            outcome = pickle.loads(function)(self._worker, pickle.loads(item), *tell)
        except Exception as error:
            outcome = error
        return pickle.loads(pickle.dumps(outcome))
