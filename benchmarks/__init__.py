"""Figures of this project: speed and memory beside the reference, the cost of operating it, the paper's comparison.

What belongs here: programs that print figures, with one command each. What does not: tests (``tests/``), and anything
that the pipeline imports.
"""
