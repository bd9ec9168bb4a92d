"""The reference implementation from end to end, in its own process; prints JSON.

What belongs here: calling ``data-selection`` as documented, and timing its parts. What does not: choosing its input.

    python -m benchmarks.reference POOL.jsonl TARGET.jsonl FOLDER
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from data_selection import HashedNgramDSIR

MIN_TOKENS = 100
FRACTION = 0.1


class TimedDSIR(HashedNgramDSIR):
    """The unchanged reference, with a timer around its two fits."""

    def _fit_bow(self, paths: list[str], *args: object, **kwargs: object) -> np.ndarray:
        begin = time.perf_counter()
        counts = super()._fit_bow(paths, *args, **kwargs)
        part = "fit_target" if paths == self.target_datasets else "fit_raw"
        self.seconds[part] = time.perf_counter() - begin
        return counts


def run(pool: Path, target: Path, folder: Path) -> dict[str, float]:
    """Fit on the whole pool, weigh it, resample a tenth of its eligible documents.

    Parameters
    ----------
    pool, target : Path
        Plain JSON Lines, the only format that the reference reads.
    folder : Path
        An empty folder for its cache and its result.

    Returns
    -------
    dict
        Seconds of each part, ``documents``, ``eligible``, ``selected``, ``megabytes`` of text.
    """
    dsir = TimedDSIR(
        [str(pool)], [str(target)], str(folder / "cache"), num_proc=1, min_example_length=MIN_TOKENS
    )
    dsir.seconds = {}
    begin = time.perf_counter()
    dsir.fit_importance_estimator(num_tokens_to_fit="all")
    fitted = time.perf_counter()
    dsir.compute_importance_weights()
    weighed = time.perf_counter()
    # It picks among all documents of at least MIN_TOKENS, and fails unless there are more than it picks.
    lengths = np.load(dsir.perexample_metadata_dir / "0.npy")
    eligible = int((lengths >= MIN_TOKENS).sum())
    selected = int(eligible * FRACTION)
    before = time.perf_counter()
    dsir.resample(out_dir=str(folder / "out"), num_to_sample=selected, cache_dir=str(folder / "resampled"))
    ended = time.perf_counter()
    with open(pool, encoding="utf-8") as lines:
        n_bytes = sum(len(json.loads(line)["text"].encode()) for line in lines)
    return {
        **dsir.seconds,
        "weights": weighed - fitted,
        "resample": ended - before,
        "total": weighed - begin + ended - before,
        "documents": len(lengths),
        "eligible": eligible,
        "selected": selected,
        "megabytes": n_bytes / 1e6,
        "version": version("data-selection"),
    }


def main() -> None:
    """Run it and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("pool", "target", "folder"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    print(json.dumps(run(options.pool, options.target, options.folder)))


if __name__ == "__main__":
    main()
