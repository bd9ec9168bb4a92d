"""Tables with typed columns, and their rendering as markdown.

What belongs here: columns, and a cell as text. What does not: the terminal (``dagster_project/terminal.py``), HTML
(``assets/report/table.html``), which tables there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dsir_dagster.resources.borders import markdown, visible

#: What a cell holds: a string, an int, a float (number, nats, size, signed, share), a value with both ends of its
#: interval, the ends alone, a value with its spread or with None where it has no spread. None is an empty cell. A kind
#: has its digits, so that a number reads the same wherever it stands: nats have three, an effective sample size (size)
#: and a share in % have one.
Kind = Literal["text", "whole", "number", "nats", "size", "signed", "share", "interval", "range", "spread"]
DIGITS = {"share": 1, "size": 1}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
    kind : Kind
        Of its values.
    digits : int, optional
        After the decimal point. Default: that of the kind; for a number, four significant ones.
    """

    name: str
    kind: Kind = "text"
    digits: int | None = None

    @property
    def numeric(self) -> bool:
        """Whether it is right-aligned."""
        return self.kind != "text"

    def parts(self, cell: Any) -> tuple[str, str]:
        """Write a cell: the value, and its interval or ''."""
        if cell is None:
            return "", ""
        if self.kind == "text":
            return visible(str(cell)), ""
        if self.kind == "whole":
            return f"{cell:,}", ""
        if self.kind == "number" and self.digits is None:
            return f"{cell:,.4g}" if abs(cell) < 1000 else f"{cell:,.0f}", ""
        digits = DIGITS.get(self.kind, 3) if self.digits is None else self.digits
        sign = "+" if self.kind == "signed" else ""
        if self.kind == "share":
            # What is short of all is not shown as all.
            return f"{min(cell, 1 - 10.0 ** -(digits + 2)) if cell < 1 else cell:.{digits}%}", ""
        # `z`: what rounds to zero has no sign.
        if self.kind in ("number", "nats", "size", "signed"):
            return f"{cell:{sign}z,.{digits}f}", ""
        first, *rest = (f"{each:z.{digits}f}" for each in cell if each is not None)
        if not rest:
            return first, ""
        if self.kind == "interval":
            return first, " to ".join(rest)
        return f"{first} {'to' if self.kind == 'range' else '±'} {rest[0]}", ""

    def text(self, cell: Any) -> str:
        """Write a cell on one line, without escaping."""
        value, interval = self.parts(cell)
        return f"{value} ({interval})" if interval else value


def written(cell: Any, kind: Kind) -> str:
    """Write a number in a sentence as in a table.

    Examples
    --------
    >>> written(0.3551, "nats"), written(0.9996, "share"), written(1.04, "size"), written((0.1, 0.2), "range")
    ('0.355', '99.9%', '1.0', '0.100 to 0.200')
    """
    return Column("", kind).text(cell)


@dataclass(frozen=True)
class Table:
    """Columns, and rows with one cell per column.

    Attributes
    ----------
    columns : sequence of Column
    rows : sequence of sequence
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]

    @property
    def markdown(self) -> str:
        """As markdown, with text escaped."""
        lines = [[column.name for column in self.columns]]
        lines += [
            [column.text(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows
        ]
        header, *rows = ("| " + " | ".join(map(markdown, line)) + " |" for line in lines)
        return "\n".join([header, "|" + " --- |" * len(self.columns), *rows])
