"""Servers for the tests of a deployment: on loopback, on free ports, ended by their own process ids.

What belongs here: starting real servers and ending them, Dagster's by the commands of ``deploy/compose.yaml``. What
does not: ``dg dev`` and what is asked of Dagster (``tests/e2e/server.py``), assertions.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.e2e.server import REPOSITORY, DagsterServer, processes_of_session

DEPLOY = REPOSITORY / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())

#: Whom servers run as that refuse to run as root.
UNPRIVILEGED = "nobody"


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a condition; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.1)


class Postgres:
    """PostgreSQL with an empty database, in a folder of its own; a context manager.

    Attributes
    ----------
    environment : dict of str to str
        What ``deploy/dagster.yaml`` reads of it.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.environment = {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(self.port),
            "DAGSTER_PG_USER": "dagster",
            "DAGSTER_PG_PASSWORD": secrets.token_hex(8),
            "DAGSTER_PG_DB": "postgres",
        }
        # Below pytest's folders only their owner may read, and the path of a socket is short.
        self._folder = Path(tempfile.mkdtemp(prefix="dsir-pg-"))
        self._owner = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        if self._owner:
            os.chown(self._folder, self._owner.pw_uid, self._owner.pw_gid)

    def __enter__(self) -> Postgres:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        programs, data = postgres_programs(), self._folder / "data"
        password = self._folder / "password"
        password.write_text(self.environment["DAGSTER_PG_PASSWORD"])
        password.chmod(0o644)  # in a folder that only its owner may read
        options = ["-D", data, "-U", "dagster", "--auth=scram-sha-256", f"--pwfile={password}"]
        options += ["--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run([programs / "initdb", *options], check=True, capture_output=True, **self._as_owner)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
        }
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [programs / "postgres", "-D", data, *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._as_owner,
            )
        wait_until(self._answers, 30, "PostgreSQL to answer")

    @property
    def _as_owner(self) -> dict[str, object]:
        own = (
            {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}
            if self._owner
            else {}
        )
        return {"cwd": self._folder, **own}

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError((self._folder / "log").read_text())
        return "ready to accept connections" in (self._folder / "log").read_text()

    def rows(self, query: str) -> list[tuple]:
        """Ask the database."""
        import psycopg2

        names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD", "dbname": "DB"}
        options = {name: self.environment[f"DAGSTER_PG_{end}"] for name, end in names.items()}
        connection = psycopg2.connect(**options)
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetchall()
        finally:
            connection.close()

    def __exit__(self, *_: object) -> None:
        process = getattr(self, "_process", None)
        if process:
            process.send_signal(signal.SIGINT)  # ends open connections too
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder)


class Deployment(DagsterServer):
    """Code location, webserver and daemon, each by its command in ``deploy/compose.yaml``; a context manager.

    Parameters
    ----------
    config, home : Path
        DSIR_CONFIG and DSIR_HOME.
    log : Path
        Where the output of all of them goes.
    environment : dict of str to str
        What else they need.
    """

    def __init__(self, config: Path, home: Path, log: Path, environment: dict[str, str]) -> None:
        super().__init__(config, home, log)
        self._code_port = str(free_port())
        self._environment |= {"DSIR_CODE_HOST": "127.0.0.1", "DSIR_CODE_PORT": self._code_port, **environment}
        self._started: list[subprocess.Popen] = []

    def command(self, service: str, healthcheck: bool = False) -> list[str]:
        """Return the command of a service, or of its health check, for the loopback address and free ports."""
        here = {"0.0.0.0": "127.0.0.1", "4000": self._code_port, "3000": str(self.port)}
        here["/etc/dsir/workspace.yaml"] = str(DEPLOY / "workspace.yaml")
        found = COMPOSE["services"][service]
        command = found["healthcheck"]["test"][1:] if healthcheck else found["command"]
        program, *arguments = (here.get(each, each) for each in command)
        return [str(Path(sys.executable).with_name(program)), *arguments]

    def call(self, service: str, healthcheck: bool = False) -> subprocess.Popen:
        """Start the command of a service, in a session of its own."""
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self.command(service, healthcheck),
                cwd=self.log.parent,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Deployment:
        try:
            for service in ("code", "webserver", "daemon"):
                self._process = self.call(service)
                self._started.append(self._process)
                if "healthcheck" in COMPOSE["services"][service]:
                    healthy = partial(self.call, service, healthcheck=True)
                    self.wait_for(lambda healthy=healthy: healthy().wait(60) == 0, 120, service)
            self.wait_for(self._answers, 120, "the webserver to answer")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            process.send_signal(signal.SIGTERM)
        for process in self._started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        deadline = time.monotonic() + 30
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.left = left
        for process in self.left:
            os.kill(process, signal.SIGKILL)

    def _left(self) -> list[int]:
        return [each for process in self._started for each in processes_of_session(process.pid)]


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's server programs, as Debian or the PATH has them; skip the test without."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.skip("no PostgreSQL here: neither on the PATH nor in /usr/lib/postgresql")
