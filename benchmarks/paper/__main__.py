"""Methods x targets x measures on a corpus, as tables and plots: ``python -m benchmarks.paper``.

The paper's methods (random, heuristic classification and its top-k, DSIR with unigrams and with bigrams, top-k) and
matching select from the pool, in pieces of 128 words, with the training split of each target; everything is measured on
the test split. Finished figures are kept, so a command that was stopped goes on from there.
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
from benchmarks.paper.methods import ABLATIONS, METHODS, RANDOM, ablated
from benchmarks.paper.study import Study
from benchmarks.pool import REPOSITORY
from dsir_dagster.resources.engine import available_cores

MEASURES = ("f1", "proxy", "ablations")
#: Width of the tables; a narrower terminal would lose columns.
WIDTH = 80
NO_TORCH = "no proxy language models: PyTorch is not installed (the extra `paper`; `make paper` installs it)"


def main(argv: list[str] | None = None) -> int:
    """Run, print and write; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--targets", nargs="+", default=[], help="some of the targets")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=METHODS, help="some of the methods"
    )
    parser.add_argument(
        "--measures",
        nargs="*",
        default=list(MEASURES),
        choices=MEASURES,
        help="beside KL reduction; default all",
    )
    parser.add_argument("--tokens", type=int, help="budget of every selection; default 3 %% of the pool")
    parser.add_argument("--seeds", type=int, default=3, help="of F1 and of the language models")
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument(
        "--data",
        type=Path,
        help="folder with pool/*.jsonl.zst and targets/<name>/{train,test}.jsonl.zst; default the demo's text",
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / ".dsir" / "paper", help="folder")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    measures = [each for each in MEASURES if each in arguments.measures]
    if "proxy" in measures and importlib.util.find_spec("torch") is None:
        console.print(NO_TORCH)
        measures.remove("proxy")

    with ThreadPoolExecutor(arguments.processes) as threads:
        corpus = StudyCorpus(arguments.data or demo_corpus(), arguments.targets, threads.map)
        study = Study(corpus, arguments.output, arguments.tokens, threads.map, ProgressPrinter(console))
        methods = {name: METHODS[name] for name in METHODS if name in arguments.methods}
        table = [(name, settings, target) for target in corpus.targets for name, settings in methods.items()]
        wanted = [(settings, target) for _, settings, target in table]
        wanted += [(settings, target) for target in corpus.targets for settings in RANDOM]
        if "ablations" in measures:
            variants = [settings for _, _, settings in ABLATIONS]
            wanted += [(settings, target) for settings in variants for target in ablated(corpus.targets)]
        study.select_all(wanted)
        study.measure_kl(wanted)
        labelled = [each for each in table if each[2].labelled]
        # One process is this one. Others are spawned: a fork would inherit Arrow's threads.
        if arguments.processes == 1:
            workers = nullcontext(threads)
        else:
            context = multiprocessing.get_context("spawn")
            workers = ProcessPoolExecutor(arguments.processes, mp_context=context)
        with workers as executor:
            for measure, some in (("f1", labelled), ("proxy", table)):
                if measure in measures:
                    study.run(study.jobs(measure, some, arguments.seeds), executor, arguments.processes)

    rows = summary.rows_of(study, methods, arguments.seeds)
    variants = summary.ablation_rows(study) if "ablations" in measures else []
    tables = write(rows, variants, arguments.output, summary.about(study), train_tokens(study.tokens))
    console.print(summary.about(study), "")
    for each in tables:
        console.print(each.rich(console.width))
    if "proxy" in arguments.measures and "proxy" not in measures:
        console.print(NO_TORCH)
    console.print(f"tables, figures and plots: {arguments.output}")
    return 0


def write(
    rows: list[summary.Row], variants: list[dict], folder: Path, about: str, tokens: int
) -> list[summary.StudyTable]:
    """Write tables, figures and plots into a folder; return the tables.

    Parameters
    ----------
    rows : list of Row
    variants : list of dict
        Of the ablations.
    folder : Path
    about : str
        Line above the tables.
    tokens : int
        What classifiers' features and language models were learnt from.
    """
    shown = summary.shown_tokens(tokens)
    tables = [summary.kl_table(rows)]
    if any(row.f1 for row in rows):
        tables.append(summary.seeds_table(rows, "f1", summary.F1.format(shown), "higher"))
    if any(row.proxy for row in rows):
        tables.append(summary.seeds_table(rows, "proxy", summary.PROXY.format(shown), "lower"))
    if any(row.f1 or row.proxy for row in rows):
        tables.append(summary.correlation_table(rows))
    if variants:
        tables.append(summary.ablation_table(variants))
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join([about, *(each.markdown() for each in tables)])
    (folder / "table.md").write_text(text + "\n", encoding="utf-8")
    figures = {"about": about, "methods": [asdict(row) for row in rows], "ablations": variants}
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    with open(folder / "figures.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("method", "target", "documents", "measure", "seed", "value"))
        for row in rows:
            about = (row.method, row.target, row.documents)
            writer.writerow((*about, "kl_reduction", "", row.kl_reduction))
            for measure in ("f1", "proxy"):
                writer.writerows((*about, measure, i, each) for i, each in enumerate(getattr(row, measure)))
    plots.by_target(rows, folder / "targets.png")
    plots.correlations(rows, folder / "correlation.png")
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
