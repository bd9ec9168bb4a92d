"""Compiling code before it is needed.

What belongs here: which functions a run needs, loading Numba's own for them, and announcing a compilation. What does
not: the functions.
"""

import importlib
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from dsir.evaluation import masked_totals
from dsir.features import Features, FeatureSpec, featurize
from dsir.featurizer.checksum import checksum
from dsir.featurizer.kernel import count_documents
from dsir.importance import log_weights
from dsir.ngrams import Vocabulary, add_totals, hash_ngrams
from dsir.noise import gumbel_noise


def warm_up(spec: FeatureSpec, announce: Callable[[str], None], measured: FeatureSpec | None = None) -> float:
    """Compile what features of `spec`, their totals, log weights and noise need, or load it from Numba's cache on disk.

    Parameters
    ----------
    spec : FeatureSpec
    announce : callable
        Takes a message. Called before compiling if the cache is empty; if it holds another kernel or an older version,
        after three seconds; not called if there is nothing to compile.
    measured : FeatureSpec, optional
        What picks are measured by; compile what that needs too.

    Returns
    -------
    float
        Seconds it took.
    """
    begin = time.perf_counter()
    message = f"compiling (first use only, about {20 if measured is None else 30} s)"
    late = threading.Timer(3.0, announce, [message])  # a busy machine takes a second or two to load it
    if any(Path(count_documents.stats.cache_path).glob("kernel.*.nbi")):
        late.start()
    else:
        announce(message)
    try:
        features = featurize(pa.array(["warm up"]), spec)
        totals = features.totals(spec.buckets)
        masked_totals(features, np.ones((1, 1), bool), totals[None, :])
        stored = features.to_arrow()
        for n_targets in (1, 3):  # one after the other, and several at once
            log_weights(stored, np.zeros((n_targets, spec.buckets)))
        Features.from_arrow(stored)
        gumbel_noise(features.content_hash, 0, "")
        checksum(np.zeros(1, np.uint64))
        if measured is not None:
            featurize(pa.array(["warm up"]), measured)
            ngrams = hash_ngrams(pa.array(["warm up"]), measured)
            vocabulary = Vocabulary(ngrams.hashes)
            numbers, totals = vocabulary.numbers(ngrams.hashes), np.zeros((1, len(vocabulary)), np.int64)
            add_totals(ngrams.offsets, numbers, np.ones((1, 1), np.uint16), totals)
    finally:
        late.cancel()
    return time.perf_counter() - begin


def load_numba() -> None:
    """Load Numba's functions of arrays as they are without SciPy's linear algebra, which takes 0.2 s and 16 MiB.

    For a process of which it is known that it compiles nothing that multiplies matrices, before it has threads.
    """
    if "scipy.linalg" in sys.modules:
        return
    sys.modules["scipy.linalg"] = None  # type: ignore[assignment]  # to import it is then an ImportError
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        del sys.modules["scipy.linalg"]


@cache
def ready(spec: FeatureSpec) -> None:
    """Compile what `spec` needs, once in a process; a line on standard error announces it if it takes longer.

    For notebooks and scripts; the pipeline announces by its own means.
    """
    warm_up(spec, _say_once)


@cache
def _say_once(message: str) -> None:
    print(f"dsir: {message}", file=sys.stderr, flush=True)
