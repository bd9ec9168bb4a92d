"""The paper in one command, on a corpus of a few hundred made documents; and the parts that its tables rest on."""

from __future__ import annotations

import io
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from benchmarks.paper import measures
from benchmarks.paper.__main__ import main
from benchmarks.paper.cells import Cells, fingerprint
from benchmarks.paper.corpus import Split, StudyCorpus, records_of
from benchmarks.paper.cost import measured
from benchmarks.paper.methods import KEYS, METHODS, MethodSettings, code_version, select
from benchmarks.paper.study import Study
from benchmarks.paper.summary import (
    Row,
    StudyTable,
    about,
    budget_tables,
    correlation,
    measure_table,
    overview_table,
)

WORDS = {
    "birds": "robin wren finch heron swift".split(),
    "stones": "quartz basalt slate flint gneiss".split(),
    "tools": "hammer chisel rasp awl plane".split(),
}
COMMON = "the of a is in and to it".split()


def documents(topic: str, n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(COMMON + WORDS[topic], 60)) for _ in range(n)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A pool of three topics, and a target of two of them, with labels."""
    root = tmp_path_factory.mktemp("data")

    def write(path, texts, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
        with pa.output_stream(str(path), compression="zstd") as out:
            for text, label in zip(texts, labels, strict=True):
                out.write((json.dumps({"text": text, "label": label}) + "\n").encode())

    for i, topic in enumerate(WORDS):
        write(root / "pool" / f"{topic}-00.jsonl.zst", documents(topic, 150, i), [None] * 150)
    for split, seed in (("train", 10), ("test", 20)):
        texts = documents("birds", 40, seed) + documents("stones", 40, seed + 1)
        write(root / "targets" / "nature" / f"{split}.jsonl.zst", texts, ["birds"] * 40 + ["stones"] * 40)
    return root


# --- the command -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_writes_tables_figures_and_plots_and_computes_nothing_twice(data, tmp_path, capsys):
    options = ["--data", str(data), "--output", str(tmp_path), "--tokens", "3000", "--processes", "1"]
    options += ["--seeds", "2", "--measures", "bits", "f1", "budgets"]
    options += ["--methods", "random", "resample", "match"]
    assert main(options) == 0
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())["methods"]
    by_method = {row["method"]: row for row in figures if row["tokens"] == 3000}
    assert abs(by_method["random"]["over_random"]) < 0.05 < by_method["resample"]["over_random"]
    assert by_method["resample"]["kl_reduction"] > 0.05
    assert by_method["resample"]["bits"] < by_method["random"]["bits"]
    assert all(len(row["f1"]) == 2 and not row["proxy"] for row in by_method.values())
    assert all(row["seconds"] > 0 and row["documents"] > 0 for row in figures)
    assert sorted({row["tokens"] for row in figures}) == [750, 3000, 12_000]
    assert f"{by_method['match']['over_random']:.3f}" in shown
    assert "match" in (tmp_path / "table.md").read_text()
    # Six figures and bits per byte for each row, two seeds of F1 for each with the usual budget.
    assert len((tmp_path / "figures.csv").read_text().splitlines()) == 1 + 3 * 3 * 8 + 3 * 2
    for name in ("targets.png", "correlation.png", "budgets.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

    # Killed while a line was being written: that cell alone is computed again.
    cells = tmp_path / "cells.jsonl"
    lines = cells.read_bytes().splitlines(keepends=True)
    cells.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    assert main(options) == 0
    again = cells.read_bytes().splitlines(keepends=True)
    assert len(again) == len(lines) + 1 and again[: len(lines) - 1] == lines[:-1]
    assert json.loads(again[-1])["result"] == json.loads(lines[-1])["result"]
    assert json.loads((tmp_path / "figures.json").read_text())["methods"] == figures


def test_without_pytorch_the_proxy_is_left_out_and_the_ablations_are_made(
    data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = ["--data", str(data), "--output", str(tmp_path), "--tokens", "3000", "--processes", "1"]
    assert main([*options, "--measures", "proxy", "ablations", "--methods", "random", "top-k"]) == 0
    shown = capsys.readouterr().out
    assert "PyTorch is not installed" in shown and "temperature" in shown
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [row["proxy"] for row in figures["methods"]] == [[], []]
    own = {row["over_random"] for row in figures["ablations"] if row["own"] and row["method"] == "top_k"}
    assert own == {figures["methods"][1]["over_random"]}
    assert (tmp_path / "ablations.png").read_bytes().startswith(b"\x89PNG")


def test_a_quick_run_takes_a_sample_of_a_large_pool(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.paper.__main__.QUICK_PIECES", 300)
    options = [
        "--quick",
        "--data",
        str(data),
        "--output",
        str(tmp_path),
        "--tokens",
        "3000",
        "--processes",
        "1",
    ]
    assert main([*options, "--methods", "random", "resample"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "from a pool of 18,000 in 300 pieces" in shown and "PyTorch" not in shown
    figures = json.loads((tmp_path / "figures.json").read_text())["methods"]
    assert [len(row["bits"]) for row in figures] == [1, 1] and not any(row["f1"] for row in figures)


def test_data_that_are_not_there_are_named(data, tmp_path):
    with pytest.raises(SystemExit, match=rf"{tmp_path}: no pool/.*; --data names a folder"):
        main(["--data", str(tmp_path), "--output", str(tmp_path / "out")])
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.jsonl.zst").touch()
    with pytest.raises(SystemExit, match=rf"{tmp_path}: no targets/<name>/"):
        StudyCorpus(tmp_path, [])
    with pytest.raises(SystemExit, match=r"no target art in .*; there are nature"):
        StudyCorpus(data, ["art"])


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "one"}\n{"text": ')
    with pytest.raises(SystemExit, match=str(broken)):
        records_of(broken)
    broken.write_text('{"title": "one"}\n')
    with pytest.raises(SystemExit, match=f"{broken}: no record has a `text`"):
        records_of(broken)
    with pytest.raises(SystemExit, match=str(tmp_path / "none")):
        Split.read(tmp_path / "none")


def test_the_budget_is_a_share_of_the_pool_unless_it_is_given(data, tmp_path):
    study = Study(StudyCorpus(data, []), tmp_path)
    assert study.pool == {"pieces": 450, "tokens": 450 * 60}
    assert study.tokens == 810 and "810 tokens (3.0%) from a pool of 27,000 in 450" in about(study)
    assert Study(StudyCorpus(data, []), tmp_path, 5000).tokens == 5000


# --- selections --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [*METHODS.values(), MethodSettings("resample", temperature=5.0, length="sqrt")]
)
def test_every_method_obeys_the_budget_and_all_but_random_find_the_target(data, settings):
    corpus = StudyCorpus(data, [])
    rows = select(settings, corpus, corpus.targets[0], 6000)
    tokens = sum(len(text.split()) for text in corpus.pool.take(rows).to_pylist())
    assert 6000 - 60 < tokens <= 6000
    assert len(set(rows.tolist())) == len(rows)
    of_the_target = np.mean([row // 150 != 2 for row in rows])  # the pool's third file is of another topic
    assert (
        of_the_target == pytest.approx(2 / 3, abs=0.15)
        if settings.method == "random"
        else of_the_target > 0.9
    )
    assert np.array_equal(rows, select(settings, StudyCorpus(data, []), corpus.targets[0], 6000))


def test_another_method_s_code_is_not_what_shaped_a_selection(monkeypatch):
    before = {method: code_version(method) for method in KEYS}
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == "matching.py"))
    assert {method for method in KEYS if code_version(method) != before[method]} == {"match"}
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == "features.py"))
    assert all(code_version(method) != before[method] for method in KEYS)


# --- cells -------------------------------------------------------------------------------------------


def test_a_cell_is_found_again_only_if_nothing_that_shaped_it_changed(tmp_path):
    cell = {"measure": "kl", "options": {"a": 1, "b": [1, 2]}, "seed": 0}
    Cells(tmp_path / "new" / "cells.jsonl").add(cell, {"kl": 0.25}, 1.0)
    cells = Cells(tmp_path / "new" / "cells.jsonl")
    assert cells.get({"seed": 0, "options": {"b": [1, 2], "a": 1}, "measure": "kl"}) == {"kl": 0.25}
    assert cells.get({**cell, "seed": 1}) is None
    assert cells.get({**cell, "options": {"a": 1, "b": [2, 1]}}) is None
    assert fingerprint(cell) != fingerprint({**cell, "seed": "0"})


# --- arithmetic --------------------------------------------------------------------------------------


def row(method: str, target: str, kl: float, f1: float = 0.0, proxy: tuple[float, ...] = ()) -> Row:
    return Row(method, target, 1000, 10, 1, kl, kl, 1.0, 1.0, 2**20, (), (f1,), proxy)


def test_correlations_over_methods_over_all_and_within_targets():
    # Within a target F1 rises with KL reduction; the harder target has the larger reductions.
    easy, hard = [(0.0, 0.90), (0.1, 0.92), (0.2, 0.94)], [(0.5, 0.50), (0.6, 0.52), (0.7, 0.54)]
    rows = [
        row(m, t, *p) for t, ps in (("easy", easy), ("hard", hard)) for m, p in zip("abc", ps, strict=True)
    ]
    found = correlation(rows, "f1")
    assert found["within"] == (pytest.approx(1), 6)
    assert found["methods"] == (pytest.approx(1), 3)
    kl, f1 = np.array(easy + hard).T
    assert found["all"] == (pytest.approx(np.corrcoef(kl, f1)[0, 1]), 6)
    assert found["all"][0] < -0.9


def test_a_method_that_lacks_a_target_is_no_point_over_methods():
    rows = [row(m, t, i + j, i) for i, m in enumerate("abcd") for j, t in enumerate("xy")][:-1]
    assert correlation(rows, "f1")["methods"][1] == 3
    assert math.isnan(correlation(rows[:2], "f1")["all"][0])


def test_where_match_is_worse_than_resample_beyond_the_seeds_is_said():
    losses = {
        ("resample", "a"): (6.0, 6.1, 6.2),
        ("match", "a"): (6.1, 6.2, 6.3),  # higher, but within sqrt(2) * 0.1
        ("resample", "b"): (5.0, 5.01, 5.02),
        ("match", "b"): (5.1, 5.11, 5.12),  # higher
        ("resample", "c"): (5.0, 5.01, 5.02),
        ("match", "c"): (4.0, 4.01, 4.02),
    }
    rows = [row(m, t, 0.0, proxy=values) for (m, t), values in losses.items()]
    table = measure_table(rows, "proxy", "losses", "lower")
    notes = " ".join(table.notes)
    assert "match is worse by more than the seeds' spread on b." in notes
    assert f"match - resample: mean {(0.1 + 0.1 - 1) / 3:+.3f}" in notes and "3 seeds" in notes
    assert table.header == ["method", "a", "b", "c", "mean"]
    assert table.rows[0] == ["resample", "**6.100±0.100**", "**5.010±0.010**", "5.010±0.010", "5.373"]
    assert table.rows[1] == ["match", "6.200±0.100", "5.110±0.010", "**4.010±0.010**", "**5.107**"]


def test_how_match_compares_with_each_of_two_methods_is_said():
    figures = {"resample": (0.2, 0.1), "cynical": (0.4, 0.4), "match": (0.4, 0.2), "random": (0.01, -0.01)}
    rows = [row(m, t, kl) for m, both in figures.items() for t, kl in zip("ab", both, strict=True)]
    table = measure_table(rows, "over_random", "KL", "higher")
    assert [line[0] for line in table.rows] == ["resample", "cynical", "match"]
    assert table.notes == [
        "match - resample: mean +0.150; 2.000 times in the geometric mean over 2 targets, from 2.00 to 2.00; "
        "match is worse on none.",
        "match - cynical: mean -0.100; 0.707 times in the geometric mean over 2 targets, from 0.50 to 1.00; "
        "match is worse on b.",
    ]


def test_the_overview_counts_the_targets_on_which_a_method_predicts_better_than_resample():
    bits = {"resample": (2.0, 3.0), "match": (1.9, 2.9), "clustered": (1.8, 3.1)}
    rows = [
        replace(row(m, t, 0.1), bits=(value,), f1=())
        for m, both in bits.items()
        for t, value in zip("ab", both, strict=True)
    ]
    table = overview_table(rows)
    names = "method;KL over random;KL, paper's;bits per byte;fewer than resample;pieces;seconds"
    assert table.header == names.split(";")
    assert [line[3:5] for line in table.rows] == [["2.500", ""], ["**2.400**", "2 of 2"], ["2.450", "1 of 2"]]


def test_budgets_side_by_side():
    rows = [
        replace(
            row("match", "a", kl), tokens=tokens, documents=documents, duplicates=documents // 10, bits=(kl,)
        )
        for tokens, kl, documents in ((500, 0.3, 20), (2000, 0.2, 80), (2_000_000, 0.1, 8000))
    ]
    quality, made_of = budget_tables(rows)
    assert quality.header == [
        "method",
        *(f"{m} {n}" for m in ("KL", "bits") for n in ("500", "2,000", "2 M")),
    ]
    assert quality.rows == [["match", "0.300", "0.200", "0.100", "0.300", "0.200", "0.100"]]
    assert made_of.rows == [["match", "20", "80", "8,000", "10.0%", "10.0%", "10.0%"]]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_figure_is_cut_in_a_terminal(width):
    targets = ["chemprot", "citation_intent", "dbpedia14", "software_licenses"]
    cells = [[f"0.{i}{j}1±0.0{i}{j}" for j in range(4)] for i in range(1, 9)]
    rows = [[name, *row] for name, row in zip(METHODS, cells, strict=False)]
    rows[1][1] = f"**{rows[1][1]}**"
    table = StudyTable("t", ["method", *targets], rows, [])
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table.rich(width))
    lines = console.export_text().splitlines()
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert all(cell in text for row in cells for cell in row) and "**" not in text
    # Every part has the methods' names, whole.
    assert text.count("classifier top-k") == text.count("method") == (1 if width > 70 else 2)


def test_a_table_as_markdown():
    table = StudyTable("A title", ["name", "x"], [["a|b", "1"]], ["A note."])
    assert table.markdown() == "### A title\n\n| name | x |\n| --- | ---: |\n| a\\|b | 1 |\n\nA note."


# --- measures ----------------------------------------------------------------------------------------


def test_the_figures_of_a_selection_do_not_depend_on_order_and_the_headline_not_on_repetition(data):
    target = StudyCorpus(data, []).targets[0]
    texts = documents("birds", 30, 7) + documents("tools", 30, 8)
    once, reversed_, twice = (
        measures.counts(each, [target], None, 0)[0] for each in (texts, texts[::-1], texts * 2)
    )
    assert once == reversed_
    assert twice["cross_entropy"] == pytest.approx(once["cross_entropy"], abs=1e-12)
    assert (once["duplicates"], twice["duplicates"]) == (0, 60)
    near = measures.counts(documents("birds", 60, 9), [target], None, 0)[0]
    assert near["cross_entropy"] < once["cross_entropy"] and near["kl"] < once["kl"]


def test_what_a_computation_costs():
    with measured() as cost:
        assert np.ones(64 << 20, np.uint8).sum() == 64 << 20
        time.sleep(0.02)
    assert 60 << 20 < cost.memory < 90 << 20
    assert cost.seconds >= 0.02 and cost.cpu > 0
