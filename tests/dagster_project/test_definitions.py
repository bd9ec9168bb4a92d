"""The definitions load, are complete, and describe themselves."""

import warnings

import dagster as dg
import pytest

from dsir_dagster import definitions
from dsir_dagster.assets.graph import GRAPH
from dsir_dagster.assets.selections import SelectionOptions
from dsir_dagster.definitions import KEPT_UP_TO_DATE, build_defs
from dsir_dagster.resources.settings import ConfigError


def graph(pipeline):
    return build_defs(pipeline.config_path, pipeline.home).resolve_asset_graph()


def test_the_graph_is_the_six_assets_with_valid_partitions(pipeline):
    found = graph(pipeline)
    assert {key.to_user_string() for key in found.get_all_asset_keys()} == set(GRAPH.versions)
    found.validate_partitions()


def test_every_asset_says_what_it_is(pipeline):
    for node in graph(pipeline).asset_nodes:
        assert (
            node.description.endswith(KEPT_UP_TO_DATE) and len(node.description) > len(KEPT_UP_TO_DATE) + 50
        )
        assert node.kinds and node.owners and node.code_version
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


# --- the launchpad ---------------------------------------------------------------------------------------


def launched(pipeline, **options):
    """Materialize the selection as the launchpad does; return why it failed, None if it did not."""
    job = build_defs(pipeline.config_path, pipeline.home).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        run_config={"ops": {"selections": {"config": options}}},
        asset_selection=[dg.AssetKey("selections")],
        partition_key="picked",
        instance=pipeline.instance,
        raise_on_error=False,
    )
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return failures[0] if failures else None


def test_the_defaults_are_what_is_configured_and_differences_are_described(pipeline):
    one = SelectionOptions.shown(pipeline.workspace().settings).model_fields
    assert (one["method"].default, one["documents"].default, one["seed"].default) == ("resample", 20, 0)
    assert one["documents"].description == "Size: number of documents. Configured: 20."
    first = pipeline.config["selections"][0]
    pipeline.config["selections"].append(first | {"name": "other", "method": "top_k", "quality": True})
    two = SelectionOptions.shown(pipeline.workspace().settings).model_fields
    assert (two["method"].default, two["documents"].default) == ("as_configured", 20)
    assert two["method"].description.endswith("Configured: picked resample, other top_k.")
    assert two["quality"].description.endswith("Configured: picked false, other true.")


def test_what_is_left_as_shown_changes_nothing(pipeline):
    pipeline.config["selections"][0] |= {"temperature": 2.0, "seed": 3, "length": "sqrt"}
    settings = pipeline.workspace().settings
    [selection] = settings.selections
    assert (
        SelectionOptions.shown(settings)().apply(selection)
        == SelectionOptions().apply(selection)
        == selection
    )
    changed = SelectionOptions.shown(settings)(tokens=500, method="top_k").apply(selection)
    assert changed.method == "top_k" and changed.size.tokens == 500 and changed.size.documents is None


def test_no_choice_is_an_error_before_a_run(done):
    with pytest.raises(dg.DagsterInvalidConfigError, match="method not in enum type Method got mach"):
        launched(done, method="mach")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_tokens": -1}, "min_tokens: Input should be greater than or equal to 0"),
        (
            {"fraction": 0.5, "tokens": 9},
            "size: expected one of documents, fraction, tokens; given: fraction, tokens",
        ),
    ],
)
def test_an_impossible_value_is_a_failure_with_its_message_alone(done, options, message):
    failure = launched(done, **options)
    assert (
        failure.user_failure_data.description
        == f"selections[picked]: selection 'picked', launchpad: {message}"
    )
    assert failure.error.cause is None and failure.error.context is None
    ours = [frame for frame in failure.error.stack if "site-packages" not in frame]
    assert len(ours) == 1


def test_a_configuration_that_broke_since_it_was_loaded_is_a_failure_with_its_message(done):
    defs = build_defs(done.config_path, done.home)
    done.config["selections"][0]["size"] = {"documents": -1}
    assert done.config_path
    estimator = [dg.AssetKey("importance_estimator")]
    results = [
        defs.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=estimator, instance=done.instance, raise_on_error=False
        ),
        defs.resolve_job_def("refresh").execute_in_process(instance=done.instance, raise_on_error=False),
        defs.resolve_job_def("materialize_shards").execute_in_process(
            run_config={"ops": {"materialize_matching": {"config": {"shards": ["*"]}}}},
            instance=done.instance,
            raise_on_error=False,
        ),
    ]
    for result in results:
        failure = next(event.step_failure_data for event in result.all_events if event.is_step_failure)
        assert "selections[0].size.documents" in failure.user_failure_data.description
        assert failure.error.cause is None


def test_without_a_configuration_the_three_ways_to_name_one_are_said(monkeypatch):
    monkeypatch.delenv("DSIR_CONFIG", raising=False)
    with pytest.raises(ConfigError, match=r"`dsir new FOLDER.*--config my\.yaml.*DSIR_CONFIG.*`\.env`"):
        build_defs()
