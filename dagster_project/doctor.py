"""``dsir doctor``: before anything heavy, what is likely to go wrong, with the number that says so and what to do.

What belongs here: reading the targets and a bounded sample of the pool, from where on a number is a warning, advice.
What does not: the arithmetic (``dsir/doctor.py``), questions to counted documents (``sql/doctor_*.sql``).

Nothing has to be computed before, and nothing is written but for the folders of an empty home. Where every file of the
pool is counted, lengths, duplicates and leakage are those of the whole pool; else those of the sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dsir.doctor import Point, crowded_out, learning_curve, likeness, without_spaces
from dsir.evaluation import contained, distribution, kl_divergence
from dsir.features import Features, featurize
from dsir.importance import log_ratios
from dsir.matching import held_back
from dsir.ngrams import number_ngrams
from resources.corpus import (
    Block,
    CorpusError,
    FileInfo,
    Rejected,
    Shard,
    TextBatch,
    discover,
    expand,
    read_blocks,
)
from resources.plan import Plan, ShardFile
from resources.settings import RawSource, Reader, Selection, Target
from resources.workspace import Workspace

#: Files of the pool that are looked into, at least one of each source, and bytes of text of each.
FILES, FILE_BYTES = 64, 1 << 17
#: Bytes of text that are read of a target and of its holdout: of a sane target, all.
TARGET_BYTES = 64 << 20
#: N-grams of the pool's sample, and of each target, that are told apart.
DISTINCT_NGRAMS = 400_000
#: Characters of each source and target that letters and words are looked at in.
CHARACTERS = 100_000

#: From where on a number is a warning.
STILL_FALLING = 0.10  # what the last doubling of a target brought, of the way from the pool to the target
ON_EMPTY_BUCKETS = 0.01  # n-grams of the pool in buckets that are empty in the target
CROWDED = 2 / 3  # n-grams of the target that are a minority in their bucket
UNUSABLE_ROWS = 0.01
EMPTY_TEXTS = 0.01
DUPLICATES = 0.05
TOO_SHORT = 0.5
NO_SPACES = 0.1  # letters of scripts without spaces between words
LONG_WORDS = 12  # characters of a word, in the mean

#: Numbers of buckets that are advised.
BUCKETS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
BLOCKS = "▁▂▃▄▅▆▇█"

#: Checks of targets, and the columns that their numbers are in.
OF_TARGETS = {
    "leakage": "leaked\ntexts",
    "size of the target": "last doubling,\nof the way",
    "empty buckets": "pool's n-grams on\nempty buckets",
    "collisions": "n-grams\ncrowded out",
    "likeness of the pool": "documents\nas much like it",
}


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes
    ----------
    check : str
    about : str
        Source, target or selection.
    warning : bool
    says : str
    advice : str
        What to do; '' where there is nothing to do.
    number : str
        What is judged, where ``says`` is too long for it.
    """

    check: str
    about: str
    warning: bool
    says: str
    advice: str = ""
    number: str = ""


