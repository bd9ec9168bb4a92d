"""Damage to an output is found, named and repaired by the next run."""

import pytest

from dsir_dagster import cli
from dsir_dagster.resources.verification import made_from, verify_files
from tests.pipeline import materialization, sentences


def verify(pipeline):
    return cli.main(["verify", "--config", str(pipeline.config_path), "--home", str(pipeline.home)])


def test_an_undamaged_home_is_said_to_be_so(done, capsys):
    assert verify(done) == 0
    assert "every file is as it was written" in capsys.readouterr().out


OUTPUTS = [
    ("features/pool.law.arrow", "raw_counts[pool.law]"),
    ("documents/pool.law.parquet", "raw_counts[pool.law]"),
    ("weights/target=medicine/pool.code.parquet", "weights[pool.code]"),
    ("importance_estimator/log_ratios.parquet", "importance_estimator"),
    ("target_counts/medicine.parquet", "target_counts[medicine]"),
    ("selections/picked/*/picks.parquet", "selections[picked]"),
    ("selections/picked/*/records-00000.jsonl", "selections[picked]"),
    ("evaluations/picked/*/report.html", "evaluations[picked]"),
]
WEIGHTS = [f"weights[pool.{domain}]" for domain in ("code", "law", "medicine")]
END = ["selections[picked]", "evaluations[picked]"]
FOLLOWERS = {
    "raw_counts[pool.law]": ["importance_estimator", *WEIGHTS, *END],
    "target_counts[medicine]": ["importance_estimator", *WEIGHTS, *END],
    "importance_estimator": [*WEIGHTS, *END],
    "weights[pool.code]": END,
    "selections[picked]": END[1:],
    "evaluations[picked]": [],
}


def files(pipeline) -> dict[str, bytes]:
    """Return the content of all output files except reports, which contain the time."""
    there = (p for kind in STAMPED for p in (pipeline.home / kind).rglob("*") if p.is_file())
    return {str(path.relative_to(pipeline.home)): path.read_bytes() for path in there}


STAMPED = (
    "features",
    "documents",
    "raw_counts",
    "target_counts",
    "importance_estimator",
    "weights",
    "selections",
)


def due(stages) -> list[str]:
    return [each.name for stage in stages.values() for each in stage.due]


@pytest.mark.parametrize(("file", "output"), OUTPUTS)
def test_damage_is_named_and_made_again_with_what_was_made_from_it(done, capsys, file, output):
    [path] = done.home.glob(file)
    before, content = files(done), path.read_bytes()
    path.write_bytes(content[:-9] + b"X" + content[-8:])
    followers = [] if "records" in file else FOLLOWERS[output]
    assert verify(done) == 1
    printed = capsys.readouterr().err
    assert f"{output}: {path} is not what was written" in printed
    for name in followers:
        assert name in printed
    stages = done.run()
    assert due(stages) == [output, *followers]
    for stage in stages.values():
        for each in stage.due:
            assert each.state == "missing" and "set aside by `dsir verify`" in each.why
    assert files(done) == before
    assert verify(done) == 0


@pytest.mark.parametrize(("file", "output"), OUTPUTS[::3])
def test_a_file_that_is_gone_is_made_again_alone(done, capsys, file, output):
    [path] = done.home.glob(file)
    before = files(done)
    path.unlink()
    assert verify(done) == 1
    assert f"{output}: {path} is gone" in capsys.readouterr().err
    stages = done.run()
    assert due(stages) == [output]
    assert "its file is gone" in stages[output.split("[")[0]].due[0].why
    assert files(done) == before


@pytest.mark.slow
def test_a_flipped_bit_is_refused_where_it_is_read_and_after_verify_all_is_as_it_ever_was(pipeline, tmp_path):
    pipeline.write_pool()
    new = {**pipeline.config["targets"][0], "name": "another"}
    assert pipeline.errors() == []
    clean = pipeline.copy(tmp_path / "clean")
    path = pipeline.home / "features/pool.law.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for each in (pipeline, clean):
        each.config["targets"].append(new)
        each.config["selections"].append({"name": "more", "targets": ["another"], "size": {"documents": 9}})
    assert clean.errors() == []
    errors = pipeline.errors()
    assert f"{path}: the file is damaged (checksum of batch 0); `dsir verify` sets it aside" in errors[0]
    assert verify(pipeline) == 1
    assert pipeline.errors() == [] and verify(pipeline) == 0
    assert files(pipeline) == files(clean)


@pytest.mark.slow
def test_a_distribution_that_was_pinned_on_damaged_counts_is_fitted_again(pipeline):
    pipeline.write_pool()
    pipeline.config["estimator"] = {"fit": {"pinned": "first"}}
    assert pipeline.errors() == []
    before = files(pipeline)
    pinned = pipeline.home / "raw_distribution/first.parquet"
    content = pinned.read_bytes()
    path = pipeline.home / "raw_counts/pool.law.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    pinned.write_bytes(pinned.read_bytes())  # whatever its time
    verified = verify_files(pipeline.workspace())
    assert ("raw_distribution", "first") in verified.followers
    assert not pinned.exists() and pipeline.workspace().plan().raw_distribution.state == "missing"
    assert pipeline.errors() == []
    assert pinned.read_bytes() == content and files(pipeline) == before


def test_a_selection_from_weights_that_stayed_when_a_target_came_follows_them(done):
    done.config["targets"].append({**done.config["targets"][0], "name": "another"})
    assert done.errors() == []
    path = done.home / "weights/target=medicine/pool.code.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert verify_files(done.workspace()).followers == [("evaluations", "picked"), ("selections", "picked")]


def test_what_was_made_from_another_version_of_an_output_is_left_alone():
    rows = (
        materialization("raw_counts", "a", "new", {}),
        materialization("raw_distribution", "old", "1", {"raw_counts[a]": "old"}),
        materialization("raw_distribution", "new", "2", {"raw_counts[a]": "new"}),
        materialization("importance_estimator", "", "3", {"raw_distribution[new]": "2"}),
    )
    assert made_from({row.key: row for row in rows}, [("raw_counts", "a")]) == {
        ("raw_distribution", "new"),
        ("importance_estimator", ""),
    }


def test_of_many_damaged_files_twenty_are_named(pipeline, capsys):
    for i in range(22):
        pipeline.write(f"pool/{i:02}.jsonl", sentences("medicine", 3, i))
    assert pipeline.errors() == []
    for path in pipeline.home.glob("documents/pool.*"):
        path.write_bytes(path.read_bytes()[:-1])
    assert verify(pipeline) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "is not what was written" in line]) == 20
    assert "and 2 more" in lines
    [weights] = [line for line in lines if "weights[" in line]
    assert weights.endswith("weights[pool.00], weights[pool.01], weights[pool.02] and 19 more")
    assert lines[-1].startswith("22 files are damaged or gone")


def test_a_home_that_was_moved_with_a_damaged_file_is_repaired_like_any(done):
    picks = done.picks()
    home = done.home.rename(done.folder / "moved")
    done.home = home
    for path in sorted((home / "documents").glob("*.parquet")):
        path.write_bytes(path.read_bytes()[:-20])
    assert len(verify_files(done.workspace()).damages) == 3
    assert done.errors() == []
    assert done.picks() == picks
