"""``dsir`` as whole processes, of this checkout or of another: their configuration, time and memory.

What belongs here: starting processes, measuring them, reading the lineage they leave. What does not: the text they run
on (``benchmarks/pool.py``), what is printed (``throughput.py``, ``compare.py``, ``breakdown.py``).

The lineage is asked of DuckDB in the catalog's documented columns, so that homes of other versions can be read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from bisect import bisect_right
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.pool import REPOSITORY


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
    spent : list of (datetime, float)
        CPU seconds of the process up to a time, about a hundred times a second; empty without /proc.
    """

    started: datetime
    wall: float
    cpu: float
    peak: float
    output: str
    spent: list[tuple[datetime, float]]

    def cpu_until(self, when: datetime) -> float:
        """CPU seconds of the process up to a time."""
        at = bisect_right(self.spent, when, key=lambda sample: sample[0])
        return self.spent[at - 1][1] if at else 0.0


def run_process(module: str, *arguments: object, log: Path, tree: Path = REPOSITORY) -> Process:
    """Run a module, or a script, to its end.

    Parameters
    ----------
    module : str
        For ``python -m``; or the path of a script.
    *arguments : object
    log : Path
        Receives standard error.
    tree : Path
        The checkout whose packages are imported.

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
    environment["PYTHONPATH"] = str(tree)
    program = [module] if module.endswith(".py") else ["-m", module]
    out = log.with_suffix(".out")
    with open(log, "wb") as errors, open(out, "wb") as output:
        started, begin = datetime.now(UTC), time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            stdout=output,
            stderr=errors,
            cwd=tree,
            env=environment,
        )
        peak, spent = 0.0, []
        try:
            # wait4 gives the CPU of the process and of all its waited-for children.
            while (waited := os.wait4(process.pid, os.WNOHANG))[0] == 0:
                peak = max(peak, peak_megabytes(process.pid))
                if (seconds := cpu_seconds(process.pid)) is not None:
                    spent.append((datetime.now(UTC), seconds))
                time.sleep(0.01)
        except BaseException:
            process.kill()
            raise
        wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(waited[1])
    text = out.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        shown = (text + log.read_text(encoding="utf-8", errors="replace"))[-3000:]
        raise RuntimeError(f"python {' '.join(program)} ended with {process.returncode}:\n{shown}")
    used = waited[2]
    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    peak = peak or used.ru_maxrss * unit / 1e6
    return Process(started, wall, used.ru_utime + used.ru_stime, peak, text, spent)


def cpu_seconds(pid: int) -> float | None:
    """Return the user and system time of a process so far, without its children; None without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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


@dataclass(frozen=True)
class Materialization:
    """What the lineage says about an output's newest materialization: columns of the view `latest`."""

    asset: str
    partition: str
    fingerprint: str
    started_at: datetime
    finished_at: datetime
    files: dict[str, str]
    metadata: dict[str, Any]


class Pipeline:
    """A configuration and a fresh home in a folder.

    Parameters
    ----------
    folder : Path
        Created here.
    pool : str
        Glob of the raw files.
    target, holdout : Path
    tree : Path
        The checkout that runs it.
    **sections : object
        Of the configuration, beside those here.
    """

    def __init__(
        self,
        folder: Path,
        pool: str,
        target: Path,
        holdout: Path,
        tree: Path = REPOSITORY,
        **sections: object,
    ) -> None:
        self.folder, self.tree = folder, tree
        folder.mkdir()
        self.settings = {
            "raw": [{"name": "pool", "uri": pool, "text": "text", "id": "id"}],
            "targets": [{"name": "target", "uri": str(target), "holdout": str(holdout), "text": "text"}],
            "features": {"tokenizer": "wordpunct", "ngrams": 2, "buckets": 10_000, "hash": "fast"},
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
            **sections,
        }
        self.write_settings()
        self.home = folder / "home"
        self.runs = 0

    def write_settings(self) -> None:
        """Write the configuration."""
        (self.folder / "dsir.yaml").write_text(json.dumps(self.settings, indent=1))  # JSON is YAML

    def add_target(self, name: str, target: Path) -> None:
        """Add a target."""
        self.settings["targets"].append({"name": name, "uri": str(target), "text": "text"})

    def add_selection(self, name: str, **changes: object) -> None:
        """Add a selection like the first but for its name and these settings."""
        self.settings["selections"].append({**self.settings["selections"][0], "name": name, **changes})

    def run(self, command: str = "run") -> Process:
        """Run ``dsir`` with this command."""
        self.write_settings()
        self.runs += 1
        arguments = (command, "--config", self.folder / "dsir.yaml", "--home", self.home)
        return run_process(
            "dsir_dagster", *arguments, log=self.folder / f"run{self.runs}.log", tree=self.tree
        )

    def latest(self) -> list[Materialization]:
        """Return the newest materialization of every output, in the order in which they began."""
        names = [field.name for field in fields(Materialization)]
        with duckdb.connect(str(self.home / "catalog.duckdb"), read_only=True) as catalog:
            rows = catalog.view("latest").order("started_at").select(*names).fetchall()
        return [Materialization(*map(as_value, row)) for row in rows]

    def counted(self) -> tuple[int, int]:
        """Return the documents and bytes of text read, according to the counting."""
        rows = [row.metadata for row in self.latest() if row.asset == "raw_counts"]
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
            Per asset, in the order of the graph: ``wall`` and ``cpu``, the seconds from the start of its first
            partition to the end of its last; ``ended``, the seconds from the start of the process to that end.
        """
        computed = [row for row in self.latest() if row.started_at >= process.started]
        stages = {}
        for asset in dict.fromkeys(row.asset for row in computed):
            rows = [row for row in computed if row.asset == asset]
            first, last = min(row.started_at for row in rows), max(row.finished_at for row in rows)
            stages[asset] = {
                "wall": (last - first).total_seconds(),
                "cpu": process.cpu_until(last) - process.cpu_until(first),
                "ended": (last - process.started).total_seconds(),
            }
        return stages


def as_value(found: Any) -> Any:
    """Return a field of a `Materialization`: times are UTC in the catalog, mappings are JSON."""
    if isinstance(found, datetime):
        return found.replace(tzinfo=UTC)
    return json.loads(found) if isinstance(found, str) and found.startswith("{") else found
