"""One pipeline's configuration, store, catalog and threads, opened together.

What belongs here: putting the parts of ``resources/`` together, and the plan that follows from them. What does not:
finding files (``resources/discovery.py``), verifying outputs (``resources/verification.py``), computing them
(``assets/``).
"""

from __future__ import annotations

from pathlib import Path

from dsir_dagster.resources.catalog import Catalog
from dsir_dagster.resources.compute import Worker, compute_for
from dsir_dagster.resources.discovery import Discovery
from dsir_dagster.resources.engine import Engine
from dsir_dagster.resources.home import HomeLock, private_folder, store_of_home
from dsir_dagster.resources.lineage import LatestLineage
from dsir_dagster.resources.plan import Plan
from dsir_dagster.resources.settings import Settings, load_settings
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import Store, There


class Workspace:
    """An open pipeline.

    Parameters
    ----------
    config : Path
        The YAML file.
    home : Path
        DSIR_HOME; made if absent.
    threads : int, optional
        Default: the cores this process may run on.

    Attributes
    ----------
    settings : Settings
    store : Store
    catalog : Catalog
    engine : Engine
    discovery : Discovery
    lock : HomeLock
    """

    def __init__(self, config: Path, home: Path, threads: int | None = None) -> None:
        self.config = config
        self.settings: Settings = load_settings(config)
        self.home = home.resolve()
        private_folder(self.home)
        self.store = Store(self.home, store_of_home(self.home, self.settings.store)).prepare()
        self.catalog = Catalog(self.home, self.store.uri)
        self.engine = Engine(threads or self._configured_threads)
        self.worker = Worker(self.settings, self.store, self.engine)
        self.compute = compute_for(self.worker)
        self.discovery = Discovery(self.settings, self.home, self.catalog, self.engine)
        self.lock = HomeLock(self.home)

    def stop(self) -> None:
        """End all work for good."""
        self.compute.stop()
        self.engine.stop()

    @property
    def _configured_threads(self) -> int | None:
        compute = self.settings.compute
        return compute.cores if compute.engine == "threads" else None

    def plan(self) -> Plan:
        """Return the plan over the present files and lineage."""
        return self._plan()

    def known_plan(self) -> tuple[Plan, dict[str, str]]:
        """Return the plan, and why sources and targets have no files, by ``source <name>`` and ``target <name>``.

        For commands that only show: an empty source or target is more likely an unmounted disk than an empty pool, so
        the plan takes it to be as it was the last time.
        """
        absent: dict[str, str] = {}
        return self._plan(absent), absent

    def _plan(self, absent: dict[str, str] | None = None) -> Plan:
        shards, latest = self.discovery.shards(absent), self.latest()
        return Plan(self.settings, shards, self.discovery.target_stamps(latest, absent), latest)

    def snapshot(self) -> Snapshot:
        """Return this workspace with its present plan."""
        return Snapshot(self, self.plan())

    def latest(self) -> LatestLineage:
        """Return the newest lineage of every output.

        Each row tells which of its files are not there (``absent``), and whether
        :func:`~dsir_dagster.resources.verification.verify_files` took one of them (``aside``).
        """
        rows, there = self.catalog.latest(), There(self.store)
        for key, row in rows.items():
            doubtful = [name for name in row.files if not there.unchanged(name, row.modified.get(name))]
            if not doubtful:
                continue
            # The files of weights carry the fingerprint of their target's.
            made = {row.fingerprint, *row.mapping("log_weights").values()}
            absent = [name for name in doubtful if not there.made(name, made)]
            aside = any(
                path.exists() and path.stat().st_ctime >= row.finished_at.timestamp()
                for path in map(self.store.aside, absent)
            )
            if absent:
                rows.lacks(key, absent, aside)
        return rows
