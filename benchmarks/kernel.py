"""Speed of the featurizer and of the dot product alone, on one core; prints JSON.

What belongs here: timing functions on text in memory. What does not: files, processes, Dagster.

    python -m benchmarks.kernel TEXT.jsonl REFERENCE_TEXT.jsonl

Seconds are CPU seconds of the one working thread, so other load on the machine does not count: the median of three
passes over the text, each in a new thread, so the memo of SHA-256 starts empty.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.pool import read_records
from dsir.features import Features, FeatureSpec, featurize
from dsir.importance import log_ratios, log_weights

BATCH_BYTES = 4_000_000
PASSES = 3


def thread_seconds(function: Callable[[], object]) -> float:
    """Return the CPU seconds of a call in its own thread."""
    seconds = []

    def timed() -> None:
        begin = time.thread_time()
        function()
        seconds.append(time.thread_time() - begin)

    thread = threading.Thread(target=timed)
    thread.start()
    thread.join()
    if not seconds:
        raise RuntimeError("the measured function failed; its error is above")
    return seconds[0]


def rate(function: Callable[[], object], n_bytes: int, passes: int = PASSES) -> float:
    """Return the median MB/s of several calls."""
    return n_bytes / 1e6 / statistics.median(thread_seconds(function) for _ in range(passes))


def batches_of(texts: list[str]) -> list[pa.Array]:
    """Cut texts into Arrow arrays of a few megabytes."""
    batches, batch, size = [], [], 0
    for text in texts:
        batch.append(text)
        size += len(text.encode())
        if size >= BATCH_BYTES:
            batches.append(pa.array(batch, pa.large_string()))
            batch, size = [], 0
    return [*batches, pa.array(batch, pa.large_string())] if batch else batches


def measure_ours(texts: list[str]) -> dict[str, float]:
    """Return MB/s of ``featurize`` under both hashes, of ``log_weights`` on cached features, and of both in turn."""
    batches = batches_of(texts)
    n_bytes = sum(len(text.encode()) for text in texts)
    figures: dict[str, float] = {"megabytes": n_bytes / 1e6, "documents": len(texts)}
    features = [featurize(batch, FeatureSpec()) for batch in batches]
    totals = np.zeros(10_000, np.int64)
    for each in features:
        each.add_totals(totals)
    ratios = log_ratios(features[0].totals(10_000), totals)[None]
    cached = [each.to_arrow() for each in features]
    log_weights(features[0], ratios)  # compile before timing

    def dot() -> None:
        for each in cached:
            log_weights(Features.from_arrow(each), ratios)

    figures["log_weights"] = rate(dot, n_bytes)
    for kind in ("fast", "sha256"):
        spec = FeatureSpec(hash=kind)
        featurize(batches[0][:1], spec)

        def count(spec: FeatureSpec = spec) -> None:
            for batch in batches:
                featurize(batch, spec)

        def both(spec: FeatureSpec = spec) -> None:
            for batch in batches:
                log_weights(featurize(batch, spec), ratios)

        figures[f"featurize_{kind}"] = rate(count, n_bytes)
        figures[f"both_{kind}"] = rate(both, n_bytes)
    return figures


def measure_reference(texts: list[str]) -> dict[str, float]:
    """Return MB/s of the reference's ``get_ngram_counts``, and of its dot product of dense counts."""
    from data_selection.hashed_ngram_dsir import get_ngram_counts

    log_diff = np.log(np.random.default_rng(0).dirichlet(np.ones(10_000)) + 1e-8)
    n_bytes = sum(len(text.encode()) for text in texts)
    dense = get_ngram_counts(texts[0], n=2, num_buckets=10_000)

    def dot() -> None:
        for _ in texts:
            np.dot(log_diff, dense)

    def count() -> None:
        for text in texts:
            get_ngram_counts(text, n=2, num_buckets=10_000)

    figures = {"megabytes": n_bytes / 1e6, "documents": len(texts)}
    figures["featurize"] = rate(count, n_bytes, passes=1)
    figures["dot"] = rate(dot, n_bytes, passes=1)
    figures["both"] = 1 / (1 / figures["featurize"] + 1 / figures["dot"])
    return figures


def main() -> None:
    """Measure both and print one line of JSON."""
    ours, reference = ([record["text"] for record in read_records(Path(name))] for name in sys.argv[1:3])
    print(json.dumps({"ours": measure_ours(ours), "reference": measure_reference(reference)}))


if __name__ == "__main__":
    main()
