"""Compiled code where nothing can be written: every import works, and nobody else's code is loaded."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import dsir
from dsir import cache

REPOSITORY = Path(dsir.__file__).parents[1]

CODE = """
{first}
import dsir
from dsir.featurizer.sparse import *
from dsir.featurizer import sparse
from numba.core.dispatcher import Dispatcher
print({{f.stats.cache_path for f in vars(sparse).values() if isinstance(f, Dispatcher) and f.stats.cache_path}})
"""


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Let no folder be writable but those in the temporary one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    within = cache.writable
    monkeypatch.setattr(
        cache, "writable", lambda folder: str(folder).startswith(str(tmp_path)) and within(folder)
    )
    return tmp_path


def test_where_there_is_a_cache_nothing_is_changed(monkeypatch, tmp_path):
    import numba

    before = numba.config.CACHE_DIR
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    cache.ensure_cache()
    assert (os.environ["NUMBA_CACHE_DIR"], numba.config.CACHE_DIR) == (str(tmp_path), before)


def test_a_private_folder_where_there_is_none_the_same_each_time(nowhere, monkeypatch):
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", numba.config.CACHE_DIR)
    cache.ensure_cache()
    chosen = Path(numba.config.CACHE_DIR)
    assert chosen.parent == nowhere and chosen.stat().st_mode & 0o777 == 0o700
    cache.ensure_cache()
    assert numba.config.CACHE_DIR == str(chosen)


@pytest.mark.parametrize("planted", ["open to all", "a link"])
def test_a_folder_that_others_can_write_to_is_not_used(nowhere, monkeypatch, planted):
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", numba.config.CACHE_DIR)
    folder = nowhere / f"dsir-numba-{os.getuid()}"
    if planted == "a link":
        (nowhere / "theirs").mkdir(mode=0o700)
        folder.symlink_to(nowhere / "theirs")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    cache.ensure_cache()
    chosen = Path(numba.config.CACHE_DIR)
    assert chosen != folder and chosen.stat().st_mode & 0o777 == 0o700


def test_a_user_without_a_home_gets_no_folder_of_that_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert not cache.writable("~/.cache/numba")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a mount that is read-only")
@pytest.mark.parametrize("first", ["", "import numba"])
def test_import_from_a_read_only_installation(tmp_path, first):
    """As in a container: the files are read-only, the user has no home."""
    script = (
        f"mount --bind {REPOSITORY} {REPOSITORY} && mount -o remount,bind,ro {REPOSITORY} && exec " + '"$@"'
    )
    probe = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", "true"], capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip("this system lets no one mount")
    environment = {"PATH": os.environ["PATH"], "HOME": "/proc/none", "TMPDIR": str(tmp_path)}
    environment |= {"PYTHONPATH": str(REPOSITORY)}
    command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-c", CODE.format(first=first)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(tmp_path / "dsir-numba-") in done.stdout
