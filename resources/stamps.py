"""Checksums of the files of outputs: XXH3, taken while they are written.

What belongs here: new files whose checksum is known when they are closed, and the checksum of a file that is there.
What does not: checksums of parts, which a reader compares (``resources/sealed.py``); the stamps of inputs, which are
SHA-256 (``resources/corpus/``).
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path, PosixPath

import pyarrow as pa
import xxhash

#: Begins a checksum, of 128 bits.
_XXH3 = "xxh3:"


class NewFile(PosixPath):
    """The path of a file in the making, whose checksum is known if :func:`open_new` opened it."""

    opened: StampedFile | None = None

    def checksum(self) -> tuple[int, str]:
        """Return size and checksum of the finished file; it is read if something else wrote it."""
        size = self.stat().st_size
        if self.opened is not None and self.opened.size == size:
            return size, self.opened.checksum
        with pa.OSFile(str(self)) as file:
            return size, checksum_of(file)


class StampedFile(io.RawIOBase):
    """A new local file that hashes what is written to it.

    Attributes
    ----------
    size : int
        Bytes written.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")
        self._digest = xxhash.xxh3_128()
        self._held: bytearray | None = None
        self.size = 0

    @property
    def checksum(self) -> str:
        """The checksum of what was written."""
        return _XXH3 + self._digest.hexdigest()

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def write(self, data) -> int:
        """Append bytes, whatever holds them."""
        view = memoryview(data)
        if self._held is not None:
            self._held += view
        else:
            self._digest.update(view)
            self._file.write(view)
            self.size += view.nbytes
        return view.nbytes

    def hold(self) -> None:
        """Keep back what is written from now on."""
        self._held = bytearray()

    def held(self) -> bytearray:
        """Return what was kept back, to be changed and written; nothing is kept back from now on."""
        held, self._held = self._held, None
        return held or bytearray()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def open_new(path: Path) -> StampedFile:
    """Open a file for writing; a :class:`NewFile` has its checksum afterwards."""
    file = StampedFile(path)
    if isinstance(path, NewFile):
        path.opened = file
    return file


def checksum_of(file: pa.NativeFile, recorded: str = _XXH3) -> str:
    """Return the checksum of a file's bytes, without holding them in memory.

    Parameters
    ----------
    file : pyarrow.NativeFile
    recorded : str
        A checksum that it is to be compared with; one without a name, of an earlier version, is SHA-256.
    """
    name = _XXH3 if recorded.startswith(_XXH3) else ""
    digest = xxhash.xxh3_128() if name else hashlib.sha256()
    while chunk := file.read_buffer(1 << 20):
        digest.update(chunk)
    return name + digest.hexdigest()
