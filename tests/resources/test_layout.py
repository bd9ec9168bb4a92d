"""JSON that does not stand one value to a line: arrays, objects over several lines, and what only looks so."""

import gzip
import itertools
import json
import subprocess
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir_dagster.resources.corpus import CorpusError, lines, read_blocks
from dsir_dagster.resources.corpus.layout import layout
from dsir_dagster.resources.records import read_records
from dsir_dagster.resources.settings import Reader
from tests.resources.test_corpus import TEXT, read

TRICKY = ['a "quoted" \\ text', 'brackets ]}[{, and "', "back\\", "line\nbreak\ttab", "é 😀", "", "\\\\\\"]
RECORDS = [{"text": text, "n": [1, {"x": "]"}]} for text in TRICKY]
INDENTS = [{}, {"indent": 1}, {"indent": "\t"}, {"separators": (",", ":")}]


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 64, 1 << 22])
@pytest.mark.parametrize("form", INDENTS, ids=str)
@pytest.mark.parametrize("ascii_", [True, False])
def test_arrays_and_pretty_printed_objects_are_records(tmp_path, block_bytes, form, ascii_):
    array = json.dumps(RECORDS, ensure_ascii=ascii_, **form)
    one_by_one = "\n".join(json.dumps(record, ensure_ascii=ascii_, **form) for record in RECORDS)
    path = tmp_path / "a.json"
    contents = [array, f"\n \t{array}\n\n", f"\ufeff{array}", one_by_one]
    if "indent" in form:
        contents.append(f"\r\n{one_by_one}\r\n")
    for content in contents:
        path.write_bytes(content.encode())
        rows, texts, *_, rejected = read(path, block_bytes=block_bytes)
        assert (rows, texts, rejected) == (list(range(len(TRICKY))), TRICKY, [])
        wanted = np.array([0, 3, 6])
        again = [line for found in read_records(str(path), TEXT, wanted, block_bytes) for line in found]
        assert [json.loads(line) for line in again] == [RECORDS[row] for row in wanted]
    path.with_suffix(".json.gz").write_bytes(gzip.compress(array.encode()))
    assert read(path.with_suffix(".json.gz"), block_bytes=block_bytes)[1] == TRICKY


texts = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\[]{},\n '), max_size=12)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"text": texts}, optional={"x": st.lists(texts, max_size=2)}), min_size=1),
    st.sampled_from(INDENTS),
    st.booleans(),
    st.sampled_from([1, 5, 64]),
)
def test_any_record_of_an_array_comes_back(tmp_path_factory, records, form, array, block_bytes):
    path = tmp_path_factory.mktemp("layout") / "a.json"
    content = json.dumps(records, **form) if array else "\n".join(json.dumps(r, **form) for r in records)
    path.write_text(content)
    assert read(path, block_bytes=block_bytes)[1] == [record["text"] for record in records]


def test_bad_elements_are_quarantined_and_spare_their_neighbors(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        '[{"text": "a"}, 17, {"text": nonsense}, ["x", "]"], {"text": "raw\nnewline"}, {"text": "b"}]'
    )
    rows, texts, *_, rejected = read(path)
    assert (rows, texts) == ([0, 5], ["a", "b"])
    assert [(each.row, each.reason) for each in rejected] == [
        (1, "not a JSON object"),
        (2, "not JSON"),
        (3, "not a JSON object"),
        (4, "not JSON"),
    ]
    path.write_text("[ ]\n")
    assert read(path) == ([], [], [], [], [])


