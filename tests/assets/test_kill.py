"""A run that is killed at any moment loses nothing: the next one finishes it, with the same result."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.pipeline import DOMAINS, SmallPipeline, sentences

pytestmark = pytest.mark.slow

KILLS = 30


def pipeline_with_many_shards(folder):
    small = SmallPipeline(folder)
    for i in range(12):
        for seed, domain in enumerate(DOMAINS):
            small.write(f"pool/{domain}-{i:02d}.jsonl", sentences(domain, 40, seed=100 * seed + i))
    small.config["selections"].append({**small.config["selections"][0], "name": "best", "method": "top_k"})
    return small


def start(small):
    command = [sys.executable, "-m", "dagster_project.cli", "run"]
    arguments = ["--config", str(small.config_path), "--home", str(small.home)]
    environment = {**os.environ, "DAGSTER_HOME": str(small.home / "dagster")}
    return subprocess.Popen(
        [*command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def outputs(small):
    """Return every output file but the catalog and Dagster's own."""
    return {
        str(path.relative_to(small.home)): path.read_bytes()
        for path in small.home.rglob("*")
        if path.is_file()
        and path.name not in ("catalog.duckdb", "catalog.duckdb.wal")
        and not {"dagster", ".tmp"} & set(path.relative_to(small.home).parts)
    }


def test_runs_killed_at_random_moments_end_as_an_undisturbed_one(tmp_path):
    seed = int(os.environ.get("DSIR_KILL_SEED", time.time_ns() % 10**6))
    print(f"DSIR_KILL_SEED={seed}")
    chance = random.Random(seed)
    calm = pipeline_with_many_shards(tmp_path / "calm")
    undisturbed = start(calm)
    began = time.monotonic()
    text = undisturbed.communicate()[0].decode()
    seconds = time.monotonic() - began
    assert undisturbed.returncode == 0, text

    disturbed = pipeline_with_many_shards(tmp_path / "disturbed")
    killed = 0
    for attempt in range(10 * KILLS):
        run = start(disturbed)
        try:
            # Most of the time is Python's start; the runs get further as outputs become fresh.
            text = run.communicate(timeout=chance.uniform(0.25, 1.0) * seconds)[0].decode()
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.communicate()
            killed += 1
            continue
        assert run.returncode == 0, text
        if killed >= KILLS:
            break
        # Everything is fresh before enough kills: begin again with another part of it.
        disturbed.config["selections"][0]["seed"] = attempt + 1
        disturbed.config["features"]["buckets"] = 1000 + attempt % 2
    disturbed.config = calm.config
    last = start(disturbed)
    text = last.communicate()[0].decode()
    assert last.returncode == 0, text
    assert killed >= KILLS
    after = outputs(disturbed)
    assert {name: after.get(name) for name in outputs(calm)} == outputs(calm)
    assert disturbed.picks("picked") == calm.picks("picked")
