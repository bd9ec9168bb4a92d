"""Throughput and memory of this project and of ``data-selection`` 1.0.3, in one run: ``make bench``.

What belongs here: what is measured, in which order, and how it is shown. What does not: making the text
(``benchmarks/pool.py``), timing single functions (``benchmarks/kernel.py``), ``dsir run``
(``benchmarks/pipeline.py``) and the reference (``benchmarks/reference.py``).

How to read the output:

- *MB* is a million bytes of UTF-8 text, without the JSON around it. *MB/s a core* is text per second and core: one
  thread for a function, all cores that the process may use for ``dsir run``, one core for the reference, which runs
  with ``num_proc=1``.
- *Functions* are timed on text in memory: from text to sorted sparse counts and a hash of the content, and from cached
  counts to a log weight. The reference's counterparts are ``get_ngram_counts`` and ``np.dot``.
- *End to end* is a whole process from start to end: Python's imports, Dagster, reading, counting, weighing, picking,
  writing the picked records, and the evaluation, which has no counterpart in the reference. Compiled code is in Numba's
  cache (a run on a small pool comes first), files are in the page cache.
- The reference is measured on a slice and scaled: its time per document by the size of the pool, its start and its fit
  of the target once. Its memory is that of the slice. Twice the cores are assumed to double its speed.
- *A new target on a counted pool* is another ``dsir run`` after adding a target and its selection to the configuration:
  from the start of the process to the end of the selection, without records (``output: none``) and, for yet another
  target, with them; and the part of it spent in assets. It is compared with the seconds that counting the pool took.
  Much of it is the start of Python and Dagster, whatever the size of the pool, so everything is also measured on a
  quarter of the pool, and the difference gives the time for an additional 1,000 MB. The last column is a pool whose
  features have the reference's hash, which takes longer to count and as long to weigh.
- *Peak* is the largest resident memory of one process, including pages of mapped files.

The last line has all figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.pipeline import Pipeline, Process, run_process
from benchmarks.pool import Corpus, PoolFolder, make_pool, require_corpus
from dsir_dagster.resources.engine import available_cores

KERNEL_MEGABYTES = 64
QUICK_MEGABYTES = 100
#: Runs from a new target to its picks; the fastest counts, since most of it is start-up, which varies.
ATTEMPTS = 3


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--megabytes", type=float, default=1100, help="text of the pool (default: %(default)s)"
    )
    parser.add_argument(
        "--reference-megabytes",
        type=float,
        default=6,
        help="text of the reference's slice (default: %(default)s)",
    )
    parser.add_argument(
        "--shard-megabytes", type=float, default=100, help="text of a shard, about (default: %(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"a pool of {QUICK_MEGABYTES} MB, to see that it works"
    )
    options = parser.parse_args()
    if options.quick:
        options.megabytes = QUICK_MEGABYTES
    corpus = require_corpus()
    console = Console(highlight=False, width=110 if not sys.stdout.isatty() else None)
    with tempfile.TemporaryDirectory(prefix="dsir-bench-") as folder:
        try:
            figures = measure(corpus, Path(folder), options, console)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    print(json.dumps(figures))
    return 0


def measure(corpus: Corpus, folder: Path, options: argparse.Namespace, console: Console) -> dict[str, object]:
    """Measure everything, print it, return the figures."""
    cores, load = available_cores(), os.getloadavg()[0]
    megabytes = {
        "kernel": min(KERNEL_MEGABYTES, options.megabytes),
        "reference": options.reference_megabytes,
    }
    slices = {name: int(size * 1e6) for name, size in megabytes.items()}
    # At least eight shards, so that a quarter of them is a smaller pool.
    shard_megabytes = min(options.shard_megabytes, options.megabytes / 8)
    pool = make_pool(corpus, folder, int(options.megabytes * 1e6), int(shard_megabytes * 1e6), slices)
    describe(corpus, pool, cores, load, console)
    figures: dict[str, object] = {
        "corpus": corpus.name,
        "megabytes": pool.text_bytes / 1e6,
        "documents": pool.documents,
        "shards": len(pool.shards),
        "cores": cores,
        "load_before": load,
    }
    figures["functions"] = measure_functions(pool, folder, console)
    figures["reference"] = reference = measure_reference(corpus, pool, folder)
    figures["dsir"] = ours = measure_ours(corpus, pool, folder, cores)
    figures["ratio_per_core"] = ours["per_core"] / reference["per_core"]
    show_end_to_end(figures, console)
    return figures


def measure_functions(pool: PoolFolder, folder: Path, console: Console) -> dict[str, dict[str, float]]:
    """Time the kernel and the reference's functions; print the table."""
    process = run_process("benchmarks.kernel", *pool.slices, log=folder / "kernel.log")
    figures = json.loads(process.output.splitlines()[-1])
    ours, reference = figures["ours"], figures["reference"]
    reference["dot of ten"] = reference["dot"] / 10
    figures["ratios"] = {}
    table = new_table("Functions, MB/s of one thread", "reference", "here", "ratio")
    rows = [
        ("counted, sorted, and weighed; fast", "both", "both_fast"),
        ("counted, sorted, and weighed; sha256, bit-identical", "both", "both_sha256"),
        ("counted only; fast", "featurize", "featurize_fast"),
        ("counted only; fast, quality counted", "featurize", "featurize_fast_quality"),
        ("counted only; sha256", "featurize", "featurize_sha256"),
        ("counted only; fast, 2^20 buckets", "many_buckets", "featurize_many_buckets"),
        ("weighed only, from stored features", "dot", "log_weights"),
        ("weighed only, under ten targets", "dot of ten", "log_weights_of_many"),
    ]
    for label, theirs, name in rows:
        ratio = figures["ratios"][name] = ours[name] / reference[theirs]
        table.add_row(label, f"{reference[theirs]:,.2f}", f"{ours[name]:,.0f}", f"{ratio:,.0f} x")
    table.add_row("measured on, MB", f"{reference['megabytes']:,.1f}", f"{ours['megabytes']:,.0f}", "")
    show(table, console)
    return figures


