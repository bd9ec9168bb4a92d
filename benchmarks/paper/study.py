"""All cells: methods x targets x measures x seeds, each computed once.

What belongs here: which cells there are, their order, threads and processes. What does not: making a selection
(``methods``) or measuring it (``measures``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.paper import measures
from benchmarks.paper.cells import Cells
from benchmarks.paper.corpus import Mapper, StudyCorpus, StudyTarget
from benchmarks.paper.methods import METHODS, MethodSettings, code_version, select

#: Default budget as a share of the pool: about what docs/paper.md selects from its larger corpus.
SHARE = 0.03


@dataclass
class Job:
    """A computation of one or more cells.

    Attributes
    ----------
    name : str
        For display.
    picks : str
        The selection to measure.
    cells : list of dict
    function : callable
        Takes the selection's texts and ``arguments``; returns the results of the cells, in order.
    arguments : tuple
    """

    name: str
    picks: str
    cells: list[dict]
    function: Callable
    arguments: tuple = field(repr=False)


class Study:
    """The cells of one corpus and one budget.

    Parameters
    ----------
    corpus : StudyCorpus
    folder : Path
        Holds ``cells.jsonl`` and the picks.
    tokens : int, optional
        Budget of every selection; default `SHARE` of the pool's tokens, rounded to two digits.
    mapper : callable
        Like `map`, perhaps in several threads.
    report : callable
        Called with a line about what was done, the number of finished items, and the total.
    """

    def __init__(
        self,
        corpus: StudyCorpus,
        folder: Path,
        tokens: int | None = None,
        mapper: Mapper = map,
        report: Callable[[str, int, int], None] = lambda line, done, total: None,
    ) -> None:
        self.corpus = corpus
        self.folder = folder
        self.mapper = mapper
        self.report = report
        self.cells = Cells(folder / "cells.jsonl")
        self._code = code_version()
        self.pool = self._pool()
        self.tokens = tokens or int(float(f"{SHARE * self.pool['tokens']:.2g}"))

    def _pool(self) -> dict:
        """Return the numbers of ``pieces`` and ``tokens`` of the pool."""
        cell = {"measure": "pool", "pool": self.corpus.digest}
        if self.cells.get(cell) is None:
            started = time.monotonic()
            batches, _ = self.corpus.counted(METHODS["resample"].spec)
            tokens = sum(int(batch.n_tokens.sum()) for batch in batches)
            found = {"pieces": len(self.corpus.pool), "tokens": tokens}
            self.cells.add(cell, found, time.monotonic() - started)
        return self.cells.get(cell)

    # --- selections ----------------------------------------------------------------------------------

    def select_all(self, wanted: list[tuple[MethodSettings, StudyTarget]]) -> None:
        """Make the missing selections."""
        missing = []
        for settings, target in wanted:
            cell = self._picks_cell(settings, target)
            found = self.cells.get(cell)
            if (found is None or not self._path(found["picks"]).exists()) and cell not in [
                c for c, *_ in missing
            ]:
                missing.append((cell, settings, target))
        # One specification after the other, so that the pool is counted once for each.
        missing.sort(key=lambda each: (each[1].ngrams != 2, each[1].buckets != 10_000, str(each[1].spec)))
        self.report("", 0, len(missing))
        for done, (cell, settings, target) in enumerate(missing, 1):
            started = time.monotonic()
            rows = select(settings, self.corpus, target, self.tokens, self.mapper)
            name = measures.digest_of_rows(rows)
            path = self._path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            with open(part, "wb") as file:
                np.save(file, rows)
            part.replace(path)
            self.cells.add(cell, {"picks": name, "documents": len(rows)}, time.monotonic() - started)
            self.report(f"selected: {_name(settings)}, {target.name}", done, len(missing))

    def picks(self, settings: MethodSettings, target: StudyTarget) -> str:
        """Return the name of an existing selection."""
        return self.cells.get(self._picks_cell(settings, target))["picks"]

    def documents(self, settings: MethodSettings, target: StudyTarget) -> int:
        """Return the number of its documents."""
        return self.cells.get(self._picks_cell(settings, target))["documents"]

    def texts(self, picks: str):
        """Return the texts of a selection in arbitrary order: pyarrow.Array of large_string."""
        return self.corpus.pool.take(np.load(self._path(picks)))

    def _path(self, picks: str) -> Path:
        return self.folder / "picks" / f"{picks}.npy"

    def _picks_cell(self, settings: MethodSettings, target: StudyTarget) -> dict:
        return {
            "measure": "picks",
            "pool": self.corpus.digest,
            "target": None if settings.method == "random" else [target.name, target.train.digest],
            "tokens": self.tokens,
            "settings": settings.cell(),
            "code": self._code,
        }

    # --- measures ------------------------------------------------------------------------------------

    def cell(self, measure: str, picks: str, target: StudyTarget, seed: int | None = None) -> dict:
        """Return everything that shapes one number."""
        return {
            "measure": measure,
            "pool": self.corpus.digest,
            "picks": picks,
            "target": target.name,
            "test": target.test.digest,
            "seed": seed,
            **measures.VERSIONS[measure](self.tokens, target),
        }

    def value(self, measure: str, picks: str, target: StudyTarget, seed: int | None = None) -> float | None:
        """Return one number, or None if it has not been measured."""
        found = self.cells.get(self.cell(measure, picks, target, seed))
        return None if found is None else found[measure]

    def measure_kl(self, wanted: list[tuple[MethodSettings, StudyTarget]]) -> None:
        """Measure the missing KL divergences."""
        by_picks: dict[str, list[StudyTarget]] = {}
        for settings, target in wanted:
            picks = self.picks(settings, target)
            targets = by_picks.setdefault(picks, [])
            if target not in targets and self.value("kl", picks, target) is None:
                targets.append(target)
        missing = {picks: targets for picks, targets in by_picks.items() if targets}
        self.report("", 0, len(missing))
        for done, (picks, targets) in enumerate(missing.items(), 1):
            started = time.monotonic()
            results = measures.kl(self.texts(picks), targets, self.tokens, self.mapper)
            seconds = (time.monotonic() - started) / len(targets)
            for target, result in zip(targets, results, strict=True):
                self.cells.add(self.cell("kl", picks, target), result, seconds)
            self.report(f"KL: {_about(targets)}", done, len(missing))

    def jobs(
        self, measure: str, wanted: list[tuple[str, MethodSettings, StudyTarget]], seeds: int
    ) -> list[Job]:
        """Return what is left to compute, all selections with one seed before the next.

        A selection for several targets (``random``) is one job per seed.
        """
        jobs: list[Job] = []
        for seed in range(seeds):
            by_picks: dict[str, tuple[str, list[StudyTarget]]] = {}
            for name, settings, target in wanted:
                picks = self.picks(settings, target)
                if self.value(measure, picks, target, seed) is None:
                    targets = by_picks.setdefault(picks, (name, []))[1]
                    if target not in targets:
                        targets.append(target)
            for picks, (name, targets) in by_picks.items():
                cells = [self.cell(measure, picks, target, seed) for target in targets]
                jobs.append(
                    Job(
                        f"{measure}: {name}, {_about(targets)}, seed {seed}",
                        picks,
                        cells,
                        measures.FUNCTIONS[measure],
                        (targets, seed, self.tokens),
                    )
                )
        return jobs

    def run(self, jobs: list[Job], executor: Executor, workers: int) -> None:
        """Compute jobs, one per worker at a time; each result is stored when it is done."""
        waiting = iter(jobs)
        running: dict[Future, tuple[Job, float]] = {}

        def submit() -> None:
            # Not all at once: every job holds a selection's texts.
            if (job := next(waiting, None)) is not None:
                texts = self.texts(job.picks).to_pylist()
                running[executor.submit(job.function, texts, *job.arguments)] = job, time.monotonic()

        self.report("", 0, len(jobs))
        for _ in range(workers):
            submit()
        done = 0
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, started = running.pop(future)
                submit()
                seconds = (time.monotonic() - started) / len(job.cells)
                for cell, result in zip(job.cells, future.result(), strict=True):
                    self.cells.add(cell, result, seconds)
                done += 1
                self.report(job.name, done, len(jobs))


def _about(targets: list[StudyTarget]) -> str:
    return targets[0].name if len(targets) == 1 else f"{len(targets)} targets"


def _name(settings: MethodSettings) -> str:
    """Return the method with its unusual settings."""
    usual = next(each for each in METHODS.values() if each.method == settings.method and each.ngrams == 2)
    changed = {key: value for key, value in settings.cell().items() if value != getattr(usual, key)}
    return " ".join([settings.method, *(f"{key}={value}" for key, value in changed.items())])
