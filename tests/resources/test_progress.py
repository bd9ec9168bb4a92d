"""Progress adds up, and says at intervals how far a step is; nothing here waits."""

import pytest

from dsir_dagster.resources import progress
from dsir_dagster.resources.compute import counted, within
from dsir_dagster.resources.progress import Progress, duration


class Clock:
    """A clock that somebody else moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_step_tells_of_its_share_its_rate_and_the_time_left(clock):
    step = Progress("raw_counts", 4, print, total=1_000, clock=clock)
    assert str(step) == "raw_counts: 0 of 4 partitions, 0%"
    clock.now += 5
    step.add(documents=1_500, bytes=20_000_000, work=250)
    step.add(partitions=1)
    assert str(step) == ("raw_counts: 1 of 4 partitions, 1,500 documents, 20.0 MB, 4 MB/s, 25%, 15 s left")
    assert step.share == 0.25 and step.time_left == "15 s left"


def test_one_large_file_of_several_is_most_of_the_work(clock):
    step = Progress("raw_counts", 2, print, total=1_000, clock=clock)
    step.add(work=900)
    assert step.share == 0.9
    step.add(work=900)  # a file that was larger than it was when it was found
    assert step.share == 1.0


def test_without_a_total_outputs_are_counted_and_a_single_one_has_no_share(clock):
    several, one = Progress("target_counts", 4, print, clock=clock), Progress("x[y]", 1, print, clock=clock)
    several.add(partitions=3)
    assert several.share == 0.75 and one.share is None
    assert str(one) == "x[y]: begun"


def test_a_part_begins_anew_and_goes_over_its_documents_as_often_as_it_says(clock):
    step = Progress("selections[s]", 1, print, clock=clock)
    step.add(part="eligible documents", of=100)
    step.add(documents=100, bytes=10**6, work=100)
    clock.now += 60
    step.add(part="round 2, KL 0.412 nats", of=100, passes=2)
    clock.now += 2
    step.add(documents=100, bytes=10**6, work=100)
    assert (
        str(step)
        == "selections[s]: round 2, KL 0.412 nats, 2 s left, 50 documents, 0 MB/s, 50%, 1:02 min so far"
    )
    assert step.seconds == 62
    step.add(part="fitting")
    assert str(step) == "selections[s]: fitting, 1:02 min so far"
    step.add(partitions=1)
    step.end()
    assert str(step) == "selections[s]: done"  # the log's last word is of the whole


def test_the_log_gets_a_line_at_each_interval_and_watchers_every_tick(clock, monkeypatch):
    lines, seen = [], []
    monkeypatch.setattr(progress, "watchers", [lambda step, line: seen.append((step.over, line))])
    step = Progress("weights", 3, lines.append, interval=10.0, clock=clock)
    for _ in range(50):
        clock.now += 0.5
        step.tick()
    step.end()
    assert lines == ["weights: 0 of 3 partitions, 0%"] * 2
    assert len(seen) == 51 and [line for _, line in seen if line] == lines
    assert [over for over, _ in seen] == [False] * 50 + [True]


def test_parts_are_told_within_others_and_results_are_counted():
    told = []

    def tell(**what):
        told.append(what)

    inner = within(tell, "top_k")
    assert list(counted(inner, "reading", iter("ab"), 2)) == ["a", "b"]
    assert told == [
        {"part": "top_k: reading", "of": 2},
        {"part": None, "work": 1},
        {"part": None, "work": 1},
    ]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (185, "3:05 min"), (3600, "1:00 h"), (7384, "2:03 h")],
)
def test_durations(seconds, written):
    assert duration(seconds) == written
