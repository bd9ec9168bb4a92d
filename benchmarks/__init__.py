"""Speed and memory against the reference implementation, on text of the machine that it runs on.

What belongs here: programs that print figures, each one command. What does not: tests (``tests/``), and
anything that the pipeline imports.
"""
