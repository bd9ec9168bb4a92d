"""The corpus readers: shards, formats, bad input, and the agreement of the fast and the slow path."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tracemalloc

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir_dagster.resources.corpus import (
    CorpusError,
    content_stamp,
    delimited,
    discover,
    expand,
    lines,
    read_blocks,
)
from dsir_dagster.resources.corpus.fields import RecordFields
from dsir_dagster.resources.corpus.files import shard_key
from dsir_dagster.resources.corpus.lines import LineBlock
from dsir_dagster.resources.settings import RawSource, Reader, Target

TEXT = Reader()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def read(path, reader=TEXT, block_bytes=4 << 20):
    """Return the file's rows, texts, ids, origins and rejections."""
    rows, texts, ids, sources, rejected = [], [], [], [], []
    for block in read_blocks(str(path), reader, block_bytes):
        batch = block.parse()
        batch.texts.validate(full=True)
        n = len(batch.rows)
        assert batch.rows.dtype == np.int64 and len(batch.texts) == n and batch.texts.null_count == 0
        assert batch.n_bytes == sum(len(text.encode()) for text in batch.texts.to_pylist())
        rows += batch.rows.tolist()
        texts += batch.texts.to_pylist()
        ids += [None] * n if batch.ids is None else batch.ids.to_pylist()
        sources += [None] * n if batch.sources is None else batch.sources.to_pylist()
        rejected += batch.rejected
    return rows, texts, ids, sources, rejected


def read_lines(tmp_path, content: bytes, reader=TEXT, block_bytes=4 << 20):
    path = tmp_path / "file.jsonl"
    path.write_bytes(content)
    return read(path, reader, block_bytes)


# --- discover ----------------------------------------------------------------------------------------


def source(tmp_path, pattern, name="pool"):
    return RawSource(name=name, uri=f"{tmp_path}/{pattern}")


def touch(tmp_path, *names):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}\n")


def test_discover_keys_sorted_and_hidden_files_left_out(tmp_path):
    touch(tmp_path, "b/01.jsonl.zst", "b/00.jsonl", "a.parquet", "_SUCCESS.jsonl", ".x.jsonl", "c.jsonl.tmp")
    touch(tmp_path, "_temporary/0/d.jsonl", "odd name+é.jsonl", "x..y.jsonl")
    shards = discover(source(tmp_path, "**"))
    digest = hashlib.sha256("odd name+é.jsonl".encode()).hexdigest()[:8]
    dots = hashlib.sha256(b"x..y.jsonl").hexdigest()[:8]
    assert [shard.key for shard in shards] == [
        "pool.a",
        "pool.b.00",
        "pool.b.01",
        f"pool.odd_name__-{digest}",
        f"pool.x__y-{dots}",
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", s.key) and "..." not in s.key for s in shards)
    assert shards[0].uri == str(tmp_path / "a.parquet") and shards[0].source == "pool"
    assert shards[0].size == 3 and shards[0].modified == (tmp_path / "a.parquet").stat().st_mtime


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_shard_keys_are_accepted_by_dagster(name):
    key = shard_key("pool", name)
    assert re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key) and len(key) <= 200
    assert key == shard_key("pool", name)


def test_discover_single_file_and_fixed_folder(tmp_path):
    touch(tmp_path, "sub/_named.jsonl.gz")
    assert [s.key for s in discover(source(tmp_path, "sub/_named.jsonl.gz"))] == ["pool._named"]


@pytest.mark.parametrize("names", [("00.jsonl", "00.jsonl.zst"), ("a/b.jsonl", "a.b.jsonl")])
def test_discover_refuses_two_files_with_one_key(tmp_path, names):
    touch(tmp_path, *names)
    with pytest.raises(CorpusError) as error:
        discover(source(tmp_path, "**"))
    assert all(str(tmp_path / name) in str(error.value) for name in names)
    assert "rename or remove one of them" in str(error.value)


def test_discover_nothing_found(tmp_path):
    touch(tmp_path, "_hidden.jsonl")
    with pytest.raises(CorpusError, match=r"\*\.jsonl: no file matches this pattern \(1 hidden.*'pool'"):
        discover(source(tmp_path, "*.jsonl"))
    with pytest.raises(CorpusError, match=r"gone\.jsonl: no such file; check the uri"):
        discover(source(tmp_path, "gone.jsonl"))
    with pytest.raises(CorpusError, match="this is a folder; expected a file or a pattern"):
        discover(RawSource(name="pool", uri=str(tmp_path)))
    with pytest.raises(CorpusError, match=r"nosuch://x/a: no file system for this URI.*install"):
        expand("nosuch://x/a")