@dataclass
class Sample:
    """What was read of a source, of a target or of its holdout.

    Attributes
    ----------
    name : str
    files : int
        Files that were read, of ``of_files``.
    features : list of Features
        In batches; texts likewise.
    rows, without_id, without_source : int
    rejected : list of (str, Rejected)
        With the file's URI.
    errors : list of str
        Files that can not be read.
    whole : bool
        Whether this is all there is.
    """

    name: str
    files: int = 0
    of_files: int = 0
    texts: list[pa.Array] = field(default_factory=list, repr=False)
    features: list[Features] = field(default_factory=list, repr=False)
    rows: int = 0
    without_id: int = 0
    without_source: int = 0
    rejected: list[tuple[str, Rejected]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    whole: bool = True

    def add(self, uri: str, batch: TextBatch, features: Features) -> None:
        """Take a block into account."""
        self.texts.append(batch.texts)
        self.features.append(features)
        self.rows += len(batch.rows) + len(batch.rejected)
        self.without_id += batch.ids.null_count if batch.ids is not None else 0
        if batch.sources is not None:
            self.without_source += batch.sources.to_pylist().count(self.name)
        self.rejected += [(uri, each) for each in batch.rejected]

    @property
    def hashes(self) -> np.ndarray:
        """Content hash of every document."""
        return _concatenated([each.content_hash for each in self.features], np.uint64)

    @property
    def n_tokens(self) -> np.ndarray:
        """Tokens of every document."""
        return _concatenated([each.n_tokens for each in self.features], np.int64)

    def totals(self, buckets: int) -> np.ndarray:
        """N-gram totals: ndarray of int64, shape (buckets,)."""
        totals = np.zeros(buckets, dtype=np.int64)
        for each in self.features:
            each.add_totals(totals)
        return totals

    def some(self, ngrams: int) -> list[str]:
        """Return texts of about so many n-grams, from all over the sample."""
        total = sum(int(each.counts.sum()) for each in self.features)
        texts = [text for batch in self.texts for text in batch.to_pylist()]
        return texts[:: max(-(-total // max(ngrams, 1)), 1)]


@dataclass(frozen=True)
class TargetSample:
    """What was read of a target: the documents that are fitted on, and others to hold against them."""

    target: Target
    train: Sample
    holdout: Sample | None

    @property
    def name(self) -> str:
        """Name of the target."""
        return self.target.name

    @property
    def parts(self) -> list[Sample]:
        """The target, and its holdout if there is one."""
        return [each for each in (self.train, self.holdout) if each]

    def split(self, buckets: int) -> tuple[list[Features], np.ndarray, list[Features]]:
        """Return documents to fit on, the totals of others, and these: a fifth, where there is no holdout."""
        if self.holdout is not None:
            return self.train.features, self.holdout.totals(buckets), self.holdout.features
        back = [held_back(each.content_hash) for each in self.train.features]
        kept, other = (
            [
                Features.from_arrow(each.to_arrow().filter(pa.array(mask)))
                for each, mask in zip(self.train.features, masks, strict=True)
            ]
            for masks in ([~mask for mask in back], back)
        )
        return kept, sum((each.totals(buckets) for each in other), np.zeros(buckets, np.int64)), other


@dataclass(frozen=True)
class Pool:
    """Documents of the pool, all that are counted or those of the sample.

    Attributes
    ----------
    called : str
        What they are: "documents of the pool" or "sampled documents".
    documents, texts : int
        How many, and how many different.
    n_tokens, of_length : ndarray of int64
        Different lengths, ascending, and how many documents have each.
    find : callable
        Takes content hashes; returns of those that are there how many documents have them, and one's id.
    """

    called: str
    documents: int
    texts: int
    n_tokens: np.ndarray
    of_length: np.ndarray
    find: Callable[[np.ndarray], dict[int, tuple[int, str]]]


@dataclass(frozen=True)
class Curve:
    """A learning curve of a target, and how far the held-out text is from the pool: nats."""

    target: str
    points: list[Point]
    pool: float

    @property
    def last_doubling(self) -> float:
        """What the last doubling brought, as a share of the way from the pool to the target; infinite on no way."""
        gained, way = self.points[-2].kl - self.points[-1].kl, self.pool - self.points[-1].kl
        return gained / way if way > 0 else np.inf


def examine(workspace: Workspace) -> tuple[list[Finding], list[Curve]]:
    """Look for what is likely to go wrong.

    Returns
    -------
    list of Finding
        In the order in which they are best read.
    list of Curve
        Of every target that has documents.

    Raises
    ------
    CorpusError
        A source or a target matches no file.
    """
    settings = workspace.settings
    shards = {source.name: discover(source) for source in settings.raw}
    pool_samples = [sample_source(workspace, source, shards[source.name]) for source in settings.raw]
    targets = [
        TargetSample(
            target,
            sample_target(workspace, target, target.uri),
            sample_target(workspace, target, target.holdout) if target.holdout else None,
        )
        for target in settings.targets
    ]
    parts = [part for target in targets for part in target.parts]
    findings = [
        *check_fields("pool", list(zip(settings.raw, pool_samples, strict=True))),
        *check_fields("targets", [(each.target, part) for each in targets for part in each.parts]),
        *check_words(workspace, [*pool_samples, *parts]),
    ]
    pool = counted_pool(workspace, [shard for each in shards.values() for shard in each])
    pool = pool or sampled_pool(pool_samples)
    if not pool.documents:
        return findings, []
    findings += check_lengths(settings.selections, pool)
    findings += check_duplicates(pool, any(each.collapse_duplicates for each in settings.selections))
    curves = []
    raw = sum(each.totals(settings.features.buckets) for each in pool_samples)
    for target in targets:
        findings += check_leakage(target, pool)
        if not target.train.n_tokens.sum() or not raw.sum():
            continue
        if curve := curve_of(workspace, target, raw):
            curves.append(curve)
            findings.append(check_size(curve, target))
        findings.append(check_empty_buckets(workspace, target, raw))
        findings.append(check_collisions(workspace, target, pool_samples))
        findings += check_likeness(workspace, target, raw, pool_samples)
    return findings, curves


# --- reading -----------------------------------------------------------------------------------------------------


def sample_source(workspace: Workspace, source: RawSource, shards: list[Shard]) -> Sample:
    """Read the beginnings of some files of a source, evenly spread over all of them."""
    n = min(len(shards), max(1, FILES // len(workspace.settings.raw)))
    chosen = [shards[i] for i in np.linspace(0, len(shards) - 1, n).astype(int)]
    sample = Sample(source.name, n, len(shards), whole=False)
    _read(workspace, source, chosen, sample, lambda blocks: islice(blocks, 1), FILE_BYTES)
    return sample


def sample_target(workspace: Workspace, target: Target, uri: str) -> Sample:
    """Read a target's files, or the beginning of very large ones."""
    files = expand(uri)
    name = target.name if uri == target.uri else f"{target.name}, holdout"
    sample = Sample(name, len(files), len(files))
    block_bytes = 1 << 20
    left = [TARGET_BYTES // block_bytes]

    def while_room(blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            if not left[0]:
                sample.whole = False
                return
            left[0] -= 1
            yield block

    _read(workspace, target, files, sample, while_room, block_bytes)
    return sample


def _read(
    workspace: Workspace,
    reader: Reader,
    files: Sequence[Shard | FileInfo],
    sample: Sample,
    chosen: Callable[[Iterable[Block]], Iterator[Block]],
    block_bytes: int,
) -> None:
    spec, words = workspace.settings.features.spec(), getattr(reader, "chunk_words", None)

    def work(block: Block) -> tuple[TextBatch, Features]:
        batch = block.parse()
        if words is not None:
            batch = batch.cut(words)
        return batch, featurize(batch.texts, spec)

    for file in files:
        try:
            blocks = chosen(read_blocks(file.uri, reader, block_bytes))
            for batch, features in workspace.engine.map_blocks(work, blocks):
                sample.add(file.uri, batch, features)
        except CorpusError as error:
            sample.errors.append(str(error))


def sampled_pool(samples: list[Sample]) -> Pool:
    """Return the sample's documents as a pool."""
    hashes = np.concatenate([each.hashes for each in samples])
    n_tokens = np.concatenate([each.n_tokens for each in samples])

    def find(wanted: np.ndarray) -> dict[int, tuple[int, str]]:
        found = Counter(hashes[contained(hashes, wanted)].tolist())
        return {content: (n, "") for content, n in found.items()}

    lengths, of_length = np.unique(n_tokens, return_counts=True)
    return Pool("sampled documents", len(hashes), len(np.unique(hashes)), lengths, of_length, find)


def counted_pool(workspace: Workspace, shards: list[Shard]) -> Pool | None:
    """Return the pool, if the counts of every file are there and fresh; no file is read to find out."""
    rows = {row["shard"]: row for row in workspace.catalog.query("known_shards").to_pylist()}
    files = []
    for shard in shards:
        row = rows.get(shard.key)
        if not row or (row["uri"], row["size"], row["modified"]) != (shard.uri, shard.size, shard.modified):
            return None
        files.append(ShardFile(shard.key, shard.source, shard.uri, shard.size, shard.modified, row["stamp"]))
    plan = Plan(workspace.settings, files, {}, workspace.latest())
    if plan.uncounted:
        return None
    paths = [str(workspace.store.path("documents", shard)) for shard in plan.counted]
    [contents] = workspace.catalog.query_files("doctor_contents", files=paths).to_pylist()
    lengths = workspace.catalog.query_files("doctor_lengths", files=paths)

    def find(wanted: np.ndarray) -> dict[int, tuple[int, str]]:
        found = workspace.catalog.query_files("doctor_leaks", files=paths, hashes=wanted.tolist())
        return {row["content_hash"]: (row["documents"], row["doc_id"]) for row in found.to_pylist()}

    n_tokens, of_length = lengths["n_tokens"].to_numpy(), lengths["documents"].to_numpy()
    return Pool("documents of the pool", contents["documents"], contents["texts"], n_tokens, of_length, find)


# --- checks ------------------------------------------------------------------------------------------------------


def check_fields(about: str, samples: Sequence[tuple[Reader, Sample]]) -> Iterator[Finding]:
    """Look for files and rows that can not be used, and for fields that are missing or empty."""
    warned = False
    for reader, sample in samples:
        for says, advice in _bad_fields(reader, sample):
            warned = True
            yield Finding("fields", sample.name, True, says, advice)
    if not warned:
        rows = sum(sample.rows for _, sample in samples)
        files, of_files = (sum(getattr(each, n) for _, each in samples) for n in ("files", "of_files"))
        part = "" if all(each.whole for _, each in samples) else "the beginning of "
        says = f"{rows:,} rows, {part}{files:,} of {of_files:,} files: nothing is missing"
        yield Finding("fields", about, False, says)


def _bad_fields(reader: Reader, sample: Sample) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a sample, and what to do."""
    for message in sample.errors[:3]:
        yield message, "this file will take no part until it can be read"
    if not sample.rows and not sample.errors:
        yield "no rows", "look at its files"
    if len(sample.rejected) > UNUSABLE_ROWS * sample.rows:
        [(reason, n)] = Counter(each.reason for _, each in sample.rejected).most_common(1)
        uri, first = next(each for each in sample.rejected if each[1].reason == reason)
        yield (
            f"{len(sample.rejected):,} of {sample.rows:,} rows can not be used; {n:,} since: {reason} "
            f"(row {first.row} of {uri})",
            f"the text is taken from {reader.text!r}; such a row begins with {first.excerpt[:80]!r}",
        )
    empty = int(np.count_nonzero(sample.n_tokens == 0))
    if empty > EMPTY_TEXTS * sample.rows:
        yield f"{empty:,} of {sample.rows:,} texts have no words", f"is {reader.text!r} the right field?"
    for name, missing, instead in (
        ("id", sample.without_id, "shard and row"),
        ("source", sample.without_source, f"'{sample.name}'"),
    ):
        if missing:
            says = f"{missing:,} of {sample.rows:,} rows have no `{getattr(reader, name)}`, the field of the {name}"
            yield says, f"they are called by {instead}; name another field, or none"


def check_words(workspace: Workspace, samples: Sequence[Sample]) -> Iterator[Finding]:
    """Look for text that the tokenizer does not cut into words."""
    tokenizer = workspace.settings.features.tokenizer
    if tokenizer not in ("wordpunct", "whitespace"):
        return
    advice = "name a tokenizer of such a language: `features.tokenizer: package.module:function`"
    warned, longest = False, 0.0
    for sample in samples:
        text = "\n".join(sample.some(CHARACTERS // 5))[: 4 * CHARACTERS]
        share = without_spaces(text)
        words = [len(word) for word in text.split() if word.isalpha()]
        mean = float(np.mean(words)) if words else 0.0
        if share > NO_SPACES:
            says = f"{share:.0%} of the letters are of scripts without spaces between words, {tokenizer} needs spaces"
        elif mean > LONG_WORDS:
            says = f"a word has {mean:.1f} letters in the mean: is it cut at spaces?"
        else:
            longest = max(longest, mean)
            continue
        warned = True
        yield Finding("words", sample.name, True, says, advice)
    if not warned:
        says = f"in no source or target a word has more than {longest:.1f} letters in the mean"
        yield Finding("words", "pool and targets", False, says)


def check_lengths(selections: Sequence[Selection], pool: Pool) -> Iterator[Finding]:
    """Compare the documents' lengths with every selection's ``min_tokens``."""
    median = int(pool.n_tokens[np.searchsorted(np.cumsum(pool.of_length), (pool.documents + 1) // 2)])
    for selection in selections:
        short = int(pool.of_length[pool.n_tokens < selection.min_tokens].sum())
        share = short / pool.documents
        says = f"{share:.1%} of {pool.documents:,} {pool.called} are shorter than min_tokens {selection.min_tokens}"
        advice = f"half of the documents have {median:,} tokens or fewer: lower `min_tokens`, or join short documents"
        yield Finding("length", selection.name, share > TOO_SHORT, says, advice if share > TOO_SHORT else "")


def check_duplicates(pool: Pool, collapsed: bool) -> Iterator[Finding]:
    """Count documents whose text another one has."""
    again = pool.documents - pool.texts
    share = again / pool.documents
    warning = share > DUPLICATES and not collapsed
    advice = "`collapse_duplicates: true` in a selection leaves one of each" if warning else ""
    says = f"{again:,} of {pool.documents:,} {pool.called} have the text of another one ({share:.1%})"
    yield Finding("duplicates", "pool", warning, says, advice)


def check_leakage(target: TargetSample, pool: Pool) -> Iterator[Finding]:
    """Look for documents of a target, and of its holdout, in the pool, and for those of the one in the other."""
    train, holdout = (np.unique(each.hashes) for each in (target.train, target.holdout or Sample("")))
    both = int(contained(holdout, train).sum())
    if both:
        says = f"{both:,} of {len(holdout):,} held-out texts are in the target too"
        advice = "take them out of the holdout: what was fitted on can not measure"
        yield Finding("leakage", target.name, True, says, advice, f"{both:,}")
    found = pool.find(np.union1d(train, holdout))
    for what, hashes, advice in (
        ("target", train, "they will be picked first; take them out of the pool if you have them anyway"),
        ("holdout", holdout, "take them out of the pool or of the holdout, or evaluations are too good"),
    ):
        mine = [found[content] for content in found.keys() & set(hashes.tolist())]
        if mine:
            such = next((f", such as {doc_id!r}" for _, doc_id in sorted(mine) if doc_id), "")
            documents = sum(n for n, _ in mine)
            says = (
                f"{documents:,} of {pool.documents:,} {pool.called} have the text of one of its {what}{such}"
            )
            yield Finding("leakage", target.name, True, says, advice, f"{documents:,}")
    if not both and not found:
        says = f"none of its {len(train):,} texts is among {pool.documents:,} {pool.called}"
        if target.holdout:
            says += f", nor of the {len(holdout):,} held out, and none of these in the target"
        yield Finding("leakage", target.name, False, says, number="0")


def curve_of(workspace: Workspace, target: TargetSample, raw: np.ndarray) -> Curve | None:
    """Fit growing parts of a target; None where there are fewer than two documents to fit on, or none to measure on."""
    smoothing, buckets = workspace.settings.evaluation.smoothing, workspace.settings.features.buckets
    fitted, held_out, _ = target.split(buckets)
    points = learning_curve(fitted, held_out, smoothing)
    if len(points) < 2 or not held_out.sum():
        return None
    pool = kl_divergence(distribution(held_out, smoothing), distribution(raw, smoothing))
    return Curve(target.name, points, pool)


def check_size(curve: Curve, target: TargetSample) -> Finding:
    """Judge a target's size by the end of its learning curve."""
    last, before = curve.points[-1], curve.points[-2]
    documents = f"{last.documents:,} documents"
    if curve.last_doubling == np.inf:
        says = f"held-out text is {last.kl:.3f} nats from its {documents}, {curve.pool:.3f} from the pool: no farther"
        advice = "the target is too small, or is no other text than the pool: add documents"
        return Finding("size of the target", target.name, True, says, advice, "no way")
    warning = curve.last_doubling > STILL_FALLING
    says = (
        f"from {before.documents:,} to {documents}, KL(held out‖fit) fell by {before.kl - last.kl:.3f} to "
        f"{last.kl:.3f} nats: {curve.last_doubling:.0%} of the way from the pool ({curve.pool:.3f}) to the target"
    )
    advice = "the curve still falls: more documents would give another, better fit; or count fewer `features.buckets`"
    number = f"{curve.last_doubling:.0%}"
    return Finding("size of the target", target.name, warning, says, advice if warning else "", number)


def check_empty_buckets(workspace: Workspace, target: TargetSample, raw: np.ndarray) -> Finding:
    """Look for buckets of which the target says nothing."""
    settings = workspace.settings
    counts = target.train.totals(settings.features.buckets)
    empty = counts == 0
    share = raw[empty].sum() / raw.sum()
    smoothing = settings.estimator.target_smoothing
    warning = bool(share > ON_EMPTY_BUCKETS and smoothing == 0)
    says = (
        f"{np.count_nonzero(empty):,} of {len(counts):,} buckets have none of its {counts.sum():,} n-grams; "
        f"{share:.1%} of the pool's n-grams are in these"
    )
    advice = (
        "each of them costs a document about ten nats: set `estimator.target_smoothing` (0.5, say), lower "
        "`features.buckets`, or add documents"
    )
    return Finding("empty buckets", target.name, warning, says, advice if warning else "", f"{share:.1%}")


def check_collisions(workspace: Workspace, target: TargetSample, pool: list[Sample]) -> Finding:
    """Look for n-grams that others crowd out of their bucket."""
    features = workspace.settings.features
    mine = target.train.some(DISTINCT_NGRAMS // 2)
    texts = [text for each in pool for text in each.some(DISTINCT_NGRAMS // len(pool))]
    ngrams = number_ngrams([*mine, *texts], features.spec())
    documents = np.arange(len(mine) + len(texts)) < len(mine)
    share = crowded_out(ngrams, documents, features.buckets)
    n_target = int(target.train.totals(features.buckets).sum())
    says = (
        f"{len(ngrams.hashes):,} different n-grams in a sample of {len(ngrams.number):,} for {features.buckets:,} "
        f"buckets; {share:.0%} of the target's are a minority in theirs"
    )
    if share <= CROWDED:
        return Finding("collisions", target.name, False, says, number=f"{share:.0%}")
    shares = {n: crowded_out(ngrams, documents, n) for n in BUCKETS if features.buckets < n <= n_target}
    fitting = [n for n, of_n in shares.items() if of_n <= CROWDED * 0.8] or list(shares)[-1:]
    advice = f"the target has too few n-grams ({n_target:,}) to fill more buckets: add documents first"
    if fitting:
        advice = f"`features.buckets: {fitting[0]}` would make it {shares[fitting[0]]:.0%}"
    return Finding("collisions", target.name, True, says, advice, f"{share:.0%}")


def check_likeness(
    workspace: Workspace, target: TargetSample, raw: np.ndarray, pool: list[Sample]
) -> Iterator[Finding]:
    """Look for documents of the pool that are as much like the target as its own are."""
    fitted, _, others = target.split(workspace.settings.features.buckets)
    counts = sum((each.totals(len(raw)) for each in fitted), np.zeros(len(raw), np.int64))
    if not counts.sum():
        return
    ratios = log_ratios(counts, raw, workspace.settings.estimator.target_smoothing)
    of_target = _concatenated([likeness(each, ratios) for each in others], np.float64)
    of_pool = _concatenated(
        [likeness(each, ratios) for sample in pool for each in sample.features], np.float64
    )
    of_target, of_pool = of_target[~np.isnan(of_target)], of_pool[~np.isnan(of_pool)]
    if not len(of_target) or not len(of_pool):
        return
    bar = np.quantile(of_target, 0.1)
    like = int(np.count_nonzero(of_pool >= bar))
    says = (
        f"{like:,} of {len(of_pool):,} sampled documents are as much like it as nine in ten of its own held-out ones "
        f"({bar:+.2f} nats an n-gram; the pool's best hundredth: {np.quantile(of_pool, 0.99):+.2f})"
    )
    advice = (
        "the pool may hold nothing like the target: a selection takes the least unlike; look at its documents"
    )
    number = f"{like:,} of {len(of_pool):,}"
    yield Finding("likeness of the pool", target.name, not like, says, "" if like else advice, number)


# --- showing -----------------------------------------------------------------------------------------------------


def print_doctor(findings: list[Finding], curves: list[Curve], console: Console) -> None:
    """Print the warnings with advice, what is well in the pool, and every number of the targets."""
    warnings = [each for each in findings if each.warning]
    for each in warnings:
        title = (f"{each.check}, {each.about}", "bold")
        console.print(Text.assemble(("! ", "bold yellow"), title, f": {each.says}"), soft_wrap=True)
        console.print(Text(f"  → {each.advice}", style="yellow"), soft_wrap=True)
    if warnings:
        console.print()
    for each in findings:
        if not each.warning and each.check not in OF_TARGETS:
            mark, title = ("✓ ", "green"), f"{each.check}, {each.about}"
            console.print(Text.assemble(mark, title, f": {each.says}"), soft_wrap=True)
    of_targets = [each for each in findings if each.check in OF_TARGETS]
    if of_targets:
        console.print()
        table = _table(("target", *OF_TARGETS.values()))
        for target in dict.fromkeys(each.about for each in of_targets):
            cells = []
            for check in OF_TARGETS:
                mine = [each for each in of_targets if (each.about, each.check) == (target, check)]
                style = "yellow" if any(each.warning for each in mine) else "green"
                mark = "! " if style == "yellow" else ""
                cells.append(Text(mark + ", ".join(each.number for each in mine), style=style))
            table.add_row(Text(target), *cells)
        console.print(table)
    if curves:
        console.print()
        console.print(
            "[bold]Learning curves[/]  KL(held out‖fit) in nats, on parts of the target, each twice the last"
        )
        table = _table(("target", "documents", "", "KL", "of the pool"))
        for curve in curves:
            kls = [point.kl for point in curve.points]
            table.add_row(
                Text(curve.target),
                f"{curve.points[0].documents:,} … {curve.points[-1].documents:,}",
                sparkline(kls),
                " ".join(f"{kl:.3f}" for kl in kls),
                f"{curve.pool:.3f}",
            )
        console.print(table)
    console.print()
    if warnings:
        well = len(findings) - len(warnings)
        plural = "s" if len(warnings) > 1 else ""
        console.print(Text(f"{len(warnings)} warning{plural}; {well} checks are well", style="yellow"))
    else:
        console.print(Text(f"all {len(findings)} checks are well", style="green"))


def _table(headers: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, no_wrap=True)
    return table


def sparkline(values: Sequence[float]) -> str:
    """Draw numbers as blocks of eight heights: the largest is the highest, 0 would be none."""
    top = max(values)
    return "".join(BLOCKS[min(int(8 * value / top), 7)] if top > 0 else BLOCKS[0] for value in values)


def _concatenated(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype)
