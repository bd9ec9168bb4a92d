"""Threads: map over a stream in order, with bounded work in flight.

What belongs here: the thread pools, their bounds, and Arrow's memory allocator. What does not: the work done in them.
Threads are enough, since reading, featurizing and compression release the GIL.
"""

from __future__ import annotations

import ctypes
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

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h

_END = object()  # of a stream, after its last item

#: Seconds that :meth:`Engine.stop` waits for running work to reach its next item and remove its unfinished files.
STOP_SECONDS = 5.0

#: Requests to a store that wait for their answers at the same time.
REQUESTS = 32


class Stopped(BaseException):
    """Work ended early because :meth:`Engine.stop` was called. Not an error."""


class Engine:
    """Pools of threads, for outputs, shards and blocks, and for requests.

    Work on an output may wait for shards, and work on a shard for blocks; each level has its own threads, so that
    none waits for itself.

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
        self._requests = ThreadPoolExecutor(REQUESTS, thread_name_prefix="request")
        self._stopped = threading.Event()
        self._running: set[Future] = set()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """End all work for good: it raises :class:`Stopped` at its next item. A second call does not wait again.

        Parameters
        ----------
        seconds : float
            How long to wait for running work to get there.
        """
        if self._stopped.is_set():
            return
        self._stopped.set()
        wait(list(self._running), timeout=seconds)

    def map_outputs(
        self, function: Callable[[T], R], items: Iterable[T], patience: float = 0.5
    ) -> Iterator[R | None]:
        """Yield results of ``function(item)`` as they come, and None after ``patience`` seconds without one.

        ``function`` may call any of the methods below.
        """
        remaining = iter(items)
        running: set[Future[R]] = set()
        try:
            while True:
                # More than threads: results are small, and their consumer may be busy recording.
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
        """Yield ``function(shard)`` in order; ``function`` may itself call :meth:`map_blocks`."""
        return self._ordered_map(self._shards, function, items, self.threads + 1)

    def map_blocks(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield ``function(block)`` in order; few blocks are held at a time."""
        return self._ordered_map(self._blocks, function, items, self.threads + 1)

    def map_requests(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield ``function(item)`` in order, of functions that mostly wait for an answer: many run at a time."""
        return self._ordered_map(self._requests, function, items, 2 * REQUESTS)

    def chain(self, streams: Iterable[Callable[[], Iterator[T]]], held: int = 8) -> Generator[T, None, None]:
        """Yield the items of several streams, one stream after the other, while later ones read ahead.

        Streams are read in the shards' threads.

        Parameters
        ----------
        streams : iterable of callable
            Each returns an iterator, which is consumed in a thread.
        held : int
            Items that a stream may read ahead.
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
            # One more than threads, so that no thread waits for the consumer.
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
            # A traceback that is kept would keep the generator, and its threads, alive.
            if isinstance(items, Generator):
                items.close()


def choose_allocator() -> None:
    """Have Arrow allocate with jemalloc, if it has that, and all threads from one heap of the C library.

    Unless ARROW_DEFAULT_MEMORY_POOL and MALLOC_ARENA_MAX say otherwise. mimalloc, Arrow's default, returns freed memory
    to the system and requests it again for the next batch: a pass over the pool takes a quarter longer. glibc gives
    each thread a heap of its own, which keeps the memory of the largest batch that it ever held; arrays are few and
    large here, so that threads hardly wait for each other.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(AttributeError, OSError, TypeError):  # not glibc
            ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


def available_cores() -> int:
    """Return the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
