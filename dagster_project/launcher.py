"""Dagster's run launcher, which besides knows whether a run's process is alive.

What belongs here: that one question. What does not: the settings that name this launcher
(``dagster_project/runs.py``).

When the machine or ``dg dev`` goes down, the runs of then stay "started" for ever, and a backfill waits for them for
ever: Dagster's own launcher can not tell that their processes are gone. With this one, Dagster's run monitoring
finds out, marks them as failed, and run retries start them again.
"""

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value


class MonitoredRunLauncher(dg.DefaultRunLauncher):
    """Launches runs as processes of the code server, and asks it whether they are alive."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes; Dagster's run monitoring asks."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the code server that started a run still executes it.

        Parameters
        ----------
        run : DagsterRun
            In progress. One that no code server started, like those of ``dsir run``, counts as alive: the next
            run of the whole graph finds out.
        """
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.FAILED, "the code server that started it is gone")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "the code server does not execute it any more")
