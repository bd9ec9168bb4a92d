"""Servers for the tests of a deployment: on loopback, on free ports, ended by their own process ids.

What belongs here: starting real servers and ending them. What does not: Dagster's own (``tests/e2e/server.py``),
assertions.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

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


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's server programs, as Debian or the PATH has them; skip the test without."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.skip("no PostgreSQL here: neither on the PATH nor in /usr/lib/postgresql")