def test_remote_files(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus-test/a/00.jsonl.zst", zstd(b'{"text":"one"}\n'))
    memory.pipe("/corpus-test/01.csv", b"text\ntwo\n")
    try:
        shards = discover(RawSource(name="m", uri="memory://corpus-test/**"))
        assert [shard.key for shard in shards] == ["m.01", "m.a.00"]
        assert shards[0].modified == 0  # the time of creation is none of modification
        assert [read(shard.uri)[1] for shard in shards] == [["two"], ["one"]]
        assert content_stamp(shards[0].uri) == hashlib.sha256(b"text\ntwo\n").hexdigest()
        assert [info.uri for info in expand("memory://corpus-test/*.csv")] == ["memory:///corpus-test/01.csv"]
    finally:
        memory.rm("/corpus-test", recursive=True)


def test_chained_uri(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "pool.zip", "w") as archive:
        archive.writestr("in/00.jsonl", '{"text":"zipped"}\n')
    (shard,) = discover(RawSource(name="z", uri=f"zip://in/*.jsonl::{tmp_path}/pool.zip"))
    assert shard.key == "z.00" and read(shard.uri)[1] == ["zipped"]


def test_content_stamp(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1_000_000)
    assert content_stamp(str(tmp_path / "x")) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
    with pytest.raises(CorpusError, match="gone: no such file"):
        content_stamp(str(tmp_path / "gone"))


# --- JSON Lines: bad records -------------------------------------------------------------------------

GOOD = b'{"text":"good"}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "blank line"),
        (b" \t", "blank line"),
        (b"nonsense", "not JSON"),
        (b'{"text":"a"', "not JSON"),
        (b'{"text":"a"}{"text":"b"}', lines.SEVERAL),
        (b'{"text":"a"} {"text":"b"}', lines.SEVERAL),
        (b'{"text":"a\x00"}', "not JSON"),
        (b'{"text":"a"}\x00', "not JSON"),
        (b'\xef\xbb\xbf{"text":"a"}', "not JSON"),
        (b'["text"]', "not a JSON object"),
        (b"7", "not a JSON object"),
        (b"{}", "no field 'text'"),
        (b'{"text":null}', "field 'text' is null"),
        (b'{"text":3.5}', "field 'text' is a number, expected a string"),
        (b'{"text":true}', "field 'text' is a boolean, expected a string"),
        (b'{"text":[]}', "field 'text' is a list without a text"),
        (b'{"text":["a",1]}', "field 'text' is a list in which there is a number, expected strings"),
        (
            b'{"text":[{"a":"b"}]}',
            "field 'text' is a list in which there is an object, expected strings "
            "(name one of their fields, as 'text.text')",
        ),
        (b'{"text":{"a":1}}', "field 'text' is an object, expected a string"),
        (b'{"text":"\xff"}', "invalid UTF-8"),
        (b'{"text":"a","x":"\xed\xa0\x80"}', "invalid UTF-8"),
        (b'{"text":"\\ud800"}', "text is not valid Unicode (lone surrogate)"),
    ],
)
def test_bad_lines_have_a_reason_and_spare_their_neighbors(tmp_path, line, reason):
    rows, texts, _, _, rejected = read_lines(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    assert (rows, texts) == ([0, 2], ["good", "good"])
    assert [(item.row, item.reason) for item in rejected] == [(1, reason)]
    assert rejected[0].excerpt.isprintable() and len(rejected[0].excerpt) <= 200 * 4


IDS_AND_SOURCES = [
    (b'"a"', "a"),
    (b"7", "7"),
    (b"-0", "0"),
    (b"1.0", "1"),
    (b"2.5", "2.5"),
    (b"9007199254740993", "9007199254740993"),
    (b"123456789012345678901234567890", "123456789012345678901234567890"),
    (b"1e18", "1000000000000000000"),
    (b"1e300", "1e+300"),
    (b"true", "true"),
    (b"false", "false"),
    (b"null", None),
    (b'""', None),
    (b"NaN", None),
    (b"-Infinity", None),
    (b'["a"]', None),
    (b'{"a":1}', None),
    (b'"\\udc00"', None),
]


@pytest.mark.parametrize(("value", "expected"), IDS_AND_SOURCES)
def test_an_id_or_a_source_never_costs_a_text(tmp_path, value, expected):
    reader = RawSource(name="pool", uri="x", id="id", source="meta.set")
    line = b'{"text":"a","id":%s,"meta":{"set":%s}}' % (value, value)
    assert read_lines(tmp_path, line, reader) == ([0], ["a"], [expected], [expected], [])
    among = b'{"text":"b","id":1.0,"meta":{"set":2020}}\n' + line
    assert read_lines(tmp_path, among, reader)[2:] == (["1", expected], ["2020", expected], [])


def test_blank_file_bom_crlf_and_missing_final_newline(tmp_path):
    assert read_lines(tmp_path, b"") == ([], [], [], [], [])
    assert read_lines(tmp_path, b"\xef\xbb\xbf") == ([], [], [], [], [])
    content = b'\xef\xbb\xbf{"text":"a"}\r\n{"text":""}\r\n{"text":"c"}'
    for block_bytes in (1, 7, 1 << 20):
        rows, texts, _, _, rejected = read_lines(tmp_path, content, TEXT, block_bytes)
        assert (rows, texts, rejected) == ([0, 1, 2], ["a", "", "c"], [])
    assert [(r.row, r.reason) for r in read_lines(tmp_path, b'{"text":"a"}\n\n')[4]] == [(1, "blank line")]


@pytest.mark.parametrize("block_bytes", [16, 4096])
def test_line_that_is_too_long(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1000)
    content = b"\n".join([GOOD, b'{"text":"' + b"x" * 3000 + b'"}', GOOD, b'{"text":"' + b"y" * 2000])
    rows, texts, _, _, rejected = read_lines(tmp_path, content, TEXT, block_bytes)
    assert (rows, texts) == ([0, 2], ["good", "good"])
    assert [(item.row, item.reason) for item in rejected] == [
        (1, "longer than 1 GiB"),
        (3, "longer than 1 GiB"),
    ]
    assert rejected[0].excerpt == '{"text":"' + "x" * 191


def test_too_long_line_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'{"text":"' + b"x" * (64 << 20) + b'"}\n' + GOOD)
    tracemalloc.start()
    try:
        assert read(path, block_bytes=1 << 18)[0] == [1]
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_line_of_100_mb(tmp_path):
    path = tmp_path / "file.jsonl.zst"
    path.write_bytes(zstd(GOOD + b'\n{"text":"' + b"word " * 20_000_000 + b'"}\n' + GOOD))
    batches = [block.parse() for block in read_blocks(str(path), TEXT)]
    assert sum(batch.n_bytes for batch in batches) == 100_000_000 + 8
    assert [row for batch in batches for row in batch.rows] == [0, 1, 2]


