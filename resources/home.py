"""DSIR_HOME as a folder: private, with a record of where its bulk files are, one run of the whole graph at a time.

What belongs here: the folder itself, this record and the lock. What does not: the files in it
(``resources/store.py``), how processes take turns with the catalog (``resources/database.py``).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dsir_dagster.resources.settings.types import ConfigError


def private_folder(path: Path) -> None:
    """Make a folder that only its owner can look into; an existing one stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)


def store_of_home(home: Path, configured: str | None) -> str | None:
    """Return where the bulk files of a home are: an object store's URI, or None for the home itself.

    A home keeps the place it was made with, in its file ``store``.

    Raises
    ------
    ConfigError
        The configuration names another place.
    """
    record = home / "store"
    if not (home / "catalog.duckdb").exists() and os.access(home, os.W_OK):
        if configured:
            record.write_text(configured, encoding="utf-8")
        else:
            record.unlink(missing_ok=True)
    known = record.read_text(encoding="utf-8") if record.exists() else None
    if known != configured:
        here = f"the files of {home} are in {known or 'it'}"
        raise ConfigError(
            f"store: {configured or 'not set'}, but {here}; set `store` to that, choose another DSIR_HOME, or copy the "
            f"files and write their new place into {record}"
        )
    return known


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
