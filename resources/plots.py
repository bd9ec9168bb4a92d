"""Plots in Dagster's metadata and in the report of a selection.

What belongs here: what is drawn, how it looks, the counts behind a histogram. What does not: other numbers
(``assets/selections.py``, ``assets/measuring/``), tables (``resources/table.py``).

matplotlib is imported when a plot is drawn, so that commands without plots start faster. Figures are made without
pyplot, which keeps a list of open figures and is not thread-safe.
"""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from dsir.matching import Round
from dsir_dagster.resources.borders import visible

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The most targets in a plot of log weights, and the most names in a plot of bars.
PANELS, ROWS = 4, 15
#: Bins of lengths: four a doubling.
LENGTHS = 128

POOL, SELECTION, TOP_K, INK = "#c5cbd3", "#1f6fb4", "#e8a33d", "#30343b"
COLORS = {"selection": SELECTION, "top-k": TOP_K, "random": POOL}
#: Colors of the other methods a selection is compared with.
OTHERS = ["#3f9b6c", "#8a63b5", "#c9585b", "#4aa5b0", "#8c7a5b"]


@dataclass
class Plot:
    """A figure with its description and notes.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
        Its layout is final.
    alt : str
    notes : list of str
        Shown below the picture.
    png : bytes
    """

    figure: "Figure"
    alt: str
    notes: list[str]
    png: bytes

    @property
    def markdown(self) -> str:
        """As markdown, with the picture inline and the notes below."""
        picture = f"![{self.alt}](data:image/png;base64,{base64.b64encode(self.png).decode()})"
        return "\n\n".join([picture, *self.notes])


#: A number and the ends of its interval.
Measured: TypeAlias = tuple[float, float, float]

#: A label, a color, a value for each name, and their distances down and up to the ends of intervals, or None.
Bars: TypeAlias = tuple[str, str, Sequence[float] | np.ndarray, np.ndarray | None]


