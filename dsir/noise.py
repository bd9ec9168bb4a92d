"""The noise of a document: variates that are a function of its content, a seed and a name.

What belongs here: the distributions and the arithmetic behind them, specified well enough to be reimplemented in
another language (as in ``sql/macros_noise.sql``). What does not: who needs noise, and what it is added to.
"""

import numpy as np
from numba import njit

from dsir.checks import expect_array
from dsir.featurizer.hashing import K2, K3, rotl, xxh64_whole
from dsir.featurizer.intrinsics import inner, inner_float

_12 = np.uint64(12)


@inner
def mix64(x):
    """The output function of SplitMix64 (Steele, Lea & Flood 2014), a bijection of uint64."""
    x = (x ^ (x >> np.uint64(30))) * K2
    x = (x ^ (x >> np.uint64(27))) * K3
    return x ^ (x >> np.uint64(31))


@inner_float
def ieee_log(x):
    """Natural logarithm of a positive normal float64, from IEEE operations alone; error below 1 ulp.

    The algorithm and coefficients of fdlibm's ``__ieee754_log`` (Sun Microsystems, 1993). The C library's logarithm may
    differ in the last bit between machines; this one does not, even vectorized.
    """
    bits = np.float64(x).view(np.int64)
    exponent = (bits >> 52) - 1022
    half_to_one = bits & 0x000FFFFFFFFFFFFF | 0x3FE0000000000000
    mantissa = np.int64(half_to_one).view(np.float64)
    if mantissa < 0.7071067811865476:
        mantissa *= 2.0
        exponent -= 1
    k = np.float64(exponent)
    f = mantissa - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    even = w * (0.3999999999940941908 + w * (0.2222219843214978396 + w * 0.1531383769920937332))
    odd = z * (
        0.6666666666666735130
        + w * (0.2857142874366239149 + w * (0.1818357216161805012 + w * 0.1479819860511658591))
    )
    half = 0.5 * f * f
    low = s * (half + (even + odd)) + k * 1.90821492927058770002e-10
    return k * 6.93147180369123816490e-01 - ((half - low) - f)


@inner
def _uniform(content_hash, key):
    x = mix64(mix64(content_hash + key) ^ rotl(key, 32))
    return (np.float64(x >> _12) + 0.5) * 2.0**-52


@njit(cache=True, nogil=True)
def _gumbel(content_hash, key):
    out = np.empty(len(content_hash), np.float64)
    for i in range(len(content_hash)):
        out[i] = -ieee_log(-ieee_log(_uniform(content_hash[i], key)))
    return out


@njit(cache=True, nogil=True)
def _exponential(content_hash, key):
    out = np.empty(len(content_hash), np.float64)
    for i in range(len(content_hash)):
        out[i] = -ieee_log(_uniform(content_hash[i], key))
    return out


#: No Gumbel variate is larger.
MOST_GUMBEL = 36.8


def gumbel_noise(content_hash: np.ndarray, seed: int, selection: str) -> np.ndarray:
    """Standard Gumbel variates that depend only on the seed, the selection's name and the document.

    Adding Gumbel(0, 1) noise to log weights and keeping the k largest samples k documents without replacement, with
    probability proportional to weight at every draw (Efraimidis & Spirakis 2006; Xie et al. 2023, section 3). Since the
    noise is a function of the document, the same documents are kept whatever the order, sharding, number of workers or
    retries.

    Parameters
    ----------
    content_hash : uint64[n]
        `Features.content_hash`. Equal documents get equal noise.
    seed : int
        0 .. 2**64 - 1.
    selection : str
        Name of the selection; selections of different names get independent noise.

    Returns
    -------
    float64[n]
        Finite; between -3.6 and `MOST_GUMBEL`.

    Raises
    ------
    ValueError
        If `seed` is out of range or `content_hash` is not one-dimensional uint64.

    Notes
    -----
    Counter-based, no generator state (Salmon et al. 2011): ::

        key = XXH64(UTF-8 of selection, seed)                         (`noise_key`)
        x   = mix64(mix64(content_hash + key) ^ rotl(key, 32))       mod 2**64
        u   = ((x >> 12) + 0.5) / 2**52
        g   = -log(-log(u))

    with `mix64` the SplitMix64 finalizer. 52 bits, not 53: with 53 the largest sum, 2**53 - 0.5, is not a
    float64 and rounds to u = 1, an infinite variate. The logarithm consists of IEEE operations in a fixed
    order, so the bits are the same on every machine. `sql/macros_noise.sql` is the same in DuckDB.
    """
    return _gumbel(_checked(content_hash), np.uint64(noise_key(seed, selection)))


def exponential_noise(content_hash: np.ndarray, seed: int, selection: str) -> np.ndarray:
    """Standard exponential variates that depend only on the seed, the selection's name and the document.

    ``-log(u)`` with the ``u`` of `gumbel_noise`; parameters, errors and reproducibility are the same. For one seed and
    name the two noises are functions of each other, not independent.

    Returns
    -------
    float64[n]
        Finite; between 1.1e-16 and 36.8.
    """
    return _exponential(_checked(content_hash), np.uint64(noise_key(seed, selection)))


def _checked(content_hash: np.ndarray) -> np.ndarray:
    expect_array("content_hash", content_hash, (np.uint64,), "n")
    content_hash = np.ascontiguousarray(content_hash).view()
    content_hash.flags.writeable = False  # one type for the compiler, whoever owns it
    return content_hash


def noise_key(seed: int, selection: str) -> int:
    """Return the key of a selection's noise, 0 .. 2**64 - 1: all that `gumbel_noise` needs besides the content.

    Parameters
    ----------
    seed, selection
        As in `gumbel_noise`.

    Raises
    ------
    ValueError
        If `seed` is out of range.
    """
    if not isinstance(selection, str):
        raise ValueError(f"selection: {selection!r}; expected the name of a selection, a str")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ValueError(f"seed: {seed!r}; expected an integer from 0 to 2**64 - 1")
    return int(xxh64_whole(np.frombuffer(selection.encode(), np.uint8), np.uint64(seed)))
