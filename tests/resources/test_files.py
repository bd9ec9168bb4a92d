"""What a file is, by its bytes; which files a pattern means; what a store says of them."""

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
import time
import zipfile
from typing import ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from dsir_dagster.resources.corpus import CorpusError, content_stamp, discover, expand
from dsir_dagster.resources.corpus.files import modified_of, tag_of
from dsir_dagster.resources.discovery import SAME_SECOND
from dsir_dagster.resources.settings import RawSource, Reader
from tests.pipeline import sentences
from tests.resources.test_corpus import TEXT, read, source, zstd

LINES = b'{"text": "one"}\n{"text": "two"}\n'


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.JSONL.GZIP", "a.json.zst", "a.jsonlines.zstd", "A.NDJSON"]
)
def test_the_first_bytes_decide_the_compression(tmp_path, name, compress):
    (tmp_path / name).write_bytes(compress(LINES))
    assert read(tmp_path / name)[1] == ["one", "two"]
    assert [shard.key.lower() for shard in discover(source(tmp_path, "*"))] == ["pool.a"]


def test_tsv_and_pq(tmp_path):
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b'id\ttext\n1\tone, two\n2\t"a\ttab"\n'))
    assert read(tmp_path / "a.tsv.gz")[1] == ["one, two", "a\ttab"]
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "a.pq")
    assert read(tmp_path / "a.pq")[1] == ["one"]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("zeros", [4, 512, 100_000])
def test_zeros_after_gzip_are_padding(tmp_path, kind, zeros):
    path = tmp_path / f"a.{kind}.gz"
    content = LINES if kind == "jsonl" else b"text\none\ntwo\n"
    path.write_bytes(gzip.compress(content[:20]) + gzip.compress(content[20:]) + bytes(zeros))
    assert read(path)[1] == ["one", "two"]
    assert read(path, block_bytes=3)[1] == ["one", "two"]


@pytest.mark.parametrize("garbage", [b"garbage", b"\0\0\0\0garbage", b"\0garbage", LINES])
def test_anything_else_after_gzip_is_named(tmp_path, garbage):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LINES) + garbage)
    with pytest.raises(
        CorpusError, match=r"a\.jsonl\.gz: after the end of a gzip stream .*gzip -dc a\.jsonl\.gz"
    ):
        read(path)


def test_a_window_beyond_the_bound_is_named_with_the_command(tmp_path):
    path = tmp_path / "long.jsonl.zst"
    # The header of a frame with a window of 2 GiB, as `zstd --long=31` writes it from a pipe.
    path.write_bytes(bytes.fromhex("28b52ffd04a8") + zstd(LINES)[6:])
    with pytest.raises(
        CorpusError, match=r"more than 128 MiB .*`zstd -dc --long=31 long\.jsonl\.zst \| zstd -o "
    ):
        read(path)


PARQUET = pa.BufferOutputStream()
pq.write_table(pa.table({"text": ["one"]}), PARQUET)
ARROW = pa.BufferOutputStream()
with pa.ipc.new_file(ARROW, pa.schema({"text": pa.string()})):
    pass


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.jsonl", PARQUET.getvalue().to_pybytes(), "a Parquet file"),
        ("a.csv", ARROW.getvalue().to_pybytes(), "an Arrow IPC file"),
        (
            "a.jsonl.gz",
            gzip.compress(PARQUET.getvalue().to_pybytes()),
            "compressed with gzip.*a Parquet file",
        ),
        ("a.jsonl.gz", gzip.compress(gzip.compress(LINES)), "compressed with gzip.*a gzip file"),
        ("a.jsonl.bz2.gz", b"", None),
        ("a.jsonl", b"\xfd7zXZ\0\0\4", "an xz file"),
        ("a.jsonl", b"PK\x03\x04....", "a zip archive"),
        ("a.parquet", ARROW.getvalue().to_pybytes(), "an Arrow IPC file"),
        ("a.parquet", zstd(LINES), "a zstd file"),
        ("a.parquet", LINES, "JSON text"),
        ("a.arrow", PARQUET.getvalue().to_pybytes(), "a Parquet file"),
    ],
    ids=map(str, range(11)),  # gzip writes the time: contents are no names of tests
)
def test_a_suffix_that_lies_is_named(tmp_path, name, content, found):
    (tmp_path / name).write_bytes(content)
    why = rf"{re.escape(name)}: by its first bytes this is .*{found}" if found else "this suffix is not known"
    with pytest.raises(CorpusError, match=why):
        read(tmp_path / name)


