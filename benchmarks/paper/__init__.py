"""The paper's comparison of selection methods, in one command: ``python -m benchmarks.paper`` (``make paper``).

What belongs here: methods x targets x measures on a corpus, with tables and plots. What does not: the methods
and measures themselves (``dsir``), speed (``benchmarks/throughput.py``).

``demo_corpus`` builds a corpus from the demo's packages, ``fetch`` a larger one; ``corpus`` reads pool and targets,
``methods`` picks, ``measures`` measures, ``cells`` stores results, ``summary`` and ``plots`` show them.
"""
