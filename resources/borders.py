"""Foreign text where it leaves the project: names, ids, reasons and paths are data to whatever shows them.

What belongs here: one function for each border, what they share, and numbers in words. What does not: what is shown
(``dagster_project/terminal.py`` writes to a terminal, ``assets/`` to Dagster and a selection's page).

A document's id, its source, a reason or a file's name may hold anything that a file can hold: an escape sequence that
overwrites the previous line, a character that reverses the order of the text after it, a table's ``|``.
"""

from __future__ import annotations

import re

# Markdown ignores an underscore within a word.
_MARKDOWN = re.compile(r"[\\`*\[\]<>&|~#!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def visible(text: str, keep: str = "") -> str:
    r"""Escape what does not print, as a Python literal would: control characters, line ends, direction marks.

    Parameters
    ----------
    text : str
    keep : str
        Characters to leave as they are.

    Examples
    --------
    >>> visible("a\x1b[2Kb\u202ec\n")
    'a\\x1b[2Kb\\u202ec\\n'
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text
    )


def markdown(text: str) -> str:
    r"""Escape text for a cell of a markdown table, on one line.

    Examples
    --------
    >>> markdown("<b>|`kl_reduction`")
    '\\<b\\>\\|\\`kl_reduction\\`'
    """
    return _MARKDOWN.sub(r"\\\g<0>", visible(text))


def several(number: int, noun: str) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> several(1, "output"), several(1200, "output")
    ('1 output', '1,200 outputs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
