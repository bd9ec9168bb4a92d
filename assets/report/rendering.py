"""How a report is written: the template, its filters, plots as SVG.

What belongs here: from values to HTML. What does not: which values (``page.py``), how pages look (the templates beside
this module).

The page is a Jinja2 template, which escapes whatever is put into it. Plots are SVG in the colors of the page, light or
dark.
"""

import io
import pickle
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dsir_dagster.resources import plots
from dsir_dagster.resources.borders import visible
from dsir_dagster.resources.table import written

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from markupsafe import Markup
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

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


#: Width of a plot for a narrow window, in inches: on a phone its labels have the size of the captions.
NARROW = 4.2
#: What a verdict of each level amounts to.
HEADINGS = {"good": "good", "caution": "usable, with cautions", "bad": "do not rely on it as it is"}


def svg(plot: plots.Plot) -> "Markup":
    """Draw a plot as SVG in the colors and font of the page, for wide and for narrow windows, with its notes below."""
    from markupsafe import Markup, escape

    drawn = _draw(plot.figure, plot.alt, "broad") + _draw(_narrowed(plot.figure), plot.alt, "narrow")
    notes = "".join(f"<figcaption>{escape(note)}</figcaption>" for note in plot.notes)
    return Markup(f'<figure><div class="plot">{drawn}</div>{notes}</figure>')


def _narrowed(figure: "Figure") -> "Figure":
    """Return a copy of a figure, laid out anew."""
    narrow = pickle.loads(pickle.dumps(figure))
    narrow.set_size_inches(NARROW, figure.get_figheight() * 1.1)
    for legend in narrow.legends:
        legend.set_ncols(min(3, len(legend.get_texts())))
    _as_svg(narrow)
    narrow.set_layout_engine("constrained")
    narrow.get_layout_engine().execute(narrow)
    narrow.set_layout_engine("none")
    return narrow


def _as_svg(figure: "Figure") -> "FigureCanvasSVG":
    """Have a figure drawn as SVG, and without a background."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure.dpi = 72
    for patch in (figure.patch, *(ax.patch for ax in figure.axes)):
        patch.set(facecolor="none", edgecolor="none")
    return FigureCanvasSVG(figure)


def _draw(figure: "Figure", alt: str, kind: str) -> str:
    import matplotlib
    from markupsafe import escape

    file = io.StringIO()
    # Text stays text: readable, searchable and small. The salt makes the bytes the same every time.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        # `savefig` would draw it twice: a first time for a layout that is already there.
        _as_svg(figure).print_svg(file, metadata=nothing)
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    # Ids are unique only within one plot.
    prefix = f"{kind}-" + re.sub(r"\W", "-", alt)
    drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", drawn)
    for theirs, ours in COLORS.items():
        drawn = drawn.replace(theirs, ours)
    return drawn.replace("<svg ", f'<svg class="{kind}" role="img" aria-label="{escape(alt)}" ', 1)


def code(text: str) -> "Markup":
    """Escape text, and show what is between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(visible(text, keep=LETTERS)))))


def template(name: str) -> "Template":
    """Return a page: ``report.html`` or ``comparison.html``."""
    return templates().get_template(name)


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
    environment.filters |= {"svg": svg, "written": written, "code": code, "heading": HEADINGS.get}
    environment.tests["plot"] = lambda value: isinstance(value, plots.Plot)
    return environment
