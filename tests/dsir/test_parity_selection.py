"""Agreement with the reference, ``data-selection`` 1.0.3, from texts to picked documents.

The reference runs as it is, in this process, over JSON Lines files; only its noise is replaced, by
numbers that are added here too.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from data_selection import HashedNgramDSIR

import dsir
from dsir.features import FeatureSpec, featurize
from dsir.importance import log_ratios, log_weights
from dsir.selection import CANDIDATE, Budget, TopK, needed, pick_in_turn, rank, split_budget

REAL_POOL = Path(__file__).parents[3] / "shared" / "data" / "pool"
SOURCES = ("wiki_vital_leads-00", "cs_acl_abstracts-00", "code_python-00", "novels_eltec-00")
SPEC = FeatureSpec(hash="sha256")
MIN_TOKENS = 100


def real_texts(source: str, n: int) -> list[str]:
    with pa.input_stream(str(REAL_POOL / f"{source}.jsonl.zst"), compression="zstd") as stream:
        lines = io.BytesIO(stream.read(4 << 20))
    texts = (json.loads(line)["text"][:2500] for line in lines.readlines()[:-1])
    return list(dict.fromkeys(texts))[:n]


def generated_texts(seed: int, n: int) -> list[str]:
    """Texts of 60 to 400 words of a vocabulary that each seed uses in its own proportions."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"wörd{i}" if i % 7 else f"It's-{i}," for i in range(800)])
    p = rng.gamma(0.3, size=800)
    return [" ".join(rng.choice(vocabulary, rng.integers(60, 400), p=p / p.sum())) for _ in range(n)]


def write(path: Path, texts: list[str], first_id: int = 0) -> str:
    lines = (json.dumps({"id": first_id + i, "text": text}) for i, text in enumerate(texts))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A pool in two files, two targets, and what this project computes of them."""
    folder = tmp_path_factory.mktemp("corpus")
    if REAL_POOL.exists():
        by_source = [real_texts(source, 100) for source in SOURCES]
        targets = [by_source[0][80:], by_source[2][80:]]
        texts = [text for each in by_source for text in each[:80]]
    else:
        texts = [text for seed in range(4) for text in generated_texts(seed, 80)]
        targets = [generated_texts(0, 100)[80:], generated_texts(2, 100)[80:]]
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]
    features = featurize(pa.array(texts), SPEC)
    target_counts = [featurize(pa.array(each), SPEC).totals(SPEC.buckets) for each in targets]
    eligible = features.n_tokens >= MIN_TOKENS
    assert 150 < eligible.sum() < len(texts)
    return SimpleNamespace(
        texts=texts,
        raw_files=[
            write(folder / "pool-0.jsonl", texts[:130]),
            write(folder / "pool-1.jsonl", texts[130:], 130),
        ],
        target_files=[write(folder / f"target-{i}.jsonl", each) for i, each in enumerate(targets)],
        features=features,
        raw_counts=features.totals(SPEC.buckets),
        target_counts=target_counts,
        eligible=eligible,
    )


def run_reference(corpus, cache: Path, **options) -> SimpleNamespace:
    """Fit and weigh with the reference."""
    dsir = HashedNgramDSIR(corpus.raw_files, corpus.target_files, str(cache), num_proc=1, **options)
    dsir.fit_importance_estimator(num_tokens_to_fit="all")
    dsir.compute_importance_weights()
    weights = [np.load(dsir.log_importance_weights_dir / f"{i}.npy") for i in range(len(corpus.raw_files))]
    lengths = [np.load(dsir.perexample_metadata_dir / f"{i}.npy") for i in range(len(corpus.raw_files))]
    return SimpleNamespace(dsir=dsir, weights=np.concatenate(weights), lengths=np.concatenate(lengths))


@pytest.fixture(scope="module")
def joint(corpus, tmp_path_factory):
    """The reference with both target files as one target."""
    return run_reference(corpus, tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def separate(corpus, tmp_path_factory):
    """The reference with the target files as targets of their own."""
    return run_reference(corpus, tmp_path_factory.mktemp("separate"), separate_targets=True)


@pytest.fixture(scope="module")
def our_ratios(corpus):
    return SimpleNamespace(
        joint=log_ratios(sum(corpus.target_counts), corpus.raw_counts)[None, :],
        separate=np.stack([log_ratios(each, corpus.raw_counts) for each in corpus.target_counts]),
    )


def reference_picks(reference, folder: Path, amount: int, **options) -> set[int]:
    """Resample with the reference; return the ids that it wrote."""
    reference.dsir.resample(str(folder / "out"), amount, cache_dir=str(folder / "cache"), **options)
    lines = [line for file in (folder / "out").glob("*.jsonl") for line in file.read_text().splitlines()]
    ids = [json.loads(line)["id"] for line in lines]
    assert len(ids) == len(set(ids)) == amount
    return set(ids)


@pytest.fixture
def injected_noise(monkeypatch):
    """Replace numpy's Gumbel generator; return the draws that were made, in order."""
    rng, draws = np.random.default_rng(42), []

    def gumbel(*, size):
        draws.append(rng.gumbel(scale=300, size=size))
        return draws[-1]

    monkeypatch.setattr(np.random, "gumbel", gumbel)
    return draws


