"""The page of a selection: whole, safe, self-contained, and its numbers are those of the catalog."""

import html.parser
import itertools
import re

import dagster as dg
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dsir_dagster import cli
from dsir_dagster.assets.report.documents import Leading, Shown
from dsir_dagster.assets.report.rendering import LETTERS
from dsir_dagster.resources.borders import visible
from tests.pipeline import SmallPipeline, sentences

VOID = {"meta", "br", "hr", "img", "input", "link"}
SVG_NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


class Page(html.parser.HTMLParser):
    """What a browser sees: tags, attributes, text; every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.ids = [], [], [], []
        self.texts, self.cells = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.cells[-1][-1] += data

    @property
    def text(self):
        return " ".join("".join(self.texts).split())


def path_of(pipeline, selection="picked"):
    [(path,)] = pipeline.rows(
        f"SELECT metadata->>'report' FROM latest WHERE asset = 'evaluations' AND partition = '{selection}'"
    )
    return pipeline.home / path


def page_of(pipeline, selection="picked"):
    return Page(path_of(pipeline, selection).read_text(encoding="utf-8"))


def test_it_is_one_file_that_loads_nothing_and_runs_nothing(ran_once):
    page = page_of(ran_once)
    assert not {"script", "iframe", "object", "embed", "link", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    for name, value in page.attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#") and value[1:] in page.ids
        elif name.startswith("xmlns"):
            assert value in SVG_NAMESPACES
        else:
            assert "http" not in (value or "")
    source = path_of(ran_once).read_text()
    assert "@import" not in source and not re.search(r"url\((?!#)", source)
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") == 2 * 5


def test_its_numbers_are_those_of_the_catalog(ran_once):
    page = page_of(ran_once)
    rows = ran_once.rows("SELECT target, metric, pick, statistic, value FROM evaluations WHERE source = ''")
    assert len(rows) > 50
    for target, *names, value in rows:
        shown = f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        assert [target or "all", *names, shown] in page.cells
    metrics = {
        (pick, statistic): value
        for target, metric, pick, statistic, value in rows
        if metric == "over_random" and not target
    }
    text = page.text
    assert f"{metrics['selection', 'value']:.3f}" in text and f"{metrics['top_k', 'value']:.3f}" in text
    [cells] = [each for each in page.cells if each[0] == "medicine" and "(" in each[1]]
    value, low, high = (metrics["selection", each] for each in ("value", "low", "high"))
    assert cells[1] == f"{value:.3f} ({low:.3f} to {high:.3f})"
    for source, pool, selected in ran_once.rows(
        "SELECT source, max(value) FILTER (pick = 'pool'), max(value) FILTER (pick = 'selection') "
        "FROM evaluations WHERE source <> '' GROUP BY source"
    ):
        assert [source, f"{pool:.1%}", f"{selected:.1%}"] in page.cells
    # The histogram behind the plot counts every eligible and every picked document.
    of_plot = [
        cells for cells in page.cells if cells[0] == "medicine" and re.fullmatch(r"-?[\d,]+", cells[1])
    ]
    assert [sum(int(cells[i]) for cells in of_plot) for i in (2, 3)] == [120, 20]


def test_it_begins_with_a_verdict_from_the_numbers_of_the_catalog(ran_once):
    page = page_of(ran_once)
    [(verdict, level)] = ran_once.rows(
        "SELECT metadata->>'verdict', metadata->>'verdict_level' FROM latest WHERE asset = 'evaluations'"
    )
    lead = dict(
        ran_once.rows(
            "SELECT statistic, value FROM evaluations WHERE metric = 'ahead' AND pick = 'random' AND target = ''"
        )
    )
    nats = f"{lead['value']:.3f} nats (95% interval {lead['low']:.3f} to {lead['high']:.3f})"
    assert verdict.startswith(f"better than random by {nats}") and "on held-out target text" in verdict
    assert page.tags.index("section") < page.tags.index("table") and page.tags.index(
        "section"
    ) < page.tags.index("svg")
    before = page.text.split("How good it is")[0]
    assert f"Better than random picks by {nats}" in before and verdict[1:] in before
    assert (
        "Held-out target text, which the selection has not seen" in before
        and "effective sample size of" in before
    )
    assert level == "caution" and ("class", f"verdict {level}") in page.attributes
    assert ("class", "banner") not in page.attributes


def test_one_number_has_one_form(ran_once):
    page = page_of(ran_once)
    share, size = (
        ran_once.rows(f"SELECT value FROM evaluations WHERE metric = '{metric}' AND pick = '{pick}'")[0][0]
        for metric, pick in (("agreement", "top_k"), ("effective_sample_size", "pool"))
    )
    assert page.text.count(f"{share:.1%} of the documents are the same") == 2  # the verdict and a tile
    assert [
        each for each in page.cells if each[0] == "same documents as the selection" and f"{share:.1%}" in each
    ]
    assert f"{size:,.1f} effective sample size" in page.text and f"sample size of {size:,.1f} of" in page.text
    assert not re.search(r"\d %|-0\.0+\b", page.text.split("Documents Beside")[0].split("}")[-1])


def test_a_selection_worse_than_random_has_a_banner(pipeline):
    """The largest weights for medicine, measured on a holdout of law."""
    pipeline.write_pool()
    pipeline.write("medicine-test.jsonl", sentences("law", 30, seed=101))
    pipeline.config["evaluation"] = {"random_seeds": 3}
    assert pipeline.errors() == []
    page = page_of(pipeline)
    assert ("class", "banner") in page.attributes and ("class", "verdict bad") in page.attributes
    assert page.text.index("Worse than random picks, by ") < page.text.index("Verdict: do not rely on it")
    [(note,)] = pipeline.rows("SELECT metadata->>'note' FROM latest WHERE asset = 'evaluations'")
    assert note.startswith("Not closer to the target than the pool: the paper's KL reduction is -")
    assert "; Worse than random picks by" in note
    highs = pipeline.rows(
        "SELECT value FROM evaluations WHERE metric IN ('over_random', 'over_random_unhashed') "
        "AND pick = 'selection' AND target = '' AND statistic = 'high'"
    )
    assert len(highs) == 2 and all(high < 0 for (high,) in highs)
    kind = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    events = pipeline.instance.get_event_records(kind)
    checks = [each.event_log_entry.dagster_event.event_specific_data for each in events]
    assert [each.passed for each in checks if each.check_name == "better_than_random"] == [False]


def test_captions_are_true_for_one_holdout_of_two_epochs_pieces_and_picks_alone(pipeline):
    pipeline.write_pool()
    pipeline.write("law.jsonl", sentences("law", 30, seed=102))
    pipeline.config["raw"][0]["chunk_words"] = 60
    pipeline.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    pipeline.config["selections"][0] |= {
        "targets": ["medicine", "law"],
        "epochs": 2,
        "output": "none",
        "min_tokens": 10,
        "size": {"tokens": 900},
    }
    pipeline.config["evaluation"] = {"random_seeds": 2}
    assert pipeline.errors() == []
    text = page_of(pipeline).text
    assert text.lower().count("held-out text of medicine and the fitted text of law (no holdout)") == 3
    assert "law's figures are optimistic" in text
    assert "as many tokens as an epoch of the selection" in text and "ranking of the first epoch" in text
    assert "cut into pieces of 60 words; each piece counts as a document" in text
    assert "The picks are in" in text and "output: none writes no records" in text
    assert "of a sample of" not in text and "Picks and records" not in text


def test_documents_have_the_place_that_the_catalog_gives_them(ran_once):
    text = page_of(ran_once).text
    picked, following, typical = re.split("Left out: next in line|Left out: typical ones", text)
    for rank in (1, 20):
        [(doc_id, key)] = ran_once.rows(f"SELECT doc_id, key FROM selections WHERE rank = {rank}")
        assert f"{doc_id} pool, " in picked and f"rank {rank} of 20, key {key:,.2f}" in picked
    assert picked.count("rank ") == 10
    shown = re.findall(r"(\w+-\d-\d+) pool, \d+ tokens · key (\S+), below the threshold by (\S+)", following)
    assert len(shown) == 6
    for doc_id, key, below in shown:
        [(known, margin)] = ran_once.rows(f"SELECT key, margin FROM why('{doc_id}', 'picked')")
        assert key == f"{known:,.2f}" and below == f"{-margin:,.2f}"
    margins = [float(below) for *_, below in shown]
    assert margins == sorted(margins) and min(margins) >= 0
    assert len(re.findall(r"\w+-\d-\d+ pool, ", typical)) == 4


def test_the_lineage_knows_it_verify_guards_it_and_report_names_it(done, capsys):
    path = path_of(done)
    [(fingerprint, name)] = done.rows(
        "SELECT fingerprint, map_keys(files)[1] FROM latest WHERE asset = 'evaluations'"
    )
    assert name == f"evaluations/picked/{fingerprint}/report.html" and path == done.home / name
    text = (done.home / name).read_text()
    [(version,)] = done.rows("SELECT DISTINCT version FROM selections")
    for asset in ("selections", "importance_estimator", "target_counts"):
        [(made, run)] = done.rows(f"SELECT fingerprint, run_id FROM latest WHERE asset = '{asset}'")
        assert made in text and run in text
    assert version in text
    event = done.instance.get_latest_materialization_event(dg.AssetKey("evaluations"))
    assert event.asset_materialization.metadata["report"].path.endswith(name)

    arguments = ["--config", str(done.config_path), "--home", str(done.home)]
    assert cli.main(["report", *arguments]) == 0
    assert "report.html" in capsys.readouterr().out
    (done.home / name).write_text(text.replace("0", "1"))
    assert cli.main(["verify", *arguments]) == 1
    assert "report.html" in capsys.readouterr().err
    assert done.errors() == []
    assert (done.home / name).exists()


def test_its_configuration_makes_the_same_version_again(done, tmp_path_factory):
    text = path_of(done).read_text()
    configuration = html.unescape(re.search(r"<pre>(raw:.*?)</pre>", text, re.DOTALL)[1])
    again = SmallPipeline(tmp_path_factory.mktemp("again"))
    again.config = yaml.safe_load(configuration)
    assert again.errors() == []
    query = "SELECT version, rank, doc_id, key FROM selections ORDER BY rank"
    assert again.rows(query) == done.rows(query)


HOSTILE = {
    "<script>alert('id')</script>": '<script>alert("text")</script> <img src=x onerror=alert(1)> </div></body>',
    "\"quoted\" & 'quoted'": "{{ 7 * 7 }} {% include 'x' %} &lt;b&gt; | a | b |",
    "very long": "x" * 50_000,
    "من اليمين": "النص من اليمين إلى اليسار \u202e overridden",
}


def test_whatever_a_document_says_is_shown_and_nothing_else(pipeline):
    medicine = sentences("medicine", len(HOSTILE), 5)
    texts = zip(HOSTILE.items(), medicine, strict=True)
    pool = [{"id": doc_id, "text": f"{text} {other['text']}"} for (doc_id, text), other in texts]
    pipeline.write("pool/hostile.jsonl", pool)
    pipeline.config["evaluation"] = {"random_seeds": 2}
    assert pipeline.errors() == []
    page = page_of(pipeline)
    assert not {"script", "img"} & set(page.tags) and page.tags.count("body") == 1
    for doc_id, text in HOSTILE.items():
        assert visible(" ".join(doc_id.split()), keep=LETTERS) in page.text
        assert visible(" ".join(text.split()), keep=LETTERS)[:200] in page.text
    assert "\u202e" not in page.text and "\\u202e" in page.text
    assert max(map(len, page.texts)) < 8_000
    assert "every eligible document was picked" in page.text


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Two targets, and selections by methods that differ in what is known of the documents that they left out."""
    pipeline = SmallPipeline(tmp_path_factory.mktemp("many"))
    pipeline.write_pool()
    pipeline.write("law.jsonl", sentences("law", 30, seed=102))
    pipeline.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    common = {"targets": ["medicine"], "size": {"documents": 6}}
    pipeline.config["selections"] = [
        {"name": "two", "targets": ["medicine", "law"], "size": {"documents": 12}, "epochs": 2},
        {"name": "capped", **common, "method": "top_k", "source_caps": 0.5, "min_tokens": 140},
        {"name": "matched", **common, "method": "match"},
        {"name": "mixed", **common, "method": "mixture"},
    ]
    pipeline.config["raw"][0]["source"] = "domain"
    pipeline.config["evaluation"] = {"random_seeds": 2}
    assert pipeline.errors() == []
    return pipeline


