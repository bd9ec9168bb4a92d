"""How well models do that are trained on a selection, and on the picks it is compared with.

What belongs here: which models are trained, and on which texts. What does not: the models (``dsir/ngram_model.py``,
``dsir/proxy.py``, ``dsir/downstream.py``), the names of the numbers (``assets/measuring/measures.py``).

Training takes seconds to minutes, so models are trained only if ``evaluation`` configures them.
"""

from collections.abc import Callable
from importlib.util import find_spec
from itertools import filterfalse

import numpy as np

from dsir.downstream import DownstreamOptions, classify, learn_vectors
from dsir.evaluation import distinct, draw
from dsir.ngram_model import NgramModel
from dsir.noise import gumbel_noise
from dsir.proxy import train_proxy, word_ids
from dsir_dagster.assets.measuring.baselines import Pick, is_random
from dsir_dagster.assets.picking.texts import pool_texts, read_labels
from dsir_dagster.resources.compute import Tell
from dsir_dagster.resources.settings import (
    BitsPerByteSettings,
    ConfigError,
    DownstreamSettings,
    ProxySettings,
    Target,
)
from dsir_dagster.resources.settings.evaluation import RANDOM
from dsir_dagster.resources.snapshot import Snapshot

#: The most tokens of held-out text to measure a loss on, and n-grams of it to measure bits per byte on.
TEST_TOKENS, TEST_NGRAMS = 50_000, 1_000_000

#: Figures by target, metric and pick, one a seed; the random picks together are called ``random``.
Figures = dict[str, dict[str, dict[str, np.ndarray]]]


def training_texts(
    snapshot: Snapshot, picks: dict[str, Pick], tokens: int, tell: Tell
) -> dict[str, list[str]]:
    """Read texts of every pick with about that many tokens, drawn and ordered by content."""
    drawn = {}
    for name, pick in picks.items():
        at = draw(pick.n_tokens, pick.content_hash, tokens)
        at = at[np.argsort(gumbel_noise(pick.content_hash[at], 0, "training"), kind="stable")]
        drawn[name] = pick.positions[at]
    positions = distinct(np.concatenate(list(drawn.values())))
    texts = pool_texts(snapshot, positions, tell)
    return {name: [texts[i] for i in np.searchsorted(positions, each)] for name, each in drawn.items()}


def bits_per_byte(
    snapshot: Snapshot,
    measured_on: dict[str, list[str]],
    picks: dict[str, Pick],
    settings: BitsPerByteSettings,
    tell: Tell,
) -> Figures:
    """Train an n-gram model on every pick; measure what every target's text costs under it, in bits per byte.

    A text counts once, in however many epochs it was picked: a model of counts gains nothing from it, and its
    discounts take n-grams that occur once for rare ones.

    Parameters
    ----------
    measured_on : dict of str to list of str
        Texts by target.
    picks : dict of str to Pick

    Raises
    ------
    ConfigError
        A pick has no text.
    """
    once = {name: pick.once() for name, pick in picks.items()}
    tokens = min(settings.tokens, *(int(pick.n_tokens.sum()) for pick in once.values()))
    texts = training_texts(snapshot, once, tokens, tell)
    tell(part="training models, evaluation.bits_per_byte", of=len(texts))
    figures: dict[str, dict[str, list[float]]] = {target: {} for target in measured_on}
    for name in picks:
        try:
            model = NgramModel.fit(texts.pop(name))
            for target, text in measured_on.items():
                each = figures[target].setdefault(RANDOM if is_random(name) else name, [])
                each.append(model.bits_per_byte(text))
        except ValueError as error:
            raise ConfigError(f"evaluation.bits_per_byte: the selection or its target: {error}") from error
        tell(work=1)
    return {
        target: {"bits_per_byte": {name: np.array(each) for name, each in of_target.items()}}
        for target, of_target in figures.items()
    }


