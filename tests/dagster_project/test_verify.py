"""Damage to an output is found, named and repaired by the next run."""

import pytest

from dagster_project import cli


def verify(pipeline):
    return cli.main(["verify", "--config", str(pipeline.config_path), "--home", str(pipeline.home)])


def test_an_undamaged_home_is_said_to_be_so(done, capsys):
    assert verify(done) == 0
    assert "every file is as it was written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "output"),
    [
        ("features/pool.law.arrow", "raw_counts[pool.law]"),
        ("documents/pool.law.parquet", "raw_counts[pool.law]"),
        ("weights/target=medicine/pool.code.parquet", "weights[pool.code]"),
        ("importance_estimator/log_ratios.parquet", "importance_estimator"),
        ("target_counts/medicine.parquet", "target_counts[medicine]"),
        ("selections/picked/*/records-00000.jsonl", "selections[picked]"),
    ],
)
@pytest.mark.parametrize("damage", ["truncated", "edited", "removed"])
def test_damage_is_named_and_repaired_by_the_next_run_alone(done, capsys, file, output, damage):
    [path] = done.home.glob(file)
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes(content[:-7] if damage == "truncated" else content[:-9] + b"X" + content[-8:])
    assert verify(done) == 1
    printed = capsys.readouterr().err.replace("\n", "")
    assert f"{output}: {path}" in printed
    stages = done.run()
    assert [each.name for stage in stages.values() for each in stage.due] == [output]
    assert "is gone" in stages[output.split("[")[0]].due[0].why
    assert path.read_bytes() == content
    assert verify(done) == 0


def test_a_home_that_was_moved_with_a_damaged_file_is_repaired_like_any(done):
    picks = done.picks()
    home = done.home.rename(done.folder / "moved")
    done.home = home
    for path in sorted((home / "documents").glob("*.parquet")):
        path.write_bytes(path.read_bytes()[:-20])
    assert len(done.workspace().damaged()) == 3
    assert done.errors() == []
    assert done.picks() == picks
