"""The n-gram model: known probabilities, sums to one, a plain implementation, what a text costs under a model of it."""

from collections import Counter
from math import log2

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.ngram_model import BOUNDARY, FALLBACK, NgramModel

texts_of_few_letters = st.lists(st.text("aabé ", max_size=12), max_size=8).map(lambda texts: [*texts, "ab"])
orders = st.integers(1, 8)


def key(symbols):
    return np.array([int.from_bytes(bytes(symbols), "big")], np.uint64)


def probability(model, context, symbol):
    return float(model.probability(key([*context, symbol]), len(context) + 1)[0])


class Plain:
    """Interpolated Kneser-Ney with dictionaries, from the definition."""

    def __init__(self, texts, order):
        self.order = order
        seen = Counter()
        before = {}
        for text in texts:
            symbols = (BOUNDARY, *text.encode(), BOUNDARY)
            for end in range(2, len(symbols) + 1):
                for start in range(max(end - order, 0), end):
                    seen[symbols[start:end]] += 1
                    if start:
                        before.setdefault(symbols[start:end], set()).add(symbols[start - 1])
        self.counts = {
            gram: count if len(gram) == order or gram not in before else len(before[gram])
            for gram, count in seen.items()
        }
        self.discounts = {}
        for length in range(1, order + 1):
            of = Counter(count for gram, count in self.counts.items() if len(gram) == length)
            self.discounts[length] = FALLBACK
            if of[1] and of[2] and of[3]:
                y = of[1] / (of[1] + 2 * of[2])
                found = 1 - 2 * y * of[2] / of[1], 2 - 3 * y * of[3] / of[2], 3 - 4 * y * of[4] / of[3]
                if min(found) > 0:
                    self.discounts[length] = found

    def probability(self, context, symbol):
        context = tuple(context)
        lower = self.probability(context[1:], symbol) if context else 1 / 256
        follow = {w: self.counts.get((*context, w), 0) for w in range(256)}
        if not any(follow.values()):
            return lower
        taken = {w: self.discounts[len(context) + 1][min(c, 3) - 1] for w, c in follow.items() if c}
        return (follow[symbol] - taken.get(symbol, 0) + sum(taken.values()) * lower) / sum(follow.values())

    def bits_per_byte(self, texts):
        bits, n_bytes = 0.0, 0
        for text in texts:
            symbols = (BOUNDARY, *text.encode())
            for at in range(1, len(symbols)):
                bits -= log2(self.probability(symbols[max(at - self.order + 1, 0) : at], symbols[at]))
                n_bytes += 1
        return bits / n_bytes


def test_probabilities_worked_out_by_hand():
    model = NgramModel.fit(["ab", "ab", "ac"], order=2)
    # One symbol: what comes before a, b, c and the end is one, one, one and two different symbols. None comes after
    # three, so the discounts are the fixed ones: 0.5 + 0.5 + 0.5 + 1 of 5 are left for the 256 symbols.
    left = 2.5 / 256
    assert probability(model, b"", ord("a")) == pytest.approx((0.5 + left) / 5)
    assert probability(model, b"", BOUNDARY) == pytest.approx((1 + left) / 5)
    assert probability(model, b"", ord("z")) == pytest.approx(left / 5)
    # Two symbols: ac and c-end once, ab and b-end twice, start-a three times. y = 2/6; discounts 1/3, 3/2 and 3.
    assert probability(model, b"a", ord("b")) == pytest.approx((0.5 + (1.5 + 1 / 3) * (0.5 + left) / 5) / 3)
    assert probability(model, b"a", ord("c")) == pytest.approx((2 / 3 + (1.5 + 1 / 3) * (0.5 + left) / 5) / 3)
    assert probability(model, b"a", ord("z")) == pytest.approx((1.5 + 1 / 3) * left / 5 / 3)
    assert probability(model, [BOUNDARY], ord("a")) == pytest.approx((0.5 + left) / 5)  # 3 - 3 are kept
    assert probability(model, b"z", ord("a")) == pytest.approx((0.5 + left) / 5)  # an unseen context
    expected = -log2((0.5 + left) / 5) - log2((0.5 + (1.5 + 1 / 3) * (0.5 + left) / 5) / 3)
    assert model.bits_per_byte(["ab"]) == pytest.approx(expected / 2)  # the end is not counted


