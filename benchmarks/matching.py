"""How close selections come to nine targets, and what a model makes of them: ``python -m benchmarks.matching``.

What belongs here: the table of KL reductions of `resample`, `top_k` and `match` at an equal budget, and with
``--proxy`` the losses of small language models trained on the selections. What does not: speed
(``benchmarks/throughput.py``), the methods themselves.

Every target's ``train`` is selected with, its ``test`` is measured with. KL reduction is
KL(test‖random picks) - KL(test‖selection), in nats, over n-grams in 40,009 buckets of another hash than the one
that selects, 0.5 pseudo-counts a bucket, all selections cut to equal numbers of n-grams. The pool is cut into
pieces of 128 words, as the paper does; ``--words 0`` takes the documents as they are. Half a minute to a minute a
target; with ``--proxy``, which needs torch, minutes more for each of 81 models (``--targets``, ``--seeds``).
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.pool import REPOSITORY, read_records
from dsir.evaluation import distribution, kl_divergence
from dsir.explain import tokenize
from dsir.features import Features, FeatureSpec, featurize
from dsir.hashing import gumbel_noise
from dsir.importance import log_ratios, log_weights
from dsir.matching import MatchingOptions as Options
from dsir.matching import held_back, keys, match
from dsir.selection import CANDIDATE, Budget, TopK

DATA = REPOSITORY.parent / "shared" / "data"
SPEC = FeatureSpec()
INDEPENDENT = FeatureSpec(buckets=40_009, hash="sha256")
RANDOM_SEEDS = 3
BATCH = 4_000
_WORD = re.compile(r"\S+\s*")

# The proxy: a transformer on hashed words, so that no tokenizer is fitted on any of the texts.
VOCABULARY, CONTEXT, WIDTH, HEADS, LAYERS = 4096, 128, 128, 4, 2
TRAIN_TOKENS, TEST_TOKENS, RATE, WINDOWS = 1_000_000, 100_000, 3e-3, 8


def texts_of(path: Path, words: int = 0) -> list[str]:
    """Return the texts of a file, cut into pieces of so many words between white space (0: whole)."""
    texts = [record["text"] for record in read_records(path)]
    if not words:
        return texts
    pieces = (_WORD.findall(text) for text in texts)
    return ["".join(each[i : i + words]) for each in pieces for i in range(0, len(each), words)]


def features_of(texts: list[str], spec: FeatureSpec) -> list[Features]:
    """Count the n-grams of texts, in batches."""
    batches = (texts[i : i + BATCH] for i in range(0, len(texts), BATCH))
    return [featurize(pa.array(batch, pa.large_string()), spec) for batch in batches]


def totals_of(batches: list[Features], spec: FeatureSpec) -> np.ndarray:
    """Add up the counts of batches: int64[buckets]."""
    totals = np.zeros(spec.buckets, dtype=np.int64)
    for batch in batches:
        batch.add_totals(totals)
    return totals


def best(pool: list[Features], budget: Budget, key: list[np.ndarray], min_tokens: int) -> np.ndarray:
    """Return the positions of the documents of the largest keys up to a budget."""
    top, first = TopK(budget), 0
    for batch, each in zip(pool, key, strict=True):
        candidates = np.zeros(len(batch), dtype=CANDIDATE)
        candidates["key"], candidates["content_hash"] = each, batch.content_hash
        candidates["n_tokens"], candidates["row"] = batch.n_tokens, np.arange(first, first + len(batch))
        top.add(candidates[batch.n_tokens >= min_tokens])
        first += len(batch)
    return top.picked()["row"]


def divergences(test: list[str], selections: dict[str, list[str]]) -> dict[str, float]:
    """KL(test‖selection) of each selection's texts, which are in an order of no meaning, in nats."""
    target = distribution(totals_of(features_of(test, INDEPENDENT), INDEPENDENT), 0.5)
    counted = {name: features_of(texts, INDEPENDENT) for name, texts in selections.items()}
    n_ngrams = {name: np.concatenate([b.n_ngrams for b in each]) for name, each in counted.items()}
    smallest = min(int(each.sum()) for each in n_ngrams.values())
    out = {}
    for name, texts in selections.items():
        n = int(np.searchsorted(np.cumsum(n_ngrams[name]), smallest, side="right"))
        totals = totals_of(features_of(texts[:n], INDEPENDENT), INDEPENDENT)
        out[name] = kl_divergence(target, distribution(totals, 0.5))
    return out


def word_ids(texts: list[str], limit: int) -> np.ndarray:
    """Return the hashed words of texts, a 0 after each text, up to a limit: int64[n]."""
    ids: list[int] = []
    for text in texts:
        ids += [1 + zlib.crc32(word.encode()) % (VOCABULARY - 1) for word in tokenize(text, SPEC)]
        ids.append(0)
        if len(ids) >= limit:
            break
    return np.array(ids[:limit], dtype=np.int64)


