"""Sources that are cut into pieces: each piece is a document, and is found again in its file."""

import csv
import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from dsir_dagster import cli
from dsir_dagster.resources.settings import ConfigError, load_settings
from tests.pipeline import DOMAINS, SmallPipeline, sentences

WORDS = 20
#: Between two words in turn; several are longer than a byte in UTF-8.
SEPARATORS = [" ", "\n", "\u3000", "  \t", "\u2028", "\u00a0"]


def long_records(domain, n, seed, length=150):
    """Make n records of about ``length`` words between all kinds of white space, some words with accents."""
    records = sentences(domain, n, seed, length)
    for record in records:
        words = [
            word.replace("e", "é") if i % 7 == 0 else word for i, word in enumerate(record["text"].split())
        ]
        record["text"] = "".join(word + SEPARATORS[i % len(SEPARATORS)] for i, word in enumerate(words))
    return records


def cut(text):
    """Cut a text as the pipeline should: the slow, obvious way."""
    pieces, words, before = [""], 0, True
    for character in text:
        if before and not character.isspace():
            if words == WORDS:
                pieces.append("")
                words = 0
            words += 1
        before = character.isspace()
        pieces[-1] += character
    return pieces


def flat(records):
    return [{key: record[key] for key in ("id", "text", "domain")} for record in records]


def write_formats(pipeline):
    """Write the pool as one shard a domain and format; return the records by shard and row."""
    files = {}
    for seed, domain in enumerate(DOMAINS):
        files[f"pool.{domain}"] = records = long_records(domain, 12, seed)
        pipeline.write(f"pool/{domain}.jsonl", records)
    files["pool.columns"] = flat(long_records("medicine", 8, seed=10))
    table = pa.Table.from_pylist([{"meta": {"n": 1, "body": r["text"]}, **r} for r in files["pool.columns"]])
    pq.write_table(table, pipeline.data / "pool/columns.parquet", row_group_size=3)
    files["pool.commas"] = flat(long_records("medicine", 8, seed=11))
    with open(pipeline.data / "pool/commas.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text", "domain"])
        writer.writeheader()
        writer.writerows(files["pool.commas"])
    return files


def chunk(pipeline, **selection):
    pipeline.config["raw"][0]["chunk_words"] = WORDS
    pipeline.config["selections"][0] |= {"min_tokens": 5, "size": {"documents": 60}, **selection}