def pool_of(corpus, log_weight: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
    """All eligible documents as candidates; document i is row i."""
    pool = np.zeros(len(corpus.texts), dtype=CANDIDATE)
    pool["log_weight"] = log_weight
    pool["key"] = log_weight if noise is None else log_weight + noise
    pool["row"] = np.arange(len(pool))
    pool["n_tokens"] = corpus.features.n_tokens
    pool["content_hash"] = corpus.features.content_hash
    return pool[corpus.eligible]


def scattered(corpus, documents: np.ndarray, draw: np.ndarray, elsewhere: float = 0.0) -> np.ndarray:
    """Noise for all documents: a draw for these, the same number for the others."""
    noise = np.full(len(corpus.texts), elsewhere)
    noise[documents] = draw
    return noise


# --- estimation and weights --------------------------------------------------------------------------


def test_pool_and_target_probabilities_are_those_of_the_reference(corpus, joint, separate):
    np.testing.assert_allclose(corpus.raw_counts / corpus.raw_counts.sum(), joint.dsir.raw_probs, rtol=1e-15)
    together = sum(corpus.target_counts)
    np.testing.assert_allclose(together / together.sum(), joint.dsir.target_probs, rtol=1e-15)
    for counts, expected in zip(corpus.target_counts, separate.dsir.target_probs, strict=True):
        np.testing.assert_allclose(counts / counts.sum(), expected, rtol=1e-15)


def test_log_ratios_are_the_log_diff_of_the_reference(our_ratios, joint, separate):
    np.testing.assert_allclose(our_ratios.joint[0], joint.dsir.log_diff, rtol=1e-12)
    np.testing.assert_allclose(our_ratios.separate, separate.dsir.log_diff, rtol=1e-12)


def test_log_weights_of_every_document_are_those_of_the_reference(corpus, our_ratios, joint, separate):
    ours = log_weights(corpus.features, our_ratios.joint)
    np.testing.assert_allclose(ours[0], joint.weights, rtol=1e-9)
    ours = log_weights(corpus.features, our_ratios.separate)
    np.testing.assert_allclose(ours.T, separate.weights, rtol=1e-9)


def test_documents_are_as_long_and_as_eligible_as_the_reference_says(corpus, joint):
    np.testing.assert_array_equal(corpus.features.n_tokens, joint.lengths)
    np.testing.assert_array_equal(corpus.eligible, joint.dsir.perexample_metadata_filter(joint.lengths))


# --- picks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [1, 40, 149])
def test_with_the_same_noise_the_same_documents_are_resampled(
    corpus, our_ratios, joint, injected_noise, tmp_path, amount
):
    expected = reference_picks(joint, tmp_path, amount)
    (draw,) = injected_noise
    noise = scattered(corpus, np.flatnonzero(corpus.eligible), draw)
    log_weight = log_weights(corpus.features, our_ratios.joint)[0]
    top = TopK(Budget(documents=amount))
    for batch in np.array_split(pool_of(corpus, log_weight, noise), 7):
        top.add(batch)
    assert set(top.picked()["row"].tolist()) == expected
    without_noise = rank(pool_of(corpus, log_weight))[:amount]["row"].tolist()
    assert amount < 40 or set(without_noise) != expected, "the noise has to matter for this to test it"


@pytest.mark.parametrize("amount", [1, 40, 149])
def test_top_k_picks_the_same_documents_as_the_reference(corpus, our_ratios, joint, tmp_path, amount):
    expected = reference_picks(joint, tmp_path, amount, top_k=True)
    top = TopK(Budget(documents=amount))
    top.add(pool_of(corpus, log_weights(corpus.features, our_ratios.joint)[0]))
    assert set(top.picked()["row"].tolist()) == expected


@pytest.mark.parametrize("top_k", [False, True])
def test_the_selector_for_notebooks_picks_the_same_documents(corpus, joint, injected_noise, tmp_path, top_k):
    expected = reference_picks(joint, tmp_path, 40, top_k=top_k)
    target = [
        json.loads(line)["text"]
        for file in corpus.target_files
        for line in Path(file).read_text().splitlines()
    ]
    selector = dsir.DSIR(hash="sha256").fit(raw=corpus.texts, target=target)
    noise = scattered(corpus, np.flatnonzero(corpus.eligible), injected_noise[0]) if injected_noise else None
    assert set(selector.select(40, noise=noise, top_k=top_k).tolist()) == expected
    np.testing.assert_allclose(selector.log_weights_, joint.weights, rtol=1e-9)


@pytest.mark.parametrize("amount", [5, 101])
@pytest.mark.parametrize("proportions", [None, [0.3, 0.7], [0.5, 0.5]])
@pytest.mark.parametrize("top_k", [False, True])
def test_separate_targets_share_the_same_documents_out_as_the_reference(
    corpus, our_ratios, separate, injected_noise, monkeypatch, tmp_path, amount, proportions, top_k
):
    if proportions is None:  # the reference weighs targets by their n-grams
        shares = np.array([counts.sum() for counts in corpus.target_counts])
        np.testing.assert_allclose(shares / shares.sum(), separate.dsir.target_proportions, rtol=1e-15)
    else:
        shares = np.array(proportions)
        monkeypatch.setattr(separate.dsir, "target_proportions", shares)
    expected = reference_picks(separate, tmp_path, amount, top_k=top_k)

    parts = split_budget(Budget(documents=amount), shares)
    weights = log_weights(corpus.features, our_ratios.separate)
    if top_k:
        pools = [pool_of(corpus, each) for each in weights]
    else:
        # A draw of the reference is for the documents that the targets before left over. Here the others
        # get so much noise that they would be picked, were they not taken. No share, no draw.
        draws, left, pools = iter(injected_noise), np.flatnonzero(corpus.eligible), []
        for i, part in enumerate(parts):
            draw = next(draws) if part.documents else 0.0
            pools.append(pool_of(corpus, weights[i], scattered(corpus, left, draw, 1e6)))
            picks = pick_in_turn([rank(pool) for pool in pools], parts[: i + 1])
            left = np.setdiff1d(left, picks[-1]["row"])
        assert not list(draws)
    collected = []
    for budget, pool in zip(needed(parts), pools, strict=True):
        top = TopK(budget)
        top.add(pool)
        collected.append(top.candidates())
    picks = pick_in_turn(collected, parts)
    assert [len(each) for each in picks] == [part.documents for part in parts]
    assert {row for each in picks for row in each["row"].tolist()} == expected
