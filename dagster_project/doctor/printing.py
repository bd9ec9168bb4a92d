"""What a terminal shows of ``dsir doctor``.

What belongs here: layout. What does not: the findings (``checks``).
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Column, Table

from dsir_dagster.doctor.checks import Curve, Finding
from dsir_dagster.terminal import Terminal, Text, header

BLOCKS = "▁▂▃▄▅▆▇█"

#: Checks of targets, and the columns that their numbers are in.
OF_TARGETS = {
    "leakage": "leaked\ntexts",
    "size of the target": "last doubling,\nof the way",
    "empty buckets": "pool's n-grams on\nempty buckets",
    "collisions": "n-grams\ncrowded out",
    "likeness of the pool": "documents\nas like it",
}


def print_doctor(findings: list[Finding], curves: list[Curve], console: Terminal) -> None:
    """Print the warnings with advice, what is well in the pool, and every number of the targets."""
    warnings = [each for each in findings if each.warning]
    for each in warnings:
        title = (f"{each.check}, {each.about}", "bold")
        console.print(Text.assemble(("! ", "bold yellow"), title, f": {each.says}"), soft_wrap=True)
        console.print(Text(f"  → {each.advice}", style="yellow"), soft_wrap=True)
    if warnings:
        console.print()
    for each in findings:
        if not each.warning and each.check not in OF_TARGETS:
            mark, title = ("✓ ", "green"), f"{each.check}, {each.about}"
            console.print(Text.assemble(mark, title, f": {each.says}"), soft_wrap=True)
    of_targets = [each for each in findings if each.check in OF_TARGETS]
    if of_targets:
        console.print()
        table = _table("target", *OF_TARGETS.values())
        for target in dict.fromkeys(each.about for each in of_targets):
            cells = []
            for check in OF_TARGETS:
                mine = [each for each in of_targets if (each.about, each.check) == (target, check)]
                style = "yellow" if any(each.warning for each in mine) else "green"
                mark = "! " if style == "yellow" else ""
                cells.append(Text(mark + ", ".join(each.number for each in mine), style=style))
            table.add_row(Text(target), *cells)
        console.print(table)
    if curves:
        console.print()
        says = "  KL(held out‖fit) in nats, on parts of the target, each twice the last"
        console.print(Text.assemble(("Learning curves", "bold"), says))
        table = _table("target", "documents", "", "KL", "of the pool")
        for curve in curves:
            kls = [point.kl for point in curve.points]
            table.add_row(
                Text(curve.target),
                f"{curve.points[0].documents:,} … {curve.points[-1].documents:,}",
                sparkline(kls),
                " ".join(f"{kl:.3f}" for kl in kls),
                f"{curve.pool:.3f}",
            )
        console.print(table)
    console.print()
    if warnings:
        well = len(findings) - len(warnings)
        plural = "s" if len(warnings) > 1 else ""
        console.print(Text(f"{len(warnings)} warning{plural}; {well} checks are well", style="yellow"))
    else:
        console.print(Text(f"all {len(findings)} checks are well", style="green"))


def _table(*headers: str) -> Table:
    columns = (Column(header(each), no_wrap=True) for each in headers)
    return Table(*columns, box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))


def sparkline(values: Sequence[float]) -> str:
    """Draw numbers as blocks of eight heights: the largest is the highest, 0 would be none."""
    top = max(values)
    return "".join(BLOCKS[min(int(8 * value / top), 7)] if top > 0 else BLOCKS[0] for value in values)
