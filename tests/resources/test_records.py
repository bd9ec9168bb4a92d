"""Chosen records: reading them again, and writing them with their provenance."""

from __future__ import annotations

import datetime
import gc
import gzip
import json
import math
import os

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir_dagster.resources import record_writer
from dsir_dagster.resources.corpus import CorpusError, lines
from dsir_dagster.resources.record_writer import RecordWriter
from dsir_dagster.resources.records import Lines, read_pieces, read_records
from dsir_dagster.resources.settings import Reader

TEXT = Reader()
FORMATS = ("jsonl", "jsonl.zst", "parquet")


def provenance(i: int, **other) -> dict:
    entry = {"log_weight": -1 / (i + 3), "key": 0.1 * i, "rank": i, "epoch": 1, "target": "té"}
    return {**entry, "shard": "pool.00", "row": i, "version": "v1", **other}


def chosen(*texts: bytes) -> Lines:
    """Return lines as if they had been read."""
    sizes = np.array([len(text) for text in texts], np.int64)
    ends = np.cumsum(sizes + 1) - 1
    return Lines(b"\n".join([*texts, b""]), ends - sizes, ends)


def save(folder, format_, *batches):
    """Write batches of records, each with provenance; return the file and the columns that became JSON."""
    path = folder / f"records.{format_}"
    with RecordWriter(path, format_) as writer:
        done = 0
        for batch in batches:
            writer.write(batch, [provenance(done + i) for i in range(len(batch))])
            done += len(batch)
    return path, writer.json_columns


def load(path) -> list[dict]:
    """Read a file back, by other code than the project's."""
    name = str(path)
    if name.endswith(".parquet"):
        return pq.read_table(name).to_pylist()
    data = path.read_bytes()
    if name.endswith(".zst"):
        data = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
    return [json.loads(line) for line in data.decode().removesuffix("\n").split("\n")]


# --- reading -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab {}é\r", max_size=20), min_size=1, max_size=30),
    st.data(),
    st.sampled_from([1, 7, 50, 4096]),
)
def test_chosen_lines(tmp_path_factory, content, data, block_bytes):
    path = tmp_path_factory.mktemp("records") / "file.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join([*content, "end"]).encode(), 1))
    rows = sorted(data.draw(st.sets(st.integers(0, len(content) - 1))))
    batches = list(read_records(str(path), TEXT, np.array(rows), block_bytes))
    assert all(len(batch) for batch in batches)
    assert [line.decode() for batch in batches for line in batch] == [content[row] for row in rows]


def test_chosen_rows_of_tables(tmp_path):
    table = pa.table({"n": list(range(50)), "text": [f"t{i}" for i in range(50)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=11)
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=13)
    rows = np.array([0, 10, 11, 30, 49])
    for name in ("t.parquet", "t.arrow"):
        for block_bytes in (1, 100, 1 << 20):
            batches = list(read_records(str(tmp_path / name), TEXT, rows, block_bytes))
            assert [row for batch in batches for row in batch.to_pylist()] == table.take(rows).to_pylist()


def test_what_of_a_parquet_file_has_no_chosen_row_or_needed_column_is_not_read(tmp_path):
    path, text = tmp_path / "t.parquet", [f"text {i}" for i in range(50)]
    table = pa.table({"text": text, "n": list(range(50))})
    pq.write_table(table, path, row_group_size=10, use_dictionary=False, compression="zstd")
    metadata = pq.ParquetFile(path).metadata
    content = bytearray(path.read_bytes())
    for group, column in ((1, "text"), (3, "n")):
        chunk = metadata.row_group(group).column(table.schema.names.index(column))
        end = chunk.data_page_offset + chunk.total_compressed_size
        content[end - 20 : end] = bytes(20)
    path.write_bytes(content)

    def read(rows, **options):
        batches = read_records(str(path), TEXT, np.array(rows), **options)
        return [row["text"] for batch in batches for row in batch.to_pylist()]

    for block_bytes in (1, 100, 1 << 20):
        assert read([3, 21, 29, 40, 49], block_bytes=block_bytes) == [text[i] for i in (3, 21, 29, 40, 49)]
    assert read([9, 30], all_columns=False) == [text[9], text[30]]
    for rows, options in (([3, 10], {}), ([3, 10], {"all_columns": False}), ([9, 30], {})):
        with pytest.raises(CorpusError, match=r"t\.parquet: "):
            read(rows, **options)
    with pytest.raises(CorpusError, match="no usable record at row 50"):
        read([3, 50])


def test_chosen_rows_of_csv_skip_the_bad_ones(tmp_path):
    (tmp_path / "t.csv").write_text("text,n\na,1\nb\nc,3\n\nd,4\n")
    for block_bytes in (10, 1 << 20):
        batches = list(read_records(str(tmp_path / "t.csv"), TEXT, np.array([2, 3]), block_bytes))
        found = [row for batch in batches for row in batch.to_pylist()]
        assert found == [{"text": "c", "n": "3"}, {"text": "d", "n": "4"}]
    with pytest.raises(CorpusError, match="no usable record at row 1; the file changed"):
        list(read_records(str(tmp_path / "t.csv"), TEXT, np.array([0, 1])))


def test_rows_that_are_not_there(tmp_path, monkeypatch):
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'{"text":"a"}\n' + b"x" * 500 + b"\n{}\n")
    with pytest.raises(CorpusError, match=r"file\.jsonl: there is no usable record at row 3; .*materialize"):
        list(read_records(str(path), TEXT, np.array([0, 3])))
    with pytest.raises(ValueError, match="ascending"):
        list(read_records(str(path), TEXT, np.array([1, 1])))
    assert list(read_records(str(path), TEXT, np.array([], np.int64))) == []
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    with pytest.raises(CorpusError, match="no usable record at row 1"):
        list(read_records(str(path), TEXT, np.array([0, 1, 2]), block_bytes=50))


