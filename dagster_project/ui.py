"""``dsir ui`` and ``dsir init``: the Dagster UI on a configuration.

What belongs here: what the UI needs before it starts, and starting it. What does not: what it shows
(``dagster_project/definitions.py``), Dagster's settings and databases (``dagster_project/instance.py``).
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from dsir_dagster.instance import open_instance
from dsir_dagster.resources.partitions import register_shards
from dsir_dagster.resources.plan import Plan
from dsir_dagster.resources.settings import ConfigError
from dsir_dagster.resources.workspace import Workspace

#: Name of the code location. The state of sensors and schedules in a home is kept under it.
LOCATION = "dsir"


def prepare(workspace: Workspace) -> tuple[Plan, int]:
    """Prepare DAGSTER_HOME, the catalog and the partitions of the shards.

    Returns
    -------
    Plan
    int
        Shards that were not registered before.
    """
    plan = workspace.plan()
    with open_instance(workspace.home) as instance:
        return plan, len(register_shards(instance, plan))


def serve(workspace: Workspace, port: int, host: str, say: Callable[[str], None], verbose: bool) -> int:
    """Become the process of the UI, on this configuration and this home; it ends with Ctrl-C.

    Parameters
    ----------
    workspace : Workspace
    port : int
    host : str
    say : callable
        Takes a line of text before the UI starts.
    verbose : bool
        Whether to let Dagster say all that it logs.

    Raises
    ------
    ConfigError
        Something listens on the port, or this machine does not have the address.
    """
    _free(host, port)
    prepare(workspace)
    dagster_home = Path(os.environ["DAGSTER_HOME"])
    location = {"module_name": "dsir_dagster.definitions", "location_name": LOCATION}
    servers = dagster_home / "workspace.yaml"
    servers.write_text(yaml.safe_dump({"load_from": [{"python_module": location}]}))
    os.environ |= {
        "DSIR_CONFIG": str(workspace.config.resolve()),
        "DSIR_HOME": str(workspace.home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        # Its processes are started by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
    say(f"the Dagster UI starts at http://{host}:{port}; Ctrl-C ends it")
    options = ["--workspace", str(servers), "--port", str(port), "--host", host]
    options += [] if verbose else ["--log-level", "warning"]
    sys.stdout.flush()
    # A script's background process ignores Ctrl-C, and Dagster then ignores SIGTERM, too.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Dagster advises to use `dg dev` instead, which serves a project's folder only.
    os.execv(sys.executable, [sys.executable, "-W", "ignore", "-m", "dagster", "dev", *options])


def _free(host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], found[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[4])
    except OSError as error:
        advice = "choose another with --port, or another address with --host"
        raise ConfigError(f"{host}:{port}: {error.strerror}; {advice}") from None
