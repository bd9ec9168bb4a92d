"""The checks of ``dsir doctor``: numbers, when each is a warning, and what to do then.

What belongs here: judging what was read, in words. What does not: reading (``samples``), arithmetic with a meaning of
its own (``dsir/doctor.py``), layout (``printing``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dsir.doctor import (
    FRAGMENT,
    Point,
    crowded_out,
    fragments,
    learning_curve,
    likeness,
    without_fragments,
    without_spaces,
)
from dsir.evaluation import contained, distinct, distribution, kl_divergence
from dsir.features import Features
from dsir.importance import log_ratios
from dsir.ngrams import hash_ngrams
from dsir_dagster.doctor.samples import PoolDocuments, Sample, TargetSample, ngram_totals
from dsir_dagster.resources.corpus import fields_of_file
from dsir_dagster.resources.settings import Selection, Settings

#: N-grams of the pool's sample and a target together, to look for collisions in.
DISTINCT_NGRAMS = 400_000
#: Characters of each source and target, to look for words in.
CHARACTERS = 100_000

#: Above these, a number is a warning.
STILL_FALLING = 0.10  # gain of a target's last doubling, as a share of the way from the pool to the target
ON_EMPTY_BUCKETS = 0.01  # share of the pool's n-grams in buckets that the target leaves empty
CROWDED = 2 / 3  # share of the target's n-grams that are a minority in their bucket
UNUSABLE_ROWS = 0.01
EMPTY_TEXTS = 0.01
DUPLICATES = 0.05
TOO_SHORT = 0.5
MANY_FRAGMENTS = 0.1  # in a real pool 0.15 to 0.19 where `resample` picked fragments, 0.07 or less where not
TOO_FEW = 20  # below this many documents of a target
NO_SPACES = 0.1  # share of letters from scripts without spaces between words
LONG_WORDS = 12  # mean characters per word

#: Numbers of buckets to advise.
BUCKETS = (10_000, 30_000, 100_000, 300_000, 1_000_000)


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
        What to do; '' for nothing.
    number : str
        What is judged, for a table.
    """

    check: str
    about: str
    warning: bool
    says: str
    advice: str = ""
    number: str = ""


@dataclass(frozen=True)
class Curve:
    """A learning curve of a target, and the distance of held-out text from the pool in nats."""

    target: str
    points: list[Point]
    pool: float

    @property
    def last_doubling(self) -> float:
        """Gain of the last doubling, as a share of the way from the pool to the target; infinite if there is no way."""
        gained, way = self.points[-2].kl - self.points[-1].kl, self.pool - self.points[-1].kl
        return gained / way if way > 0 else np.inf


def check_fields(about: str, samples: Sequence[Sample]) -> Iterator[Finding]:
    """Look for unusable files and rows, and for missing or empty fields."""
    warned = False
    for sample in samples:
        for says, advice in _bad_fields(sample):
            warned = True
            yield Finding("fields", sample.name, True, says, advice)
    if not warned:
        rows = sum(each.rows for each in samples)
        files, of_files = (sum(getattr(each, n) for each in samples) for n in ("files", "of_files"))
        part = "" if all(each.whole for each in samples) else "the beginning of "
        says = f"{rows:,} rows, {part}{files:,} of {of_files:,} files: nothing is missing"
        yield Finding("fields", about, False, says)


