"""Summary of the cells: rows of figures, correlations, tables for the terminal and for a file.

What belongs here: arithmetic on measured figures, and their layout. What does not: measuring, plots.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.paper.methods import ABLATIONS, METHODS, RANDOM, MethodSettings, ablated, counting
from benchmarks.paper.study import Selection, Study

KL = (
    "KL reduction over random selections, nats: independent hash, held-out text unsmoothed (higher is better)"
)
PAPER = "KL reduction (paper, section 5), nats: the hash that DSIR selects with, 0.5 pseudo-counts (higher is better)"
BITS = (
    "Bits per byte of held-out target text, 6-gram model of bytes trained on the selection (lower is better)"
)
F1 = "Downstream F1 of a classifier on features learnt from {} tokens of the selection (higher is better)"
PROXY = (
    "Loss of a neural language model trained on {} tokens of the selection, nats per token (lower is better)"
)

#: Whom `match` is compared with below the tables.
_OTHERS = ("resample", "cynical")


@dataclass(frozen=True)
class Row:
    """One method on one target with one budget.

    Attributes
    ----------
    method, target : str
    tokens : int
        Budget.
    documents, duplicates : int
        Selected, and how many of them repeat the text of another.
    over_random : float
        The headline figure: cross-entropy of the test split with the random selections (their mean) less that with
        the selection, in nats (:func:`dsir.evaluation.independent_distribution`).
    kl_reduction : float
        The paper's: KL(test‖pool) - KL(test‖selection), in nats.
    seconds, cpu : float
        What making the selection took, by the clock and of the processors.
    memory : int
        Bytes that it took beside the pool's counts (:class:`benchmarks.paper.cost.Cost`).
    bits, f1, proxy : tuple of float
        One per seed (bits per byte: one); empty if not measured. Proxy: nats per token.
    """

    method: str
    target: str
    tokens: int
    documents: int
    duplicates: int
    over_random: float
    kl_reduction: float
    seconds: float
    cpu: float
    memory: int
    bits: tuple[float, ...] = ()
    f1: tuple[float, ...] = ()
    proxy: tuple[float, ...] = ()


@dataclass(frozen=True)
class StudyTable:
    """A table with a title above and notes below; a cell in asterisks, ``**0.31**``, is emphasized."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]

    def rich(self, width: int) -> Group:
        """For a terminal of so many columns: if it is narrow, the table is cut, with the first column in each part."""
        columns = [[row[i] for row in self.rows] for i in range(len(self.header))]
        widths = [
            max([*(len(cell.strip("*")) for cell in cells), *map(len, _words(name))])
            for name, cells in zip(self.header, columns, strict=True)
        ]
        parts: list[list[int]] = []
        for i in range(1, len(columns)):
            if parts and widths[0] + sum(widths[j] + 2 for j in [*parts[-1], i]) <= width:
                parts[-1].append(i)
            else:
                parts.append([i])
        return Group(
            Text(self.title, style="bold"),
            *(self._part(columns, widths, [0, *some]) for some in parts),
            *(Text(note) for note in self.notes),
            "",
        )

    def _part(self, columns: list[list[str]], widths: list[int], some: list[int]) -> RichTable:
        table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
        for i in some:
            lines = [""]
            for word in _words(self.header[i]):
                joined = lines[-1] + (" " if lines[-1] and not lines[-1].endswith("_") else "") + word
                if len(joined) <= widths[i]:
                    lines[-1] = joined
                else:
                    lines.append(word)
            table.add_column(
                Text("\n".join(each for each in lines if each)),
                justify="right" if i else "left",
                width=widths[i],
                no_wrap=True,
                vertical="bottom",
            )
        for row in zip(*(columns[i] for i in some), strict=True):
            table.add_row(
                *(Text(cell.strip("*"), style="bold" if cell.startswith("**") else "") for cell in row)
            )
        return table

    def markdown(self) -> str:
        """For a file."""
        lines = [self.header, ["---"] + ["---:"] * (len(self.header) - 1), *self.rows]
        table = "\n".join(
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
        )
        return "\n\n".join([f"### {self.title}", table, *self.notes])


def _words(header: str) -> list[str]:
    """Where a header may be broken."""
    return re.split(r"(?<=_)| ", header)


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


def over_random(study: Study, selection: Selection) -> float:
    """Return the headline figure of a selection, in nats."""
    by_chance = [
        study.result("counts", Selection("random", each, selection.target, selection.tokens))
        for each in RANDOM
    ]
    mean = np.mean([each["cross_entropy"] for each in by_chance])
    return float(mean - study.result("counts", selection)["cross_entropy"])


