"""`dsir new` and `dsir schema`: what is proposed for files as people have them, and that it runs as it is."""

import json
import re

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.pool import REPOSITORY
from dsir_dagster import cli
from dsir_dagster.resources.settings import load_settings
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.schema import configuration_schema
from dsir_dagster.status import collect_status
from tests.pipeline import sentences


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / ".dsir" / "dagster"))
    for name in ("DSIR_CONFIG", "DSIR_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))


def proposed(path="dsir.yaml"):
    return yaml.safe_load(open(path))


def test_what_is_written_for_odd_files_runs_as_it_is(here, capsys):
    """JSON Lines with odd names, Parquet with nested fields, and a file of no known format among them."""
    rows = sentences("law", 30, seed=1)
    write(
        here / "pool/web/a.jsonl",
        [{"Body": row["text"], "url": f"https://host/{i}", "lang": "en"} for i, row in enumerate(rows)],
    )
    write(
        here / "pool/books/b.parquet",
        [
            {"meta": {"doc_id": i, "source": "ab"[i % 2]}, "title": "x y", "content": row["text"]}
            for i, row in enumerate(sentences("medicine", 30, seed=2))
        ],
    )
    (here / "pool/web/README.md").write_text("no data")
    write(here / "more/train.jsonl", sentences("medicine", 40, seed=3))
    assert cli.main(["new", "pool", "--target", "more/train.jsonl"]) == 0
    said = capsys.readouterr()
    assert (
        said.err == f"left out: {here / 'pool/web/README.md'}: of no known format\n"
        and "dsir run" in said.out
        and len(re.findall("^(web|books|more) .*…", said.out, re.M)) == 5
    )
    written = proposed()
    assert written["raw"] == [
        {
            "name": "books",
            "uri": "pool/books/*.parquet",
            "text": "content",
            "id": "meta.doc_id",
            "source": "meta.source",
        },
        {"name": "web", "uri": "pool/web/*.jsonl", "text": "Body", "id": "url"},
    ]
    assert written["targets"] == [{"name": "more", "uri": "more/train.jsonl", "text": "text", "id": "id"}]
    first = (here / "dsir.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=dsir.schema.json"
    assert json.loads((here / "dsir.schema.json").read_text()) == json.loads(
        json.dumps(configuration_schema())
    )
    assert cli.main(["run"]) == 0
    said = capsys.readouterr()
    assert said.err == f"the configuration is {here / 'dsir.yaml'}\n" and "up to date" in said.out
    known = collect_status(Workspace(here / "dsir.yaml", here / ".dsir"))
    assert {each.state for each in known.outputs} == {"fresh"}


def test_an_existing_file_stays_as_it_is(here, capsys):
    write(here / "pool/a.jsonl", sentences("law", 3, seed=1))
    (here / "dsir.yaml").write_text("mine")
    assert cli.main(["new", "pool"]) == 2
    assert "dsir.yaml: this file exists and stays as it is" in capsys.readouterr().err
    assert (here / "dsir.yaml").read_text() == "mine"


def test_a_foreign_schema_stays_as_it_is(here, capsys):
    write(here / "pool/a.jsonl", sentences("law", 3, seed=1))
    (here / "dsir.schema.json").write_text("{}")
    assert cli.main(["new", "pool"]) == 2
    assert not (here / "dsir.yaml").exists() and (here / "dsir.schema.json").read_text() == "{}"


@pytest.mark.parametrize("command", ["run", "doctor", "status"])
def test_without_a_target_the_place_to_fill_in_is_told_and_refused_at_once(here, capsys, command):
    write(here / "pool/a.jsonl", sentences("law", 3, seed=1))
    assert cli.main(["new", "pool", "-o", "my.yaml"]) == 0
    assert "fill in the target" in capsys.readouterr().err
    assert "<<< FILL THIS IN" in (here / "my.yaml").read_text()
    assert cli.main([command, "--config", "my.yaml"]) == 2
    said = capsys.readouterr()
    assert "targets[0].uri: this is a placeholder; write the path of what you want more of" in said.err
    assert said.out == "" and not (here / ".dsir/catalog.duckdb").exists()
    text = (here / "my.yaml").read_text()
    (here / "my.yaml").write_text(text.replace("FILL-IN-YOUR-TARGET", "mine"))
    assert load_settings("my.yaml").targets[0].uri == str(here / "mine.jsonl")


def test_a_target_without_its_files_is_told_before_the_pool_is_counted(here, capfd):
    write(here / "pool/a.jsonl", sentences("law", 20, seed=1))
    write(here / "mine.jsonl", sentences("law", 20, seed=2))
    assert cli.main(["new", "pool", "--target", "mine.jsonl"]) == 0
    (here / "mine.jsonl").unlink()
    capfd.readouterr()
    assert cli.main(["run", "--config", "dsir.yaml"]) == 1
    said = capfd.readouterr()
    assert said.err.startswith(f"target mine: {here / 'mine.jsonl'}: no such file; check the uri")
    assert "raw_counts           1 recomputed" in said.out  # which is not in vain


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"text": "some words here", "id": 1}, {"text": "text", "id": "id"}),
        (
            {"instruction": "Do this now", "input": "", "output": "as you say"},
            {"text": ["instruction", "input", "output"]},
        ),
        (
            {"messages": [{"role": "user", "content": "words of it"}], "uuid": "a"},
            {"text": "messages.content", "id": "uuid"},
        ),
        (
            {"raw_content": "a long text", "metadata": '{"source": "law"}', "doc_id": "x"},
            {"text": "raw_content", "id": "doc_id", "source": "metadata.source"},
        ),
        (
            {"url": "https://a/b c", "abstract": "it is a text of several words"},
            {"text": "abstract", "id": "url"},
        ),
        (
            {"text": "many words", "meta": {"pile_set_name": "PubMed"}},
            {"text": "text", "source": "meta.pile_set_name"},
        ),
    ],
)
def test_fields_are_found_by_name_and_content(here, record, expected):
    unique = ("id", "uuid", "doc_id", "url")
    rows = [{k: f"{v}{i}" if k in unique else v for k, v in record.items()} for i in range(6)]
    write(here / "pool/a.jsonl", rows)
    assert cli.main(["new", "pool"]) == 0
    [source] = proposed()["raw"]
    assert {key: source[key] for key in source if key not in ("name", "uri")} == expected


