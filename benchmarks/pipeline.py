"""``dsir run`` as whole processes: their configuration, time and memory.

What belongs here: starting processes, measuring them, reading the lineage they leave. What does not: the text they run
on (``benchmarks/pool.py``), what is printed (``benchmarks/throughput.py``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.pool import REPOSITORY
from dsir_dagster.assets.graph import GRAPH
from dsir_dagster.resources.catalog import Catalog
from dsir_dagster.resources.lineage import Lineage


@dataclass(frozen=True)
class Process:
    """What a finished process took.

    Attributes
    ----------
    started : datetime
    wall, cpu : float
        Seconds; CPU is user and system time of the process and all its descendants.
    peak : float
        Largest resident memory of the process, in MB.
    output : str
        Standard output.
    """

    started: datetime
    wall: float
    cpu: float
    peak: float
    output: str


def run_process(module: str, *arguments: object, log: Path) -> Process:
    """Run ``python -m module`` to its end.

    Parameters
    ----------
    module : str
    *arguments : object
    log : Path
        Receives standard error.

    Returns
    -------
    Process

    Raises
    ------
    RuntimeError
        The process failed; the message has the end of its output.
    """
    # DAGSTER_HOME and DSIR_* belong to the caller's pipeline.
    ours = ("DAGSTER_HOME", "DSIR_HOME", "DSIR_CONFIG")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment["DAGSTER_DISABLE_TELEMETRY"] = "yes"
    out = log.with_suffix(".out")
    with open(log, "wb") as errors, open(out, "wb") as output:
        started, begin = datetime.now(UTC), time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdout=output,
            stderr=errors,
            cwd=REPOSITORY,
            env=environment,
        )
        peak = 0.0
        try:
            # wait4 gives the CPU of the process and of all its waited-for children.
            while (waited := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                peak = max(peak, peak_megabytes(process.pid))
                time.sleep(0.01)
        except BaseException:
            process.kill()
            raise
        wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(waited[1])
    text = out.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        shown = (text + log.read_text(encoding="utf-8", errors="replace"))[-3000:]
        raise RuntimeError(f"python -m {module} ended with {process.returncode}:\n{shown}")
    used = waited[2]
    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    peak = peak or used.ru_maxrss * unit / 1e6
    return Process(started, wall, used.ru_utime + used.ru_stime, peak, text)


def peak_megabytes(pid: int) -> float:
    """Return the peak resident memory of a process so far; 0 without /proc.

    ``ru_maxrss`` would not do: it starts at the size of the parent process.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields["VmHWM"].split()[0]) * 1024 / 1e6 if "VmHWM" in fields else 0.0  # a zombie has none


class Pipeline:
    """A configuration and a fresh home in a folder.

    Parameters
    ----------
    folder : Path
        Created here.
    pool : str
        Glob of the raw files.
    target, holdout : Path
    hash : str
        For the features.
    """

    def __init__(self, folder: Path, pool: str, target: Path, holdout: Path, hash: str = "fast") -> None:
        self.folder = folder
        folder.mkdir()
        settings = {
            "raw": [{"name": "pool", "uri": pool, "text": "text", "id": "id"}],
            "targets": [{"name": "target", "uri": str(target), "holdout": str(holdout), "text": "text"}],
            "features": {"tokenizer": "wordpunct", "ngrams": 2, "buckets": 10_000, "hash": hash},
            "selections": [
                {
                    "name": "tenth",
                    "targets": ["target"],
                    "method": "resample",
                    "size": {"fraction": 0.1},
                    "min_tokens": 100,
                    "seed": 0,
                    "output": "jsonl",
                }
            ],
        }
        (folder / "dsir.yaml").write_text(json.dumps(settings, indent=1))  # JSON is YAML
        self.home = folder / "home"
        self.runs = 0

    def add_target(self, name: str, target: Path, output: str) -> None:
        """Add a target and a selection of the same name, with records in this format, or `none`."""
        path = self.folder / "dsir.yaml"
        settings = json.loads(path.read_text())
        new = {
            "targets": {"name": name, "uri": str(target), "text": "text"},
            "selections": {
                **settings["selections"][0],
                "name": name,
                "targets": [name],
                "output": output,
            },
        }
        for section, entry in new.items():
            settings[section].append(entry)
        path.write_text(json.dumps(settings, indent=1))

    def run(self) -> Process:
        """Run ``dsir run``."""
        self.runs += 1
        log = self.folder / f"run{self.runs}.log"
        arguments = ("run", "--config", self.folder / "dsir.yaml", "--home", self.home)
        return run_process("dsir_dagster", *arguments, log=log)

    def lineage(self) -> list[Lineage]:
        """Return the newest materialization of every output."""
        return list(Catalog(self.home).latest().values())

    def counted(self) -> tuple[int, int]:
        """Return the documents and bytes of text read, according to the counting."""
        rows = [row.metadata for row in self.lineage() if row.asset == "raw_counts"]
        return sum(row["documents"] for row in rows), sum(row["text_bytes"] for row in rows)

    def stages(self, process: Process) -> dict[str, dict[str, float]]:
        """Return the time of each asset for which a run computed anything.

        Parameters
        ----------
        process : Process
            The run that computed them last.

        Returns
        -------
        dict
            Per asset, in the order of the graph: ``wall``, the seconds from the start of its first partition to the end
            of its last; ``ended``, the seconds from the start of the process to that end.
        """
        stages = {}
        computed = [row for row in self.lineage() if row.started_at >= process.started]
        for asset in GRAPH.versions:
            if rows := [row for row in computed if row.asset == asset]:
                first = min(row.started_at for row in rows)
                last = max(row.finished_at for row in rows)
                stages[asset] = {
                    "wall": (last - first).total_seconds(),
                    "ended": (last - process.started).total_seconds(),
                }
        return stages
