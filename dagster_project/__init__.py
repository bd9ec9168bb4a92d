"""The code location: definitions, partitions, jobs, settings and the command line.

What belongs here: how the graph is put together and driven. What does not: the method
(``dsir/``), an asset's own steps (``assets/``), files and databases (``resources/``).
"""
