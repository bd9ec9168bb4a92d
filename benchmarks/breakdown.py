"""Where the CPU time of a run goes: ``python -m benchmarks.breakdown``.

What belongs here: the parts that are told apart, how their time is taken, the two tables. What does not: comparing
commits (``compare.py``), the published tool (``throughput.py``).

The first table is a whole ``dsir run`` by stage. The second is the counting of the same pool, in this process and one
thread for blocks: every function of Python that is called charges the CPU time since the last call or return to the
part that was at work, which is that of the innermost function named in `PARTS`. Calls are of blocks of documents, so
taking the time takes little of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

from rich.console import Console

from benchmarks.pipeline import Pipeline
from benchmarks.pool import Corpus, PoolFolder, make_pool, require_corpus
from benchmarks.throughput import describe, new_table, show
from dsir.compilation import warm_up
from dsir_dagster.assets.raw_counts import ShardToCount, count_shard
from dsir_dagster.resources.engine import available_cores
from dsir_dagster.resources.workspace import Workspace

ELSE = "all else"
#: Part, file, and the functions of the file that it is; None for all that no other part names.
PARTS: list[tuple[str, str, tuple[str, ...] | None]] = [
    ("files read, decompressed, cut into lines", "resources/corpus/opening.py", None),
    ("files read, decompressed, cut into lines", "resources/corpus/lines.py", None),
    ("lines of JSON scanned", "resources/corpus/scanner.py", None),
    ("records parsed and checked", "resources/corpus/fields.py", None),
    ("n-grams counted", "dsir/features.py", ("featurize", "hash_strings")),
    ("features packed", "dsir/features.py", ("to_arrow",)),
    ("features packed", "dsir/featurizer/packed.py", None),
    ("totals", "dsir/features.py", ("add_totals",)),
    ("features written", "resources/sealed.py", ("write_batch",)),
    ("documents' table made", "assets/raw_counts.py", ("documents_table", "add")),
    ("documents' table written", "assets/raw_counts.py", ("write",)),
    ("files' checksums", "resources/stamps.py", None),
]


class Profile:
    """CPU seconds of threads by part; of this one and of those that start from now on."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._known: dict[CodeType, str | None] = {}
        self._of_thread = threading.local()
        threading.setprofile(self._event)
        sys.setprofile(self._event)

    def end(self) -> None:
        """Take no more time."""
        sys.setprofile(None)
        threading.setprofile(None)

    def _event(self, frame: FrameType, event: str, _: object) -> None:
        if event not in ("call", "return"):
            return
        now, mine = time.thread_time(), self._of_thread
        if not hasattr(mine, "stack"):
            mine.stack, mine.since = [ELSE], now
        self.seconds[mine.stack[-1]] += now - mine.since
        if event == "call":
            code = frame.f_code
            if code not in self._known:
                self._known[code] = part_of(code)
            mine.stack.append(self._known[code] or mine.stack[-1])
        elif len(mine.stack) > 1:
            mine.stack.pop()
        mine.since = time.thread_time()


def part_of(code: CodeType) -> str | None:
    """Return the part that a function is; None if it is part of its caller's."""
    of_file = [
        (part, functions) for part, file, functions in PARTS if Path(code.co_filename).match(f"*/{file}")
    ]
    named = [part for part, functions in of_file if functions and code.co_name in functions]
    return next(iter(named or [part for part, functions in of_file if functions is None]), None)


def counting(corpus: Corpus, pool: PoolFolder, folder: Path) -> Counter[str]:
    """Count a pool; return the CPU seconds of every part."""
    pipeline = Pipeline(
        folder / "counting", f"{pool.shards[0].parent}/*", corpus.target, corpus.holdout, compute={"cores": 1}
    )
    workspace = Workspace(pipeline.folder / "dsir.yaml", pipeline.home)
    warm_up(workspace.settings.features.spec(), lambda message: None)
    plan = workspace.plan()
    items = [ShardToCount(file, plan.raw_counts(shard).origin, False) for shard, file in plan.shards.items()]
    workspace = Workspace(pipeline.folder / "dsir.yaml", pipeline.home)  # with threads that start from now on
    profile = Profile()
    for item in items:
        count_shard(workspace.worker, item, lambda **_: None)
    profile.end()
    return profile.seconds


def main() -> int:
    """Print both tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--megabytes", type=float, default=1100, help="text of the pool (default: %(default)s)"
    )
    megabytes = parser.parse_args().megabytes
    corpus, load = require_corpus(), os.getloadavg()[0]
    console = Console(highlight=False, width=110 if not sys.stdout.isatty() else None)
    with tempfile.TemporaryDirectory(prefix="dsir-breakdown-") as name:
        folder = Path(name)
        pool = make_pool(
            corpus, folder, int(megabytes * 1e6), int(megabytes / 11 * 1e6), {"slice": 1_000_000}
        )
        gigabytes = pool.text_bytes / 1e9
        describe(corpus, pool, available_cores(), load, console)
        Pipeline(folder / "warm", str(pool.slices[0]), corpus.target, corpus.holdout).run()
        whole = Pipeline(folder / "whole", f"{pool.shards[0].parent}/*", corpus.target, corpus.holdout)
        process = whole.run()
        stages = {asset: times["cpu"] for asset, times in whole.stages(process).items()}
        stages["start, Dagster, between the assets, end"] = process.cpu - sum(stages.values())
        table = new_table("dsir run, CPU seconds", "seconds", "of a GB")
        for stage, seconds in {**stages, "all": process.cpu}.items():
            table.add_row(stage, f"{seconds:.2f}", f"{seconds / gigabytes:.2f}")
        show(table, console)
        parts = counting(corpus, pool, folder)
        table = new_table("Counting, one thread, CPU seconds", "seconds", "of a GB")
        order = [*dict.fromkeys(part for part, *_ in PARTS), ELSE]
        for part in order:
            table.add_row(part, f"{parts[part]:.2f}", f"{parts[part] / gigabytes:.2f}")
        table.add_row("all", f"{parts.total():.2f}", f"{parts.total() / gigabytes:.2f}")
        show(table, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
