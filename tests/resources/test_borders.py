"""Foreign text at the borders: it says what it is, on one line, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsir_dagster.assets.report.rendering import templates
from dsir_dagster.resources.borders import markdown, visible
from dsir_dagster.resources.table import Column, Table

#: Names as hostile files have them.
HOSTILE = [
    "cr\rlf\n✓ forged",
    "\x1b[2K\x1b[1A✓ forged",
    "\x9b31m",
    "u2028\u2028x\x85y\x0b\x0c\x1c",
    "[/b]",
    "[red]red",
    "$\\alpha$ $x",
    r"\$x\$",
    "<script>alert(1)</script>",
    "a|b\\|c\\",
    "`code` *x* _y_ ~~z~~",
    "\u202egnp.exe\u2066",
    "{{ 7*7 }}",
    "&lt;&amp;",
    "\x00nul",
    "![x](http://evil/x.png)",
    "not UTF-8: \udcff",
    "",
]


@given(st.text() | st.sampled_from(HOSTILE))
def test_what_is_visible_prints_on_one_line(text):
    shown = visible(text)
    assert shown.isprintable()
    assert text.isprintable() == (shown == text)


@given(st.text() | st.sampled_from(HOSTILE))
def test_a_cell_of_markdown_is_its_text(text):
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown(text)) == visible(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_is_markup(text):
    """Whatever starts something in markdown or HTML has a backslash before it."""
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", markdown(text))
    assert not re.search(r"[\\<>|`*\[\]&~$]|^[#!]", bare)


def test_metric_names_stay_readable():
    assert markdown("kl_reduction_top_k") == "kl_reduction_top_k"


def test_a_table_has_a_row_for_each_row_and_the_page_shows_the_same():
    table = Table([Column("source"), Column("n|m", "whole")], [(name, 1) for name in HOSTILE])
    written = table.markdown
    assert len(written.split("\n")) == len(HOSTILE) + 2 == len(written.splitlines())
    page = str(templates().get_template("table.html").module.table(table))
    assert page.count("<tr>") == len(HOSTILE) + 1 and "<script" not in page
    assert (
        "&lt;script&gt;" in page
        and '<th scope="col">source</th>' in page
        and '<th scope="col" class=n>n|m</th>' in page
    )
    assert r"<td>cr\rlf\n✓ forged</td><td class=n>1</td>" in page


@pytest.mark.parametrize(
    ("column", "cell", "text"),
    [
        (Column("c"), "a\nb", r"a\nb"),
        (Column("c", "whole"), 1234, "1,234"),
        (Column("c", "number"), 12.34567, "12.35"),
        (Column("c", "number"), 1234.5, "1,234"),
        (Column("c", "number", 1), 1234.56, "1,234.6"),
        (Column("c", "share"), 0.1234, "12.3%"),
        (Column("c", "interval"), (0.5, 0.25, 1.0), "0.500 (0.250 to 1.000)"),
        (Column("c", "range", 1), (0.25, 1.0), "0.2 to 1.0"),
        (Column("c", "spread"), (0.5, 0.01), "0.500 ± 0.010"),
        (Column("c", "interval"), None, ""),
    ],
)
def test_a_value_is_written_as_its_column_says(column, cell, text):
    assert column.text(cell) == text


def test_a_table_that_is_turned_has_intervals_below_their_numbers():
    table = Table([Column("picks"), Column("KL", "interval")], [("random", (0.5, 0.25, 1.0)), ("top", None)])
    page = str(templates().get_template("table.html").module.table(table, turned=True))
    heads = '<th scope="col">picks</th><th scope="col" class=n>random</th><th scope="col" class=n>top</th>'
    assert heads in page.replace("\n", "")
    cells = '<th scope="row">KL</th><td class=n>0.500<br><small>0.250 to 1.000</small></td><td class=n></td>'
    assert cells in page.replace("\n", "")
