"""A disk that is full: the run says so, nothing is half there, and with more room the next run goes on.

What belongs here: a real file system that fills up under a real ``dsir run``. What does not: a single file on
/dev/full (``tests/resources/test_store.py``).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from dsir_dagster.resources.store import file_kinds
from tests.assets.test_kill import outputs
from tests.pipeline import DOMAINS, SmallPipeline, sentences

pytestmark = pytest.mark.slow

SCHEMAS = {kind.name: kind.schema for kind in file_kinds().values() if kind.schema is not None}


KINDS = (*SCHEMAS, "features")


class SmallDisk:
    """A file system in memory that has as much room as a test wants, seen only by commands that run on it.

    Parameters
    ----------
    mounted_on : Path
        The folder where those commands see it.
    """

    def __init__(self, mounted_on: Path) -> None:
        mounted_on.mkdir()
        self.folder = mounted_on
        mount = 'mount -t tmpfs tmpfs "$0" && echo mounted && exec sleep 100000'
        try:
            self._process = subprocess.Popen(
                ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(mounted_on)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except FileNotFoundError:
            pytest.skip("there is no `unshare` here to mount a small disk with")
        if self._process.stdout.readline() != "mounted\n":
            pytest.skip(f"no small disk can be mounted here: {self._process.stderr.read()}")
        self.seen_from_here = Path(f"/proc/{self._process.pid}/root{mounted_on}")

    def unmount(self) -> None:
        """Remove it with all that is on it."""
        self._process.kill()
        self._process.communicate()

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess:
        """Run a command that sees the disk."""
        enter = ["nsenter", "--target", str(self._process.pid), "--user", "--mount", "--preserve-credentials"]
        return subprocess.run(
            [*enter, f"--wd={Path.cwd()}", *command],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )

    def see(self, path: Path) -> Path:
        """Return where a path of those commands is for this process."""
        path = path.resolve()
        return (
            self.seen_from_here / path.relative_to(self.folder) if path.is_relative_to(self.folder) else path
        )

    def resize(self, n_bytes: int) -> None:
        """Give the disk another size."""
        option = f"remount,size={n_bytes}"
        done = self.run("mount", "-o", option, "-t", "tmpfs", "tmpfs", str(self.folder))
        assert done.returncode == 0, done.stderr


@pytest.fixture
def disk(tmp_path):
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    disk.unmount()


def pipeline_of_short_documents(folder: Path) -> SmallPipeline:
    """Write a pool whose features, weights and selected records take about as much room each."""
    small = SmallPipeline(folder)
    for i in range(2):
        for seed, domain in enumerate(DOMAINS):
            small.write(f"pool/{domain}-{i}.jsonl", sentences(domain, 800, seed=10 * seed + i, length=20))
    small.write("law.jsonl", sentences("law", 30, seed=102, length=20))
    small.config["targets"] += [{"name": f"law-{i}", "uri": "data/law.jsonl"} for i in range(5)]
    [selection] = small.config["selections"]
    selection |= {"targets": ["medicine", "law-0"], "size": {"fraction": 0.2}, "min_tokens": 10}
    return small


def dsir_run(disk: SmallDisk, small: SmallPipeline, home: Path, dagster_home: Path) -> tuple[int, str]:
    """Run it; return its exit code and all that it said."""
    arguments = ["run", "--config", str(small.config_path), "--home", str(home)]
    done = disk.run(sys.executable, "-m", "dsir_dagster", *arguments, DAGSTER_HOME=str(dagster_home))
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """The outputs of a run that had all the room it wanted."""
    small = pipeline_of_short_documents(tmp_path_factory.mktemp("calm"))
    assert small.errors() == []
    return {name: content for name, content in outputs(small.home).items() if name != "run.lock"}


def is_intact(disk: SmallDisk, home: Path, scratch: Path) -> bool:
    """Whether nothing is half there: each file that the lineage names is what it says, or a whole newer one."""
    if any([*disk.see(home / kind).glob(".tmp/new/*")] for kind in KINDS):
        return False
    scratch.mkdir()
    # DuckDB follows the link that leads to the disk from here, and stands before a closed door.
    copies = [shutil.copy(file, scratch) for file in disk.see(home).glob("catalog.duckdb*")]
    if not copies:
        return True
    with duckdb.connect(scratch / "catalog.duckdb", read_only=True) as catalog:
        if not catalog.execute("FROM duckdb_views() WHERE view_name = 'latest'").fetchall():
            return True
        rows = catalog.execute("SELECT fingerprint, files FROM latest").fetchall()
    files = [
        (disk.see(home / name), checksum, made) for made, names in rows for name, checksum in names.items()
    ]
    return all(
        f"xxh3:{xxhash.xxh3_128_hexdigest(path.read_bytes())}" == checksum or stamp_of(path) != made
        for path, checksum, made in files
    )


def stamp_of(path: Path) -> str:
    """Read a file to its end; return the fingerprint that it carries."""
    if path.suffix == ".parquet":
        read = pq.read_table(path)
    else:
        read = pa.ipc.open_file(path.read_bytes()).read_all()
    return json.loads(read.schema.metadata[b"dsir"])["fingerprint"]


def run_until_it_fits(
    tmp_path: Path, disk: SmallDisk, small: SmallPipeline, home: Path, dagster_home: Path, step: int
) -> list[str]:
    """Run on a disk that each time is by a step larger; return what the runs said that failed."""
    failed: list[str] = []
    while len(failed) < 20:
        disk.resize(step * (len(failed) + 1))
        code, said = dsir_run(disk, small, home, dagster_home)
        assert is_intact(disk, home, tmp_path / f"catalog-{len(failed)}"), said
        if code == 0:
            return failed
        assert code == 1
        failed.append(said)
    raise AssertionError(failed[-1])


def all_name(failed: list[str], path: Path) -> None:
    """Check that runs failed, and each says that there is no room for this path, and what to do."""
    message = (
        f"{re.escape(str(path))}[^ ]*: .*No space left on device; nothing was .*: make room and start again"
    )
    assert failed
    for said in failed:
        assert re.search(message, said), said


@pytest.mark.parametrize(
    ("kind", "step"), [("features", 300_000), ("weights", 150_000), ("selections", 300_000)]
)
def test_a_run_fails_for_want_of_room_for_an_output_and_the_next_one_with_room_completes(
    tmp_path, disk, undisturbed, kind, step
):
    small = pipeline_of_short_documents(tmp_path)
    small.home.mkdir()
    (small.home / kind).symlink_to(disk.folder)
    failed = run_until_it_fits(tmp_path, disk, small, small.home, tmp_path / "dagster", step)
    all_name(failed, small.home / kind)
    assert {name: disk.see(small.home / name).read_bytes() for name in undisturbed} == undisturbed


def test_a_run_fails_for_want_of_room_for_the_catalog_and_the_next_one_with_room_completes(
    tmp_path, disk, undisturbed
):
    small, home = pipeline_of_short_documents(tmp_path), disk.folder / "home"
    for kind in KINDS:
        (tmp_path / "roomy" / kind).mkdir(parents=True)
    roomy = map(str, (tmp_path / "roomy").iterdir())
    assert disk.run("sh", "-c", 'mkdir "$0" && ln -s "$@" "$0"', str(home), *roomy).returncode == 0
    failed = run_until_it_fits(tmp_path, disk, small, home, tmp_path / "dagster", 200_000)
    all_name(failed, home)  # for the catalog, or for the lineage files that are written before it
    assert {name: disk.see(home / name).read_bytes() for name in undisturbed} == undisturbed


def test_a_run_fails_for_want_of_room_for_dagsters_records_and_the_next_one_with_room_completes(
    tmp_path, disk, undisturbed
):
    small, home = pipeline_of_short_documents(tmp_path), disk.folder / "home"
    # Each attempt leaves records of its runs.
    failed = run_until_it_fits(tmp_path, disk, small, home, home / "dagster", 1_200_000)
    says_so = re.compile("No space left on device|database or disk is full|disk I/O error")
    assert failed and all(says_so.search(said) for said in failed)
    assert {name: disk.see(home / name).read_bytes() for name in undisturbed} == undisturbed
