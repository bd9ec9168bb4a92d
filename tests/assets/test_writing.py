"""Which records go into which file of a selection."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsir_dagster.assets.picking import writing
from dsir_dagster.assets.picking.writing import cut, pieces_of, runs_of

amounts = st.lists(st.integers(0, 300), min_size=1, max_size=40)


@pytest.fixture(autouse=True, scope="module")
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "FILE_BYTES", 100)
        patch.setattr(writing, "READ_BYTES", 200)
        yield


@given(amounts)
def test_a_file_has_no_more_text_than_allowed_or_one_document(sizes):
    files = np.split(np.array(sizes), np.cumsum(cut(np.array(sizes)))[:-1])
    assert sum(map(len, files)) == len(sizes)
    assert all(len(file) == 1 or sum(file) <= 100 for file in files)
    assert all(sum(a) + b[0] > 100 for a, b in itertools.pairwise(files))  # none could be larger


@given(amounts, st.data())
def test_shards_go_together_as_long_as_one_task_can_write_and_read_them(text, data):
    sizes = data.draw(st.lists(st.integers(0, 300), min_size=len(text), max_size=len(text)))
    runs = runs_of(text, sizes)
    assert [i for first, last in runs for i in range(first, last)] == list(range(len(text)))
    for first, last in runs:
        assert last == first + 1 or (sum(text[first:last]) <= 100 and sum(sizes[first:last]) <= 200)


@given(st.lists(st.integers(1, 9), max_size=9), st.data())
def test_records_are_dealt_out_in_order_wherever_their_batches_end(batches, data):
    total = sum(batches)
    bounds = sorted(data.draw(st.sets(st.integers(1, max(total - 1, 1)), max_size=4)) - {total})
    sizes = np.diff([0, *bounds, total]).tolist() if total > 1 else [total] * bool(total)
    ends = np.cumsum([0, *batches])
    stream = (pa.record_batch({"n": np.arange(a, b)}) for a, b in itertools.pairwise(ends))
    dealt = [[n for batch in of_file for n in batch["n"].to_pylist()] for of_file in pieces_of(stream, sizes)]
    assert [len(file) for file in dealt] == sizes and [n for file in dealt for n in file] == list(
        range(total)
    )