# --- JSON Lines: fields ------------------------------------------------------------------------------


def test_nested_joined_and_dotted_fields(tmp_path):
    content = b"\n".join(
        [
            b'{"meta":{"title":"T","set":"web"},"body":"B","id":7}',
            b'{"meta":{"title":null},"body":"B","id":"x"}',
            b'{"meta.title":"D","meta.set":"dot"}',
            b'{"meta":3,"body":null}',
        ]
    )
    reader = RawSource(name="pool", uri="x", text=["meta.title", "body"], id="id", source="meta.set")
    rows, texts, ids, sources, rejected = read_lines(tmp_path, content, reader)
    assert (rows, texts) == ([0, 1, 2], ["T\nB", "B", "D"])
    assert (ids, sources) == (["7", "x", None], ["web", None, "dot"])
    assert rejected[0].reason == "none of the fields 'meta.title', 'body'"


def test_target_has_no_sources(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_bytes(GOOD)
    (block,) = read_blocks(str(path), Target(name="t", uri="x"))
    assert block.parse().ids is None and block.parse().sources is None


@pytest.mark.parametrize(
    "ids", [[b'"a"', b'"b"', b"null"], [b"1", b"-0", b"null"], [b"1", b'"b"', b"1" * 30]]
)
def test_string_integer_and_mixed_ids(tmp_path, ids):
    content = b"\n".join(b'{"text":"t","id":' + id_ + b"}" for id_ in ids)
    expected = [None if i == b"null" else str(json.loads(i)) for i in ids]
    assert read_lines(tmp_path, content, Reader(id="id"))[2] == expected


def test_paths_that_contradict_each_other_are_read_slowly(tmp_path):
    content = b'{"a":"x"}\n{"a":{"b":"y"}}\n'
    rows, texts, _, _, rejected = read_lines(tmp_path, content, Reader(text=["a.b", "a"]))
    assert (rows, texts) == ([0], ["x"])
    assert rejected[0].reason == "field 'a' is an object, expected a string"


# --- JSON Lines: both paths agree --------------------------------------------------------------------

FIELDS = RecordFields(("text", "m.t"), "id", "m.s")


def parse(content: bytes, fields=FIELDS, fast=True):
    """Parse one block; also tell whether Arrow did it."""
    block = LineBlock("x", fields, 0, content.count(b"\n") + (not content.endswith(b"\n")), content)
    if fast:
        batch = block.parse()
    else:
        starts, ends = block.bounds()
        pairs = zip(starts.tolist(), ends.tolist(), strict=True)
        batch = lines.parse_lines(((i, content[s:e]) for i, (s, e) in enumerate(pairs)), fields)
    columns = [c if c is None else c.to_pylist() for c in (batch.texts, batch.ids, batch.sources)]
    return batch.rows.tolist(), *columns, batch.rejected, batch.n_bytes


ODD = [
    b'{"text":"a","text":"b"}',
    b'{"text":null,"text":"b"}',
    b'{"x":1,"x":2,"text":"b"}',
    b'{"m":{"t":"a"},"m":{"s":"b"},"text":"c"}',
    b'{"te\\u0078t":"a\\u0000b"}',
    b'{"text":"\\ud83d\\ude00\\/"}',
    b'{"text":"a","x":"\\ud800"}',
    b'{"text":"a","x":NaN,"y":-Infinity}',
    b'{"text":"a","x":Inf}',
    b'{"text":"a","x":-NaN}',
    b'{"text":"a","x":1e999}',
    b'{"text":"a","x":' + b"9" * 5000 + b"}",
    b'{"text":"deep","x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"text":"a","id":9223372036854775808}',
    b'{"text":"a","id":-0}',
    b'{"text":"a","id":5.0}',
    b'{"text":"a\tb"}',
    b'{"text":"a","x":01}',
    b'{"text":"a"} {"text":"b"}',
    b'{"text":"a"}{"x":{}',
    b"{}",
    b'{"text":"a\x7f\xc2\x85"}',
    b'{"text\\u0000":"a"}',
    b'{"m":null,"text":"a"}',
    b'{"m":[],"text":"a"}',
    b'{"m.t":"dotted","m":{}}',
]


@pytest.mark.parametrize("line", ODD)
def test_paths_agree_on_odd_lines(line):
    assert parse(line) == parse(line, fast=False)
    both = parse(b'{"text":"before"}\n' + line + b'\n{"text":"after"}\n')
    alone = parse(line)
    assert both[1] == ["before", *alone[1], "after"]
    assert [item.reason for item in both[4]] == [item.reason for item in alone[4]]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["t", "s", "x"]), inner),
    max_leaves=4,
)
keys = st.sampled_from(["text", "id", "m", "m.t", "m.s", "x", ""])
likely = st.fixed_dictionaries(
    {"text": st.text(max_size=8)},
    optional={
        "id": st.integers(-5, 5) | st.text(max_size=3),
        "m": st.dictionaries(st.sampled_from("tsx"), st.text(max_size=3) | st.none(), max_size=2) | st.none(),
        "x": values,
    },
)


