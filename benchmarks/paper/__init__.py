"""The paper's comparison of selection methods, in one command: ``python -m benchmarks.paper`` (``make paper``).

What belongs here: methods x targets x measures on ../shared/data, the tables and plots of it. What does not: the
methods and the measures themselves (``dsir``), speed (``benchmarks/throughput.py``).

``corpus`` reads pool and targets, ``methods`` picks, ``measures`` measures, ``cells`` remembers what was measured,
``summary`` and ``plots`` show it.
"""
