"""Foreign text where it leaves the project: names, ids, reasons and paths are data to whatever shows them.

What belongs here: one function a border, what they share, and numbers in words. What does not: what is shown
(``dagster_project/terminal.py`` shows it in a terminal, ``assets/`` in Dagster and on the page of a selection).

A document's id, its source, a reason, the name of a file may hold whatever a file can hold: an escape sequence that
writes another line over the one before, a character that turns the order of what follows, a table's ``|``.
"""

from __future__ import annotations

import re

# An underscore within a word is none to markdown.
_MARKDOWN = re.compile(r"[\\`*\[\]<>&|~#!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def visible(text: str, keep: str = "") -> str:
    r"""Write what does not print as Python would in a literal: control characters, line ends, marks of direction.

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
    r"""Write text for a cell of a markdown table, on one line, as nothing but itself.

    Examples
    --------
    >>> markdown("<b>|`kl_reduction`")
    '\\<b\\>\\|\\`kl_reduction\\`'
    """
    return _MARKDOWN.sub(r"\\\g<0>", visible(text))


def several(number: int, noun: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> several(1, "output"), several(1200, "output")
    ('1 output', '1,200 outputs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
