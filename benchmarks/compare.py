"""This checkout beside another commit, in one run: ``python -m benchmarks.compare COMMIT``.

What belongs here: which figures are compared, the turns in which they are measured, the table. What does not: timing
functions (``kernel.py``), processes (``pipeline.py``), the published tool on its own (``throughput.py``).

The commit is checked out into a temporary folder and runs with this checkout's packages. Each figure is measured on the
same text for the one and the other in turn, several times, and the least counts: the machine may be shared. Seconds are
CPU seconds of all threads. The published tool is measured on a slice and scaled, as in ``throughput.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.pipeline import Pipeline, run_process
from benchmarks.pool import REPOSITORY, Corpus, PoolFolder, make_pool, require_corpus
from benchmarks.throughput import describe, measure_reference, new_table, show
from dsir_dagster.resources.engine import available_cores

#: Times that functions, whole processes and start-up are measured in each checkout.
FUNCTION_TURNS, PROCESS_TURNS, START_TURNS = 3, 2, 5
SLICE_MEGABYTES, REFERENCE_MEGABYTES, SMALL_MEGABYTES = 64, 6, 300


@dataclass(frozen=True)
class Row:
    """A figure of both checkouts.

    Attributes
    ----------
    what, unit : str
    before, after : float
    more_is_better : bool
    """

    what: str
    unit: str
    before: float
    after: float
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """How many times better this checkout is."""
        better = (self.after, self.before) if self.more_is_better else (self.before, self.after)
        return better[0] / better[1]


class Comparison:
    """Two checkouts and what was measured of them.

    Parameters
    ----------
    before : Path
        The other checkout.
    folder : Path
        For their homes.
    """

    def __init__(self, before: Path, folder: Path) -> None:
        self.trees = {"before": before, "after": REPOSITORY}
        self.folder = folder
        self.rows: list[Row] = []

    def in_turn(
        self, measure: Callable[[Path, Path], dict[str, float]], turns: int, most: bool = False
    ) -> dict[str, dict[str, float]]:
        """Call ``measure(tree, folder)`` for one tree and the other; keep the least, or the most, of each figure."""
        kept: dict[str, dict[str, float]] = {}
        best = max if most else min
        for _ in range(turns):
            for name, tree in self.trees.items():
                mine = kept.setdefault(name, {})
                with tempfile.TemporaryDirectory(dir=self.folder) as at:
                    for figure, value in measure(tree, Path(at)).items():
                        mine[figure] = best(mine.get(figure, value), value)
        return kept

    def add(
        self, what: str, unit: str, found: dict[str, dict[str, float]], figure: str, **more: bool
    ) -> None:
        """Add a row."""
        self.rows.append(Row(what, unit, found["before"][figure], found["after"][figure], **more))

    def functions(self, text: Path) -> None:
        """Add the rows of functions, on a file of JSON Lines."""
        script = str(REPOSITORY / "benchmarks" / "kernel.py")

        def measure(tree: Path, at: Path) -> dict[str, float]:
            output = run_process(script, text, log=at / "kernel.log", tree=tree).output
            return json.loads(output.splitlines()[-1])["ours"]

        found = self.in_turn(measure, FUNCTION_TURNS, most=True)
        for figure, what in (
            ("featurize_fast", "featurize, fast"),
            ("featurize_fast_quality", "featurize, fast, quality counted"),
            ("featurize_many_buckets", "featurize, fast, 2^20 buckets"),
            ("featurize_many_buckets_quality", "featurize, fast, 2^20 buckets, quality counted"),
            ("featurize_sha256", "featurize, sha256"),
            ("featurize_sha256_quality", "featurize, sha256, quality counted"),
        ):
            self.add(what, "MB/s", found, figure, more_is_better=True)

    def pipelines(self, corpus: Corpus, pool: PoolFolder, label: str, turns: int, more: bool) -> None:
        """Add the rows of a whole pipeline over a pool, and if asked those that follow on a pool that is counted."""
        gigabytes = pool.text_bytes / 1e9

        def measure(tree: Path, at: Path) -> dict[str, float]:
            pipeline = Pipeline(
                at / "run", f"{pool.shards[0].parent}/*", corpus.target, corpus.holdout, tree=tree
            )
            process = pipeline.run()
            stages = pipeline.stages(process)
            features = sum(
                path.stat().st_size for path in (pipeline.home / "features").rglob("*") if path.is_file()
            )
            figures = {
                "cpu": process.cpu,
                "per_gigabyte": process.cpu / gigabytes,
                "peak": process.peak,
                **{f"{asset} of a GB": stage["cpu"] / gigabytes for asset, stage in stages.items()},
                "on_disk": features / pool.text_bytes * 100,
            }
            if more:
                figures["status"] = min(pipeline.run("status").cpu for _ in range(START_TURNS))
                pipeline.add_selection("matched", method="match", output="none")
                figures["match"] = pipeline.stages(pipeline.run())["selections"]["cpu"]
            return figures

        found = self.in_turn(measure, turns)
        if more:
            for asset in ("raw_counts", "weights", "selections", "evaluations"):
                self.add(f"{asset}, of a GB of JSON Lines, zstd", "s", found, f"{asset} of a GB")
        self.add(f"whole process, {label}", "s", found, "cpu")
        self.add(f"whole process, {label}, of a GB", "s", found, "per_gigabyte")
        self.add(f"peak memory, {label}", "MB", found, "peak")
        if more:
            self.add("features on disk, of the text", "%", found, "on_disk")
            self.add("start-up: `dsir status`, everything fresh", "s", found, "status")
            self.add(f"`match`, {label}", "s", found, "match")

    def against_the_published_tool(self, corpus: Corpus, rate: float) -> None:
        """Add the rows of the corpus's files four times over, one core against one core of the published tool.

        Parameters
        ----------
        corpus : Corpus
        rate : float
            Of the published tool, MB/s a core.
        """
        copies = self.folder / "copies"
        copies.mkdir()
        for copy in range(4):
            for file in corpus.files:
                stem, _, suffix = file.name.partition(".")
                (copies / f"{stem}-copy{copy}.{suffix}").symlink_to(file)

        def measure(tree: Path, at: Path) -> dict[str, float]:
            pipeline = Pipeline(at / "run", f"{copies}/*", corpus.target, corpus.holdout, tree=tree)
            process = pipeline.run()
            megabytes = pipeline.counted()[1] / 1e6
            return {
                "ratio": megabytes / (process.wall * available_cores()) / rate,
                "ratio_cpu": megabytes / process.cpu / rate,
            }

        found = self.in_turn(measure, PROCESS_TURNS, most=True)
        what = f"{4 * len(corpus.files)} files, published tool's MB/s a core"
        self.add(what, "x", found, "ratio", more_is_better=True)
        self.add(f"{what}-second of CPU", "x", found, "ratio_cpu", more_is_better=True)


def main() -> int:
    """Compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="to compare with")
    parser.add_argument(
        "--megabytes", type=float, default=1100, help="text of the pool (default: %(default)s)"
    )
    parser.add_argument(
        "--large",
        type=float,
        default=0,
        help="text of another, larger pool, MB; it needs 1.5 times that on disk (default: none)",
    )
    options = parser.parse_args()
    corpus = require_corpus()
    console = Console(highlight=False, width=110 if not sys.stdout.isatty() else None)
    with tempfile.TemporaryDirectory(prefix="dsir-compare-") as name:
        folder = Path(name)
        before = folder / "before"
        git = ("git", "-C", str(REPOSITORY), "worktree")
        added = subprocess.run(
            [*git, "add", "--quiet", "--detach", before, options.commit], capture_output=True
        )
        if added.returncode:
            print(added.stderr.decode(), file=sys.stderr, end="")
            return 1
        try:
            comparison = compare(before, folder, corpus, options, console)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            subprocess.run([*git, "remove", "--force", before], check=True)
    table = new_table(f"This checkout beside {options.commit}", "before", "after", "times better")
    for row in comparison.rows:
        table.add_row(
            f"{row.what}, {row.unit}", f"{row.before:,.4g}", f"{row.after:,.4g}", f"{row.ratio:.2f}"
        )
    show(table, console)
    print(json.dumps([vars(row) | {"ratio": row.ratio} for row in comparison.rows]))
    return 0


