"""Pieces of texts: nothing is lost, nothing is copied, every piece has the words that were asked for."""

import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsir.chunking import cut

WHITE_SPACE = [chr(c) for c in range(sys.maxunicode + 1) if chr(c).isspace()]
#: White space of every length in UTF-8, characters that share their first byte with it, and any others.
characters = st.one_of(
    st.sampled_from(
        [*WHITE_SPACE, *"abc", "\u00bf", "é", "\u1681", "\u200b", "\u2070", "\u3001", "\U0001f600"]
    ),
    st.characters(exclude_categories=["Cs"]),
)
texts = st.lists(st.text(characters, max_size=40), max_size=8)
types = st.sampled_from([pa.string(), pa.large_string()])
n_words = st.integers(1, 6)


def by_parent(pieces, n):
    found = [[] for _ in range(n)]
    for parent, text in zip(pieces.parents.tolist(), pieces.texts.to_pylist(), strict=True):
        found[parent].append(text)
    return found


@settings(deadline=None)
@given(texts, n_words, types)
@example([""], 1, pa.string())
@example([" \u3000 a", "\u2028"], 1, pa.string())
def test_pieces_joined_are_the_text(texts, n_words, type_):
    found = by_parent(cut(pa.array(texts, type_), n_words), len(texts))
    assert ["".join(pieces) for pieces in found] == texts
    assert all(found), "a text without words is one piece"


@settings(deadline=None)
@given(texts, n_words, types)
def test_a_piece_has_n_words_and_the_last_one_what_is_left(texts, n_words, type_):
    for text, pieces in zip(texts, by_parent(cut(pa.array(texts, type_), n_words), len(texts)), strict=True):
        words = text.split()
        assert [piece.split() for piece in pieces] == (
            [words[i : i + n_words] for i in range(0, len(words), n_words)] or [[]]
        )
        assert not any(piece[0].isspace() for piece in pieces[1:]), "white space belongs to the piece before"


@settings(deadline=None)
@given(texts, n_words, types, st.data())
def test_a_piece_is_found_again_by_its_bytes(texts, n_words, type_, data):
    start = data.draw(st.integers(0, len(texts)))
    pieces = cut(pa.array(texts, type_).slice(start), n_words)
    pieces.texts.validate(full=True)
    assert pieces.texts.type == type_
    bounds = zip(pieces.parents.tolist(), pieces.begins.tolist(), pieces.ends.tolist(), strict=True)
    assert pieces.texts.to_pylist() == [texts[start:][p].encode()[b:e].decode() for p, b, e in bounds]
    counts = np.bincount(pieces.parents, minlength=len(texts) - start)
    assert pieces.numbers.tolist() == [i for count in counts for i in range(count)]


@settings(deadline=None)
@given(texts, n_words)
def test_pieces_do_not_depend_on_the_other_texts(texts, n_words):
    alone = [cut(pa.array([text]), n_words).texts.to_pylist() for text in texts]
    assert by_parent(cut(pa.array(texts, pa.string()), n_words), len(texts)) == alone


def test_everything_that_python_takes_for_white_space_divides_words_and_nothing_else_does():
    text = "".join(f"a{chr(c)}b " for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000)
    assert [piece.strip() for piece in cut(pa.array([text]), 1).texts.to_pylist()] == text.split()


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
def test_pieces_share_the_bytes_of_the_texts(type_):
    whole = pa.array(["one two three", "", "four"], type_)
    assert cut(whole, 2).texts.buffers()[2].address == whole.buffers()[2].address


@pytest.mark.parametrize(
    ("texts", "n_words", "said"),
    [
        (pa.array(["a", None]), 1, "1 nulls"),
        (pa.array([b"a"]), 1, "binary"),
        (["a"], 1, "list"),
        (pa.array(["a"]), 0, "n_words: 0"),
    ],
)
def test_what_cannot_be_cut_is_refused(texts, n_words, said):
    with pytest.raises(ValueError, match=said):
        cut(texts, n_words)
