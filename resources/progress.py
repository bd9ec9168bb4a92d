"""Progress of long work: documents, MB/s, what is being done and the time left, for any watcher.

What belongs here: adding up, and a line of text at intervals. What does not: how it is shown
(``dagster_project/progress_bar.py``), what is done (``assets/``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: Seconds between two lines of text.
INTERVAL = 10.0

#: Called about twice a second while a step works, with a line of text when one is due, else None; and once when the
#: step is over. ``dsir run`` adds its display here.
watchers: list[Callable[[Progress, str | None], None]] = []


class Progress:
    """Running totals of one step.

    A step with one output may do it in parts, one after the other: totals are then those of the part.

    Parameters
    ----------
    name : str
        Of the asset or of its only output.
    partitions : int
        How many partitions the step has to do.
    log : callable
        Takes a line of text, every ``interval`` seconds.
    total : int
        Of the work, in any unit; 0 if not known.
    interval : float
        Seconds.
    clock : callable
        Returns seconds.

    Attributes
    ----------
    done : int
        Partitions.
    documents, bytes : int
        Looked at, and their text.
    work, total : int
        How much of the work is done, in the unit of the total.
    part : str
        What is being done, if it is done in parts.
    over : bool
        Whether the step has ended.
    """

    def __init__(
        self,
        name: str,
        partitions: int,
        log: Callable[[str], None],
        total: int = 0,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.partitions = partitions
        self.total = total
        self.done = self.documents = self.bytes = self.work = 0
        self.part, self._passes = "", 1
        self.over = False
        self._log, self._interval, self._clock = log, interval, clock
        self._started = self._began = self._last = clock()
        self._lock = threading.Lock()

    def add(
        self,
        *,
        documents: int = 0,
        bytes: int = 0,
        work: int = 0,
        partitions: int = 0,
        part: str | None = None,
        of: int = 0,
        passes: int = 1,
    ) -> None:
        """Add what was done since the last call; thread-safe.

        Parameters
        ----------
        documents, bytes, work, partitions : int
        part : str, optional
            What begins now.
        of : int
            The work of a pass of that part; 0 if not known.
        passes : int
            How often that part goes over its documents.
        """
        with self._lock:
            if part is not None:
                self.part, self.total, self._passes = part, of * passes, passes
                self.documents = self.bytes = self.work = 0
                self._began = self._clock()
            self.documents += documents
            self.bytes += bytes
            self.work += work
            self.done += partitions

    def tick(self) -> None:
        """Tell the watchers how far it is, and, if it is time, the log."""
        line, now = None, self._clock()
        if now - self._last >= self._interval:
            line, self._last = str(self), now
            self._log(line)
        for watch in watchers:
            watch(self, line)

    def end(self) -> None:
        """Tell the watchers that the step is over."""
        self.over = True
        if self.part:
            self.part, self.documents, self.bytes, self.total = "", 0, 0, 0
        for watch in watchers:
            watch(self, None)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    @property
    def share(self) -> float | None:
        """How much of the step or the part is done, between 0 and 1; None if that is not known."""
        total = self.total  # which another thread may change
        if total:
            return min(self.work / total, 1.0)
        return self.done / self.partitions if self.partitions > 1 else None

    @property
    def time_left(self) -> str:
        """Until the step or the part is done, at its rate so far; empty if that is not known."""
        share = self.share
        return f"{duration((self._clock() - self._began) * (1 - share) / share)} left" if share else ""

    @property
    def time_so_far(self) -> str:
        """Since the start."""
        return f"{duration(self.seconds)} so far"

    @property
    def details(self) -> str:
        """What is being done, and how much of it; of a part, the time left too."""
        done = [text for text in (self.part, self.time_left) if self.part and text]
        if self.partitions > 1:
            done.append(f"{self.done:,} of {self.partitions:,} partitions")
        if documents := self.documents // self._passes:
            done.append(f"{documents:,} documents")
        if megabytes := self.bytes / 1e6 / self._passes:
            done += [f"{megabytes:,.1f} MB"] * (not self.part)
            done.append(f"{megabytes / max(self._clock() - self._began, 1e-9):,.0f} MB/s")
        return ", ".join(done) or ("done" if self.over else "begun")

    def __str__(self) -> str:
        text = [f"{self.name}: {self.details}"]
        if (share := self.share) is not None and not self.over:
            text.append(f"{share:.0%}")
        if not self.over:
            text.append(self.time_so_far if self.part else self.time_left)
        return ", ".join(filter(None, text))


def duration(seconds: float) -> str:
    """Write a time as ``12 s``, ``3:05 min`` or ``2:03 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
