"""The Dagster instance of a home folder.

What belongs here: its settings, and opening it. What does not: runs.
"""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from dagster_project.quick_events import record_events_quickly

#: The instance's settings, written once into a new DAGSTER_HOME.
INSTANCE_SETTINGS = """\
telemetry:
  enabled: false
run_launcher:
  module: dagster_project.launcher
  class: MonitoredRunLauncher
run_monitoring:
  enabled: true
  poll_interval_seconds: 10
run_retries:
  enabled: true
  max_retries: 2
  retry_on_asset_or_op_failure: false
concurrency:
  runs:
    max_concurrent_runs: 4
"""


def open_instance(home: Path) -> dg.DagsterInstance:
    """Open the Dagster instance of a home folder, in DAGSTER_HOME or ``<home>/dagster``."""
    folder = Path(os.environ.setdefault("DAGSTER_HOME", str((home / "dagster").resolve())))
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    if not settings.exists():
        settings.write_text(INSTANCE_SETTINGS)
    record_events_quickly()
    return dg.DagsterInstance.from_config(str(folder))
