"""A terminal that shows data as data.

What belongs here: how text and tables reach standard output and standard error. What does not: what is said.

Commands write through :class:`Terminal` and style with :class:`Text`; both show what does not print as an escape, so
no name in a file can move the cursor, forge a line or end a table. Nothing is markup: a style is an argument.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, Self

import rich.table
import rich.text
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style

from dsir_dagster.resources.borders import visible
from dsir_dagster.resources.table import Table

#: ASCII for our own marks where the terminal's encoding lacks them.
PLAIN = str.maketrans("✓✗→…—‖±█▇▆▅▄▃▂▁", "+x>.-|~##==--__")


class _AsTyped:
    """Messages name commands as in `dsir run`; this shows them as they can be typed here.

    Attributes
    ----------
    program : str
        How ``dsir`` was called.
    options : str
        The options that name its pipeline, with a space before each.
    """

    program = "dsir"
    options = ""

    def __call__(self, text: str) -> str:
        def typed(match: re.Match[str]) -> str:
            options = "" if match[1] in ("new", "schema") else self.options
            return f"`{self.program} {match[1]}{match[2]}{options}`"

        return re.sub(r"`dsir ([a-z]+)([^`]*)`", typed, text)


as_typed = _AsTyped()


def _shown(text: str, keep: str = "") -> str:
    return visible(as_typed(text), keep)


class Text(rich.text.Text):
    """Styled text on one line: what does not print is shown as an escape, line ends included."""

    def __init__(self, text: str = "", style: str | Style = "", **layout: Any) -> None:
        super().__init__(_shown(text), style, **layout)

    def append(self, text: rich.text.Text | str, style: str | Style | None = None) -> Self:
        """Add text, or styled text, at the end."""
        super().append(_shown(text) if isinstance(text, str) else text, style)
        return self


def lines(text: str, style: str = "") -> rich.text.Text:
    """Return text of several lines, the later ones indented: none of them passes for a line of its own."""
    first, *rest = map(_shown, text.split("\n"))
    indented = (line if line.startswith("  ") else f"  {line}" for line in rest)
    return rich.text.Text("\n".join([first, *indented]), style)


def or_dash(value: float | None) -> float | Text:
    """Return the value of a cell; a dash where it is not known."""
    return Text("-") if value is None else value


def grid(table: Table, gap: int = 2, styles: Sequence[str] = ()) -> rich.table.Table:
    """Lay out a table: numbers keep their line, text wraps in the width that is left.

    Parameters
    ----------
    table : Table
        A cell may be styled text. A header may have two lines.
    gap : int
        Spaces between two columns.
    styles : sequence of str
        One for each row, or none.
    """
    shown = rich.table.Table(box=None, header_style="bold", pad_edge=False, padding=(0, gap, 0, 0))
    for column in table.columns:
        header = rich.text.Text("\n".join(map(visible, column.name.split("\n"))))
        shown.add_column(
            header, justify="right" if column.numeric else "left", no_wrap=column.numeric, overflow="fold"
        )
    for i, row in enumerate(table.rows):
        pairs = zip(table.columns, row, strict=True)
        cells = (cell if isinstance(cell, rich.text.Text) else column.text(cell) for column, cell in pairs)
        shown.add_row(*cells, style=styles[i] if styles else None)
    return shown


class Terminal(Console):
    """A console that shows strings as they are, and what does not print as an escape."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> rich.text.Text:
        """Turn a string into text: every string that is printed, or is in a table, passes here."""
        return super().render_str(_shown(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render; text that is neither a string nor a `Text` loses here what does not print."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                yield Segment(visible(segment.text, keep="\n"), segment.style)


def write_anything(*streams: object) -> None:
    """Let streams take characters that their encoding lacks: our marks become ASCII, others escapes."""
    codecs.register_error("dsir", _plain)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="dsir")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end
