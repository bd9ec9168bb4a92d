"""Refusing arguments that compiled code would read past, or answer with a page of the compiler's own words.

What belongs here: what type and shape an argument has, in one line that names it, what it is and what is expected.
What does not: what its values mean; the module that uses them judges that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def described(value: object) -> str:
    """Return a value's type as errors name it: ``float64[3, 10000]``, ``array of int64``, ``list``.

    Examples
    --------
    >>> described(np.zeros((3, 2)))
    'float64[3, 2]'
    >>> described("a")
    'str'
    """
    if isinstance(value, np.ndarray):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return f"{'chunked ' * isinstance(value, pa.ChunkedArray)}array of {value.type}"
    return type(value).__name__


def expect_array(name: str, value: Any, dtypes: tuple[type, ...], *shape: str | int) -> None:
    """Refuse an argument that is not an array of one of these types and of this shape.

    Parameters
    ----------
    name : str
        The argument's.
    value : object
    dtypes : tuple of type
        NumPy types; an abstract one, as ``np.integer``, stands for all below it.
    *shape : str or int
        One for each dimension: its length, or what it counts if any length will do.

    Raises
    ------
    ValueError
        Naming the argument, what it is, and what is expected.

    Examples
    --------
    >>> expect_array("ratios", np.zeros(3), (np.floating,), "targets", "buckets")
    Traceback (most recent call last):
    ...
    ValueError: ratios: float64[3]; expected floating[targets, buckets]
    """
    fits = (
        isinstance(value, np.ndarray)
        and any(np.issubdtype(value.dtype, dtype) for dtype in dtypes)
        and value.ndim == len(shape)
        and all(isinstance(of, str) or of == n for of, n in zip(shape, value.shape, strict=True))
    )
    if not fits:
        kinds = " or ".join(dtype.__name__.rstrip("_") for dtype in dtypes)
        raise ValueError(f"{name}: {described(value)}; expected {kinds}[{', '.join(map(str, shape))}]")


def expect_strings(name: str, value: Any) -> None:
    """Refuse an argument that is not a pyarrow array of strings without nulls.

    Raises
    ------
    ValueError
        Naming the argument, what it is, and what is expected.
    """
    if not isinstance(value, pa.Array) or value.type not in (pa.string(), pa.large_string()):
        raise ValueError(
            f"{name}: {described(value)}; expected a pyarrow array of string or large_string, as pa.array gives"
        )
    if value.null_count:
        raise ValueError(f"{name}: {value.null_count} nulls; expected none")


def expect_instance(name: str, value: Any, *types: type) -> None:
    """Refuse an argument that is not an instance of one of these types.

    Raises
    ------
    ValueError
        Naming the argument, what it is, and what is expected.
    """
    if not isinstance(value, types):
        expected = " or ".join(each.__name__ for each in types)
        raise ValueError(f"{name}: {described(value)}; expected {expected}")


def expect_buckets(name: str, by_bucket: np.ndarray, features: Any) -> None:
    """Refuse an array with fewer buckets, in its last dimension, than features use: it would be read past its end.

    Raises
    ------
    ValueError
        Naming the argument, its length, and the largest bucket.
    """
    buckets, n = features.buckets, by_bucket.shape[-1]
    if n <= np.iinfo(buckets.dtype).max and len(buckets) and (largest := int(buckets.max())) >= n:
        raise too_few_buckets(name, n, largest)


def too_few_buckets(name: str, n: int, largest: int) -> ValueError:
    """Return the error of :func:`expect_buckets`."""
    return ValueError(
        f"{name}: {n:,} buckets, and the features have bucket {largest:,}; expected those of one spec"
    )