@pytest.mark.parametrize("name", ["two", "capped", "matched", "mixed"])
def test_every_method_has_a_page_that_says_what_is_known(many, name):
    text = page_of(many, name).text
    assert ("kept only for picked documents" in text) == (name in ("matched", "mixed"))
    following = text.split("Left out: next in line")[1].split("Left out: typical ones")[0]
    assert following.count(" tokens · ") == 6
    if name == "two":
        assert "· for law" in text and "· for medicine" in text and "in 2 epochs" in text
    if name == "capped":
        assert "its source has its share" in text and "not eligible: min_tokens" in text


@given(st.lists(st.integers(0, 9) | st.just(-np.inf), max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_the_documents_that_lead_do_not_depend_on_how_a_stream_is_cut(scores, cuts):
    scores, leading = np.array(scores, float), Leading(5)
    bounds = [0, *sorted(min(cut, len(scores)) for cut in cuts), len(scores)]
    for first, last in itertools.pairwise(bounds):
        leading.add(
            scores[first:last], lambda at, first=first: Shown(first + at, "", 0, "", "", 0, "", 0.0, "")
        )
    best = [at for at in np.argsort(-scores, kind="stable")[:5].tolist() if scores[at] > -np.inf]
    assert [document.position for document in leading.documents] == best
