"""The terminal shows data as data, and prints on streams that lack a character."""

import io
import sys

import pytest
import rich.text
from rich.table import Table

from dsir_dagster.resources import table as typed
from dsir_dagster.resources.table import Column
from dsir_dagster.terminal import Terminal, Text, grid, lines, write_anything
from tests.resources.test_borders import HOSTILE


def shown(*objects, width=200, **options):
    file = io.StringIO()
    Terminal(file=file, width=width, force_terminal=True, color_system=None, **options).print(*objects)
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "made",
    [str, Text, rich.text.Text, lambda text: Text.assemble("a ", (text, "bold")), lambda text: table(text)],
)
def test_nothing_reaches_the_terminal_but_what_prints(made, text):
    printed = shown(made(text))
    assert printed.replace("\n", "").isprintable()
    if made is not rich.text.Text:  # its line ends are deliberate
        assert len(printed.splitlines()) == (2 if isinstance(made(text), Table) else 1)
    assert (not printed.startswith("✓") and "\n✓" not in printed) or made is rich.text.Text


def table(text):
    made = Table("name", "why", box=None)
    made.add_row(text, Text(text))
    return made


def test_markup_is_text():
    assert shown("[bold]x[/] [/b] :smile:") == "[bold]x[/] [/b] :smile:\n"


def test_columns_are_as_wide_as_what_is_shown():
    rows = shown(table("\x1b[31mred\x1b[0m"), width=80).splitlines()
    assert rows[1].count(r"\x1b[31mred\x1b[0m") == 2


def test_a_table_wraps_its_text_and_keeps_its_numbers_whole():
    columns = [Column("what"), Column("nats\nof it", "signed", 2), Column("state")]
    rows = [("word " * 20, 1234.5, Text("fresh", "green")), (None, -0.25, "stale\n")]
    printed = shown(grid(typed.Table(columns, rows)), width=40).splitlines()
    assert printed[0].split() == ["nats"] and printed[1].split() == ["what", "of", "it", "state"]
    assert sum(line.count("word") for line in printed) == 20 and not any("…" in line for line in printed)
    assert "+1,234.50  fresh" in printed[2] and r"-0.25  stale\n" in printed[-1]


def test_later_lines_of_a_message_are_indented():
    assert shown(lines("2 failed\nraw_counts[x]: bad\n✓ forged\n  key: wrong")).splitlines() == [
        "2 failed",
        "  raw_counts[x]: bad",
        "  ✓ forged",
        "  key: wrong",
    ]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("ascii", "+ x > # \\u4e2d \\xb1"), ("latin-1", "+ x > # \\u4e2d \xb1"), ("utf-8", "✓ ✗ → █ 中 \xb1")],
)
def test_marks_in_other_encodings(encoding, expected, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    write_anything(stream, None)
    stream.write("✓ ✗ → █ 中 \xb1")
    stream.flush()
    expected = expected.replace("\\xb1", "~")
    assert stream.buffer.getvalue().decode(encoding) == expected


def test_a_stream_that_is_no_file_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    write_anything(sys.stdout)
