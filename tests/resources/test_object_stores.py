"""From a URI to Arrow's file system; what stores answer, in one line; how long they are waited for."""

import multiprocessing
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow.fs as pafs
import pytest

from dsir_dagster.resources import object_stores
from dsir_dagster.resources.corpus import (
    CorpusError,
    StoreUnreachable,
    expand,
    opening,
    read_blocks,
    stamp_of,
)
from dsir_dagster.resources.corpus.files import tag_of
from dsir_dagster.resources.object_stores import (
    ObjectStoreError,
    Unreachable,
    arrow_file_system,
    object_store_errors,
)
from dsir_dagster.resources.settings import Reader


class Stub(BaseHTTPRequestHandler):
    """Answers with one status after the other; with the last one from then on."""

    protocol_version = "HTTP/1.1"
    statuses: deque[int]
    authorizations: list[str | None]

    def answer(self):
        status = self.statuses.popleft() if len(self.statuses) > 1 else self.statuses[0]
        self.authorizations.append(self.headers.get("Authorization"))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = answer

    def log_message(self, *_):
        pass


@pytest.fixture
def stub(monkeypatch):
    handler = type("Handler", (Stub,), {"statuses": deque([200]), "authorizations": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_NO_SIGN_REQUEST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    yield handler
    server.shutdown()
    server.server_close()


def look(uri="s3://bucket/name.jsonl"):
    filesystem, path = arrow_file_system(uri)
    with object_store_errors(uri):
        return filesystem.get_file_info(path)


@pytest.mark.parametrize(
    "uri",
    ["/data/pool/*.jsonl", "file:///a", "hf://datasets/a/b", "memory://a", "zip://*::s3://bucket/a.zip"],
)
def test_other_schemes_are_not_arrows(uri):
    assert arrow_file_system(uri) is None


def test_there_is_one_file_system_for_a_store_and_a_process(stub):
    first, path = arrow_file_system("s3://bucket/folder/a%20b?.jsonl")
    assert path == "bucket/folder/a%20b?.jsonl"
    assert first is arrow_file_system("s3a://other/name")[0]
    assert isinstance(first, pafs.S3FileSystem)


def test_the_environment_says_where_the_store_is_and_how_to_get_in(stub, monkeypatch):
    assert look().type == pafs.FileType.File
    assert stub.authorizations.pop().startswith("AWS4-HMAC-SHA256 Credential=key/")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    look()
    assert stub.authorizations.pop() is None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr(object_stores, "S3_RETRIES", 1)
    with pytest.raises(Unreachable, match="does not answer"):
        look()


def in_a_fork(sent, inherited):
    sent.put((arrow_file_system("s3://bucket")[0] is inherited, look().type == pafs.FileType.File))


def test_a_forked_process_makes_its_own(stub):
    mine, _ = arrow_file_system("s3://bucket")
    look()
    context = multiprocessing.get_context("fork")
    sent = context.Queue()
    process = context.Process(target=in_a_fork, args=(sent, mine))
    process.start()
    assert sent.get(timeout=30) == (False, True)
    process.join(30)


def test_an_azure_account_is_named_by_the_uri_or_the_environment(monkeypatch):
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ObjectStoreError, match=r"which storage account.*abfs://pool@account\.dfs"):
        arrow_file_system("abfs://pool/a.jsonl")
    named, path = arrow_file_system("abfss://pool@mine.dfs.core.windows.net/a.jsonl")
    assert (named.type_name, path) == ("abfs", "pool/a.jsonl")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "mine")
    assert arrow_file_system("abfs://pool/a.jsonl") == (named, path)


