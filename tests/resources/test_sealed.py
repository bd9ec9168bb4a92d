"""Files that are damaged: whoever reads them gets what was written or an error, never anything else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dsir.features import Features, FeatureSpec, featurize
from dsir_dagster.resources.sealed import DamagedFile
from dsir_dagster.resources.store import Origin, Store, file_kinds, table

ORIGIN = Origin("raw_counts[pool.a]", "0123456789abcdef", {"buckets": 1000})
SCHEMAS = {kind.name: kind.schema for kind in file_kinds().values() if kind.schema is not None}
KINDS = sorted(SCHEMAS)


def rows_of(kind: str, n: int) -> pa.Table:
    """Make rows of a kind with something in every column."""
    chance = np.random.default_rng(n)
    columns = {}
    for field in SCHEMAS[kind]:
        if pa.types.is_string(field.type) or pa.types.is_dictionary(field.type):
            columns[field.name] = pa.array([f"{field.name} {i}" for i in chance.integers(0, 9, n)])
        elif pa.types.is_floating(field.type):
            columns[field.name] = chance.normal(size=n)
        elif pa.types.is_unsigned_integer(field.type):
            columns[field.name] = chance.integers(0, 2**63, n).astype(np.uint64)
        else:
            columns[field.name] = np.sort(chance.integers(0, 5 * n, n))
    return table(kind, columns)


def texts(n: int) -> pa.Array:
    words = "one two three four five six seven".split()
    chance = random.Random(n)
    repeated = ["word " * 300]  # a count above 255
    return pa.array([" ".join(chance.choices(words, k=chance.randrange(40))) for _ in range(n)] + repeated)


def write(store: Store, kind: str, scale: int = 1) -> Path:
    name = store.name(kind, "pool.a")
    if kind == "features":
        batches = [featurize(texts(n), FeatureSpec(buckets=1000)).to_arrow() for n in (9 * scale, 5 * scale)]
        with store.features_writer(name, batches[0].schema, ORIGIN) as writer:
            for batch in batches:
                writer.write_batch(batch)
    else:
        with store.table_writer(name, kind, ORIGIN) as writer:
            for n in (30 * scale, 20 * scale):
                writer.write_table(rows_of(kind, n), row_group_size=n)
    return store.home / name


def read(store: Store, kind: str, path: Path) -> list:
    """Read all of a file as the assets do: a row group and column after the other, a batch after the other."""
    if kind == "features":
        found = map(Features.from_arrow, store.read_features(str(path.relative_to(store.home)), ORIGIN))
        return [
            [
                array.tobytes()
                for array in (each.offsets, each.buckets, each.counts, each.n_tokens, each.content_hash)
            ]
            for each in found
        ]
    with store.open_table(str(path.relative_to(store.home)), ORIGIN) as file:
        return [
            file.read_row_group(group, columns=[name])[name].to_pylist()
            for group in range(file.num_row_groups)
            for name in SCHEMAS[kind].names
        ]


def flips(content: bytes, chance: random.Random, n: int) -> Iterator[bytes]:
    """Flip one bit, so many times; all of them where there are fewer."""
    every = range(8 * len(content))
    for at in chance.sample(every, min(n, len(every))):
        damaged = bytearray(content)
        damaged[at // 8] ^= 1 << at % 8
        yield bytes(damaged)


def larger_damage(content: bytes, chance: random.Random, n: int) -> Iterator[bytes]:
    """Cut the end off, put zeros or other bytes of the file in the place of some, add some, swap two stretches."""
    for _ in range(n):
        length = min(chance.choice([1, 8, 64, 512, 4096]), len(content) // 3)
        first, second = sorted(chance.randrange(len(content) - length + 1) for _ in range(2))
        second = max(second, min(first + length, len(content) - length))
        one, other = content[first : first + length], content[second : second + length]
        yield content[:first]
        yield content[:first] + bytes(length) + content[first + length :]
        yield content[:first] + other + content[first + length :]
        yield content[:first] + other + content[first:]
        yield content[:first] + other + content[first + length : second] + one + content[second + length :]


def check(store: Store, kind: str, path: Path, content: bytes, damages: Iterator[bytes]) -> int:
    """Assert that every damage is refused, naming the file, or makes no difference; return how many were refused."""
    path.write_bytes(content)
    written = read(store, kind, path)
    refused = 0
    for damaged in damages:
        path.write_bytes(damaged)
        try:
            found = read(store, kind, path)
        except DamagedFile as error:
            assert str(error).startswith(f"{path}: the file is damaged (") and "`dsir verify`" in str(error)
            refused += 1
        else:
            assert found == written
    return refused


@pytest.mark.parametrize("kind", [*KINDS, "features"])
def test_a_damaged_file_is_refused_or_read_as_it_was_written(tmp_path, kind):
    store = Store(tmp_path).prepare()
    path = write(store, kind)
    content, chance = path.read_bytes(), random.Random(kind)
    assert check(store, kind, path, content, flips(content, chance, 200)) > 120
    assert check(store, kind, path, content, larger_damage(content, chance, 20)) > 50


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "features"])
def test_most_flipped_bits_are_refused_and_the_others_make_no_difference(tmp_path, kind):
    store = Store(tmp_path).prepare()
    path = write(store, kind)
    content = path.read_bytes()
    assert check(store, kind, path, content, flips(content, random.Random(kind), 8000)) > 6000
    large = Store(tmp_path / "large").prepare()
    path = write(large, kind, scale=100)  # several pages a column, several sums a batch
    content, chance = path.read_bytes(), random.Random(kind)
    assert check(large, kind, path, content, flips(content, chance, 200)) > 150
    assert check(large, kind, path, content, larger_damage(content, chance, 20)) > 80
