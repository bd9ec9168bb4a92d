"""The configuration file: what is valid, what it defaults to, and what is refused by which words."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from dsir.features import FeatureSpec
from dsir_dagster.resources.settings import ConfigError, Settings, load_settings

SMALLEST = {
    "raw": [{"name": "wiki", "uri": "pool/wiki_*.jsonl"}],
    "targets": [{"name": "chemprot", "uri": "targets/chemprot.jsonl"}],
    "selections": [{"name": "tenth", "targets": ["chemprot"], "size": {"fraction": 0.1}}],
}


def load(folder: Path, content: object) -> Settings:
    path = folder / "dsir.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return load_settings(path)


def refusal(folder: Path, content: object) -> str:
    """Return the message that a file is refused with, without the folder's path."""
    with pytest.raises(ConfigError) as caught:
        load(folder, content)
    message = str(caught.value)
    assert str(folder / "dsir.yaml") in message, "every message names the file"
    return message.replace(str(folder), "")


def changed(*path: str | int, to: object) -> dict:
    """Return the smallest configuration with one value set."""
    content = copy.deepcopy(SMALLEST)
    at = content
    for part in path[:-1]:
        at = at.setdefault(part, {}) if isinstance(at, dict) else at[part]
    at[path[-1]] = to
    return content


# --- valid files -------------------------------------------------------------------------------------


def test_a_full_file_is_read_as_written(tmp_path):
    text = """
    raw:
      - {name: wiki, uri: "data/pool/wiki_*.jsonl.zst", text: [title, body.text], id: key, source: meta.set}
      - {name: mine, uri: "s3://bucket/*.parquet", reader: "my.package:read"}
    targets:
      - {name: chemprot, uri: train.jsonl.zst, holdout: test.jsonl.zst, text: text}
      - {name: scierc, uri: "https://host/scierc.jsonl"}
    features: {tokenizer: whitespace, ngrams: 3, buckets: 20000, hash: sha256}
    estimator: {target_smoothing: 0.5, fit: {ngrams: 1000000}}
    selections:
      - {name: 10pct, targets: [chemprot], method: top_k, size: {fraction: 1}, min_tokens: 1, seed: 7}
      - {name: both, targets: [scierc, chemprot], shares: [1, 2.5], size: {tokens: 5000}, output: parquet}
    evaluation: {random_seeds: 2, smoothing: 1}
    """
    settings = load(tmp_path, text)
    wiki, mine = settings.raw
    assert (wiki.text, wiki.id, wiki.source, wiki.reader) == (["title", "body.text"], "key", "meta.set", None)
    assert mine.reader == "my.package:read"
    assert settings.features.spec() == FeatureSpec("whitespace", 3, 20_000, "sha256")
    assert settings.estimator.target_smoothing == 0.5
    assert settings.estimator.fit.ngrams == 1_000_000
    tenth, both = settings.selections
    assert (tenth.method, tenth.size.fraction, tenth.min_tokens, tenth.seed) == ("top_k", 1.0, 1, 7)
    assert (both.targets, both.shares, both.size.tokens) == (["scierc", "chemprot"], [1.0, 2.5], 5000)
    assert both.output == "parquet"
    assert (settings.evaluation.random_seeds, settings.evaluation.smoothing) == (2, 1.0)
    assert settings.target("scierc").uri == "https://host/scierc.jsonl"
    assert settings.selection("both") is both


def test_everything_that_is_left_out_has_its_documented_default(tmp_path):
    settings = load(tmp_path, SMALLEST)
    dumped = settings.model_dump()
    assert dumped["raw"][0].items() >= {"text": "text", "id": None, "reader": None, "source": None}.items()
    assert (
        dumped["targets"][0].items() >= {"text": "text", "id": None, "reader": None, "holdout": None}.items()
    )
    assert dumped["features"] == {"tokenizer": "wordpunct", "ngrams": 2, "buckets": 10_000, "hash": "fast"}
    assert settings.features.spec() == FeatureSpec()
    assert dumped["estimator"] == {"target_smoothing": 0.0, "fit": "all"}
    assert dumped["selections"][0] == {
        "name": "tenth",
        "targets": ["chemprot"],
        "shares": None,
        "method": "resample",
        "size": {"documents": None, "fraction": 0.1, "tokens": None},
        "min_tokens": 100,
        "seed": 0,
        "output": "jsonl",
    }
    assert dumped["evaluation"] == {
        "compare": [],
        "random_seeds": 5,
        "smoothing": 0.5,
        "sample": 10_000_000,
        "bits_per_byte": None,
        "budgets": [],
        "proxy": None,
        "downstream": None,
    }


