"""Paths and URIs as text: what is a pattern in them, what is secret, how an odd file name is written.

What belongs here: rules about the text of a URI that the configuration and the readers share. What does not: opening
one (``resources/corpus/files.py``).

A local file is named by its path. If the path is not printable Unicode (a newline, an escape sequence, bytes that are
not UTF-8), a percent-encoded ``file://`` URI names it instead, which DuckDB, JSON, a log and a terminal can all hold:
see :func:`local_name` and its inverse, :func:`local_path`.
"""

from __future__ import annotations

import glob
import os
import re
from urllib.parse import quote, unquote_to_bytes

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
#: ``user:password@``; a password may contain a slash, but a host's port is not one.
_USER = re.compile(r"(://)(?:[^\s/@:]*:(?:[^\s/]*@|(?!\d+/)[^\s@]*@))")
_HTTP_USER = re.compile(r"(https?://)[^\s/@]+@", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(
    r"([?&;](?:[\w.-]*(?:signature|credential|token|secret|passw(?:or)?d|pwd|api[-_]?key|access[-_]?key(?:[-_]?id)?"
    r"|account[-_]?key)"
    r"|sas|sig|auth|authorization)=)[^&;#\s]*[^&;#\s:,.)]",
    re.IGNORECASE,
)
_MASK = "***"
_ONE_CHARACTER = re.compile(r"\[([*?\[])\]")  # a magic character as glob.escape writes it
_FILE = "file://"


def masked(text: str) -> str:
    """Return a text with the secrets of the URIs in it replaced by ``***``: passwords, signatures, tokens.

    Examples
    --------
    >>> masked("s3://key:secret@bucket/a.jsonl: no such file")
    's3://***@bucket/a.jsonl: no such file'
    >>> masked("https://host/a.jsonl?version=2&X-Amz-Signature=0f1e")
    'https://host/a.jsonl?version=2&X-Amz-Signature=***'
    """
    return _URI.sub(lambda match: "::".join(map(_mask, match[0].split("::"))), text)


def _mask(uri: str) -> str:
    for pattern, mask in (
        (_USER, rf"\1{_MASK}@"),
        (_HTTP_USER, rf"\1{_MASK}@"),
        (_SECRET_PARAMETER, rf"\1{_MASK}"),
    ):
        uri = pattern.sub(mask, uri)
    return uri


def without_credentials(uri: str) -> str:
    """Return a URI of the configuration unchanged.

    Raises
    ------
    ValueError
        It contains credentials; the message says where they belong, and does not repeat them.
    """
    if masked(uri) != uri:
        raise ValueError(
            "credentials do not belong in a URI, which is stored and shown; give them in the environment (for S3 "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for Google GOOGLE_APPLICATION_CREDENTIALS, for Azure "
            "AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN), in the store's own files (~/.aws/credentials) or, for "
            "other schemes, in ~/.config/fsspec/*.json"
        )
    return uri


def absolute_uri(uri: str, base: str | os.PathLike[str]) -> str:
    """Return ``uri`` unchanged if it has a scheme, else as an absolute path below ``base``.

    Only ``uri`` may hold a pattern: magic characters in ``base`` and in the user's home are escaped, as
    :func:`glob.escape` does.
    """
    if "://" in uri:
        return uri
    if uri.startswith("~"):
        user, slash, rest = uri.partition("/")
        uri = glob.escape(os.path.expanduser(user)) + slash + rest
    return os.path.normpath(os.path.join(glob.escape(os.fspath(base)), uri))


def split_pattern(path: str, magic: str = "*?[") -> tuple[str, str | None]:
    """Split a pattern into the folder that contains all its matches, and the pattern below that folder.

    Parameters
    ----------
    path : str
        A path of a file system.
    magic : str
        Characters that begin a pattern.

    Returns
    -------
    tuple of str and (str or None)
        The folder, or the whole path, unescaped; None if there is no pattern.

    Examples
    --------
    >>> split_pattern("/data/[[]2024] run/pool/**/*.jsonl")
    ('/data/[2024] run/pool', '**/*.jsonl')
    >>> split_pattern("/data/[[]2024] run/target.jsonl")
    ('/data/[2024] run/target.jsonl', None)
    """
    parts = path.split("/")
    for index, part in enumerate(parts):
        if any(character in magic for character in _ONE_CHARACTER.sub("", part)):
            return _ONE_CHARACTER.sub(r"\1", "/".join(parts[:index])), "/".join(parts[index:])
    return _ONE_CHARACTER.sub(r"\1", path), None


def local_name(path: str) -> str:
    """Return the name of a local file: its path, or a ``file://`` URI if the path is not printable."""
    return path if path.isprintable() else _FILE + quote(os.fsencode(path))


def local_path(uri: str) -> str:
    """Return the path of a file named by :func:`local_name`; any other URI unchanged."""
    return os.fsdecode(unquote_to_bytes(uri.removeprefix(_FILE))) if uri.startswith(_FILE) else uri
