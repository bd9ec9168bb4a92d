"""``dsir report --html``: all selections of a home on one page, and their verdicts in the terminal."""

import pytest

from dsir_dagster import cli
from tests.assets.test_report import Page
from tests.pipeline import SmallPipeline


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    pipeline = SmallPipeline(tmp_path_factory.mktemp("three"))
    pipeline.write_pool()
    common = {"targets": ["medicine"], "size": {"documents": 20}}
    pipeline.config["raw"][0]["source"] = "domain"
    pipeline.config["selections"] = [
        {"name": "drawn", **common},
        {"name": "largest", "method": "top_k", **common},
        {"name": "any", "method": "random", **common},
    ]
    pipeline.config["evaluation"] = {"random_seeds": 2}
    assert pipeline.errors() == []
    return pipeline


def report(pipeline, *arguments):
    return cli.main(
        ["report", *arguments, "--config", str(pipeline.config_path), "--home", str(pipeline.home)]
    )


def test_one_page_compares_all_selections(three, capsys):
    assert report(three, "--html") == 0
    path = three.home / "report.html"
    assert f"3 selections compared in {path}" in capsys.readouterr().out
    page = Page(path.read_text())
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    links = [value for name, value in page.attributes if name == "href"]
    assert len(links) == 3 and all((path.parent / link).is_file() for link in links)
    metadata = three.rows("SELECT partition, metadata->>'verdict' FROM latest WHERE asset = 'evaluations'")
    for name, verdict in metadata:
        assert name in page.text and verdict[1:] in page.text
    header, *_ = [cells for cells in page.cells if cells[0] == "selection"]
    assert header == ["selection", "any", "drawn", "largest"]
    for target, metric, pick in (
        ("KL reduction over random, nats", "over_random", "selection"),
        ("KL reduction (paper, section 5)", "kl_reduction", "selection"),
        ("the same of random picks", "kl_reduction", "random"),
    ):
        [cells] = [cells for cells in page.cells if cells[0] == target]
        for name, cell in zip(header[1:], cells[1:], strict=True):
            [(value,)] = three.rows(
                f"SELECT value FROM evaluations WHERE selection = '{name}' AND metric = '{metric}' "
                f"AND pick = '{pick}' AND target = '' AND statistic = 'value'"
            )
            assert cell.startswith(f"{value:.3f}")
    [medicine] = [cells for cells in page.cells if cells[0] == "medicine"]
    shares = dict(
        three.rows(
            "SELECT selection, value FROM evaluations WHERE source = 'medicine' AND pick = 'selection'"
        )
    )
    assert medicine[1:] == ["33.3%", *(f"{shares[name]:.1%}" for name in header[1:])]


def test_the_page_goes_where_it_is_asked_for_and_its_links_lead_back(three, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    for asked, written in (
        (tmp_path / "new" / "x.html",) * 2,
        (tmp_path / "folder", tmp_path / "folder/report.html"),
    ):
        assert report(three, "--html", "-o", str(asked)) == 0
        assert str(written) in capsys.readouterr().out
        links = [value for name, value in Page(written.read_text()).attributes if name == "href"]
        assert len(links) == 3 and all((written.parent / link).is_file() for link in links)
        assert [each.name for each in written.parent.iterdir()] == [written.name]


def test_the_terminal_says_the_verdict_of_each_selection(three, capsys):
    assert report(three) == 0
    printed = " ".join(capsys.readouterr().out.split())
    verdicts = printed.split("Verdicts")[1].split("Where the documents come from")[0]
    for (verdict,) in three.rows("SELECT metadata->>'verdict' FROM latest WHERE asset = 'evaluations'"):
        assert verdict in verdicts


def test_a_selection_without_an_evaluation_is_on_the_page(pipeline, capsys):
    assert report(pipeline, "--html") == 1  # there is no home
    pipeline.write_pool()
    assert pipeline.errors() == []
    pipeline.config["selections"][0]["seed"] = 1
    assert pipeline.materialize("selections", partition="picked").success
    assert report(pipeline, "--html") == 0
    assert "Not evaluated in this version" in Page((pipeline.home / "report.html").read_text()).text