def test_relative_uris_are_relative_to_the_folder_of_the_file_and_others_stay(tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    content = copy.deepcopy(SMALLEST)
    content["raw"] += [
        {"name": "up", "uri": "../elsewhere/*.jsonl"},
        {"name": "absolute", "uri": "/data/pool/*.jsonl"},
        {"name": "remote", "uri": "s3://bucket/pool/../*.jsonl"},
        {"name": "home", "uri": "~/pool.jsonl"},
    ]
    content["targets"][0]["holdout"] = "./held out.jsonl"
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "dsir.yaml").write_text(yaml.safe_dump(content))
    for named_as in (tmp_path / "conf" / "dsir.yaml", Path("conf/dsir.yaml"), "conf/dsir.yaml"):
        settings = load_settings(named_as)
        assert [source.uri for source in settings.raw] == [
            str(tmp_path / "conf/pool/wiki_*.jsonl"),
            str(tmp_path / "elsewhere/*.jsonl"),
            "/data/pool/*.jsonl",
            "s3://bucket/pool/../*.jsonl",
            "/home/someone/pool.jsonl",
        ]
        assert settings.targets[0].uri == str(tmp_path / "conf/targets/chemprot.jsonl")
        assert settings.targets[0].holdout == str(tmp_path / "conf/held out.jsonl")


def test_a_small_fraction_may_be_written_with_an_exponent(tmp_path):
    text = yaml.safe_dump(SMALLEST).replace("fraction: 0.1", "fraction: 1e-3")
    assert "1e-3" in text
    assert load(tmp_path, text).selections[0].size.fraction == 0.001


@pytest.mark.parametrize("name", ["a", "A-b_c.d", "10pct", "v1.2.3", "-", "x" * 100])
def test_names_of_letters_digits_underscores_hyphens_and_single_dots_are_valid(tmp_path, name):
    assert load(tmp_path, changed("selections", 0, "name", to=name)).selections[0].name == name


@pytest.mark.parametrize(
    ("written", "n_bytes"),
    [("256 MB", 256_000_000), ("1 GiB", 1 << 30), ("1.5kb", 1500), (4096, 4096), ("4096", 4096)],
)
def test_a_size_in_bytes_is_a_number_or_has_a_unit(tmp_path, written, n_bytes):
    group = load(tmp_path, changed("raw", 0, "group", to={"bytes": written})).raw[0].group
    assert group.bytes == n_bytes
    assert load(tmp_path, SMALLEST).raw[0].group is None


@pytest.mark.parametrize("written", ["some", "5 apples", 2.5e8, True, -1, None, [1]])
def test_other_sizes_in_bytes_are_refused_with_an_example(tmp_path, written):
    message = refusal(tmp_path, changed("raw", 0, "group", to={"bytes": written}))
    assert (
        f"raw[0].group.bytes: expected a number of bytes, such as 256 MB or 1 GiB (given: {written!r})"
        in message
    )
    assert "greater than 0" in refusal(tmp_path, changed("raw", 0, "group", to={"bytes": 0}))