@pytest.mark.parametrize("block_bytes", [5, 1 << 20])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig"])
def test_other_encodings_of_unicode_are_decoded(tmp_path, encoding, compress, block_bytes):
    texts = ["one", "zwei ü", "три", "四 😀"]
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\r\n" for text in texts)
    (tmp_path / "a.jsonl").write_bytes(compress(lines.encode(encoding)))
    assert read(tmp_path / "a.jsonl", block_bytes=block_bytes)[1] == texts
    table = "id,text\r\n" + "".join(f"{i},{text}\r\n" for i, text in enumerate(texts))
    (tmp_path / "a.csv").write_bytes(compress(table.encode(encoding)))
    assert read(tmp_path / "a.csv", Reader(id="id"), block_bytes)[1:3] == (texts, ["0", "1", "2", "3"])


def test_an_encoding_that_is_begun_and_not_kept_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES.decode().encode("utf-16") + b"x")
    with pytest.raises(CorpusError, match=r"a\.jsonl: begins as utf-16.*, but is not: .*UTF-8"):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("delimiter", "called"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")]
)
def test_another_delimiter_is_named_with_the_command_that_converts(tmp_path, delimiter, called):
    path = tmp_path / "a b.csv"
    path.write_text(f'id{delimiter}text\n1{delimiter}"one, two"\n2{delimiter}two, three\n')
    with pytest.raises(CorpusError, match=rf"no column 'text'; its header is delimited by {called}") as error:
        read(path)
    command = str(error.value).split("`")[1].replace("python", shlex.quote(sys.executable))
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert read(tmp_path / "new.csv")[1] == ["one, two", "two, three"]


# --- which files ----------------------------------------------------------------------------------------


def test_odd_names_are_read_and_have_valid_keys(pipeline):
    names = ["bad\udcff", "new\nline", "esc\x1b[31m", "per%41cent\x07"]
    pipeline.write_pool()
    for seed, name in enumerate(names, 10):
        pipeline.write(f"pool/{name}.jsonl", sentences("law", 20, seed=seed))
    stages = pipeline.run()
    assert [stage.errors for stage in stages.values()] == [[]] * 6
    found = pipeline.rows("SELECT shard, uri FROM shards WHERE uri LIKE 'file://%'")
    assert len(found) == len(names)
    for key, uri in found:
        assert re.fullmatch(r"pool\.[A-Za-z0-9_.-]+", key) and uri.isprintable()
        assert pipeline.rows(f"SELECT count(*) FROM documents WHERE shard = '{key}'") == [(20,)]


def test_an_odd_name_in_an_error_is_one_line_of_unicode(tmp_path):
    (tmp_path / "bad\udcff\n.jsonl.gz").write_bytes(gzip.compress(LINES)[:-3])
    [file] = expand(f"{tmp_path}/*")
    with pytest.raises(
        CorpusError, match=r"file://.*bad%FF%0A\.jsonl\.gz: the compressed stream ends"
    ) as error:
        read(file.uri)
    assert str(error.value).isprintable() and str(error.value).encode()


@pytest.mark.parametrize("pattern", ["pool/*.jsonl", "**/p*.jsonl", "pool/[a-p]*.jsonl", "pool/part.jsonl"])
def test_a_folder_with_brackets_is_no_pattern(pipeline, pattern):
    folder = pipeline.folder / "[2024] *run?"
    folder.mkdir()
    pipeline.data.rename(folder / "data")
    pipeline.folder, pipeline.data = folder, folder / "data"
    pipeline.write("pool/part.jsonl", sentences("law", 40, seed=1))
    pipeline.config["raw"][0]["uri"] = f"data/{pattern}"
    workspace = pipeline.workspace()
    [shard] = workspace.discovery.shards()
    assert shard.uri == str(folder / "data/pool/part.jsonl") and shard.shard in (
        "pool.part",
        "pool.pool.part",
    )
    assert [stage.errors for stage in pipeline.run().values()] == [[]] * 6


def test_a_missing_file_in_a_folder_with_brackets_is_named_as_it_is(pipeline):
    folder = pipeline.folder / "[2024]"
    folder.mkdir()
    pipeline.folder = folder
    pipeline.config["raw"][0]["uri"] = "gone.jsonl"
    with pytest.raises(CorpusError, match=re.escape(f"{folder}/gone.jsonl: no such file")):
        pipeline.workspace().discovery.shards()


