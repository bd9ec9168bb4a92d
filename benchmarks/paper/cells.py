"""Results: one line of JSON per cell, appended when it is done.

What belongs here: storing results by what shaped them. What does not: measuring.

A cell is a mapping of everything that shapes a result: digests of the input files, options, the version of the code.
Its fingerprint is the key, so a result is found again only if none of that changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


def fingerprint(cell: dict) -> str:
    """Return the hash of a mapping of strings, numbers, lists and mappings, whatever the order of keys."""
    return hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:32]


class Cells:
    """Results in a file.

    Parameters
    ----------
    path : Path
        Created with the first result. An unfinished last line, left by a killed process, is skipped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._results: dict[str, dict] = {}
        if path.exists():
            for line in path.read_bytes().splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                self._remember(record)

    def _remember(self, record: dict) -> None:
        self._results[fingerprint(record["cell"])] = record["result"]

    def get(self, cell: dict) -> dict | None:
        """Return the result of a cell, or None if it has not been measured."""
        return self._results.get(fingerprint(cell))

    def add(self, cell: dict, result: dict, seconds: float) -> None:
        """Store a result; it is in the file when this returns. ``cell["measure"]`` says what was measured."""
        record = {"cell": cell, "result": result, "seconds": round(seconds, 3)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Start a new line if a killed process left an unfinished one.
        unfinished = False
        if self.path.exists() and self.path.stat().st_size:
            with open(self.path, "rb") as file:
                file.seek(-1, os.SEEK_END)
                unfinished = file.read() != b"\n"
        with open(self.path, "ab") as file:
            file.write(b"\n" * unfinished + json.dumps(record).encode() + b"\n")
        self._remember(record)