# --- unknown keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "named"),
    [
        (["feature"], "feature"),
        (["raw", 0, "txt"], "raw[0].txt"),
        (["targets", 0, "hold_out"], "targets[0].hold_out"),
        (["features", "n_grams"], "features.n_grams"),
        (["estimator", "smoothing"], "estimator.smoothing"),
        (["selections", 0, "top_k"], "selections[0].top_k"),
        (["selections", 0, "size", "docs"], "selections[0].size.docs"),
        (["evaluation", "seeds"], "evaluation.seeds"),
    ],
)
def test_an_unknown_key_is_refused_at_every_level_with_its_path(tmp_path, where, named):
    message = refusal(tmp_path, changed(*where, to=5))
    assert f"\n  {named}: unknown key" in message
    assert message.count("unknown key") == 1


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        (["estimator", "fit"], {"ngram": 1000}, "estimator.fit.ngram: unknown key"),
        (["estimator", "fit"], {"ngrams": 0}, "estimator.fit.ngrams:"),
        (["estimator", "fit"], "some", "estimator.fit:"),
        (["raw", 0, "text"], 5, "raw[0].text:"),
        (["raw", 0, "text"], ["a", 1], "raw[0].text[1]:"),
    ],
)
def test_a_path_holds_nothing_but_keys_that_can_be_written(tmp_path, where, value, named):
    message = refusal(tmp_path, changed(*where, to=value))
    assert f"\n  {named}" in message
    assert not any(word in message for word in ("FitSize", "literal[", ".str", "list["))


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (["selection"], [], "selection: unknown key; did you mean `selections`?"),
        (["raw", 0, "txt"], "a", "raw[0].txt: unknown key; did you mean `text`?"),
        (
            ["selections", 0, "min_token"],
            5,
            "selections[0].min_token: unknown key; did you mean `min_tokens`?",
        ),
        (["selections", 0, "temperatur"], 5, "temperatur: unknown key; did you mean `temperature`?"),
        (
            ["selections", 0, "size"],
            5,
            "size: expected one of documents, fraction, tokens, as in {documents: 10000}",
        ),
        (["selections", 0, "size"], {}, "size: expected one of documents, fraction, tokens; given: none"),
        (
            ["selections", 0, "size", "rows"],
            5,
            "size.rows: unknown key; the keys here are documents, fraction, tokens",
        ),
        (["selections", 0, "method"], "mach", "or 'mixture' (given: 'mach'); did you mean 'match'?"),
        (["selections", 0, "output"], "json", "or 'none' (given: 'json'); did you mean 'jsonl'?"),
        (
            ["selections", 0, "temperature"],
            {"acceptanc": 0.5},
            "acceptanc: unknown key; did you mean `acceptance`?",
        ),
        (
            ["selections", 0, "targets"],
            ["chemprt"],
            "there are: chemprot; did you mean 'chemprot'?",
        ),
        (
            ["features", "hash"],
            "sha25",
            "expected 'fast' or 'sha256' (given: 'sha25'); did you mean 'sha256'?",
        ),
        (["features", "tokenizer"], "wordpunkt", "'package.module:function'; did you mean 'wordpunct'?"),
        (
            ["features"],
            5,
            "features: expected a mapping with the keys tokenizer, ngrams, buckets, hash (given: 5)",
        ),
        (["estimator", "fit"], {"ngram": 5}, "estimator.fit.ngram: unknown key; did you mean `ngrams`?"),
        (["evaluation", "compare"], ["mach"], "evaluation.compare[0]: expected 'resample'"),
        (["raw"], {"name": "pool"}, "raw: expected a list; each of its entries begins with a dash"),
    ],
)
def test_what_was_probably_meant_is_said(tmp_path, where, value, said):
    assert said in refusal(tmp_path, changed(*where, to=value))


def test_a_target_does_not_take_the_keys_of_a_source(tmp_path):
    message = refusal(tmp_path, changed("targets", 0, "source", to="meta"))
    assert "targets[0].source: unknown key" in message


def test_every_bad_key_is_named_at_once(tmp_path):
    content = changed("raw", 0, "txt", to="body")
    content["selections"][0]["seed"] = -1
    del content["targets"][0]["uri"]
    lines = refusal(tmp_path, content).splitlines()[1:]
    named = {line.strip().partition(":")[0] for line in lines}
    assert named == {"raw[0].txt", "targets[0].uri", "selections[0].seed"} and len(lines) == 3


# --- wrong values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        (["raw"], {"name": "wiki"}, "raw"),
        (["raw"], [], "raw"),
        (["raw"], None, "raw"),
        (["raw", 0], "wiki", "raw[0]"),
        (["raw", 0, "uri"], 5, "raw[0].uri"),
        (["raw", 0, "text"], 5, "raw[0].text"),
        (["raw", 0, "text"], [], "raw[0].text"),
        (["raw", 0, "text"], ["a", 1], "raw[0].text"),
        (["raw", 0, "reader"], "module.function", "raw[0].reader"),
        (["raw", 0, "name"], False, "raw[0].name"),
        (["targets"], [], "targets"),
        (["targets", 0, "holdout"], ["a"], "targets[0].holdout"),
        (["features"], None, "features"),
        (["features", "buckets"], "10000", "features.buckets"),
        (["features", "buckets"], 1e4, "features.buckets"),
        (["features", "ngrams"], True, "features.ngrams"),
        (["features", "hash"], "md5", "features.hash"),
        (["estimator", "target_smoothing"], -0.1, "estimator.target_smoothing"),
        (["estimator", "target_smoothing"], float("inf"), "estimator.target_smoothing"),
        (["estimator", "target_smoothing"], "much", "estimator.target_smoothing"),
        (["estimator", "fit"], "some", "estimator.fit"),
        (["estimator", "fit"], {"ngrams": 0}, "estimator.fit"),
        (["selections"], [], "selections"),
        (["selections", 0, "targets"], "chemprot", "selections[0].targets"),
        (["selections", 0, "targets"], [], "selections[0].targets"),
        (["selections", 0, "shares"], [0], "selections[0].shares[0]"),
        (["selections", 0, "shares"], [float("nan")], "selections[0].shares[0]"),
        (["selections", 0, "method"], "topk", "selections[0].method"),
        (["selections", 0, "min_tokens"], -1, "selections[0].min_tokens"),
        (["selections", 0, "seed"], 1.5, "selections[0].seed"),
        (["selections", 0, "seed"], 2**63, "selections[0].seed"),
        (["selections", 0, "output"], "csv", "selections[0].output"),
        (["selections", 0, "size"], 5, "selections[0].size"),
        (["selections", 0, "size"], {"documents": "5"}, "selections[0].size.documents"),
        (["selections", 0, "size"], {"documents": -5}, "selections[0].size.documents"),
        (["selections", 0, "size"], {"tokens": 0.5}, "selections[0].size.tokens"),
        (["selections", 0, "size"], {"fraction": 1.01}, "selections[0].size.fraction"),
        (["selections", 0, "size"], {"fraction": float("nan")}, "selections[0].size.fraction"),
        (["selections", 0, "size"], {"fraction": "ten"}, "selections[0].size.fraction"),
        (["evaluation", "random_seeds"], 1, "evaluation.random_seeds"),
        (["evaluation", "smoothing"], 0, "evaluation.smoothing"),
    ],
)
def test_a_wrong_value_is_refused_with_the_path_of_its_key(tmp_path, where, value, named):
    assert f"\n  {named}" in refusal(tmp_path, changed(*where, to=value))