# --- pieces -------------------------------------------------------------------------------------------


def pieces_of(path, reader, records, bounds, block_bytes=1 << 20):
    """Read pieces; return the records as dictionaries."""
    begins, ends = np.array(bounds).T
    batches = list(read_pieces(str(path), reader, np.array(records), begins, ends, block_bytes))
    assert all(len(batch) for batch in batches)
    return [
        record
        for batch in batches
        for record in (map(json.loads, batch) if isinstance(batch, Lines) else batch.to_pylist())
    ]


BODY = Reader(text="meta.body")
NESTED = [
    {"n": 1, "meta": {"body": "é eins zwei", "kind": "a"}},
    {"n": 2, "meta": None},
    {"n": 3, "meta": {"body": "drei", "kind": None}},
]


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet", "t.arrow"])
def test_a_piece_stands_where_the_text_stood_and_all_else_is_as_it_was(tmp_path, name, block_bytes):
    table = pa.Table.from_pylist(NESTED)
    if name == "t.jsonl":
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in NESTED))
    elif name == "t.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_file(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    found = pieces_of(tmp_path / name, BODY, [0, 0, 0, 2], [(0, 3), (3, 8), (3, 8), (0, 4)], block_bytes)
    expected = [
        {"n": 1, "meta": {"body": "é ", "kind": "a"}},
        *[{"n": 1, "meta": {"body": "eins ", "kind": "a"}}] * 2,
        {"n": 3, "meta": {"body": "drei", "kind": None}},
    ]
    assert found == expected


def test_a_field_that_is_spelled_like_a_path_and_a_dictionary_of_texts(tmp_path):
    (tmp_path / "t.jsonl").write_text(
        '{"meta.body":"one two","n":0.10}\n{"meta":{"body":null},"meta.body":"three"}\n'
    )
    assert pieces_of(tmp_path / "t.jsonl", BODY, [0, 1], [(0, 4), (0, 5)]) == [
        {"meta.body": "one ", "n": 0.1},
        {"meta": {"body": None}, "meta.body": "three"},
    ]
    texts = pa.array(["one two", "three"]).dictionary_encode()
    pq.write_table(pa.table({"text": texts, "n": [1, 2]}), tmp_path / "t.parquet")
    assert pieces_of(tmp_path / "t.parquet", TEXT, [0, 1], [(4, 7), (0, 5)]) == [
        {"text": "two", "n": 1},
        {"text": "three", "n": 2},
    ]


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
@pytest.mark.parametrize(
    ("field", "text", "piece"),
    [
        ("lines", ["one", "two"], "two"),
        (
            "turns.content",
            [{"role": "a", "content": "one"}, {"role": "b", "content": "two"}],
            [{"content": "two"}],
        ),
        ("meta.body", '{"body": "one\\ntwo", "n": 1}', '{"body": "two", "n": 1}'),
    ],
)
def test_a_piece_of_a_list_or_of_json_is_read_again_as_the_text(tmp_path, name, field, text, piece):
    top = field.split(".")[0]
    if name == "t.jsonl":
        (tmp_path / name).write_text(json.dumps({top: text, "n": 1}))
    else:
        pq.write_table(pa.table({top: [text], "n": [1]}), tmp_path / name)
    assert pieces_of(tmp_path / name, Reader(text=field), [0], [(4, 7)]) == [{top: piece, "n": 1}]


