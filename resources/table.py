"""A table whose columns know what their values are, and how it is written as markdown.

What belongs here: columns, and one value in words. What does not: a terminal (``dagster_project/terminal.py``), HTML
(``assets/report/table.html``), which tables there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dsir_dagster.resources.borders import markdown, visible

#: What a cell holds: a string, an int, a float; a value with the two ends of its interval, these ends alone, a value
#: with what it varies by. None is an empty cell.
Kind = Literal["text", "whole", "number", "signed", "share", "interval", "range", "spread"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
    kind : Kind
        Of its values.
    digits : int, optional
        Behind the point. Without it a number has four significant ones, a share one, everything else three.
    """

    name: str
    kind: Kind = "text"
    digits: int | None = None

    @property
    def numeric(self) -> bool:
        """Whether it is put right."""
        return self.kind != "text"

    def parts(self, cell: Any) -> tuple[str, str]:
        """Write a cell: the value, and its interval, which is '' where there is none."""
        if cell is None:
            return "", ""
        if self.kind == "text":
            return visible(str(cell)), ""
        if self.kind == "whole":
            return f"{cell:,}", ""
        if self.kind == "share":
            return f"{cell:.{1 if self.digits is None else self.digits}%}", ""
        if self.kind == "number":
            if self.digits is not None:
                return f"{cell:,.{self.digits}f}", ""
            return f"{cell:,.4g}" if abs(cell) < 1000 else f"{cell:,.0f}", ""
        if self.kind == "signed":
            return f"{cell:+,.{3 if self.digits is None else self.digits}f}", ""
        first, *rest = (f"{each:.{3 if self.digits is None else self.digits}f}" for each in cell)
        if self.kind == "interval":
            return first, " to ".join(rest)
        return f"{first} {'to' if self.kind == 'range' else '±'} {rest[0]}", ""

    def text(self, cell: Any) -> str:
        """Write a cell on one line, as it is."""
        value, interval = self.parts(cell)
        return f"{value} ({interval})" if interval else value


@dataclass(frozen=True)
class Table:
    """Columns, and rows with a cell for each of them.

    Attributes
    ----------
    columns : sequence of Column
    rows : sequence of sequence
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]

    @property
    def markdown(self) -> str:
        """As markdown; text stands in it as it is, whatever it is."""
        lines = [[column.name for column in self.columns]]
        lines += [
            [column.text(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows
        ]
        header, *rows = ("| " + " | ".join(map(markdown, line)) + " |" for line in lines)
        return "\n".join([header, "|" + " --- |" * len(self.columns), *rows])
