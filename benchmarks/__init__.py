"""Figures of this project: speed and memory beside the reference, what operating it costs, the paper's comparison.

What belongs here: programs that print figures, each one command. What does not: tests (``tests/``), and
anything that the pipeline imports.
"""