@pytest.mark.parametrize(
    ("status", "kind", "meaning"),
    [
        (403, ObjectStoreError, "its store refuses access; check the credentials"),
        (301, ObjectStoreError, "its bucket is in another region; set AWS_REGION"),
        (400, ObjectStoreError, "its store answers: HTTP status 400 in HeadObject"),
        (503, Unreachable, "its store turns requests away for the moment; try again later"),
        (500, Unreachable, "its store answers: "),
    ],
)
def test_what_a_store_answers_is_said_in_one_line(stub, monkeypatch, status, kind, meaning):
    monkeypatch.setattr(object_stores, "S3_RETRIES", 1)
    stub.statuses = deque([status])
    with pytest.raises(ObjectStoreError) as refused:
        look()
    assert type(refused.value) is kind
    said = str(refused.value)
    assert said.startswith(f"s3://bucket/name.jsonl: {meaning}") and "\n" not in said, said


def test_after_one_request_was_waited_for_in_vain_others_are_not_for_a_while(stub, monkeypatch):
    monkeypatch.setattr(object_stores, "S3_RETRIES", 6)  # 1.6 seconds
    stub.statuses = deque([503])
    waited = []
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(Unreachable):
            look()
        waited.append(time.monotonic() - started)
    assert waited[0] > 1.5 > 0.5 > max(waited[1:])
    monkeypatch.setattr(object_stores, "DOWN_SECONDS", 0.1)
    stub.statuses = deque([503, 503, 503, 503, 503, 200])
    time.sleep(0.1)
    assert look().type == pafs.FileType.File


# --- files of a store ----------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder that is read as a bucket, by Arrow's own file system."""
    filesystem = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())

    def served(uri):
        return (filesystem, uri.removeprefix("s3://")) if uri.startswith("s3://") else None

    monkeypatch.setattr(opening, "arrow_file_system", served)
    return tmp_path


def test_files_of_a_store_are_found_and_read_like_local_ones(store):
    for name in ("bucket/a.jsonl", "bucket/more/b.jsonl", "bucket/more/_c.jsonl"):
        path = store / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"text": "text of {name}"}}\n')
    found = [info.uri for info in expand("s3://bucket/**/*.jsonl")]
    assert found == ["s3://bucket/a.jsonl", "s3://bucket/more/b.jsonl"]
    assert (
        [info.uri for info in expand("s3://bucket/*")]
        == found[:1]
        == [info.uri for info in expand("s3://bucket/a.jsonl")]
    )
    [block] = read_blocks(found[1], Reader())
    assert block.parse().texts.to_pylist() == ["text of bucket/more/b.jsonl"]
    for uri, said in (
        ("s3://bucket/none/*", "no file matches this pattern"),
        ("s3://bucket/none.jsonl", "no such file"),
    ):
        with pytest.raises(CorpusError, match=said):
            expand(uri)


@pytest.mark.parametrize("size", [100, 1000, 100_000])
def test_large_files_of_a_store_are_read_in_requests(store, monkeypatch, size):
    monkeypatch.setattr(opening, "REQUEST_BYTES", 1000)
    (store / "bucket").mkdir()
    lines = "".join(f'{{"text": "line {i}"}}\n' for i in range(size // 20))
    (store / "bucket/a.jsonl").write_text(lines)
    texts = [
        text for block in read_blocks("s3://bucket/a.jsonl", Reader(), 512) for text in block.parse().texts
    ]
    assert [str(text) for text in texts] == [f"line {i}" for i in range(size // 20)]


def test_without_a_tag_the_content_is_the_stamp(store):
    (store / "bucket").mkdir()
    (store / "bucket/a.jsonl").write_text("{}")
    [info] = expand("s3://bucket/*")
    assert len(stamp_of(info)) == 64


def test_quotes_around_a_tag_are_no_part_of_it():
    assert tag_of({"ETag": '"5d41-2"'}) == tag_of({"ETag": "5d41-2"}) == "ETag 5d41-2"


def test_a_folder_that_cannot_be_listed_is_an_error(stub, monkeypatch):
    monkeypatch.setattr(object_stores, "S3_RETRIES", 1)
    stub.statuses = deque([503])
    with pytest.raises(StoreUnreachable, match=r"^s3://bucket/pool/\*: its store turns requests away"):
        expand("s3://bucket/pool/*")