def test_a_string_that_is_not_utf8_in_a_column_that_is_not_used_is_written(tmp_path):
    table = pa.table({"text": ["a"], "other": pa.array([b"b\xff"]).view(pa.string())})
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    [batch] = read_records(str(tmp_path / "t.arrow"), TEXT, np.array([0]))
    path, _ = save(tmp_path, "jsonl", batch)
    assert load(path)[0]["other"] == "b\ufffd"


def test_records_that_are_repeated_with_their_pieces_are_read_a_few_at_a_time(tmp_path):
    """A large record of small pieces is not held once for every piece."""
    table = pa.table({"text": ["a " * 400], "html": ["x" * 100_000]})
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text(json.dumps(table.to_pylist()[0]))
    begins = np.arange(0, 800, 2)
    for name in ("t.parquet", "t.jsonl"):
        batches = read_pieces(str(tmp_path / name), TEXT, np.zeros(400, np.int64), begins, begins + 2, 50_000)
        held = [len(b.data) if isinstance(b, Lines) else b.nbytes for b in batches]
        assert len(held) > 10 and max(held) < 2_000_000


def test_pieces_that_are_not_there_any_more(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text":"short"}\n{"other":1}\n')
    with pytest.raises(
        CorpusError, match=r"t\.jsonl: the text at row 0 has 5 bytes, 9 were expected; the file changed"
    ):
        pieces_of(tmp_path / "t.jsonl", TEXT, [0], [(0, 9)])
    with pytest.raises(CorpusError, match=r"no field 'text'; the file changed"):
        pieces_of(tmp_path / "t.jsonl", TEXT, [1], [(0, 9)])


# --- JSON Lines in -----------------------------------------------------------------------------------

LINES = [
    b'{"text": "plain",  "n": 1.50}',
    b'  {"text":"spaces and return"} \t\r',
    b'{"text":"\\u00e9 \\ud83d\\ude00","big":123456789012345678901234567890}',
    '{"text":"é","nested":{"a":[1,{"b":null}]}}'.encode(),
    b"{ }",
    b'{"text":"the word \\"_dsir\\" in it, and \\u0064"}',
    b'{"text":"x","nested":{"_dsir":1}}',
]


@pytest.mark.parametrize("format_", ["jsonl", "jsonl.zst"])
def test_lines_keep_their_bytes(tmp_path, format_):
    path, _ = save(tmp_path, format_, chosen(*LINES[:3]), chosen(*LINES[3:]))
    data = path.read_bytes()
    if format_ == "jsonl.zst":
        data = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
    out = data.split(b"\n")
    assert out.pop() == b""
    for i, (line, written) in enumerate(zip(LINES, out, strict=True)):
        body = line.rstrip()[:-1]
        assert written.startswith(body)
        tail = json.dumps(provenance(i), ensure_ascii=False, separators=(",", ":")).encode()
        assert written[len(body) :] == (b"" if line == b"{ }" else b",") + b'"_dsir":' + tail + b"}"
        record = json.loads(written)
        assert list(record["_dsir"]) == list(provenance(0)) and record.pop("_dsir") == provenance(i)
        assert record == json.loads(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"_dsir":{"old":1},"text":"a \\"_dsir\\": b","n":1e400,"s":"\\ud800"}',
        b'{"text":"a \\"_dsir\\": b","n":1e400,"s":"\\ud800","\\u005fdsir":{"old":1}}',
    ],
)
def test_provenance_of_an_earlier_selection_is_replaced(tmp_path, line):
    path, _ = save(tmp_path, "jsonl", chosen(line, b'{"_dsir":0}'))
    first, second = load(path)
    assert first == {"text": 'a "_dsir": b', "n": math.inf, "s": "\ud800", "_dsir": provenance(0)}
    assert path.read_bytes().count(b'"_dsir":{') == 2
    assert second == {"_dsir": provenance(1)}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_bit_by_bit(value):
    rows = record_writer.provenance_rows([provenance(0, log_weight=value, key=-value)])
    (text,) = record_writer.provenance_texts(rows)
    found = json.loads(text)
    assert np.float64(found["log_weight"]).tobytes() == np.float64(value).tobytes()
    assert np.float64(found["key"]).tobytes() == np.float64(-value).tobytes()


