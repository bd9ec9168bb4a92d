"""What a file's first bytes say about it: compression, container, encoding of text.

What belongs here: constants that formats begin with. What does not: reading the rest.
"""

from __future__ import annotations

import re

#: Bytes of a file to look at; enough for the whole first block of a zstd frame.
HEAD = 1 << 18

_CODECS = {
    "gzip": re.compile(rb"\x1f(\x8b|\Z)"),
    # or a skippable frame, with which pzstd begins; or the first bytes of a mark, where the file is cut off
    "zstd": re.compile(rb"\x28(\Z|\xb5(\Z|\x2f(\Z|\xfd)))|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),
}
PARQUET, ARROW = "a Parquet file", "an Arrow IPC file"
_CONTAINERS = {
    PARQUET: re.compile(rb"PAR1\x15"),
    ARROW: re.compile(rb"ARROW1\0\0"),
    "a Feather file of version 1": re.compile(rb"FEA1"),
    "an Avro file": re.compile(rb"Obj\x01"),
    "a bzip2 file": re.compile(rb"BZh[1-9]1AY&SY"),
    "an xz file": re.compile(rb"\xfd7zXZ\0"),
    "an lz4 file": re.compile(rb"\x04\x22\x4d\x18"),
    "a zip archive": re.compile(rb"PK\x03\x04"),
    "a 7z archive": re.compile(rb"7z\xbc\xaf\x27\x1c"),
    "an HDF5 file": re.compile(rb"\x89HDF\r\n"),
    "an SQLite file": re.compile(rb"SQLite format 3\0"),
    "a PDF": re.compile(rb"%PDF-"),
}
_ENCODINGS = {
    "UTF-32": re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"),
    "UTF-16": re.compile(rb"\xff\xfe|\xfe\xff"),
    # Without a byte order mark: a text begins with two characters of ASCII, as JSON does and headers of CSV do.
    "UTF-32-LE": re.compile(rb"[^\0]\0\0\0[^\0]\0\0\0"),
    "UTF-32-BE": re.compile(rb"\0\0\0[^\0]\0\0\0[^\0]"),
    "UTF-16-LE": re.compile(rb"[^\0]\0[^\0]\0"),
    "UTF-16-BE": re.compile(rb"\0[^\0]\0[^\0]"),
}


def compression(head: bytes) -> str | None:
    """Return ``gzip``, ``zstd`` or None."""
    return _first(_CODECS, head)


def container(head: bytes) -> str | None:
    """Name a format other than text, with its article; None if none is recognized."""
    codec = compression(head)
    return _first(_CONTAINERS, head) or (codec and f"a {codec} file")


def encoding(head: bytes) -> str | None:
    """Return the encoding of a text by its byte order mark or its zeros; None for UTF-8."""
    return _first(_ENCODINGS, head)


def _first(patterns: dict[str, re.Pattern[bytes]], head: bytes) -> str | None:
    return next((name for name, pattern in patterns.items() if pattern.match(head)), None)
