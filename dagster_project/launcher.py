"""Custom run launcher: Dagster's default plus a health check.

What belongs here: whether the process of a run is alive, and how to stop it. What does not: the settings that name this
launcher (``dagster_project/instance.py``).

When the machine or ``dg dev`` goes down, Dagster's default launcher cannot tell that the processes of its runs are
gone: the runs stay "started" forever, and a backfill waits for them forever. With this launcher, Dagster's run
monitoring finds out and marks them as failed, and run retries start them again.

The code server cannot be trusted with this: after *Reload definitions*, a new one answers that does not know the
earlier runs, so it can neither vouch for them nor stop them. The process itself can, if it is on this machine and in
this container: elsewhere its number is that of another process, and the code server has to be asked.
"""

import json
import os
import platform
import signal

import dagster as dg
import psutil

from dsir_dagster.resources.dagster_private import (
    GRPC_INFO_TAG,
    CanCancelExecutionRequest,
    CanCancelExecutionResult,
    CheckRunHealthResult,
    DagsterUserCodeUnreachableError,
    WorkerStatus,
    deserialize_value,
)

#: Where the process of a `dsir run` is: :func:`place`.
PLACE_TAG = "dsir/place"
#: Seconds by which a process may seem to start late: the clocks of the kernel and of Dagster differ a little.
CLOCKS_DIFFER = 2.0


class MonitoredRunLauncher(dg.DefaultRunLauncher):
    """Launches runs as processes of the code server, knows whether they are alive, and stops them."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: Dagster's run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether a run's process is alive.

        Parameters
        ----------
        run : DagsterRun
            In progress. A run that no code server started, like that of ``dsir run``, counts as alive; the next run
            of the whole graph cleans it up.
        """
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None or (is_here(run) and worker(self._instance, run.run_id)):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        # In another place, or not started yet.
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.FAILED, "the code server that started it is gone")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "its process is gone")

    def terminate(self, run_id: str) -> bool:
        """Stop a run: interrupt its process if it is here, else ask the code server to.

        A ``dsir run`` stops as it does at Ctrl-C.
        """
        run = self._instance.get_run_by_id(run_id)
        found = run and not run.is_finished and is_here(run)
        process = worker(self._instance, run_id) if found else None
        if run is None or process is None:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        self._instance.report_engine_event(
            f"Sending an interrupt to the run's process (pid: {process.pid}).", run
        )
        os.kill(process.pid, signal.SIGINT)
        return True


def place() -> str:
    """Return the name of this machine and of this container: where process numbers mean the same processes."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        numbers = ""
    return f"{platform.node()} {numbers}".strip()


def is_here(run: dg.DagsterRun) -> bool:
    """Tell whether a run's process is one that this process can see.

    That of a code server is where the server is; that of a ``dsir run`` says itself where it is.
    """
    if GRPC_INFO_TAG not in run.tags:
        return run.tags.get(PLACE_TAG) == place()
    host = json.loads(run.tags[GRPC_INFO_TAG]).get("host")
    return host in (None, "localhost", "127.0.0.1", "::1")


def worker(instance: dg.DagsterInstance, run_id: str) -> psutil.Process | None:
    """Return the live process on this machine that executes a run; None if there is none."""
    for entry in reversed(instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)):
        pid = entry.get_dagster_event().engine_event_data.metadata.get("pid")
        if pid is None:
            continue
        try:
            process = psutil.Process(int(str(pid.value)))
            alive = process.status() != psutil.STATUS_ZOMBIE
            # Another process may have been given the number since.
            return process if alive and process.create_time() <= entry.timestamp + CLOCKS_DIFFER else None
        except psutil.Error:
            return None
    return None
