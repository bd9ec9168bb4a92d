"""Ctrl-C and SIGTERM: the first ends a command cleanly, the second at once.

What belongs here: which signal came, and what a second one does. What does not: the clean end
(``resources/engine.py``, ``dagster_project/refresh.py``).

During a run, Dagster's own handlers know neither which signal came nor that it was the second. The bytes that Python
writes to the wakeup file descriptor for every signal, whoever handles it, tell both.
"""

import os
import signal
import sys
import threading
from typing import Self

#: Shows the cursor again, which the progress display hides.
_SHOW_CURSOR = "\x1b[?25h"


class Signals:
    """A context in which SIGTERM works like Ctrl-C, and a second signal ends the process.

    Attributes
    ----------
    first : int or None
        Number of the first signal; None before any.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._came = threading.Event()

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._fd_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._term_before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        threading.Thread(target=self._watch, args=(self._reader,), name="signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._fd_before)
        signal.signal(signal.SIGTERM, self._term_before)
        os.close(self._writer)  # ends the thread

    @property
    def exit_code(self) -> int:
        """What a shell expects from a process that a signal ended."""
        self._came.wait(1.0)  # the interrupted thread may get here before the watching one
        return 128 + (self.first or signal.SIGINT)

    def _watch(self, reader: int) -> None:
        while numbers := os.read(reader, 16):
            for number in numbers:
                if number not in (signal.SIGINT, signal.SIGTERM):
                    continue
                if self.first is not None:
                    if sys.stderr.isatty():
                        os.write(2, _SHOW_CURSOR.encode())
                    os._exit(128 + self.first)
                self.first = number
                self._came.set()
        os.close(reader)
