"""Methods x targets x measures on a corpus, as tables and plots: ``python -m benchmarks.paper``.

The paper's methods (random, heuristic classification and its top-k, DSIR with unigrams and with bigrams, top-k), those
of others (``comparators``) and matching select from the pool, in pieces of 128 words, with the training split of each
target; everything is measured on the test split. Finished figures are kept, so a command that was stopped goes on from
there.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.paper import plots, summary
from benchmarks.paper.corpus import StudyCorpus
from benchmarks.paper.demo_corpus import demo_corpus
from benchmarks.paper.measures import train_tokens
from benchmarks.paper.methods import ABLATIONS, BUDGETED, METHODS, RANDOM, ablated
from benchmarks.paper.study import PARTS, Selection, Study
from benchmarks.pool import REPOSITORY
from dsir_dagster.resources.engine import available_cores

MEASURES = ("bits", "f1", "proxy", "budgets", "ablations")
#: With ``--quick``: what is measured, how many pieces a larger pool is sampled to, and what is left out: it takes as
#: long as all the other methods together.
QUICK_MEASURES, QUICK_PIECES, NOT_QUICK = ("bits",), 125_000, ("moore-lewis, models",)
#: Width of the tables where output is not a terminal, and the least.
WIDTH = 80
NO_TORCH = "no neural language models: PyTorch is not installed (the extra `paper`; `make paper` installs it)"


def main(argv: list[str] | None = None) -> int:
    """Run, print and write; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--targets", nargs="+", default=[], help="some of the targets")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="some of the methods; default all")
    parser.add_argument(
        "--measures",
        nargs="*",
        choices=MEASURES,
        help="beside KL reduction and cost; default all",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"minutes, no PyTorch: bits per byte alone, not {NOT_QUICK[0]!r}, {QUICK_PIECES:,} pieces of the pool",
    )
    parser.add_argument("--tokens", type=int, help="budget of every selection; default 3 %% of the pool")
    parser.add_argument("--seeds", type=int, default=3, help="of F1 and of the neural language models")
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with pool/*.jsonl.zst and targets/<name>/{train,test}.jsonl.zst; default the demo's text",
    )
    parser.add_argument("--output", type=Path, help="folder; default .dsir/paper, or .dsir/paper-quick")
    arguments = parser.parse_args(argv)
    folder = arguments.output or REPOSITORY / ".dsir" / ("paper-quick" if arguments.quick else "paper")
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    asked = arguments.measures
    if asked is None:
        asked = QUICK_MEASURES if arguments.quick else MEASURES
    measures = [each for each in MEASURES if each in asked]
    left_out = NOT_QUICK if arguments.quick else ()
    chosen = arguments.methods or [each for each in METHODS if each not in left_out]
    if "proxy" in measures and importlib.util.find_spec("torch") is None:
        console.print(NO_TORCH)
        measures.remove("proxy")

    with ThreadPoolExecutor(arguments.processes) as threads:
        most = QUICK_PIECES if arguments.quick else None
        corpus = StudyCorpus(arguments.data or demo_corpus(), arguments.targets, threads.map, most)
        study = Study(corpus, folder, arguments.tokens, threads.map, ProgressPrinter(console))
        methods = {name: METHODS[name] for name in METHODS if name in chosen}
        budgets = [int(study.tokens * part) for part in PARTS] if "budgets" in measures else [study.tokens]
        selections = [
            Selection(name, settings, target, tokens)
            for tokens in budgets
            for target in corpus.targets
            for name, settings in methods.items()
            if tokens == study.tokens or name in BUDGETED
        ]
        main_ones = [each for each in selections if each.tokens == study.tokens]
        # Not in a row of a table: what KL reduction is relative to, and variants.
        others = [
            Selection("random", settings, target, tokens)
            for tokens in budgets
            for target in corpus.targets
            for settings in RANDOM
        ]
        if "ablations" in measures:
            others += [
                Selection("ablation", settings, target, study.tokens)
                for _, _, settings in ABLATIONS
                for target in ablated(corpus.targets)
            ]
        study.select_all(selections + others)
        study.measure_pool()
        labelled = [each for each in main_ones if each.target.labelled]
        # One process is this one. Others are spawned: a fork would inherit Arrow's threads.
        if arguments.processes == 1:
            workers = nullcontext(threads)
        else:
            context = multiprocessing.get_context("spawn")
            workers = ProcessPoolExecutor(arguments.processes, mp_context=context)
        seeds = range(arguments.seeds)
        with workers as executor:
            for measure, some, tries in (
                ("counts", selections + others, (None,)),
                ("bits", selections, (None,)),
                ("f1", labelled, seeds),
                ("proxy", main_ones, seeds),
            ):
                if measure in ("counts", *measures):
                    study.run(study.jobs(measure, some, tries), executor, arguments.processes)

    rows = summary.rows_of(study, selections, arguments.seeds)
    variants = summary.ablation_rows(study) if "ablations" in measures else []
    about = summary.about(study)
    costs = summary.cost_table(study, [row for row in rows if row.tokens == study.tokens], methods)
    tables = write(rows, variants, costs, folder, about, study.tokens)
    console.print(about, "")
    for each in tables:
        console.print(each.rich(console.width))
    if "proxy" in asked and "proxy" not in measures:
        console.print(NO_TORCH)
    console.print(f"tables, figures and plots: {folder}")
    return 0


def write(
    rows: list[summary.Row],
    variants: list[dict],
    costs: summary.StudyTable,
    folder: Path,
    about: str,
    tokens: int,
) -> list[summary.StudyTable]:
    """Write tables, figures and plots into a folder; return the tables.

    Parameters
    ----------
    rows : list of Row
    variants : list of dict
        Of the ablations.
    costs : StudyTable
    folder : Path
    about : str
        Line above the tables.
    tokens : int
        Budget of most tables.
    """
    shown = summary.shown_tokens(train_tokens(tokens))
    usual = [row for row in rows if row.tokens == tokens]
    tables = [
        summary.overview_table(usual),
        summary.measure_table(usual, "over_random", summary.KL, "higher"),
        summary.measure_table(usual, "kl_reduction", summary.PAPER, "higher"),
    ]
    for measure, title, better in (
        ("bits", summary.BITS, "lower"),
        ("f1", summary.F1.format(shown), "higher"),
        ("proxy", summary.PROXY.format(shown), "lower"),
    ):
        if any(getattr(row, measure) for row in usual):
            tables.append(summary.measure_table(usual, measure, title, better))
    tables.append(costs)
    several = [row for row in rows if row.method in BUDGETED]
    if len({row.tokens for row in several}) > 1:
        tables += summary.budget_tables(several)
    if any(row.bits or row.f1 or row.proxy for row in usual):
        tables.append(summary.correlation_table(usual))
    if variants:
        tables.append(summary.ablation_table(variants))
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join([about, *(each.markdown() for each in tables)])
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    figures = {"about": about, "methods": [asdict(row) for row in rows], "ablations": variants}
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    with open(folder / "figures.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("method", "target", "tokens", "measure", "seed", "value"))
        for row in rows:
            for measure, value in list(asdict(row).items())[3:]:
                seeds = enumerate(value) if isinstance(value, tuple) else [("", value)]
                writer.writerows((row.method, row.target, row.tokens, measure, *each) for each in seeds)
    plots.by_target(usual, folder / "targets.png")
    plots.correlations(usual, folder / "correlation.png")
    if len({row.tokens for row in several}) > 1:
        plots.budgets(several, folder / "budgets.png")
    if variants:
        plots.ablations(variants, folder / "ablations.png")
    return tables


class ProgressPrinter:
    """Prints what is done and how long the step will take."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def __call__(self, line: str, done: int, total: int) -> None:
        """Print; called with 0 before a step starts, and after each item."""
        now = time.monotonic()
        if done == 0:
            self._started = now
            return
        left = (now - self._started) / done * (total - done)
        shown = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
        self._console.print(f"{done}/{total}  {line}  (this step: {shown} left)", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
