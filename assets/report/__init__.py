"""The report of a selection: one self-contained HTML file beside the rows of ``evaluations``.

What belongs here: writing it. What does not: what is measured (``assets/evaluations.py``).
"""

from dsir_dagster.assets.materialize import Result
from dsir_dagster.assets.measuring.measures import Metrics
from dsir_dagster.assets.report.documents import look_at_pool, read_documents
from dsir_dagster.assets.report.page import Page
from dsir_dagster.assets.report.rendering import template
from dsir_dagster.assets.report.verdict import Verdict
from dsir_dagster.resources.compute import Tell, within
from dsir_dagster.resources.plan import Output
from dsir_dagster.resources.settings import KeyRule, Selection
from dsir_dagster.resources.snapshot import Snapshot


def add_report(
    snapshot: Snapshot,
    selection: Selection,
    source: Output,
    output: Output,
    result: Result,
    metrics: Metrics,
    verdict: Verdict,
    tell: Tell,
) -> None:
    """Write the report of a selection, and add it to the result of its evaluation.

    Parameters
    ----------
    snapshot, selection
    source : Output
        The selection.
    output : Output
        Its evaluation.
    result : Result
        Of the evaluation; the file, its path and the plots of log weights and lengths are added.
    metrics : Metrics
        What was measured.
    verdict : Verdict
        What that means.
    tell : callable
    """
    picks = snapshot.store.read_table(snapshot.store.picks(selection.name, source.fingerprint), source.origin)
    name = snapshot.store.name("evaluations", selection.name, fingerprint=output.fingerprint)
    look = look_at_pool(snapshot, selection, picks, KeyRule.of(source.made.metadata), within(tell, "report"))
    read_documents(snapshot, [*look.selected, *look.next.documents, *look.typical.documents])
    tell(part="report: the page")
    page = Page(snapshot, selection, source, output, result, metrics, verdict, picks, look)
    text = template("report.html").render(page.values())
    result.tables = {**page.plots_of_pool, **result.tables}
    with snapshot.store.replacing(name) as temporary:
        # What UTF-8 cannot encode, as in a file name that is not UTF-8, is written as an escape.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    result.files |= snapshot.store.written(name)
    result.metadata["report"] = name
