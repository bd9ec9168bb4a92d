"""A real ``dg dev`` for tests: start, ask over GraphQL, stop with nothing left running.

What belongs here: the process and the protocol. What does not: assertions about the pipeline.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class DagsterServer:
    """``dg dev`` on a free port of this machine, in a session of its own; a context manager.

    Parameters
    ----------
    config, home : Path
        DSIR_CONFIG and DSIR_HOME.
    log : Path
        Where its output goes.
    """

    def __init__(self, config: Path, home: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._environment = {
            **os.environ,
            "DSIR_CONFIG": str(config),
            "DSIR_HOME": str(home),
            "DAGSTER_HOME": str(home / "dagster"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }

    def __enter__(self) -> DagsterServer:
        command = [
            Path(sys.executable).with_name("dg"),
            "dev",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        self._output = self.log.open("wb")
        self._process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=self._environment,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A server started in the background of a shell would ignore both.
            preexec_fn=lambda: [signal.signal(s, signal.SIG_DFL) for s in (signal.SIGINT, signal.SIGTERM)],
        )
        try:
            self.wait_for(lambda: self._answers(), 120, "dg dev to answer")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _answers(self) -> bool:
        try:
            return bool(
                self.ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }")
            )
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        group = self._process.pid  # it leads its session
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(group, signal.SIGKILL)
        self._output.close()
        # Code servers notice within seconds that their parent is gone.
        deadline = time.monotonic() + 30
        while (left := processes_of_session(group)) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.left = left
        for process in self.left:
            os.kill(process, signal.SIGKILL)

    def kill(self) -> None:
        """Kill every process of the server at once, as a machine that loses power does."""
        for process in processes_of_session(self._process.pid):  # it leads its session
            os.kill(process, signal.SIGKILL)
        self._process.wait()

    def ask(self, query: str, **variables: object) -> dict:
        """Send a GraphQL query; return its data."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        if answer.get("errors"):
            raise AssertionError(answer["errors"])
        return answer["data"]

    def wait_for(self, condition, seconds: float, what: str):
        """Return the first true value of a condition; fail with the end of the log after ``seconds``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := condition():
                return value
            if self._process.poll() is not None:
                break
            time.sleep(0.5)
        raise AssertionError(f"waited in vain for {what}:\n{self.log.read_text(errors='replace')[-3000:]}")

    def backfill(self, *assets: str, partitions: list[str] | None = None) -> str:
        """Launch a backfill as the UI does; return its id."""
        result = self.ask(
            """
            mutation ($params: LaunchBackfillParams!) {
              launchPartitionBackfill(backfillParams: $params) {
                __typename
                ... on LaunchBackfillSuccess { backfillId }
                ... on PythonError { message }
              }
            }""",
            params={
                "assetSelection": [{"path": [asset]} for asset in assets],
                **({"partitionNames": partitions} if partitions else {"allPartitions": True}),
            },
        )["launchPartitionBackfill"]
        assert result["__typename"] == "LaunchBackfillSuccess", result
        return result["backfillId"]

    def wait_for_backfill(self, backfill: str, seconds: float = 400) -> dict:
        """Wait until a backfill has ended; return its status and the number of its runs."""
        query = """
            query ($id: String!) {
              partitionBackfillOrError(backfillId: $id) {
                ... on PartitionBackfill { status runs(limit: 1000) { id status } }
              }
            }"""

        def ended():
            state = self.ask(query, id=backfill)["partitionBackfillOrError"]
            return state if state["status"] not in ("REQUESTED", "CANCELING") else None

        return self.wait_for(ended, seconds, f"backfill {backfill}")


def processes_of_session(session: int) -> list[int]:
    """Return the processes of a session that are still alive, zombies apart."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            alive.append(int(stat.parent.name))
    return alive
