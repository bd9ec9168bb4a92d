"""Foreign text at the borders: it says what it is, on one line, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsir_dagster.assets.materialize import markdown_table
from dsir_dagster.assets.report import html_table
from dsir_dagster.resources.borders import from_markdown, markdown, visible

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
    assert from_markdown(markdown(text)) == visible(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_is_markup(text):
    """Whatever starts something in markdown or HTML has a backslash before it."""
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", markdown(text))
    assert not re.search(r"[\\<>|`*\[\]&~$]|^[#!]", bare)


def test_metric_names_stay_readable():
    assert markdown("kl_reduction_top_k") == "kl_reduction_top_k"


def test_a_table_has_a_row_for_each_row_and_the_page_shows_the_same():
    table = markdown_table(["source", "n|m"], [(name, 1) for name in HOSTILE])
    assert len(table.split("\n")) == len(HOSTILE) + 2 == len(table.splitlines())
    page = str(html_table(table))
    assert page.count("<tr>") == len(HOSTILE) + 1 and "<script" not in page
    assert "&lt;script&gt;" in page and "<th>source</th>" in page and ">n|m<" in page
