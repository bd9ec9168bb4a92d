"""The checksum of batches: what it notices for certain."""

import numpy as np
import pytest

from dsir.featurizer.checksum import checksum

WORDS = np.random.default_rng(0).integers(0, 2**64, 300, np.uint64)  # two sums, and what is left


def test_every_flipped_bit_changes_it():
    right = checksum(WORDS.copy())
    assert right == checksum(WORDS.copy()) and 0 <= right < 2**64
    for bit in range(64 * len(WORDS)):
        words = WORDS.copy()
        words[bit // 64] ^= np.uint64(1 << bit % 64)
        assert checksum(words) != right


@pytest.mark.parametrize("at", [0, 100, 127, 128, 290])
def test_zeros_a_lost_end_and_swapped_blocks_change_it(at):
    right = checksum(WORDS.copy())
    words = WORDS.copy()
    words[at : at + 10] = 0
    assert checksum(words) != right
    assert checksum(WORDS[: at + 9].copy()) != right
    assert checksum(np.append(WORDS, np.uint64(0))) != right
    assert checksum(np.concatenate([WORDS[128:256], WORDS[:128], WORDS[256:]])) != right
    assert checksum(np.zeros(3, np.uint64)) != checksum(np.zeros(2, np.uint64))
