"""Speed of the featurizer and of the dot product alone, on one core; prints JSON.

What belongs here: timing functions on text in memory. What does not: files, processes, Dagster.

    python -m benchmarks.kernel TEXT.jsonl [REFERENCE_TEXT.jsonl]

With one file only ``featurize`` is timed, and nothing is imported but the `dsir` that is found.

Seconds are CPU seconds of the one working thread, so other load on the machine does not count: the median of three
passes over the text, each in a new thread, so the memo of SHA-256 starts empty.
"""

from __future__ import annotations

import inspect
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa

from dsir.features import FeatureSpec, featurize
from dsir.importance import log_ratios, log_weights

BATCH_BYTES = 4_000_000
PASSES = 3
#: Keyword by which words are counted for the quality filter; commits before it had always counted them.
QUALITY = {"quality": True} if "quality" in inspect.signature(featurize).parameters else {}
#: What is featurized.
SPECS = {
    "fast": FeatureSpec(),
    "many_buckets": FeatureSpec(buckets=2**20),
    "sha256": FeatureSpec(hash="sha256"),
}
MANY_TARGETS = 10


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
    """Return MB/s of ``featurize`` for each of `SPECS`, of that with words counted, and of it and ``log_weights``."""
    batches = batches_of(texts)
    n_bytes = sum(len(text.encode()) for text in texts)
    figures: dict[str, float] = {"megabytes": n_bytes / 1e6, "documents": len(texts)}
    for kind, spec in SPECS.items():
        features = [featurize(batch, spec) for batch in batches]
        totals = np.zeros(spec.buckets, np.int64)
        for each in features:
            each.add_totals(totals)
        ratios = log_ratios(features[0].totals(spec.buckets), totals)[None]
        log_weights(features[0], ratios)

        def count(spec: FeatureSpec = spec, **quality: bool) -> None:
            for batch in batches:
                featurize(batch, spec, **quality)

        def both(spec: FeatureSpec = spec, ratios: np.ndarray = ratios) -> None:
            for batch in batches:
                log_weights(featurize(batch, spec), ratios)

        figures[f"featurize_{kind}"] = rate(count, n_bytes)
        figures[f"featurize_{kind}_quality"] = rate(partial(count, **QUALITY), n_bytes)
        figures[f"both_{kind}"] = rate(both, n_bytes)
    return figures


def measure_weighing(texts: list[str]) -> dict[str, float]:
    """Return MB/s of ``log_weights`` on features as they are stored, of one target and of many."""
    features = [featurize(batch, FeatureSpec()) for batch in batches_of(texts)]
    ratios = log_ratios(features[0].totals(10_000), sum(each.totals(10_000) for each in features))[None]
    stored, n_bytes = [each.to_arrow() for each in features], sum(len(text.encode()) for text in texts)
    figures = {}
    for name, table in (
        ("log_weights", ratios),
        ("log_weights_of_many", np.repeat(ratios, MANY_TARGETS, 0)),
    ):

        def weigh(table: np.ndarray = table) -> None:
            for each in stored:
                log_weights(each, table)

        weigh()  # compile before timing
        figures[name] = rate(weigh, n_bytes)
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
    few = texts[:: max(1, len(texts) // 1000)]  # a dense row of 2^20 counts for each document

    def count_many() -> None:
        for text in few:
            get_ngram_counts(text, n=2, num_buckets=SPECS["many_buckets"].buckets)

    figures["many_buckets"] = rate(count_many, sum(len(text.encode()) for text in few), passes=1)
    return figures


def texts_of(path: str) -> list[str]:
    """Return the texts of a file of JSON Lines."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def main() -> None:
    """Measure, and print one line of JSON."""
    texts = texts_of(sys.argv[1])
    figures = {"ours": measure_ours(texts)}
    if len(sys.argv) > 2:
        figures["ours"] |= measure_weighing(texts)
        figures["reference"] = measure_reference(texts_of(sys.argv[2]))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
