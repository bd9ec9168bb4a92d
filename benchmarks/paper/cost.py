"""What a computation costs: seconds, processor seconds, memory.

What belongs here: measuring them for a part of this process. What does not: what is computed.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pyarrow as pa

#: Seconds between two looks at the memory.
_INTERVAL = 0.005


@dataclass
class Cost:
    """Filled when the computation ends.

    Attributes
    ----------
    seconds, cpu : float
        Of the clock, and of all threads together. Other work on the machine adds to the first far more than to the
        second.
    memory : int
        Bytes by which the resident memory of the process grew at most, looked at every 5 ms. What was in use before is
        not counted. Memory that allocators kept from earlier work is given back before, else it would be used again
        unseen.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    memory: int = 0


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure what is computed in the block, which must be the only work of the process."""
    pa.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)
    process, done, cost = psutil.Process(), threading.Event(), Cost()
    before = most = process.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not done.wait(_INTERVAL):
            most = max(most, process.memory_info().rss)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    started, cpu = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        cost.seconds, cost.cpu = time.perf_counter() - started, time.process_time() - cpu
        most = max(most, process.memory_info().rss)
        done.set()
        watching.join()
        cost.memory = most - before