def rows_of(study: Study, selections: list[Selection], seeds: int) -> list[Row]:
    """Return the figures of selections."""
    rows = []
    for selection in selections:
        made, counts = study.made(selection), study.result("counts", selection)
        of_seeds = {
            measure: tuple(
                found[measure]
                for seed in tries
                if (found := study.result(measure, selection, seed)) is not None
            )
            for measure, tries in (("bits", (None,)), ("f1", range(seeds)), ("proxy", range(seeds)))
        }
        rows.append(
            Row(
                selection.method,
                selection.target.name,
                selection.tokens,
                made["documents"],
                counts["duplicates"],
                over_random(study, selection),
                study.raw_kl(selection.target) - counts["kl"],
                made["seconds"],
                made["cpu"],
                made["memory"],
                **of_seeds,
            )
        )
    return rows


def spread(values: Iterable[float]) -> float:
    """Standard deviation over seeds; 0 for one seed."""
    values = list(values)
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def correlation(rows: list[Row], measure: str) -> dict[str, tuple[float, int]]:
    """Pearson's r of the headline figure and another measure, and the number of points, in three ways.

    Returns
    -------
    dict
        ``methods``: a point is a method, both its coordinates are means over the targets, as in the paper.
        ``all``: a point is a method on a target. ``within``: the same, minus the target's mean over the methods
        in both coordinates. NaN for fewer than three points, or where one coordinate does not vary.
    """
    measured = [row for row in rows if getattr(row, measure)]
    points = np.array([(row.over_random, np.mean(getattr(row, measure))) for row in measured]).reshape(-1, 2)
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


# --- tables ------------------------------------------------------------------------------------------


def _names(rows: list[Row], key: str) -> list:
    return list(dict.fromkeys(getattr(row, key) for row in rows))


def _mean(rows: list[Row], measure: str | Callable[[Row], float]) -> float | None:
    """Mean over the targets, which must all have the measure."""
    read = measure if callable(measure) else (lambda row: getattr(row, measure))
    values = [read(row) for row in rows]
    if not values or any(value == () for value in values):
        return None
    return float(np.mean([np.mean(value) for value in values]))


def _best_in_bold(lines: list[list[str]], sign: int, first: int = 1) -> None:
    """Emphasize the largest number (sign 1) or the smallest (-1) of every column from ``first`` on."""
    for i in range(first, len(lines[0]) if lines else 0):
        numbers = {j: sign * float(line[i].split("±")[0]) for j, line in enumerate(lines) if line[i]}
        for j in [j for j, number in numbers.items() if number == max(numbers.values())]:
            lines[j][i] = f"**{lines[j][i]}**"


def overview_table(rows: list[Row]) -> StudyTable:
    """All measures, each as its mean over the targets, and what a selection costs."""
    targets, methods = _names(rows, "target"), _names(rows, "method")
    resampled = {row.target: row.bits for row in rows if row.method == "resample"}
    labelled = [row for row in rows if row.f1]
    columns: list[tuple[str, int, Callable[[list[Row]], str]]] = [
        ("KL over random", 1, lambda some: _shown_mean(_mean(some, "over_random"))),
        ("KL, paper's", 1, lambda some: _shown_mean(_mean(some, "kl_reduction"))),
    ]
    if any(row.bits for row in rows):
        columns.append(("bits per byte", -1, lambda some: _shown_mean(_mean(some, "bits"))))
    if any(row.bits for row in rows) and resampled:

        def better(some: list[Row]) -> str:
            if some[0].method == "resample":
                return ""
            won = sum(
                row.bits < resampled[row.target] for row in some if row.bits and row.target in resampled
            )
            return f"{won} of {len(some)}"

        columns.append(("fewer than resample", 0, better))
    if labelled:
        columns.append(
            ("F1", 1, lambda some: _shown_mean(_mean([row for row in some if row in labelled], "f1")))
        )
    if any(row.proxy for row in rows):
        columns.append(("loss", -1, lambda some: _shown_mean(_mean(some, "proxy"))))
    columns.append(("pieces", 0, lambda some: f"{_mean(some, 'documents'):,.0f}"))
    columns.append(("seconds", 0, lambda some: _shown_seconds(np.median([row.seconds for row in some]))))
    lines = [
        [method, *(show([row for row in rows if row.method == method]) for *_, show in columns)]
        for method in methods
    ]
    for i, (_, sign, _) in enumerate(columns, 1):
        if sign:
            best = [[line[i]] for line in lines]
            _best_in_bold(best, sign, 0)
            for line, (cell,) in zip(lines, best, strict=True):
                line[i] = cell
    notes = [
        f"Means over {_number(targets, 'target')}"
        + (f", F1 over {len(_names(labelled, 'target'))}" * bool(labelled))
        + "; pieces selected; seconds for one selection from the pool's counts (median)."
    ]
    return StudyTable("Overview", ["method", *(name for name, *_ in columns)], lines, notes)


