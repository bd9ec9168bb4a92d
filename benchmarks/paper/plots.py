"""Pictures of the figures.

What belongs here: layout. What does not: arithmetic (``summary``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper.summary import Row, correlation, in_order, shown_tokens, spread

#: Colour and mark of a method, the same in all plots; related methods have related colours.
_LOOKS = {
    "random": ("#888888", "o"),
    "classifier": ("#e6a817", "s"),
    "classifier top-k": ("#b5651d", "D"),
    "top-k": ("#9ecae1", "^"),
    "resample, unigrams": ("#4a90c2", "v"),
    "resample": ("#08519c", "P"),
    "moore-lewis": ("#a1d99b", "<"),
    "moore-lewis, models": ("#238b45", ">"),
    "clustered": ("#bcbddc", "p"),
    "nearest neighbours": ("#756bb1", "h"),
    "cynical": ("#111111", "*"),
    "match": ("#c0392b", "X"),
}


def _style(methods: list[str]) -> dict[str, dict]:
    return {name: dict(zip(("color", "marker"), _LOOKS[name], strict=True)) for name in methods}


def _bare(ax) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)


def by_target(rows: list[Row], path: Path) -> None:
    """Plot KL reduction, and the other measures relative to random selections, of every method on every target."""
    style = _style(list(dict.fromkeys(row.method for row in rows)))
    targets = list(dict.fromkeys(row.target for row in rows))[::-1]
    panels = [("over_random", "KL reduction, nats (higher is better)")]
    for measure, label in (
        ("bits", "bits per byte less those of random (lower is better)"),
        ("f1", "F1 less that of random (higher is better)"),
        ("proxy", "loss less that of random, nats (lower is better)"),
    ):
        if any(getattr(row, measure) for row in rows):
            panels.append((measure, label))
    figure = Figure(figsize=(1.8 + 4.2 * len(panels), 2.0 + 0.66 * len(targets)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (measure, label) in zip(axes, panels, strict=True):
        base = {
            row.target: np.mean(getattr(row, measure))
            for row in rows
            if row.method == "random" and measure != "over_random" and getattr(row, measure)
        }
        for i, (method, look) in enumerate(style.items()):
            offset = 0.76 * (0.5 - (i + 0.5) / len(style))
            for row in (row for row in rows if row.method == method):
                values = getattr(row, measure)
                if measure == "over_random":
                    value, error = values, 0.0
                elif values and row.target in base:
                    value, error = np.mean(values) - base[row.target], spread(values)
                else:
                    continue
                ax.errorbar(
                    value, targets.index(row.target) + offset, xerr=error, markersize=6, linewidth=1, **look
                )
        for i in range(0, len(targets), 2):
            ax.axhspan(i - 0.5, i + 0.5, color="#f4f4f4", zorder=0)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel(label)
        _bare(ax)
    axes[0].set_yticks(range(len(targets)), targets)
    axes[0].set_ylim(-0.5, len(targets) - 0.5)
    marks = [axes[0].plot([], [], linestyle="", label=name, **look)[0] for name, look in style.items()]
    figure.legend(
        handles=marks, loc="outside upper center", ncols=min(len(style), 3 * len(panels)), frameon=False
    )
    figure.savefig(path, dpi=130)


def correlations(rows: list[Row], path: Path) -> bool:
    """Plot KL reduction against the other measures, over methods and within targets; return False without any."""
    measures = [
        (name, label)
        for name, label in (
            ("bits", "bits per byte"),
            ("f1", "downstream F1"),
            ("proxy", "loss, nats per token"),
        )
        if any(getattr(row, name) for row in rows)
    ]
    if not measures:
        return False
    style = _style(list(dict.fromkeys(row.method for row in rows)))
    figure = Figure(figsize=(10.5, 0.8 + 3.9 * len(measures)), layout="constrained")
    axes = figure.subplots(len(measures), 2, squeeze=False)
    for pair, (measure, label) in zip(axes, measures, strict=True):
        measured = [row for row in rows if getattr(row, measure)]
        points = np.array([(row.over_random, np.mean(getattr(row, measure))) for row in measured])
        methods, targets = (np.array([getattr(row, key) for row in measured]) for key in ("method", "target"))
        centred = points.copy()
        for target in set(targets):
            centred[targets == target] -= points[targets == target].mean(axis=0)
        found = correlation(rows, measure)
        for method, look in style.items():
            mine = methods == method
            if mine.sum() == len(set(targets)):
                pair[0].plot(*points[mine].mean(axis=0), markersize=9, linestyle="", **look)
            if mine.any():
                pair[1].plot(*centred[mine].T, markersize=6, alpha=0.8, linestyle="", **look)
        for ax, name, title in (
            (pair[0], "methods", "means over the targets"),
            (pair[1], "within", "within targets"),
        ):
            r, n = found[name]
            ax.set_title(f"{title}: r = {r:.2f}, {n} points", fontsize=10)
            less = "" if name == "methods" else ", less the target's mean"
            ax.set_xlabel(f"KL reduction, nats{less}")
            ax.set_ylabel(f"{label}{less}")
            _bare(ax)
    marks = [axes[0][0].plot([], [], linestyle="", label=name, **look)[0] for name, look in style.items()]
    figure.legend(handles=marks, loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, dpi=130)
    return True


def budgets(rows: list[Row], path: Path) -> None:
    """Plot measures against the budget, as means over the targets."""
    methods = list(dict.fromkeys(row.method for row in rows))
    sizes = sorted({row.tokens for row in rows})
    panels = [
        ("KL reduction over random, nats", lambda row: row.over_random),
        ("bits per byte", lambda row: row.bits[0] if row.bits else np.nan),
        ("pieces", lambda row: row.documents),
        ("duplicates, % of the pieces", lambda row: 100 * row.duplicates / row.documents),
    ]
    figure = Figure(figsize=(4.0 * len(panels), 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (label, read) in zip(axes, panels, strict=True):
        for method, look in _style(methods).items():
            means = [
                np.mean([read(row) for row in rows if row.method == method and row.tokens == size])
                for size in sizes
            ]
            ax.plot(sizes, means, markersize=7, linewidth=1.2, label=method, **look)
        ax.set_xscale("log")
        ax.set_xticks(sizes, [shown_tokens(size) for size in sizes])
        ax.minorticks_off()
        ax.set_xlabel("tokens selected")
        ax.set_title(label, fontsize=10)
        _bare(ax)
    axes[2].set_yscale("log")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(methods), frameon=False
    )
    figure.savefig(path, dpi=130)


def ablations(rows: list[dict], path: Path) -> None:
    """Plot the mean KL reduction of the variants; hollow marks are the method's own settings."""
    kinds = list(dict.fromkeys(row["what"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    colours = {name: _LOOKS[name.replace("_", "-")][0] for name in methods}
    figure = Figure(figsize=(3.1 * len(kinds), 3.6), layout="constrained")
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for ax, kind in zip(axes, kinds, strict=True):
        values = sorted({row["value"] for row in rows if row["what"] == kind}, key=in_order)
        for method in methods:
            found = [row for row in rows if row["what"] == kind and row["method"] == method]
            if found:
                at = [values.index(row["value"]) for row in found]
                ax.plot(at, [row["over_random"] for row in found], color=colours[method])
                for x, row in zip(at, found, strict=True):
                    face = "white" if row["own"] else colours[method]
                    ax.plot(x, row["over_random"], "o", color=colours[method], markerfacecolor=face)
        ax.set_xticks(range(len(values)), values, fontsize=9)
        ax.set_title(kind, fontsize=10)
        _bare(ax)
    axes[0].set_ylim(
        bottom=min(0.0, axes[0].get_ylim()[0]) if min(r["over_random"] for r in rows) < 0 else 0.0
    )
    axes[0].set_ylabel("mean KL reduction, nats")
    lines = [axes[0].plot([], [], color=colour, label=name)[0] for name, colour in colours.items()]
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines), frameon=False)
    figure.savefig(path, dpi=130)
