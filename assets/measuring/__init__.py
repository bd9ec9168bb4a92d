"""What evaluations measure: picks to compare a selection with, numbers, models trained on picks.

What belongs here: the numbers and how Dagster shows them. What does not: the report (``assets/report/``).
"""