def _shown_mean(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _shown_seconds(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _shown_memory(value: int) -> str:
    return f"{value / 2**20:,.0f}"


def _number(items: list, noun: str) -> str:
    return f"{len(items)} {noun}{'s' * (len(items) != 1)}"


def measure_table(rows: list[Row], measure: str, title: str, better: str) -> StudyTable:
    """One measure by method and target, as mean ± standard deviation over seeds; how `match` compares below.

    Parameters
    ----------
    rows : list of Row
        With one budget.
    measure : str
        Field of `Row`.
    title : str
    better : {"higher", "lower"}
    """
    if measure in ("over_random", "kl_reduction"):
        read = {(row.method, row.target): (getattr(row, measure),) for row in rows}
    else:
        rows = [row for row in rows if getattr(row, measure)]
        read = {(row.method, row.target): getattr(row, measure) for row in rows}
    targets = _names(rows, "target")
    methods = [name for name in _names(rows, "method") if measure != "over_random" or name != "random"]
    sign = 1 if better == "higher" else -1
    lines = []
    for method in methods:
        found = [read.get((method, target)) for target in targets]
        mean = f"{np.mean([np.mean(each) for each in found]):.3f}" if all(found) else ""
        lines.append([method, *(_shown(values) for values in found), mean])
    _best_in_bold(lines, sign)
    notes = []
    seeds = sorted({len(each) for each in read.values()})
    if seeds and seeds != [1]:
        notes.append(f"Mean and standard deviation over {' or '.join(map(str, seeds))} seeds.")
    notes += [note for other in _OTHERS if (note := _compared(read, targets, measure, sign, other))]
    return StudyTable(title, ["method", *targets, "mean"], lines, notes)


def _compared(read: dict, targets: list[str], measure: str, sign: int, other: str) -> str:
    """How `match` compares with another method, target by target."""
    pairs = {
        t: (read["match", t], read[other, t]) for t in targets if {("match", t), (other, t)} <= read.keys()
    }
    if not pairs:
        return ""
    gains = {t: float(np.mean(match) - np.mean(theirs)) for t, (match, theirs) in pairs.items()}
    noise = {t: math.hypot(spread(match), spread(theirs)) for t, (match, theirs) in pairs.items()}
    worse = [t for t, gain in gains.items() if -sign * gain > noise[t]]
    beyond = " by more than the seeds' spread" if any(noise.values()) else ""
    line = f"match - {other}: mean {np.mean(list(gains.values())):+.3f}"
    if measure in ("over_random", "kl_reduction"):
        ratios = [match[0] / theirs[0] for match, theirs in pairs.values() if match[0] > 0 and theirs[0] > 0]
        if ratios:
            line += (
                f"; {math.exp(np.mean(np.log(ratios))):.3f} times in the geometric mean over "
                f"{_number(ratios, 'target')}, from {min(ratios):.2f} to {max(ratios):.2f}"
            )
    return f"{line}; match is worse{beyond} on {', '.join(worse) or 'none'}."


def _shown(values: tuple[float, ...] | None) -> str:
    if not values:
        return ""
    return f"{np.mean(values):.3f}" + (f"±{spread(values):.3f}" if len(values) > 1 else "")


def cost_table(study: Study, rows: list[Row], settings: dict[str, MethodSettings]) -> StudyTable:
    """What a selection costs."""
    lines = []
    for method in _names(rows, "method"):
        some = [row for row in rows if row.method == method]
        seconds, memory = study.once(settings[method])
        lines.append(
            [
                method,
                _shown_seconds(np.median([row.seconds for row in some])),
                _shown_seconds(np.median([row.cpu for row in some])),
                _shown_memory(max(row.memory for row in some)),
                _shown_seconds(seconds) if seconds else "",
                _shown_memory(memory) if seconds else "",
                f"{np.mean([row.documents for row in some]):,.0f}",
                f"{sum(row.duplicates for row in some) / sum(row.documents for row in some):.1%}",
            ]
        )
    notes = [
        "For one selection, from the pool's counts, which are in memory: seconds by the clock and of the processors "
        "(medians over the targets), and by how many MiB the process grew at most. Once for the pool, where a method "
        "needs more than counts: seconds and MiB. Mean number of pieces; duplicates: pieces that repeat another's text."
    ]
    for each in dict.fromkeys(counting(each) for each in settings.values()):
        if found := study.step(each):
            notes.append(
                f"Counting the pool ({each.removeprefix('counts, ')}): {_shown_seconds(found['seconds'])} s, "
                f"{_shown_memory(found['memory'])} MiB."
            )
    header = ["method", "seconds", "CPU", "MiB", "once, seconds", "once, MiB", "pieces", "duplicates"]
    shown = [i for i in range(len(header)) if any(line[i] for line in lines)]
    lines = [[line[i] for i in shown] for line in lines]
    return StudyTable("What a selection costs", [header[i] for i in shown], lines, notes)


def budget_tables(rows: list[Row]) -> list[StudyTable]:
    """Measures by method and budget, as means over the targets."""
    budgets = sorted(_names(rows, "tokens"))
    methods = [
        name for name in _names(rows, "method") if len({r.tokens for r in rows if r.method == name}) > 1
    ]
    shares = {"duplicates": lambda row: row.duplicates / row.documents}
    shown: dict[str, Callable[[float], str]] = {
        "over_random": "{:.3f}".format,
        "bits": "{:.3f}".format,
        "documents": "{:,.0f}".format,
        "duplicates": "{:.1%}".format,
    }
    names = {"over_random": "KL", "bits": "bits", "documents": "pieces", "duplicates": "duplicates"}

    def table(title: str, measures: tuple[str, ...], notes: list[str]) -> StudyTable:
        lines = []
        for method in methods:
            line = [method]
            for measure in measures:
                for tokens in budgets:
                    some = [row for row in rows if row.method == method and row.tokens == tokens]
                    value = _mean(some, shares.get(measure, measure))
                    line.append("" if value is None else shown[measure](value))
            lines.append(line)
        header = [f"{names[each]} {shown_tokens(tokens)}" for each in measures for tokens in budgets]
        return StudyTable(title, ["method", *header], lines, notes)

    targets = _number(_names(rows, "target"), "target")
    return [
        table(
            "Budgets: KL reduction over random selections of the same size, and bits per byte",
            ("over_random", "bits"),
            [f"Means over {targets}. Tokens of the selections above the columns."],
        ),
        table("Budgets: what the selections are made of", ("documents", "duplicates"), []),
    ]


def correlation_table(rows: list[Row]) -> StudyTable:
    """How KL reduction correlates with the use of the selections."""
    lines = []
    for measure, name in (("bits", "bits per byte"), ("f1", "downstream F1"), ("proxy", "loss")):
        if any(getattr(row, measure) for row in rows):
            found = correlation(rows, measure).values()
            lines.append([name, *("" if math.isnan(r) else f"{r:+.2f} ({n})" for r, n in found)])
    notes = [
        "Pearson's r, and in parentheses the number of points. Over methods: a point is a method, both coordinates are "
        "means over the targets that have the measure; this is what the paper does, with r = 0.82 for the accuracy of "
        "RoBERTa models over eight targets. Over methods and targets: a point is a method on a target. Within targets: "
        "the same, less the target's mean over the methods in both coordinates. Bits and losses are better if lower."
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
        ``what``, ``value``, ``method``, ``over_random`` (mean, nats), ``better`` (number of targets on which it is
        higher than with the method's own settings), ``targets`` (their names), ``own`` (whether these are the method's
        own settings).
    """
    own = {settings.method: settings for settings in METHODS.values() if settings.ngrams == 2}
    targets = ablated(study.corpus.targets)
    out = []
    for what, value, settings in ABLATIONS:
        found, usual = (
            np.array([over_random(study, Selection(what, each, target, study.tokens)) for target in targets])
            for each in (settings, own[settings.method])
        )
        out.append(
            {
                "what": what,
                "value": value,
                "method": settings.method,
                "over_random": float(found.mean()),
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
            f"{row['over_random']:.3f} ({beside})"
        )
    lines = [[*about, *(found.get(method, "") for method in methods)] for about, found in shown.items()]
    notes = [
        f"One setting changed at a time. Mean KL reduction over {', '.join(rows[0]['targets'])}, measured as above; in "
        "parentheses, on how many targets it is higher than with the method's own settings."
    ]
    return StudyTable("Ablations", ["setting", "value", *methods], lines, notes)