class Histogram:
    """Numbers of documents by log weight, in bins of one nat.

    Attributes
    ----------
    documents : Counter of int
        By the lower end of the bin, in nats. The outermost, ``LOWEST`` and ``HIGHEST - 1``, also hold those beyond.
    """

    LOWEST, HIGHEST = -(1 << 17), 1 << 17

    def __init__(self) -> None:
        self.documents: Counter[int] = Counter()

    def add(self, log_weight: np.ndarray) -> None:
        """Count a batch of documents: ndarray of float64, shape (n,), finite."""
        nats = np.floor(np.clip(log_weight, self.LOWEST, self.HIGHEST - 1)).astype(np.int64)
        first = nats.min(initial=self.HIGHEST)
        counted = np.bincount(nats - first)
        filled = np.flatnonzero(counted)
        self.documents.update(dict(zip((filled + first).tolist(), counted[filled].tolist(), strict=True)))

    def _bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the bins that hold documents, ascending, and how many each holds."""
        bins = sorted(self.documents)
        return np.array(bins, np.int64), np.array([self.documents[each] for each in bins], np.int64)

    def middle(self) -> list[int]:
        """Return, in nats, the first and the last bin of the middle 98 %; nothing where none is counted."""
        bins, counts = self._bins()
        below = np.cumsum(counts)
        return bins[np.searchsorted(below, np.array([0.01, 0.99]) * below[-1])].tolist() if len(bins) else []

    def wider(self, first: int, width: int, n: int) -> np.ndarray:
        """Return the counts in n bins of ``width`` nats from ``first``; the outermost also hold those beyond."""
        bins, counts = self._bins()
        at = np.clip((bins - first) // width, 0, n - 1)
        return np.bincount(at, weights=counts, minlength=n)


def log_weights(
    targets: list[str], eligible: list[Histogram], picked: list[np.ndarray], cut: bool = True
) -> Plot:
    """Plot the log weights of the eligible documents and of those picked, as histograms.

    Parameters
    ----------
    targets : list of str
    eligible : list of Histogram
        By target, at least for the first ``PANELS``; not empty.
    picked : list of ndarray of dsir.selection.CANDIDATE
        By target, ranked.
    cut : bool
        Show the smallest key; for keys that are log weights with or without noise.
    """
    shown = min(len(targets), PANELS)
    rows, columns = (shown + 1) // 2, min(shown, 2)
    figure, panels = new_figure(0.8 + 2.2 * rows, rows, columns)
    for ax, target, pool, picks in zip(panels, targets, eligible, picked, strict=False):
        chosen = Histogram()
        chosen.add(picks["log_weight"])
        smallest = picks["key"][-1:].tolist() if cut else []
        # About 60 bars over ten nats or more, and one more at each end.
        lowest, *_, highest = sorted([*pool.middle(), *chosen.middle(), *map(int, smallest)])
        spread = max(highest - lowest, 10)
        width = -(-spread // 60)
        first, n = (lowest + highest - spread) // 2 - width, spread // width + 3
        edges = first + width * np.arange(n + 1)
        for histogram, color, label in ((pool, POOL, "eligible"), (chosen, SELECTION, "picked")):
            counts = histogram.wider(first, width, n)
            ax.stairs(counts, edges, baseline=0.1, fill=True, color=color, label=label, zorder=2)
        for key in smallest:
            ax.axvline(key, color=INK, linewidth=1, linestyle="--", label="smallest key picked")
            ax.set_title(f"{key:,.1f}", x=(key - first) / (n * width), pad=3, fontsize=8, color=INK)
        top = max(12, 2 * pool.wider(first, width, n).max())
        ax.set(yscale="log", ylim=(0.7, top), ylabel="documents", xlim=(first, edges[-1]))
        ax.set_xlabel(f"log weight for {shortened(target, 40 // columns)}, nats")
        ax.locator_params(axis="x", nbins=10 // columns, integer=True)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.minorticks_off()
        ax.grid(axis="y", color="#e9ecf0", linewidth=0.8)
    for ax in panels[shown:]:
        ax.set_axis_off()
    note = "The outermost bars also hold the documents beyond them, at most 1% at each end."
    return finished(figure, "Histogram of log weights", note, of_many("targets", shown, len(targets)))


def composition(shares: list[tuple[str, float, float]]) -> Plot:
    """Plot the sources' shares of the pool and of the selection.

    Parameters
    ----------
    shares : list of (source, share of the pool, share of the selection)
        In the order shown. Beyond ``ROWS``, those with the smallest shares are added up.
    """
    largest = sorted(shares, key=lambda row: -max(row[1:]))[:ROWS]
    rows = [row for row in shares if row in largest]
    if rest := [row for row in shares if row not in largest]:
        rows.append(
            (f"other ({len(rest)} sources)", sum(row[1] for row in rest), sum(row[2] for row in rest))
        )
    names, pool, selection = zip(*rows, strict=True)
    groups: list[Bars] = [("pool", POOL, pool, None), ("selection", SELECTION, selection, None)]
    return bars(names, groups, "share of the documents", ".1%")


def over_random(rows: Sequence[tuple[str, Mapping[str, Measured]]], how: str = "") -> Plot:
    """Plot how much closer to the target than random picks the selection and what it is compared with are.

    Parameters
    ----------
    rows : sequence of (target or way of counting, mapping of pick to (value, low, high))
        All with the same picks, one of them ``selection``.
    how : str
        What the rows are, if they are no targets.
    """
    shown = rows[:ROWS]
    note = of_many("targets", len(shown), len(rows))
    return bars(
        [name for name, _ in shown],
        of_picks(shown),
        f"KL reduction over random{how}, nats",
        ".3f",
        f"{INTERVALS} {note}",
    )


INTERVALS = (
    "Lines: 95% intervals over the target's documents that were measured on and the seeds of the random picks; for "
    "random picks, two standard deviations over seeds."
)


def of_picks(rows: Sequence[tuple[str, Mapping[str, Measured]]]) -> list[Bars]:
    """Return a group of bars for every pick, with the distances to the ends of its intervals."""
    groups: list[Bars] = []
    others = iter(OTHERS * len(rows[0][1]))
    for pick in rows[0][1]:
        measured = np.array([picks[pick] for _, picks in rows], dtype=float)
        errors = np.abs(measured[:, 1:] - measured[:, :1]).T
        groups.append((pick, COLORS.get(pick) or next(others), tuple(measured[:, 0].tolist()), errors))
    return groups


def lengths(pool: np.ndarray, selection: np.ndarray) -> Plot:
    """Plot the lengths of documents in the pool and in the selection, as shares.

    Parameters
    ----------
    pool, selection : ndarray of int64, shape (LENGTHS,)
        Numbers of documents with at least ``2^(i/4)`` but fewer than ``2^((i+1)/4)`` tokens.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    filled = np.flatnonzero(pool + selection)
    first, last = filled[0], filled[-1] + 1
    edges = 2 ** (np.arange(first, last + 1) / 4)
    figure, [ax] = new_figure(2.4)
    for counts, color, label, style in (
        (pool, POOL, "pool", {"fill": True}),
        (selection, SELECTION, "selection", {"linewidth": 1.6}),
    ):
        ax.stairs(counts[first:last] / max(counts.sum(), 1), edges, color=color, label=label, **style)
    ax.set(xscale="log", xlabel="tokens of a document", ylabel="share of the documents", ylim=(0, None))
    ax.set(xlim=(edges[0], edges[-1]), axisbelow=True)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter("{x:.0%}")
    ax.minorticks_off()
    ax.grid(axis="y", color="#e9ecf0", linewidth=0.8)
    return finished(figure, "Lengths of the documents")