def test_a_wrong_value_is_quoted_in_the_message(tmp_path):
    message = refusal(tmp_path, changed("selections", 0, "method", to="topk"))
    assert "'topk'" in message and "'top_k'" in message


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"buckets": 0}, "buckets: 0"),
        ({"buckets": 2**24 + 1}, f"from 1 to {2**24}"),
        ({"ngrams": 0}, "ngrams: 0"),
        ({"tokenizer": "word_tokenize"}, "'wordpunct', 'whitespace' or 'package.module:function'"),
    ],
)
def test_features_that_cannot_be_counted_are_refused_with_what_is_expected(tmp_path, features, said):
    message = refusal(tmp_path, changed("features", to=features))
    assert "\n  features" in message and said in message


@pytest.mark.parametrize(
    ("section", "key"),
    [
        *((None, key) for key in ("raw", "targets", "selections")),
        ("raw", "name"),
        ("raw", "uri"),
        ("targets", "name"),
        ("targets", "uri"),
        ("selections", "name"),
        ("selections", "targets"),
        ("selections", "size"),
    ],
)
def test_a_required_key_that_is_missing_is_named(tmp_path, section, key):
    content = copy.deepcopy(SMALLEST)
    del (content if section is None else content[section][0])[key]
    named = key if section is None else f"{section}[0].{key}"
    assert f"\n  {named}: required key is missing" in refusal(tmp_path, content)


# --- sizes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "given"),
    [
        ({"documents": 5, "tokens": 6}, "documents, tokens"),
        ({"documents": 5, "fraction": 0.5, "tokens": 6}, "documents, fraction, tokens"),
        ({}, "none"),
        ({"documents": None}, "none"),
    ],
)
def test_a_size_is_exactly_one_of_three(tmp_path, size, given):
    message = refusal(tmp_path, changed("selections", 0, "size", to=size))
    assert "\n  selections[0].size: expected one of documents, fraction, tokens" in message
    assert f"given: {given}" in message


@pytest.mark.parametrize("unit", ["documents", "tokens", "fraction"])
def test_a_size_of_zero_is_refused(tmp_path, unit):
    message = refusal(tmp_path, changed("selections", 0, "size", to={unit: 0}))
    assert f"\n  selections[0].size.{unit}:" in message


@pytest.mark.parametrize(
    "where",
    [
        ["selections", 0, "size", "fraction"],
        ["estimator", "target_smoothing"],
        ["evaluation", "smoothing"],
    ],
)
def test_true_is_not_a_number(tmp_path, where):
    named = ".".join(map(str, where)).replace(".0.", "[0].")
    assert f"\n  {named}:" in refusal(tmp_path, changed(*where, to=True))


@pytest.mark.parametrize(
    ("where", "value"),
    [(["selections", 0, "shares"], [float("inf")]), (["evaluation", "smoothing"], float("inf"))],
)
def test_infinity_is_not_a_share_nor_a_pseudo_count(tmp_path, where, value):
    assert f"\n  {where[0]}" in refusal(tmp_path, changed(*where, to=value))