@st.composite
def json_line(draw):
    record = draw(likely | st.dictionaries(keys, values, max_size=4))
    ascii_ = draw(st.booleans())
    text = json.dumps(record, ensure_ascii=ascii_)
    if draw(st.integers(0, 9)) == 0:  # an object with a key twice
        text = text[:-1] + (", " if record else "") + json.dumps(draw(likely))[1:]
    line = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0 and line:  # damage
        at = draw(st.integers(0, len(line) - 1))
        line = (
            line[:at]
            + draw(st.binary(max_size=2)).replace(b"\n", b" ")
            + line[at + draw(st.integers(0, 2)) :]
        )
    return line + draw(st.sampled_from([b"", b"", b"", b"\r", b" "]))


@settings(max_examples=400, deadline=None)
@given(st.lists(json_line() | st.sampled_from(ODD), min_size=1, max_size=5))
def test_paths_agree(content):
    joined = b"\n".join([*content, b""])
    assert parse(joined) == parse(joined, fast=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(json_line(), max_size=12), st.sampled_from([1, 3, 17, 64, 300]), st.booleans())
def test_blocks_do_not_matter(tmp_path_factory, content, block_bytes, final):
    path = tmp_path_factory.mktemp("blocks") / "file.jsonl.gz"
    # The first line is whole: damaged, it may look like the beginning of an array, which is not read by lines.
    path.write_bytes(gzip.compress(b"\n".join([GOOD, *content, GOOD]) + b"\n" * final, 1))
    reader = RawSource(name="pool", uri="x", text=["text", "m.t"], id="id", source="m.s")
    assert read(path, reader, block_bytes) == read(path, reader)


def test_the_fast_path_is_taken(monkeypatch):
    monkeypatch.setattr(lines, "parse_lines", None)
    content = b'{"text":"a","id":3}\r\n{"text":"b","id":4,"m":{"s":"x"}}\n{"m":{"t":"c"}}'
    assert parse(content)[:4] == ([0, 1, 2], ["a", "b", "c"], ["3", "4", None], [None, "x", None])


# --- the meaning of fields is the same in all formats -----------------------------------------------

SAMPLE: list[pa.Table] = []


