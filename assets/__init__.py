"""The six assets of the graph, one module each: read inputs, call ``dsir``, write, report.

What belongs here: the assets, their order (``graph.py``), the loop over a run's partitions (``materialize.py``), and in
folders: the methods that rank documents, what they pick from, what evaluations measure, the report. What does not: the
method (``dsir/``), file formats and databases (``resources/``).
"""
