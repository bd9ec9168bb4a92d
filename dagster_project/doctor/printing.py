"""What a terminal shows of ``dsir doctor``.

What belongs here: layout. What does not: the findings (``checks``).
"""

from __future__ import annotations

from collections.abc import Sequence

from dsir_dagster.doctor.checks import Curve, Finding
from dsir_dagster.resources.borders import several
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.terminal import Terminal, Text, grid

BLOCKS = "▁▂▃▄▅▆▇█"

#: Checks of targets, and the headers of their numbers.
OF_TARGETS = {
    "leakage": "leaked\ntexts",
    "size of the target": "gain of the\nlast doubling",
    "empty buckets": "pool's n-grams on\nempty buckets",
    "collisions": "n-grams\ncrowded out",
    "likeness of the pool": "documents\nlike the target",
}


def print_doctor(findings: list[Finding], curves: list[Curve], quiet: bool, console: Terminal) -> None:
    """Print the warnings with advice, the checks of the pool that passed, and all numbers of the targets.

    Parameters
    ----------
    findings : list of Finding
    curves : list of Curve
    quiet : bool
        Whether to print only the warnings and their number.
    console : Terminal
    """
    warnings = [each for each in findings if each.warning]
    for each in warnings:
        mark, title = ("! ", "bold yellow"), (f"{each.check}, {each.about}", "bold")
        console.print(Text.assemble(mark, title, f": {each.says}"), soft_wrap=True)
        console.print(Text(f"  → {each.advice}", style="yellow"), soft_wrap=True)
    if not quiet:
        _print_numbers(findings, curves, bool(warnings), console)
    if warnings:
        well = len(findings) - len(warnings)
        console.print(f"{several(len(warnings), 'warning')}; {several(well, 'check')} passed", style="yellow")
    else:
        console.print(f"all {len(findings)} checks passed", style="green")


def _print_numbers(findings: list[Finding], curves: list[Curve], apart: bool, console: Terminal) -> None:
    if apart:
        console.print()
    for each in findings:
        if not each.warning and each.check not in OF_TARGETS:
            text = f"{each.check}, {each.about}: {each.says}"
            console.print(Text.assemble(("✓ ", "green"), text), soft_wrap=True)
    of_targets = [each for each in findings if each.check in OF_TARGETS]
    if of_targets:
        console.print()
        console.print(grid(_numbers(of_targets)))
    if curves:
        console.print()
        says = "  KL(held out‖fit) in nats, on parts of the target, each twice the last"
        console.print(Text.assemble(("Learning curves", "bold"), says))
        console.print(grid(_curves(curves)))
    console.print()


def _numbers(findings: list[Finding]) -> Table:
    """Return a row per target and a column per check."""
    cells: dict[str, dict[str, list[Finding]]] = {}
    for each in findings:
        cells.setdefault(each.about, {}).setdefault(each.check, []).append(each)
    rows = [(target, *(_number(of.get(check, [])) for check in OF_TARGETS)) for target, of in cells.items()]
    return Table([Column(name) for name in ("target", *OF_TARGETS.values())], rows)


def _number(findings: list[Finding]) -> Text:
    text = ", ".join(each.number for each in findings)
    return Text(f"! {text}", "yellow") if any(each.warning for each in findings) else Text(text, "green")


def _curves(curves: list[Curve]) -> Table:
    columns = [
        Column("target"),
        Column("documents"),
        Column(""),
        Column("KL"),
        Column("of the pool", "number", 3),
    ]
    rows = []
    for curve in curves:
        kls = [point.kl for point in curve.points]
        documents = f"{curve.points[0].documents:,} … {curve.points[-1].documents:,}"
        rows.append(
            (curve.target, documents, sparkline(kls), " ".join(f"{kl:.3f}" for kl in kls), curve.pool)
        )
    return Table(columns, rows)


def sparkline(values: Sequence[float]) -> str:
    """Draw numbers as blocks of eight heights, in proportion to the largest."""
    top = max(values)
    return "".join(BLOCKS[min(int(8 * value / top), 7)] if top > 0 else BLOCKS[0] for value in values)
