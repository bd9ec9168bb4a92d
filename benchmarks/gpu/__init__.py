"""Language models on one device, trained on what each method selects: ``python -m benchmarks.gpu``.

What belongs here: the planned experiment of docs/paper.md, from text to token arrays (``prepare``), models (``train``)
and their comparison (``report``). What does not: the methods and the corpus (``benchmarks.paper``).

``design`` has the sizes and the rule that scales them to the time there is, ``tokens`` the tokenizer; ``prepared``
reads what was prepared. Training needs ``design``, ``prepared``, ``train`` and ``benchmarks.paper.cells``, PyTorch and
NumPy: no text, no other package.
"""