def test_what_lies_in_the_home_is_left_out(pipeline):
    pipeline.write_pool()
    pipeline.home = pipeline.data / "outputs"
    pipeline.config["raw"][0]["uri"] = "data/**/*.jsonl"
    pipeline.config["targets"][0]["uri"] = "data/**/med*.jsonl"
    pipeline.run()
    assert list(pipeline.home.glob("selections/**/*.jsonl"))
    plan = pipeline.workspace().plan()
    assert not [file for file in plan.shards.values() if "outputs" in file.uri]
    assert {output.state for output in plan.outputs()} == {"fresh"}
    with pytest.raises(
        CorpusError, match=r"no file matches this pattern \(\d files in DSIR_HOME were left out\)"
    ):
        expand(f"{pipeline.data}/*/selections/**/*.jsonl", pipeline.home)


def test_a_pool_in_a_folder_of_the_home_that_is_named_is_read(tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/a.jsonl").write_bytes(LINES)
    assert len(discover(source(tmp_path, "pool/*"), tmp_path)) == 1


# --- a reader beside the configuration ------------------------------------------------------------------

READER = "import pyarrow as pa\n{}\ndef read(uri):\n    yield pa.RecordBatch.from_pylist([{{'text': {}}}])\n"


def test_a_reader_beside_the_configuration_comes_first(tmp_path, monkeypatch):
    path_before = list(sys.path)
    monkeypatch.setattr(sys, "path", path_before.copy())
    for name in ("one", "two"):  # two pipelines in one process, with modules named like ones of this project
        folder = tmp_path / name
        (folder / "dsir").mkdir(parents=True)
        (folder / "dsir/inner.py").write_text(READER.format("from .texts import TEXT", "TEXT"))
        (folder / "dsir/texts.py").write_text(f"TEXT = 'inner {name}'")
        (folder / "tests.py").write_text(READER.format(f"import helper_{name}", f"helper_{name}.TEXT"))
        (folder / f"helper_{name}.py").write_text(f"TEXT = 'text of {name}'")
        for reader, text in (("tests:read", f"text of {name}"), ("dsir.inner:read", f"inner {name}")):
            each = Reader(reader=reader)
            each.beside(folder)
            assert read("x", each)[1] == [text]
    assert sys.path[: len(path_before)] == path_before, "what is installed is not shadowed"
    import dsir

    assert "inner" not in vars(dsir)


def test_a_reader_that_is_not_there_says_where_it_was_looked_for(tmp_path):
    reader = Reader(reader="nowhere_at_all:read")
    reader.beside(tmp_path)
    with pytest.raises(
        CorpusError, match=rf"looked for in {tmp_path}, beside the configuration, and then among"
    ):
        read("x", reader)
    (tmp_path / "broken.py").write_text("import no_such_module")
    reader = Reader(reader="broken:read")
    reader.beside(tmp_path)
    with pytest.raises(CorpusError, match="No module named 'no_such_module'"):
        read("x", reader)


# --- stores ---------------------------------------------------------------------------------------------


class Store(MemoryFileSystem):
    """A store that remembers listings, as s3fs does, and raises what it likes."""

    protocol = "store"
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]
    tags: ClassVar[bool] = True
    modified: ClassVar[float | None] = None
    opened: ClassVar[list] = []
    broken: ClassVar[set] = set()
    listings: ClassVar[dict] = {}
    find = AbstractFileSystem.find

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("store://", "memory://"))

    def ls(self, path, detail=True, **kwargs):
        if path not in self.listings:
            self.listings[path] = super().ls(path, detail=True, **kwargs)
            for info in self.listings[path]:
                if self.tags and info["type"] == "file":
                    info["ETag"] = f'"{hash(self.store[info["name"]].getvalue())}"'
                if self.modified is not None:
                    info["mtime"] = self.modified
        return self.listings[path] if detail else [info["name"] for info in self.listings[path]]

    def invalidate_cache(self, path=None):
        self.listings.clear()

    def _open(self, path, *args, **kwargs):
        self.opened.append(path)
        if path in self.broken:
            raise NoCredentials("Unable to locate credentials for s3://key:secret@bucket")
        return super()._open(path, *args, **kwargs)


class NoCredentials(Exception):
    """As botocore's: no OSError."""


@pytest.fixture
def store(monkeypatch):
    fsspec.register_implementation("store", Store, clobber=True)
    for name in ("store", "listings"):
        monkeypatch.setattr(Store, name, {})
    monkeypatch.setattr(Store, "pseudo_dirs", [""])
    monkeypatch.setattr(Store, "broken", set())
    return fsspec.filesystem("store")