def measure_reference(corpus: Corpus, pool: PoolFolder, folder: Path) -> dict[str, float]:
    """Time the reference end to end on its slice, and scale it to the pool."""
    target = folder / "target.jsonl"
    with pa.input_stream(str(corpus.target), compression="detect") as packed, open(target, "wb") as plain:
        shutil.copyfileobj(packed, plain)
    work = folder / "reference-run"
    work.mkdir()
    process = run_process("benchmarks.reference", pool.slices[1], target, work, log=folder / "reference.log")
    figures = json.loads(process.output.splitlines()[-1])
    scale = pool.text_bytes / 1e6 / figures["megabytes"]
    once = figures["fit_target"] + max(process.wall - figures["total"], 0.0)
    scaled = (figures["total"] - figures["fit_target"]) * scale + once
    return {
        **figures,
        "wall": process.wall,
        "cpu": process.cpu,
        "peak_mb": process.peak,
        "wall_scaled": scaled,
        "per_core": pool.text_bytes / 1e6 / scaled,
    }


def measure_ours(corpus: Corpus, pool: PoolFolder, folder: Path, cores: int) -> dict[str, object]:
    """Time ``dsir run`` on the pool: fresh, again, with another shard, with new targets; then on a quarter of it.

    Finally, with new targets on features of the published tool's hash.
    """
    slice_ = Pipeline(folder / "warm", str(pool.slices[1]), corpus.target, corpus.holdout)
    warm_up = slice_.run()
    shards = pool.shards[0].parent
    whole = Pipeline(folder / "whole", f"{shards}/*", corpus.target, corpus.holdout)
    fresh = whole.run()
    documents, n_bytes = whole.counted()
    if (documents, n_bytes) != (pool.documents, pool.text_bytes):
        raise RuntimeError(
            f"dsir read {documents} documents, {n_bytes} bytes; the pool has {pool.documents}, {pool.text_bytes}"
        )
    [selected] = [
        row.metadata for row in whole.latest() if row.partition == "tenth" and row.asset == "selections"
    ]
    stages = whole.stages(fresh)
    on_disk = sum(path.stat().st_size for path in (whole.home / "features").iterdir())
    again = whole.run()
    shutil.copy(pool.held_back, shards)
    added = whole.run()
    counting = stages["raw_counts"]["wall"] + whole.stages(added)["raw_counts"]["wall"]
    _, grown_bytes = whole.counted()
    one_target_more, new_target = measure_new_target(whole, corpus, counting)

    quarter = folder / "quarter-pool"
    quarter.mkdir()
    for shard in pool.shards[::4]:
        os.link(shard, quarter / shard.name)
    part = Pipeline(folder / "quarter", f"{quarter}/*", corpus.target, corpus.holdout)
    small = part.run()
    _, small_bytes = part.counted()
    _, on_quarter = measure_new_target(part, corpus, part.stages(small)["raw_counts"]["wall"])

    published = Pipeline(
        folder / "sha256", f"{shards}/*", corpus.target, corpus.holdout, features={"hash": "sha256"}
    )
    counting = published.stages(published.run())["raw_counts"]["wall"]
    _, with_sha256 = measure_new_target(published, corpus, counting)
    return {
        "wall": fresh.wall,
        "cpu": fresh.cpu,
        "per_core": n_bytes / 1e6 / (fresh.wall * cores),
        "per_cpu_second": n_bytes / 1e6 / fresh.cpu,
        "peak_mb": fresh.peak,
        "until_selections": stages["selections"]["ended"],
        "stages": {name: stage["wall"] for name, stage in stages.items()},
        "selected": selected["documents"],
        "feature_bytes_per_text_byte": on_disk / n_bytes,
        "nothing_due_wall": again.wall,
        "one_target_more_wall": one_target_more,
        "new_target": {
            "megabytes": grown_bytes / 1e6,
            "whole": new_target,
            "quarter": on_quarter,
            "sha256": with_sha256,
            "per_1000_mb": {
                name: 1e9 * (seconds - on_quarter[name]) / (grown_bytes - small_bytes)
                for name, seconds in new_target.items()
            },
        },
        "one_shard_more_wall": added.wall,
        "quarter": summary(small, small_bytes, cores),
        "warm_up": warm_up.wall,
    }


