"""DSIR_HOME as a folder: making it private, and letting one run of the whole graph have it at a time.

What belongs here: the folder itself and its lock. What does not: the files in it (``resources/store.py``), how
processes take turns with the catalog (``resources/database.py``).
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def private_folder(path: Path) -> None:
    """Make a folder that only its owner can look into; an existing one stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)


class HomeLock:
    """The lock that a run of the whole graph holds; the OS releases it when the process exits, however it exits.

    Parameters
    ----------
    home : Path
        DSIR_HOME.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "run.lock"
        self._held: IO[str] | None = None

    @contextmanager
    def exclusive(self, say: Callable[[str], None]) -> Iterator[None]:
        """Hold the home while the body runs; see :meth:`hold`."""
        self.hold(say)
        try:
            yield
        finally:
            self.release()

    def hold(self, say: Callable[[str], None]) -> bool:
        """Hold the home against other runs of the whole graph; wait for one that has it.

        Parameters
        ----------
        say : callable
            Takes a line of text if there is a run to wait for.

        Returns
        -------
        bool
            False if it was held already.
        """
        if self._held:
            return False
        file = self._path.open("a")
        try:
            if not _lock(file):
                say(f"another run is bringing {self._home} up to date; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
        except BaseException:  # an interrupt while it waits, too
            file.close()
            raise
        self._held = file
        return True

    def release(self) -> None:
        """Release the home, if it is held."""
        if self._held:
            self._held.close()
            self._held = None

    def busy(self) -> bool:
        """Return whether a run of the whole graph has the home, in any process."""
        with self._path.open("a") as file:
            return not _lock(file)


def _lock(file: IO[str]) -> bool:
    """Lock a file unless another has it; return whether it is locked now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