def test_a_bad_file_leaves_out_its_source_only(here, capsys):
    write(here / "pool/a.jsonl", sentences("law", 3, seed=1))
    (here / "pool/b.parquet").write_bytes(b"")
    assert cli.main(["new", "pool"]) == 0
    assert f"left out: {here / 'pool/b.parquet'}: " in capsys.readouterr().err
    assert [each["uri"] for each in proposed()["raw"]] == ["pool/*.jsonl"]


def test_each_file_that_cannot_be_used_is_named_with_the_reason(here, capsys):
    rows = sentences("law", 30, seed=1)
    write(here / "pool/a.jsonl", rows)
    write(here / "pool/b.jsonl", [{"body": row["text"], "id": row["id"]} for row in rows])
    write(here / "pool/c.jsonl", [row | {"text": None} for row in rows])
    write(
        here / "pool/d.jsonl", [row | {"text": row["text"] if i < 20 else None} for i, row in enumerate(rows)]
    )
    (here / "pool/a.csv").write_text("id,text\n" + "".join(f"{i},some words\n" for i in range(9)))
    (here / "pool/b.csv").write_text("id;text\n" + "".join(f"{i};some words\n" for i in range(9)))
    (here / "pool/notes.txt").write_text("text")
    assert cli.main(["new", "pool"]) == 0
    said = capsys.readouterr()
    b, c, csv, notes = (str(here / "pool" / name) for name in ("b.jsonl", "c.jsonl", "b.csv", "notes.txt"))
    assert f"not usable: the beginning of {b}: none of its 30 rows can be used: no field 'text'" in said.err
    assert f"not usable: the beginning of {c}: none of its 30 rows can be used" in said.err
    assert f"not usable: {csv}: its header is delimited by semicolons: convert it" in said.err
    assert f"left out: {notes}: of no known format\n" in said.err
    assert len(said.err.splitlines()) == 5  # and the placeholder
    files = "pool/b.jsonl (30), pool/c.jsonl (30), pool/d.jsonl (10)"
    assert [each["name"] for each in proposed()["raw"]] == ["pool-csv", "pool-jsonl"]
    assert f"  70 of 120 sampled records have no usable text: {files}\n" in said.out


def test_of_many_files_that_are_left_out_only_some_are_named(here, capsys):
    write(here / "pool/a.jsonl", sentences("law", 3, seed=1))
    for i in range(14):
        (here / f"pool/{i}.txt").touch()
    assert cli.main(["new", "pool"]) == 0
    *named, more, _ = capsys.readouterr().err.splitlines()
    assert len(named) == 10 and more == "left out: and 4 more"


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ([1, 1, 2, 3], "`id` is not unique: 1 of 4 sampled records repeat one"),
        ([1, None, None, None], "`id` is missing in 3 of 4 sampled records"),
    ],
)
def test_why_the_field_id_is_not_the_id(here, ids, why):
    rows = [{"id": id_, "text": "some words", "url": f"u{i}"} for i, id_ in enumerate(ids)]
    write(here / "pool/a.jsonl", rows)
    assert cli.main(["new", "pool"]) == 0
    assert f"    id: url\n    # {why}\n" in (here / "dsir.yaml").read_text()


