"""The Pile, and a hundred of it, from measured rates: ``python -m benchmarks.scale``.

What belongs here: what is measured, what follows from it for a large pool, and how it is shown. What does not: the
drawn pools (``benchmarks/drawn.py``), the text (``benchmarks/pool.py``).

Three measurements, each in a process of its own, in CPU time since the machine is shared:

- *Work on text*: `dsir run` over pieces of 128 words, as the paper cuts The Pile, of a smaller and of a larger pool;
  the difference gives what a document costs in each step.
- *Recording*: the same over tiny shards, few and many; the difference gives what a shard costs beyond its work. All of
  it is taken to be the leading process's.
- *Picking*: documents whose keys and n-gram totals are drawn go through the selection of `resample` and the rounds of
  `match`, merged from the candidates of as many shards as the real pool has, by the project's own code. That gives the
  time of the leading process for each picked document, its memory, and what the tasks send.

From these: hours on a number of cores, if tasks share the work evenly and the leading process does the rest; bytes read
and written; requests to an object store of at most 10 MB each, at least one for each file. What a cluster costs
beside that (starting, waiting for the store, retries) is not in it.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.concurrency import write_pipeline
from benchmarks.drawn import DrawnCandidates, DrawnPasses, DrawnPool
from benchmarks.pipeline import peak_megabytes
from benchmarks.pool import Corpus, make_pool, read_records, require_corpus
from dsir.compilation import warm_up
from dsir.features import Features, FeatureSpec, featurize
from dsir.matching import MatchingOptions, match
from dsir.selection import CANDIDATE, Budget
from dsir_dagster.assets.methods import pick
from dsir_dagster.cli.running import quiet_logger
from dsir_dagster.instance import open_instance
from dsir_dagster.resources.ray_compute import AHEAD
from dsir_dagster.resources.settings import Selection
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.runs import run_refresh

#: The Pile as the paper counts it: pieces of 128 words; how many of them it selects; and how many hours that took, on
#: this many cores (arXiv 2302.03169).
PILE, PICKED, PUBLISHED_HOURS, CORES = 1.7e9, 102.4e6, 4.47, 96
#: What `match` takes on real pools, about.
ROUNDS = 9
WORDS = 128
#: Text of a shard, and the most that a request to an object store carries, in bytes.
SHARD_BYTES, REQUEST_BYTES = 256e6, 10e6
#: Memory of the leading machine, in GB: 2 for each of the cores.
MEMORY = 192
#: Partitions of an asset that Dagster is good for.
PARTITIONS = 100_000
#: Shards of the pools that show what recording costs.
FEW, MANY = 50, 250
#: Documents whose n-grams the rounds of `match` see, and words of each.
KINDS, KIND_WORDS = 8000, 32


@dataclass(frozen=True)
class OnText:
    """What a document costs in `dsir run`.

    Attributes
    ----------
    seconds : dict of str to float
        CPU seconds a document, by step.
    file_bytes : dict of str to float
        Bytes a document of the pool's files and of the files made from it, by their folder.
    text_bytes : float
        Bytes of text a document.
    documents : int
        Of the larger pool.
    """

    seconds: dict[str, float]
    file_bytes: dict[str, float]
    text_bytes: float
    documents: int


@dataclass(frozen=True)
class Drawn:
    """What picking costs.

    Attributes
    ----------
    seconds : float
        CPU seconds of the leading process for each picked document and round.
    memory : float
        Bytes that it takes at its peak for each picked document.
    sent, first_sent : float
        Candidates that the tasks of a round send, and those of them sent before any floor is known; for each picked
        document.
    rounds : int
    documents, picked, shards : int
    rate : float
        Documents a CPU second in all tasks of a pass: drawn documents ranked, without reading them.
    peak : float
        Memory of the process, in MB.
    """

    seconds: float
    memory: float
    sent: float
    first_sent: float
    rounds: int
    documents: int
    picked: int
    shards: int
    rate: float
    peak: float


@dataclass(frozen=True)
class Measured:
    """All measurements; ``recording`` is CPU seconds a shard."""

    on_text: OnText
    recording: float
    resample: Drawn
    match: Drawn


@dataclass(frozen=True)
class Step:
    """What a step takes for a pool.

    Attributes
    ----------
    name : str
    tasks : float
        CPU seconds of all tasks.
    leading : float
        CPU seconds of the leading process, during which the others wait.
    bytes : float
        Read and written.
    files : float
        Read and written, whole.
    """

    name: str
    tasks: float
    leading: float
    bytes: float
    files: float

    def hours(self, cores: int) -> float:
        """Return how long it takes."""
        return (self.tasks / cores + self.leading) / 3600

    @property
    def requests(self) -> float:
        """Requests to an object store."""
        return max(self.bytes / REQUEST_BYTES, self.files)


@dataclass(frozen=True)
class Limit:
    """Something that grows with the pool.

    Attributes
    ----------
    name, unit : str
    amount : callable
        Of a number of documents, in the unit.
    limit : float
    setting : str
        That moves it.
    """

    name: str
    unit: str
    amount: Callable[[float], float]
    limit: float
    setting: str


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--documents", type=float, default=50e6, help="documents drawn (default: 50e6; of The Pile: 1.7e9)"
    )
    parser.add_argument(
        "--share", type=float, default=PICKED / PILE, help="of them picked (default: the paper's, 0.06)"
    )
    parser.add_argument(
        "--megabytes", type=float, default=300, help="text of the measured pool (default: 300)"
    )
    parser.add_argument("--rounds", type=int, default=20, help="of `match`, at most (default: 20)")
    parser.add_argument("--cores", type=int, default=CORES, help="of the cluster (default: 96)")
    options = parser.parse_args(arguments)
    corpus = require_corpus()
    documents = round(options.documents)
    load = os.getloadavg()[0]
    on_text = _apart(measure_text, corpus, options.megabytes)
    shards = math.ceil(PILE * on_text.text_bytes / SHARD_BYTES)
    drawn = (documents, options.share, shards, AHEAD * options.cores)
    recording = _apart(measure_recording)
    resample = _apart(draw_resample, *drawn)
    measured = Measured(on_text, recording, resample, _apart(draw_match, corpus, options.rounds, *drawn))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 80)
    console.print(f"{corpus.name}; load {load:.1f} at the start\n")
    show_measured(measured, console)
    show_steps(measured, options.cores, console)
    show_limits(measured, options.cores, console)
    return 0


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process, whose memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function, *arguments).result()


# --- measuring ---------------------------------------------------------------------------------------


def measure_text(corpus: Corpus, megabytes: float) -> OnText:
    """Measure the steps on two pools of real text, in this process."""
    found: list[tuple[int, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(prefix="dsir-scale-") as name:
        for part in (0.2, 1.0):
            folder = Path(name) / f"{part}"
            size = int(megabytes * part * 1e6)
            made = make_pool(corpus, folder, size, size // 4, {})
            config, home = folder / "dsir.yaml", folder / "home"
            settings = {
                "raw": [{"name": "pool", "uri": "pool/*", "chunk_words": WORDS}],
                "targets": [{"name": "target", "uri": str(corpus.target)}],
                "evaluation": {"random_seeds": 2},
                "selections": [],
            }
            seconds: dict[str, float] = {}
            for selection, own in (
                ("resample", {"output": "none"}),
                ("match", {"output": "none", "method": "match"}),
                ("records", {"seed": 1}),
            ):
                size_of = {"fraction": PICKED / PILE}
                settings["selections"].append(
                    {"name": selection, "targets": ["target"], "size": size_of, **own}
                )
                config.write_text(json.dumps(settings))
                stages = _cpu_by_asset(config, home)
                seconds |= {selection: stages["selections"]}
                if selection == "resample":
                    seconds |= {asset: stages[asset] for asset in ("raw_counts", "weights")}
            rows = Workspace(config, home).catalog.latest().values()
            counted = [row.metadata for row in rows if row.asset == "raw_counts"]
            [matched] = [row for row in rows if (row.asset, row.partition) == ("selections", "match")]
            seconds["match"] /= matched.metadata["rounds"]
            seconds["records"] = max(seconds["records"] - seconds["resample"], 0)
            found.append((sum(row["documents"] for row in counted), seconds))
        (few, less), (many, more) = found
        text = sum(row["text_bytes"] for row in counted)
        return OnText(
            {step: max(more[step] - less[step], 0) / (many - few) for step in more},
            {
                "pool": sum(path.stat().st_size for path in made.shards) / many,
                **{
                    kind: sum(path.stat().st_size for path in (home / kind).rglob("*") if path.is_file())
                    / many
                    for kind in ("features", "documents", "weights")
                },
            },
            text / many,
            many,
        )


def _cpu_by_asset(config: Path, home: Path) -> dict[str, float]:
    """Run what ``dsir run`` runs; return the CPU seconds of each asset's stage, start-up apart."""
    os.environ["DAGSTER_HOME"] = str(home / "dagster")
    workspace = Workspace(config, home)
    warm_up(workspace.settings.features.spec(), lambda text: None)
    seconds = {}
    with open_instance(home) as instance:
        last = time.process_time()
        for stage in run_refresh(workspace, instance, {"console": quiet_logger([])}):
            if stage.errors:
                raise RuntimeError(f"{stage.asset}: {stage.errors[0]}")
            seconds[stage.asset] = time.process_time() - last
            last = time.process_time()
    return seconds


