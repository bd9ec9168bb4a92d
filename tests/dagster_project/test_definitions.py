"""The definitions load, are complete, and describe themselves."""

import warnings

import dagster as dg

from dsir_dagster import definitions
from dsir_dagster.assets.graph import GRAPH
from dsir_dagster.definitions import build_defs


def graph(pipeline):
    return build_defs(pipeline.config_path, pipeline.home).resolve_asset_graph()


def test_the_graph_is_the_six_assets_with_valid_partitions(pipeline):
    found = graph(pipeline)
    assert {key.to_user_string() for key in found.get_all_asset_keys()} == set(GRAPH.versions)
    found.validate_partitions()


def test_every_asset_says_what_it_is(pipeline):
    for node in graph(pipeline).asset_nodes:
        assert node.description and node.kinds and node.owners and node.code_version
        assert node.group_name in {"counts", "weights", "selections"}


def test_targets_and_selections_of_the_configuration_are_partitions(pipeline):
    nodes = {node.key.to_user_string(): node for node in graph(pipeline).asset_nodes}
    assert nodes["target_counts"].partitions_def.get_partition_keys() == ["medicine"]
    assert nodes["evaluations"].partitions_def.get_partition_keys() == ["picked"]


def test_building_warns_of_no_beta_feature_whatever_other_threads_do_to_the_filters(pipeline, monkeypatch):
    """Dagster itself swaps the filters of the whole process back and forth, in the threads of runs and sensors."""
    other = warnings.catch_warnings()
    build_automation = definitions.build_automation

    def meanwhile(*arguments):
        other.__exit__(None, None, None)
        return build_automation(*arguments)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        graph(pipeline)
        other.__enter__()
        monkeypatch.setattr(definitions, "build_automation", meanwhile)
        graph(pipeline)
        warnings.warn("another feature", dg.BetaWarning, stacklevel=1)
    of_dagster = [each for each in warned if issubclass(each.category, dg.BetaWarning | dg.PreviewWarning)]
    assert [str(each.message) for each in of_dagster] == ["another feature"]
