"""The README's SQL runs, and its configuration reference is complete."""

import re
from pathlib import Path

import pydantic

from dsir_dagster.assets.methods import METHODS
from dsir_dagster.resources.settings import Settings

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_every_query_of_the_readme_runs_on_a_catalog(done):
    [block] = re.findall(r"```sql\n(.*?)```", README, flags=re.S)
    queries = [query for query in block.split(";") if query.strip()]
    assert len(queries) >= 4
    for query in queries:
        done.rows(query)


def test_the_query_for_what_was_made_from_a_file_finds_all_of_it(done):
    queries = re.findall(r"```sql\n(.*?)```", README, flags=re.S)[0].split(";")
    [query] = [query for query in queries if "dependents(" in query]
    found = {
        f"{asset}[{partition}]" if partition else asset
        for asset, partition, *_ in done.rows(query.replace("aws-00.jsonl.zst", "law.jsonl"))
    }
    weights = {f"weights[pool.{domain}]" for domain in ("medicine", "law", "code")}
    assert found == weights | {
        "raw_counts[pool.law]",
        "importance_estimator",
        "selections[picked]",
        "evaluations[picked]",
    }


def test_every_key_of_the_configuration_is_in_the_readme():
    def keys(model):
        for name, field in model.model_fields.items():
            inner = [
                t
                for t in (field.annotation, *getattr(field.annotation, "__args__", ()))
                if isinstance(t, type)
            ]
            models = [t for t in inner if issubclass(t, pydantic.BaseModel)]
            yield name
            for each in models:
                yield from keys(each)

    own = {key for method in METHODS.values() for key in keys(method.options)}
    for key in own | set(keys(Settings)) - {"options"}:  # those of a method stand beside the others
        assert re.search(rf"[`.{{]{key}[`.\[:]", README), key
