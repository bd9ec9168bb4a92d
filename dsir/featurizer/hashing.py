"""Non-cryptographic hashing: word and n-gram hashes, XXH64, and the noise of a document.

Belongs here: pure functions from bytes or integers to integers (and to one float), in numba, each
specified well enough to be written again in another language. Does not belong here: SHA-256
(`sha256`), finding words (`words`), counting (`kernel`).

The ``fast`` n-gram hash
------------------------
All arithmetic is on unsigned 64-bit integers, modulo 2**64. ::

    K1 = 0x9E3779B97F4A7C15    K2 = 0xBF58476D1CE4E5B9    K3 = 0x94D049BB133111EB

A word is its UTF-8 bytes (after lowercasing), L of them, cut into little-endian 8-byte chunks, the last
one padded with zero bytes (a word of no bytes has no chunk). Its hash is ::

    h = L * K1
    for each chunk c:  h = (h ^ c) * K2;  h = h ^ (h >> 32)
    h = h * K3;  h = h ^ (h >> 29)

The hash of an n-gram w_1 ... w_k is built from the left, G_1 being the hash of the word w_1 ::

    x = G_{k-1} * K1 + hash(w_k);  x = x ^ (x >> 32);  x = x * K3;  G_k = x ^ (x >> 29)

so it depends on the order of the words and on where they are cut. The bucket of a hash among m is the
multiply-shift of its high half, ``((h >> 32) * m) >> 32``, defined for every m in 1 .. 2**32.

For a fixed L <= 8 the word hash is a bijection of the word's bytes: short words of equal length never
share a 64-bit hash. It is not keyed, and not meant to withstand chosen collisions; two colliding n-grams
share a bucket, as n-grams in a hashed feature space do anyway.
"""

import numpy as np
from numba import njit

from dsir.featurizer.intrinsics import inner, inner_float, load_u64

K1 = np.uint64(0x9E3779B97F4A7C15)
K2 = np.uint64(0xBF58476D1CE4E5B9)
K3 = np.uint64(0x94D049BB133111EB)

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)

_0, _1, _8, _11, _12 = (np.uint64(i) for i in (0, 1, 8, 11, 12))
_29, _32, _64 = (np.uint64(i) for i in (29, 32, 64))
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


# ----------------------------------------------------------------------------------- the fast n-gram hash
@inner
def hash_word(buf, start, length):
    """Hash of the word ``buf[start : start + length]`` (module docstring); reads up to 7 bytes past it."""
    h = np.uint64(length) * K1
    while length > 8:
        h = (h ^ load_u64(buf, start)) * K2
        h ^= h >> _32
        start += 8
        length -= 8
    if length > 0:
        chunk = load_u64(buf, start) & (_ONES >> np.uint64(64 - 8 * length))
        h = (h ^ chunk) * K2
        h ^= h >> _32
    h *= K3
    return h ^ (h >> _29)


def hash_word_bytes(word: bytes) -> int:
    """The same as `hash_word`, of one word and without compiling anything."""
    mask = 2**64 - 1
    h = len(word) * int(K1) & mask
    for start in range(0, len(word), 8):
        h = (h ^ int.from_bytes(word[start : start + 8], "little")) * int(K2) & mask
        h ^= h >> 32
    h = h * int(K3) & mask
    return h ^ (h >> 29)


@inner
def extend(prefix, word):
    """Hash of an n-gram from that of all its words but the last, and that of the last word."""
    x = prefix * K1 + word
    x ^= x >> _32
    x *= K3
    return x ^ (x >> _29)


@inner
def bucket_of(h, n_buckets):
    """Bucket of a 64-bit hash among ``n_buckets`` (uint64): multiply-shift of the high half."""
    return np.int64(((h >> _32) * n_buckets) >> _32)


# --------------------------------------------------------------------------------------------- general use
@inner
def mix64(x):
    """The output function of SplitMix64 (Steele, Lea & Flood 2014), a bijection of uint64."""
    x = (x ^ (x >> np.uint64(30))) * K2
    x = (x ^ (x >> np.uint64(27))) * K3
    return x ^ (x >> np.uint64(31))


@inner
def _rotl(x, r):
    return (x << np.uint64(r)) | (x >> np.uint64(64 - r))


@inner
def _xxh_round(acc, lane):
    return _rotl(acc + lane * _P2, 31) * _P1


@inner
def _xxh_merge(h, acc):
    return (h ^ _xxh_round(_0, acc)) * _P1 + _P4