@pytest.fixture(scope="module")
def chunked(tmp_path_factory):
    """A pool of several formats that was cut and ran, with its records by shard."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("chunked"))
    files = write_formats(pipeline)
    chunk(pipeline)
    [picked] = pipeline.config["selections"]
    for output in ("jsonl.zst", "parquet"):
        pipeline.config["selections"].append({**picked, "name": output, "output": output})
    assert pipeline.errors(until="selections") == []
    return pipeline, files


def test_every_piece_of_every_record_is_a_document_that_says_where_it_is(chunked):
    pipeline, files = chunked
    found = pipeline.rows(
        'SELECT shard, "row", record, begin_byte, end_byte, doc_id, n_bytes FROM documents ORDER BY shard, "row"'
    )
    expected = []
    for shard, records in sorted(files.items()):
        for record, content in enumerate(records):
            begin = 0
            for number, piece in enumerate(cut(content["text"])):
                end = begin + len(piece.encode())
                doc_id = f"{content['id']}#{number}"
                row = sum(each[0] == shard for each in expected)
                expected.append((shard, row, record, begin, end, doc_id, end - begin))
                begin = end
    assert found == expected
    assert len({row[5] for row in found}) == len(found) > 300


def texts_by_id(files):
    return {
        f"{record['id']}#{number}": (record, piece)
        for records in files.values()
        for record in records
        for number, piece in enumerate(cut(record["text"]))
    }


@pytest.mark.parametrize("selection", ["picked", "jsonl.zst", "parquet"])
def test_a_selected_record_has_the_piece_as_its_text_and_all_else_as_it_was(chunked, selection):
    pipeline, files = chunked
    [(folder,)] = pipeline.rows(
        f"SELECT folder FROM selection_versions WHERE selection = '{selection}' AND current"
    )
    if selection == "parquet":
        written = pq.read_table(f"{folder}/records-00000.parquet").to_pylist()
    else:
        [path] = pipeline.home.glob(f"selections/{selection}/*/records-*")
        codec = "zstd" if selection == "jsonl.zst" else None
        with pa.input_stream(path, compression=codec) as stream:
            written = [json.loads(line) for line in stream.read().splitlines()]
    picked = {
        tuple(row[:2]): row[2:]
        for row in pipeline.rows(
            'SELECT shard, "row", record, begin_byte, end_byte, doc_id FROM selections '
            f"WHERE selection = '{selection}'"
        )
    }
    assert len(written) == len(picked) == 60
    pieces = texts_by_id(files)
    for record in written:
        where = record.pop("_dsir")
        *place, doc_id = picked[where["shard"], where["row"]]
        assert [where["record"], where["begin_byte"], where["end_byte"]] == place
        original, piece = pieces[doc_id]
        assert record["text"] == piece == original["text"].encode()[place[1] : place[2]].decode()
        for key in original.keys() - {"text"}:
            assert record[key] == original[key]


def test_a_cut_pool_is_counted_and_picked_from_as_one_that_was_cut_beforehand(chunked, tmp_path):
    pipeline, files = chunked
    before = SmallPipeline(tmp_path)
    before.config["selections"][0] |= {"min_tokens": 5, "size": {"documents": 60}}
    before.write("pool/all.jsonl", [{"id": i, "text": t} for i, (_, t) in texts_by_id(files).items()])
    assert before.errors(until="selections") == []
    totals = "SELECT bucket, sum(count) FROM raw_counts GROUP BY ALL ORDER BY ALL"
    assert before.rows(totals) == pipeline.rows(totals)
    documents = "SELECT doc_id, n_tokens, n_ngrams, n_bytes, content_hash FROM documents ORDER BY ALL"
    assert before.rows(documents) == pipeline.rows(documents)
    assert before.picks() == pipeline.picks()


def test_why_explains_a_piece_by_its_own_words_and_says_where_it_is(chunked, capsys):
    pipeline, files = chunked
    [(doc_id, record, begin, end)] = pipeline.rows(
        "SELECT doc_id, record, begin_byte, end_byte FROM selections WHERE selection = 'picked' AND begin_byte > 0 "
        "ORDER BY rank LIMIT 1"
    )
    arguments = ["--config", str(pipeline.config_path), "--home", str(pipeline.home)]
    assert cli.main(["why", doc_id, "--selection", "picked", *arguments]) == 0
    text = capsys.readouterr().out
    assert f"row {record} (from 0), bytes {begin:,} to {end:,} of its text" in text
    words = set(texts_by_id(files)[doc_id][1].split())
    shown = [line.split()[0] for line in text.split("speaks for it")[1].splitlines()[1:4]]
    assert set(shown) <= words
    assert pipeline.rows(f"SELECT record, begin_byte, end_byte FROM why('{doc_id}', 'picked')") == [
        (record, begin, end)
    ]


def test_shards_cut_elsewhere_give_the_same_picks(chunked, tmp_path):
    pipeline, files = chunked
    one = SmallPipeline(tmp_path)
    chunk(one)
    one.write("pool/all.jsonl", [record for shard in sorted(files) for record in files[shard]][::-1])
    assert one.errors(until="selections") == []
    assert one.picks() == pipeline.picks()


def test_a_selection_from_whole_and_cut_sources_says_of_each_record_which_it_is(pipeline):
    whole = [{**record, "id": f"whole-{i}"} for i, record in enumerate(sentences("medicine", 10, 3))]
    pipeline.write("pool/cut.jsonl", long_records("medicine", 10, 4))
    pipeline.write("whole/all.jsonl", whole)
    pipeline.config["raw"].append({"name": "whole", "uri": "data/whole/*"})
    chunk(pipeline, size={"fraction": 1.0})
    assert pipeline.errors(until="selections") == []
    places = {}
    for line in pipeline.records():
        record = json.loads(line)
        where = record["_dsir"]
        if where["shard"] == "whole.all":
            assert record["text"] == whole[where["row"]]["text"]
        places.setdefault(where["shard"], []).append(
            (where["record"], where["begin_byte"], where["end_byte"])
        )
    assert places["whole.all"] == [(None, None, None)] * 10
    assert len(places["pool.cut"]) > 60 and None not in places["pool.cut"][0]
    assert pipeline.rows("SELECT count(*), count(record) FROM documents WHERE shard = 'whole.all'") == [
        (10, 0)
    ]


def test_nested_texts_records_without_ids_and_bad_rows(pipeline):
    records = [{"meta": {"body": r["text"], "n": 1}} for r in long_records("medicine", 3, 5)]
    lines = [
        json.dumps(records[0]),
        "no json",
        json.dumps(records[1]),
        '{"meta":{"body":""}}',
        json.dumps(records[2]),
    ]
    pipeline.write_bytes("pool/nested.jsonl", "\n".join(lines).encode())
    pipeline.config["raw"] = [{"name": "pool", "uri": "data/pool/*.jsonl", "text": "meta.body"}]
    pipeline.config["raw"][0]["max_quarantined"] = 0.2
    chunk(pipeline, size={"fraction": 1.0})
    assert pipeline.errors(until="selections") == []
    assert pipeline.rows('SELECT "row" FROM quarantine') == [(1,)]
    rows = pipeline.rows("SELECT DISTINCT record FROM documents ORDER BY 1")
    assert rows == [(0,), (2,), (3,), (4,)]
    assert pipeline.rows("SELECT doc_id, n_bytes FROM documents WHERE record = 3") == [("pool.nested:3#0", 0)]
    written = [json.loads(line)["meta"] for line in pipeline.records()]
    assert [each["body"] for each in written] == [
        piece for r in records for piece in cut(r["meta"]["body"]) if len(piece.split()) >= 5
    ]
    assert all(each["n"] == 1 for each in written)
    [(metadata,)] = pipeline.rows("SELECT metadata FROM latest WHERE asset = 'raw_counts'")
    assert json.loads(metadata)["records"] == 4


def test_another_length_of_pieces_makes_the_counts_stale_and_says_so(pipeline):
    pipeline.write("pool/a.jsonl", long_records("medicine", 3, 6))
    plan = pipeline.workspace().plan()
    assert plan.raw_counts("pool.a").inputs["reader"] == '{"id":"id","reader":null,"text":"text"}'
    chunk(pipeline)
    assert pipeline.errors(until="selections") == []
    assert pipeline.workspace().plan().raw_counts("pool.a").state == "fresh"
    pipeline.config["raw"][0]["chunk_words"] = 30
    output = pipeline.workspace().plan().raw_counts("pool.a")
    assert output.why == "changed: reader (chunk_words 20 -> 30)"


def test_pieces_of_several_fields_are_refused(pipeline):
    pipeline.config["raw"][0] |= {"text": ["title", "text"], "chunk_words": 128}
    with pytest.raises(ConfigError, match=r"raw\[0\]: chunk_words cuts the text of one field, text names 2"):
        load_settings(pipeline.config_path)


@pytest.mark.parametrize("value", [0, -1, "128", True, 1.5])
def test_a_length_that_is_no_positive_integer_is_refused(pipeline, value):
    pipeline.config["raw"][0]["chunk_words"] = value
    with pytest.raises(ConfigError, match=r"raw\[0\]\.chunk_words: "):
        load_settings(pipeline.config_path)


def test_a_home_of_before_there_were_pieces_can_be_read(done):
    for path in done.home.glob("documents/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["record", "begin_byte", "end_byte"]), path)
    done.workspace()
    assert done.rows("SELECT count(record) FROM documents") == [(0,)]
