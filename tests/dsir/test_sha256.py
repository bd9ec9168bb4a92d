"""SHA-256 of many messages at once, with and without the processor's instructions for it."""

import hashlib

import numpy as np
import pytest
from numba import njit

from dsir.featurizer import sha256
from dsir.featurizer.intrinsics import has_instructions

WITH_INSTRUCTIONS = pytest.param(
    sha256.buckets_by_instructions,
    marks=pytest.mark.skipif(
        not has_instructions("sha"), reason="this processor has no instructions for SHA-256"
    ),
)


@pytest.mark.parametrize("buckets_of_blocks", [sha256.buckets_by_vectors, WITH_INSTRUCTIONS])
def test_buckets_are_those_of_hashlib(buckets_of_blocks):
    @njit(nogil=True)
    def compiled(blocks, n, state, initial, factors, n_buckets, out):
        buckets_of_blocks(blocks, n, state, initial, factors, n_buckets, out)

    rng = np.random.default_rng(0)
    messages = [rng.bytes(length) for length in range(sha256.MAX_ONE_BLOCK + 1)] + [b"\xff" * 55]
    n = len(messages)
    assert n % sha256.LANES  # the last lanes hold nothing
    padded = [m + b"\x80" + bytes(55 - len(m)) + (8 * len(m)).to_bytes(8, "big") for m in messages]
    blocks = np.frombuffer(b"".join(padded) + bytes(64 * sha256.LANES), np.uint8).copy()
    state = np.empty(8 * sha256.LANES, np.uint32)
    for n_buckets in (1, 10_007, 2**24):
        out = np.empty(n + sha256.LANES, np.int64)
        factors = sha256.remainder_factors(n_buckets)
        compiled(blocks, n, state, sha256.INITIAL_STATE, factors, np.uint64(n_buckets), out)
        digests = (hashlib.sha256(message).digest() for message in messages)
        assert out[:n].tolist() == [int.from_bytes(digest, "big") % n_buckets for digest in digests]


def test_the_faster_one_is_used():
    expected = sha256.buckets_by_instructions if has_instructions("sha") else sha256.buckets_by_vectors
    assert sha256.buckets_of_blocks is expected
