"""A second copy of every output's lineage, one small JSON file each, in case the catalog is damaged or lost.

What belongs here: where these files are, writing, reading and removing them. What does not: the catalog, which answers
all questions (``resources/catalog.py``), the origin in a data file's metadata (``resources/store.py``).

=====================================================  ==================================================
``lineage/<asset>/<partition>.json``                   the newest materialization; ``~`` without partitions
``lineage/<asset>/<selection>/<fingerprint>.json``     every version of a selection or an evaluation
``lineage/inputs/<digest>.json``                       inputs that several of these share, by their digest
=====================================================  ==================================================
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path

from dsir_dagster.resources.graph import graph
from dsir_dagster.resources.lineage import InputList, Lineage, divided

#: Folder of the inputs that outputs share.
LISTS = "inputs"


class LineageFiles:
    """The lineage files of one home folder.

    Parameters
    ----------
    home : Path
        DSIR_HOME.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / "lineage"

    def path(self, asset: str, partition: str, fingerprint: str) -> Path:
        """Return where the lineage file of an output is, or will be."""
        if graph().keeps_versions(asset):
            return self.folder / asset / partition / f"{fingerprint}.json"
        return self.folder / asset / f"{partition or '~'}.json"

    def write(self, rows: Iterable[Lineage]) -> None:
        """Write rows of lineage, each to a file that appears whole or not at all.

        Only the process that holds the catalog's lock may write.

        Raises
        ------
        OSError
            A file could not be written.
        """
        for row in rows:
            _, shared = divided(row.inputs)
            if shared is not None and not (path := self._list(shared.digest)).exists():
                self._write(path, json.dumps(dict(shared), ensure_ascii=False))
            text = json.dumps(row.to_row(), default=datetime.isoformat, ensure_ascii=False)
            self._write(self.path(*row.key, row.fingerprint), text)

    def _write(self, path: Path, text: str) -> None:
        new = self.folder / ".writing"
        try:
            try:
                new.write_text(text, encoding="utf-8")
                os.replace(new, path)
            except FileNotFoundError:  # the folder, as a rule, is there
                path.parent.mkdir(parents=True, exist_ok=True)
                new.write_text(text, encoding="utf-8")
                os.replace(new, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink()
            raise OSError(error.errno, f"{error.strerror}; nothing was recorded", str(path)) from error

    def _list(self, digest: str) -> Path:
        return self.folder / LISTS / f"{digest}.json"

    def _listed(self, digest: str) -> dict[str, str]:
        inputs = json.loads(self._list(digest).read_text(encoding="utf-8"))
        if InputList(lambda: inputs).digest != digest:
            raise ValueError(f"{self._list(digest)}: is not what was written")
        return inputs

    def read(self) -> Iterator[Lineage]:
        """Yield the rows of all readable files, in order of their paths."""
        for path in sorted(self._paths()):
            try:
                row = Lineage.from_row(json.loads(path.read_text(encoding="utf-8")), self._listed)
                dict(row.inputs)  # reads those that it shares
                if self.path(*row.key, row.fingerprint) == path:
                    yield row
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # not a lineage file, or damaged: its output is computed again

    def exist(self) -> bool:
        """Return whether there is any lineage file, that is, whether anything was recorded in this home."""
        return any(self._paths())

    def _paths(self) -> Iterator[Path]:
        return (path for path in self.folder.glob("*/**/*.json") if path.parent.name != LISTS)

    def keep_lists(self, digests: Collection[str]) -> None:
        """Remove the inputs that no output shares any more: all but those with these digests."""
        for path in (self.folder / LISTS).glob("*.json"):
            if path.stem not in digests:
                path.unlink(missing_ok=True)

    def remove(self, asset: str, partition: str, fingerprint: str) -> None:
        """Remove an output's lineage file, unless it belongs to a later materialization."""
        path = self.path(asset, partition, fingerprint)
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text(encoding="utf-8")).get("fingerprint") == fingerprint:
                path.unlink()