@pytest.mark.parametrize("block_bytes", [3, 1 << 20])
@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('[{"text": "a"}, {"text": "b"}', "ends within its JSON array"),
        ('[{"text": "a"}, {"text": "b', "ends within its JSON array"),
        ('[{"text": "a}, {"text": "b"}]', "ends within its JSON array"),
        ('[{"text": "a"}] {"text": "b"}', "follows after the end of the JSON array"),
        ('[{"text": "a"}]\n[{"text": "b"}\n]', "follows after the end of the JSON array"),
        ('{\n "text": "a"\n}\n{\n "text": "b"\n', "ends within a JSON value"),
        ('{\n "text": "a"\n}\n}\n', "a bracket is closed that was not opened"),
    ],
)
def test_where_brackets_do_not_add_up_nothing_is_used(tmp_path, content, why, block_bytes):
    path = tmp_path / "a.json"
    path.write_text(content)
    if "follows" in why and "\n" in content:  # the first line alone is an array: a bad line among lines
        assert [each.reason for each in read(path)[-1]][:1] == ["not a JSON object"]
        return
    with pytest.raises(CorpusError, match=rf"a\.json: .*{why}"):
        read(path, block_bytes=block_bytes)


@pytest.mark.parametrize(
    ("first", "reason"), [("[1, 2]", "not a JSON object"), ("{", "not JSON"), ('{"a": [', "not JSON")]
)
def test_a_bad_first_line_among_lines_is_one_bad_line(tmp_path, first, reason):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{first}\n{{"text": "a"}}\n{{"text": "b"}}\n')
    rows, texts, *_, rejected = read(path)
    assert (rows, texts) == ([1, 2], ["a", "b"])
    assert [(each.row, each.reason) for each in rejected] == [(0, reason)]


def test_memory_is_bounded_by_the_block(tmp_path):
    path = tmp_path / "a.json"
    element = json.dumps({"text": "word " * 200})
    path.write_text("[" + ", ".join(itertools.repeat(element, 20_000)) + "]")  # 20 MB
    tracemalloc.start()
    n = sum(block.count for block in read_blocks(str(path), TEXT, 1 << 18))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 20_000 and peak < 16 << 18


def test_the_elements_of_an_array_take_the_fast_path(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "parse_lines", None)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "a"}, {"text": "b"}], indent=2))
    assert read(path)[1] == ["a", "b"]


SQUAD = {"version": "1.1", "data": [{"title": "t", "text": "a"}, {"title": "u", "text": "b"}]}


@pytest.mark.parametrize("form", INDENTS, ids=str)
@pytest.mark.parametrize("end", ["", "\n"])
def test_records_within_one_object_are_named_with_the_command_that_writes_them(tmp_path, form, end):
    path = tmp_path / "the squad.json"
    path.write_text(json.dumps(SQUAD, **form) + end)
    with pytest.raises(
        CorpusError, match=r"one JSON object \(no field 'text'\).*objects under 'data'"
    ) as error:
        read(path)
    command = f"cat '{path.name}' | jq -c '.[\"data\"][]' > new.jsonl"
    assert command in str(error.value)


@pytest.mark.parametrize("between", ["", " "])
def test_objects_one_after_the_other_on_the_only_line_are_named(tmp_path, between):
    path = tmp_path / "a.jsonl"
    path.write_text(between.join(['{"text":"a"}', '{"text":"b"}']) + "\n")
    with pytest.raises(CorpusError, match=r"several JSON values on one line.*`cat a\.jsonl \| jq -c \. >"):
        read(path)


def test_a_file_of_one_record_without_text_is_one_bad_row(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"text": null, "entities": [{"x": 1}]}')
    assert [each.reason for each in read(path)[-1]] == ["field 'text' is null"]
    path.write_text('{"messages": [{"text": "a"}]}\n{"messages": [{"text": "b"}]}\n')
    assert [each.reason for each in read(path)[-1]] == ["no field 'text'"] * 2


@pytest.mark.parametrize(
    "head", [b"", b" \n", b"text", b'{"a": 1}', b'{"a": 1}\n{"b": [', b"\xff\xfe", b'"x"']
)
def test_everything_else_is_lines(head):
    assert layout(head) == "lines"


def test_the_command_does_what_it_says(tmp_path):
    if subprocess.run(["sh", "-c", "command -v jq"], capture_output=True).returncode:
        pytest.skip("jq is not installed")
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(SQUAD))
    with pytest.raises(CorpusError) as error:
        read(path, Reader())
    subprocess.run(str(error.value).split("`")[1], shell=True, cwd=tmp_path, check=True)
    assert read(tmp_path / "new.jsonl")[1] == ["a", "b"]