def sizes(factors: Sequence[float], measures: Mapping[str, Sequence[Measured]]) -> Plot:
    """Plot measures of picks against their size.

    Parameters
    ----------
    factors : sequence of float
        Of the selection's size, ascending.
    measures : mapping of str to sequence of (value, low, high)
        By name, a panel each; one for every factor.
    """
    figure, panels = new_figure(3.0, 1, len(measures))
    for ax, (name, measured) in zip(panels, measures.items(), strict=True):
        values, low, high = np.array(measured, dtype=float).T
        errors = [values - low, high - values]
        ax.errorbar(
            factors,
            values,
            errors,
            color=SELECTION,
            ecolor=INK,
            elinewidth=1,
            capsize=2,
            marker="o",
            markersize=4,
        )
        ax.axvline(1, color=INK, linewidth=1, linestyle="--", label="the selection's own size")
        ax.set(xscale="log", xlabel="times the selection's size", ylabel=name)
        ax.set_xticks(factors, [f"{each:g}" for each in factors])
        ax.minorticks_off()
        ax.grid(axis="y", color="#e9ecf0", linewidth=0.8)
    note = "Lines: 95% intervals over the target's documents that were measured on and the seeds of the random picks."
    return finished(figure, "Measures of the selection's method at other sizes", note)


def rounds(curve: list[Round]) -> Plot:
    """Plot how close the mean of the rounds of matching came to the target, and the bound on what is left to gain.

    Parameters
    ----------
    curve : list of dsir.matching.Round
    """
    figure, [ax] = new_figure(2.8)
    numbers = [each.number for each in curve]
    ax.plot(
        numbers, [each.kl for each in curve], color=SELECTION, label="KL(target‖mean of rounds)", marker="."
    )
    gaps = [each.gap for each in curve[1:]]  # the first is that of the pool
    ax.plot(numbers[1:], gaps, color=POOL, label="gap: at most this is left to gain", marker=".")
    ax.set(xlabel="round", ylabel="nats", ylim=(0, None))
    ax.locator_params(axis="x", integer=True)
    ax.grid(axis="y", color="#e9ecf0", linewidth=0.8)
    return finished(figure, "KL by round")


def bars(names: Sequence[str], groups: Sequence[Bars], quantity: str, form: str, note: str = "") -> Plot:
    """Plot horizontal bars: a row for every name, with a bar from every group."""
    figure, [ax] = new_figure(max(1.8, 0.7 + len(names) * (0.06 + 0.15 * len(groups))))
    height = 0.8 / len(groups)
    for index, (label, color, values, errors) in enumerate(groups):
        at = np.arange(len(names)) + (index + 0.5) * height - 0.4
        width, line = 0.9 * height, {"linewidth": 1}
        ax.barh(
            at, values, width, color=color, label=label, xerr=errors, ecolor=INK, capsize=2, error_kw=line
        )
        up = np.zeros(len(at)) if errors is None else errors[1]
        for y, value, error in zip(at, values, up, strict=True):
            end, text, beside = (max(value + error, 0), y), f"{value:{form}}", "offset points"
            ax.annotate(text, end, (4, 0), textcoords=beside, va="center", fontsize=8, color=INK)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(np.arange(len(names)), [shortened(name, 28) for name in names])
    ax.set(xticks=[], xlabel=quantity, ylim=(len(names) - 0.5, -0.5))
    ax.spines[:].set_visible(False)
    return finished(figure, quantity, note)


def new_figure(height: float, rows: int = 1, columns: int = 1) -> tuple["Figure", list["Axes"]]:
    """Return a figure 7 inches wide and its axes, without a box and with small labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), dpi=110, layout="constrained", facecolor="white")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color("#9aa1ab")
        ax.tick_params(length=0, labelsize=8, labelcolor=INK)
        ax.xaxis.label.set(fontsize=9, color=INK)
        ax.yaxis.label.set(fontsize=9, color=INK)
    return figure, axes


def finished(figure: "Figure", alt: str, *notes: str) -> Plot:
    """Put the legend above the axes, lay the figure out, and draw it as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image  # matplotlib's own dependency

    labels: dict[str, Artist] = {}
    for ax in figure.axes:
        labels |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(labels.values()),
        list(labels),
        loc="outside upper left",
        ncols=len(labels),
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handlelength=1.4,
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    file = io.BytesIO()
    # A palette takes a third of the bytes, which Dagster keeps with every materialization.
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64).save(file, "png")
    figure.set_layout_engine("none")
    return Plot(figure, alt, list(filter(None, notes)), file.getvalue())


def of_many(what: str, shown: int, n: int) -> str:
    """Return a note if not all are shown."""
    return f"The first {shown} of {n} {what}." if shown < n else ""


def shortened(name: str, length: int) -> str:
    """Return a name as a label: one line, not too long, without dollar signs that start a formula."""
    line = visible(name)
    return (line if len(line) <= length else line[: length - 1] + "…").replace("$", r"\$")
