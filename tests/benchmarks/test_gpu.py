"""The experiment on one device: its plan fits the clock, its arrays are the text, its statistics are right."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.gpu import prepare as preparing
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.design import (
    FEWEST_TARGETS,
    FULL,
    SHARE,
    Experiment,
    ModelSize,
    Plan,
    choose,
    ladder,
    selection_name,
    work,
)
from benchmarks.gpu.prepared import END, Prepared, cell_of
from benchmarks.gpu.report import Comparison, bootstrap, compare, sign_test
from benchmarks.gpu.tokens import Tokenizer
from benchmarks.paper.cells import Cells
from benchmarks.paper.corpus import StudyCorpus
from benchmarks.paper.methods import METHODS
from benchmarks.pool import REPOSITORY

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed (the extra `paper`)"
)
NINE = dict.fromkeys("abcdefghi", 200_000)
METHODS_COMPARED = 5


# --- statistics --------------------------------------------------------------------------------------


def test_the_sign_test_is_exact_and_leaves_ties_out():
    assert sign_test(np.full(9, -0.1)) == (9, 9, pytest.approx(2 / 2**9))
    assert sign_test(np.array([-1.0] * 8 + [0.001])) == (8, 9, pytest.approx(2 * 10 / 2**9))
    assert sign_test(np.array([-1.0, -1, -1, 0, 1, 1])) == (3, 5, 1.0)
    assert sign_test(np.zeros(4)) == (0, 0, 1.0)


def test_the_bootstrap_is_that_of_all_possible_draws():
    values = np.array([-0.3, -0.1, 0.0, 0.05, 0.4])
    means = [np.mean(drawn) for drawn in itertools.product(values, repeat=5)]  # all 3,125
    assert bootstrap(values) == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.01)
    assert bootstrap(np.full(9, -0.2)) == pytest.approx((-0.2, -0.2))
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values + 1) == pytest.approx(np.add(bootstrap(values), 1))


def test_pairs_are_of_one_target_and_one_seed():
    figures = {
        ("match", "a"): {0: 1.0, 1: 1.2},
        ("resample", "a"): {0: 1.1, 1: 1.5},
        ("match", "b"): {0: 2.0},
        ("resample", "b"): {0: 1.9, 1: 9.0},  # its second seed has no partner
        ("match", "c"): {0: 3.0},
        ("resample", "c"): {},
    }
    (found,) = compare(figures, ("a", "b", "c"), ["resample", "cynical"])
    assert found.baseline == "resample"
    assert found.differences == pytest.approx({"a": -0.2, "b": 0.1})
    assert found.mean == pytest.approx(-0.05)
    assert (found.lower, found.compared) == (1, 2)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([-0.02] * 9, "supported"),
        ([-0.02] * 7 + [0.001] * 2, "undecided"),  # the interval is below zero, the sign test is not enough
        ([-0.02, 0.02] * 4 + [0.0], "undecided"),
        ([0.02] * 8 + [-0.001], "against us"),
        ([0.02] * 7 + [-0.02] * 2, "undecided"),
        ([0.02] * 5 + [0.01] * 4, "against us"),
    ],
)
def test_verdicts_are_those_of_the_plan(values, verdict):
    assert Comparison.of("resample", dict(enumerate(values))).verdict == verdict


# --- the clock ---------------------------------------------------------------------------------------


def chosen(speeds: dict[str, float], seconds: float = 538, heldout=NINE) -> tuple[Plan, float, list[str]]:
    asked = []

    def speed(size: ModelSize, needed: float) -> float:
        asked.append(size.name)
        return speeds[size.name]

    plan, takes = choose(FULL, heldout, METHODS_COMPARED, speed, lambda: seconds)
    return plan, takes, asked


def test_the_full_experiment_is_what_its_docstring_says():
    plan = next(ladder(FULL, tuple(NINE)))
    assert (plan.size.name, plan.base_tokens, len(plan.targets)) == ("45 M", 40_000_000, 9)
    assert work(plan, FULL, NINE, METHODS_COMPARED) == 2 * (40e6 + 37 * 4e6 + 6 * 9 * 200_000 / 3)


def test_what_is_dropped_is_dropped_in_the_stated_order_and_only_as_far_as_needed():
    plan, takes, asked = chosen({"45 M": 800_000})
    assert plan == next(ladder(FULL, tuple(NINE))) and asked == ["45 M"]
    assert takes == pytest.approx(383.2e6 / 800_000)
    assert chosen({"45 M": 720_000})[0].base_tokens == 20_000_000
    assert chosen({"45 M": 680_000})[0].base_tokens == 10_000_000
    plan, _, asked = chosen({"45 M": 600_000, "20 M": 900_000})
    assert (plan.size.name, plan.base_tokens, asked) == ("20 M", 40_000_000, ["45 M", "20 M"])
    slow = {"45 M": 100_000, "20 M": 200_000, "8 M": 610_000}
    plan, takes, asked = chosen(slow)
    assert (plan.size.name, plan.base_tokens, plan.targets) == ("8 M", 10_000_000, tuple("abcdefgh"))
    assert takes <= SHARE * 538 and len(asked) == 3


def test_where_nothing_fits_the_message_says_what_would():
    with pytest.raises(
        SystemExit, match=r"8 M parameters, 10,000,000 base tokens, 6 targets.*takes 2,248 s.*484 s"
    ):
        chosen(dict.fromkeys(("45 M", "20 M", "8 M"), 100_000))


@given(speed=st.floats(1e5, 1e7), seconds=st.floats(60, 2000), targets=st.integers(1, 9))
def test_a_plan_fits_and_the_one_before_does_not(speed, seconds, targets):
    heldout = dict(itertools.islice(NINE.items(), targets))
    plans = list(ladder(FULL, tuple(heldout)))
    assert all(len(plan.targets) >= min(targets, FEWEST_TARGETS) for plan in plans)
    costs = [work(plan, FULL, heldout, METHODS_COMPARED) / speed for plan in plans]
    try:
        plan, takes, _ = chosen(dict.fromkeys(("45 M", "20 M", "8 M"), speed), seconds, heldout)
    except SystemExit:
        assert min(costs) > SHARE * seconds
    else:
        at = plans.index(plan)
        assert takes == costs[at] <= SHARE * seconds
        assert all(cost > SHARE * seconds for cost in costs[:at])


# --- tokens ------------------------------------------------------------------------------------------

ENGLISH = Tokenizer.learn(["the cat sat on the mat, and the hat was on the cat"] * 3, 300)


@given(st.text(st.characters(), max_size=60))
@example("  two  spaces\tand \n\n lines_ of 123 ½ words — naïve İ")
def test_tokens_give_the_text(text):
    ids = ENGLISH.encode(text)
    assert ENGLISH.decode(ids) == text
    assert ids[-1] == END and END not in ids[:-1]
    assert ENGLISH.sizes[ids].sum() == len(text.encode("utf-8", "surrogatepass"))


def test_the_most_frequent_pairs_are_merged_first():
    # "ab" 6 times; then "abc" 4 times, with the merged pair; then "xy" 3 times.
    learnt = Tokenizer.learn(["abc"] * 4 + ["abd"] * 2 + ["xy"] * 3, 260)
    assert learnt.pieces[256:] == [b"ab", b"abc", b"xy"]
    assert len(learnt.encode("abcxy")) == 3
    assert len(Tokenizer.learn(["abc"], 10_000).pieces) == 258  # no more pairs
    assert len(ENGLISH.encode("the cat")) < len("the cat") / 2


# --- prepare -----------------------------------------------------------------------------------------

TOPICS = {"birds": "robin wren finch heron swift", "stones": "quartz basalt slate flint gneiss"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A pool of two topics, and a target of each."""
    root = tmp_path_factory.mktemp("corpus")

    def write(path: Path, topic: str, n: int, seed: int) -> None:
        chance = np.random.default_rng(seed)
        words = "the of a is in and to it".split() + TOPICS[topic].split()
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.output_stream(str(path), compression="zstd") as out:
            for _ in range(n):
                out.write((json.dumps({"text": " ".join(chance.choice(words, 100))}) + "\n").encode())

    for i, topic in enumerate(TOPICS):
        write(root / "pool" / f"{topic}-00.jsonl.zst", topic, 800, i)
        write(root / "targets" / topic / "train.jsonl.zst", topic, 30, 10 + i)
        write(root / "targets" / topic / "test.jsonl.zst", topic, 20, 20 + i)
    return root


