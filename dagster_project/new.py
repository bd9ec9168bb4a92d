"""``dsir new``: a commented configuration from a folder of files.

What belongs here: the file that is written, and what is said of it. What does not: which files make a source, and which
fields are proposed (``dagster_project/proposal.py``); the rules of the configuration (``resources/settings/``).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from dsir_dagster.as_json import as_json
from dsir_dagster.configured import CONVENTIONAL
from dsir_dagster.proposal import WORD, Found, find, look_at
from dsir_dagster.resources.borders import several, visible
from dsir_dagster.resources.corpus import CorpusError
from dsir_dagster.resources.settings import ConfigError, Selection, load_settings
from dsir_dagster.resources.settings.pool import FILL_IN
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.schema import TITLE, configuration_schema
from dsir_dagster.terminal import Terminal, Text, as_typed, grid, lines

#: Documents to show.
SHOWN = 5
#: Above this many files, small ones are read in groups.
MANY_FILES, SMALL_FILE, GROUP = 1_000, 1 << 22, "256 MB"

#: Files to name: of those that are left out, and of those with records that cannot be used.
MOST_LINES, MOST_NAMES = 10, 5

SCHEMA_FILE = "dsir.schema.json"


def write_new(pool: str, target: str | None, output: Path, out: Terminal, err: Terminal) -> int:
    """Look at files, write a configuration, and say what was found.

    Parameters
    ----------
    pool : str
        Folder, file or pattern.
    target : str, optional
        Likewise.
    output : Path
        The file to write, and beside it the schema.
    out, err : Terminal

    Raises
    ------
    ConfigError
        The file exists.
    CorpusError
        There are no files, or they cannot be read.
    """
    if output.exists():
        raise ConfigError(f"{output}: this file exists and stays as it is; name another with -o")
    base = output.resolve().parent
    if not base.is_dir():
        raise ConfigError(f"{base}: there is no such folder; make it, or name another file with -o")
    targets, skipped = find(target, base, "target", one=True) if target else ([], [])
    of_target = {file.uri for each in targets for file in each.files}
    of_target |= {file.uri for each in targets if each.holdout for file in each.holdout.files}
    of_target |= {uri for each in targets for uri in each.unused}
    sources, skipped_in_pool = find(pool, base, "pool", leave_out=of_target)
    sources, left_out = readable(sources)
    for each in targets:
        look_at(each, origins=False)
    unknown = dict.fromkeys((*skipped_in_pool, *skipped))
    left_out += (f"{uri}: of no known format" for uri in unknown)
    _write_schema(base / SCHEMA_FILE)
    with output.open("x", encoding="utf-8") as file:
        file.write(configuration(sources, targets[0] if targets else None))
    if targets:
        load_settings(output)  # what is written can be read
    for each in (*sources, *targets):
        _print_found(each, out)
    _print_each("left out", left_out, err)
    failed = [why for each in (*sources, *targets) for why in each.failed]
    _print_each("not usable", failed, err)
    _print_documents([*sources, *targets], out)
    shown = os.fspath(output)
    out.print(Text(f"wrote {shown}, and {SCHEMA_FILE} beside it, by which editors complete it", "green"))
    if not targets:
        text = f"fill in the target: `uri: {FILL_IN}` in {shown} stands for what you want more of"
        err.print(Text(text, "yellow"))
    option = "" if output == Path(CONVENTIONAL) else f" --config {shlex.quote(shown)}"
    for command, does in (("doctor", "looks for likely trouble"), ("run", "picks")):
        out.print(f"  {as_typed.program} {command + option:<{len(option) + 6}}  # {does}", soft_wrap=True)
    return 0


def readable(sources: list[Found]) -> tuple[list[Found], list[str]]:
    """Look at sources; return those with a file that can be read, and why others are left out.

    Raises
    ------
    CorpusError
        None can be read.
    """
    good, errors = [], []
    for each in sources:
        try:
            look_at(each)
            good.append(each)
        except CorpusError as error:
            errors.append(error)
    if not good:
        raise errors[0]
    return good, [str(error) for error in errors]


# --- what is written ------------------------------------------------------------------------------------------------


def configuration(sources: Sequence[Found], target: Found | None) -> str:
    """Return the text of a configuration."""
    n_files = sum(len(each.files) for each in sources)
    n_bytes = sum(file.size for each in sources for file in each.files)
    lengths = [length for each in sources for length in each.lengths]
    min_tokens, says = _min_tokens(lengths)
    name = target.name if target else "target"
    parts = [
        f"# yaml-language-server: $schema={SCHEMA_FILE}",
        "# One pipeline: the pool, the targets, and what to pick. `dsir new` wrote it; everything may be changed.",
        "# Relative paths are relative to the folder of this file. docs/configuration.md describes every key.",
        "",
        f"# The raw pool: {several(n_files, 'file')}, {n_bytes / 1e6:,.1f} MB. Each file is counted once, and again",
        "# only when it changes; a new one that matches the uri belongs to the pool from the next run on.",
        "raw:",
    ]
    for each in sources:
        parts += _entry(each, is_source=True)
    parts += [
        "",
        "# What you want more of: a few hundred documents or more.",
        "targets:",
    ]
    if target:
        parts += _entry(target, is_source=False)
    else:
        parts += [
            f"  - name: {name}",
            f"    uri: {FILL_IN}  # <<< FILL THIS IN: a file, or a pattern, of documents that you want more of",
            "    text: text",
        ]
    if not target or not target.holdout:
        parts += [
            "    # Documents of the same kind that are never fitted on. Without them, selections are measured against",
            "    # the target itself.",
            "    # holdout: PATH",
        ]
    parts += [
        "",
        "# What to pick. `method: match` looks at documents as a set, and often comes closer to the target.",
        "selections:",
        f"  - name: {_scalar(name)}",
        f"    targets: [{_scalar(name)}]",
        "    method: resample",
        "    size: {fraction: 0.1}  # of the documents that are long enough; or documents: 10000, or tokens: 1000000",
        f"    min_tokens: {min_tokens}  # {says}",
        "    seed: 0",
    ]
    return "\n".join(parts) + "\n"


def _entry(found: Found, is_source: bool) -> list[str]:
    """Return the lines of a source or a target."""
    text = _scalar(found.text) if isinstance(found.text, str) else f"[{', '.join(map(_scalar, found.text))}]"
    entry = [f"  - name: {_scalar(found.name)}", f"    uri: {_scalar(found.uri)}"]
    if found.holdout:
        entry.append(
            f"    holdout: {_scalar(found.holdout.uri)}  # never fitted on: selections are measured by it"
        )
    if found.unused:
        entry.append(f"    # not used: {_some_of([visible(_shown(each)) for each in found.unused])}")
    if found.lengths:
        typical = int(np.median(found.lengths))
        text += f"  # {typical:,} tokens in a typical document"
    entry.append(f"    text: {text}")
    if found.id:
        entry.append(f"    id: {_scalar(found.id)}")
    else:
        entry.append("    # id: FIELD  # without one, a document's id is its shard and row")
    if found.no_id:
        entry.append(f"    # {visible(found.no_id)}")
    if is_source and found.source:
        origins = ", ".join(_cut(visible(each), 30) for each in found.origins[:3])
        entry.append(f"    source: {_scalar(found.source)}  # such as {origins}")
    if found.others:
        names = ", ".join(visible(each) for each in found.others[:12])
        entry.append(f"    # other fields: {names}{', …' if len(found.others) > 12 else ''}")
    small = sum(file.size for file in found.files) < SMALL_FILE * len(found.files)
    if is_source and len(found.files) > MANY_FILES and small:
        entry.append(f"    group: {{bytes: {GROUP}}}  # many small files: read as shards of this size")
    return entry


def _min_tokens(lengths: Sequence[int]) -> tuple[int, str]:
    """Propose the shortest document to pick: the default, unless that would leave out more than a tenth."""
    default = Selection.model_fields["min_tokens"].default
    tenth = int(np.quantile(lengths, 0.1)) if lengths else default
    if tenth >= default:
        return default, "documents with fewer are not picked"
    proposed = tenth // 10 * 10 or tenth
    return (
        proposed,
        f"the default, {default}, would leave out {np.mean(np.array(lengths) < default):.0%} of the documents",
    )


def _scalar(text: str) -> str:
    """Write a string as YAML reads it."""
    if re.fullmatch(r"[A-Za-z_][\w./-]*", text) and yaml.safe_load(text) == text:
        return text
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10_000).strip()


def _write_schema(path: Path) -> None:
    """Write the schema; an older one of ours is replaced, another file stays."""
    if path.exists() and f'"title": "{TITLE}"' not in path.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(
            f"{path}: this is no schema of a configuration; move it away, or name another folder with -o"
        )
    path.write_text(as_json(configuration_schema()) + "\n", encoding="utf-8")


# --- what is said ---------------------------------------------------------------------------------------------------


def _print_found(found: Found, console: Terminal) -> None:
    n_bytes = sum(file.size for file in found.files)
    fields = f"text: {found.text if isinstance(found.text, str) else ' + '.join(found.text)}"
    fields += f", id: {found.id}" if found.id else ", no id"
    fields += f", source: {found.source}" if found.source else ""
    files = f"  {found.uri}  {several(len(found.files), 'file')}, {n_bytes / 1e6:,.1f} MB"
    console.print(Text.assemble((visible(found.name), "bold"), visible(files)), soft_wrap=True)
    console.print(Text(f"  {fields}"), soft_wrap=True)
    if found.holdout:
        n_bytes = sum(file.size for file in found.holdout.files)
        held_out = f"{several(len(found.holdout.files), 'file')}, {n_bytes / 1e6:,.1f} MB"
        unused = f"; not used: {_some_of(list(map(_shown, found.unused)))}" if found.unused else ""
        console.print(Text(f"  holdout: {found.holdout.uri}  {held_out}{unused}"), soft_wrap=True)
    for each in (found, found.holdout):
        if each and (unusable := each.unusable.total()):
            where = [f"{_shown(uri)} ({n:,})" for uri, n in each.unusable.most_common()]
            sampled = f"{unusable:,} of {unusable + len(each.lengths):,} sampled records"
            text = f"  {sampled} have no usable text: {_some_of(where)}"
            console.print(Text(text, "yellow"), soft_wrap=True)


def _print_each(what: str, why: Sequence[str], console: Terminal) -> None:
    """Print a line for each file, and how many more there are."""
    for each in why[:MOST_LINES]:
        console.print(lines(f"{what}: {each}", "yellow"))
    if len(why) > MOST_LINES:
        console.print(Text(f"{what}: and {len(why) - MOST_LINES:,} more", "yellow"))


def _some_of(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _shown(uri: str) -> str:
    """Return a file's path as it is typed in this folder."""
    if "://" in uri:
        return uri
    relative = os.path.relpath(uri)
    return uri if relative.startswith("..") else relative


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _print_documents(every: Sequence[Found], console: Terminal) -> None:
    """Show documents of the pool, evenly spread."""
    documents = [(each.name, *document) for each in every for document in each.documents]
    chosen = [documents[i] for i in np.unique(np.linspace(0, len(documents) - 1, SHOWN).astype(int))]

    def cut(text: str) -> Text:
        return Text(" ".join(text[:1000].split()), no_wrap=True, overflow="ellipsis")

    rows = [
        (name, cut(_cut(id_, 24)), cut(_cut(origin, 16)), len(WORD.findall(text)), cut(text))
        for name, id_, origin, text in chosen
    ]
    columns = [Column("from"), Column("id"), Column("source"), Column("tokens", "whole"), Column("text")]
    used = [i for i in range(5) if i > 2 or any(str(row[i]) for row in rows)]
    console.print()
    console.print(grid(Table([columns[i] for i in used], [[row[i] for i in used] for row in rows])))
    console.print()
