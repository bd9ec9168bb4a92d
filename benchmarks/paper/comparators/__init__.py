"""Methods of others that `match` is compared with and that are no methods of this project.

What belongs here: one module a method, from the pool's counted features (or texts) to the keys that rank its documents,
with its source and what differs from it. What does not: picking by keys (``dsir.selection``), measuring.

All but the cheapest work depends on the pool alone, so every module has a function for that, called once, and one that
is called for every target.
"""