def test_an_id_that_is_cut_shows_it(here, capsys):
    long = "https://host.example.org/a/long/path/"
    write(
        here / "pool/a.jsonl",
        [row | {"id": f"{long}{i}"} for i, row in enumerate(sentences("law", 3, seed=1))],
    )
    assert cli.main(["new", "pool"]) == 0
    assert f" {long[:23]}… " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "uri", "holdout", "unused"),
    [
        (["train.jsonl", "test.jsonl"], "mine/train.jsonl", "mine/test.jsonl", None),
        (
            ["train.jsonl", "test.jsonl", "valid.jsonl"],
            "mine/train.jsonl",
            "mine/test.jsonl",
            "mine/valid.jsonl",
        ),
        (["x-train.jsonl", "x_dev.jsonl"], "mine/x-train.jsonl", "mine/x_dev.jsonl", None),
        (
            ["train/0.jsonl", "train/1.jsonl", "held_out.jsonl"],
            "mine/train/*.jsonl",
            "mine/held_out.jsonl",
            None,
        ),
        (
            ["train-0-of-2.jsonl", "train-1-of-2.jsonl", "test-0-of-1.jsonl"],
            "mine/train-*.jsonl",
            "mine/test-0-of-1.jsonl",
            None,
        ),
        (["a-train.jsonl", "b-train.jsonl", "a-test.jsonl"], "mine/*-train.jsonl", "mine/a-test.jsonl", None),
        (["train.jsonl", "more.jsonl", "test.jsonl"], "mine/*.jsonl", None, None),
        (["train.jsonl", "latest.jsonl"], "mine/*.jsonl", None, None),
        (["training.jsonl", "trained.jsonl"], "mine/*.jsonl", None, None),
    ],
)
def test_a_target_whose_files_say_what_is_held_out(here, capsys, files, uri, holdout, unused):
    write(here / "a.jsonl", sentences("law", 3, seed=1))
    for i, name in enumerate(files):
        write(here / "mine" / name, sentences("medicine", 3, seed=i))
    assert cli.main(["new", ".", "--target", "mine"]) == 0
    said, written = capsys.readouterr(), (here / "dsir.yaml").read_text()
    [target] = proposed()["targets"]
    assert (target["name"], target["uri"], target.get("holdout")) == ("mine", uri, holdout)
    assert (f"  holdout: {holdout}  " in said.out) == bool(holdout) == ("# holdout: PATH" not in written)
    assert (f"# not used: {unused}\n" in written) == (f"; not used: {unused}\n" in said.out) == bool(unused)
    assert [each["uri"] for each in proposed()["raw"]] == ["*.jsonl"]
    assert said.err == ""


def test_the_target_is_not_part_of_the_pool(here):
    write(here / "all/a.jsonl", sentences("law", 3, seed=1))
    write(here / "all/mine.jsonl", sentences("medicine", 3, seed=2))
    assert cli.main(["new", "all", "--target", "all/mine.jsonl"]) == 0
    assert [each["uri"] for each in proposed()["raw"]] == ["all/a.jsonl"]


def test_a_folder_that_looks_like_a_pattern(here):
    write(here / "[2024] pool/a.jsonl", sentences("law", 3, seed=1))
    write(here / "[2024] target.jsonl", sentences("law", 3, seed=2))
    assert cli.main(["new", "[2024] pool", "--target", "[2024] target.jsonl"]) == 0
    workspace = Workspace(here / "dsir.yaml", here / ".dsir")
    assert len(workspace.plan().shards) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: there is no such file or folder"),
        (["texts"], "none of its 1 file is of a known format"),
        (
            ["empty"],
            "empty: there are no files in this folder, hidden and temporary ones apart; expected one of .jsonl",
        ),
        (["pool", "--target", "empty"], "empty: there are no files in this folder"),
        (["pool/*.csv"], "no file matches this pattern; correct the pattern, for example"),
        (["pool", "-o", "no/such.yaml"], "there is no such folder"),
    ],
)
def test_what_cannot_be_written_is_one_line(here, capsys, arguments, said):
    write(here / "pool/a.jsonl", sentences("law", 3, seed=1))
    (here / "texts").mkdir()
    (here / "empty").mkdir()
    (here / "empty/.hidden").touch()
    (here / "texts/a.txt").write_text("text")
    assert cli.main(["new", *arguments]) in (1, 2)
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1


# --- the schema -----------------------------------------------------------------------------------------------------


def test_the_schema_takes_the_demo_and_refuses_what_the_configuration_refuses(capsys):
    assert cli.main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    content = yaml.safe_load((REPOSITORY / "demo" / "dsir.yaml").read_text())
    assert list(validator.iter_errors(content)) == []
    content["selections"][0] |= {"temperature": 2.0, "quality": True, "source_caps": {"law": 0.5}}
    content["raw"][0]["group"] = {"bytes": "256 MB"}
    content["estimator"] = {"fit": {"pinned": "2026"}}
    assert list(validator.iter_errors(content)) == []
    for section, change in (
        ("selections", {"min_token": 3}),
        ("selections", {"method": "mach"}),
        ("selections", {"method": "top_k", "epochs": 2}),
        ("selections", {"temperature": 0}),
        ("selections", {"size": {"documents": 3, "tokens": 3}}),
        ("raw", {"uri": 3}),
    ):
        [first, *rest] = content[section]
        changed = content | {section: [first | change, *rest]}
        assert list(validator.iter_errors(changed)), change


def test_every_key_of_the_schema_is_described():
    schema = configuration_schema()
    for name, model in schema["$defs"].items():
        for key, value in model.get("properties", {}).items():
            assert value.get("description") or all("description" in each for each in value["anyOf"]), (
                name,
                key,
            )