def test_floats_that_are_not_finite_become_null():
    (text,) = record_writer.provenance_texts(
        record_writer.provenance_rows([provenance(0, log_weight=-math.inf, key=math.nan)])
    )
    assert text.startswith(b'{"log_weight":null,"key":null,"rank":0,')


def test_lines_to_parquet_unify_and_fall_back(tmp_path):
    first = chosen(
        b'{"text":"a","i":1,"mixed":1,"date":"2020-01-01 00:00:00","o":{"p":1},"_dsir":3,"e":{}}',
        b'{"text":"b","mixed":"s","inner":1,"deep":{"x":[1]}}',
    )
    second = chosen(b'{"text":"c","i":2.5,"o":{"q":"r"},"inner":{"z":0},"extra":[true]}')
    third = chosen(b'{"i":9007199254740993,"text":"d"}', b'{"text":"e","x":Inf}')
    path, json_columns = save(tmp_path, "parquet", first, second, third)
    assert json_columns == ("i", "mixed", "e", "inner")
    table = pq.read_table(path)
    assert json.loads(table.schema.metadata[b"dsir_json_columns"]) == ["i", "mixed", "e", "inner"]
    assert table.schema.names[-1] == "_dsir" and table.schema.field("_dsir").type == record_writer.PROVENANCE
    assert table["_dsir"].to_pylist() == [provenance(i) for i in range(5)]
    assert table["text"].to_pylist() == ["a", "b", "c", "d", None]
    assert table["i"].to_pylist() == ["1", None, "2.5", "9007199254740993", None]
    assert table["mixed"].to_pylist() == ["1", '"s"', None, None, None]
    assert table["date"].to_pylist()[0] == "2020-01-01 00:00:00"
    assert table["o"].to_pylist()[:3] == [{"p": 1, "q": None}, None, {"p": None, "q": "r"}]
    assert table["inner"].to_pylist()[1:3] == ["1", '{"z":0}']
    assert table["_json"].to_pylist()[4] == '{"text":"e","x":Inf}'
    assert table["extra"].to_pylist()[2] == [True]


# --- tables in ---------------------------------------------------------------------------------------

BATCH = pa.record_batch(
    {
        "text": pa.array(["é\n", None, "c"]),
        "nan": pa.array([math.nan, math.inf, 0.1]),
        "day": pa.array([datetime.date(2020, 2, 29), None, None]),
        "at": pa.array([1_600_000_000_123_456_789, None, 0], pa.timestamp("ns")),
        "utc": pa.array([1_600_000_000_000, None, 0], pa.timestamp("ms", "UTC")),
        "raw": pa.array([b"\x00\xff", None, b""]),
        "list": pa.array([[1.5, math.nan], [], None]),
        "struct": pa.array([{"t": datetime.time(1, 2), "b": b"x"}, None, {"t": None, "b": None}]),
        "dict": pa.array(["x", "y", "x"]).dictionary_encode(),
        "map": pa.array([[("k", b"\0")], None, []], pa.map_(pa.string(), pa.binary())),
        "_dsir": pa.array([1, 2, 3]),
    }
)


def test_tables_to_lines(tmp_path):
    path, _ = save(tmp_path, "jsonl", BATCH)
    assert b'{"text":"\xc3\xa9\\n",' in path.read_bytes()
    first, second, third = load(path)
    assert first == {
        "text": "é\n",
        "nan": None,
        "day": "2020-02-29",
        "at": "2020-09-13T12:26:40.123456789",
        "utc": "2020-09-13T12:26:40.000Z",
        "raw": "AP8=",
        "list": [1.5, None],
        "struct": {"t": "01:02:00.000000", "b": "eA=="},
        "dict": "x",
        "map": [["k", "AA=="]],
        "_dsir": provenance(0),
    }
    assert second["nan"] is None and second["struct"] is None and second["list"] == []
    assert third["struct"] == {"t": None, "b": None} and third["nan"] == 0.1


def test_tables_to_parquet(tmp_path):
    path, json_columns = save(tmp_path, "parquet", BATCH.slice(0, 1), BATCH.slice(1))
    table = pq.read_table(path)
    expected = pa.Table.from_batches([BATCH]).drop_columns(["_dsir", "nan", "list"])
    expected = expected.set_column(
        expected.column_names.index("dict"), "dict", pa.chunked_array([["x", "y", "x"]])
    )
    assert table.select(expected.column_names).equals(expected)
    assert math.isnan(table["nan"][0].as_py()) and table["at"].type == pa.timestamp("ns")
    assert table["_dsir"].to_pylist() == [provenance(i) for i in range(3)]
    assert json_columns == ()


