"""Summary of the cells: rows of figures, correlations, tables for the terminal and for a file.

What belongs here: arithmetic on measured figures, and their layout. What does not: measuring, plots.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.paper.corpus import StudyTarget
from benchmarks.paper.methods import ABLATIONS, METHODS, RANDOM, MethodSettings, ablated
from benchmarks.paper.study import Study

F1 = "Downstream F1 of a classifier on features learnt from {} tokens of the selection"
PROXY = (
    "Loss of a language model trained on {} tokens of the selection, nats per token, on held-out target text"
)


@dataclass(frozen=True)
class Row:
    """One method on one target.

    Attributes
    ----------
    method, target : str
    documents : int
        Selected.
    kl_reduction : float
        KL(test‖random) - KL(test‖selection) in nats; the first term is the mean over the random selections.
    f1, proxy : tuple of float
        One per seed; empty if not measured. Proxy: nats per token.
    """

    method: str
    target: str
    documents: int
    kl_reduction: float
    f1: tuple[float, ...]
    proxy: tuple[float, ...]


@dataclass(frozen=True)
class StudyTable:
    """A table with a title above and notes below."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]

    def rich(self, width: int) -> Group:
        """For a terminal of so many columns: if it is narrow, headers are stacked, and spreads below their means."""
        table = RichTable(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        rows = [[cell.replace("±", " ±") for cell in row] for row in self.rows]
        columns = list(zip(self.header, *rows, strict=True))
        narrow = sum(max(map(len, cells)) + 1 for cells in columns) > width
        for i, cells in enumerate(columns):
            # Left to itself, rich takes from the widest columns, whatever the length of their words.
            word = max(len(each) for cell in cells for each in cell.split(" "))
            table.add_column(cells[0], justify="right" if i else "left", width=word if i and narrow else None)
        for row in rows:
            table.add_row(*row)
        return Group(Text(self.title, style="bold"), table, *(Text(note) for note in self.notes), "")

    def markdown(self) -> str:
        """For a file."""
        lines = [self.header, ["---"] + ["---:"] * (len(self.header) - 1), *self.rows]
        table = "\n".join(
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
        )
        return "\n\n".join([f"### {self.title}", table, *self.notes])


def about(study: Study) -> str:
    """Return what was selected from, and how much."""
    pool, targets = study.pool, len(study.corpus.targets)
    return (
        f"{targets} target{'s' * (targets != 1)}; selections of {study.tokens:,} tokens "
        f"({study.tokens / pool['tokens']:.1%}) from a pool of {pool['tokens']:,} in {pool['pieces']:,} pieces."
    )


def shown_tokens(tokens: int) -> str:
    """Return a number of tokens for a title."""
    return f"{tokens / 1e6:g} M" if tokens >= 1_000_000 else f"{tokens:,}"


def reduction(study: Study, settings: MethodSettings, target: StudyTarget) -> float:
    """KL reduction over the random selections, in nats."""
    by_chance = np.mean([study.value("kl", study.picks(each, target), target) for each in RANDOM])
    return float(by_chance - study.value("kl", study.picks(settings, target), target))


def rows_of(study: Study, methods: dict[str, MethodSettings], seeds: int) -> list[Row]:
    """Return the figures of every method on every target."""
    rows = []
    for target in study.corpus.targets:
        for name, settings in methods.items():
            picks = study.picks(settings, target)
            of_seeds = {
                measure: tuple(
                    value
                    for seed in range(seeds)
                    if (value := study.value(measure, picks, target, seed)) is not None
                )
                for measure in ("f1", "proxy")
            }
            kl = 0.0 if settings.method == "random" else reduction(study, settings, target)
            rows.append(Row(name, target.name, study.documents(settings, target), kl, **of_seeds))
    return rows


def spread(values: Iterable[float]) -> float:
    """Standard deviation over seeds; 0 for one seed."""
    values = list(values)
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def correlation(rows: list[Row], measure: str) -> dict[str, tuple[float, int]]:
    """Pearson's r of KL reduction and ``f1`` or ``proxy``, and the number of points, in three ways.

    Returns
    -------
    dict
        ``methods``: a point is a method, both its coordinates are means over the targets, as in the paper.
        ``all``: a point is a method on a target. ``within``: the same, minus the target's mean over the methods
        in both coordinates. NaN for fewer than three points, or where one coordinate does not vary.
    """
    measured = [row for row in rows if getattr(row, measure)]
    points = np.array([(row.kl_reduction, np.mean(getattr(row, measure))) for row in measured]).reshape(-1, 2)
    methods, targets = (np.array([getattr(row, key) for row in measured]) for key in ("method", "target"))
    # A mean over targets is comparable only if all of them are in it.
    complete = [m for m in dict.fromkeys(methods) if (methods == m).sum() == len(set(targets))]
    of_methods = np.array([points[methods == m].mean(axis=0) for m in complete]).reshape(-1, 2)
    centred = points.copy()
    for target in set(targets):
        centred[targets == target] -= points[targets == target].mean(axis=0)
    found = {"methods": of_methods, "all": points, "within": centred}
    return {name: (_pearson(each), len(each)) for name, each in found.items()}


def _pearson(points: np.ndarray) -> float:
    if len(points) < 3 or np.any(points.std(axis=0) == 0):
        return math.nan
    return float(np.corrcoef(points.T)[0, 1])


def kl_table(rows: list[Row]) -> StudyTable:
    """KL reductions, and how `match` compares with `resample`."""
    methods = [name for name in dict.fromkeys(row.method for row in rows) if name != "random"]
    by = {(row.method, row.target): row for row in rows}
    targets = list(dict.fromkeys(row.target for row in rows))
    lines = [[t, *(f"{by[m, t].kl_reduction:.3f}" for m in methods)] for t in targets]
    lines.append(["mean", *(f"{np.mean([by[m, t].kl_reduction for t in targets]):.3f}" for m in methods)])
    notes = []
    if {"match", "resample"} <= set(methods):
        pairs = {t: (by["match", t].kl_reduction, by["resample", t].kl_reduction) for t in targets}
        ratios = {t: match / resample for t, (match, resample) in pairs.items() if match > 0 and resample > 0}
        lower = [t for t, (match, resample) in pairs.items() if match < resample]
        if ratios:
            notes.append(
                f"match / resample: geometric mean {math.exp(np.mean(np.log(list(ratios.values())))):.2f} over "
                f"{len(ratios)} targets, from {min(ratios.values()):.2f} to {max(ratios.values()):.2f}; "
                f"match is lower on {', '.join(lower) or 'none'}."
            )
    title = "KL reduction over random selections, nats, on held-out target text under an independent hash"
    return StudyTable(title, ["target", *methods], lines, notes)


def seeds_table(rows: list[Row], measure: str, title: str, better: str) -> StudyTable:
    """A measure with several seeds, as mean ± standard deviation; what `match` adds to `resample` below."""
    rows = [row for row in rows if getattr(row, measure)]
    methods = list(dict.fromkeys(row.method for row in rows))
    targets = list(dict.fromkeys(row.target for row in rows))
    by = {(row.method, row.target): getattr(row, measure) for row in rows}
    lines = []
    for target in targets:
        found = [by.get((method, target)) for method in methods]
        lines.append([target, *(_shown(values) for values in found)])
    means = [
        [np.mean(by[m, t]) for t in targets] if all((m, t) in by for t in targets) else None for m in methods
    ]
    lines.append(["mean", *(f"{np.mean(each):.3f}" if each else "" for each in means)])
    notes = [f"{better.capitalize()} is better. Mean and standard deviation over {_seeds(by.values())}."]
    pairs = {
        t: (by["match", t], by["resample", t])
        for t in targets
        if {("match", t), ("resample", t)} <= by.keys()
    }
    if pairs:
        sign = 1 if better == "lower" else -1
        gains = {t: np.mean(match) - np.mean(resample) for t, (match, resample) in pairs.items()}
        noise = {t: math.hypot(spread(match), spread(resample)) for t, (match, resample) in pairs.items()}
        worse = [t for t, gain in gains.items() if sign * gain > noise[t]]
        each = ", ".join(f"{t} {gain:+.3f}±{noise[t]:.3f}" for t, gain in gains.items())
        notes.append(f"match - resample: mean {np.mean(list(gains.values())):+.3f}; {each}.")
        notes.append(
            f"match is worse than resample by more than that spread on {', '.join(worse) or 'none'}."
        )
    return StudyTable(title, ["target", *methods], lines, notes)


def _shown(values: tuple[float, ...] | None) -> str:
    if not values:
        return ""
    return f"{np.mean(values):.3f}" + (f"±{spread(values):.3f}" if len(values) > 1 else "")


def _seeds(values: Iterable[tuple[float, ...]]) -> str:
    numbers = sorted({len(each) for each in values})
    return f"{' or '.join(map(str, numbers))} seed{'' if numbers == [1] else 's'}"


def correlation_table(rows: list[Row]) -> StudyTable:
    """How KL reduction correlates with the use of the selections."""
    lines = []
    for measure, name in (("f1", "downstream F1"), ("proxy", "proxy loss")):
        if any(getattr(row, measure) for row in rows):
            found = correlation(rows, measure).values()
            lines.append([name, *("" if math.isnan(r) else f"{r:+.2f} ({n})" for r, n in found)])
    notes = [
        "Pearson's r, and in parentheses the number of points. Over methods: a point is a method, both coordinates are "
        "means over the targets that have the measure; this is what the paper does, with r = 0.82 for the accuracy of "
        "RoBERTa models over eight targets. Over methods and targets: a point is a method on a target. Within targets: "
        "the same, less the target's mean over the methods in both coordinates. For the loss, lower is better."
    ]
    return StudyTable(
        "Correlation of KL reduction with what the selections are for",
        ["with", "over methods", "over methods and targets", "within targets"],
        lines,
        notes,
    )


def ablation_rows(study: Study) -> list[dict]:
    """Return the mean KL reduction of every variant over some of the targets, the unchanged methods included.

    Returns
    -------
    list of dict
        ``what``, ``value``, ``method``, ``kl_reduction`` (mean, nats), ``better`` (number of targets on which it is
        higher than with the method's own settings), ``targets`` (their names), ``own`` (whether these are the method's
        own settings).
    """
    own = {settings.method: settings for settings in METHODS.values() if settings.ngrams == 2}
    targets = ablated(study.corpus.targets)
    out = []
    for what, value, settings in ABLATIONS:
        found = np.array([reduction(study, settings, target) for target in targets])
        usual = np.array([reduction(study, own[settings.method], target) for target in targets])
        out.append(
            {
                "what": what,
                "value": value,
                "method": settings.method,
                "kl_reduction": float(found.mean()),
                "better": int((found > usual).sum()),
                "targets": [target.name for target in targets],
                "own": settings == own[settings.method],
            }
        )
    return out


def in_order(value: str) -> tuple[int, float]:
    """Return the sort key of a setting's value: numbers by size, length corrections by strength."""
    corrections = ("none", "sqrt", "per_ngram")
    if value in corrections:
        return 1, float(corrections.index(value))
    return 0, float(value.replace(",", ""))


def ablation_table(rows: list[dict]) -> StudyTable:
    """The variants."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    kinds = list(dict.fromkeys(row["what"] for row in rows))
    rows = sorted(rows, key=lambda row: (kinds.index(row["what"]), in_order(row["value"])))
    shown: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        beside = "its own" if row["own"] else f"{row['better']} of {len(row['targets'])}"
        shown.setdefault((row["what"], row["value"]), {})[row["method"]] = (
            f"{row['kl_reduction']:.3f} ({beside})"
        )
    lines = [[*about, *(found.get(method, "") for method in methods)] for about, found in shown.items()]
    notes = [
        f"One setting changed at a time. Mean KL reduction over {', '.join(rows[0]['targets'])}, measured as above; in "
        "parentheses, on how many targets it is higher than with the method's own settings."
    ]
    return StudyTable("Ablations", ["setting", "value", *methods], lines, notes)
