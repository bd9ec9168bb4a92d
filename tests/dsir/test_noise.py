"""Noise: its distribution, its bits, and what it depends on."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.noise import MOST_GUMBEL, gumbel_noise, ieee_log, mix64


def test_mix64_is_the_splitmix64_finalizer():
    # The first output of SplitMix64 from state 0 is the finalizer of its increment.
    assert int(mix64(np.uint64(0x9E3779B97F4A7C15))) == 0xE220A8397B1DCDAF
    assert int(mix64(np.uint64(0))) == 0


@pytest.fixture(scope="module")
def content_hash():
    return np.random.default_rng(7).integers(0, 2**64, 200_000, dtype=np.uint64)


def test_noise_is_a_function_of_the_document(content_hash):
    noise = gumbel_noise(content_hash, 3, "a")
    order = np.random.default_rng(1).permutation(len(content_hash))
    assert np.array_equal(gumbel_noise(content_hash[order], 3, "a"), noise[order])
    for part in (slice(0, 1), slice(17, 18), slice(5, 9000), slice(None, None, 7)):
        assert np.array_equal(gumbel_noise(content_hash[part], 3, "a"), noise[part])
    assert len(gumbel_noise(content_hash[:0], 3, "a")) == 0


def test_no_noise_is_above_its_bound():
    largest = (2**52 - 0.5) / 2**52  # of the uniform variates
    assert MOST_GUMBEL - 0.1 < -ieee_log(-ieee_log(largest)) < MOST_GUMBEL


@pytest.mark.parametrize("consecutive", [False, True])
def test_noise_is_standard_gumbel(content_hash, consecutive):
    hashes = np.arange(200_000, dtype=np.uint64) if consecutive else content_hash
    noise = np.sort(gumbel_noise(hashes, 0, "chemprot-10pct"))
    n = len(noise)
    cdf = np.exp(-np.exp(-noise))
    distance = max((np.arange(1, n + 1) / n - cdf).max(), (cdf - np.arange(n) / n).max())
    assert distance * math.sqrt(n) < 2.0  # Kolmogorov-Smirnov: exceeded with probability 0.0007
    assert abs(noise.mean() - np.euler_gamma) < 5 * math.pi / math.sqrt(6 * n)


def test_noise_of_other_seeds_and_selections_is_independent(content_hash):
    keys = [(0, "a"), (1, "a"), (2**63, "a"), (0, "b"), (0, "")]
    streams = [gumbel_noise(content_hash, seed, name) for seed, name in keys]
    correlation = np.corrcoef(streams)[np.triu_indices(len(streams), 1)]
    assert np.abs(correlation).max() < 5 / math.sqrt(len(content_hash))


def test_noise_is_pinned():
    """Selections are remembered by their seed: these bits may never change."""
    noise = gumbel_noise(np.array([0, 1, 2**64 - 1], np.uint64), 42, "pinned")
    assert [x.hex() for x in noise.tolist()] == [
        "0x1.6e2cb6e996b8fp-2",
        "0x1.c9565cdb25ea8p-1",
        "0x1.b479fe308edc6p+0",
    ]


@settings(max_examples=500, deadline=None)
@given(st.floats(2.0**-53, 40))
def test_log_is_within_an_ulp(x):
    assert abs(ieee_log(x) - math.log(x)) <= math.ulp(math.log(x))


def test_noise_is_finite_at_the_ends():
    smallest, largest = 0.5 * 2.0**-52, (2**52 - 0.5) * 2.0**-52
    assert 0 < smallest and largest < 1
    assert -3.7 < -ieee_log(-ieee_log(smallest)) < -3.5
    assert 36 < -ieee_log(-ieee_log(largest)) < 37


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match="seed"):
        gumbel_noise(np.zeros(1, np.uint64), seed, "a")


@pytest.mark.parametrize("hashes", [np.zeros(1, np.int64), np.zeros((1, 1), np.uint64)])
def test_other_arrays_are_refused(hashes):
    with pytest.raises(ValueError, match="content_hash"):
        gumbel_noise(hashes, 0, "a")