@inner
def xxh64(buf, start, end, seed):
    """XXH64 of a range of bytes.

    Parameters
    ----------
    buf : uint8[:]
    start, end : int64
        The range, ``0 <= start <= end <= len(buf)`` (not checked).
    seed : uint64

    Returns
    -------
    uint64

    Notes
    -----
    The xxHash specification, version 0.1.1, "XXH64 algorithm description".
    """
    p = np.int64(start)
    if end - p >= 32:
        a = seed + _P1 + _P2
        b = seed + _P2
        c = seed
        d = seed - _P1
        while end - p >= 32:
            a = _xxh_round(a, load_u64(buf, p))
            b = _xxh_round(b, load_u64(buf, p + 8))
            c = _xxh_round(c, load_u64(buf, p + 16))
            d = _xxh_round(d, load_u64(buf, p + 24))
            p += 32
        h = _rotl(a, 1) + _rotl(b, 7) + _rotl(c, 12) + _rotl(d, 18)
        h = _xxh_merge(_xxh_merge(_xxh_merge(_xxh_merge(h, a), b), c), d)
    else:
        h = seed + _P5
    h += np.uint64(end - start)
    while end - p >= 8:
        h = _rotl(h ^ _xxh_round(_0, load_u64(buf, p)), 27) * _P1 + _P4
        p += 8
    if end - p >= 4:
        word = _0
        for k in range(4):
            word |= np.uint64(buf[p + k]) << np.uint64(8 * k)
        h = _rotl(h ^ (word * _P1), 23) * _P2 + _P3
        p += 4
    while p < end:
        h = _rotl(h ^ (np.uint64(buf[p]) * _P5), 11) * _P1
        p += 1
    h = (h ^ (h >> np.uint64(33))) * _P2
    h = (h ^ (h >> _29)) * _P3
    return h ^ (h >> _32)


@njit(cache=True, nogil=True)
def xxh64_ranges(buf, starts, ends):
    """XXH64, seed 0, of many ranges of one buffer: uint64[n] for int64[n] ``starts`` and ``ends``."""
    out = np.empty(len(starts), np.uint64)
    for i in range(len(starts)):
        out[i] = xxh64(buf, starts[i], ends[i], _0)
    return out


@njit(cache=True, nogil=True)
def _xxh64_whole(buf, seed):
    """XXH64 of a whole array of bytes, for callers that are not compiled."""
    return xxh64(buf, 0, len(buf), seed)


# ---------------------------------------------------------------------------------------------------- noise
@inner_float
def _log(x):
    """Natural logarithm of a positive normal float64, from IEEE operations alone; error below 1 ulp.

    The algorithm and coefficients of fdlibm's ``__ieee754_log`` (Sun Microsystems, 1993). The C library's
    logarithm may differ in the last bit between machines; this does not, though many are computed at once.
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
    x = mix64(mix64(content_hash + key) ^ _rotl(key, 32))
    return (np.float64(x >> _12) + 0.5) * 2.0**-52


@njit(cache=True, nogil=True)
def _gumbel(content_hash, key):
    out = np.empty(len(content_hash), np.float64)
    for i in range(len(content_hash)):
        out[i] = -_log(-_log(_uniform(content_hash[i], key)))
    return out


@njit(cache=True, nogil=True)
def _exponential(content_hash, key):
    out = np.empty(len(content_hash), np.float64)
    for i in range(len(content_hash)):
        out[i] = -_log(_uniform(content_hash[i], key))
    return out


#: No Gumbel variate is larger.
MOST_GUMBEL = 36.8


def gumbel_noise(content_hash: np.ndarray, seed: int, selection: str) -> np.ndarray:
    """Standard Gumbel variates that depend on the seed, the selection's name and the document alone.

    Adding Gumbel(0, 1) noise to log weights and keeping the k largest samples k documents without
    replacement, with probability proportional to weight at every draw (Efraimidis & Spirakis 2006; Xie et
    al. 2023, section 3). With noise that is a function of the document, the same documents are kept
    whatever the order, the sharding, the number of workers or the retries.

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
    """Standard exponential variates that depend on the seed, the selection's name and the document alone.

    ``-log(u)`` with the ``u`` of `gumbel_noise`, whose parameters, errors and reproducibility these are: for
    one seed and name the two noises are functions of each other, not independent.

    Returns
    -------
    float64[n]
        Finite; between 1.1e-16 and 36.8.
    """
    return _exponential(_checked(content_hash), np.uint64(noise_key(seed, selection)))


def _checked(content_hash: np.ndarray) -> np.ndarray:
    content_hash = np.asarray(content_hash)
    if content_hash.ndim != 1 or content_hash.dtype != np.uint64:
        raise ValueError(f"content_hash: {content_hash.dtype}[{content_hash.ndim}d]; expected uint64[n]")
    content_hash = np.ascontiguousarray(content_hash).view()
    content_hash.flags.writeable = False  # one type for the compiler, whoever owns it
    return content_hash


def noise_key(seed: int, selection: str) -> int:
    """Return the key of a selection's noise, 0 .. 2**64 - 1: all that `gumbel_noise` needs beside the content.

    Parameters
    ----------
    seed, selection
        As those of `gumbel_noise`.

    Raises
    ------
    ValueError
        If `seed` is out of range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed: {seed}; expected an integer from 0 to 2**64 - 1")
    return int(_xxh64_whole(np.frombuffer(selection.encode(), np.uint8), np.uint64(seed)))
