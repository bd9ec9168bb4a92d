"""Non-cryptographic hashing: word and n-gram hashes, XXH64.

What belongs here: pure functions from bytes or integers to integers, in numba, each specified well enough to be
written again in another language. What does not: SHA-256 (`sha256`), finding words (`words`), counting (`kernel`),
the noise that is made of hashes (`dsir.noise`).

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

from dsir.featurizer.intrinsics import inner, load_u64

K1 = np.uint64(0x9E3779B97F4A7C15)
K2 = np.uint64(0xBF58476D1CE4E5B9)
K3 = np.uint64(0x94D049BB133111EB)

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)

_0, _3, _7, _29, _32, _63 = (np.uint64(i) for i in (0, 3, 7, 29, 32, 63))
ALL_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


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
        chunk = load_u64(buf, start) & (ALL_ONES >> np.uint64(64 - 8 * length))
        h = (h ^ chunk) * K2
        h ^= h >> _32
    h *= K3
    return h ^ (h >> _29)


@inner
def hash_words(low, starts, ends, first, last, hashes, at, others):
    """Write the hashes of words ``first .. last - 1`` to ``hashes[at:]``.

    Words of 1 to 8 bytes, nearly all, are hashed in a loop without branches, the others one by one. `others` is
    scratch, int64[last - first].
    """
    starts, ends, hashes = starts[first:last], ends[first:last], hashes[at : at + last - first]
    n_others = np.int64(0)
    for i in range(len(starts)):
        hashes[i] = load_u64(low, starts[i])
        others[n_others] = i
        n_others += np.int64(np.uint64(ends[i] - starts[i] - 1) > _7)
    for i in range(len(starts)):
        length = np.uint64(ends[i] - starts[i])
        h = (length * K1 ^ (hashes[i] & (ALL_ONES >> ((_0 - (length << _3)) & _63)))) * K2
        h = (h ^ (h >> _32)) * K3
        hashes[i] = h ^ (h >> _29)
    for i in others[:n_others]:
        hashes[i] = hash_word(low, starts[i], ends[i] - starts[i])


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
def rotl(x, r):
    """Rotate a uint64 by r bits to the left, 0 < r < 64."""
    return (x << np.uint64(r)) | (x >> np.uint64(64 - r))


@inner
def _xxh_round(acc, lane):
    return rotl(acc + lane * _P2, 31) * _P1


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
        h = rotl(a, 1) + rotl(b, 7) + rotl(c, 12) + rotl(d, 18)
        h = _xxh_merge(_xxh_merge(_xxh_merge(_xxh_merge(h, a), b), c), d)
    else:
        h = seed + _P5
    h += np.uint64(end - start)
    while end - p >= 8:
        h = rotl(h ^ _xxh_round(_0, load_u64(buf, p)), 27) * _P1 + _P4
        p += 8
    if end - p >= 4:
        word = _0
        for k in range(4):
            word |= np.uint64(buf[p + k]) << np.uint64(8 * k)
        h = rotl(h ^ (word * _P1), 23) * _P2 + _P3
        p += 4
    while p < end:
        h = rotl(h ^ (np.uint64(buf[p]) * _P5), 11) * _P1
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
def xxh64_whole(buf, seed):
    """XXH64 of a whole array of bytes, for callers that are not compiled."""
    return xxh64(buf, 0, len(buf), seed)
