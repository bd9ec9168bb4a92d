"""How a report is written: the template, its filters, plots as SVG.

What belongs here: from values to HTML. What does not: which values (``page.py``), how the page looks (``report.html``,
``table.html``).

The page is a Jinja2 template, which escapes whatever is put into it. Plots are SVG in the colors of the page, light or
dark.
"""

import io
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dsir_dagster.resources import plots
from dsir_dagster.resources.borders import visible

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from markupsafe import Markup

#: Characters the page keeps though they do not print: line ends, and joiners and spaces that scripts need. Marks that
#: change the direction of text act only within their element.
LETTERS = "\n\t\r\xa0\xad\u200b\u200c\u200d\u200e\u200f\u202f\u3000\ufeff"
#: Colors of a plot, and those of the page that replace them.
COLORS = {
    plots.INK: "currentColor",
    plots.POOL: "var(--pool)",
    plots.SELECTION: "var(--accent)",
    "#e9ecf0": "var(--line)",
    "#9aa1ab": "var(--muted)",
}


def svg(plot: plots.Plot) -> "Markup":
    """Draw a plot as SVG in the colors and font of the page, with its notes below."""
    import matplotlib
    from markupsafe import Markup, escape

    file = io.StringIO()
    # Text stays text: readable, searchable and small. The salt makes the bytes the same every time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.alt}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        plot.figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    # Ids are unique only within one plot.
    prefix = re.sub(r"\W", "-", plot.alt)
    drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", drawn)
    for theirs, ours in COLORS.items():
        drawn = drawn.replace(theirs, ours)
    drawn = drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(plot.alt)}" ', 1)
    notes = "".join(f"<figcaption>{escape(note)}</figcaption>" for note in plot.notes)
    return Markup(f'<figure><div class="plot">{drawn}</div>{notes}</figure>')


def template() -> "Template":
    """Return the page."""
    return templates().get_template("report.html")


@cache
def templates() -> "Environment":
    """Return the environment that loads and renders templates."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: visible(value, keep=LETTERS) if type(value) is str else value,
    )
    environment.filters["nats"] = lambda value: f"{value:+,.2f}"
    environment.filters["number"] = lambda value: (
        f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else value
    )
    environment.filters["svg"] = svg
    environment.tests["plot"] = lambda value: isinstance(value, plots.Plot)
    return environment