def measure_recording() -> float:
    """Measure what a shard costs beyond its work: CPU seconds."""
    seconds = []
    with tempfile.TemporaryDirectory(prefix="dsir-scale-") as name:
        for shards in (FEW, MANY):
            folder = Path(name) / str(shards)
            folder.mkdir()
            stages = _cpu_by_asset(write_pipeline(folder, shards), folder / "home")
            seconds.append(sum(stages.values()))
    return (seconds[1] - seconds[0]) / (MANY - FEW)


def draw_resample(documents: int, share: float, shards: int, under_way: int) -> Drawn:
    """Measure the selection of `resample`."""
    pool, budget = _drawn_pool(documents, share, shards, under_way)
    selection = Selection.model_validate(
        {"name": "drawn", "targets": ["target"], "shares": [1], "size": {"documents": budget.amount}}
    )
    return _measure_drawn(pool, budget, lambda: pick(DrawnCandidates(None, selection, pool), budget) and 1)


def draw_match(
    corpus: Corpus, rounds: int, documents: int, share: float, shards: int, under_way: int
) -> Drawn:
    """Measure the rounds of `match`."""
    pool, budget = _drawn_pool(documents, share, shards, under_way)
    spec = FeatureSpec()
    kinds = _features(corpus.files, KINDS // len(corpus.files), spec)
    target = _features([corpus.target], KINDS, spec)
    passes, options = DrawnPasses(pool, kinds), MatchingOptions(rounds=rounds)
    counts, total = target.totals(spec.buckets), kinds.totals(spec.buckets)
    return _measure_drawn(pool, budget, lambda: len(match(passes, counts, total, budget, options).curve))


def _drawn_pool(documents: int, share: float, shards: int, under_way: int) -> tuple[DrawnPool, Budget]:
    of_shard = max(math.ceil(documents / shards), 1)
    return DrawnPool(documents, of_shard, under_way), Budget(documents=max(round(documents * share), 1))


def _features(files: Sequence[Path], each: int, spec: FeatureSpec) -> Features:
    texts = [
        " ".join(record["text"].split()[:KIND_WORDS])
        for path in files
        for record, _ in zip(read_records(path), range(each), strict=False)
    ]
    return featurize(pa.array(texts, pa.large_string()), spec)


def _measure_drawn(pool: DrawnPool, budget: Budget, function: Callable[[], int]) -> Drawn:
    """Call a function that makes rounds of passes and returns how many."""
    before, begin = peak_megabytes(os.getpid()), time.process_time()
    rounds = function()
    work, peak = pool.work, peak_megabytes(os.getpid())
    leading = time.process_time() - begin - work.tasks - work.drawn
    picks = budget.amount
    return Drawn(
        seconds=leading / rounds / picks,
        memory=(peak - before) * 1e6 / picks,
        sent=work.sent / rounds / picks,
        first_sent=work.first_sent / rounds / picks,
        rounds=rounds,
        documents=pool.documents,
        picked=picks,
        shards=math.ceil(pool.documents / pool.shard_documents),
        rate=pool.documents * work.passes / work.tasks,
        peak=peak,
    )


# --- what follows ------------------------------------------------------------------------------------


def steps(measured: Measured, documents: float) -> list[Step]:
    """Return what each step takes for a pool of so many documents of 128 words; `match` last."""
    on_text, picks = measured.on_text, documents * PICKED / PILE
    shards = documents * on_text.text_bytes / SHARD_BYTES
    of = {kind: size * documents for kind, size in on_text.file_bytes.items()}
    tasks = {step: seconds * documents for step, seconds in on_text.seconds.items()}
    resample, matching = (picks * drawn.seconds for drawn in (measured.resample, measured.match))
    # A shard's files: of the pool; documents, features, totals, quarantine; weights.
    return [
        Step("counting", tasks["raw_counts"], 0, of["pool"] + of["features"] + of["documents"], 5 * shards),
        Step("weights", tasks["weights"], 0, of["features"] + of["weights"], 2 * shards),
        Step("records", tasks["records"], 0, of["pool"] * (1 + PICKED / PILE), shards),
        Step("recording", 0, measured.recording * shards, 0, 0),
        Step("resample", tasks["resample"], resample, of["documents"] + of["weights"], 2 * shards),
        Step(
            "match",
            tasks["match"] * ROUNDS,
            matching * ROUNDS,
            2 * ROUNDS * (of["features"] + of["documents"]),
            2 * ROUNDS * 2 * shards,
        ),
    ]


def limits(measured: Measured, cores: int) -> list[Limit]:
    """Return what grows with the pool, the first to break first."""
    share = PICKED / PILE
    of_shard = SHARD_BYTES / measured.on_text.text_bytes  # documents

    def hours(name: str) -> Callable[[float], float]:
        return lambda n: next(step for step in steps(measured, n) if step.name == name).leading / 3600

    def memory(drawn: Drawn) -> Callable[[float], float]:
        return lambda n: n * share * drawn.memory / 1e9

    def waiting(n: float) -> float:
        return AHEAD * cores * min(of_shard, n * share) * CANDIDATE.itemsize / 1e9

    found = [
        Limit("candidates, resample", "GB", memory(measured.resample), MEMORY, "selections[].size"),
        Limit("candidates, match", "GB", memory(measured.match), MEMORY, "selections[].size"),
        Limit("first results at once", "GB", waiting, MEMORY, "compute.cores"),
        Limit("positions, each node", "GB", lambda n: 8 * n * share / 1e9, MEMORY, "selections[].size"),
        Limit("partitions of an asset", "", lambda n: n / of_shard, PARTITIONS, "raw[].group"),
        Limit("recording", "h", hours("recording"), PUBLISHED_HOURS, "raw[].group"),
    ]
    return sorted(found, key=lambda each: each.limit / each.amount(PILE))


# --- showing -----------------------------------------------------------------------------------------


def _table(title: str, *headers: str, left: Sequence[int] = (0,)) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, header in enumerate(headers):
        table.add_column(header, justify="left" if place in left else "right")
    return table


def number(value: float) -> str:
    """Return a number with about three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def show_measured(measured: Measured, console: Console) -> None:
    """Print the measurements."""
    on_text = measured.on_text
    table = _table("Measured on text, in CPU time of one core", "", "documents/s", "MB/s of text")
    for step, seconds in on_text.seconds.items():
        name = {"raw_counts": "counting", "match": "match, a round"}.get(step, step)
        rate = 1 / seconds if seconds else math.inf
        table.add_row(name, f"{rate:,.0f}", f"{rate * on_text.text_bytes / 1e6:,.0f}")
    console.print(table)
    sizes = ", ".join(f"{kind} {size:.0f}" for kind, size in on_text.file_bytes.items())
    console.print(
        f"{on_text.documents:,} documents of {on_text.text_bytes:.0f} bytes.\nBytes of each in files: {sizes}.\n"
        f"A shard costs {measured.recording * 1000:.0f} ms beyond that.\n"
    )
    headers = ("documents, M", "picked, M", "shards", "rounds", "M/s", "lead, µs", "sent", "MB")
    table = _table("Measured on drawn keys and totals", "", *headers)
    for name, each in (("resample", measured.resample), ("match", measured.match)):
        table.add_row(
            name,
            *(number(millions / 1e6) for millions in (each.documents, each.picked)),
            f"{each.shards:,}",
            f"{each.rounds}",
            *(number(value) for value in (each.rate / 1e6, each.seconds * 1e6, each.sent)),
            f"{each.peak:,.0f}",
        )
    console.print(table)
    console.print(
        "M/s: documents ranked by the tasks of a pass, on one core. Lead: time of the\n"
        "leading process, for each picked document and round; sent: candidates likewise.\n"
    )


def show_steps(measured: Measured, cores: int, console: Console) -> None:
    """Print hours, bytes and requests."""
    headers = ("The Pile, h", "GB", "requests", "100 Piles, h", "TB", "requests")
    table = _table(f"Computed for {cores} cores and a leading process of one", "", *headers)
    one, hundred = (steps(measured, PILE * times) for times in (1, 100))
    rows = [(step.name, [place]) for place, step in enumerate(one)]
    *shared, resample, matching = range(len(one))
    rows += [("all, resample", [*shared, resample]), ("all, match", [*shared, matching])]
    for name, places in rows:
        cells = []
        for found, unit in ((one, 1e9), (hundred, 1e12)):
            some = [found[place] for place in places]
            cells.append(number(sum(step.hours(cores) for step in some)))
            cells.append(number(sum(step.bytes for step in some) / unit))
            cells.append(f"{sum(step.requests for step in some):,.0f}")
        table.add_row(name, *cells)
    console.print(table)
    console.print(
        f"match: {ROUNDS} rounds.\n"
        f"Published, resample: {PUBLISHED_HOURS} hours on {CORES} cores for The Pile.\n"
    )


def show_limits(measured: Measured, cores: int, console: Console) -> None:
    """Print what breaks, the first first."""
    headers = ("The Pile", "100 Piles", "limit", "Piles", "setting")
    table = _table("What breaks, and at how many Piles", "", *headers, left=(0, 5))
    for each in limits(measured, cores):
        unit = f" {each.unit}" if each.unit else ""
        one, hundred = each.amount(PILE), each.amount(100 * PILE)
        table.add_row(
            each.name,
            *(number(value) + unit for value in (one, hundred, each.limit)),
            number(each.limit / one),
            each.setting,
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
