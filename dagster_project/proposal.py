"""From files to sources: which files are read alike, and which of their fields are the text, the id and the origin.

What belongs here: what ``dsir new`` proposes. What does not: the file that it writes (``dagster_project/new.py``),
reading files (``resources/corpus/``).
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from dsir_dagster.resources.borders import several
from dsir_dagster.resources.corpus import (
    BLANK_LINE,
    CorpusError,
    FileInfo,
    NoFiles,
    TextBatch,
    expand,
    first_records,
    no_usable_row,
    read_blocks,
)
from dsir_dagster.resources.corpus.errors import CODECS, FORMATS, file_format
from dsir_dagster.resources.corpus.fields import field_names, lookup, name_of
from dsir_dagster.resources.settings import ConfigError, RawSource

#: Names that fields of text, of ids and of origins usually have, the usual ones first.
TEXT = (
    "text",
    "content",
    "contents",
    "body",
    "raw_content",
    "document",
    "article",
    "passage",
    "markdown",
    "code",
)
ID = ("id", "doc_id", "docid", "document_id", "uuid", "guid", "key", "sha1", "hash", "url", "uri", "path")
SOURCE = (
    "pile_set_name",
    "source",
    "subset",
    "dataset",
    "domain",
    "collection",
    "corpus",
    "origin",
    "category",
    "year",
)
#: Fields that are one document together.
TOGETHER = (
    ("instruction", "input", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
)

#: Files of a source to look into, records of each.
FILES, RECORDS = 8, 50
#: More subfolders than this are one source rather than one each.
MOST_SOURCES = 12

#: Splits of a data set: what is fitted on, and what is held out, the usual one first.
FITTED, HELD_OUT = "train", ("test", "heldout", "holdout", "val", "dev")

#: A token, for lengths.
WORD = re.compile(r"\w+|[^\w\s]+")
_SUFFIX = re.compile(rf"({'|'.join(map(re.escape, FORMATS))})({'|'.join(map(re.escape, CODECS))})?$", re.I)
_SPLIT = re.compile(
    r"(?<![a-z])(train|test|heldout|held[-_]out|holdout|val|valid|validation|dev)(?![a-z])", re.I
)


@dataclass
class Found:
    """Files that are read alike, and what was seen in them.

    Attributes
    ----------
    name : str
        Of the source or the target.
    uri : str
        Path or pattern, relative to the configuration.
    files : list of FileInfo
    text : str or list of str
    id, source : str or None
    no_id : str
        Why a field with a better name is not the id; empty if there is none.
    others : list of str
        Fields that are not used.
    origins : list of str
        Values of ``source``.
    documents : list of (str, str, str)
        Id, origin and text of some.
    lengths : list of int
        Tokens of each sampled document.
    unusable : Counter of str
        Sampled records without a text, by the URI of their file.
    failed : list of str
        What is wrong with files of which nothing can be used.
    holdout : Found, optional
        Of a target: what is held out.
    unused : list of str
        Of a target: URIs of other files beside those two, such as a second split that is held out.
    """

    name: str
    uri: str
    files: Sequence[FileInfo]
    text: str | list[str] = "text"
    id: str | None = None
    source: str | None = None
    no_id: str = ""
    others: Sequence[str] = ()
    origins: Sequence[str] = ()
    documents: list[tuple[str, str, str]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    unusable: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    holdout: Found | None = None
    unused: list[str] = field(default_factory=list)


def find(
    path: str, base: Path, role: str, one: bool = False, leave_out: Iterable[str] = ()
) -> tuple[list[Found], list[str]]:
    """Find files, and divide them into sources: by subfolder and format.

    Parameters
    ----------
    path : str
        Folder, file or pattern.
    base : Path
        Folder of the configuration.
    role : str
        Name of a source that nothing else names.
    one : bool
        Whether there can be only one.
    leave_out : iterable of str
        URIs of files that belong elsewhere.

    Returns
    -------
    found : list of Found
    skipped : list of str
        URIs of files of no known format.

    Raises
    ------
    CorpusError
        There are no files, or none of a known format.
    """
    local = "://" not in path
    if local and not os.path.exists(path) and not glob.has_magic(path):
        raise ConfigError(f"{path}: there is no such file or folder")
    folder = path.rstrip("/") or "/"
    if local and not os.path.isdir(path):
        if os.path.exists(path):  # its name may look like a pattern
            path = glob.escape(path)
        files = expand(os.path.abspath(path) if local else path, named="the pattern")
        return [Found(_name_of_files(path, role), _relative(path, base), files)], []
    if not local:
        try:
            return [Found(_name_of_files(path, role), path, expand(path, named="the pattern"))], []
        except CorpusError:
            if glob.has_magic(path):
                raise
    inside = glob.escape(os.path.abspath(path)) if local else folder
    expected = f"expected one of {', '.join(FORMATS)}, also compressed ({', '.join(CODECS)})"
    try:
        every = expand(f"{inside}/**/*")
    except NoFiles:
        raise CorpusError(
            f"{path}: there are no files in this folder, hidden and temporary ones apart; {expected}"
        ) from None
    hidden = set(leave_out)
    root = os.path.abspath(path) if local else folder
    groups: dict[tuple[str, str], list[FileInfo]] = {}
    relatives: dict[str, str] = {}
    skipped = []
    for file in every:
        relative = relatives[file.uri] = file.uri.removeprefix(root).lstrip("/")
        known = _SUFFIX.search(relative)
        if known and file.uri not in hidden and _readable(file.uri):
            first = relative.split("/")[0] if "/" in relative else ""
            groups.setdefault((first, known[0]), []).append(file)
        elif file.uri not in hidden:
            skipped.append(file.uri)
    if not groups:
        raise CorpusError(
            f"{path}: none of its {several(len(every), 'file')} is of a known format; {expected}"
        )
    start = folder if not local else glob.escape(folder)
    if one:
        by_name = {relatives[file.uri]: file for files in groups.values() for file in files}
        if split := _split(by_name, start, base, _name(os.path.basename(os.path.abspath(folder)), role)):
            return [split], skipped
    if len(groups) > MOST_SOURCES or one:
        merged: dict[tuple[str, str], list[FileInfo]] = {}
        for (_, suffix), files in groups.items():
            merged.setdefault(("", suffix), []).extend(files)
        groups = merged
    if one and len(groups) > 1:
        there = ", ".join(f"*{suffix}" for _, suffix in groups)
        raise CorpusError(
            f"{path}: a target has one pattern, and there are {there} in this folder; name one of them"
        )
    found: list[Found] = []
    for (first, suffix), files in sorted(groups.items()):
        depth = max(relatives[file.uri].count("/") for file in files)
        below = f"/{glob.escape(first)}" if first else ""
        deep = "/**" if depth > (1 if first else 0) else ""
        pattern = f"{start}{below}{deep}/*{suffix}"
        matches = {
            relatives[uri] for uri in relatives if uri in hidden and _matches(relatives[uri], first, suffix)
        }
        name = _name(first or os.path.basename(os.path.abspath(folder)), role)
        kinds = {kind for start_of, kind in groups if start_of == first}
        name = _unique(name if len(kinds) == 1 else name + suffix.lower().replace(".", "-"), found)
        if matches and len(files) <= MOST_SOURCES:  # the target is among them: name the others
            for file in files:
                each = f"{start}/{glob.escape(relatives[file.uri])}"
                found.append(Found(_unique(_name_of_files(each, role), found), _relative(each, base), [file]))
        else:
            found.append(Found(name, _relative(pattern, base), files))
    return found, skipped


def _split(files: Mapping[str, FileInfo], start: str, base: Path, name: str) -> Found | None:
    """Return a target and its holdout if the names of its files say which is which, else None.

    Parameters
    ----------
    files : mapping of str to FileInfo
        By their path below the folder.
    start : str
        The folder, as it is written in a pattern.
    base : Path
        Folder of the configuration.
    name : str
        Of the target.
    """
    splits: dict[str, list[str]] = {}
    for relative in files:
        said = {each.lower() for each in _SPLIT.findall(_SUFFIX.sub("", relative))}
        if len(said) != 1:
            return None
        split = re.sub("^(valid|validation)$", "val", re.sub("[-_]", "", said.pop()))
        splits.setdefault(split, []).append(relative)
    held_out = next((each for each in HELD_OUT if each in splits), None)
    if held_out is None or FITTED not in splits:
        return None

    def found(split: str) -> Found | None:
        of_split = [files[relative] for relative in splits[split]]
        pattern = _pattern(start, splits[split], {file.uri for file in of_split})
        return Found(name, _relative(pattern, base), of_split) if pattern else None

    target, holdout = found(FITTED), found(held_out)
    if target and holdout:
        target.holdout = holdout
        others = (each for split in splits if split not in (FITTED, held_out) for each in splits[split])
        target.unused = [files[each].uri for each in others]
    return target if holdout else None


def _pattern(start: str, names: Sequence[str], uris: set[str]) -> str | None:
    """Return a path or a pattern that matches these files and no others; None if no simple one does."""
    if len(names) == 1:
        return f"{start}/{glob.escape(names[0])}"
    suffix = _SUFFIX.search(names[0])
    before = _beginning(names).rstrip("0123456789")
    after = _beginning([each[::-1] for each in names])[::-1]
    folder = before[: before.rfind("/") + 1]
    for pattern in (
        f"{glob.escape(before)}*{suffix and suffix[0]}",
        f"{glob.escape(folder)}**/*{suffix and suffix[0]}",
        f"*{glob.escape(after)}",
    ):
        path = f"{start}/{pattern}"
        try:
            matched = expand(path if "://" in path else os.path.abspath(path))
        except NoFiles:
            continue
        if {file.uri for file in matched} == uris:
            return path
    return None


def _beginning(names: Sequence[str]) -> str:
    """Return what all begin with."""
    same = takewhile(lambda characters: len(set(characters)) == 1, zip(*names, strict=False))
    return "".join(first for first, *_ in same)


def _matches(relative: str, first: str, suffix: str) -> bool:
    return relative.endswith(suffix) and (relative.split("/")[0] == first if first else "/" not in relative)


def _readable(uri: str) -> bool:
    try:
        return bool(file_format(uri))
    except CorpusError:
        return False


def _relative(path: str, base: Path) -> str:
    """Return a path as it is written in a configuration in this folder."""
    if "://" in path:
        return path
    relative = os.path.relpath(os.path.abspath(path), glob.escape(os.fspath(base)))
    return os.path.abspath(path) if relative.startswith("../../..") else relative


def _name_of_files(path: str, role: str) -> str:
    """Name what a path or a pattern stands for: by the file, else by the folder."""
    *folders, name = path.replace("\\", "/").rstrip("/").split("/")
    stem = _SUFFIX.sub("", name)
    says_little = re.fullmatch(r"(train|data|part|shard|documents?|all)?[-_.\d]*", stem, re.I)
    if (glob.has_magic(stem) or says_little) and folders:
        stem = folders[-1]
    return _name(stem, role)


def _name(text: str, role: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:100] or role


def _unique(name: str, found: Sequence[Found]) -> str:
    names = {each.name for each in found}
    return next(each for each in (name, *(f"{name}-{i}" for i in range(2, 10_000))) if each not in names)


# --- which fields ---------------------------------------------------------------------------------------------------


def look_at(found: Found, origins: bool = True) -> None:
    """Read the beginnings of some files, propose fields, and read documents by them.

    Parameters
    ----------
    found : Found
        Gets what is found.
    origins : bool
        Whether to look for a field of the origin.

    Raises
    ------
    CorpusError
        None of the files can be read, or there is no text in them.
    """
    chosen = _some(found.files)
    records: list[dict[str, Any]] = []
    good, errors = [], []
    for file in chosen:
        try:
            seen = first_records(file.uri, RawSource(name="pool", uri=file.uri), RECORDS)
        except CorpusError as error:
            errors.append(error)
            continue
        good.append(file)
        records += (each for each in seen if isinstance(each, dict))
    if not records:
        if errors:
            raise errors[0]
        raise CorpusError(
            f"{chosen[0].uri}: there are no records in it; expected objects with a field of text"
        )
    values = {name: [lookup(record, name) for record in records] for name in _fields(records)}
    text = _text_field(values)
    if not text:
        raise CorpusError(
            f"{chosen[0].uri}: none of its fields holds text; the records have: {', '.join(list(values)[:20])}"
        )
    found.text = text
    used = [text] if isinstance(text, str) else text
    found.id = _id_field({name: each for name, each in values.items() if name not in used})
    left = {name: each for name, each in values.items() if name not in (*used, found.id)}
    if origins and (source := _source_field(left)):
        counts = Counter(filter(None, map(name_of, left[source])))
        found.source, found.origins = source, [name for name, _ in counts.most_common(5)]
    found.no_id = _why_no_id(found.id, left)
    found.others = [name for name in left if name != found.source]
    found.failed += map(str, errors)
    _read(found, good)
    if not found.documents:
        raise CorpusError(found.failed[0] if found.failed else f"{chosen[0].uri}: there is no text in it")
    if holdout := found.holdout:
        holdout.text, holdout.id = found.text, found.id
        _read(holdout, _some(holdout.files))
        found.failed += holdout.failed


def _some(files: Sequence[FileInfo]) -> list[FileInfo]:
    """Return files to look into, evenly spread."""
    return [files[i] for i in np.unique(np.linspace(0, len(files) - 1, FILES).astype(int))]


def _read(found: Found, files: Iterable[FileInfo]) -> None:
    """Read documents from the beginning of files, by the proposed fields."""
    reader = RawSource(name="pool", uri=found.uri, text=found.text, id=found.id, source=found.source)
    for file in files:
        try:
            for block in islice(read_blocks(file.uri, reader, 1 << 17), 1):
                batch = block.parse()
                _add(found, batch)
                reasons = Counter(each.reason for each in batch.rejected if each.reason != BLANK_LINE)
                if reasons:
                    found.unusable[file.uri] += reasons.total()
                if not len(batch.texts):
                    error = no_usable_row(file.uri, reader, reasons, f"the beginning of {file.uri}")
                    found.failed += [str(error)] if error else []
        except CorpusError as error:
            found.failed.append(str(error))


def _add(found: Found, batch: TextBatch) -> None:
    """Add the documents of a block."""
    texts = batch.texts.slice(0, 10 * RECORDS).to_pylist()
    ids, origins = (
        [None] * len(texts) if column is None else column.to_pylist() for column in (batch.ids, batch.sources)
    )
    found.lengths += (len(WORD.findall(each)) for each in texts)
    found.documents += (
        (id_ or "", origin or "", each) for id_, origin, each in zip(ids, origins, texts, strict=False)
    )


def _fields(records: Iterable[dict[str, Any]]) -> list[str]:
    """Return the fields of records, those in a text that is JSON too."""
    names: dict[str, None] = {}
    for record in records:
        for name in field_names(record, 200):
            names.setdefault(name)
            value = lookup(record, name)
            if isinstance(value, str) and value[:1] == "{":
                try:
                    names.update(
                        dict.fromkeys(f"{name}.{below}" for below in field_names(json.loads(value), 50))
                    )
                except (ValueError, RecursionError):
                    pass
    return list(names)


def _text_field(values: Mapping[str, Sequence[Any]]) -> str | list[str] | None:
    """Return the field of the longest texts; fields with a usual name count for more."""
    lengths = {name: _length_of_texts(each) for name, each in values.items()}
    texts = {name: length for name, length in lengths.items() if length}
    if not texts:
        return None
    usual = {name: _rank(name, TEXT) for name in texts}
    best = max(texts, key=lambda name: texts[name] * (8 if usual[name] is not None else 1))
    for names in TOGETHER:
        there = [name for name in names if any(isinstance(each, str) for each in values.get(name, ()))]
        if names[0] in there and names[-1] in there and (usual[best] is None or best in names):
            return there
    return best


def _length_of_texts(values: Sequence[Any]) -> float:
    """Return the mean number of characters of values that read like text; 0 if they do not."""
    there = [value for value in values if value is not None]
    texts = ["\n".join(each) if _are_strings(each) else each for each in there]
    strings = [each for each in texts if isinstance(each, str)]
    if not strings or 2 * len(strings) < len(there):
        return 0.0
    spaced = sum(" " in each.strip() or not each.isascii() for each in strings)
    coded = sum(each.lstrip()[:1] in ("{", "[") and each.rstrip()[-1:] in ("}", "]") for each in strings)
    if 2 * spaced < len(strings) or 2 * coded > len(strings):
        return 0.0
    return sum(map(len, strings)) / len(values)


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _id_field(values: Mapping[str, Sequence[Any]]) -> str | None:
    """Return a field whose values name the records: no two are equal."""
    unique = []
    for name, each in values.items():
        names = [name_of(value) for value in each if not isinstance(value, bool)]
        there = [value for value in names if value is not None]
        if there and len(set(there)) == len(there) > len(each) / 2:
            unique.append(name)
    usual = [(rank, name) for name in unique if (rank := _rank(name, ID)) is not None]
    named = [name for name in unique if re.search(r"(^|[._-])id$|Id$|ID$", name)]
    return min(usual)[1] if usual else named[0] if named else None


def _why_no_id(id_: str | None, values: Mapping[str, Sequence[Any]]) -> str:
    """Say why the field with the most usual name of an id is not proposed, if another or none is."""
    ranks = {name: rank for name in values if (rank := _rank(name, ID)) is not None}
    name = min(ranks, key=lambda each: ranks[each], default=None)
    chosen = _rank(id_, ID) if id_ else None
    if name is None or (chosen is not None and chosen < ranks[name]):
        return ""
    there = [value for value in map(name_of, values[name]) if value is not None]
    if repeated := len(there) - len(set(there)):
        return f"`{name}` is not unique: {repeated:,} of {len(values[name]):,} sampled records repeat one"
    return (
        f"`{name}` is missing in {len(values[name]) - len(there):,} of {len(values[name]):,} sampled records"
    )


def _source_field(values: Mapping[str, Sequence[Any]]) -> str | None:
    """Return a field that names the origin: many records have the same."""
    usual = []
    for name, each in values.items():
        there = [value for value in map(name_of, each) if value is not None]
        rank = _rank(name, SOURCE)
        if rank is not None and 2 * len(there) > len(each) and len(set(there)) <= max(1, len(there) / 2):
            usual.append((rank, name))
    return min(usual)[1] if usual else None


def _rank(name: str, usual: Sequence[str]) -> int | None:
    """Return how usual a name is, by its last part: 0 is the most usual."""
    last = name.rpartition(".")[2].lower().strip("_")
    return usual.index(last) if last in usual else None
