"""A disk that is full: the run says so, nothing is half there, and with more room the next run goes on.

What belongs here: a real file system that fills up under a real ``dsir run``. What does not: a single file on
/dev/full (``tests/resources/test_store.py``).
"""

import hashlib
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

from resources.store import SCHEMAS
from tests.assets.test_kill import outputs
from tests.pipeline import DOMAINS, SmallPipeline, sentences

pytestmark = pytest.mark.slow


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
    done = disk.run(sys.executable, "-m", "dagster_project.cli", *arguments, DAGSTER_HOME=str(dagster_home))
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """The outputs of a run that had all the room it wanted."""
    small = pipeline_of_short_documents(tmp_path_factory.mktemp("calm"))
    assert small.errors() == []
    return {name: content for name, content in outputs(small.home).items() if name != "run.lock"}


def is_intact(home: Path, scratch: Path) -> bool:
    """Whether nothing is half there: each file that the lineage names is what it says, or a whole newer one."""
    if [*home.glob("*/.tmp/*")]:
        return False
    scratch.mkdir()
    # DuckDB follows the link that leads to the disk from here, and stands before a closed door.
    copies = [shutil.copy(file, scratch) for file in home.glob("catalog.duckdb*")]
    if not copies:
        return True
    with duckdb.connect(scratch / "catalog.duckdb", read_only=True) as catalog:
        rows = catalog.execute("SELECT fingerprint, files FROM latest").fetchall()
    return all(
        hashlib.sha256((home / name).read_bytes()).hexdigest() == checksum
        or stamp_of(home / name) != fingerprint
        for fingerprint, files in rows
        for name, checksum in files.items()
    )


def stamp_of(path: Path) -> str:
    """Read a file to its end; return the fingerprint that it carries."""
    if path.suffix == ".parquet":
        read = pq.read_table(path)
    else:
        read = pa.ipc.open_file(path.read_bytes()).read_all()
    return json.loads(read.schema.metadata[b"dsir"])["fingerprint"]


def run_until_it_fits(
    tmp_path: Path, disk: SmallDisk, small: SmallPipeline, dagster_home: Path, step: int
) -> list[str]:
    """Run on a disk that each time is by a step larger; return what the runs said that failed."""
    home = disk.folder / "home"
    failed: list[str] = []
    while len(failed) < 20:
        disk.resize(step * (len(failed) + 1))
        code, said = dsir_run(disk, small, home, dagster_home)
        assert is_intact(disk.seen_from_here / "home", tmp_path / f"catalog-{len(failed)}")
        if code == 0:
            return failed
        assert code == 1
        failed.append(said)
    raise AssertionError(failed[-1])


@pytest.mark.parametrize(
    ("what", "step"),
    [("features", 400_000), ("weights", 60_000), ("selections", 100_000), ("catalog", 200_000)],
)
def test_a_run_fails_with_the_name_of_the_file_and_the_next_one_with_room_completes(
    tmp_path, disk, undisturbed, what, step
):
    small = pipeline_of_short_documents(tmp_path)
    # All else is on another disk.
    kinds = {*SCHEMAS, "features", "catalog"} - {what}
    roomy = tmp_path / "roomy"
    for kind in kinds - {"catalog"}:
        (roomy / kind).mkdir(parents=True)
    home = disk.folder / "home"
    made = disk.run("sh", "-c", 'mkdir "$0" && ln -s "$@" "$0"', str(home), *map(str, roomy.iterdir()))
    assert made.returncode == 0, made.stderr
    failed = run_until_it_fits(tmp_path, disk, small, tmp_path / "dagster", step)
    names_it = re.compile(
        f"No space left on device; nothing was [a-z]+: make room and start again: '{home}/{what}"
    )
    assert failed and all(names_it.search(said) for said in failed)
    after = outputs(roomy) | outputs(disk.seen_from_here / "home")
    assert {name: after.get(name) for name in undisturbed} == undisturbed


def test_a_disk_that_is_full_of_dagsters_records_too(tmp_path, disk, undisturbed):
    small = pipeline_of_short_documents(tmp_path)
    # Each attempt leaves records of its runs.
    failed = run_until_it_fits(tmp_path, disk, small, disk.folder / "home" / "dagster", 1_200_000)
    says_so = re.compile("No space left on device|database or disk is full|disk I/O error")
    assert failed and all(says_so.search(said) for said in failed)
    after = outputs(disk.seen_from_here / "home")
    assert {name: after.get(name) for name in undisturbed} == undisturbed
