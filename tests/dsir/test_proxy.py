"""The proxy language model: what it is trained on shows in its loss, and the seed decides all else."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsir.proxy import ProxyOptions, train_proxy, word_ids

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed (the extra `paper`)"
)
SMALL = ProxyOptions(vocabulary=50, context=16, width=16, heads=2, layers=1, windows=4, rate=1e-2)


def sequences(period: int, n: int) -> np.ndarray:
    """Numbers that count up to a period and start again."""
    return 1 + np.arange(n) % period


# --- words -------------------------------------------------------------------------------------------


@given(texts=st.lists(st.text(max_size=40), max_size=8), limit=st.integers(0, 60))
def test_word_ids_are_within_the_vocabulary_and_the_limit(texts, limit):
    ids = word_ids(texts, limit, SMALL)
    assert len(ids) <= limit
    assert np.all((ids >= 0) & (ids < SMALL.vocabulary))
    assert np.array_equal(ids, word_ids(texts, 10_000, SMALL)[:limit])


def test_every_text_has_an_end_and_equal_words_equal_ids():
    ids = word_ids(["One two, one", "TWO"], 100)
    one, two, comma, again, end, last, last_end = ids
    assert one == again and two == last and end == last_end == 0
    assert len({one, two, comma, end}) == 4


def test_texts_are_not_read_further_than_needed():
    def texts():
        yield "a b c"
        raise AssertionError("read on")

    assert len(word_ids(texts(), 3)) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [("vocabulary", 1), ("context", 0), ("heads", 3), ("layers", 0), ("windows", 0), ("rate", 0.0)],
)
def test_options_that_cannot_be_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        ProxyOptions(**{"width": 16, "heads": 2, field: value})


def test_pytorch_is_not_imported_before_it_is_needed():
    code = "import sys, dsir.proxy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --- models ------------------------------------------------------------------------------------------


@needs_torch
def test_a_model_learns_what_it_is_trained_on_and_nothing_else():
    seven, eleven = train_proxy(sequences(7, 8000), 0, SMALL), train_proxy(sequences(11, 8000), 0, SMALL)
    assert seven.loss(sequences(7, 500)) < 0.1
    assert eleven.loss(sequences(11, 500)) < 0.1
    assert eleven.loss(sequences(7, 500)) > 0.3
    # Nothing can be known of numbers drawn at random but how many there are.
    drawn = np.random.default_rng(0).integers(0, SMALL.vocabulary, 8000)
    assert train_proxy(drawn, 0, SMALL).loss(drawn[::-1].copy()) == pytest.approx(math.log(50), abs=0.3)


@needs_torch
def test_the_seed_and_the_text_decide_the_loss_and_pytorchs_own_state_does_not():
    import torch

    train, test = sequences(7, 1000), sequences(7, 300)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = train_proxy(train, 0, SMALL).loss(test)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    assert train_proxy(train, 0, SMALL).loss(test) == first
    assert train_proxy(train, 1, SMALL).loss(test) != first


@needs_torch
def test_the_loss_is_that_of_the_whole_text_however_it_is_cut_into_batches():
    model = train_proxy(sequences(7, 1000), 0, SMALL)
    test = np.random.default_rng(1).integers(0, 50, 9 * SMALL.context + 1)  # 9 contexts, 4 at a time
    parts = [model.loss(test[i * SMALL.context : (i + 1) * SMALL.context + 1]) for i in range(9)]
    assert model.loss(test) == pytest.approx(np.mean(parts), rel=1e-5)


@needs_torch
def test_too_little_text_is_refused_with_what_is_needed():
    with pytest.raises(ValueError, match="64 tokens; expected at least 65"):
        train_proxy(sequences(7, 64), 0, SMALL)
    with pytest.raises(ValueError, match="16 tokens; expected at least 17"):
        train_proxy(sequences(7, 65), 0, SMALL).loss(sequences(7, 16))
