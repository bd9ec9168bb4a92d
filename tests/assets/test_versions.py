"""The version of an asset's code is raised where its outputs change: nobody has to remember it."""

import json
from dataclasses import replace

import pytest

from dsir_dagster.assets.graph import GRAPH
from tests.assets.versions import RECORDED, current, forgotten, sources_of


def test_no_version_is_forgotten():
    told = forgotten(json.loads(RECORDED.read_text()), current())
    if told:
        pytest.fail("\n\n".join(told), pytrace=False)


def test_a_change_of_the_sources_is_told_with_what_to_do(monkeypatch):
    recorded, now = current(), current()
    now["digests"]["dsir.importance"] = "another"
    told = forgotten(recorded, now)
    assert any(line.startswith("weights, version") for line in told)
    assert not any(line.startswith("raw_counts") for line in told), "which does not weigh"
    assert all("raise `version` in" in line and "tests.assets.versions" in line for line in told)
    monkeypatch.setitem(GRAPH.assets, "weights", replace(GRAPH["weights"], version="raised"))
    [line] = [line for line in forgotten(recorded, now) if line.startswith("weights")]
    assert "Its version was raised: record that" in line


def test_what_a_step_imports_of_the_method_is_behind_it():
    assert {"dsir.features", "dsir.featurizer.kernel"} <= set(sources_of("raw_counts"))
    assert {"dsir.matching", "dsir_dagster.assets.methods.match"} <= set(sources_of("selections"))
    assert "dsir_dagster.resources.corpus.lines" in sources_of("raw_counts")
