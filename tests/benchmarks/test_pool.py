"""The benchmark's text: what its figures rely on.

Here: sizes, shares and difference of the documents that are made. Not here: speed, and ``dsir run`` on
them (``test_throughput.py``).
"""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.pool import Corpus, due, make_pool, read_records, rotations


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Two files of unlike size and format, a target and a holdout."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, documents in (("few-00.jsonl.zst", 20), ("many-00.jsonl", 80)):
        records = [
            {"id": f"{name}-{n}", "text": " ".join(f"é{name[:3]}{n}w{word}" for word in range(40))}
            for n in range(documents)
        ]
        compression = "zstd" if name.endswith("zst") else None
        with pa.output_stream(str(folder / name), compression=compression) as out:
            out.write("".join(json.dumps(record) + "\n" for record in records).encode())
    files = sorted(folder.iterdir())
    return Corpus("a test's", files, files[0], files[1])


def words(text: str) -> list[str]:
    """Words in an order that does not depend on where the text begins."""
    return sorted(text.split())


@pytest.mark.parametrize("copies", [0.5, 1.0, 2.4])
def test_pool_has_the_size_asked_for_and_no_document_twice(corpus, tmp_path, copies):
    total = sum(len(record["text"].encode()) for path in corpus.files for record in read_records(path))
    pool = make_pool(corpus, tmp_path / "made", int(copies * total), total, {"slice": total // 5})

    records = [record for shard in pool.shards for record in read_records(shard)]
    n_bytes = sum(len(record["text"].encode()) for record in records)
    assert (pool.documents, pool.text_bytes) == (len(records), n_bytes)
    assert n_bytes == pytest.approx(copies * total, rel=0.02)
    assert len({record["text"] for record in records}) == len(records)
    assert len({record["id"] for record in records}) == len(records)
    share = sum("few" in record["id"] for record in records) / len(records)
    assert share == pytest.approx(0.2, abs=0.02)

    original = {words(record["text"])[0] for path in corpus.files for record in read_records(path)}
    assert {words(record["text"])[0] for record in records} <= original

    texts = {record["text"] for record in records}
    held_back = [record["text"] for record in read_records(pool.held_back)]
    assert len(held_back) == 20 and texts.isdisjoint(held_back)
    sliced = list(read_records(pool.slices[0]))
    assert len(sliced) == pytest.approx(20, abs=2)
    assert sum("few" in record["id"] for record in sliced) == pytest.approx(4, abs=1)


def test_shards_hold_as_many_copies_as_their_size_takes(corpus, tmp_path):
    sizes = [sum(len(record["text"].encode()) for record in read_records(path)) for path in corpus.files]
    pool = make_pool(corpus, tmp_path / "made", 4 * sum(sizes), 2 * sizes[0], {"slice": 100})
    names = [shard.name for shard in pool.shards]
    assert names == [
        "few-00-copy0.jsonl.zst",
        "few-00-copy2.jsonl.zst",
        *(f"many-00-copy{copy}.jsonl.zst" for copy in range(4)),
    ]
    # One copy after the other, or compression would find every document again right behind itself.
    ids = [record["id"] for record in read_records(pool.shards[0])]
    assert ids == [f"few-00.jsonl.zst-{n}~{copy}" for copy in (0, 1) for n in range(20)]


def test_shards_hold_as_many_files_as_their_size_takes(corpus, tmp_path):
    sizes = [sum(len(record["text"].encode()) for record in read_records(path)) for path in corpus.files]
    pool = make_pool(corpus, tmp_path / "made", 2 * sum(sizes), sum(sizes), {"slice": 100})
    assert [shard.name for shard in pool.shards] == ["few-00-copy0.jsonl.zst", "few-00-copy1.jsonl.zst"]
    assert [len(list(read_records(shard))) for shard in pool.shards] == [100, 100]


def test_rotations_keep_the_words_and_never_repeat():
    text = "one two three four five six seven"
    made = list(rotations(text, 5))
    assert made[0] == text
    assert len(set(made)) == 5
    assert all(words(each) == words(text) for each in made)


@pytest.mark.parametrize("text", ["word", "a b", "no-break " * 3])
def test_a_text_with_too_few_words_gets_a_number(text):
    made = list(rotations(text, 6))
    assert len(set(made)) == len(made) == 6


def test_an_even_sample():
    assert sum(due(index, 0.1) for index in range(1000)) == 100
    assert all(due(index, 1.0) for index in range(10))
    assert not any(due(index, 0.0) for index in range(10))
