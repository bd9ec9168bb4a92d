"""Language models on one device, trained on what each method selects: prepare, train, report.

The planned experiment of docs/paper.md. `prepare` needs a CPU and the corpus, `train` a GPU, PyTorch, NumPy and the
prepared folder, `report` what `train` wrote.
"""

from __future__ import annotations

import time

STARTED = time.monotonic()  # before PyTorch is imported, which takes seconds of the minutes there are

import argparse  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / ".dsir" / "gpu"
NO_TORCH = "training needs PyTorch, which is not installed (the extra `paper`; `make paper` installs it)"


def main(argv: list[str] | None = None, started: float | None = None) -> int:
    """Run a subcommand; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("prepare", help="select, and write token arrays (CPU, no network)")
    command.add_argument("--data", type=Path, help="folder, as of benchmarks.paper; default the demo's text")
    command.add_argument("--output", type=Path, default=FOLDER / "prepared", help="folder, replaced")
    command.add_argument("--targets", nargs="+", default=[], help="some of the targets")
    command.add_argument("--dry-run", action="store_true", help="a hundredth of the size")
    command = commands.add_parser("train", help="train and measure (one device)")
    command.add_argument("--data", type=Path, default=FOLDER / "prepared", help="what `prepare` wrote")
    command.add_argument(
        "--output", type=Path, default=FOLDER / "results", help="folder; a stopped run goes on there"
    )
    command.add_argument("--minutes", type=float, default=10.0, help="limit, all included; default 10")
    command.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda if there is one")
    command = commands.add_parser("report", help="compare what is finished")
    command.add_argument("--data", type=Path, default=FOLDER / "prepared", help="what `prepare` wrote")
    command.add_argument("--output", type=Path, default=FOLDER / "results", help="what `train` wrote")
    arguments = parser.parse_args(argv)
    return COMMANDS[arguments.command](arguments, time.monotonic() if started is None else started)


# Each imports what it needs alone: `train` has to run where the other packages are not installed.


def _prepare(arguments: argparse.Namespace, started: float) -> int:
    from concurrent.futures import ThreadPoolExecutor

    from benchmarks.gpu.design import DRY, FULL
    from benchmarks.gpu.prepare import prepare
    from benchmarks.paper.corpus import StudyCorpus
    from benchmarks.paper.demo_corpus import demo_corpus
    from dsir_dagster.resources.engine import available_cores

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {line}", flush=True)

    with ThreadPoolExecutor(available_cores()) as threads:
        corpus = StudyCorpus(arguments.data or demo_corpus(), arguments.targets, threads.map)
        prepare(corpus, arguments.output, DRY if arguments.dry_run else FULL, threads.map, say)
    return 0


def _train(arguments: argparse.Namespace, started: float) -> int:
    try:
        import torch
    except ModuleNotFoundError:
        raise SystemExit(NO_TORCH) from None
    from benchmarks.gpu.train import run

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return 0 if run(arguments.data, arguments.output, arguments.minutes, device, started) else 1


def _report(arguments: argparse.Namespace, started: float) -> int:
    from benchmarks.gpu.report import report

    report(arguments.data, arguments.output)
    return 0


COMMANDS = {"prepare": _prepare, "train": _train, "report": _report}

if __name__ == "__main__":
    sys.exit(main(started=STARTED))