# --- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", ["raw", "targets", "selections"])
def test_two_entries_of_one_name_are_refused(tmp_path, section):
    content = copy.deepcopy(SMALLEST)
    content[section].append(content[section][0])
    name = content[section][0]["name"]
    assert f"{section}: the name '{name}' is used 2 times" in refusal(tmp_path, content)


def test_a_source_a_target_and_a_selection_may_share_a_name(tmp_path):
    content = copy.deepcopy(SMALLEST)
    content["raw"][0]["name"] = content["selections"][0]["name"] = "chemprot"
    assert load(tmp_path, content).selection("chemprot").targets == ["chemprot"]


def test_a_target_that_a_selection_names_but_nobody_defines_is_refused_with_those_there_are(tmp_path):
    content = changed("selections", 0, "targets", to=["chemprot", "chemport"])
    content["targets"].append({"name": "scierc", "uri": "x"})
    message = refusal(tmp_path, content)
    assert "selections[0].targets: no target is named 'chemport'; there are: chemprot, scierc" in message


def test_a_selection_names_a_target_once(tmp_path):
    message = refusal(tmp_path, changed("selections", 0, "targets", to=["chemprot", "chemprot"]))
    assert "selections[0]" in message and "a target is named twice" in message


def test_as_many_shares_as_targets_are_required(tmp_path):
    message = refusal(tmp_path, changed("selections", 0, "shares", to=[1, 2]))
    assert "selections[0]" in message and "1 targets but 2 shares" in message


BAD_NAMES = ["a...b", "a|b", "a..b", ".a", "a.", "", "a b", "a/b", "../a", "ä", "a\n", "~empty", "x" * 101]


@pytest.mark.parametrize("section", ["raw", "targets", "selections"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_dagster_or_a_file_system_cannot_hold_are_refused(tmp_path, section, name):
    message = refusal(tmp_path, changed(section, 0, "name", to=name))
    assert f"\n  {section}[0].name: " in message and repr(name) in message


# --- not a configuration at all ----------------------------------------------------------------------


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "nowhere.yaml")
    message = str(caught.value)
    assert str(tmp_path / "nowhere.yaml") in message
    assert "--config" in message and "DSIR_CONFIG" in message


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "- raw\n", "raw\n", "5\n"])
def test_a_file_that_is_empty_or_no_mapping_is_refused_with_the_keys_it_needs(tmp_path, text):
    assert "a mapping with the keys raw, targets and selections" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "text", ["raw: [", "raw:\n\t- a", "a: b: c", "raw: !!python/object:os.system {}", "a: 1\n---\nb: 2"]
)
def test_what_is_not_yaml_is_refused(tmp_path, text):
    assert "not a YAML file" in refusal(tmp_path, text)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "dsir.yaml").write_bytes(b"raw: \xff\xfe")
    with pytest.raises(ConfigError, match=r"dsir\.yaml: not a YAML file"):
        load_settings(tmp_path / "dsir.yaml")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_settings(tmp_path)


def test_a_key_that_is_written_twice_is_refused_rather_than_dropped(tmp_path):
    text = yaml.safe_dump(SMALLEST) + "selections:\n- {name: b, targets: [chemprot], size: {documents: 1}}\n"
    assert "selections" in refusal(tmp_path, text)


def test_entries_may_share_values_by_anchors_and_merge_keys(tmp_path):
    text = (
        yaml.safe_dump({key: SMALLEST[key] for key in ("raw", "targets")})
        + """
selections:
  - &first {name: first, targets: [chemprot], size: {documents: 5}, seed: 7}
  - {<<: *first, name: second}
"""
    )
    first, second = load(tmp_path, text).selections
    assert (second.name, second.size, second.seed) == ("second", first.size, 7)


def test_settings_cannot_be_changed_after_loading(tmp_path):
    settings = load(tmp_path, SMALLEST)
    with pytest.raises(ValueError, match="frozen"):
        settings.selections[0].seed = 1


@pytest.mark.parametrize("again", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_that_multiply_are_refused_at_once(tmp_path, again):
    lines = ["a0: &a0 {k: [x, x, x, x, x, x, x, x, x, x]}"]
    for i in range(9):
        lines.append(f"a{i + 1}: &a{i + 1} " + again.format(", ".join([f"*a{i}"] * 10)))
    with pytest.raises(ConfigError, match=r"more than 100,000 values, aliases resolved"):
        load(tmp_path, "\n".join(lines))


def test_an_alias_within_what_it_stands_for_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"nested too deeply"):
        load(tmp_path, "raw: &a [*a]")
