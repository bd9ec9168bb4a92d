"""The plan: what is fresh, stale or missing after a change, and the words that say why."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsir_dagster.assets.graph import GRAPH
from dsir_dagster.resources.lineage import InputList, Lineage, divided, together
from dsir_dagster.resources.plan import Output, Plan, ShardFile, fingerprint
from dsir_dagster.resources.settings import Settings
from tests.pipeline import materialization

CONFIGURATION = {
    "raw": [{"name": "wiki", "uri": "/pool/wiki-*.jsonl"}, {"name": "books", "uri": "/pool/books-*.jsonl"}],
    "targets": [
        {"name": "chem", "uri": "/targets/chem.jsonl", "holdout": "/targets/chem-test.jsonl"},
        {"name": "law", "uri": "/targets/law.jsonl"},
    ],
    "selections": [
        {"name": "tenth", "targets": ["chem"], "size": {"fraction": 0.1}},
        {"name": "both", "targets": ["chem", "law"], "size": {"documents": 50}},
    ],
}
COUNTS = {"raw_counts[wiki-0]", "raw_counts[wiki-1]", "raw_counts[books-0]"}
TARGETS = {"target_counts[chem]", "target_counts[law]"}
WEIGHTS = {"weights[wiki-0]", "weights[wiki-1]", "weights[books-0]"}
TENTH = {"selections[tenth]", "evaluations[tenth]"}
BOTH = {"selections[both]", "evaluations[both]"}
FROM_ESTIMATOR = {"importance_estimator", *WEIGHTS, *TENTH, *BOTH}
EVERYTHING = COUNTS | TARGETS | FROM_ESTIMATOR


def shard(key: str, stamp: str = "1", uri: str | None = None, modified: float = 1.0) -> ShardFile:
    return ShardFile(key, key.partition("-")[0], uri or f"/pool/{key}.jsonl", 1000, modified, stamp)


@dataclass
class World:
    """A configuration, the files that there are, and what was materialized of them."""

    configuration: dict = field(default_factory=lambda: copy.deepcopy(CONFIGURATION))
    shards: dict[str, ShardFile] = field(
        default_factory=lambda: {key: shard(key) for key in ("wiki-0", "wiki-1", "books-0")}
    )
    stamps: dict[str, str] = field(default_factory=lambda: {"chem": "1", "law": "1"})
    latest: dict[tuple[str, str], Lineage] = field(default_factory=dict)

    def plan(self) -> Plan:
        settings = Settings.model_validate(self.configuration)
        return Plan(settings, list(self.shards.values()), self.stamps, self.latest)

    def state(self, state: str) -> set[str]:
        return {output.name for output in self.plan().outputs() if output.state == state}

    def why(self, name: str) -> str:
        return next(output for output in self.plan().outputs() if output.name == name).why

    def materialize(self, *wanted: str) -> list[str]:
        """Bring everything that these patterns match up to date, upstream first; return what was done."""
        done = []
        for asset in GRAPH.versions:
            for output in self.plan().outputs():
                asked = not wanted or any(fnmatchcase(output.name, pattern) for pattern in wanted)
                if output.asset == asset and output.state != "fresh" and asked:
                    made = materialization(output.asset, output.partition, output.fingerprint, output.inputs)
                    self.latest[made.key] = made
                    done.append(output.name)
        return done


@pytest.fixture
def world() -> World:
    """A world in which everything is fresh."""
    world = World()
    world.materialize()
    return world


def test_at_first_everything_is_missing_and_after_one_pass_in_order_everything_is_fresh():
    world = World()
    assert world.state("missing") == EVERYTHING
    assert world.why("weights[wiki-0]") == "never materialized"
    assert set(world.materialize()) == EVERYTHING
    assert world.state("fresh") == EVERYTHING
    assert all(output.why == "" for output in world.plan().outputs())
    assert world.materialize() == []


def test_outputs_are_listed_upstream_first(world):
    assets = [output.asset for output in world.plan().outputs()]
    assert assets == sorted(assets, key=list(GRAPH.versions).index)


# --- what a change makes stale -----------------------------------------------------------------------


def configure(*path: str | int, to: object) -> Callable[[World], None]:
    """Return the change of one value of the configuration."""

    def change(world: World) -> None:
        at = world.configuration
        for part in path[:-1]:
            at = at.setdefault(part, {}) if isinstance(at, dict) else at[part]
        at[path[-1]] = to

    return change


def restamp_shard(world: World) -> None:
    world.shards["wiki-0"] = shard("wiki-0", stamp="2")


def restamp_target(world: World) -> None:
    world.stamps["chem"] = "2"


CHANGES = {
    "content of a shard": (
        restamp_shard,
        {"raw_counts[wiki-0]", *FROM_ESTIMATOR},
        {
            "raw_counts[wiki-0]": "changed: file",
            "importance_estimator": "gone: raw_counts[wiki-0]",
            "weights[wiki-0]": "changed: importance_estimator, raw_counts[wiki-0]",
            "weights[books-0]": "changed: importance_estimator",
        },
    ),
    "content of a target": (
        restamp_target,
        {"target_counts[chem]", *FROM_ESTIMATOR},
        {"target_counts[chem]": "changed: file", "importance_estimator": "gone: target_counts[chem]"},
    ),
    "text field of a source": (
        configure("raw", 0, "text", to="body"),
        {"raw_counts[wiki-0]", "raw_counts[wiki-1]", *FROM_ESTIMATOR},
        {"raw_counts[wiki-1]": "changed: reader (text 'text' -> 'body')"},
    ),
    "text fields of a target": (
        configure("targets", 1, "text", to=["title", "body"]),
        {"target_counts[law]", "importance_estimator", *WEIGHTS, *BOTH},  # `tenth` is of the other target
        {"target_counts[law]": "changed: reader (text 'text' -> ['title', 'body'])"},
    ),
    "id field of a source": (
        configure("raw", 1, "id", to="key"),
        {"raw_counts[books-0]", *FROM_ESTIMATOR},
        {"raw_counts[books-0]": "changed: reader (id None -> 'key')"},
    ),
    "reader of a source": (
        configure("raw", 1, "reader", to="my:read"),
        {"raw_counts[books-0]", *FROM_ESTIMATOR},
        {"raw_counts[books-0]": "changed: reader (reader None -> 'my:read')"},
    ),
    "origin field of a source": (
        configure("raw", 1, "source", to="meta.set"),
        {"raw_counts[books-0]", *FROM_ESTIMATOR},
        {"raw_counts[books-0]": "changed: source"},
    ),
    "length of the n-grams": (
        configure("features", "ngrams", to=3),
        EVERYTHING,
        {
            "raw_counts[wiki-0]": "changed: features (ngrams 2 -> 3)",
            "target_counts[law]": "changed: features (ngrams 2 -> 3)",
        },
    ),
    "several features": (
        configure("features", to={"buckets": 500, "hash": "sha256"}),
        EVERYTHING,
        {"raw_counts[wiki-0]": "changed: features (buckets 10000 -> 500, hash 'fast' -> 'sha256')"},
    ),
    "smoothing of the estimator": (
        configure("estimator", "target_smoothing", to=0.5),
        FROM_ESTIMATOR,
        {
            "importance_estimator": "changed: configuration (target_smoothing 0.0 -> 0.5)",
            "weights[wiki-0]": "changed: importance_estimator",
        },
    ),
    "sample that is fitted on": (
        configure("estimator", "fit", to={"ngrams": 10}),
        FROM_ESTIMATOR,
        {"importance_estimator": "changed: configuration (fit 'all' -> {'ngrams': 10})"},
    ),
    "seed of a selection": (
        configure("selections", 0, "seed", to=1),
        TENTH,
        {
            "selections[tenth]": "changed: configuration (seed 0 -> 1)",
            "evaluations[tenth]": "changed: selections[tenth]",
        },
    ),
    "size of a selection": (
        configure("selections", 1, "size", to={"tokens": 9}),
        BOTH,
        {"selections[both]": "changed: configuration (size {'documents': 50} -> {'tokens': 9})"},
    ),
    "method of a selection": (
        configure("selections", 0, "method", to="top_k"),
        TENTH,
        {"selections[tenth]": "changed: configuration (method 'resample' -> 'top_k')"},
    ),
    "shares of a selection": (
        configure("selections", 1, "shares", to=[1, 2]),
        BOTH,
        {"selections[both]": "changed: configuration (shares None -> [1.0, 2.0])"},
    ),
    "order of a selection's targets": (
        configure("selections", 1, "targets", to=["law", "chem"]),
        BOTH,
        {"selections[both]": "changed: configuration (targets ['chem', 'law'] -> ['law', 'chem'])"},
    ),
    "shortest document of a selection": (
        configure("selections", 0, "min_tokens", to=5),
        TENTH,
        {"selections[tenth]": "changed: configuration (min_tokens 100 -> 5)"},
    ),
    "output of a selection": (
        configure("selections", 0, "output", to="parquet"),
        TENTH,
        {"selections[tenth]": "changed: configuration (output 'jsonl' -> 'parquet')"},
    ),
    "random selections of an evaluation": (
        configure("evaluation", "random_seeds", to=7),
        {"evaluations[tenth]", "evaluations[both]"},
        {"evaluations[both]": "changed: configuration (random_seeds 5 -> 7)"},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_makes_exactly_what_depends_on_it_stale_and_says_what_changed(world, name):
    change, stale, reasons = CHANGES[name]
    change(world)
    assert world.state("stale") == stale
    assert world.state("fresh") == EVERYTHING - stale
    assert {output: world.why(output) for output in reasons} == reasons


@pytest.mark.parametrize("name", CHANGES)
def test_after_a_change_one_pass_makes_everything_fresh_and_taking_it_back_does_so_too(world, name):
    before = copy.deepcopy(world)
    CHANGES[name][0](world)
    world.materialize()
    assert world.state("fresh") == EVERYTHING
    back = replace(before, latest=world.latest)
    back.materialize()
    assert back.latest == before.latest


@pytest.mark.parametrize("asset", GRAPH.versions)
def test_a_new_version_of_an_assets_code_makes_it_and_what_follows_stale(world, monkeypatch, asset):
    monkeypatch.setitem(GRAPH.assets, asset, replace(GRAPH[asset], version="another"))
    follow = {
        "raw_counts": COUNTS | FROM_ESTIMATOR,
        "target_counts": TARGETS | FROM_ESTIMATOR,
        "importance_estimator": FROM_ESTIMATOR,
        "weights": WEIGHTS | TENTH | BOTH,
        "selections": TENTH | BOTH,
        "evaluations": {"evaluations[tenth]", "evaluations[both]"},
    }
    assert world.state("stale") == follow[asset]
    first = min(name for name in follow[asset] if name.startswith(asset))
    assert world.why(first) == "changed: code"


def test_another_kernel_makes_the_counts_stale_and_all_that_follows(world, monkeypatch):
    monkeypatch.setattr("dsir_dagster.resources.plan.KERNEL_VERSION", "another")
    assert world.state("stale") == EVERYTHING
    assert world.why("raw_counts[wiki-0]") == world.why("target_counts[chem]") == "changed: kernel"


# --- what does not matter ----------------------------------------------------------------------------


def move_pool(world: World) -> None:
    world.shards = {key: shard(key, uri=f"s3://new/{key}.jsonl", modified=9.0) for key in world.shards}
    for section in ("raw", "targets"):
        for entry in world.configuration[section]:
            entry["uri"] = entry["uri"].replace("/", "/elsewhere/", 1)


def reverse_shards(world: World) -> None:
    world.shards = dict(reversed(world.shards.items()))


def reverse_configuration(world: World) -> None:
    for section in ("raw", "targets", "selections"):
        world.configuration[section].reverse()
    world.stamps = dict(reversed(world.stamps.items()))


def write_defaults_out(world: World) -> None:
    world.configuration |= {
        "features": {"hash": "fast", "buckets": 10_000, "ngrams": 2, "tokenizer": "wordpunct"},
        "estimator": {"fit": "all", "target_smoothing": 0},
        "evaluation": {"smoothing": 0.5},
    }
    world.configuration["selections"][0]["seed"] = 0


@pytest.mark.parametrize("change", [move_pool, reverse_shards, reverse_configuration, write_defaults_out])
def test_paths_and_order_and_defaults_written_out_make_nothing_stale(world, change):
    change(world)
    assert world.state("fresh") == EVERYTHING


def test_targets_in_another_order_are_not_taken_for_each_other(world):
    # Weights are laid out target by target in the order of the plan they were computed under.
    before = world.plan()
    world.configuration["targets"].reverse()
    after = world.plan()
    same_files = after.weights("wiki-0").fingerprint == before.weights("wiki-0").fingerprint
    assert not same_files or after.counted_targets == before.counted_targets


def test_a_fingerprint_is_sixteen_hexadecimal_digits_whatever_the_order_of_the_keys():
    one = fingerprint({"a": "1", "b": "2"})
    assert one == fingerprint({"b": "2", "a": "1"})
    assert len(one) == 16 and int(one, 16) >= 0
    assert one != fingerprint({"a": "2", "b": "1"})
    assert one != fingerprint({"a": "1"})


def test_no_two_outputs_have_the_same_fingerprint_even_of_equal_files(world):
    outputs = world.plan().outputs()
    assert len({output.fingerprint for output in outputs}) == len(outputs) == len(EVERYTHING)


# --- shards, targets and selections that come and go --------------------------------------------------


def test_a_shard_that_is_not_counted_leaves_the_estimator_defined_over_the_rest(world):
    world.shards["wiki-2"] = shard("wiki-2")
    assert world.state("missing") == {"raw_counts[wiki-2]", "weights[wiki-2]"}
    assert world.state("stale") == set()
    plan = world.plan()
    assert plan.counted == ["books-0", "wiki-0", "wiki-1"] and plan.uncounted == ["wiki-2"]
    assert "raw_counts[wiki-2]" not in plan.importance_estimator.inputs
    assert plan.importance_estimator.inputs.keys() >= COUNTS


def test_a_new_shard_takes_part_once_it_is_counted(world):
    world.shards["wiki-2"] = shard("wiki-2")
    assert world.materialize("raw_counts*") == ["raw_counts[wiki-2]"]
    assert world.state("stale") == FROM_ESTIMATOR
    assert world.why("importance_estimator") == "new: raw_counts[wiki-2]"
    assert world.why("selections[tenth]") == (
        "changed: weights[books-0], weights[wiki-0], weights[wiki-1]; new: weights[wiki-2]"
    )


def test_a_shard_that_is_not_counted_any_more_leaves_the_rest_to_be_fitted(world):
    restamp_shard(world)
    assert world.plan().uncounted == ["wiki-0"]
    done = world.materialize("importance_estimator", "weights[[]wiki-1]", "weights[[]books-0]", "selections*")
    assert done == [
        "importance_estimator",
        "weights[books-0]",
        "weights[wiki-1]",
        "selections[tenth]",
        "selections[both]",
    ]
    assert world.state("stale") == {
        "raw_counts[wiki-0]",
        "weights[wiki-0]",
        "evaluations[tenth]",
        "evaluations[both]",
    }


def test_a_shard_that_is_gone_is_not_listed_and_what_was_fitted_on_it_is_stale(world):
    del world.shards["wiki-1"]
    assert world.state("stale") == FROM_ESTIMATOR - {"weights[wiki-1]"}
    assert world.why("importance_estimator") == "gone: raw_counts[wiki-1]"
    assert not any(output.partition == "wiki-1" for output in world.plan().outputs())


def test_many_reasons_are_cut_short_with_their_number(world):
    world.shards |= {f"wiki-{i}": shard(f"wiki-{i}") for i in range(2, 8)}
    world.materialize("raw_counts*")
    assert world.why("importance_estimator") == (
        "new: raw_counts[wiki-2], raw_counts[wiki-3], raw_counts[wiki-4] and 3 more"
    )


def test_a_new_selection_is_missing_and_the_others_stay_fresh(world):
    world.configuration["selections"].append({"name": "new", "targets": ["law"], "size": {"documents": 1}})
    assert world.state("missing") == {"selections[new]", "evaluations[new]"}
    assert world.state("stale") == set()


def test_a_new_target_is_missing_and_changes_nothing_until_it_is_counted(world):
    world.configuration["targets"].append({"name": "new", "uri": "/targets/new.jsonl"})
    world.stamps["new"] = "1"
    assert world.state("missing") == {"target_counts[new]"} and world.state("stale") == set()
    assert world.plan().counted_targets == ["chem", "law"]
    world.materialize("target_counts*")
    assert world.why("importance_estimator") == "new: target_counts[new]"


def test_a_shard_that_no_file_has_is_a_key_error(world):
    with pytest.raises(KeyError, match="nowhere"):
        world.plan().raw_counts("nowhere")


NAMES = st.text(max_size=4)


@given(st.dictionaries(NAMES, NAMES), st.dictionaries(NAMES.map("raw_counts[{}]".format), NAMES))
def test_a_fingerprint_is_the_same_whether_inputs_are_shared_or_not(own, listed):
    assert fingerprint(together(own, InputList(lambda: listed))) == fingerprint({**listed, **own})


def test_outputs_that_are_made_of_every_shard_share_their_inputs(world):
    lists = {}
    for output in world.plan().outputs():
        own, shared = divided(output.inputs)
        assert {**own, **(shared or {})} == dict(output.inputs)
        lists[output.name] = shared and (shared.digest, set(shared))
    assert lists["selections[tenth]"] == lists["selections[both]"]
    assert lists["selections[tenth]"][1] == WEIGHTS and lists["importance_estimator"][1] == COUNTS
    assert {name for name, shared in lists.items() if shared} == {
        "importance_estimator",
        "selections[tenth]",
        "selections[both]",
    }


# --- one output --------------------------------------------------------------------------------------


def test_an_output_is_named_by_asset_and_partition_and_its_files_carry_that_and_the_features(world):
    plan = world.plan()
    assert plan.weights("wiki-0").name == "weights[wiki-0]"
    assert plan.importance_estimator.name == "importance_estimator"
    origin = plan.weights("wiki-0").origin
    assert (origin.output, origin.fingerprint) == ("weights[wiki-0]", plan.weights("wiki-0").fingerprint)
    assert origin.features == {"tokenizer": "wordpunct", "ngrams": 2, "buckets": 10_000, "hash": "fast"}


def test_a_value_that_only_looks_like_configuration_is_named_without_its_values():
    found = materialization("raw_counts", "s", "other", {"file": "123", "source": "[1]", "code": "1"})
    plan = Plan(Settings.model_validate(CONFIGURATION), [], {}, {found.key: found})
    output = Output("raw_counts", "s", "new", plan, {"file": "456", "source": "null", "code": "1"})
    assert output.state == "stale"
    assert output.why == "changed: file, source"
