"""The report of a selection: one self-contained HTML file beside the rows of ``evaluations``.

What belongs here: writing it. What does not: what is measured (``assets/evaluations.py``).
"""

from dsir_dagster.assets.report.page import Page
from dsir_dagster.assets.report.rendering import template


def add_report(page: Page) -> None:
    """Write the report of a selection; add the file, its path and the plots of the pool to its evaluation's result."""
    snapshot, result = page.snapshot, page.result
    name = snapshot.store.name("evaluations", page.selection.name, fingerprint=page.output.fingerprint)
    text = template("report.html").render(page.values())
    result.tables = {**page.plots_of_pool, **result.tables}
    with snapshot.store.replacing(name) as temporary:
        # What UTF-8 cannot encode, as in a file name that is not UTF-8, is written as an escape.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    result.files |= snapshot.store.written(name)
    result.metadata["report"] = name
