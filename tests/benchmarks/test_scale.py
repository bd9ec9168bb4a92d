"""Drawn pools go through the project's own selection and rounds; what follows from measured rates."""

import pyarrow as pa
import pytest

from benchmarks import scale
from benchmarks.drawn import DrawnCandidates, DrawnPasses, DrawnPool
from dsir.features import FeatureSpec, featurize
from dsir.matching import match
from dsir.selection import Budget
from dsir_dagster.assets.methods import pick
from dsir_dagster.resources.settings import Selection
from tests.pipeline import sentences


def picked(under_way, documents=400_000, k=20_000):
    selection = Selection.model_validate(
        {"name": "drawn", "targets": ["t"], "shares": [1], "size": {"documents": k}}
    )
    pool = DrawnPool(documents, 10_000, under_way)
    [rows] = pick(DrawnCandidates(None, selection, pool), Budget(documents=k)).epochs
    return rows, pool.work


def test_the_floor_of_an_earlier_result_changes_what_is_sent_but_not_what_is_picked():
    at_once, work_at_once = picked(under_way=40)
    in_turn, work_in_turn = picked(under_way=1)
    assert at_once.tobytes() == in_turn.tobytes() and len(in_turn) == 20_000
    assert work_at_once.passes == work_in_turn.passes == 1
    # Each of 40 shards sends as many as may be picked, or only those above the floor that is known by then.
    assert work_at_once.sent == work_at_once.first_sent == 400_000
    assert 20_000 < work_in_turn.sent < work_at_once.sent / 2


def test_rounds_over_drawn_documents_come_closer_to_the_target():
    spec = FeatureSpec(buckets=1000)
    texts = [record["text"] for domain in ("medicine", "law", "code") for record in sentences(domain, 50, 1)]
    kinds = featurize(pa.array(texts, pa.large_string()), spec)
    target = [record["text"] for record in sentences("medicine", 60, 2)]
    counts = featurize(pa.array(target, pa.large_string()), spec).totals(1000)
    outcomes = []
    for under_way in (1, 8):
        pool = DrawnPool(20_000, 2500, under_way)
        found = match(DrawnPasses(pool, kinds), counts, kinds.totals(1000), Budget(documents=2000))
        outcomes.append([(each.kl, each.documents) for each in found.curve])
        assert pool.work.passes == 2 * len(found.curve)
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][-1][0] <= outcomes[0][0][0] and {n for _, n in outcomes[0]} == {2000}


@pytest.fixture
def measured():
    drawn = scale.Drawn(1e-6, 100.0, 5.0, 1.0, 10, 1000, 60, 10, 1e7, 300.0)
    seconds = {"raw_counts": 1e-5, "weights": 1e-7, "resample": 1e-7, "match": 1e-6, "records": 1e-6}
    sizes = {"pool": 200.0, "features": 400.0, "documents": 40.0, "weights": 8.0}
    return scale.Measured(scale.OnText(seconds, sizes, 640.0, 1000), 0.01, drawn, drawn)


def test_hours_bytes_and_requests_follow_from_the_rates(measured):
    found = {step.name: step for step in scale.steps(measured, 96e6)}
    assert found["counting"].hours(96) == pytest.approx(10 / 3600)
    assert found["counting"].bytes == pytest.approx(96e6 * 640)
    assert found["counting"].requests == pytest.approx(96e6 * 640 / 10e6)
    assert found["recording"].hours(96) == pytest.approx(240 * 0.01 / 3600)
    assert found["match"].bytes == pytest.approx(scale.ROUNDS * 2 * 96e6 * 440)


def test_what_breaks_first_comes_first(measured):
    found = scale.limits(measured, 96)
    at = [each.limit / each.amount(scale.PILE) for each in found]
    assert at == sorted(at)
    by_name = {each.name: each.amount(scale.PILE) for each in found}
    assert by_name["candidates, match"] == pytest.approx(scale.PICKED * 100 / 1e9)
    assert by_name["partitions of an asset"] == pytest.approx(scale.PILE * 640 / 256e6)


def test_the_tables_fit_into_80_columns(measured, capsys):
    from rich.console import Console

    console = Console(width=80, highlight=False)
    with console.capture() as shown:
        scale.show_measured(measured, console)
        scale.show_steps(measured, 96, console)
        scale.show_limits(measured, 96, console)
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= 80
    # Nothing is wrapped: a wider terminal would show the same lines.
    wide = Console(width=200, highlight=False)
    with wide.capture() as unwrapped:
        scale.show_measured(measured, wide)
        scale.show_steps(measured, 96, wide)
        scale.show_limits(measured, 96, wide)
    assert len(unwrapped.get().splitlines()) == len(lines)
