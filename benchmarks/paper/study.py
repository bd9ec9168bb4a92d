"""All cells: methods x targets x budgets x measures x seeds, each computed once.

What belongs here: which cells there are, their order, threads and processes. What does not: making a selection
(``methods``) or measuring it (``measures``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.paper import measures
from benchmarks.paper.cells import Cells, fingerprint
from benchmarks.paper.corpus import Mapper, StudyCorpus, StudyTarget
from benchmarks.paper.cost import measured
from benchmarks.paper.methods import KEYS, METHODS, NEEDS, MethodSettings, code_version, prepare, select
from dsir.evaluation import distribution

#: Default budget as a share of the pool: about what docs/paper.md selects from its larger corpus.
SHARE = 0.03

#: The budgets of the curves, as parts of the budget: a quarter, all, four times as much.
PARTS = (0.25, 1, 4)


@dataclass(frozen=True, eq=False)
class Selection:
    """A selection to make or to measure.

    Attributes
    ----------
    method : str
        For display.
    settings : MethodSettings
    target : StudyTarget
    tokens : int
        Budget.
    """

    method: str
    settings: MethodSettings
    target: StudyTarget
    tokens: int


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
    """The cells of one corpus.

    Parameters
    ----------
    corpus : StudyCorpus
    folder : Path
        Holds ``cells.jsonl`` and the picks.
    tokens : int, optional
        Budget of the selections in most tables; default `SHARE` of the pool's tokens, rounded to two digits.
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
        self._code = {method: code_version(method) for method in KEYS}
        self.pool = self._pool()
        self.tokens = tokens or int(float(f"{SHARE * self.pool['tokens']:.2g}"))

    def _pool(self) -> dict:
        """Return the numbers of ``pieces`` and ``tokens`` of the pool."""
        cell = {"measure": "pool", "pool": self.corpus.digest}
        if self.cells.get(cell) is None:
            started = time.monotonic()
            pieces = len(self.corpus.pool)
            prepare(METHODS["resample"], self.corpus, self.mapper, self._step)
            batches, _ = self.corpus.counted(METHODS["resample"].spec)
            found = {"pieces": pieces, "tokens": sum(int(batch.n_tokens.sum()) for batch in batches)}
            self.cells.add(cell, found, time.monotonic() - started)
        return self.cells.get(cell)

    # --- selections ----------------------------------------------------------------------------------

    def select_all(self, wanted: list[Selection]) -> None:
        """Make the missing selections."""
        missing: dict[str, tuple[dict, Selection]] = {}
        for selection in wanted:
            cell = self._picks_cell(selection)
            found = self.cells.get(cell)
            if found is None or not self._path(found["picks"]).exists():
                missing.setdefault(fingerprint(cell), (cell, selection))
        # One specification after the other, so that the pool is counted once for each.
        in_order = sorted(missing.values(), key=lambda each: _first_the_usual(each[1].settings))
        self.report("", 0, len(in_order))
        for done, (cell, selection) in enumerate(in_order, 1):
            settings, target = selection.settings, selection.target
            _ = self.corpus.pool  # read before anything is timed
            prepare(settings, self.corpus, self.mapper, self._step)
            with measured() as cost:
                rows = select(settings, self.corpus, target, selection.tokens, self.mapper)
            name = measures.digest_of_rows(rows)
            path = self._path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            with open(part, "wb") as file:
                np.save(file, rows)
            part.replace(path)
            self.cells.add(cell, {"picks": name, "documents": len(rows), **asdict(cost)}, cost.seconds)
            self.report(f"selected: {_name(settings)}, {target.name}", done, len(in_order))

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Measure what is done once for the pool."""
        with measured() as cost:
            yield
        if self.cells.get(self._step_cell(name)) is None:
            self.cells.add(self._step_cell(name), asdict(cost), cost.seconds)

    def once(self, settings: MethodSettings) -> tuple[float, int]:
        """Return the seconds, and the memory in bytes, of what a method does once for the pool beside counting it."""
        steps = [self.step(each) for each in NEEDS.get(settings.method, ())]
        return sum(each["seconds"] for each in steps), sum(each["memory"] for each in steps)

    def step(self, name: str) -> dict | None:
        """Return the cost of something that is done once for the pool, if it was measured."""
        return self.cells.get(self._step_cell(name))

    def made(self, selection: Selection) -> dict:
        """Return what is known of an existing selection: ``picks`` (its name), ``documents``, and its cost."""
        return self.cells.get(self._picks_cell(selection))

    def texts(self, picks: str):
        """Return the texts of a selection in arbitrary order: pyarrow.Array of large_string."""
        return self.corpus.pool.take(np.load(self._path(picks)))

    def _path(self, picks: str) -> Path:
        return self.folder / "picks" / f"{picks}.npy"

    def _step_cell(self, name: str) -> dict:
        code = next(
            (self._code[method] for method, steps in NEEDS.items() if name in steps), self._code["random"]
        )
        return {"measure": "step", "step": name, "pool": self.corpus.digest, "code": code}

    def _picks_cell(self, selection: Selection) -> dict:
        settings, target = selection.settings, selection.target
        return {
            "measure": "picks",
            "pool": self.corpus.digest,
            "target": None if settings.method == "random" else [target.name, target.train.digest],
            "tokens": selection.tokens,
            "settings": settings.cell(),
            "code": self._code[settings.method],
        }

    # --- measures ------------------------------------------------------------------------------------

    def measure_pool(self) -> None:
        """Measure the divergence of every target from the pool, of which the paper's KL reduction is a difference."""
        missing = [each for each in self.corpus.targets if self.cells.get(self._raw_cell(each)) is None]
        if missing:
            raw = distribution(self.corpus.counted(measures.SELECTING)[1])
            for target in missing:
                self.cells.add(self._raw_cell(target), {"kl": measures.selected_kl(target, raw)}, 0.0)

    def raw_kl(self, target: StudyTarget) -> float:
        """KL(test split‖pool) in nats, as the paper has it."""
        return self.cells.get(self._raw_cell(target))["kl"]

    def _raw_cell(self, target: StudyTarget) -> dict:
        version = measures.counts_version(self.tokens, target)
        return {"measure": "raw", "pool": self.corpus.digest, "test": target.test.digest, **version}

    def _cell(self, measure: str, selection: Selection, seed: int | None) -> dict:
        """Return everything that shapes the result of a measure."""
        version, _ = measures.MEASURES[measure]
        return {
            "measure": measure,
            "pool": self.corpus.digest,
            "picks": self.made(selection)["picks"],
            "target": selection.target.name,
            "test": selection.target.test.digest,
            "seed": seed,
            **version(selection.tokens, selection.target),
        }

    def result(self, measure: str, selection: Selection, seed: int | None = None) -> dict | None:
        """Return what a measure found, or None if it has not been measured."""
        return self.cells.get(self._cell(measure, selection, seed))

    def jobs(self, measure: str, wanted: list[Selection], seeds: Sequence[int | None] = (None,)) -> list[Job]:
        """Return what is left to compute, all selections with one seed before the next.

        A selection for several targets (``random``) is one job per seed.
        """
        jobs: list[Job] = []
        for seed in seeds:
            by_picks: dict[tuple[str, int], list[Selection]] = {}
            for selection in wanted:
                if self.result(measure, selection, seed) is None:
                    picks = self.made(selection)["picks"], selection.tokens
                    some = by_picks.setdefault(picks, [])
                    if all(each.target is not selection.target for each in some):
                        some.append(selection)
            for (picks, tokens), some in by_picks.items():
                targets = [each.target for each in some]
                shown = targets[0].name if len(targets) == 1 else f"{len(targets)} targets"
                of_seed = "" if seed is None else f", seed {seed}"
                jobs.append(
                    Job(
                        f"{measure}: {some[0].method}, {shown}{of_seed}",
                        picks,
                        [self._cell(measure, each, seed) for each in some],
                        measures.MEASURES[measure][1],
                        (targets, seed, tokens),
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


def _first_the_usual(settings: MethodSettings) -> tuple:
    return settings.ngrams != 2, settings.buckets != 10_000, str(settings.spec)


def _name(settings: MethodSettings) -> str:
    """Return the method with its unusual settings."""
    usual = next(each for each in METHODS.values() if each.method == settings.method and each.ngrams == 2)
    changed = {key: value for key, value in settings.cell().items() if value != getattr(usual, key)}
    return " ".join([settings.method, *(f"{key}={value}" for key, value in changed.items())])