def measure_new_target(pipeline: Pipeline, corpus: Corpus, counting: float) -> tuple[float, dict[str, float]]:
    """Add targets with a selection each to a pipeline that ran, and run it again, without records and with them.

    Parameters
    ----------
    pipeline, corpus
    counting : float
        Seconds for counting its pool.

    Returns
    -------
    float
        Seconds of the whole process, with records.
    dict
        Seconds: ``counting`` the pool; ``to_picks`` and ``to_records``, from the start of the
        process to the end of the selection; ``to_picks_assets`` and ``to_records_assets``, the part of it in the assets
        from ``target_counts`` to ``selections``. For picks, the least of several runs, each with its own target.
    """
    seconds = {"counting": counting}
    for name, output, attempts in (("to_picks", "none", ATTEMPTS), ("to_records", "jsonl", 1)):
        ended, working = [], []
        for attempt in range(attempts):
            new = f"{name}_{attempt}"
            pipeline.add_target(new, (corpus.holdout, corpus.target)[attempt % 2])
            pipeline.add_selection(new, targets=[new], output=output)
            process = pipeline.run()
            now = pipeline.stages(process)
            ended.append(now["selections"]["ended"])
            working.append(sum(stage["wall"] for asset, stage in now.items() if asset != "evaluations"))
        seconds[name], seconds[f"{name}_assets"] = min(ended), min(working)
    return process.wall, seconds


def summary(process: Process, n_bytes: int, cores: int) -> dict[str, float]:
    """Return the figures of a run on a smaller pool."""
    return {
        "megabytes": n_bytes / 1e6,
        "wall": process.wall,
        "cpu": process.cpu,
        "per_core": n_bytes / 1e6 / (process.wall * cores),
        "peak_mb": process.peak,
    }


def describe(corpus: Corpus, pool: PoolFolder, cores: int, load: float, console: Console) -> None:
    """Print what will be measured, and on what."""
    lines = [
        f"Text: {corpus.name}; {pool.copies:.2f} copies of its {len(corpus.files)} files make a pool of "
        f"{pool.text_bytes / 1e6:,.0f} MB, {pool.documents:,} documents, {len(pool.shards)} shards (.jsonl.zst)."
    ]
    if pool.copies > 1:
        lines.append(
            "In each copy a document begins at another of its words (it is rotated): all documents differ, "
            "and words, word pairs and lengths stay real."
        )
    lines += [
        "The pool is temporary and its making is not timed. A run on a small pool goes before, for Numba's cache.",
        f"Python may use {cores} cores; load before the start {load:.1f}"
        + (": other processes take part of the machine." if load > 0.5 else "."),
    ]
    console.print("\n".join(lines), end="\n\n")


