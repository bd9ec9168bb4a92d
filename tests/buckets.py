"""An object store for tests that need no server: Arrow's file system over a folder."""

from pathlib import Path

import pyarrow.fs as pafs
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem


def bucket_in(folder: Path) -> pafs.FileSystem:
    """Return a file system whose buckets are folders below a folder; as in a store, no folder need be made first."""
    return pafs.PyFileSystem(
        pafs.FSSpecHandler(DirFileSystem(path=str(folder), fs=LocalFileSystem(auto_mkdir=True)))
    )
