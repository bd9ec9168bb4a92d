"""The code location: definitions, partitions, jobs, settings and the command line.

What belongs here: assembling the graph and driving it. What does not: the method (``dsir/``), the steps of assets
(``assets/``), files and databases (``resources/``).
"""