def show_end_to_end(figures: dict, console: Console) -> None:
    """Print the tables of whole processes."""
    ours, reference = figures["dsir"], figures["reference"]
    table = new_table("End to end", "reference, 1 process", f"dsir run, {figures['cores']} cores", "ratio")
    whole = f"{figures['megabytes']:,.0f} MB"
    table.add_row("measured on", f"{reference['megabytes']:,.1f} MB", whole, "")
    table.add_row("wall seconds for that", f"{reference['wall']:,.1f}", f"{ours['wall']:,.1f}", "")
    table.add_row("CPU seconds for that", f"{reference['cpu']:,.1f}", f"{ours['cpu']:,.1f}", "")
    table.add_row(
        f"wall seconds for {whole}", f"{reference['wall_scaled']:,.0f} (scaled)", f"{ours['wall']:,.1f}", ""
    )
    ratio = f"{figures['ratio_per_core']:,.0f} x"
    table.add_row("MB/s a core", f"{reference['per_core']:,.2f}", f"{ours['per_core']:,.1f}", ratio)
    table.add_row("peak MB", f"{reference['peak_mb']:,.0f} (slice)", f"{ours['peak_mb']:,.0f}", "")
    table.add_row("documents selected", f"{reference['selected']:,}", f"{ours['selected']:,}", "")
    show(table, console)

    table = new_table("dsir run, where the time goes", "seconds", "MB/s, all cores")
    for name, seconds in ours["stages"].items():
        rate = (
            f"{figures['megabytes'] / max(seconds, 1e-9):,.0f}" if name in ("raw_counts", "weights") else ""
        )
        table.add_row(name, f"{seconds:,.2f}", rate)
    until = ours["until_selections"]
    rest = ours["wall"] - sum(ours["stages"].values())
    table.add_row("start, Dagster, between the assets, end", f"{rest:,.2f}", "")
    table.add_row("from the start to the selections", f"{until:,.1f}", f"{figures['megabytes'] / until:,.0f}")
    show(table, console)

    quarter = ours["quarter"]
    table = new_table("dsir run, other cases", "wall seconds", "peak MB")
    table.add_row(f"everything, {whole}", f"{ours['wall']:,.1f}", f"{ours['peak_mb']:,.0f}")
    table.add_row(
        f"everything, {quarter['megabytes']:,.0f} MB", f"{quarter['wall']:,.1f}", f"{quarter['peak_mb']:,.0f}"
    )
    table.add_row("again, everything fresh", f"{ours['nothing_due_wall']:,.1f}", "")
    table.add_row("again, with another target and its selection", f"{ours['one_target_more_wall']:,.1f}", "")
    table.add_row("again, with another shard", f"{ours['one_shard_more_wall']:,.1f}", "")
    show(table, console)

    grown = ours["new_target"]["megabytes"]
    sizes = {
        f"{grown:,.0f} MB": ours["new_target"]["whole"],
        f"{quarter['megabytes']:,.0f} MB": ours["new_target"]["quarter"],
        "1,000 MB more": ours["new_target"]["per_1000_mb"],
        f"{grown:,.0f} MB, sha256": ours["new_target"]["sha256"],
    }
    table = new_table("A new target on a counted pool, seconds", *sizes)
    for name, label in (
        ("counting", "counting the pool again"),
        ("to_picks", "from the target's file to the picks, as a process"),
        ("to_picks_assets", "  of it in the assets"),
        ("to_records", "from the target's file to the records, as a process"),
        ("to_records_assets", "  of it in the assets"),
    ):
        table.add_row(label, *(f"{seconds[name]:,.2f}" for seconds in sizes.values()))
        if name != "counting":
            # The difference of two processes may be smaller than the variation of their start-up.
            ratios = [
                f"{seconds['counting'] / seconds[name]:,.1f} x" if seconds[name] > 0 else ""
                for seconds in sizes.values()
            ]
            table.add_row("  counting takes so many times as long", *ratios)
    published = figures["functions"]["reference"]["featurize"] * figures["cores"]
    of_published = [megabytes / published for megabytes in (grown, quarter["megabytes"], 1000, grown)]
    table.add_row("the published tool's counting, scaled", *(f"{seconds:,.0f}" for seconds in of_published))
    show(table, console)


def new_table(title: str, *columns: str) -> Table:
    """Return an empty table with right-aligned figures."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(title, min_width=40)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def show(table: Table, console: Console) -> None:
    """Print a table and an empty line."""
    console.print(table)
    console.print()


if __name__ == "__main__":
    sys.exit(main())
