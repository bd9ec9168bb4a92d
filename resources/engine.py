"""Threads: map over a stream in order, with bounded work in flight.

What belongs here: the thread pools and their bounds, and what allocates their memory. What does not: what is computed
in them. Threads are enough, since reading, featurizing and compression release the GIL.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import islice
from queue import Full, Queue
from typing import TypeVar

import pyarrow as pa

T = TypeVar("T")
R = TypeVar("R")

_END = object()  # of a stream, after its last item

#: Seconds that :meth:`Engine.stop` waits for work in hand to end at its next item, and to remove what it was writing.
STOP_SECONDS = 5.0


class Stopped(BaseException):
    """Work ended before it was done, because :meth:`Engine.stop` was called. No error: nothing is wrong with it."""


class Engine:
    """Three pools of threads, for outputs, shards and blocks.

    Work on an output may wait for shards, and work on a shard for blocks; each level has threads of its
    own, so that none waits for itself.

    Parameters
    ----------
    threads : int, optional
        Default: the cores this process may run on.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or available_cores()
        choose_allocator()
        self._outputs = ThreadPoolExecutor(self.threads, thread_name_prefix="output")
        self._shards = ThreadPoolExecutor(self.threads, thread_name_prefix="shard")
        self._blocks = ThreadPoolExecutor(self.threads, thread_name_prefix="block")
        self._stopped = threading.Event()
        self._running: set[Future] = set()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End all work for good: whatever asks for its next item raises :class:`Stopped`.

        Parameters
        ----------
        seconds : float
            How long to wait for work in hand to get that far.
        """
        self._stopped.set()
        wait(list(self._running), timeout=seconds)

    def map_outputs(
        self, function: Callable[[T], R], items: Iterable[T], patience: float = 0.5
    ) -> Iterator[R | None]:
        """Yield ``function(item)`` as they are done, and None whenever none was for ``patience`` seconds.

        ``function`` may call all of the methods below.
        """
        remaining = iter(items)
        running: set[Future[R]] = set()
        try:
            while True:
                # Results are small, and whoever takes them may be busy recording.
                for item in islice(remaining, 8 * self.threads - len(running)):
                    running.add(self._submit(self._outputs, function, item))
                if not running:
                    return
                done, running = wait(running, timeout=patience, return_when=FIRST_COMPLETED)
                self._go_on()
                yield from (future.result() for future in done)
                if not done:
                    yield None
        finally:
            for future in running:
                future.cancel()

    def map_shards(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """The same for shards; ``function`` may itself call :meth:`map_blocks`."""
        return self._ordered_map(self._shards, function, items, self.threads + 1)

    def map_blocks(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """The same for blocks; few are held at a time."""
        return self._ordered_map(self._blocks, function, items, self.threads + 1)

    def chain(self, streams: Iterable[Callable[[], Iterator[T]]], held: int = 8) -> Iterator[T]:
        """Yield the items of several streams, one after the other, while later ones read ahead.

        Streams are read in the shards' threads.

        Parameters
        ----------
        streams : iterable of callable
            Each returns an iterator; it is consumed in a thread of its own.
        held : int
            Items that a stream may be ahead by.
        """
        stop = threading.Event()

        def put(queue: Queue, item: object) -> bool:
            while not stop.is_set():
                with suppress(Full):
                    queue.put(item, timeout=0.1)
                    return True
            return False

        def drain(stream: Callable[[], Iterator[T]], queue: Queue) -> None:
            try:
                for item in stream():
                    self._go_on()
                    if not put(queue, item):
                        return
            finally:
                put(queue, _END)

        def start(stream: Callable[[], Iterator[T]]) -> tuple[Future, Queue]:
            queue: Queue = Queue(held)
            return self._submit(self._shards, drain, stream, queue), queue

        remaining = iter(streams)
        running: deque[tuple[Future, Queue]] = deque()
        try:
            # One more than threads, so that none of these waits for whoever takes the items.
            for stream in islice(remaining, self.threads + 1):
                running.append(start(stream))
            while running:
                future, queue = running[0]
                while (item := queue.get()) is not _END:
                    self._go_on()
                    yield item
                future.result()
                running.popleft()
                running.extend(start(stream) for stream in islice(remaining, 1))
        finally:
            stop.set()
            for future, _ in running:
                future.cancel()

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise Stopped

    def _submit(self, pool: ThreadPoolExecutor, function: Callable[..., R], *arguments: object) -> Future[R]:
        def run() -> R:
            self._go_on()
            return function(*arguments)

        self._go_on()
        future = pool.submit(run)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def _ordered_map(
        self, pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], window: int
    ) -> Iterator[R]:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                if len(waiting) >= window:
                    yield waiting.popleft().result()
                waiting.append(self._submit(pool, function, item))
            while waiting:
                self._go_on()
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            if isinstance(
                items, Generator
            ):  # whoever holds on to an error would keep it, and its threads, alive
                items.close()


def choose_allocator() -> None:
    """Let Arrow take its memory from jemalloc where it has that, unless ARROW_DEFAULT_MEMORY_POOL says otherwise.

    mimalloc, its default, gives freed memory back to the system and asks for it anew for the next batch: a pass over
    the pool takes a quarter longer.
    """
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


def available_cores() -> int:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
