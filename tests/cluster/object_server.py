"""A real S3 server on this machine, and a proxy before it that counts requests and does what bad networks do.

What belongs here: starting and ending both, and putting objects. What does not: what is tested with them.
"""

import contextlib
import http.client
import random
import shutil
import socket
import struct
import subprocess
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.fs as pafs
import pytest

#: An address of this machine's own; the port of the proxy is chosen by the system.
HOST = "127.0.0.1"
KEY, SECRET = "reader", "a-secret-of-this-test-0123456789"
BUCKET = "corpus"

IDENTITIES = (
    '{"identities": [{"name": "tests", "credentials": [{"accessKey": "%s", "secretKey": "%s"}],'
    ' "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}'
)
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)


class Proxy:
    """Passes requests on to the server, but for the faults that it is told to make.

    Attributes
    ----------
    endpoint : str
    requests : Counter
        Requests by method.
    fetched : int
        Bytes of objects sent.
    ranges : list of int
        Sizes of the bodies that were sent to GET requests of objects.
    made : Counter
        Faults that were made.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self._faults: dict[str, float] = {}
        self._only: tuple[str, ...] = ()
        self._delay = 0.0
        self.random = random.Random(7)
        self.lock = threading.Lock()
        self.count_anew()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self.server = _Server((HOST, 0), handler)
        self.endpoint = f"http://{HOST}:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def count_anew(self) -> None:
        """Set all counters to zero."""
        self.requests: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self.ranges: list[int] = []

    @property
    def fetched(self) -> int:
        return sum(self.ranges)

    @contextlib.contextmanager
    def failing(
        self,
        slow_down: float = 0.0,
        cut: float = 0.0,
        reset: float = 0.0,
        delay: float = 0.0,
        only: tuple[str, ...] = ("LIST", "GET", "HEAD", "PUT", "POST", "DELETE"),
    ) -> Iterator[None]:
        """Make faults for a while.

        Parameters
        ----------
        slow_down, cut, reset : float
            Shares of the requests: answered with status 503; with half of a body, and then a reset; with a reset.
        delay : float
            Seconds before each answer.
        only : tuple of str
            Requests that fail: methods, and LIST for a GET that lists.
        """
        self._faults = {"slow_down": slow_down, "cut": cut, "reset": reset}
        self._delay, self._only = delay, only
        try:
            yield
        finally:
            self._faults, self._delay = {}, 0.0

    def fate(self, method: str) -> str:
        """Say what becomes of a request."""
        if method not in self._only:
            return "passed"
        with self.lock:
            at = self.random.random()
            for name, share in self._faults.items():
                at -= share
                if at < 0:
                    self.made[name] += 1
                    return name
        return "passed"

    def wait(self) -> None:
        """Delay an answer."""
        time.sleep(self._delay)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        pass  # clients go away, in tests of that too


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _pass_on(self) -> None:
        proxy = self.proxy
        body = self._body()
        method = "LIST" if self.command == "GET" and "list-type" in self.path else self.command
        fate = proxy.fate(method)
        with proxy.lock:
            proxy.requests[method] += 1
        proxy.wait()
        if fate == "reset":
            self._reset()
            return
        if fate == "slow_down":
            self.send_response(503)
            self.send_header("Content-Length", str(len(SLOW_DOWN)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(SLOW_DOWN)
            return
        upstream = http.client.HTTPConnection(HOST, proxy.upstream)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body or None)
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = data[: len(data) // 2] if fate == "cut" else data
        self.wfile.write(sent)
        if method == "GET" and answer.status in (200, 206):
            with proxy.lock:
                proxy.ranges.append(len(sent))
        if fate == "cut":
            self._reset()

    def _body(self) -> bytes:
        """Read what was sent, in one piece or in chunks, and let it be passed on as one."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        del self.headers["Transfer-Encoding"]
        self.headers["Content-Length"] = str(sum(map(len, chunks)))
        return b"".join(chunks)

    def _reset(self) -> None:
        """Close the connection such that the other side sees a reset."""
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on


def weed() -> str:
    """Return the path of the S3 server's program, or skip the test."""
    found = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if found is None:
        pytest.skip("needs SeaweedFS: make e2e-cluster installs it")
    return found


def free_ports(number: int) -> list[int]:
    """Return ports that nothing listens to."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < number:
            listening = held.enter_context(socket.socket())
            listening.bind((HOST, 0))
            ports.append(listening.getsockname()[1])
        return ports


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[int]:
    """Run an S3 server on files in a folder, and yield its port."""
    (folder / "identities.json").write_text(IDENTITIES % (KEY, SECRET))
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port"]
    names += ["filer.port.grpc", "s3.port", "s3.port.grpc"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [weed(), "server", f"-dir={folder}", f"-ip={HOST}", f"-ip.bind={HOST}", "-filer", "-s3"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    command += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=40"]
    command += [f"-s3.config={folder / 'identities.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-{name}.localSocket={folder}/{name}.sock" for name in ("filer", "s3")]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            _wait_for(ports["s3.port"], server, folder / "log")
            yield ports["s3.port"]
        finally:
            server.kill()  # it takes ten seconds to end in order, and nobody needs its files


def _wait_for(port: int, server: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    store = arrow_store(f"http://{HOST}:{port}")
    while True:
        try:
            store.create_dir(BUCKET)
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the S3 server does not start:\n{log.read_text()[-3000:]}") from None
            time.sleep(0.2)


def arrow_store(endpoint: str) -> pafs.S3FileSystem:
    """Return a file system by which tests put objects."""
    return pafs.S3FileSystem(
        access_key=KEY,
        secret_key=SECRET,
        endpoint_override=endpoint,
        region="us-east-1",
        allow_bucket_creation=True,
        background_writes=False,
        retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=1),
    )


def put(port: int, name: str, content: bytes) -> None:
    """Put an object into the bucket."""
    # Without `compression=None`, Arrow compresses by the name.
    with arrow_store(f"http://{HOST}:{port}").open_output_stream(
        f"{BUCKET}/{name}", compression=None
    ) as file:
        file.write(content)


def point_to(endpoint: str, environment: pytest.MonkeyPatch) -> None:
    """Let the environment say where the store is, and how to get in."""
    environment.setenv("AWS_ENDPOINT_URL", endpoint)
    environment.setenv("AWS_ACCESS_KEY_ID", KEY)
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_NO_SIGN_REQUEST"):
        environment.delenv(name, raising=False)
