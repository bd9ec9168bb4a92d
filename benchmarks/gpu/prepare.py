"""Token arrays for the experiment: selections, random text, held-out text.

What belongs here: which text each model sees, as tokens in files. What does not: selecting
(``benchmarks.paper.methods``), training. No network, no GPU.

A folder holds, as arrays of NumPy, ``tokens`` (uint16: the pieces of the pool that any model sees, each once, with its
end) and ``starts`` (int64: where each begins); for ``base`` and every selection the numbers of its pieces in the order
of training (int32); ``heldout.<target>`` (uint16); ``vocabulary.json`` (what the tokens stand for, in hexadecimal) and,
written last, ``manifest.json``, with the digest of each file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from benchmarks.gpu.design import Experiment, selection_name
from benchmarks.gpu.tokens import Tokenizer
from benchmarks.paper.corpus import Mapper, StudyCorpus, StudyTarget
from benchmarks.paper.methods import METHODS, select

#: What is compared, under the names of ``method`` in a configuration: what each is called in `METHODS`.
COMPARED = {
    "random": "random",
    "resample": "resample",
    "classifier_top_k": "classifier top-k",
    "cynical": "cynical",
    "match": "match",
}

#: The largest share of the pool's tokens in a selection, and of its pieces in the base text.
SELECTED, BASE = 0.03, 0.5

#: Characters to learn the tokenizer from: more no longer change it much.
LEARNT_FROM = 20_000_000


def prepare(
    corpus: StudyCorpus,
    folder: Path,
    experiment: Experiment,
    mapper: Mapper = map,
    say: Callable[[str], None] = print,
) -> dict:
    """Select, encode and write; return the manifest.

    Parameters
    ----------
    corpus : StudyCorpus
    folder : Path
        What is in it is replaced.
    experiment : Experiment
        Its tokens are lowered to what the pool has.
    mapper : callable
        Like `map`, perhaps in several threads.
    say : callable
        Prints a line.

    Raises
    ------
    SystemExit
        A method is missing, or the text is too little for one step.
    """
    if missing := [name for name in COMPARED.values() if name not in METHODS]:
        raise SystemExit(
            f"benchmarks/paper/methods.py has no {', '.join(missing)}; the planned comparison needs "
            f"{', '.join(COMPARED.values())}"
        )
    batches, _ = corpus.counted(METHODS["random"].spec)
    words = sum(int(batch.n_tokens.sum()) for batch in batches)
    del batches
    experiment = replace(experiment, tokens=min(experiment.tokens, int(float(f"{SELECTED * words:.2g}"))))

    order = np.random.default_rng(0).permutation(len(corpus.pool))
    tokenizer = Tokenizer.learn(_sample(corpus, order), experiment.vocabulary)
    say(f"tokenizer: {len(tokenizer.pieces) + 1:,} tokens")
    pieces = Pieces(corpus, tokenizer)
    most = order[: int(len(order) * BASE)]
    lists = {"base": pieces.first(most, experiment.base_tokens)}
    experiment = replace(experiment, base_tokens=min(experiment.base_tokens, pieces.count(lists["base"])))
    for name, positions in selections(corpus, experiment.tokens, mapper):
        # A token of the budget is a word or a run of punctuation, so it has at least one of ours.
        lists[name] = pieces.first(positions, experiment.tokens)
        text = f"{len(lists[name]):,} of {len(positions):,} pieces"
        say(f"{name}: {pieces.count(lists[name]):,} tokens in {text}")
    if experiment.tokens < (least := experiment.windows * experiment.context + 1):
        raise SystemExit(
            f"a selection is {SELECTED:.0%} of the pool, {experiment.tokens:,} tokens, and a step of training takes "
            f"{least:,}; name a larger --data" + ", or --dry-run" * (least > 2_000)
        )

    if folder.exists() and any(folder.iterdir()) and not (folder / "manifest.json").exists():
        raise SystemExit(
            f"{folder}: not empty, and not a folder of this program; name another one, or empty it"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    used = np.unique(np.concatenate(list(lists.values())))
    arrays = dict(zip(("tokens", "starts"), pieces.arrays(used), strict=True))
    arrays |= {name: np.searchsorted(used, each).astype(np.int32) for name, each in lists.items()}
    heldout = {}
    for target in corpus.targets:
        ids = encode_target(target, tokenizer, experiment.heldout_tokens)
        arrays[f"heldout.{target.name}"] = ids
        heldout[target.name] = {"tokens": len(ids), "bytes": int(tokenizer.sizes[ids].sum())}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    vocabulary = [piece.hex() for piece in tokenizer.pieces]
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary) + "\n", encoding="utf-8")
    manifest = {
        "experiment": asdict(experiment),
        "methods": list(COMPARED),
        "heldout": heldout,
        "pool": corpus.digest,
        "pool_words": words,
        "files": {path.name: digest(path) for path in sorted(folder.iterdir())},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    say(f"{folder}: {len(arrays['tokens']):,} tokens, {size / 1e6:,.0f} MB")
    return manifest


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def selections(corpus: StudyCorpus, tokens: int, mapper: Mapper) -> Iterable[tuple[str, np.ndarray]]:
    """Make every selection, in arbitrary order of its pieces; the pool is counted once a specification."""
    chosen = {method: METHODS[name] for method, name in COMPARED.items()}
    for method in sorted(chosen, key=lambda method: str(chosen[method].spec)):
        for target in corpus.targets[:1] if method == "random" else corpus.targets:
            found = select(chosen[method], corpus, target, tokens, mapper)
            yield selection_name(method, target.name), found


def encode_target(target: StudyTarget, tokenizer: Tokenizer, limit: int) -> np.ndarray:
    """Return held-out text of a target, documents in arbitrary order: ndarray of uint16, shape (n,)."""
    parts, n = [], 0
    for i in np.random.default_rng(0).permutation(len(target.test.texts)):
        parts.append(tokenizer.encode(target.test.texts[i]))
        n += len(parts[-1])
        if n >= limit:
            break
    return np.concatenate(parts)[:limit]


class Pieces:
    """The pool's pieces as tokens, each encoded when it is needed.

    Parameters
    ----------
    corpus : StudyCorpus
    tokenizer : Tokenizer
    """

    def __init__(self, corpus: StudyCorpus, tokenizer: Tokenizer) -> None:
        self._texts, self._tokenizer = corpus.pool, tokenizer
        self._known: dict[int, np.ndarray] = {}

    def __getitem__(self, position: int) -> np.ndarray:
        found = self._known.get(position)
        if found is None:
            found = self._known[position] = self._tokenizer.encode(self._texts[position].as_py())
        return found

    def first(self, positions: np.ndarray, tokens: int) -> np.ndarray:
        """Return the first of these positions that have so many tokens together, or all."""
        n = 0
        for i, position in enumerate(positions.tolist(), 1):
            n += len(self[position])
            if n >= tokens:
                return positions[:i]
        return positions

    def count(self, positions: np.ndarray) -> int:
        """Return the number of their tokens."""
        return sum(len(self[position]) for position in positions.tolist())

    def arrays(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return their tokens (uint16) and where each begins, and the last ends (int64)."""
        parts = [self[position] for position in positions.tolist()]
        return np.concatenate(parts), np.concatenate([[0], np.cumsum([len(part) for part in parts])])


def _sample(corpus: StudyCorpus, order: np.ndarray) -> Iterable[str]:
    n = 0
    for position in order.tolist():
        text = corpus.pool[position].as_py()
        yield text
        n += len(text)
        if n >= LEARNT_FROM:
            return
