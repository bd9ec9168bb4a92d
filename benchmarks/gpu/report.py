"""The comparison of what was trained: paired differences, an interval, a sign test.

What belongs here: from finished figures to tables. What does not: training, selecting.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy.stats import binomtest

from benchmarks.gpu.design import DRY, FULL, Plan, selection_name
from benchmarks.gpu.prepared import Prepared, cell_of
from benchmarks.paper.cells import Cells
from benchmarks.paper.summary import StudyTable

#: The primary comparison comes first.
BASELINES = ("resample", "cynical", "classifier_top_k", "random")
WIDTH = 80
DRAWS = 100_000


def bootstrap(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a mean, from resampling the values (percentiles).

    Parameters
    ----------
    values : ndarray of float, shape (n,)
        One per target.
    seed : int
    """
    drawn = np.random.default_rng(seed).integers(0, len(values), (DRAWS, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def sign_test(values: np.ndarray) -> tuple[int, int, float]:
    """Return how many values are below zero, of how many that are not zero, and the exact two-sided p-value."""
    below, n = int((values < 0).sum()), int((values != 0).sum())
    return below, n, float(binomtest(below, n).pvalue) if n else 1.0


@dataclass(frozen=True)
class Comparison:
    """`match` against another method, in bits per byte; below zero, `match` is better.

    Attributes
    ----------
    baseline : str
    differences : dict of str to float
        For every target with figures of both, the mean over the seeds that have both.
    mean : float
    interval : tuple of float
        95 %, from a bootstrap over targets.
    lower, compared : int
        Targets on which `match` is lower, and of how many that differ.
    p : float
        Of the two-sided sign test.
    """

    baseline: str
    differences: dict[str, float]
    mean: float
    interval: tuple[float, float]
    lower: int
    compared: int
    p: float

    @classmethod
    def of(cls, baseline: str, differences: dict[str, float]) -> Comparison:
        """Compare; ``differences`` is not empty."""
        values = np.array(list(differences.values()))
        return cls(baseline, differences, float(values.mean()), bootstrap(values), *sign_test(values))

    @property
    def verdict(self) -> str:
        """What the plan in docs/paper.md says of this."""
        low, high = self.interval
        if high < 0 and self.p < 0.05:
            return "supported"
        return "against us" if low > 0 else "undecided"


def report(data: Path, output: Path) -> None:
    """Print the tables, and write ``report.md`` and ``report.json`` beside the figures.

    Parameters
    ----------
    data : Path
        What ``prepare`` wrote.
    output : Path
        What ``train`` wrote.

    Raises
    ------
    SystemExit
        Nothing can be compared yet, or the figures are of other data.
    """
    prepared = Prepared(data)
    path = output / "plan.json"
    if not path.exists():
        raise SystemExit(f"{path} is missing; `python -m benchmarks.gpu train` writes it")
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["data"] != prepared.digest:
        raise SystemExit(f"{path} is of other data than {data}; name those with --data")
    plan, cells = Plan.of(record["plan"]), Cells(output / "cells.jsonl")
    figures, bases, finished, total = {}, {}, 0, 0
    for method in ("base", *prepared.methods):
        for target in plan.targets:
            of_seeds = {}
            for seed in range(prepared.experiment.seeds):
                name = method if method == "base" else selection_name(method, target)
                found = cells.get(cell_of(prepared.digest, plan, seed, name, target))
                total += 1
                if found:
                    of_seeds[seed] = found["bits_per_byte"]
                    bases.setdefault(seed, set()).add(found["base"])
                    finished += 1
            figures[method, target] = of_seeds
    comparisons = compare(figures, plan.targets, [each for each in BASELINES if each in prepared.methods])
    if not comparisons:
        raise SystemExit(f"{output}: no target has figures of `match` and another method yet")

    about = (
        f"{'A dry run, no evidence: ' if prepared.experiment.sizes == DRY.sizes else ''}"
        f"{plan.size.name} parameters, {plan.base_tokens:,} random tokens, then "
        f"{prepared.experiment.tokens:,} selected x {prepared.experiment.epochs}; {len(plan.targets)} targets, "
        f"{prepared.experiment.seeds} seeds; {record['device']}, PyTorch {record['torch']}."
    )
    notes = []
    if finished < total:
        notes.append(f"Not finished: {finished} of {total} figures; `train` goes on.")
    planned = (FULL.sizes[0], FULL.base_tokens, len(prepared.heldout))
    if (plan.size, plan.base_tokens, len(plan.targets)) != planned and prepared.experiment.sizes != DRY.sizes:
        notes.append("Smaller than planned: less time or text than the full experiment takes.")
    if any(len(each) > 1 for each in bases.values()):
        notes.append("A base was trained twice, so some pairs do not start from the same weights.")
    tables = [_compared(comparisons, notes), _by_target(figures, prepared.methods, plan.targets)]
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    console.print(about, "", sep="\n")
    for table in tables:
        console.print(table.rich(console.width))
    text = "\n\n".join([about, *(table.markdown() for table in tables)])
    (output / "report.md").write_text(text + "\n", encoding="utf-8")
    values = [
        {"method": m, "target": t, "bits_per_byte": list(of.values())} for (m, t), of in figures.items()
    ]
    result = {
        "about": about,
        "notes": notes,
        "plan": record,
        "comparisons": [{**asdict(each), "verdict": each.verdict} for each in comparisons],
        "figures": values,
    }
    (output / "report.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.print(f"report.md, report.json: {output}", soft_wrap=True)


def compare(
    figures: dict[tuple[str, str], dict[int, float]], targets: tuple[str, ...], baselines: list[str]
) -> list[Comparison]:
    """Compare `match` with every baseline that it shares a target and a seed with.

    Parameters
    ----------
    figures : dict
        Bits per byte of a method on a target, by seed.
    targets : tuple of str
    baselines : list of str
    """
    out = []
    for baseline in baselines:
        differences = {}
        for target in targets:
            ours, theirs = figures.get(("match", target), {}), figures.get((baseline, target), {})
            if both := ours.keys() & theirs.keys():
                differences[target] = float(np.mean([ours[seed] - theirs[seed] for seed in sorted(both)]))
        if differences:
            out.append(Comparison.of(baseline, differences))
    return out


def _compared(comparisons: list[Comparison], notes: list[str]) -> StudyTable:
    rows = [
        [
            f"match - {each.baseline}" + " (primary)" * (each.baseline == BASELINES[0]),
            f"{each.mean:+.4f}",
            f"{each.interval[0]:+.4f} to {each.interval[1]:+.4f}",
            f"{each.lower} of {each.compared}",
            f"{each.p:.3f}",
        ]
        for each in comparisons
    ]
    first = comparisons[0]
    says = [f"Primary hypothesis: {first.verdict}."] if first.baseline == BASELINES[0] else []
    says.append(
        "Below zero, `match` is better. Means over targets of the mean over seeds; interval from a bootstrap over "
        "targets; p of an exact two-sided sign test."
    )
    header = ["", "difference", "95 % interval", "lower on", "p"]
    return StudyTable("Bits per byte of held-out text, paired differences", header, rows, [*notes, *says])


def _by_target(figures: dict, methods: list[str], targets: tuple[str, ...]) -> StudyTable:
    columns = ["base", *methods]
    means = {
        target: [np.mean(list(figures[column, target].values()) or [np.nan]) for column in columns]
        for target in targets
    }
    means["mean"] = list(np.mean(list(means.values()), axis=0))
    rows = [
        [target, *("" if np.isnan(each) else f"{each:.4f}" for each in found)]
        for target, found in means.items()
    ]
    note = "Means over seeds; base: before any selected text. Lower is better."
    return StudyTable(
        "Bits per byte by target", ["target", *(c.replace("_", " ") for c in columns)], rows, [note]
    )
