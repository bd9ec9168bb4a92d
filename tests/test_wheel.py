"""The installed wheel: two names to import, everything inside, at ease beside other packages and folders."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.pipeline import sentences

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from what git has, so that no leftover of an earlier build is in it."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", source], input=archive.stdout, check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, source]
    subprocess.run(command, check=True)
    [found] = folder.glob("*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_has_two_names_and_all_that_is_read_at_run_time(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in names} == {"dsir", "dsir_dagster"}
    there = {path.name for path in (REPOSITORY / "sql").glob("*.sql")}
    assert {Path(name).name for name in names if name.startswith("dsir_dagster/sql/")} == {
        *there,
        "__init__.py",
    }
    assert {"dsir_dagster/assets/report/report.html"} <= set(names)


@pytest.mark.slow
def test_the_installed_wheel_runs_beside_packages_and_folders_of_the_same_names(wheel, tmp_path):
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*install, wheel, "jupysql", "-c", REPOSITORY / "constraints.txt"], check=True)
    for name in ("assets", "resources", "sql", "dagster_project"):
        folder = tmp_path / "theirs" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("raise RuntimeError('this is another project')")

    elsewhere = tmp_path / "elsewhere" / "demo"
    elsewhere.mkdir(parents=True)
    text = (REPOSITORY / "demo" / "dsir.yaml").read_text()
    config = elsewhere / "my.yaml"
    config.write_text(text)
    settings = yaml.safe_load(text)
    uris = [source["uri"] for source in settings["raw"]]
    uris += [target[part] for target in settings["targets"] for part in ("uri", "holdout")]
    for seed, uri in enumerate(uris):
        domain = "medicine" if "medicine" in uri else "law"
        write(elsewhere / uri.replace("*", "0"), sentences(domain, 60, seed=seed))

    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DSIR", "DAGSTER"))}
    environment["PYTHONPATH"] = str(tmp_path / "theirs")
    command = [python.with_name("dsir"), "run", "--config", config, "--home", tmp_path / "home"]
    done = subprocess.run(command, cwd=tmp_path / "theirs", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "home" / "selections" / "medicine").iterdir())) == 1

    command = [
        python.with_name("dsir"),
        "ui",
        "--config",
        config,
        "--home",
        tmp_path / "home",
        "--port",
        "3987",
    ]
    with (tmp_path / "ui.log").open("w") as log:
        ui = subprocess.Popen(
            command, cwd=tmp_path / "theirs", env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            assert loaded("http://127.0.0.1:3987/graphql") == {"dsir": "RepositoryLocation"}
        finally:
            os.killpg(ui.pid, signal.SIGTERM)
            ui.wait(60)


def loaded(url: str) -> dict[str, str]:
    """Return the code locations that a UI serves, and what became of each, once they are loaded."""
    asked = "{workspaceOrError{...on Workspace{locationEntries{name loadStatus locationOrLoadError{__typename}}}}}"
    request = urllib.request.Request(
        url, json.dumps({"query": asked}).encode(), {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        time.sleep(1)
        with contextlib.suppress(OSError):
            entries = json.load(urllib.request.urlopen(request))["data"]["workspaceOrError"][
                "locationEntries"
            ]
            if entries and all(each["loadStatus"] == "LOADED" for each in entries):
                return {each["name"]: each["locationOrLoadError"]["__typename"] for each in entries}
    return {}


def write(path: Path, rows: list[dict]) -> None:
    """Write records in the format that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    compression = {".zst": "zstd", ".gz": "gzip"}[path.suffix]
    with pa.CompressedOutputStream(path, compression) as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