def sample(_uri):
    """A custom reader of what a test put there."""
    yield from SAMPLE[0].to_batches()


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5)
scalars = {
    "words": words,
    "integers": st.integers(-(2**63), 2**63 - 1),
    "years": st.integers(1990, 2030),
    "floats": st.floats(),
    "whole": st.integers(0, 99).map(float),
    "booleans": st.booleans(),
    "lists": st.lists(words, max_size=2),
}
texts = {
    "text": words,
    "list": st.lists(words | st.none(), max_size=3),
    "objects": st.lists(
        st.fixed_dictionaries({"body": words | st.none(), "n": st.integers(0, 9)}), max_size=3
    ),
    "lists of objects": st.lists(
        st.fixed_dictionaries({"body": st.lists(words, max_size=2), "n": st.integers(0, 9)}), max_size=2
    ),
    "JSON": st.fixed_dictionaries({"body": words}).map(json.dumps) | st.just("{not JSON"),
}


@st.composite
def records(draw):
    """Records whose fields have one type each, as in a table, and the names of the fields."""
    kind = draw(st.sampled_from(list(texts)))
    of_id, of_source = (scalars[draw(st.sampled_from(list(scalars)))] | st.none() for _ in range(2))
    record = st.fixed_dictionaries(
        {"text": texts[kind] | st.none(), "id": of_id, "m": st.fixed_dictionaries({"s": of_source})}
    )
    return draw(st.lists(record, min_size=1, max_size=5)), "text.body" if kind in list(texts)[2:] else "text"


@settings(max_examples=200, deadline=None)
@given(records())
def test_formats_agree(tmp_path_factory, given_):
    found, text = given_
    folder = tmp_path_factory.mktemp("formats")
    try:
        table = pa.Table.from_pylist(found)
    except pa.ArrowInvalid:  # of floats
        table = pa.Table.from_pylist(found, pa.schema([("text", pa.string()), ("id", pa.float64())]))
    as_json = pa.array([json.dumps(record["m"]) for record in found])
    for name in ("t.parquet", "t.arrow", "t.ipc"):
        write_table(folder / name, table)
    write_table(folder / "json.parquet", table.drop_columns("m").append_column("m", as_json))
    content = "".join(json.dumps(record) + "\n" for record in found)
    (folder / "t.jsonl").write_text(content)
    SAMPLE[:] = [table]
    reader = RawSource(name="pool", uri="x", text=text, id="id", source="m.s")
    expected = read(folder / "t.jsonl", reader)
    rejected = [item.row for item in expected[4]]
    by_reader = reader.model_copy(update={"reader": "tests.resources.test_corpus:sample"})
    for path, how in (
        *((folder / name, reader) for name in ("t.parquet", "t.arrow", "t.ipc", "json.parquet")),
        ("any", by_reader),
    ):
        *columns, mine = read(path, how)
        assert (columns, [item.row for item in mine]) == (list(expected[:4]), rejected), path
    assert read(folder / "t.jsonl", reader, block_bytes=1) == expected


