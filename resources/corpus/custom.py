"""Custom readers: finding the function that the configuration names, and checking what it yields.

What belongs here: where such a module is looked for, and errors that blame the reader. What does not: what becomes of
the record batches (``tables``).
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pyarrow as pa

from dsir_dagster.resources.corpus.errors import CorpusError
from dsir_dagster.resources.uris import local_path


def custom_batches(uri: str, reader: str, folder: Path | None) -> Iterator[pa.RecordBatch]:
    """Read a file with a custom reader.

    Parameters
    ----------
    uri : str
        As in the catalog; the reader gets the path behind it.
    reader : str
        ``package.module:function``.
    folder : Path or None
        Where the module is looked for first.

    Raises
    ------
    CorpusError
        The reader is not found, fails, or yields something else.
    """
    function = find_reader(uri, reader, folder)
    try:
        for batch in function(local_path(uri)):
            if not isinstance(batch, pa.RecordBatch):
                raise CorpusError(
                    f"{uri}: the reader '{reader}' yielded a {type(batch).__name__}; expected "
                    "pyarrow.RecordBatch (of a Table: table.to_batches())"
                )
            yield batch
    except CorpusError:
        raise
    except Exception as error:
        raise CorpusError(
            f"{uri}: the reader '{reader}' failed: {type(error).__name__}: {error}; repair the file or "
            "the reader"
        ) from error


def find_reader(uri: str, reader: str, folder: Path | None) -> Callable[[str], Iterable[pa.RecordBatch]]:
    """Return the function ``package.module:function`` of a module in ``folder``, else of an installed one.

    A module in the folder is imported as part of a package made for that folder, so that it hides no module of the same
    name, here or in another pipeline of this process. Its imports find installed modules before those beside it.
    """
    module, _, name = reader.partition(":")
    try:
        found = _beside(module, folder) if folder is not None else None
        return getattr(found or importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        where = f"in {folder}, beside the configuration, and then " if folder is not None else ""
        raise CorpusError(
            f"{uri}: the reader '{reader}' cannot be imported: {error}; modules are looked for {where}among the "
            "installed packages: put it there, install its package, or correct `reader: package.module:function`"
        ) from error


def _beside(module: str, folder: Path) -> ModuleType | None:
    """Import a module from a folder; None if the folder has no such module."""
    package = "beside_" + hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    if package not in sys.modules:
        made = ModuleType(package)
        made.__path__ = [str(folder)]
        sys.modules[package] = made
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    name = f"{package}.{module}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise
