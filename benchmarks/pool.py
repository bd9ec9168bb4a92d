"""The text for the benchmarks: a pool of any size, made from a smaller corpus of real text.

What belongs here: finding the corpus, multiplying it, cutting slices. What does not: measuring.

A pool larger than the corpus holds several copies of it in which no two documents are the same. Copy 0 is the original
text; in copy i of c, each document starts near the i-th of its c parts and wraps around at its end. So words, word
pairs and lengths are those of real text, while contents differ.
"""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dsir_dagster.resources.engine import available_cores

REPOSITORY = Path(__file__).resolve().parent.parent
SUFFIX = ".jsonl.zst"


@dataclass(frozen=True)
class Corpus:
    """Real text to make pools of.

    Attributes
    ----------
    name : str
        For printing.
    files : list of Path
        JSON Lines (plain, .gz, .zst) or Parquet, with a field ``text``.
    target, holdout : Path
        Documents that the selection should resemble.
    """

    name: str
    files: list[Path]
    target: Path
    holdout: Path


def find_corpus() -> Corpus | None:
    """Return the development data if present, else the demo's corpus if built, else None."""
    for name, root, target in (
        ("../shared/data, target chemprot", REPOSITORY.parent / "shared" / "data", "chemprot"),
        ("the demo's corpus, target medicine", REPOSITORY / ".dsir" / "demo", "medicine"),
    ):
        files = sorted(path for path in root.glob("pool/*") if not path.name.startswith("."))
        folder = root / "targets" / target
        if files and folder.is_dir():
            return Corpus(name, files, folder / f"train{SUFFIX}", folder / f"test{SUFFIX}")
    return None


def require_corpus() -> Corpus:
    """Return the corpus of :func:`find_corpus`; if there is none, exit and say what to do."""
    corpus = find_corpus()
    if corpus is None:
        raise SystemExit("There is no text to measure on; `make corpus` builds the demo's.")
    return corpus


@dataclass(frozen=True)
class PoolFolder:
    """A pool in a folder.

    Attributes
    ----------
    shards : list of Path
        JSON Lines, zstd-compressed, in ``folder/pool``.
    held_back : Path
        Another shard, outside that folder: a copy that the pool lacks.
    slices : list of Path
        Samples of the corpus as plain JSON Lines, with every file in proportion.
    documents, text_bytes : int
        Total over the shards; bytes of UTF-8.
    copies : float
        Size in multiples of the corpus.
    """

    shards: list[Path]
    held_back: Path
    slices: list[Path]
    documents: int
    text_bytes: int
    copies: float


def make_pool(
    corpus: Corpus, folder: Path, text_bytes: int, shard_bytes: int, slices: dict[str, int]
) -> PoolFolder:
    """Write a pool of about this many bytes of text, and slices of the corpus.

    Parameters
    ----------
    corpus : Corpus
    folder : Path
        Empty.
    text_bytes : int
        Size of the pool.
    shard_bytes : int
        Approximate size of a shard, which holds copies of whole files.
    slices : dict of str to int
        Name of each slice and its bytes of text.

    Returns
    -------
    PoolFolder
    """
    for name in ("pool", *slices):
        (folder / name).mkdir(parents=True)
    # Spawn: a fork would inherit Arrow's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(available_cores(), mp_context=context) as executor:
        sizes = list(executor.map(count_bytes, corpus.files))
        total = sum(sizes)
        copies = text_bytes / total
        shares = {name: min(size / total, 1.0) for name, size in slices.items()}
        jobs = [
            executor.submit(multiply, files, folder, copies, max(1, round(shard_bytes / size)), shares)
            for files, size in gather(corpus.files, sizes, shard_bytes)
        ]
        first = corpus.files[0]
        whole = math.ceil(copies)
        held_back = executor.submit(write_held_back, first, folder, whole, whole + 1)
        written = [job.result() for job in jobs]
        held_back.result()
    for name in slices:
        with open(folder / f"{name}.jsonl", "wb") as out:
            for part in sorted((folder / name).iterdir()):
                out.write(part.read_bytes())
    return PoolFolder(
        sorted((folder / "pool").iterdir()),
        folder / shard_name(first, whole),
        [folder / f"{name}.jsonl" for name in slices],
        sum(documents for documents, _ in written),
        sum(n_bytes for _, n_bytes in written),
        copies,
    )


