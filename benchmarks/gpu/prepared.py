"""What was prepared, as it is read for training and for the report.

What belongs here: the folder's arrays, what names a figure. What does not: writing the folder, training. NumPy and the
standard library alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.gpu.design import Experiment, Plan

#: Changes whenever the same arrays, plan and seed could give another figure.
VERSION = 1

#: The token that follows every text.
END = 0


class Prepared:
    """The token arrays of ``prepare``.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    experiment : Experiment
    methods : list of str
    heldout : dict
        For every target its held-out ``tokens`` and ``bytes``.
    digest : str
        Of everything.

    Raises
    ------
    SystemExit
        A file is missing, or not the one that was written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        manifest = folder / "manifest.json"
        if not manifest.exists():
            raise SystemExit(f"{manifest} is missing; `python -m benchmarks.gpu prepare` writes it last")
        record = json.loads(manifest.read_text(encoding="utf-8"))
        self.digest = hashlib.sha256(manifest.read_bytes()).hexdigest()[:32]
        self.experiment = Experiment.of(record["experiment"])
        self.methods: list[str] = record["methods"]
        self.heldout: dict[str, dict[str, int]] = record["heldout"]
        for name, digest in record["files"].items():
            path = folder / name
            found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"
            if found != digest:
                raise SystemExit(
                    f"{path}: SHA-256 {found}, expected {digest}; copy the folder again or prepare it again"
                )
        self._tokens, self._starts = np.load(folder / "tokens.npy"), np.load(folder / "starts.npy")

    def selection(self, name: str, limit: int) -> np.ndarray:
        """Return the text of a selection or of ``base``, up to a limit: ndarray of int32, shape (limit,)."""
        pieces = np.load(self._folder / f"{name}.npy")
        parts = [self._tokens[self._starts[i] : self._starts[i + 1]] for i in pieces.tolist()]
        return np.concatenate(parts)[:limit].astype(np.int32)

    def target(self, name: str) -> np.ndarray:
        """Return the held-out text of a target: ndarray of int32, shape (tokens,)."""
        return np.load(self._folder / f"heldout.{name}.npy").astype(np.int32)


def cell_of(data: str, plan: Plan, seed: int, selection: str, target: str) -> dict:
    """Return everything that shapes one figure; ``data`` is the digest of the prepared folder."""
    return {
        "measure": "bits_per_byte",
        "version": VERSION,
        "data": data,
        "size": asdict(plan.size),
        "base_tokens": plan.base_tokens,
        "seed": seed,
        "selection": selection,
        "target": target,
    }