def test_a_csv_is_texts_an_empty_one_is_no_id(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id,meta,text\n1.0,"{""set"": 2020.0}","[a]"\n,nothing,b\ntrue,"{""set"": [1]}",c\n')
    rows, texts, ids, sources, rejected = read(path, RawSource(name="p", uri="x", id="id", source="meta.set"))
    assert (rows, texts, rejected) == ([0, 1, 2], ["[a]", "b", "c"], [])
    assert (ids, sources) == (["1.0", None, "true"], ["2020", None, None])


def test_numbers_are_read_fast(monkeypatch):
    monkeypatch.setattr(lines, "parse_lines", None)
    for ids, expected in (
        ([b"null", b"1", b"2"], [None, "1", "2"]),
        ([b"null", b"1.0", b"2"], [None, "1", "2"]),
        ([b'"a"', b"null", b'"b"'], ["a", None, "b"]),
    ):
        content = b"".join(b'{"text":"a","id":%s,"m":{"s":%s}}\n' % (id_, id_) for id_ in ids)
        assert parse(content)[2:4] == (expected, expected)


# --- compressed files that are cut off ---------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstd)])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_truncated_and_damaged_streams(tmp_path, suffix, compress, kind):
    words = np.random.default_rng(0).integers(0, 10**9, 3000).tolist()
    record = '{"text":"%d"}\n' if kind == "jsonl" else "%d,\n"
    body = "".join(record % word for word in words).encode()
    header = b"text,x\n" if kind == "csv" else b""
    first, second = compress(header + body), compress(body)
    path = tmp_path / f"file.{kind}.{suffix}"

    path.write_bytes(first + second)
    assert len(read(path)[0]) == 6000
    path.write_bytes(first)  # cut exactly between two frames
    assert len(read(path)[0]) == 3000
    for frames in (b"", first):
        whole = frames + (second if frames else first)
        size = len(whole) - len(frames)
        for cut in (1, 2, 5, 9, 10, size // 3, size // 2, size - 9, size - 4, size - 1):
            path.write_bytes(whole[: len(frames) + cut])
            with pytest.raises(
                CorpusError, match=rf"file\.{kind}\.{suffix}: the compressed stream ends early"
            ):
                read(path, block_bytes=4096)
    for garbage in (b"x", b"garbage garbage garbage", *([] if suffix == "gz" else [b"\0" * 100])):
        path.write_bytes(first + garbage)
        with pytest.raises(CorpusError, match=re.escape(str(path))):
            read(path)
    damaged = bytearray(first)
    damaged[len(first) // 2] ^= 0xFF
    path.write_bytes(damaged)
    if suffix == "gz":  # pyarrow's zstd frames carry no checksum
        with pytest.raises(CorpusError, match=r"cannot be read: .*nothing of it is used"):
            read(path)
    path.write_bytes(b"")
    assert read(path)[0] == []


def test_missing_file_and_unknown_suffix(tmp_path):
    with pytest.raises(CorpusError, match=r"gone\.jsonl: no such file; check the uri"):
        read(tmp_path / "gone.jsonl")
    for name in ("a.txt", "a.parquet.gz", "a.zst"):
        with pytest.raises(
            CorpusError, match=rf"{name}: this suffix is not known; .*\.jsonl.*reader: package"
        ):
            read(tmp_path / name)


# --- tables ------------------------------------------------------------------------------------------

TABLE = pa.table(
    {
        "text": pa.array(["one", None, "", "vier é"]),
        "meta": pa.array([{"id": 1, "set": "a"}, {"id": 2, "set": "a"}, {"id": 3, "set": None}, None]),
        "other": [1.5, 2.5, 3.5, 4.5],
    }
)
NESTED = RawSource(name="pool", uri="x", id="meta.id", source="meta.set")


def write_table(path, table):
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=3)
    else:
        new = pa.ipc.new_stream if path.suffix == ".ipc" else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=3)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.feather", "t.ipc"])
@pytest.mark.parametrize("block_bytes", [1, 40, 1 << 20])
def test_tables(tmp_path, name, block_bytes):
    write_table(tmp_path / name, TABLE)
    rows, texts, ids, sources, rejected = read(tmp_path / name, NESTED, block_bytes)
    assert (rows, texts) == ([0, 2, 3], ["one", "", "vier é"])
    assert (ids, sources) == (["1", "3", None], ["a", None, None])
    assert [(r.row, r.reason) for r in rejected] == [(1, "field 'text' is null")]


STRINGS = {
    pa.large_string(): "arrow parquet",
    pa.string_view(): "arrow parquet",
    pa.binary(): "arrow parquet",
    pa.large_binary(): "arrow parquet",
    pa.binary_view(): "arrow parquet",
    pa.dictionary(pa.int32(), pa.string()): "arrow parquet",
    pa.list_(pa.string()): "arrow parquet",
    pa.large_list(pa.string_view()): "arrow",
    pa.list_view(pa.string()): "arrow",
    pa.large_list_view(pa.string_view()): "arrow",
}


def as_type(values, type_):
    return pa.array([None if v is None else [v] for v in values] if "list" in str(type_) else values, type_)


@pytest.mark.parametrize(
    ("type_", "suffix"), [(t, s) for t, names in STRINGS.items() for s in names.split()], ids=str
)
def test_string_types(tmp_path, type_, suffix):
    path = tmp_path / f"t.{suffix}"
    text = as_type(["a", "b", None], type_)
    write_table(path, pa.table({"text": text, "n": pa.nulls(3), "x.y": ["p", "q", "r"], "unused": text}))
    rows, texts, _, _, rejected = read(path, Reader(text=["text", "n", "x.y", "gone"], id="n"))
    assert (rows, texts, rejected) == ([0, 1, 2], ["a\np", "b\nq", "r"], [])
    rows, texts, ids, _, rejected = read(path, Reader(id="text"))
    assert (rows, texts, len(rejected)) == ([0, 1], ["a", "b"], 1)
    assert ids == (["a", "b"] if "list" not in str(type_) else [None, None])


def test_numbers_and_such_as_ids(tmp_path):
    from datetime import date, datetime
    from decimal import Decimal
    from uuid import UUID

    columns = {
        "float": (pa.array([1.0, 2.5, None, float("nan")]), ["1", "2.5", None, None]),
        "whole": (pa.array([1.0, 3.0, None, 0.0]), ["1", "3", None, "0"]),
        "uint": (pa.array([2**64 - 1, 0, None, 1], pa.uint64()), [str(2**64 - 1), "0", None, "1"]),
        "bool": (pa.array([True, False, None, True]), ["true", "false", None, "true"]),
        "uuid": (
            pa.array([b"a" * 16, None, None, None], pa.uuid()),
            [str(UUID(bytes=b"a" * 16)), *3 * [None]],
        ),
        "date": (pa.array([date(2020, 1, 2), None, None, None]), ["2020-01-02", *3 * [None]]),
        "time": (pa.array([datetime(2020, 1, 2), None, None, None], pa.timestamp("ns")), None),
        "decimal": (pa.array([Decimal("1.00"), Decimal("2.50"), None, None]), ["1", "2.5", None, None]),
        "list": (pa.array([["a"], [], None, None]), [None] * 4),
        "struct": (pa.array([{"a": 1}, None, None, None]), [None] * 4),
        "bytes": (pa.array([b"a", b"\xff", None, b""]), ["a", None, None, None]),
        "damaged": (pa.array([b"a", b"\xff", None, b"b"]).view(pa.string()), ["a", None, None, "b"]),
        "coded": (pa.array([7, 8, None, 7]).dictionary_encode(), ["7", "8", None, "7"]),
    }
    table = pa.table({"text": list("abcd"), **{name: column for name, (column, _) in columns.items()}})
    write_table(tmp_path / "t.arrow", table)
    for name, (_, expected) in columns.items():
        rows, texts, ids, sources, _ = read(
            tmp_path / "t.arrow", RawSource(name="p", uri="x", id=name, source=name)
        )
        assert (rows, texts) == ([0, 1, 2, 3], list("abcd"))
        assert ids == sources, name
        assert ids == expected if expected else ids[0].startswith("2020-01-02T00:00:00"), name


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.ipc"])
def test_table_failures_name_the_file(tmp_path, name):
    path = tmp_path / name
    write_table(path, TABLE)
    with pytest.raises(
        CorpusError, match=rf"{name}: no column 'body'; .*are: text, meta, other; set `text:`"
    ):
        read(path, Reader(text="body"))
    assert read(path, Reader(id="key"))[2] == [None, None, None]
    with pytest.raises(CorpusError, match="the text column 'other' has the type double, expected string"):
        read(path, Reader(text="other"))
    content = path.read_bytes()
    for cut in (0, 5, len(content) // 2, len(content) - 8, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(CorpusError, match=rf"{name}: cannot be read"):
            read(path)
    path.unlink()
    with pytest.raises(CorpusError, match=rf"{name}: no such file"):
        read(path)


def test_ipc_stream_cut_between_batches(tmp_path):
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, TABLE.schema)
    writer.write_table(TABLE)
    writer.close()
    content = sink.getvalue().to_pybytes()
    (tmp_path / "t.ipc").write_bytes(content[:-8])
    with pytest.raises(CorpusError, match="no end-of-stream marker"):
        read(tmp_path / "t.ipc")


def test_of_a_large_row_group_only_a_part_is_held(tmp_path):
    path = tmp_path / "a.parquet"
    texts = pa.array([np.random.default_rng(i).bytes(1000).hex() for i in range(16_000)])
    pq.write_table(pa.table({"text": texts}), path, row_group_size=len(texts), use_dictionary=False)
    n_bytes = texts.nbytes
    del texts
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in read_blocks(str(path), TEXT)]
    assert len(held) > 10 and max(held) < n_bytes / 4


