"""Every wording that is recognized is still what the installed library says: each is provoked."""

import errno
import gzip
import io
import json
import os
import re
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.fs
import pyarrow.json
import pytest

from dsir_dagster.resources import wording
from dsir_dagster.resources.dagster_private import InstanceRef
from dsir_dagster.resources.wording import Wording, one_line, system_error

WORDINGS = {name: value for name, value in vars(wording).items() if isinstance(value, Wording)}


# --- Arrow and gzip --------------------------------------------------------------------------------------------------


def read_json(line: bytes, **types: pa.DataType) -> None:
    options = pa.json.ParseOptions(explicit_schema=pa.schema(list(types.items())))
    pa.json.read_json(pa.BufferReader(line), parse_options=options)


def read_csv(text: bytes) -> None:
    options = pa.csv.ReadOptions(use_threads=False, block_size=16)
    with pa.csv.open_csv(pa.BufferReader(text), read_options=options) as reader:
        reader.read_all()


def decompress(packed: bytes, codec: str = "gzip") -> None:
    pa.CompressedInputStream(pa.BufferReader(packed), codec).read()


def decompress_with_python(packed: bytes) -> None:
    gzip.GzipFile(fileobj=io.BytesIO(packed)).read()


MEMBER = gzip.compress(b"text")
#: As `zstd --long=31` begins a frame: with a window of 2 GiB.
LARGE_FRAME = b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(100)


# --- object stores, by Arrow -----------------------------------------------------------------------------------------

NOWHERE = "127.0.0.1:9"


def read_s3() -> None:
    once = pa.fs.AwsDefaultS3RetryStrategy(max_attempts=0)
    options = {"endpoint_override": f"http://{NOWHERE}", "region": "us-east-1", "anonymous": True}
    pa.fs.S3FileSystem(**options, retry_strategy=once).get_file_info("bucket/name")


