"""``dsir doctor``: before a heavy run, what is likely to go wrong, the number that shows it, and what to do.

What belongs here: the checks and their order. What does not: reading (``samples``), when a number is a warning
(``checks``), layout (``printing``), the arithmetic (``dsir/doctor.py``).

Nothing needs to be computed first, and nothing is written except the folders of a new home. If every file of the pool
is counted, lengths, duplicates and leakage are those of the whole pool; otherwise those of a sample.
"""

from __future__ import annotations

from dsir_dagster.doctor import checks, samples
from dsir_dagster.resources.corpus import discover
from dsir_dagster.resources.workspace import Workspace


def examine(workspace: Workspace) -> tuple[list[checks.Finding], list[checks.Curve]]:
    """Look for likely trouble.

    Returns
    -------
    list of Finding
        In reading order.
    list of Curve
        One for each target with enough documents.

    Raises
    ------
    CorpusError
        A source or a target matches no file.
    """
    settings = workspace.settings
    shards = {source.name: discover(source, workspace.home) for source in settings.raw}
    targets = [samples.sample_target(workspace, each) for each in settings.targets]
    pool_samples = [samples.sample_source(workspace, each, shards[each.name]) for each in settings.raw]
    parts = [part for target in targets for part in (target.train, target.holdout) if part]
    findings = [
        *checks.check_fields("pool", pool_samples),
        *checks.check_fields("targets", parts),
        *checks.check_words(settings, [*pool_samples, *parts]),
    ]
    pool = samples.counted_pool(workspace, [shard for each in shards.values() for shard in each])
    pool = pool or samples.sampled_pool(pool_samples)
    if not pool.documents:
        return findings, []
    findings += checks.check_lengths(settings.selections, pool)
    findings += checks.check_fragments(settings.selections, pool)
    findings += checks.check_duplicates(pool, any(each.collapse_duplicates for each in settings.selections))
    curves = []
    in_sample = (each for sample in pool_samples for each in sample.features)
    raw = samples.ngram_totals(in_sample, settings.features.buckets)
    for target in targets:
        findings += checks.check_leakage(target, pool)
        if not target.train.n_tokens.sum() or not raw.sum():
            continue
        too_few = list(checks.check_number(target))
        findings += too_few
        if not too_few and (curve := checks.curve_of(settings, target, raw)):
            curves.append(curve)
            findings.append(checks.check_size(curve))
        findings.append(checks.check_empty_buckets(settings, target, raw))
        findings.append(checks.check_collisions(settings, target, pool_samples))
        findings += checks.check_likeness(settings, target, raw, pool_samples)
    return findings, curves
