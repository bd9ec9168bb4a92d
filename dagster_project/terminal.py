"""A terminal that shows data as data.

What belongs here: how text reaches standard output and standard error. What does not: what is said.

Commands write through :class:`Terminal` and style with :class:`Text`; both show what does not print as an escape, so
that no name in a file can move the cursor, forge a line or end a table. Nothing is markup: a style is an argument.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence

import rich.table
import rich.text
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from dsir_dagster.resources.borders import visible
from dsir_dagster.resources.table import Table

#: What stands for our own marks where the terminal's encoding lacks them.
PLAIN = str.maketrans("✓✗→…—‖±█▇▆▅▄▃▂▁", "+x>.-|~##==--__")


class Text(rich.text.Text):
    """Styled text on one line: what does not print, line ends too, is shown as an escape."""

    def __init__(self, text: str = "", style: str = "", **options: object) -> None:
        super().__init__(visible(text), style, **options)

    def append(self, text: rich.text.Text | str, style: str | None = None) -> Text:
        """Add text, or styled text, at the end."""
        return super().append(visible(text) if isinstance(text, str) else text, style)


def lines(text: str, style: str = "") -> rich.text.Text:
    """Return text of several lines, the later ones indented: none of them is taken for a line of its own."""
    first, *rest = map(visible, text.split("\n"))
    return rich.text.Text(
        "\n".join([first, *(each if each.startswith("  ") else f"  {each}" for each in rest)]), style
    )


def header(text: str) -> rich.text.Text:
    """Return a column's header, which may have two lines."""
    return rich.text.Text("\n".join(map(visible, text.split("\n"))))


def grid(table: Table, gap: int = 2, styles: Sequence[str] = ()) -> rich.table.Table:
    """Lay out a table: numbers keep their line, text shares what these leave. A cell may be styled text.

    Parameters
    ----------
    table : Table
    gap : int
        Spaces between two columns.
    styles : sequence of str
        Of the rows, where they have one.
    """
    shown = rich.table.Table(box=None, header_style="bold", pad_edge=False, padding=(0, gap, 0, 0))
    for column in table.columns:
        justify = "right" if column.numeric else "left"
        shown.add_column(header(column.name), justify=justify, no_wrap=column.numeric, overflow="fold")
    for i, row in enumerate(table.rows):
        pairs = zip(table.columns, row, strict=True)
        cells = (cell if isinstance(cell, rich.text.Text) else column.text(cell) for column, cell in pairs)
        shown.add_row(*cells, style=styles[i] if styles else None)
    return shown


def absences(absent: Mapping[str, str]) -> Iterator[Text]:
    """Yield a line for each source and target whose files are all absent, by name; see `Workspace.known_plan`."""
    for name, why in absent.items():
        yield Text(f"{name} is not there, and shown as it was when it was: {why}", "yellow")


class Terminal(Console):
    """A console on which strings are shown as they are, and what does not print as an escape."""

    def __init__(self, **options: object) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: object) -> rich.text.Text:
        """Make text of a string: whatever is printed, or stands in a table, comes by here."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render; text that came by another way than a string or `Text` loses what does not print here."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                yield Segment(visible(segment.text, keep="\n"), segment.style)


def write_anything(*streams: object) -> None:
    """Let streams take characters that their encoding lacks: our own marks as ASCII, others as escapes."""
    codecs.register_error("dsir", _plain)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="dsir")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(PLAIN)
    return text.encode("ascii", "backslashreplace").decode(), error.end