@settings(deadline=None, max_examples=60)
@given(texts=texts_of_few_letters, order=orders, context=st.binary(max_size=7), starts=st.booleans())
def test_the_probabilities_of_all_bytes_and_the_end_sum_to_one(texts, order, context, starts):
    model = NgramModel.fit(texts, order)
    seen = b"ab"[: order - 1]
    for each in (context[: order - 1], seen, bytes([BOUNDARY, *seen])[: order - 1] if starts else b""):
        keys = np.concatenate([key([*each, symbol]) for symbol in range(256)])
        found = model.probability(keys, len(each) + 1)
        assert found.min() > 0
        assert found.sum() == pytest.approx(1, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(texts=texts_of_few_letters, measured=texts_of_few_letters, order=orders)
def test_a_plain_implementation_gives_the_same_bits(texts, measured, order):
    plain = Plain(texts, order).bits_per_byte(measured)
    assert NgramModel.fit(texts, order).bits_per_byte(measured) == pytest.approx(plain, abs=1e-8)


def test_longer_texts_with_estimated_discounts_give_the_same_bits():
    texts, measured = source(0, 30), source(0, 2)
    plain = Plain(texts, 4)
    assert FALLBACK not in [plain.discounts[length] for length in (2, 3, 4)]
    assert NgramModel.fit(texts, 4).bits_per_byte(measured) == pytest.approx(
        plain.bits_per_byte(measured), abs=1e-8
    )


def source(seed, n_texts, sample=0):
    """Draw texts from a random Markov chain over 20 letters."""
    chain = np.random.default_rng(seed).dirichlet(np.full(20, 0.2), 20).cumsum(axis=1)
    draws = np.random.default_rng([seed, sample]).random((n_texts, 200))
    texts = []
    for row in draws:
        letters = [0]
        for draw in row:
            letters.append(min(int(np.searchsorted(chain[letters[-1]], draw)), 19))
        texts.append("".join(chr(97 + letter) for letter in letters))
    return texts


def test_a_text_costs_least_under_a_model_of_its_own_source():
    ours, theirs = NgramModel.fit(source(1, 200)), NgramModel.fit(source(2, 200))
    held_out = source(1, 50, sample=1)
    assert ours.bits_per_byte(held_out) < theirs.bits_per_byte(held_out) - 1
    chain = np.random.default_rng(1).dirichlet(np.full(20, 0.2), 20)
    rate = -np.mean(np.sum(chain * np.log2(np.maximum(chain, 1e-300)), axis=1))
    assert ours.bits_per_byte(held_out) == pytest.approx(rate, abs=0.4)  # about the entropy of the source
    assert NgramModel.fit(source(1, 20)).bits_per_byte(held_out) > ours.bits_per_byte(held_out)


@settings(deadline=None, max_examples=30)
@given(texts=texts_of_few_letters, order=orders, data=st.data())
def test_the_order_of_texts_does_not_matter(texts, order, data):
    shuffled = data.draw(st.permutations(texts))
    model, again = NgramModel.fit(texts, order), NgramModel.fit(pa.array(shuffled), order)
    assert model.bits_per_byte(texts) == again.bits_per_byte(shuffled)


def test_texts_do_not_touch_one_another():
    model = NgramModel.fit(source(1, 20), order=8)
    one, two = "abcabc", "dé"
    together = 6 * model.bits_per_byte([one]) + 3 * model.bits_per_byte([two])
    assert model.bits_per_byte([one, two, ""]) == pytest.approx(together / 9)


def test_what_cannot_be_trained_or_measured_is_named():
    with pytest.raises(ValueError, match="order: 9; expected 1 to 8"):
        NgramModel.fit(["a"], order=9)
    for texts in ([], ["", ""]):
        with pytest.raises(ValueError, match="no text"):
            NgramModel.fit(texts)
        with pytest.raises(ValueError, match="no text"):
            NgramModel.fit(["a"]).bits_per_byte(texts)