TINY = Experiment(
    base_tokens=2_000,
    tokens=600,
    heldout_tokens=300,
    vocabulary=270,
    context=8,
    windows=4,
    rate=1e-2,
    sizes=(ModelSize("tiny", width=16, layers=1, heads=2),),
)


def compared(monkeypatch, *methods: str) -> None:
    some = {method: name for method, name in preparing.COMPARED.items() if method in methods}
    monkeypatch.setattr(preparing, "COMPARED", some)


def test_the_arrays_are_the_text_of_the_picks_and_of_the_held_out_split(corpus, tmp_path, monkeypatch):
    compared(monkeypatch, "random", "resample")
    said: list[str] = []
    study, folder = StudyCorpus(corpus, []), tmp_path / "prepared"
    preparing.prepare(study, folder, TINY, say=said.append)
    prepared = Prepared(folder)
    assert prepared.experiment == TINY and prepared.methods == ["random", "resample"]
    pieces = [bytes.fromhex(each) for each in json.loads((folder / "vocabulary.json").read_text())]
    tokenizer = Tokenizer(pieces)
    pool, targets = set(study.pool.to_pylist()), {target.name: target for target in study.targets}
    for name, tokens in (("base", 2_000), ("random", 600), ("resample.birds", 600), ("resample.stones", 600)):
        ids = prepared.selection(name, tokens)
        assert len(ids) == tokens
        *texts, _ = np.split(ids, np.flatnonzero(ids == END) + 1)
        assert texts and {tokenizer.decode(text) for text in texts} <= pool
    assert "robin" in tokenizer.decode(prepared.selection("resample.birds", 600))
    assert "quartz" not in tokenizer.decode(prepared.selection("resample.birds", 600))
    for name, heldout in prepared.heldout.items():
        ids = prepared.target(name)
        text = tokenizer.decode(ids)
        assert heldout == {"tokens": 300, "bytes": len(text.encode())} and len(ids) == 300
        assert any(text[:200].startswith(document[:200]) for document in targets[name].test.texts)

    # The same text, the same bytes; a file that is not the one that was written is named.
    before = prepared.digest
    preparing.prepare(study, folder, TINY, say=said.append)
    assert Prepared(folder).digest == before
    (folder / "base.npy").write_bytes((folder / "random.npy").read_bytes())
    with pytest.raises(SystemExit, match=rf"{folder}/base.npy: SHA-256 .*, expected .*prepare it again"):
        Prepared(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(SystemExit, match=r"manifest.json is missing; .*prepare` writes it last"):
        Prepared(folder)


def test_a_pool_smaller_than_the_plan_lowers_its_tokens(corpus, tmp_path, monkeypatch):
    compared(monkeypatch, "random")
    large = replace(TINY, base_tokens=10**9, tokens=10**6)
    study = StudyCorpus(corpus, ["birds"])
    found = preparing.prepare(study, tmp_path / "prepared", large, say=lambda line: None)["experiment"]
    assert found["tokens"] == 4_800  # 3 % of 160,000 words
    assert 100_000 < found["base_tokens"] < 400_000
    with pytest.raises(SystemExit, match=r"4,800 tokens, and a step of training takes 32,769; .* --dry-run"):
        preparing.prepare(study, tmp_path / "prepared", FULL, say=lambda line: None)


def test_a_method_that_is_missing_is_named_before_anything_is_done(corpus, tmp_path, monkeypatch):
    monkeypatch.delitem(METHODS, "cynical", raising=False)
    with pytest.raises(
        SystemExit, match=r"methods.py has no cynical; the planned comparison needs random, .*match"
    ):
        preparing.prepare(StudyCorpus(corpus, []), tmp_path / "prepared", TINY)
    assert not (tmp_path / "prepared").exists()


# --- models ------------------------------------------------------------------------------------------


def trainer(experiment: Experiment = TINY, seed: int = 0):
    from benchmarks.gpu.train import Trainer

    found = Trainer(experiment, experiment.sizes[0], "cpu", math.inf)
    found.reset(seed)
    return found


def counting(period: int, n: int) -> np.ndarray:
    return (1 + np.arange(n) % period).astype(np.int32)


@needs_torch
def test_the_largest_model_has_45_million_parameters():
    import torch

    from benchmarks.gpu.train import Decoder

    with torch.device("meta"):
        counts = [
            sum(each.numel() for each in Decoder(size, FULL.vocabulary, FULL.context).parameters())
            for size in FULL.sizes
        ]
    assert [round(each / 1e6) for each in counts] == [45, 20, 8]


@needs_torch
def test_the_model_sees_no_token_before_its_time():
    import torch

    model = trainer().model
    ids = torch.arange(8)[None]
    changed = ids.clone()
    changed[0, 5:] = 100
    torch.testing.assert_close(model(ids)[0, :5], model(changed)[0, :5])
    assert not torch.allclose(model(ids)[0, 5], model(changed)[0, 5])


@needs_torch
def test_a_model_that_knows_nothing_needs_the_bits_of_its_vocabulary_for_every_token_but_ends():
    import torch

    found = trainer()
    with torch.no_grad():
        found.model.words.weight.zero_()
    ids = counting(7, 50)
    ids[[9, 49]] = END
    assert found.bits_per_byte(ids, 100) == pytest.approx(48 * math.log2(270) / 100, rel=1e-5)


@needs_torch
def test_a_model_learns_its_text_and_a_fork_forgets_it_for_another():
    found = trainer()
    found.fit(counting(7, 4_000), 1, False, 0)
    seven, eleven = counting(7, 200), counting(11, 200)
    assert found.bits_per_byte(seven, 200) < 0.5 < 1 < found.bits_per_byte(eleven, 200)
    found.fit(counting(11, 4_000), 2, True, 0)
    assert found.bits_per_byte(eleven, 200) < 0.5 < found.bits_per_byte(seven, 200)


@needs_torch
def test_on_a_gpu_what_is_too_slow_is_compiled_and_the_faster_of_the_two_is_kept(monkeypatch, prepared):
    from benchmarks.gpu.train import OutOfTimeError, Stopwatch

    said: list[str] = []
    stopwatch = Stopwatch(Prepared(prepared), "cpu", math.inf, said.append)
    stopwatch.compiles = True  # as on a GPU
    times = iter([100.0, 200.0, 300.0, 250.0])
    monkeypatch.setattr(Stopwatch, "measure", lambda self: next(times))
    size = TINY.sizes[0]
    assert stopwatch(size, needed=50.0) == 100.0 and not stopwatch.trainer.compiled
    assert stopwatch(size, needed=250.0) == 300.0 and stopwatch.trainer.compiled
    monkeypatch.setattr(
        Stopwatch, "measure", lambda self: _fail(RuntimeError("no compiler\nlong trace"), 9.0, self)
    )
    assert stopwatch(size, needed=250.0) == 9.0 and not stopwatch.trainer.compiled
    assert said[-1] == "not compiled: no compiler"
    stopwatch.compiles = True
    monkeypatch.setattr(Stopwatch, "measure", lambda self: _fail(OutOfTimeError(), 9.0, self))
    with pytest.raises(OutOfTimeError):
        stopwatch(size, needed=250.0)


def _fail(error: Exception, speed: float, stopwatch) -> float:
    if stopwatch.trainer.compiled:
        raise error
    return speed


# --- train and report --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A target that counts to seven; `match` has selected such text, `resample` half of it, random none."""
    from hashlib import sha256

    folder = tmp_path_factory.mktemp("prepared")
    texts = [np.append(counting(period, 39), END) for period in (7, 11)]
    arrays = {
        "tokens": np.concatenate(texts).astype(np.uint16),
        "starts": np.array([0, 40, 80]),
        "base": np.arange(50, dtype=np.int32) % 2,
        "random": np.ones(20, dtype=np.int32),
    }
    for target in ("one", "two"):
        arrays |= {f"resample.{target}": np.arange(20, dtype=np.int32) % 2}
        arrays |= {f"match.{target}": np.zeros(20, dtype=np.int32)}
        arrays |= {f"heldout.{target}": counting(7, 100).astype(np.uint16)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    manifest = {
        "experiment": asdict(replace(TINY, tokens=800)),
        "methods": ["random", "resample", "match"],
        "heldout": {target: {"tokens": 100, "bytes": 100} for target in ("one", "two")},
        "files": {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def figures_of(output: Path) -> dict[tuple, float]:
    records = map(json.loads, (output / "cells.jsonl").read_text().splitlines())
    return {
        (each["cell"]["seed"], each["cell"]["selection"], each["cell"]["target"]): each["result"][
            "bits_per_byte"
        ]
        for each in records
    }


def test_the_report_of_nine_targets_fits_a_terminal_and_says_what_the_figures_are_of(tmp_path, capsys):
    data, output = tmp_path / "prepared", tmp_path / "results"
    data.mkdir()
    targets = [f"target_{letter}_of_nine" for letter in NINE]
    methods = list(preparing.COMPARED)
    np.save(data / "tokens.npy", np.zeros(1, dtype=np.uint16))
    np.save(data / "starts.npy", np.array([0, 1]))
    heldout = {target: {"tokens": 1, "bytes": 1} for target in targets}
    manifest = {"experiment": asdict(FULL), "methods": methods, "heldout": heldout, "files": {}}
    (data / "manifest.json").write_text(json.dumps(manifest))
    digest = Prepared(data).digest
    plan = Plan(FULL.sizes[0], FULL.base_tokens // 2, tuple(targets))
    cells = Cells(output / "cells.jsonl")
    record = {"data": digest, "plan": plan.record(), "compiled": True, "device": "a GPU", "torch": "2"}
    output.mkdir()
    (output / "plan.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit, match="no target has figures of `match` and another method yet"):
        main(["report", "--data", str(data), "--output", str(output)])

    # `match` is 0.02 below `resample` on eight, above it on the last; the last figure of the second seed is missing.
    for seed, (i, target) in itertools.product((0, 1), enumerate(targets)):
        for method in ("base", *methods):
            better = {"match": 0.02 if i < 8 else -0.01, "cynical": 0.02}.get(method, 0.0)
            result = {"bits_per_byte": 1 + i / 10 + seed / 100 - better, "base": str(seed)}
            if (seed, i, method) != (1, 8, "match"):
                name = method if method == "base" else selection_name(method, target)
                cells.add(cell_of(digest, plan, seed, name, target), result, 1.0)
    assert main(["report", "--data", str(data), "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    assert "Not finished: 107 of 108 figures" in shown and "Smaller than planned" in shown
    found = json.loads((output / "report.json").read_text())
    first, second, *_ = found["comparisons"]
    assert first["mean"] == pytest.approx((8 * -0.02 + 0.01) / 9) and first["verdict"] == "supported"
    assert (first["lower"], first["compared"], first["p"]) == (8, 9, pytest.approx(20 / 2**9))
    assert (second["baseline"], second["lower"], second["compared"]) == ("cynical", 0, 1)
    assert "| match - resample (primary) | -0.0167 |" in (output / "report.md").read_text()
    assert "Primary hypothesis: supported." in shown


@needs_torch
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_figures(
    prepared, tmp_path, capsys, monkeypatch
):
    from benchmarks.gpu import train

    def command(name: str, *options: str) -> int:
        return main(
            ["train", "--data", str(prepared), "--output", str(tmp_path / name), "--device", "cpu", *options]
        )

    assert command("whole") == 0
    whole = figures_of(tmp_path / "whole")
    assert len(whole) == 2 * (2 + 2 + 2 * 2)  # seeds, base and random on both targets, two methods

    # Stopped in the middle of the second seed, in a fork.
    fit, calls = train.Trainer.fit, []

    def stopped(self, ids, epochs, decay, seed, steps=None):
        calls.append((decay, seed))
        if calls.count((True, 1)) == 3:
            raise train.OutOfTimeError
        fit(self, ids, epochs, decay, seed, steps)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "fit", stopped)
        assert command("parts") == 1
    assert "the same command goes on" in capsys.readouterr().out
    before = (tmp_path / "parts" / "cells.jsonl").read_bytes()
    assert 0 < len(figures_of(tmp_path / "parts")) < len(whole)
    with pytest.raises(SystemExit) as none_yet:
        main(["report", "--data", str(prepared), "--output", str(tmp_path)])
    assert "plan.json is missing" in str(none_yet.value)
    main(["report", "--data", str(prepared), "--output", str(tmp_path / "parts")])
    assert "Not finished: 13 of 16 figures" in capsys.readouterr().out

    with monkeypatch.context() as patch:
        calls.clear()
        patch.setattr(train.Trainer, "fit", lambda *a, **k: calls.append(a[3]) or fit(*a, **k))
        assert command("parts") == 0
    assert calls == [True] * 3  # three forks are left; neither the base nor the clock is needed again
    assert (tmp_path / "parts" / "cells.jsonl").read_bytes().startswith(before)
    assert figures_of(tmp_path / "parts") == whole
    assert command("parts") == 0  # nothing is left to do

    # The better the text, the lower; and so says the report.
    for seed in (0, 1):
        assert (
            whole[seed, "match.one", "one"]
            < whole[seed, "resample.one", "one"]
            < whole[seed, "random", "one"]
        )
    capsys.readouterr()
    main(["report", "--data", str(prepared), "--output", str(tmp_path / "parts")])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    found = json.loads((tmp_path / "parts" / "report.json").read_text())
    assert [each["baseline"] for each in found["comparisons"]] == ["resample", "random"]
    first = found["comparisons"][0]
    ours, theirs = ([whole[s, f"{m}.one", "one"] for s in (0, 1)] for m in ("match", "resample"))
    assert first["differences"]["one"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert f"{first['mean']:+.4f}" in shown
    assert f"{first['mean']:+.4f}" in (tmp_path / "parts" / "report.md").read_text()

    # Figures of other arrays are not mixed in.
    plan = json.loads((tmp_path / "parts" / "plan.json").read_text())
    (tmp_path / "parts" / "plan.json").write_text(json.dumps({**plan, "data": "other"}))
    with pytest.raises(SystemExit, match=r"plan.json is of other data; name another --output"):
        command("parts")


@needs_torch
def test_without_time_nothing_is_started(prepared, tmp_path):
    with pytest.raises(SystemExit, match=r"the smallest plan .*tiny parameters"):
        main(
            [
                "train",
                "--data",
                str(prepared),
                "--output",
                str(tmp_path),
                "--minutes",
                "0.002",
                "--device",
                "cpu",
            ]
        )
    assert not list(tmp_path.iterdir())


@needs_torch
def test_the_full_experiment_is_refused_on_a_cpu(prepared, tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    for path in prepared.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text()) | {"experiment": asdict(FULL)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SystemExit, match="the full experiment needs a GPU"):
        main(["train", "--data", str(folder), "--output", str(tmp_path / "out"), "--device", "cpu"])


@needs_torch
def test_training_needs_nothing_but_pytorch_and_numpy(prepared, tmp_path):
    blocked = "dsir dsir_dagster dagster duckdb numba pyarrow pydantic rich scipy sklearn yaml".split()
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); from benchmarks.gpu.__main__ import main; "
    code += f"sys.exit(main(['train', '--data', {str(prepared)!r}, '--output', {str(tmp_path)!r}, '--device', 'cpu']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(figures_of(tmp_path)) == 16


def test_without_pytorch_training_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="training needs PyTorch"):
        main(["train", "--data", str(tmp_path)])


@needs_torch
@pytest.mark.slow
def test_a_hundredth_of_the_experiment_runs_from_text_to_report(corpus, tmp_path, capsys):
    folders = ["--data", str(tmp_path / "prepared"), "--output", str(tmp_path / "results")]
    assert main(["prepare", "--dry-run", "--data", str(corpus), "--output", str(tmp_path / "prepared")]) == 0
    assert main(["train", *folders, "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["report", *folders]) == 0
    shown = capsys.readouterr().out
    assert "A dry run, no evidence" in shown and "primary" in shown
    found = json.loads((tmp_path / "results" / "report.json").read_text())
    by_baseline = {each["baseline"]: each for each in found["comparisons"]}
    assert list(by_baseline) == ["resample", "cynical", "classifier_top_k", "random"]
    assert by_baseline["random"]["mean"] < 0  # topics are far apart: any method is better than chance