def proxy_losses(
    snapshot: Snapshot,
    measured_on: dict[str, list[str]],
    picks: dict[str, Pick],
    settings: ProxySettings,
    tell: Tell,
) -> Figures:
    """Train small language models on every pick; measure their loss on every target, in nats a token.

    Parameters
    ----------
    measured_on : dict of str to list of str
        Texts by target.
    picks : dict of str to Pick
        The random ones take turns at the seeds.

    Raises
    ------
    ConfigError
        PyTorch is not installed, or a pick is too small.
    """
    if find_spec("torch") is None:
        raise ConfigError(
            "evaluation.proxy trains language models, which needs PyTorch; install it with `pip install -e .[paper]`, "
            "or leave evaluation.proxy out"
        )
    read = {
        name: word_ids(texts, settings.tokens)
        for name, texts in training_texts(snapshot, picks, settings.tokens, tell).items()
    }
    tokens = min(map(len, read.values()))
    test = {target: word_ids(texts, TEST_TOKENS) for target, texts in measured_on.items()}

    def measure(name: str, seed: int) -> dict[str, dict[str, float]]:
        model = train_proxy(read[name][:tokens], seed)
        return {target: {"proxy_loss": model.loss(text)} for target, text in test.items()}

    return _figures(picks, settings.seeds, measure, "evaluation.proxy", tell)


def downstream_f1(
    snapshot: Snapshot,
    targets: list[Target],
    picks: dict[str, Pick],
    settings: DownstreamSettings,
    tell: Tell,
) -> Figures:
    """Learn word vectors from every pick; measure a classifier that uses them on every target's held-out text, as F1.

    Parameters
    ----------
    targets : list of Target
        Those without a holdout or labels are left out.
    picks : dict of str to Pick
        The random ones take turns at the seeds.

    Raises
    ------
    ConfigError
        Some records have no label, or a pick is too small.
    """
    labelled = {}
    for target in targets:
        if target.holdout:
            train, test = (
                read_labels(snapshot.workspace, target, uri, settings.label)
                for uri in (target.uri, target.holdout)
            )
            if train[0] and test[0]:
                labelled[target.name] = (*train, *test)
    if not labelled:
        return {}
    tokens = min(settings.tokens, *(int(pick.n_tokens.sum()) for pick in picks.values()))
    texts = training_texts(snapshot, picks, tokens, tell)

    def measure(name: str, seed: int) -> dict[str, dict[str, float]]:
        vectors = learn_vectors(texts[name], seed, DownstreamOptions(tokens=tokens))
        scores = {target: classify(vectors, *splits) for target, splits in labelled.items()}
        return {target: {"f1_macro": each.macro, "f1_micro": each.micro} for target, each in scores.items()}

    return _figures(picks, settings.seeds, measure, "evaluation.downstream", tell)


def _figures(
    picks: dict[str, Pick],
    seeds: int,
    measure: Callable[[str, int], dict[str, dict[str, float]]],
    key: str,
    tell: Tell,
) -> Figures:
    """Measure every pick with every seed; the random ones take turns."""
    random = list(filter(is_random, picks))
    figures: dict[str, dict[str, dict[str, list[float]]]] = {}
    names = [*filterfalse(is_random, picks), RANDOM]
    tell(part=f"training models, {key}", of=len(names) * seeds)
    for name in names:
        for seed in range(seeds):
            try:
                measured = measure(random[seed % len(random)] if name == RANDOM else name, seed)
            except ValueError as error:
                raise ConfigError(f"{key}: the selection or its target is too small: {error}") from error
            tell(work=1)
            for target, metrics in measured.items():
                for metric, value in metrics.items():
                    figures.setdefault(target, {}).setdefault(metric, {}).setdefault(name, []).append(value)
    return {
        target: {
            metric: {name: np.array(each) for name, each in of_metric.items()}
            for metric, of_metric in of_target.items()
        }
        for target, of_target in figures.items()
    }
