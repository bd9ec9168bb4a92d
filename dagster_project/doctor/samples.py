"""What ``dsir doctor`` looks at: a bounded sample of the pool, the targets, and counted documents if there are any.

What belongs here: how much of which file is read, and what is kept. What does not: files and formats
(``resources/corpus/``), queries on counted documents (``sql/doctor_*.sql``), judging.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa

from dsir.doctor import held_out
from dsir.evaluation import contained, distinct
from dsir.features import Features, featurize
from dsir_dagster.resources.corpus import Block, CorpusError, Rejected, Shard, TextBatch, expand, read_blocks
from dsir_dagster.resources.discovery import kept_stamp
from dsir_dagster.resources.groups import grouped
from dsir_dagster.resources.plan import Plan, ShardFile
from dsir_dagster.resources.settings import RawSource, Target
from dsir_dagster.resources.workspace import Workspace

#: Files of the pool to look into, with at least one per source, and bytes of text to read per file.
FILES, FILE_BYTES = 64, 1 << 17
#: Bytes of text to read of a target, and of its holdout (a sane target is smaller); and bytes per block.
TARGET_BYTES, BLOCK_BYTES = 64 << 20, 1 << 20


@dataclass
class Sample:
    """What was read of a source, a target or a holdout.

    Attributes
    ----------
    name : str
    reader : RawSource or Target
    files : int
        Files read, of ``of_files``.
    whole : bool
        Whether nothing was left out.
    features : list of Features
        One per batch; likewise ``texts``.
    rows, without_id, without_source : int
    rejected : list of (str, Rejected)
        URI of the file, and the row.
    errors : list of str
        One per file that cannot be read.
    """

    name: str
    reader: RawSource | Target
    files: int
    of_files: int
    whole: bool
    texts: list[pa.Array] = field(default_factory=list, repr=False)
    features: list[Features] = field(default_factory=list, repr=False)
    rows: int = 0
    without_id: int = 0
    without_source: int = 0
    rejected: list[tuple[str, Rejected]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, uri: str, batch: TextBatch, features: Features) -> None:
        """Add a block."""
        self.texts.append(batch.texts)
        self.features.append(features)
        self.rows += len(batch.rows) + len(batch.rejected)
        self.without_id += batch.ids.null_count if batch.ids is not None else 0
        self.without_source += batch.sources.null_count if batch.sources is not None else 0
        self.rejected += [(uri, each) for each in batch.rejected]

    @property
    def hashes(self) -> np.ndarray:
        """Content hash of every document."""
        return np.concatenate([np.empty(0, np.uint64), *(each.content_hash for each in self.features)])

    @property
    def n_tokens(self) -> np.ndarray:
        """Tokens of every document."""
        return np.concatenate([np.empty(0, np.int64), *(each.n_tokens for each in self.features)])

    def some(self, ngrams: int) -> list[str]:
        """Return texts with about this many n-grams, evenly spread over the sample."""
        total = sum(int(each.counts.sum()) for each in self.features)
        texts = [text for batch in self.texts for text in batch.to_pylist()]
        return texts[:: max(-(-total // max(ngrams, 1)), 1)]


@dataclass(frozen=True)
class TargetSample:
    """What was read of a target: documents to fit on, and held-out ones to measure with."""

    name: str
    train: Sample
    holdout: Sample | None

    def split(self) -> tuple[list[Features], list[Features]]:
        """Return documents to fit on, and held-out ones: a fifth, if there is no holdout."""
        if self.holdout:
            return self.train.features, self.holdout.features
        fitted, others = [], []
        for each in self.train.features:
            batch, validation = each.to_arrow(), held_out(each.content_hash)
            fitted.append(Features.from_arrow(batch.filter(pa.array(~validation))))
            others.append(Features.from_arrow(batch.filter(pa.array(validation))))
        return fitted, others


@dataclass(frozen=True)
class PoolDocuments:
    """Documents of the pool: all counted ones, or those of the sample.

    Attributes
    ----------
    called : str
        "documents of the pool" or "sampled documents".
    documents, texts : int
        Number of documents, and of distinct texts.
    n_tokens, of_length : ndarray of int64
        Distinct lengths, ascending, and the number of documents of each.
    find : callable
        Takes content hashes; maps those found to the number of documents with that content, and the id of one.
    """

    called: str
    documents: int
    texts: int
    n_tokens: np.ndarray
    of_length: np.ndarray
    find: Callable[[np.ndarray], dict[int, tuple[int, str]]]


def ngram_totals(features: Iterable[Features], buckets: int) -> np.ndarray:
    """Return n-gram totals: ndarray of int64, shape (buckets,)."""
    totals = np.zeros(buckets, dtype=np.int64)
    for each in features:
        each.add_totals(totals)
    return totals


def sample_source(workspace: Workspace, source: RawSource, shards: list[Shard]) -> Sample:
    """Read the beginnings of some files of a source, evenly spread."""
    n = min(len(shards), max(1, FILES // len(workspace.settings.raw)))
    chosen = [shards[i].uri for i in np.linspace(0, len(shards) - 1, n).astype(int)]
    sample = Sample(source.name, source, n, len(shards), whole=False)
    _read(workspace, sample, chosen, lambda uri: islice(read_blocks(uri, source, FILE_BYTES), 1))
    return sample


def sample_target(workspace: Workspace, target: Target) -> TargetSample:
    """Read a target and its holdout, or the beginning of a very large one."""

    def read(pattern: str) -> Sample:
        files = expand(pattern, workspace.home)
        name = target.name if pattern == target.uri else f"{target.name}, holdout"
        sample = Sample(name, target, len(files), len(files), whole=True)
        room = iter(range(TARGET_BYTES // BLOCK_BYTES))

        def while_room(uri: str) -> Iterator[Block]:
            for block in read_blocks(uri, target, BLOCK_BYTES):
                if next(room, None) is None:
                    sample.whole = False
                    return
                yield block

        _read(workspace, sample, [file.uri for file in files], while_room)
        return sample

    return TargetSample(target.name, read(target.uri), read(target.holdout) if target.holdout else None)


def _read(
    workspace: Workspace, sample: Sample, uris: list[str], blocks: Callable[[str], Iterator[Block]]
) -> None:
    spec, words = workspace.settings.features.spec(), getattr(sample.reader, "chunk_words", None)

    def work(block: Block) -> tuple[TextBatch, Features]:
        batch = block.parse()
        if words is not None:
            batch = batch.cut(words)
        return batch, featurize(batch.texts, spec)

    for uri in uris:
        try:
            for batch, features in workspace.engine.map_blocks(work, blocks(uri)):
                sample.add(uri, batch, features)
        except CorpusError as error:
            sample.errors.append(str(error))


def sampled_pool(samples: list[Sample]) -> PoolDocuments:
    """Return the sampled documents of the pool."""
    hashes = np.concatenate([each.hashes for each in samples])
    n_tokens = np.concatenate([each.n_tokens for each in samples])

    def find(wanted: np.ndarray) -> dict[int, tuple[int, str]]:
        found = Counter(hashes[contained(hashes, wanted)].tolist())
        return {content: (n, "") for content, n in found.items()}

    lengths, of_length = np.unique(n_tokens, return_counts=True)
    return PoolDocuments("sampled documents", len(hashes), len(distinct(hashes)), lengths, of_length, find)


def counted_pool(workspace: Workspace, shards: list[Shard]) -> PoolDocuments | None:
    """Return the counted documents of the pool, or None unless every file has fresh counts; reads no pool file."""
    # A renamed file remains the same shard.
    rows = workspace.catalog.query("known_shards").to_pylist()
    known = workspace.discovery.known_files(rows)
    keys = {(row["source"], row["uri"]): row["shard"] for row in rows}
    files = []
    for source in workspace.settings.raw:
        mine = []
        for shard in shards:
            if shard.source != source.name:
                continue
            stamp = kept_stamp(shard, known.get(shard.uri))
            if stamp is None:
                return None
            key = shard.key if source.group else keys.get((shard.source, shard.uri), shard.key)
            mine.append(ShardFile(key, shard.source, shard.uri, shard.size, shard.modified, stamp))
        files += grouped(mine, source.group.bytes) if source.group else mine
    plan = Plan(workspace.settings, files, {}, workspace.latest())
    if plan.uncounted:
        return None
    paths = [workspace.store.where(workspace.store.name("documents", shard)) for shard in plan.counted]
    [contents] = workspace.catalog.query_files("doctor_contents", files=paths).to_pylist()
    lengths = workspace.catalog.query_files("doctor_lengths", files=paths)

    def find(wanted: np.ndarray) -> dict[int, tuple[int, str]]:
        found = workspace.catalog.query_files("doctor_leaks", files=paths, hashes=wanted.tolist())
        return {row["content_hash"]: (row["documents"], row["doc_id"]) for row in found.to_pylist()}

    n_tokens, of_length = lengths["n_tokens"].to_numpy(), lengths["documents"].to_numpy()
    return PoolDocuments(
        "documents of the pool", contents["documents"], contents["texts"], n_tokens, of_length, find
    )
