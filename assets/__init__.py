"""The six assets of the graph, one module each: read inputs, call ``dsir``, write, report.

What belongs here: which step follows which, and what a person is shown of it. What does not: the
method (``dsir/``), file formats and databases (``resources/``).
"""
