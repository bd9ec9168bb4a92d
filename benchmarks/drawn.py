"""Pools whose keys and totals are drawn, for the size of pools that nobody has at hand.

What belongs here: passes over such a pool, as the project's own selection and matching make them over a real one, with
the CPU time and the candidates of each. What does not: the table that is made of them (``benchmarks/scale.py``).

The pool is cut into shards, and a pass takes them in order. As on a cluster, a shard's task is given the floor when the
task is handed over, and some tasks are under way at any time: its floor is that of so many results before.

Drawing itself is not counted; a task's time here is that of ranking alone, without reading documents and features.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from dsir.features import Features
from dsir.matching import Part as MatchingPart
from dsir.selection import CANDIDATE
from dsir_dagster.assets.picking.candidates import CANDIDATE_COLUMNS, Candidates, Documents, Part
from dsir_dagster.assets.raw_counts import ROW_GROUP

#: Deviation of a document's log weight from the mean, and of its key in `match` from that of its kind, in nats.
SPREAD, WITHIN_KIND = 50.0, 0.1
#: Tokens of every document.
TOKENS = 128


@dataclass
class Work:
    """What passes took.

    Attributes
    ----------
    drawn, tasks : float
        CPU seconds of drawing, and of what a cluster's tasks do.
    passes, sent : int
        Passes over the pool, and candidates that its tasks returned.
    first_sent : int
        Candidates of the tasks that were handed over before any result was there.
    """

    drawn: float = 0.0
    tasks: float = 0.0
    passes: int = 0
    sent: int = 0
    first_sent: int = 0

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Count the CPU time of a block as that of drawing."""
        begin = time.process_time()
        yield
        self.drawn += time.process_time() - begin


@dataclass(frozen=True)
class DrawnPool:
    """A pool of shards.

    Attributes
    ----------
    documents, shard_documents : int
        In all, and of each shard but the last.
    under_way : int
        Tasks at any time.
    """

    documents: int
    shard_documents: int
    under_way: int
    work: Work = field(default_factory=Work)

    def blocks(self, shard: int) -> Iterator[tuple[np.random.Generator, int, int]]:
        """Yield a generator, the first row and the number of documents of each block of a shard; the same each time."""
        of_shard = min(self.shard_documents, self.documents - shard * self.shard_documents)
        for first in range(0, of_shard, ROW_GROUP):
            yield np.random.default_rng((shard, first)), first, min(ROW_GROUP, of_shard - first)

    def passing(
        self, call: Callable[[int, Any], Any], given: Callable[[], Any], n_sent: Callable[[Any], int]
    ) -> Iterator[Any]:
        """Yield ``call(shard, given())`` of every shard, with what was given so many results before."""
        shards = -(-self.documents // self.shard_documents)
        ahead = deque(given() for _ in range(min(self.under_way, shards)))
        self.work.passes += 1
        for shard in range(shards):
            begin, drawn = time.process_time(), self.work.drawn
            result = call(shard, ahead.popleft())
            self.work.tasks += time.process_time() - begin - (self.work.drawn - drawn)
            self.work.sent += n_sent(result)
            if shard < self.under_way:
                self.work.first_sent += n_sent(result)
            yield result
            if shard + self.under_way < shards:
                ahead.append(given())


@dataclass(frozen=True)
class DrawnCandidates(Candidates):
    """Documents with drawn log weights, for ``dsir_dagster.assets.methods.pick``."""

    pool: DrawnPool

    def each_shard(
        self, function: Callable[[Part, Any], Any], given: Callable[[], Any] = lambda: None, **_: Any
    ) -> Iterator[Any]:
        """As of a real pool; what is to be read does not matter."""

        def call(shard: int, given: Any) -> Any:
            return function(lambda of_documents: map(of_documents, self._documents(shard)), given)

        return self.pool.passing(call, given, lambda result: sum(len(top) for of in result for top in of))

    def _documents(self, shard: int) -> Iterator[Documents]:
        [target] = self.selection.targets
        for chance, first, n in self.pool.blocks(shard):
            with self.pool.work.drawing():
                hashes = chance.integers(0, 2**64, n, np.uint64)
                columns = {
                    "row": np.arange(first, first + n),
                    "id_hash": hashes,
                    "n_tokens": np.full(n, TOKENS),
                    "content_hash": hashes,
                }
                table = pa.table({name: columns[name] for name in CANDIDATE_COLUMNS})
                weights = {target: chance.standard_normal(n) * SPREAD}
                eligible = np.zeros(n, np.int8)
            yield Documents(shard, str(shard), table, weights, eligible)


class DrawnPasses:
    """Passes over features for :func:`dsir.matching.match`: every document is of one of a few kinds.

    A kind is a real document with its n-grams, and the key of a document deviates a little from that of its kind. So
    the rounds see what they see in a real pool, and only the kinds are weighed, once a pass.

    Parameters
    ----------
    pool : DrawnPool
    kinds : Features
        Of at most 65,536 documents.
    """

    def __init__(self, pool: DrawnPool, kinds: Features) -> None:
        self._pool = pool
        self._kinds = kinds
        self._arrow = kinds.to_arrow()
        self._keys = np.zeros(len(kinds))
        self._ranking = False

    def __call__(
        self, function: Callable[[MatchingPart, float], Any], given: Callable[[], float]
    ) -> Iterator[Any]:
        """Make a pass, as :data:`dsir.matching.Passes`."""
        # Of two passes a round makes, the first ranks all documents, and the second adds up what was picked.
        self._ranking = not self._ranking
        ranking, known = self._ranking, False

        def call(shard: int, floor: float) -> Any:
            def part(of_batch: Callable[[pa.RecordBatch, np.ndarray], Any]) -> Iterator[np.ndarray]:
                nonlocal known
                if ranking and not known:
                    with self._pool.work.drawing():
                        self._keys = of_batch(self._arrow, np.zeros(len(self._kinds), CANDIDATE))["key"]
                    known = True
                return self._ranked(shard) if ranking else self._added(of_batch, shard, floor)

            return function(part, floor)

        return self._pool.passing(call, given, lambda result: len(result) if ranking else 0)

    def _drawn(self, shard: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the rows, kinds and keys of each block of a shard."""
        for chance, first, n in self._pool.blocks(shard):
            with self._pool.work.drawing():
                kind = chance.integers(0, len(self._kinds), n, np.uint16)
                key = self._keys[kind] + WITHIN_KIND * chance.standard_normal(n, np.float32)
            yield np.arange(first, first + n), kind, key

    def _ranked(self, shard: int) -> Iterator[np.ndarray]:
        """Yield all documents as candidates."""
        for rows, _, key in self._drawn(shard):
            candidates = _candidates(shard, rows)
            candidates["key"] = key
            yield candidates

    def _added(
        self, of_batch: Callable[[pa.RecordBatch, np.ndarray], Any], shard: int, floor: float
    ) -> Iterator[Any]:
        """Yield the totals of the documents whose keys reach the floor; below it, none was picked."""
        for rows, kind, key in self._drawn(shard):
            if len(at := np.flatnonzero(key >= floor)):
                with self._pool.work.drawing():
                    batch = self._arrow.take(pa.array(kind[at]))
                yield of_batch(batch, _candidates(shard, rows[at]))


def _candidates(shard: int, rows: np.ndarray) -> np.ndarray:
    candidates = np.zeros(len(rows), CANDIDATE)
    candidates["shard"], candidates["row"], candidates["n_tokens"] = shard, rows, TOKENS
    candidates["id_hash"] = candidates["content_hash"] = rows
    return candidates
