"""The documentation's site, by Sphinx: ``make docs``.

What belongs here: how the pages and the docstrings become a site. What does not: any text.
"""

from __future__ import annotations

import re
from importlib.metadata import version as version_of

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

project = "DSIR on Dagster and DuckDB"
author = "the DSIR authors"
release = version = version_of("dsir-dagster")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"  # browsers show it themselves; MathJax would come from another host

autosummary_generate = True
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # the docstrings have the types, with shapes and units
napoleon_google_docstring = False
napoleon_use_rtype = False
# Types in words, such as "ndarray of int64, shape (targets, buckets)", are no references.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False


def _for_the_site(app: Sphinx, page: str, source: list[str]) -> None:
    """Turn what only a repository shows into what a site shows: links to files and folders of code, diagrams."""
    text = source[0]
    text = re.sub(r"\[([^\]]+)\]\(\.\./(?!README)[^)]*\)", _as_code, text)
    source[0] = re.sub(r"```mermaid\n.*?```\n", "", text, flags=re.S)


def _as_code(link: re.Match[str]) -> str:
    return link[1] if link[1].startswith("`") or " " in link[1] else f"`{link[1]}`"


def _as_mathml(writer: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    block = isinstance(node, nodes.math_block)
    writer.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register what the site adds to Sphinx."""
    app.connect("source-read", _for_the_site)
    app.add_html_math_renderer("mathml", (_as_mathml, None), (_as_mathml, None))
