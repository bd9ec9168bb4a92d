"""A proxy language model: how well a small transformer does that is trained on a selection.

What belongs here: from texts to the held-out loss of a language model trained on them. What does not: which
selections and targets, how many seeds, tables.

Data selection is about what a model learns from the data. A model of 0.6 M parameters, trained for one epoch, is not a
pre-trained model, but it is trained on the selection alone, and measured on target text that selected nothing, in the
unit of pre-training. Losses on one target are comparable with each other; those on two targets are not.

Words are those of the ``wordpunct`` tokenizer, hashed into a vocabulary, so that no tokenizer is fitted on any of the
texts and tokens are the same for all selections. Words with the same hash are not told apart.

PyTorch is imported when a model is trained, not before. A model is trained in one thread: a sum split among threads
depends on their number in its last bits, and two models side by side take less time than one after the other.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from dsir.explain import tokenize
from dsir.features import FeatureSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Changes whenever the same texts, options and seed could give a different loss.
VERSION = 1

_WORDPUNCT = FeatureSpec()
_END = 0  # follows every text


@dataclass(frozen=True)
class ProxyOptions:
    """The model and its training: one epoch of AdamW, with warm-up and cosine decay to zero.

    Attributes
    ----------
    vocabulary : int
        Hashed words, including the end of a text; at least 2.
    context : int
        Tokens the model sees.
    width, heads, layers : int
        Of the transformer; ``heads`` divides ``width``.
    windows : int
        Contexts a step.
    rate : float
        The highest learning rate.

    Raises
    ------
    ValueError
        Naming the field, its value, and what is expected.
    """

    vocabulary: int = 4096
    context: int = 128
    width: int = 96
    heads: int = 3
    layers: int = 2
    windows: int = 8
    rate: float = 3e-3

    def __post_init__(self) -> None:
        for name, valid, expected in (
            ("vocabulary", self.vocabulary >= 2, "at least 2"),
            ("context", self.context >= 1, "at least 1"),
            ("heads", self.heads >= 1 and self.width % self.heads == 0, f"a divisor of width, {self.width}"),
            ("layers", self.layers >= 1, "at least 1"),
            ("windows", self.windows >= 1, "at least 1"),
            ("rate", self.rate > 0, "more than 0"),
        ):
            if not valid:
                raise ValueError(f"{name}: {getattr(self, name)!r}; expected {expected}")


def word_ids(texts: Iterable[str], limit: int, options: ProxyOptions = ProxyOptions()) -> np.ndarray:
    """Return the hashed words of texts, with an end token after each text, up to a limit.

    Parameters
    ----------
    texts : iterable of str
        Read only as far as needed.
    limit : int
        Tokens.
    options : ProxyOptions
        Its vocabulary.

    Returns
    -------
    ndarray of int64, shape (n,)
        n <= limit; in ``0 .. vocabulary - 1``.
    """
    ids: list[int] = []
    for text in texts:
        ids += [_word_id(word, options.vocabulary) for word in tokenize(text, _WORDPUNCT)]
        ids.append(_END)
        if len(ids) >= limit:
            break
    return np.array(ids[:limit], dtype=np.int64)


@lru_cache(maxsize=1 << 18)
def _word_id(word: str, vocabulary: int) -> int:
    return 1 + zlib.crc32(word.encode("utf-8", "surrogatepass")) % (vocabulary - 1)


class ProxyModel:
    """A trained language model, from :func:`train_proxy`.

    Attributes
    ----------
    options : ProxyOptions
    parameters : int
        Number of parameters.
    """

    def __init__(self, module: nn.Module, options: ProxyOptions) -> None:
        self._module = module
        self.options = options
        self.parameters = sum(each.numel() for each in module.parameters())

    def loss(self, ids: np.ndarray) -> float:
        """Return the mean loss on a text, in nats per token.

        Parameters
        ----------
        ids : ndarray of int64, shape (n,)
            From :func:`word_ids`; more than a context. The rest after whole contexts is not measured.

        Raises
        ------
        ValueError
            There are too few tokens for one context.
        """
        import torch
        from torch.nn.functional import cross_entropy

        cut = _cut(ids, self.options.context, 1)
        total = 0.0
        with _one_thread(), torch.inference_mode():
            for first in range(0, len(cut), self.options.windows):
                windows = torch.from_numpy(cut[first : first + self.options.windows])
                logits = self._module(windows[:, :-1])
                total += float(cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())) * len(windows)
        return total / len(cut)


def train_proxy(ids: np.ndarray, seed: int, options: ProxyOptions = ProxyOptions()) -> ProxyModel:
    """Train a language model on a text, for one epoch.

    Parameters
    ----------
    ids : ndarray of int64, shape (n,)
        From :func:`word_ids`. Compare only models trained on equal numbers of tokens.
    seed : int
        Of the initial weights and the order of contexts.
    options : ProxyOptions

    Returns
    -------
    ProxyModel

    Raises
    ------
    ValueError
        There are too few tokens for one step.
    ImportError
        PyTorch is not installed.

    Notes
    -----
    Matrix products are in bfloat16, weights and the optimizer in float32. The result is the same on every run on one
    machine; another processor may round differently.
    """
    import torch
    from torch.nn.functional import cross_entropy

    cut = _cut(ids, options.context, options.windows)
    order = np.random.default_rng(seed).permutation(len(cut))
    steps = len(cut) // options.windows
    with _one_thread():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = _transformer(options)
        optimizer = torch.optim.AdamW(
            module.parameters(), lr=options.rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True
        )
        for step in range(steps):
            warm = min(1.0, (step + 1) / (0.05 * steps))
            cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
            optimizer.param_groups[0]["lr"] = options.rate * warm * cosine
            windows = torch.from_numpy(cut[order[step * options.windows : (step + 1) * options.windows]])
            with torch.autocast("cpu", torch.bfloat16):
                logits = module(windows[:, :-1])
            loss = cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
    return ProxyModel(module, options)


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cut(ids: np.ndarray, context: int, least: int) -> np.ndarray:
    """Cut into contexts, each with the token that follows: int64[n, context + 1], n >= least."""
    n = (len(ids) - 1) // context
    if n < least:
        raise ValueError(f"{len(ids):,} tokens; expected at least {least * context + 1:,}")
    return np.lib.stride_tricks.sliding_window_view(ids, context + 1)[: n * context : context].copy()


def _transformer(options: ProxyOptions) -> nn.Module:
    """Return a causal transformer with normalization before layers and tied embeddings."""
    import torch
    from torch import nn
    from torch.nn.functional import linear, scaled_dot_product_attention

    width, heads = options.width, options.heads

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inwards = nn.Linear(width, 3 * width, bias=False)
            self.outwards = nn.Linear(width, width, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            split = self.inwards(x).unflatten(-1, (3, heads, width // heads)).permute(2, 0, 3, 1, 4)
            with torch.autocast("cpu", enabled=False):  # attention is several times as slow in bfloat16
                query, key, value = split.float()
                seen = scaled_dot_product_attention(query, key, value, is_causal=True)
            return self.outwards(seen.transpose(1, 2).flatten(2))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.Sequential(nn.LayerNorm(width), Attention())
            self.dense = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            )

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attention(x)
            return x + self.dense(x)

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(options.vocabulary, width)
            self.places = nn.Embedding(options.context, width)
            self.layers = nn.Sequential(*(Layer() for _ in range(options.layers)), nn.LayerNorm(width))
            nn.init.normal_(self.words.weight, std=0.1)
            nn.init.normal_(self.places.weight, std=0.02)

        def forward(self, ids: Tensor) -> Tensor:
            hidden = self.layers(self.words(ids) + self.places.weight[: ids.shape[1]])
            return linear(hidden, self.words.weight)

    return Transformer()
