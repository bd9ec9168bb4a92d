"""The outside world: configuration, corpus files, the output store, the DuckDB catalog.

What belongs here: everything that touches a file, a database or a thread pool. What does not: the
method (``dsir/``) and the graph (``assets/``, ``dagster_project/``).
"""