def read_records(path: Path) -> Iterator[dict]:
    """Yield the records of a file that have a text."""
    if path.suffix == ".parquet":
        yield from (record for record in pq.read_table(path).to_pylist() if record.get("text"))
        return
    with pa.input_stream(str(path), compression="detect") as stream:
        rest = b""
        while block := stream.read(1 << 22):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                if line and (record := json.loads(line)).get("text"):
                    yield record
        if rest and (record := json.loads(rest)).get("text"):
            yield record


def gather(files: list[Path], sizes: list[int], most: int) -> Iterator[tuple[list[Path], int]]:
    """Yield runs of consecutive files, at least one each, no larger than ``most`` together, and their size."""
    together: list[Path] = []
    total = 0
    for path, size in zip(files, sizes, strict=True):
        if together and total + size > most:
            yield together, total
            together, total = [], 0
        together.append(path)
        total += size
    yield together, total


def count_bytes(path: Path) -> int:
    """Return the bytes of text of a file."""
    return sum(len(record["text"].encode()) for record in read_records(path))


def rotations(text: str, copies: int) -> Iterator[str]:
    """Yield a text rotated to start at each of ``copies`` places, the first being its own start.

    A text with fewer words gets a number at its end instead.
    """
    yield text
    last = 0
    for i in range(1, copies):
        at = text.find(" ", max(len(text) * i // copies, last + 1))
        if at < 0:
            yield f"{text} {i}"
        else:
            last = at
            yield f"{text[at + 1 :]} {text[:at]}"


def shard_name(path: Path, copy: int) -> str:
    """Return the name of a file's copy without dots, which would end the shard's name."""
    return f"{path.name.partition('.')[0]}-copy{copy}{SUFFIX}"


def due(index: int, share: float) -> bool:
    """Whether the item at this index belongs to an even sample of this share."""
    return int((index + 1) * share) > int(index * share)


def multiply(
    files: list[Path], folder: Path, copies: float, together: int, shares: dict[str, float]
) -> tuple[int, int]:
    """Write all copies of some files into shards, and their part of every slice.

    Returns
    -------
    (int, int)
        Documents and bytes of text in the shards.
    """
    whole = math.ceil(copies)
    records = [record for path in files for record in read_records(path)]
    for name, share in shares.items():
        with open(folder / name / f"{files[0].name}.jsonl", "wb") as part:
            part.writelines(encode(r, r["text"], 0) for i, r in enumerate(records) if due(i, share))
    # One copy after the other: copies of a document side by side would compress to almost nothing, here and
    # in the cached features, and find their buckets in the processor's cache.
    texts = [rotations(record["text"], whole) for record in records]
    documents = n_bytes = 0
    for first in range(0, whole, together):
        shard = folder / "pool" / shard_name(files[0], first)
        with pa.output_stream(str(shard), compression="zstd") as out:
            for copy in range(first, min(first + together, whole)):
                for index, (record, rotated) in enumerate(zip(records, texts, strict=True)):
                    text = next(rotated)
                    if copy < whole - 1 or due(index, copies - copy):
                        out.write(encode(record, text, copy))
                        documents += 1
                        n_bytes += len(text.encode())
    return documents, n_bytes


def write_held_back(path: Path, folder: Path, copy: int, copies: int) -> None:
    """Write the last copy of one file."""
    with pa.output_stream(str(folder / shard_name(path, copy)), compression="zstd") as out:
        for record in read_records(path):
            *_, text = rotations(record["text"], copies)
            out.write(encode(record, text, copy))


def encode(record: dict, text: str, copy: int) -> bytes:
    """Return a record with this text as a line of JSON."""
    changed = {**record, "id": f"{record.get('id', '')}~{copy}", "text": text}
    return (json.dumps(changed, ensure_ascii=False) + "\n").encode()
