"""The parts that the breakdown tells apart are there, and its time adds up."""

import ast
import subprocess
import sys
import time

import pytest

from benchmarks.breakdown import ELSE, PARTS, Profile, part_of
from benchmarks.pool import REPOSITORY, find_corpus
from dsir.features import Features, featurize
from dsir.featurizer.packed import PackedFeatures


@pytest.mark.parametrize(
    ("file", "functions"), sorted({(file, functions or ()) for _, file, functions in PARTS})
)
def test_every_function_of_a_part_exists(file, functions):
    tree = ast.parse((REPOSITORY / file).read_text())
    assert set(functions) <= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_a_function_is_the_part_that_names_it_before_the_one_of_its_file():
    assert part_of(featurize.__code__) == "n-grams counted"
    assert part_of(Features.add_totals.__code__) == "totals"
    assert part_of(PackedFeatures.pack.__func__.__code__) == "features packed"
    assert part_of(part_of.__code__) is None, "it is part of its caller's"


def test_time_is_charged_to_the_innermost_part():
    def busy(seconds):
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    profile = Profile()
    busy(0.05)
    profile.end()
    assert 0.04 < profile.seconds[ELSE] < 1


@pytest.mark.slow
def test_it_prints_both_tables():
    if find_corpus() is None:
        pytest.skip("no corpus: neither ../shared/data nor the demo's (`make corpus`) is there")
    command = [sys.executable, "-m", "benchmarks.breakdown", "--megabytes", "8"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "dsir run, CPU seconds" in done.stdout and "Counting, one thread" in done.stdout
