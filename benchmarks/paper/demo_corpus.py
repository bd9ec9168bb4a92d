"""A corpus in the study's layout, from the packages of the demo: six targets that anybody can make.

What belongs here: which documents of the demo's domains are a target, how they are split, writing the layout. What does
not: reading the packages (``demo/corpus.py``), other packages (``fetch``).

The demo's own corpus has one target. Here each domain lends one: half of the documents that belong to it stay in the
pool, 35 % are its training split, 15 % its test split, chosen by a hash of the article, chapter, file, operation or
parent term, so that one of these is never on both sides.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pool import REPOSITORY, SUFFIX
from demo.corpus import DOMAINS, MIN_CHARS, SHARD_BYTES, Record, inputs_of, split_of, write

PACKAGES = REPOSITORY / ".dsir" / "demo" / "packages"
FOLDER = REPOSITORY / ".dsir" / "demo" / "paper"

_SCIENCES = ("Biology and health sciences", "Mathematics", "Physical sciences")
_NETWORK = (
    "asyncio email ftplib.py html http imaplib.py mailbox.py nntplib.py poplib.py smtplib.py socket.py "
    "socketserver.py ssl.py telnetlib.py urllib wsgiref xmlrpc"
).split()
#: Last book of each part of the Bible, in its order.
_PARTS = {
    "Deuteronomy": "law",
    "Esther": "history",
    "Song of Songs": "wisdom",
    "Malachi": "prophets",
    "Acts": "gospels and acts",
    "Revelation": "letters and revelation",
}
_SECURITY = re.compile(
    r"access|acm|cognito|detective|ds|fms|guardduty|iam|identitystore|inspector|kms|macie|network-firewall|"
    r"secretsmanager|security|shield|signer|sso|sts|verifiedpermissions|waf"
)


@dataclass(frozen=True)
class DemoTarget:
    """A target among the documents of one domain.

    Attributes
    ----------
    domain : str
        One of the demo's.
    belongs : callable
        Whether a document belongs to the target.
    unit : callable
        What is never split between pool, training split and test split.
    label : callable
        The class for the classifier; None where there is none.
    """

    domain: str
    belongs: Callable[[Record], bool]
    unit: Callable[[Record], object]
    label: Callable[[Record], object] = lambda record: None


TARGETS = {
    "cloud_security": DemoTarget("aws", lambda r: bool(_SECURITY.match(r["service"])), lambda r: r["id"]),
    "french_articles": DemoTarget("french", lambda r: True, lambda r: r["id"], lambda r: r["topic"]),
    "medical_terms": DemoTarget("medicine", lambda r: True, lambda r: r["parent"]),
    "natural_sciences": DemoTarget(
        "encyclopedia", lambda r: r["topic"] in _SCIENCES, lambda r: r["id"], lambda r: r["topic"]
    ),
    "network_code": DemoTarget(
        "python", lambda r: r["file"].partition("/")[0] in _NETWORK, lambda r: r["file"]
    ),
    "scripture": DemoTarget(
        "scripture", lambda r: True, lambda r: f"{r['book']} {r['chapter']}", lambda r: r["part"]
    ),
}


def with_parts(records: Iterable[Record]) -> Iterable[Record]:
    """Add to passages of the Bible, in the order of its books, the part that they are from."""
    waiting = iter(_PARTS.items())
    last, part = next(waiting)
    ended = False
    for record in records:
        if ended and record["book"] != last:
            (last, part), ended = next(waiting), False
        ended = ended or record["book"] == last
        yield {**record, "part": part}


def unseen(records: Iterable[Record], source: str, seen: set[str], least: int = MIN_CHARS) -> list[Record]:
    """Return the records of at least so many characters whose text is new, with a field ``source``."""
    kept = []
    for record in records:
        key = " ".join(record["text"].split())
        if len(key) >= least and key not in seen:
            seen.add(key)
            kept.append({**record, "source": source})
    return kept


def write_pool(folder: Path, source: str, records: list[Record]) -> None:
    """Write records into shards of about equal numbers of documents."""
    shards = max(1, round(sum(len(record["text"].encode()) for record in records) / SHARD_BYTES))
    for n in range(shards):
        first, last = (len(records) * m // shards for m in (n, n + 1))
        write(records[first:last], folder / "pool" / f"{source}-{n:02d}{SUFFIX}")


def write_target(folder: Path, name: str, splits: dict[str, list[Record]]) -> None:
    """Write the training and the test split of a target."""
    for split in ("train", "test"):
        write(splits[split], folder / "targets" / name / f"{split}{SUFFIX}")


def write_demo(packages: Path, folder: Path, seen: set[str], domains: Iterable[str] = DOMAINS) -> None:
    """Write the pool and the targets of some of the demo's domains."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    names = {target.domain: name for name, target in TARGETS.items()}
    for domain in domains:
        reader, _ = DOMAINS[domain]
        target = TARGETS[names[domain]]
        records = reader(packages, stdlib)
        splits: dict[str, list[Record]] = {"pool": [], "train": [], "test": []}
        for record in unseen(with_parts(records) if domain == "scripture" else records, domain, seen):
            split = split_of(str(target.unit(record))) if target.belongs(record) else "pool"
            label = target.label(record)
            splits[split].append(record if split == "pool" or label is None else {**record, "label": label})
        if not all(splits.values()):
            raise ValueError(f"too few documents of {domain} found below {packages} or {stdlib}")
        write_pool(folder, domain, splits["pool"])
        write_target(folder, names[domain], splits)


def built(folder: Path, inputs: str, build: Callable[[Path], None]) -> Path:
    """Build a corpus, or leave it as it is if it was built from the same inputs.

    Parameters
    ----------
    folder : Path
        Belongs to this function: another corpus in it is replaced.
    inputs : str
        Everything that shapes the corpus.
    build : callable
        Writes a corpus into a folder.

    Returns
    -------
    Path
        The folder.
    """
    stamp = folder / "corpus.json"
    wanted = hashlib.sha256(inputs.encode()).hexdigest()
    if stamp.exists() and json.loads(stamp.read_text(encoding="utf-8"))["inputs"] == wanted:
        return folder
    draft = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    build(draft)
    (draft / stamp.name).write_text(json.dumps({"inputs": wanted}) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return folder


def demo_inputs(packages: Path) -> str:
    """Return everything that shapes the documents of the demo's domains."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    return inputs_of(packages, stdlib) + Path(__file__).read_text(encoding="utf-8")


def demo_corpus(packages: Path = PACKAGES, folder: Path = FOLDER) -> Path:
    """Build the corpus if needed and return its folder.

    Raises
    ------
    SystemExit
        The packages are not there.
    """
    try:
        return built(folder, demo_inputs(packages), lambda draft: write_demo(packages, draft, set()))
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(
            f"{error}\n`make corpus` fetches the demo's packages; --data names a corpus of your own"
        ) from None