def test_invalid_utf8_in_a_table(tmp_path):
    text = pa.array([b"good", b"bad \xff", b"fine"]).view(pa.string())
    write_table(tmp_path / "t.arrow", pa.table({"text": text}))
    rows, _, _, _, rejected = read(tmp_path / "t.arrow")
    assert rows == [0, 2] and rejected[0].excerpt == "bad \ufffd"
    assert [(r.row, r.reason) for r in rejected] == [(1, "invalid UTF-8")]


CSV = b'id,text\n1,aaaa\n2,b,b,b\n3,cccc\n\n4,"d\nd"\n5\n\xff,eeee\n7,NULL\n8,"a,b"\n9,x,y\n10,\n11,"""q"""\n12,a,b\n13'


@pytest.mark.parametrize("block_bytes", [24, 40, 64, 1 << 20])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.csv.zst"])
def test_csv(tmp_path, block_bytes, newline, name):
    compress = {"gz": gzip.compress, "zst": zstd}.get(name[6:], bytes)
    (tmp_path / name).write_bytes(compress(b"\xef\xbb\xbf" + CSV.replace(b"\n", newline)))
    rows, texts, ids, _, rejected = read(tmp_path / name, Reader(id="id"), block_bytes)
    assert rows == [0, 2, 3, 6, 7, 9, 10]
    assert ids == ["1", "3", "4", "7", "8", "10", "11"]
    assert texts == ["aaaa", "cccc", "d" + newline.decode() + "d", "NULL", "a,b", "", '"q"']
    assert [(r.row, r.reason) for r in rejected] == [
        (1, "wrong number of columns"),
        (4, "wrong number of columns"),
        (5, "invalid UTF-8"),
        (8, "wrong number of columns"),
        (11, "wrong number of columns"),
        (12, "wrong number of columns"),
    ]
    assert rejected[0].excerpt == "2,b,b,b"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.text('ab,\n"é', max_size=12), min_size=1, max_size=3), max_size=12),
    st.integers(16, 200),
)
def test_csv_blocks_do_not_matter(tmp_path_factory, records, block_bytes):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    quoted = [",".join('"' + value.replace('"', '""') + '"' for value in record) for record in records]
    path.write_text("\n".join(["id,text", *quoted]), encoding="utf-8")
    rows, texts, ids, _, rejected = read(path, Reader(id="id"), block_bytes)
    assert rows == [i for i, record in enumerate(records) if len(record) == 2]
    found = [[id_ or "", text] for id_, text in zip(ids, texts, strict=True)]
    assert found == [record for record in records if len(record) == 2]
    assert [item.row for item in rejected] == [i for i, record in enumerate(records) if len(record) != 2]


