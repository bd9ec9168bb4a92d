"""Progress of long work: documents, MB and MB/s, for any listener.

What belongs here: adding up and reporting at intervals. What does not: how it is shown (Dagster's log, the display of
``dsir run``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: Called at every change; ``dsir run`` adds its display here.
listeners: list[Callable[[Progress], None]] = []


class Progress:
    """Running totals of one step.

    Parameters
    ----------
    asset : str
    partitions : int
        How many partitions the step has to do.
    log : callable
        Takes a line of text; called at most every ``interval`` seconds.
    interval : float
        Seconds.
    """

    def __init__(
        self, asset: str, partitions: int, log: Callable[[str], None], interval: float = 5.0
    ) -> None:
        self.asset = asset
        self.partitions = partitions
        self.done = 0
        self.documents = 0
        self.bytes = 0
        self.started = time.monotonic()
        self._log = log
        self._interval = interval
        self._last = self.started
        self._lock = threading.Lock()

    def add(self, *, documents: int = 0, bytes: int = 0, partitions: int = 0) -> None:
        """Add work done since the last call; thread-safe."""
        with self._lock:
            self.documents += documents
            self.bytes += bytes
            self.done += partitions
            now = time.monotonic()
            due = now - self._last >= self._interval and self.done < self.partitions
            if due:
                self._last = now
        if due:
            self._log(str(self))
        for listener in listeners:
            listener(self)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def __str__(self) -> str:
        text = f"{self.asset}: {self.done} of {self.partitions} partitions"
        if self.documents:
            text += f", {self.documents:,} documents"
        if self.bytes:
            text += f", {self.bytes / 1e6:,.1f} MB, {self.bytes / 1e6 / max(self.seconds, 1e-9):,.0f} MB/s"
        return text