class Refusing(BaseHTTPRequestHandler):
    """Says that an object has 100 bytes, and answers each request for them with a longer refusal."""

    def do_HEAD(self) -> None:
        self.answer(200, 100)

    def do_GET(self) -> None:
        refusal = b"<Error><Code>SlowDown</Code><Message>" + b"Reduce your request rate. " * 20
        refusal += b"</Message></Error>"
        self.answer(503, len(refusal))
        self.wfile.write(refusal)

    def answer(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def read_s3_with_a_refusal_that_is_too_long() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        once = pa.fs.AwsDefaultS3RetryStrategy(max_attempts=0)
        at = {"endpoint_override": f"http://127.0.0.1:{server.server_port}", "region": "us-east-1"}
        try:
            store = pa.fs.S3FileSystem(**at, anonymous=True, retry_strategy=once)
            store.open_input_file("bucket/name").read_at(10, 0)
        finally:
            server.shutdown()


def read_gcs() -> None:
    at_once = timedelta(seconds=0)
    options = {"endpoint_override": NOWHERE, "scheme": "http", "anonymous": True}
    pa.fs.GcsFileSystem(**options, retry_time_limit=at_once).get_file_info("bucket/name")


def read_azure() -> None:
    """Of a server that knows no HEAD: where nobody answers, Azure's client tries for six seconds."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        where = {f"{each}_storage_authority": f"127.0.0.1:{server.server_port}" for each in ("blob", "dfs")}
        plain = {f"{each}_storage_scheme": "http" for each in ("blob", "dfs")}
        try:
            pa.fs.AzureFileSystem("account", account_key="YQ==", **where, **plain).open_input_file(
                "container/name"
            )
        finally:
            answering.join()


# --- DuckDB ----------------------------------------------------------------------------------------------------------

HEADER, BLOCK = 4096, 262144


def database() -> str:
    """Make a database of several blocks in the current folder."""
    with duckdb.connect("x.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT md5(i::VARCHAR) AS m FROM range(20000) AS r(i)")
        connection.execute("CHECKPOINT")
    return "x.duckdb"


def read_database(changed: bytes, times: int = 1) -> None:
    """Read all rows of a database, again after an error; the last error is raised."""
    Path("changed.duckdb").write_bytes(changed)
    connection = duckdb.connect()
    for left in reversed(range(times)):
        try:
            connection.execute("ATTACH IF NOT EXISTS 'changed.duckdb' AS changed")
            connection.execute("SELECT max(m) FROM changed.t").fetchall()
        except duckdb.Error:
            if not left:
                raise


def checksummed(data: bytes, begin: int, size: int, at: int, value: bytes) -> bytes:
    """Overwrite bytes in a header or a block of a database, and correct its checksum."""
    part = bytearray(data[begin : begin + size])
    part[at : at + len(value)] = value
    words = np.frombuffer(bytes(part[8:]), np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
    part[:8] = (int(np.bitwise_xor.reduce(words)) ^ 5381).to_bytes(8, "little")
    return data[:begin] + bytes(part) + data[begin + size :]


def a_block_overwritten(at: int, fill: bytes, *errors: type[duckdb.Error]) -> bytes:
    """Damage the first block that DuckDB then says one of these errors of."""
    data = Path(database()).read_bytes()
    for begin in range(3 * HEADER, len(data), BLOCK):
        changed = checksummed(data, begin, BLOCK, at, fill * 64)
        try:
            read_database(changed)
        except errors:
            return changed
        except duckdb.Error:
            pass
    raise AssertionError(f"no block of the database brings about {errors}")


def locked_by_another_process() -> None:
    code = (
        f"import duckdb, sys; c = duckdb.connect({database()!r}); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        try:
            duckdb.connect().execute("ATTACH 'x.duckdb' AS x")
        finally:
            other.communicate()


INTERRUPTED = """
import duckdb, signal
connection = duckdb.connect(config={"threads": 1})
signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    connection.execute("SELECT count(*) FROM range(1000000000000) AS r(i) WHERE hash(i) = 1")
except RuntimeError as error:
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(error)
"""


def interrupted() -> None:
    """Interrupt a query of one thread: where another one has the work, DuckDB waits for it and does not notice."""
    command = [sys.executable, "-c", INTERRUPTED]
    raise RuntimeError(subprocess.run(command, capture_output=True, text=True, timeout=20).stdout)


def written_though_read_only() -> None:
    duckdb.connect(database(), read_only=True).execute("CREATE TABLE u (i INTEGER)")


def a_footer_that_cannot_be_parsed() -> None:
    duckdb.execute("COPY (SELECT 1 AS i) TO 'x.parquet' (FORMAT parquet)")
    data = Path("x.parquet").read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    Path("x.parquet").write_bytes(data[: -8 - size] + bytes(size) + data[-8:])
    duckdb.execute("FROM 'x.parquet'")


# --- SQLite and the system -------------------------------------------------------------------------------------------


@contextmanager
def limited(what: int, limit: int):
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def sqlite(statement: str, *before: str, database: str = "x.db", **options: object) -> None:
    with sqlite3.connect(database, **options) as connection:
        for each in (*before, statement):
            connection.execute(each).fetchall()


def a_locked_database() -> None:
    other = sqlite3.connect("x.db")
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN EXCLUSIVE")
    sqlite("SELECT * FROM t", timeout=0)


def a_malformed_database() -> None:
    sqlite("INSERT INTO t VALUES (zeroblob(100000))", "CREATE TABLE t (x)")
    data = Path("x.db").read_bytes()
    Path("x.db").write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    sqlite("SELECT * FROM t")


def a_database_of_something_else() -> None:
    Path("x.db").write_bytes(b"no database" * 1000)
    sqlite("SELECT * FROM t")


def a_database_that_cannot_grow() -> None:
    sqlite("CREATE TABLE t (x)")
    with limited(resource.RLIMIT_FSIZE, 20_000):
        sqlite("INSERT INTO t VALUES (zeroblob(100000))")


# --- Dagster ---------------------------------------------------------------------------------------------------------


def opened_instance(module: str, name: str) -> None:
    config = {"base_dir": {"env": "DSIR_IS_NOT_SET"}}
    storage = {"custom": {"module": module, "class": name, "config": config}}
    Path("dagster.yaml").write_text(json.dumps({"storage": storage}))
    dg.DagsterInstance.from_ref(InstanceRef.from_dir("."))


#: What makes a library say each pattern of a wording, in the order of the patterns.
PROVOKED: dict[str, list[Callable[[], object]]] = {
    "SEVERAL_JSON_VALUES": [lambda: json.loads("{} {}")],
    "NUMBER_FOR_STRING": [lambda: read_json(b'{"id": 1}\n', id=pa.string())],
    "NO_INTEGER": [lambda: read_json(b'{"id": 1.5}\n', id=pa.int64())],
    "EMPTY_CSV": [lambda: read_csv(b"")],
    "HEADER_BEYOND_BLOCK": [lambda: read_csv(b"a" * 100 + b",b\n1,2\n")],
    "RECORD_BEYOND_BLOCK": [lambda: read_csv(b"a,b\n1,2\n" + b"x" * 100 + b",2\n")],
    "CUT_OFF": [lambda: decompress(MEMBER[:-5]), lambda: decompress_with_python(MEMBER + b"\x1f")],
    "NO_GZIP_MEMBER": [
        lambda: decompress(MEMBER + b"something else"),
        lambda: decompress(MEMBER + b"\x1f\x8b\x07" + bytes(20)),
        lambda: decompress_with_python(MEMBER + b"something else"),
    ],
    "LARGE_WINDOW": [lambda: decompress(LARGE_FRAME, "zstd")],
    "S3_SAID": [read_s3],
    "S3_NO_ROOM": [read_s3_with_a_refusal_that_is_too_long],
    "GCS_SAID": [read_gcs],
    "AZURE_SAID": [read_azure],
    "LOCKED": [locked_by_another_process],
    "OTHER_DUCKDB": [
        lambda: read_database(checksummed(Path(database()).read_bytes(), 0, HEADER, 12, b"\xff"))
    ],
    "INTERRUPTED": [interrupted],
    "READ_ONLY": [written_though_read_only],
    "DAMAGED": [
        lambda: read_database(Path(database()).read_bytes()[: 3 * HEADER] + bytes(3 * BLOCK)),
        lambda: read_database(Path(database()).read_bytes()[: 3 * HEADER]),
        lambda: read_database(a_block_overwritten(16, b"\x7f", duckdb.FatalException), times=2),
        lambda: read_database(a_block_overwritten(16, b"\x7f", duckdb.SerializationException)),
    ],
    "NO_DATABASE": [
        lambda: read_database(b"no database" * 5000),
        lambda: read_database(a_block_overwritten(40, b"\xee", duckdb.IOException)),
    ],
    "BAD_PARQUET_FOOTER": [a_footer_that_cannot_be_parsed],
    "SQLITE_FULL": [
        lambda: sqlite(
            "INSERT INTO t VALUES (zeroblob(100000))", "CREATE TABLE t (x)", "PRAGMA max_page_count = 3"
        )
    ],
    "SQLITE_NOT_WRITABLE": [
        lambda: sqlite("CREATE TABLE t (x)", "PRAGMA query_only = 1"),
        lambda: sqlite("SELECT 1", database="none/x.db"),
    ],
    "SQLITE_LOCKED": [a_locked_database],
    "SQLITE_DAMAGED": [a_malformed_database, a_database_of_something_else],
    "SQLITE_IO": [a_database_that_cannot_grow],
    "UNSET_VARIABLE": [lambda: opened_instance(module="dsir_dagster.storage", name="QuickSqliteStorage")],
    "MISSING_CLASS": [lambda: opened_instance(module="not_installed", name="Storage")],
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_wording_is_provoked():
    assert {name: len(each.patterns) for name, each in WORDINGS.items()} == {
        name: len(each) for name, each in PROVOKED.items()
    }


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name in WORDINGS for i in range(len(PROVOKED[name]))]
)
def test_the_library_still_says_so(name, number):
    pattern = WORDINGS[name].patterns[number]
    with pytest.raises((Exception,)) as caught:
        PROVOKED[name][number]()
    said = one_line(caught.value)
    found = WORDINGS[name](caught.value) and re.search(pattern, said)
    assert found, (
        f"wording.{name} looks for {pattern!r}; the installed library says: {type(caught.value)} {said}"
    )


def test_the_field_that_is_a_number_is_known():
    with pytest.raises(pa.ArrowInvalid) as caught:
        read_json(b'{"m": {"id": 1}}\n', m=pa.struct([("id", pa.string())]))
    assert wording.NUMBER_FOR_STRING.match(caught.value)[1] == "m/id"


def written_beyond_a_limit() -> None:
    with limited(resource.RLIMIT_FSIZE, 20_000):
        database()


def opened_beyond_a_limit() -> None:
    database()
    connection = duckdb.connect()
    connection.execute("SELECT 1")
    spare = os.dup(0)
    os.close(spare)
    with limited(resource.RLIMIT_NOFILE, spare):
        connection.execute("ATTACH 'x.duckdb' AS x")


@pytest.mark.parametrize(
    ("number", "fails"), [(errno.EFBIG, written_beyond_a_limit), (errno.EMFILE, opened_beyond_a_limit)]
)
def test_duckdb_quotes_what_the_system_says(number, fails):
    with pytest.raises(duckdb.Error) as caught:
        fails()
    message = f"wording.system_error does not find {os.strerror(number)!r}; DuckDB says: {caught.value}"
    assert system_error(caught.value, (errno.ENOSPC, number)) == number, message
    assert system_error(caught.value, (errno.ENOSPC,)) is None
