"""Dagster's run launcher, which besides knows the process of a run: whether it is alive, and how to stop it.

What belongs here: those two questions. What does not: the settings that name this launcher
(``dagster_project/instance.py``).

When the machine or ``dg dev`` goes down, the runs of then stay "started" for ever, and a backfill waits for them for
ever: Dagster's own launcher cannot tell that their processes are gone. With this one, Dagster's run monitoring
finds out, marks them as failed, and run retries start them again.

The code server is no witness for it: after *Reload definitions* another one answers, which does not know the runs of
before and so can neither say that they are alive nor stop them. The process can.
"""

import os
import signal

import dagster as dg
import psutil

from dsir_dagster.resources.dagster_private import (
    CanCancelExecutionRequest,
    CanCancelExecutionResult,
    CheckRunHealthResult,
    DagsterUserCodeUnreachableError,
    WorkerStatus,
    deserialize_value,
)

#: Seconds that a process may seem to have begun after it said so: clocks of the kernel and of Dagster differ a little.
CLOCKS_DIFFER = 2.0


class MonitoredRunLauncher(dg.DefaultRunLauncher):
    """Launches runs as processes of the code server; knows whether these are alive, and stops them."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes; Dagster's run monitoring asks."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether a run's process is alive.

        Parameters
        ----------
        run : DagsterRun
            In progress. One that no code server started, like that of ``dsir run``, counts as alive: the next
            run of the whole graph finds out.
        """
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None or worker(self._instance, run.run_id):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        # Not here, or not begun yet.
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.FAILED, "the code server that started it is gone")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "its process is gone")

    def terminate(self, run_id: str) -> bool:
        """Stop a run: interrupt its process where that is on this machine, else ask the code server to.

        Also that of a ``dsir run``, as Ctrl-C does.
        """
        run = self._instance.get_run_by_id(run_id)
        process = worker(self._instance, run_id) if run and not run.is_finished else None
        if run is None or process is None:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        self._instance.report_engine_event(
            f"Sending an interrupt to the run's process (pid: {process.pid}).", run
        )
        os.kill(process.pid, signal.SIGINT)
        return True


def worker(instance: dg.DagsterInstance, run_id: str) -> psutil.Process | None:
    """Return the living process of this machine that executes a run; None if there is none."""
    for entry in reversed(instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)):
        pid = entry.get_dagster_event().engine_event_data.metadata.get("pid")
        if pid is None:
            continue
        try:
            process = psutil.Process(int(str(pid.value)))
            alive = process.status() != psutil.STATUS_ZOMBIE
            # Another process may have got the number since.
            return process if alive and process.create_time() <= entry.timestamp + CLOCKS_DIFFER else None
        except psutil.Error:
            return None
    return None