def put(store, name, records):
    store.pipe(f"/pool/{name}", "".join(json.dumps(record) + "\n" for record in records).encode())


@pytest.mark.parametrize("tags", [True, False])
def test_a_store_without_times_is_seen_to_change_in_a_process_that_lives_on(
    pipeline, store, monkeypatch, tags
):
    monkeypatch.setattr(Store, "tags", tags)
    pipeline.config["raw"][0]["uri"] = "store://pool/*.jsonl"
    put(store, "a.jsonl", [{"id": "1", "text": "first"}])
    workspace = pipeline.workspace()
    before = {file.shard: file.stamp for file in workspace.discovery.shards()}
    assert {file.shard: file.stamp for file in workspace.discovery.shards()} == before
    put(store, "a.jsonl", [{"id": "1", "text": "other"}])  # the same size
    put(store, "b.jsonl", [{"id": "2", "text": "new"}])
    after = {file.shard: file.stamp for file in workspace.discovery.shards()}
    assert set(after) == {"pool.a", "pool.b"} and after["pool.a"] != before["pool.a"]
    stored = pipeline.rows("SELECT shard, stamp FROM shards ORDER BY ALL")
    assert stored == sorted(after.items())


def test_a_file_that_was_seen_right_after_it_was_written_is_read_for_its_stamp_once_more(
    pipeline, store, monkeypatch
):
    monkeypatch.setattr(Store, "tags", False)
    monkeypatch.setattr(Store, "opened", [])
    pipeline.config["raw"][0]["uri"] = "store://pool/*.jsonl"
    put(store, "a.jsonl", [{"id": "1", "text": "first"}])
    monkeypatch.setattr(Store, "modified", time.time() - SAME_SECOND + 0.5)
    read = []
    for pause in (0, 1, 0, 0):  # the second look is late enough, and is remembered
        time.sleep(pause)
        Store.opened.clear()
        pipeline.workspace().discovery.shards()
        read.append(len(Store.opened))
    assert read[0] and read[1] and not read[2] and not read[3], read


def test_a_tag_saves_reading_the_file_for_its_stamp(pipeline, store):
    pipeline.config["raw"][0]["uri"] = "store://pool/*.jsonl"
    put(store, "a.jsonl", [{"id": "1", "text": "first"}])
    Store.broken.add("/pool/a.jsonl")
    [file] = pipeline.workspace().discovery.shards()
    assert file.stamp.startswith("ETag ")


@pytest.mark.parametrize("tag", ['W/"weak"', "", None])
def test_what_is_no_tag_is_none(tag):
    assert tag_of({"ETag": tag}) is None
    assert tag_of({"ETag": tag, "generation": 7}) == "generation 7"
    assert modified_of({"created": 5.0}) == 0.0
    assert modified_of({"Last-Modified": "Mon, 30 Nov 2026 01:00:00 GMT"}) == 1796000400.0


def test_an_exception_of_a_store_fails_its_own_partition_and_no_other(pipeline, store):
    pipeline.config["raw"][0]["uri"] = "store://pool/*.jsonl"
    for name in ("law", "medicine"):
        put(store, f"{name}.jsonl", sentences(name, 40, seed=1))
    pipeline.workspace().discovery.shards()
    Store.broken.add("/pool/law.jsonl")
    stages = pipeline.run()
    [message] = stages["raw_counts"].errors
    assert "store:///pool/law.jsonl: cannot be read: NoCredentials: Unable to locate" in message
    assert "secret" not in message and len(pipeline.picks()) == 20


def test_a_replaced_archive_is_seen(tmp_path):
    path = tmp_path / "pool.zip"

    def write(**files):
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
            for name, text in files.items():
                archive.writestr(f"{name}.jsonl", json.dumps({"text": text}))
        os.replace(tmp_path / "new.zip", path)

    pool = RawSource(name="pool", uri=f"zip://*.jsonl::{path}")
    write(a="one")
    assert [read(shard.uri, TEXT)[1] for shard in discover(pool)] == [["one"]]
    write(a="two", b="three")
    assert [read(shard.uri, TEXT)[1] for shard in discover(pool)] == [["two"], ["three"]]


def test_a_pattern_that_is_none_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"a\*\*b: Invalid pattern.*correct the pattern"):
        discover(source(tmp_path, "a**b"))


def test_a_pipe_in_the_pool_is_refused_and_waited_for_by_nobody(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(CorpusError, match="a pipe, a socket or a device, expected a file"):
        content_stamp(str(tmp_path / "a.jsonl"))