def _bad_fields(sample: Sample) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a sample, and what to do about it."""
    reader = sample.reader
    for message in sample.errors[:3]:
        yield message, "this file is left out until it can be read"
    if not sample.rows and not sample.errors:
        yield "no rows", "look at its files"
    if len(sample.rejected) > UNUSABLE_ROWS * sample.rows:
        [(reason, n)] = Counter(each.reason for _, each in sample.rejected).most_common(1)
        uri, first = next(each for each in sample.rejected if each[1].reason == reason)
        advice = f"the text is taken from {reader.text!r}"
        if fields := fields_of_file(uri, reader):
            advice += f"; the records have: {', '.join(fields)}"
        if first.excerpt:
            advice += f"; such a row begins with {first.excerpt[:80]!r}"
        yield (
            f"{len(sample.rejected):,} of {sample.rows:,} rows cannot be used, {n:,} of them because of this: {reason} "
            f"(row {first.row} of {uri})",
            advice,
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
            says += ", or none that can be written as text"
            yield says, f"{instead} will be used instead; name another field, or none"


def check_words(settings: Settings, samples: Sequence[Sample]) -> Iterator[Finding]:
    """Look for text that the tokenizer fails to cut into words."""
    tokenizer = settings.features.tokenizer
    if tokenizer not in ("wordpunct", "whitespace"):
        return
    advice = "name a tokenizer for this language: `features.tokenizer: package.module:function`"
    warned, longest = False, 0.0
    for sample in samples:
        text = "\n".join(sample.some(CHARACTERS // 5))[: 4 * CHARACTERS]
        share = without_spaces(text)
        words = [len(word) for word in text.split() if word.isalpha()]
        mean = float(np.mean(words)) if words else 0.0
        if share > NO_SPACES:
            says = f"{share:.0%} of the letters are of scripts without spaces between words; {tokenizer} needs spaces"
        elif mean > LONG_WORDS:
            says = f"words have {mean:.1f} letters on average: are there spaces between them?"
        else:
            longest = max(longest, mean)
            continue
        warned = True
        yield Finding("words", sample.name, True, says, advice)
    if not warned:
        says = f"words have at most {longest:.1f} letters on average in any source or target"
        yield Finding("words", "pool and targets", False, says)


def check_lengths(selections: Sequence[Selection], pool: PoolDocuments) -> Iterator[Finding]:
    """Compare document lengths with the ``min_tokens`` of each selection."""
    median = int(pool.n_tokens[np.searchsorted(np.cumsum(pool.of_length), (pool.documents + 1) // 2)])
    for selection in selections:
        short = int(pool.of_length[pool.n_tokens < selection.min_tokens].sum())
        share = short / pool.documents
        says = f"{share:.1%} of {pool.documents:,} {pool.called} are shorter than min_tokens {selection.min_tokens}"
        advice = f"half of the documents have {median:,} tokens or fewer: lower `min_tokens`, or join short documents"
        yield Finding("length", selection.name, share > TOO_SHORT, says, advice if share > TOO_SHORT else "")


def check_fragments(selections: Sequence[Selection], pool: PoolDocuments) -> Iterator[Finding]:
    """Look for short documents that would fill the budgets of selections by plain log weights."""
    for selection in selections:
        found = fragments(pool.n_tokens, pool.of_length, selection.min_tokens)
        if not selection.keys_are_log_weights or not found.documents:
            continue
        share = found.short / found.documents
        least = f" of {selection.min_tokens:,} tokens or more" if selection.min_tokens else ""
        says = (
            f"{share:.1%} of {found.documents:,} {pool.called}{least} are shorter than {FRAGMENT:.0%} of their "
            f"median of {found.median:,.0f} tokens"
        )
        if share <= MANY_FRAGMENTS:
            yield Finding("fragments", selection.name, False, says)
            continue
        says += (
            f"; `{selection.method}` ranks by a sum over n-grams, so such documents tend to fill its budget"
        )
        if tokens := selection.size.tokens:
            says += f": {tokens:,} tokens are {tokens / found.median:,.0f} of the median length, "
            says += f"{tokens / max(found.mean, 1):,.0f} of theirs"
        advice = (
            f"`min_tokens: {without_fragments(found.median)}` leaves them out; `evaluation.bits_per_byte` tells "
            "whether that is better"
        )
        yield Finding("fragments", selection.name, True, says, advice)


def check_duplicates(pool: PoolDocuments, collapsed: bool) -> Iterator[Finding]:
    """Count documents that repeat the text of another."""
    again = pool.documents - pool.texts
    share = again / pool.documents
    warning = share > DUPLICATES and not collapsed
    advice = "`collapse_duplicates: true` in a selection keeps one of each" if warning else ""
    says = f"{again:,} of {pool.documents:,} {pool.called} repeat the text of another ({share:.1%})"
    yield Finding("duplicates", "pool", warning, says, advice)


def check_leakage(target: TargetSample, pool: PoolDocuments) -> Iterator[Finding]:
    """Look for documents of a target or its holdout in the pool, and for holdout documents in the target."""
    train = distinct(target.train.hashes)
    holdout = distinct(target.holdout.hashes) if target.holdout else train[:0]
    both = int(contained(holdout, train).sum())
    if both:
        says = f"{both:,} of {len(holdout):,} held-out texts are in the target too"
        advice = "take them out of the holdout: text that was fitted on measures nothing"
        yield Finding("leakage", target.name, True, says, advice, f"{both:,}")
    found, of_pool = pool.find(np.union1d(train, holdout)), f"{pool.documents:,} {pool.called}"
    for what, hashes, advice in (
        ("target", train, "they will be picked first; take them out of the pool if you keep them anyway"),
        ("holdout", holdout, "take them out of the pool or the holdout, or evaluations will look too good"),
    ):
        mine = [found[content] for content in found.keys() & set(hashes.tolist())]
        if mine:
            such = next((f", such as {doc_id!r}" for _, doc_id in sorted(mine) if doc_id), "")
            documents = sum(n for n, _ in mine)
            says = f"{documents:,} of {of_pool} repeat a text of its {what}{such}"
            yield Finding("leakage", target.name, True, says, advice, f"{documents:,}")
    if not both and not found:
        says = f"none of its {len(train):,} texts is among {of_pool}"
        if target.holdout:
            says += f", nor any of the {len(holdout):,} held-out ones, none of which is in the target"
        yield Finding("leakage", target.name, False, says, number="0")


def check_number(target: TargetSample) -> Iterator[Finding]:
    """Look for targets with too few documents even for a learning curve."""
    documents = len(target.train.n_tokens)
    if documents < TOO_FEW:
        says = f"{documents:,} documents are too few to fit a distribution or to judge a selection"
        advice = "add documents: thousands are usual, hundreds can do"
        yield Finding("size of the target", target.name, True, says, advice, f"{documents:,} documents")


def curve_of(settings: Settings, target: TargetSample, raw: np.ndarray) -> Curve | None:
    """Fit growing parts of a target; None with fewer than two points, or without held-out n-grams."""
    smoothing = settings.evaluation.smoothing
    fitted, others = target.split()
    totals = ngram_totals(others, len(raw))
    points = learning_curve(fitted, totals, smoothing)
    if len(points) < 2 or not totals.sum():
        return None
    pool = kl_divergence(distribution(totals, smoothing), distribution(raw, smoothing))
    return Curve(target.name, points, pool)


def check_size(curve: Curve) -> Finding:
    """Judge the size of a target by the end of its learning curve."""
    last, before = curve.points[-1], curve.points[-2]
    documents = f"{last.documents:,} documents"
    if curve.last_doubling == np.inf:
        says = f"held-out text is {last.kl:.3f} nats from its {documents}, {curve.pool:.3f} from the pool: no farther"
        advice = "the target is too small, or its text is no different from the pool's: add documents"
        return Finding("size of the target", curve.target, True, says, advice, "no way")
    warning = curve.last_doubling > STILL_FALLING
    says = (
        f"from {before.documents:,} to {documents}, KL(held out‖fit) fell by {before.kl - last.kl:.3f} to "
        f"{last.kl:.3f} nats: {curve.last_doubling:.0%} of the way from the pool ({curve.pool:.3f}) to the target"
    )
    advice = (
        "the curve still falls: more documents would give a better fit; or count in fewer `features.buckets`"
    )
    number = f"{curve.last_doubling:.0%}"
    return Finding("size of the target", curve.target, warning, says, advice if warning else "", number)


def check_empty_buckets(settings: Settings, target: TargetSample, raw: np.ndarray) -> Finding:
    """Look for buckets that the target leaves empty."""
    counts = ngram_totals(target.train.features, len(raw))
    empty = counts == 0
    share = raw[empty].sum() / raw.sum()
    warning = bool(share > ON_EMPTY_BUCKETS and settings.estimator.target_smoothing == 0)
    says = (
        f"{np.count_nonzero(empty):,} of {len(counts):,} buckets have none of its {counts.sum():,} n-grams; "
        f"{share:.1%} of the pool's n-grams fall there"
    )
    advice = (
        "with resample, top_k and moore_lewis, each costs a document about ten nats (match and cynical do their own "
        "smoothing): set "
        "`estimator.target_smoothing` (say 0.5), lower `features.buckets`, or add documents"
    )
    return Finding("empty buckets", target.name, warning, says, advice if warning else "", f"{share:.1%}")


def check_collisions(settings: Settings, target: TargetSample, pool: list[Sample]) -> Finding:
    """Look for n-grams that others crowd out of their buckets."""
    features = settings.features
    mine = target.train.some(DISTINCT_NGRAMS // 2)
    texts = [text for each in pool for text in each.some(DISTINCT_NGRAMS // len(pool))]
    ngrams = hash_ngrams(pa.array([*mine, *texts], pa.large_string()), features.spec())
    documents = np.arange(len(mine) + len(texts)) < len(mine)
    share = crowded_out(ngrams, documents, features.buckets)
    n_target = sum(int(each.counts.sum()) for each in target.train.features)
    says = (
        f"{len(distinct(ngrams.hashes)):,} distinct n-grams in a sample of {len(ngrams.hashes):,} for "
        f"{features.buckets:,} buckets; {share:.0%} of the target's are a minority in theirs"
    )
    if share <= CROWDED:
        return Finding("collisions", target.name, False, says, number=f"{share:.0%}")
    shares = {n: crowded_out(ngrams, documents, n) for n in BUCKETS if features.buckets < n <= n_target}
    fitting = [n for n, of_n in shares.items() if of_n <= CROWDED * 0.8] or list(shares)[-1:]
    advice = f"the target has too few n-grams ({n_target:,}) to fill more buckets: add documents first"
    if fitting:
        advice = f"`features.buckets: {fitting[0]}` would bring it to {shares[fitting[0]]:.0%}"
    return Finding("collisions", target.name, True, says, advice, f"{share:.0%}")


def check_likeness(
    settings: Settings, target: TargetSample, raw: np.ndarray, pool: list[Sample]
) -> Iterator[Finding]:
    """Look for documents of the pool that are as much like the target as its own documents."""
    fitted, others = target.split()
    counts = ngram_totals(fitted, len(raw))
    if not counts.sum():
        return
    ratios = log_ratios(counts, raw, settings.estimator.target_smoothing)

    def of(features: Iterable[Features]) -> np.ndarray:
        found = np.concatenate([np.empty(0), *(likeness(each, ratios) for each in features)])
        return found[~np.isnan(found)]

    of_target, of_pool = of(others), of(each for sample in pool for each in sample.features)
    if not len(of_target) or not len(of_pool):
        return
    bar = np.quantile(of_target, 0.1)
    like = int(np.count_nonzero(of_pool >= bar))
    says = (
        f"{like:,} of {len(of_pool):,} sampled documents look like the target: 90% of its held-out documents score "
        f"above {bar:+.2f} nats per n-gram; the pool's top 1% reaches {np.quantile(of_pool, 0.99):+.2f}"
    )
    advice = "the pool may have nothing like the target; a selection then takes the least different: look at its picks"
    number = f"{like:,} of {len(of_pool):,}"
    yield Finding("likeness of the pool", target.name, not like, says, "" if like else advice, number)
