"""A run that is killed at any moment loses nothing: the next one finishes it, with the same result."""

import os
import random
import subprocess
import sys
import time
from collections import Counter

import dagster as dg
import pytest

from dsir_dagster.assets.graph import GRAPH
from dsir_dagster.refresh import IN_PROGRESS
from tests.pipeline import DOMAINS, SmallPipeline, sentences

pytestmark = pytest.mark.slow

#: Kills of one process, each asset among what they strike.
KILLS = 15
#: Kills of two and three processes at once, each round from a cold home, and in each round.
KILLS_TOGETHER = 200
KILLS_A_ROUND = 25


def pipeline_with_many_shards(folder):
    small = SmallPipeline(folder)
    for i in range(12):
        for seed, domain in enumerate(DOMAINS):
            small.write(f"pool/{domain}-{i:02d}.jsonl", sentences(domain, 40, seed=100 * seed + i))
    small.config["selections"].append({**small.config["selections"][0], "name": "best", "method": "top_k"})
    return small


def start(small):
    command = [sys.executable, "-m", "dsir_dagster", "run"]
    arguments = ["--config", str(small.config_path), "--home", str(small.home)]
    environment = {**os.environ, "DAGSTER_HOME": str(small.home / "dagster")}
    return subprocess.Popen(
        [*command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def outputs(home):
    """Return every output file but those that name runs and times: the catalog, lineage, reports, Dagster's own."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in home.rglob("*")
        if path.is_file()
        and path.name != "report.html"
        and not path.name.startswith("catalog.")
        and not {"dagster", ".tmp", "lineage"} & set(path.relative_to(home).parts)
    }


def kill(run, moment):
    """Kill a run after so many seconds; return what it said. It may have ended before; its return code says so."""
    try:
        return run.communicate(timeout=moment)[0]
    except subprocess.TimeoutExpired:
        run.kill()
        return run.communicate()[0]


def seeded():
    """Return chance that can be had again, and print how."""
    seed = int(os.environ.get("DSIR_KILL_SEED", time.time_ns() % 10**6))
    print(f"DSIR_KILL_SEED={seed}")
    return random.Random(seed)


def in_progress(instance):
    """Return the asset whose step is being executed, by the run's id, of each Dagster run that has not ended."""
    found = {}
    for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS)):
        steps = instance.get_run_step_stats(run.run_id)
        begun = [step.step_key for step in steps if step.status.value == "IN_PROGRESS"]
        if begun:
            found[run.run_id] = begun[0].removeprefix("refresh_")
    return found


def test_runs_killed_at_random_moments_end_as_an_undisturbed_one(tmp_path, monkeypatch):
    chance = seeded()
    calm = pipeline_with_many_shards(tmp_path / "calm")
    undisturbed = start(calm)
    began = time.monotonic()
    text = undisturbed.communicate()[0].decode()
    seconds = time.monotonic() - began
    assert undisturbed.returncode == 0, text

    disturbed = pipeline_with_many_shards(tmp_path / "disturbed")
    (disturbed.home / "dagster").mkdir(parents=True)
    monkeypatch.setenv("DAGSTER_HOME", str(disturbed.home / "dagster"))
    killed = 0
    struck = {}
    for attempt in range(10 * KILLS):
        run = start(disturbed)
        missed = [asset for asset in GRAPH.versions if asset not in struck.values()]
        with dg.DagsterInstance.from_config(str(disturbed.home / "dagster")) as instance:
            if attempt % 2 and missed:
                # Most assets take an instant, which a random moment seldom is: wait for it.
                before = in_progress(instance).keys()
                while run.poll() is None and not any(
                    asset == missed[0]
                    for run_id, asset in in_progress(instance).items()
                    if run_id not in before
                ):
                    time.sleep(0.002)
                text = kill(run, chance.uniform(0, 0.1))
            else:
                # Most of the time is Python's start; the runs get further as outputs become fresh.
                text = kill(run, chance.uniform(0.25, 1.0) * seconds)
            if run.returncode < 0:
                killed += 1
                struck |= in_progress(instance)
                continue
        assert run.returncode == 0, text.decode()
        if killed >= KILLS and not missed:
            break
        # Everything is fresh before enough kills: begin again with another part of it.
        disturbed.config["selections"][0]["seed"] = attempt + 1
        disturbed.config["features"]["buckets"] = 1000 + attempt % 2
    disturbed.config = calm.config
    last = start(disturbed)
    text = last.communicate()[0].decode()
    assert last.returncode == 0, text
    print(f"{killed} kills; in the middle of {dict(Counter(struck.values()))}")
    assert killed >= KILLS and set(struck.values()) == set(GRAPH.versions)
    after = outputs(disturbed.home)
    undisturbed = outputs(calm.home)
    assert {name: after.get(name) for name in undisturbed} == undisturbed
    assert disturbed.picks("picked") == calm.picks("picked")


def small_pool(folder):
    small = SmallPipeline(folder)
    for i in range(4):
        for seed, domain in enumerate(DOMAINS):
            small.write(f"pool/{domain}-{i}.jsonl", sentences(domain, 20, seed=100 * seed + i))
    return small


def test_processes_killed_together_from_a_cold_home_end_as_an_undisturbed_one(tmp_path):
    chance = seeded()
    calm = small_pool(tmp_path / "calm")
    began = time.monotonic()
    text = start(calm).communicate()[0].decode()
    seconds = time.monotonic() - began
    expected, picks = outputs(calm.home), calm.picks()
    assert len(picks) == 20, text

    killed, rounds = 0, 0
    while killed < KILLS_TOGETHER:
        small = small_pool(tmp_path / f"round {rounds}")
        together, in_this_round = 2 + rounds % 2, 0
        while in_this_round < KILLS_A_ROUND:
            # They share the cores. Python's start is most of the time: let some be killed in it.
            runs = [start(small) for _ in range(together)]
            moments = sorted(chance.uniform(0.2, 0.6 * together) * seconds for _ in runs)
            waited = 0.0
            for run, moment in zip(runs, moments, strict=True):
                text = kill(run, moment - waited)
                waited = moment
                in_this_round += run.returncode < 0
                assert run.returncode <= 0, text.decode()
            if small.workspace().plan().counted and chance.random() < 0.3:
                # Whatever is fresh by now is no longer to be killed in: some of it is due again.
                small.config["features"]["buckets"] = 999 + small.config["features"]["buckets"] % 2
        small.config = calm.config
        last = [start(small) for _ in range(together)]
        for run in last:
            text = run.communicate()[0].decode()
            assert run.returncode == 0, text
        after = outputs(small.home)
        assert {name: after.get(name) for name in expected} == expected
        assert small.picks() == picks
        killed += in_this_round
        rounds += 1
    print(f"{killed} kills in {rounds} rounds")