def test_lines_and_tables_in_one_file(tmp_path):
    batch = pa.record_batch({"text": ["t"], "n": ["seven"]})
    path, _ = save(tmp_path, "parquet", chosen(b'{"text":"l","n":7,"m":1}'), batch)
    assert [dict(row, _dsir=None) for row in load(path)] == [
        {"text": "l", "n": "7", "m": 1, "_dsir": None},
        {"text": "t", "n": '"seven"', "m": None, "_dsir": None},
    ]


# --- formats and outputs -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.jsonl.zst", "t.parquet", "t.arrow", "t.csv"])
@pytest.mark.parametrize("format_", FORMATS)
def test_round_trip(tmp_path, name, format_):
    table = pa.table({"text": [f"tëxt {i}\n" for i in range(200)], "n": [str(i) for i in range(200)]})
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    elif name.endswith(".arrow"):
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    elif name.endswith(".csv"):
        pa.csv.write_csv(table, path)
    else:
        with pa.output_stream(str(path), compression="detect") as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode())
    rows = np.arange(3, 200, 7)
    (tmp_path / "out").mkdir()
    batches = read_records(str(path), TEXT, rows, block_bytes=1000)
    path, _ = save(tmp_path / "out", format_, *batches)
    assert load(path) == [
        {**row, "_dsir": provenance(i)} for i, row in enumerate(table.take(pa.array(rows)).to_pylist())
    ]


@pytest.mark.parametrize("format_", FORMATS)
def test_same_calls_give_the_same_bytes(tmp_path, format_):
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        path, _ = save(tmp_path / name, format_, chosen(*LINES * 50), BATCH)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_provenance_must_fit(tmp_path):
    path = tmp_path / "records.jsonl"
    with RecordWriter(path, "jsonl") as writer:
        with pytest.raises(ValueError, match="1 records but 2 rows of provenance"):
            writer.write(chosen(b"{}"), [provenance(0), provenance(1)])
        with pytest.raises(ValueError, match="keys log_weight; expected log_weight, key, rank"):
            writer.write(chosen(b"{}"), [{"log_weight": 1.0}])
        with pytest.raises(ValueError, match=r"expected .*, record, begin_byte, end_byte"):
            writer.write(
                chosen(b"{}", b"{}"), [provenance(0, record=1, begin_byte=0, end_byte=9), provenance(1)]
            )
        shuffled = pa.array([dict(reversed(provenance(5).items()))])
        writer.write(chosen(b"{}"), shuffled)
    assert load(path) == [{"_dsir": provenance(5)}]


@pytest.mark.parametrize("format_", FORMATS)
def test_provenance_of_pieces_and_of_whole_records_among_them(tmp_path, format_):
    rows = [
        provenance(0, record=7, begin_byte=10, end_byte=25),
        provenance(1, record=None, begin_byte=None, end_byte=None),
    ]
    path = tmp_path / f"records.{format_}"
    with RecordWriter(path, format_) as writer:
        writer.write(chosen(b'{"text":"a"}', b'{"text":"b"}'), rows)
    assert [record["_dsir"] for record in load(path)] == rows


# --- failures ----------------------------------------------------------------------------------------


def open_files() -> int:
    gc.collect()  # may close files of other tests
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_full_disk_names_the_file_and_closes_it(tmp_path, format_, size):
    path = tmp_path / f"records.{format_}"
    path.symlink_to("/dev/full")
    before = open_files()
    noise = np.random.default_rng(0).bytes(size).hex().encode()
    writer = RecordWriter(path, format_)
    with pytest.raises(OSError, match=rf"cannot write: No space.*records\.{format_}") as error, writer:
        writer.write(chosen(b'{"text":"' + noise + b'"}'), [provenance(0)])
    assert error.value.errno == 28 and error.value.filename.endswith(format_)
    assert open_files() == before


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone/records"):
        save(tmp_path / "gone", "jsonl", chosen(b"{}"))


@pytest.mark.parametrize("format_", FORMATS)
def test_handles_are_closed_when_the_caller_fails(tmp_path, format_):
    before = open_files()
    with pytest.raises(RuntimeError), RecordWriter(tmp_path / "r", format_) as writer:
        writer.write(chosen(b"{}"), [provenance(0)])
        raise RuntimeError
    assert open_files() == before