def test_csv_record_longer_than_a_block(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_bytes(b"text\nshort\n" + b'"' + b"x" * 100_000 + b'"\nend\n')
    assert [len(text) for text in read(path, block_bytes=100)[1]] == [5, 100_000, 3]
    monkeypatch.setattr(delimited, "MAX_ROW_BYTES", 50_000)
    with pytest.raises(CorpusError, match=r"t\.csv: a record after row 0 is longer than 1 GiB; is a quoted"):
        read(path, block_bytes=100)


def test_csv_failures(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n1,2\n")
    with pytest.raises(CorpusError, match=r"t\.csv: no column 'text'; the columns are: a, b"):
        read(path)
    path.write_bytes(b"text,text\n1,2\n")
    with pytest.raises(CorpusError, match=r"columns named twice: text; rename one"):
        read(path)
    path.write_bytes(b"")
    assert read(path)[0] == []


def custom(uri):
    """A custom reader."""
    if uri == "missing":
        raise KeyError("no such thing")
    yield from TABLE.to_batches(max_chunksize=2)
    if uri == "table":
        yield TABLE


def test_custom_reader():
    def reader(name):
        return Reader(reader=name, id="meta.id")

    assert read("fine", reader("tests.resources.test_corpus:custom"))[2] == ["1", "3", None]
    with pytest.raises(CorpusError, match=r"table: the reader '.*' yielded a Table; expected .*RecordBatch"):
        read("table", reader("tests.resources.test_corpus:custom"))
    with pytest.raises(CorpusError, match=r"missing: the reader '.*' failed: KeyError: 'no such thing'"):
        read("missing", reader("tests.resources.test_corpus:custom"))
    with pytest.raises(CorpusError, match=r"x: the reader 'no.such:thing' cannot be imported.*install"):
        read("x", reader("no.such:thing"))


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.csv", "a.csv.gz", "a.parquet", "a.arrow", "stream.arrow"],
)
def test_blocks_say_how_much_of_the_file_was_read(tmp_path, name):
    chance = np.random.default_rng(0)
    texts = [chance.bytes(300).hex() for _ in range(4_000)]  # which hardly compress
    path, table = tmp_path / name, pa.table({"text": texts})
    if ".jsonl" in name:
        content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    elif ".csv" in name:
        content = "\n".join(["text", *texts, ""]).encode()
    else:
        sink = pa.BufferOutputStream()
        if name == "a.parquet":
            pq.write_table(table, sink, row_group_size=500)
        else:
            new = pa.ipc.new_file if name == "a.arrow" else pa.ipc.new_stream
            with new(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=500)
        content = sink.getvalue().to_pybytes()
    path.write_bytes({"gz": gzip.compress, "zst": zstd}.get(name.rsplit(".", 1)[1], bytes)(content))
    size = path.stat().st_size
    read = [block.read for block in read_blocks(str(path), TEXT, 1 << 17)]
    assert read == sorted(read) and 0 < read[0] and 0.9 * size < read[-1] <= size
    if ".csv" not in name:  # which Arrow reads ahead
        assert read[0] < 0.6 * size and len(set(read)) > 3


def test_a_custom_reader_does_not_know_how_much_it_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one two three four")
    reader = Reader(reader="tests.assets.readers:words", text="body")
    assert [block.read for block in read_blocks(str(path), reader)] == [0] * 4
