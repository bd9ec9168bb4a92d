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
        said.err == ""
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


def test_without_a_target_the_place_to_fill_in_is_marked_and_told(here, capsys):
    write(here / "pool/a.jsonl", sentences("law", 3, seed=1))
    assert cli.main(["new", "pool", "-o", "my.yaml"]) == 0
    assert "fill in the target" in capsys.readouterr().err
    assert "<<< FILL THIS IN" in (here / "my.yaml").read_text()
    assert load_settings("my.yaml").targets[0].uri.endswith("FILL-IN-YOUR-TARGET.jsonl")
    assert cli.main(["run", "--config", "my.yaml"]) == 1
    assert "FILL-IN-YOUR-TARGET.jsonl" in capsys.readouterr().err


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
        (["pool", "-o", "no/such.yaml"], "there is no such folder"),
    ],
)
def test_what_cannot_be_written_is_one_line(here, capsys, arguments, said):
    write(here / "pool/a.jsonl", sentences("law", 3, seed=1))
    (here / "texts").mkdir()
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
