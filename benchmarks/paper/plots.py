"""Pictures of the figures.

What belongs here: layout. What does not: arithmetic (``summary``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper.summary import Row, correlation, in_order, spread

_COLOURS = ("#888888", "#e6a817", "#b5651d", "#6baed6", "#9e9ac8", "#2166ac", "#c0392b")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def _style(methods: list[str]) -> dict[str, dict]:
    return {
        name: {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}
        for i, name in enumerate(methods)
    }


def _bare(ax) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, alpha=0.25, linewidth=0.6)
    ax.set_axisbelow(True)


def by_target(rows: list[Row], path: Path) -> None:
    """Plot KL reduction, and F1 and proxy loss relative to random selections, of every method on every target."""
    style = _style(list(dict.fromkeys(row.method for row in rows)))
    targets = list(dict.fromkeys(row.target for row in rows))[::-1]
    panels = [("kl_reduction", "KL reduction, nats (higher is better)")]
    panels += [("f1", "F1 less that of random (higher is better)")] * any(row.f1 for row in rows)
    panels += [("proxy", "proxy loss less that of random, nats (lower is better)")] * any(
        row.proxy for row in rows
    )
    figure = Figure(figsize=(1.8 + 4.4 * len(panels), 1.6 + 0.46 * len(targets)), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (measure, label) in zip(axes, panels, strict=True):
        base = {
            row.target: np.mean(getattr(row, measure))
            for row in rows
            if row.method == "random" and measure != "kl_reduction" and getattr(row, measure)
        }
        for i, (method, look) in enumerate(style.items()):
            offset = 0.64 * (0.5 - (i + 0.5) / len(style))
            for row in (row for row in rows if row.method == method):
                values = getattr(row, measure)
                if measure == "kl_reduction":
                    value, error = values, 0.0
                elif values and row.target in base:
                    value, error = np.mean(values) - base[row.target], spread(values)
                else:
                    continue
                ax.errorbar(
                    value, targets.index(row.target) + offset, xerr=error, markersize=6, linewidth=1, **look
                )
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel(label)
        _bare(ax)
    axes[0].set_yticks(range(len(targets)), targets)
    axes[0].set_ylim(-0.6, len(targets) - 0.4)
    marks = [axes[0].plot([], [], linestyle="", label=name, **look)[0] for name, look in style.items()]
    figure.legend(handles=marks, loc="outside upper center", ncols=len(style), frameon=False)
    figure.savefig(path, dpi=130)


def correlations(rows: list[Row], path: Path) -> bool:
    """Plot KL reduction against F1 and proxy loss, over methods and within targets; return False without either."""
    measures = [
        (name, label)
        for name, label in (("f1", "downstream F1"), ("proxy", "proxy loss, nats per token"))
        if any(getattr(row, name) for row in rows)
    ]
    if not measures:
        return False
    style = _style(list(dict.fromkeys(row.method for row in rows)))
    figure = Figure(figsize=(10.5, 0.8 + 3.9 * len(measures)), layout="constrained")
    axes = figure.subplots(len(measures), 2, squeeze=False)
    for pair, (measure, label) in zip(axes, measures, strict=True):
        measured = [row for row in rows if getattr(row, measure)]
        points = np.array([(row.kl_reduction, np.mean(getattr(row, measure))) for row in measured])
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


def ablations(rows: list[dict], path: Path) -> None:
    """Plot the mean KL reduction of the variants; hollow marks are the method's own settings."""
    kinds = list(dict.fromkeys(row["what"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    colours = {name: _COLOURS[3 + i % 4] for i, name in enumerate(methods)}
    colours |= {
        name: _style(["random", "", "", "top_k", "", "resample", "match"])[name]["color"] for name in methods
    }
    figure = Figure(figsize=(3.1 * len(kinds), 3.6), layout="constrained")
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for ax, kind in zip(axes, kinds, strict=True):
        values = sorted({row["value"] for row in rows if row["what"] == kind}, key=in_order)
        for method in methods:
            found = [row for row in rows if row["what"] == kind and row["method"] == method]
            if found:
                at = [values.index(row["value"]) for row in found]
                ax.plot(at, [row["kl_reduction"] for row in found], color=colours[method])
                for x, row in zip(at, found, strict=True):
                    face = "white" if row["own"] else colours[method]
                    ax.plot(x, row["kl_reduction"], "o", color=colours[method], markerfacecolor=face)
        ax.set_xticks(range(len(values)), values, fontsize=9)
        ax.set_title(kind, fontsize=10)
        _bare(ax)
    axes[0].set_ylim(
        bottom=min(0.0, axes[0].get_ylim()[0]) if min(r["kl_reduction"] for r in rows) < 0 else 0.0
    )
    axes[0].set_ylabel("mean KL reduction, nats")
    lines = [axes[0].plot([], [], color=colour, label=name)[0] for name, colour in colours.items()]
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines), frameon=False)
    figure.savefig(path, dpi=130)
