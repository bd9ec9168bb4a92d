"""Which documents of a ranking are nearly the same as a better one."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsir.features import FeatureSpec
from dsir.near_duplicates import jaccard, near_copies, near_duplicates, sketch, version

SPEC = FeatureSpec()
WORDS = [f"word{i}" for i in range(2000)]


def text(seed: int, length: int = 200) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def changed(text: str, n: int, seed: int = 0) -> str:
    """Replace n words by others: takes up to 5 n of the 5-grams out, and puts as many in."""
    words, chance = text.split(), random.Random(seed)
    for at in chance.sample(range(len(words)), n):
        words[at] = f"other{chance.randrange(10**9)}"
    return " ".join(words)


def ngrams(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}


def similarity(a: str, b: str) -> float:
    return len(ngrams(a) & ngrams(b)) / len(ngrams(a) | ngrams(b))


def walked_down(texts: list[str], threshold: float) -> list[bool]:
    """The definition, pair by pair."""
    kept: list[str] = []
    found = []
    for each in texts:
        found.append(any(similarity(each, other) >= threshold for other in kept))
        if not found[-1]:
            kept.append(each)
    return found


def of(texts: list[str], threshold: float = 0.8) -> list[bool]:
    return near_duplicates(sketch(texts, SPEC), threshold).tolist()


def test_planted_copies_are_found_and_unrelated_documents_are_not():
    originals = [text(seed) for seed in range(300)]
    copies = [changed(each, n=2, seed=i) for i, each in enumerate(originals[::3])]
    assert of(originals + copies) == [False] * 300 + [True] * 100
    assert not any(of(originals))


def test_near_copies_are_those_of_every_pair():
    originals = [text(seed, length=60) for seed in range(20)]
    texts = [changed(each, n, seed=n) for n in (0, 1, 2, 4) for each in originals] + ["", "", "one two"]
    expected = [any(similarity(a, b) >= 0.8 for b in texts[:i]) for i, a in enumerate(texts)]
    assert near_copies(texts, SPEC, 0.8).tolist() == expected
    assert 20 < sum(expected) < 60  # those with one word changed, and some with two
    assert near_copies([], SPEC, 0.8).tolist() == []


def test_the_best_ranked_stays_and_only_it():
    copies = [changed(text(0), n=1, seed=seed) for seed in range(20)]
    assert of([text(1), *copies, text(2)]) == [False, False, *[True] * 19, False]
    assert of([*copies[::-1], text(1)]) == [False, *[True] * 19, False]


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8, 0.95])
def test_it_is_the_definition_around_the_threshold(threshold):
    """Chains of documents of every similarity: what is like a dropped one only is not dropped."""
    texts = [changed(text(seed), n, seed=n) for seed in range(12) for n in (0, 1, 2, 3, 5, 8, 12, 20, 40, 80)]
    random.Random(1).shuffle(texts)
    expected = walked_down(texts, threshold)
    assert of(texts, threshold) == expected
    assert any(expected) and not all(expected)


@given(st.lists(st.text(alphabet="ab ", max_size=24), max_size=12), st.sampled_from([0.3, 0.5, 0.8]))
def test_it_is_the_definition_for_short_texts(texts, threshold):
    assert of(texts, threshold) == walked_down(texts, threshold)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=12), min_size=2, max_size=2))
def test_the_similarity_is_that_of_the_sets_of_ngrams(words):
    one, other = (" ".join(each) for each in words)
    found = sketch([one, other], SPEC)
    assert jaccard(*found.ngrams) == similarity(one, other)


def test_empty_texts_are_the_same_and_like_nothing_else():
    assert of([]) == []
    assert of(["", "a b", " ", "a b c d e f", "A  b", "a b c"]) == [False, False, True, False, True, False]


def test_a_similarity_of_exactly_the_threshold_is_enough():
    eight = " ".join(WORDS[:12])
    assert similarity(eight, " ".join(WORDS[:14])) == 0.8
    assert of([eight, " ".join(WORDS[:14])], 0.8) == [False, True]
    assert of([eight, " ".join(WORDS[:14])], 0.81) == [False, False]


def test_a_sketch_does_not_depend_on_the_other_documents(monkeypatch):
    monkeypatch.setattr("dsir.near_duplicates.TEXTS_AT_A_TIME", 5)
    texts = [text(seed, length=20 * seed) for seed in range(12)] + ["", "a"]
    together, alone = sketch(texts, SPEC), [sketch([each], SPEC) for each in texts]
    np.testing.assert_array_equal(together.digests, np.concatenate([each.digests for each in alone]))
    for mine, other in zip(together.ngrams, alone, strict=True):
        np.testing.assert_array_equal(mine, other.ngrams[0])


def test_words_are_those_of_the_tokenizer():
    marked, plain = "a, b, c, d, e, f, g", "a b c d e f g"
    assert of([marked, plain]) == [False, False]
    whitespace = FeatureSpec(tokenizer="tests.dsir.test_near_duplicates:letters")
    assert near_duplicates(sketch([marked, plain], whitespace), 0.8).tolist() == [False, True]


def letters(text: str) -> list[str]:
    return [word.strip(",") for word in text.split()]


def test_documents_that_look_alike_are_told_apart_in_time_that_does_not_grow_with_their_pairs(monkeypatch):
    """Pages of one template, similar to each other, but not enough: the digests rule nearly all pairs out."""
    compared = []
    monkeypatch.setattr("dsir.near_duplicates.jaccard", lambda a, b: compared.append(1) or jaccard(a, b))
    template = text(0, 120)
    pages = [f"{template} {text(seed, 120)}" for seed in range(1, 200)]
    assert not any(of(pages))
    assert len(compared) < 100  # of 19,701 pairs


def test_the_version_names_the_library():
    assert "rensa 0.5." in version()