def compare(
    before: Path, folder: Path, corpus: Corpus, options: argparse.Namespace, console: Console
) -> Comparison:
    """Measure everything."""
    load = os.getloadavg()[0]
    slices = {"kernel": int(SLICE_MEGABYTES * 1e6), "reference": int(REFERENCE_MEGABYTES * 1e6)}
    sizes = {"pool": options.megabytes, "small": min(SMALL_MEGABYTES, options.megabytes / 2)}
    if options.large:
        sizes["large"] = options.large
    pools = {
        name: make_pool(corpus, folder / name, int(size * 1e6), int(min(100, size / 8) * 1e6), slices)
        for name, size in sizes.items()
    }
    describe(corpus, pools["pool"], available_cores(), load, console)
    homes = folder / "homes"
    homes.mkdir()
    comparison = Comparison(before, homes)

    def once(tree: Path, at: Path) -> dict[str, float]:
        """Compile, so that no figure has that in it."""
        run = Pipeline(at / "run", str(pools["small"].slices[1]), corpus.target, corpus.holdout, tree=tree)
        run.add_selection("matched", method="match")
        run.run()
        return {}

    comparison.in_turn(once, 1)
    comparison.functions(pools["pool"].slices[0])
    label = f"{options.megabytes:,.0f} MB"
    comparison.pipelines(corpus, pools["pool"], label, PROCESS_TURNS, more=True)
    comparison.pipelines(corpus, pools["small"], f"{sizes['small']:,.0f} MB", PROCESS_TURNS, more=False)
    reference = measure_reference(corpus, pools["pool"], folder)
    comparison.against_the_published_tool(corpus, reference["per_core"])
    if options.large:
        comparison.pipelines(corpus, pools["large"], f"{options.large:,.0f} MB", 1, more=False)
    return comparison


if __name__ == "__main__":
    sys.exit(main())