def proxy_loss(train: np.ndarray, test: np.ndarray, seed: int) -> float:
    """Train a language model of about a million parameters for one epoch; return its loss in nats a word."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    body = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
    words, places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
    nn.init.normal_(words.weight, std=0.1)
    nn.init.normal_(places.weight, std=0.02)
    for block in body.layers:  # the copies begin alike otherwise
        for weight in block.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)
    causal = nn.Transformer.generate_square_subsequent_mask(CONTEXT)

    def loss_of(windows: np.ndarray, reduction: str = "mean") -> torch.Tensor:
        ids = torch.from_numpy(windows)
        hidden = body(words(ids[:, :-1]) + places.weight, mask=causal, is_causal=True)
        logits = functional.linear(hidden, words.weight)
        return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction=reduction)

    parameters = [*body.parameters(), *words.parameters(), *places.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.95), weight_decay=0.01)
    windows = _windows(train)
    order = np.random.default_rng(seed).permutation(len(windows))
    steps = len(windows) // WINDOWS
    for step in range(steps):
        warm = min(1.0, (step + 1) / (0.05 * steps))
        optimizer.param_groups[0]["lr"] = RATE * warm * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        loss = loss_of(windows[order[step * WINDOWS : (step + 1) * WINDOWS]])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    held_out = _windows(test)
    with torch.no_grad():
        parts = [held_out[i : i + WINDOWS] for i in range(0, len(held_out), WINDOWS)]
        total = sum(float(loss_of(part, "sum")) for part in parts)
    return total / (len(held_out) * CONTEXT)


def _windows(ids: np.ndarray) -> np.ndarray:
    """Cut into windows of a context and the word after it: int64[n, CONTEXT + 1]."""
    n = (len(ids) - 1) // CONTEXT
    return np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1)[: n * CONTEXT : CONTEXT].copy()


def main() -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matching", description=__doc__.split("\n")[0])
    parser.add_argument("--targets", nargs="*", help="some of the targets")
    parser.add_argument("--tokens", type=int, default=2_000_000, help="budget of every selection")
    parser.add_argument("--words", type=int, default=128, help="of the pool's pieces; 0 for whole documents")
    parser.add_argument("--min-tokens", type=int, default=0, help="shorter documents are not picked")
    parser.add_argument("--proxy", action="store_true", help="also train language models; needs torch")
    parser.add_argument("--seeds", type=int, default=3, help="language models for each selection")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    if not (DATA / "pool").is_dir():
        console.print("this benchmark needs ../shared/data beside the checkout")
        return 1

    pool_texts = [
        t for path in sorted((DATA / "pool").glob("*.zst")) for t in texts_of(path, arguments.words)
    ]
    pool = features_of(pool_texts, SPEC)
    raw = totals_of(pool, SPEC)
    budget, least = Budget(tokens=arguments.tokens), arguments.min_tokens
    console.print(
        f"pool {len(pool_texts):,} documents, {sum(int(b.n_tokens.sum()) for b in pool):,} tokens; "
        f"{arguments.tokens:,} selected, each document of {least} tokens or more"
    )
    random = {
        f"random {seed}": best(
            pool, budget, [gumbel_noise(b.content_hash, seed, "random") for b in pool], least
        )
        for seed in range(RANDOM_SEEDS)
    }
    reductions = Table("target", *("resample", "top_k", "match", "ratio", "rounds", "seconds"), box=None)
    losses = Table("target", *("random", "resample", "match", "match - resample"), box=None)
    ratios: list[float] = []
    gains: list[float] = []
    names = arguments.targets or sorted(path.name for path in (DATA / "targets").iterdir())
    for name in names:
        target = features_of(texts_of(DATA / "targets" / name / "train.jsonl.zst"), SPEC)
        test = texts_of(DATA / "targets" / name / "test.jsonl.zst")
        everything = totals_of(target, SPEC)
        validation = np.zeros_like(everything)
        for batch in target:
            for i in np.flatnonzero(held_back(batch.content_hash)):
                validation += batch.dense(int(i), SPEC.buckets)
        log_weight = [log_weights(b, log_ratios(everything, raw)[np.newaxis])[0] for b in pool]
        noise = [gumbel_noise(b.content_hash, 0, name) for b in pool]
        noisy = [a + b for a, b in zip(log_weight, noise, strict=True)]
        started, options = time.monotonic(), Options()
        found = match(
            lambda: pool, everything - validation, validation, raw, budget, options, min_tokens=least
        )
        matched = [keys(b, found.theta, options) for b in pool]
        seconds = time.monotonic() - started
        picks = {
            **random,
            "resample": best(pool, budget, noisy, least),
            "top_k": best(pool, budget, log_weight, least),
            "match": best(pool, budget, matched, least),
        }
        chance = np.random.default_rng(0)
        texts = {key: [pool_texts[i] for i in chance.permutation(rows)] for key, rows in picks.items()}
        kl = divergences(test, texts)
        by_chance = float(np.mean([kl[each] for each in random]))
        resample, top_k, matching = (by_chance - kl[each] for each in ("resample", "top_k", "match"))
        ratios.append(matching / resample if resample > 0 else math.nan)
        reductions.add_row(
            name,
            *(f"{each:.3f}" for each in (resample, top_k, matching)),
            f"{ratios[-1]:.2f}",
            f"{len(found.curve)}{'' if found.converged else '+'}, best {found.best}",
            f"{seconds:.1f}",
        )
        if arguments.proxy:
            measured = word_ids(test, TEST_TOKENS)
            each = {
                key: [
                    proxy_loss(word_ids(texts[key], TRAIN_TOKENS), measured, s)
                    for s in range(arguments.seeds)
                ]
                for key in ("random 0", "resample", "match")
            }
            gains.append(float(np.mean(each["match"]) - np.mean(each["resample"])))
            shown = (f"{np.mean(v):.3f}±{np.std(v, ddof=min(1, len(v) - 1)):.3f}" for v in each.values())
            losses.add_row(name, *shown, f"{gains[-1]:+.3f}")
            print(f"{name}: match - resample {gains[-1]:+.3f} nats a word", file=sys.stderr, flush=True)
    console.print("\nKL reduction over random picks, nats, on held-out target text", reductions)
    known = [each for each in ratios if each > 0]
    mean = math.exp(np.mean(np.log(known))) if known else math.nan
    console.print(f"geometric mean of {len(known)} ratios {mean:.2f}")
    if arguments.proxy:
        console.print("\nlosses of proxy language models, nats a word, on held-out target text", losses)
        console.print(f"mean of match - resample {np.mean(gains):+.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
