"""The bar of ``dsir run``: what it shows at several widths, where there is none, and that nothing of it stays."""

import io

import pytest

from dsir_dagster.progress_bar import PATIENCE, drawn, shown_progress
from dsir_dagster.resources import progress
from dsir_dagster.resources.progress import Progress
from dsir_dagster.terminal import Terminal
from tests.resources.test_progress import Clock


def step_of(clock, name="raw_counts"):
    step = Progress(name, 46, lambda line: None, total=1_000, interval=10.0, clock=clock)
    step.add(documents=122_325, bytes=148_100_000, work=450, partitions=3)
    clock.now += 9
    return step


def terminal(encoding="utf-8", **options):
    file = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
    return Terminal(file=file, **{"force_terminal": True, "width": 80, "color_system": None, **options})


def written(console):
    console.file.flush()
    return console.file.buffer.getvalue().decode(console.file.encoding)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_bar_gives_way_to_name_share_and_time(width):
    console = terminal(width=width)
    console.print(drawn(step_of(Clock(), "evaluations[a-name]")))
    first, second = written(console).splitlines()
    assert first.split() == ["evaluations[a-name]", first.split()[1], "45%", "11", "s", "left"]
    assert set(first.split()[1]) <= set("━╸") and 5 <= len(first.split()[1]) <= 18
    assert second.rstrip().endswith("148.1 MB, 16 MB/s") and len(first) <= width
    assert second.startswith("  3 of 46 partitions, 122,325 documents")


def test_a_name_that_is_too_long_is_cut():
    console = terminal(width=60)
    console.print(drawn(step_of(Clock(), "evaluations[" + "long" * 20 + "]")))
    assert [len(line) <= 60 for line in written(console).splitlines()] == [True, True]
    assert "…" in written(console)


def test_a_part_says_its_own_time_left_and_how_long_the_step_takes_so_far():
    clock = Clock()
    step = Progress("selections[s]", 1, print, clock=clock)
    clock.now += 60
    step.add(part="round 7, KL 0.412 nats", of=100)
    clock.now += 5
    step.add(work=50)
    console = terminal()
    console.print(drawn(step))
    first, second = written(console).splitlines()
    assert first.endswith("50%  1:05 min so far")
    assert second.strip() == "round 7, KL 0.412 nats, 5 s left"


def test_where_nothing_is_known_there_is_no_share():
    console = terminal()
    console.print(drawn(Progress("evaluations[s]", 1, print, clock=Clock())))
    assert "%" not in written(console) and "left" not in written(console)


def test_a_terminal_without_unicode_gets_ascii():
    console = terminal("ascii")
    console.print(drawn(step_of(Clock())))
    assert "-----" in written(console)


def test_without_color_the_bar_ends_where_the_work_does():
    console = terminal(no_color=True, color_system="truecolor")
    console.print(drawn(step_of(Clock())))
    assert written(console).count("━") == 18  # of 40


def test_a_bar_appears_once_a_step_takes_long_and_nothing_of_it_stays():
    clock, console = Clock(), terminal()
    step = step_of(clock)
    begun = clock.now - 9
    with shown_progress(console):
        clock.now = begun + PATIENCE / 2
        step.tick()
        assert written(console) == ""
        clock.now = begun + PATIENCE
        step.tick()
        assert "raw_counts" in written(console)
        step.end()
        ended = written(console)
        assert ended.endswith(
            "\x1b[?25h\r" + 2 * "\x1b[1A\x1b[2K"
        )  # two lines are erased, the cursor is back
        console.print("done")
    assert written(console) == ended + "done\n" and progress.watchers == []


def test_an_error_takes_the_bar_away():
    clock, console = Clock(), terminal()
    step = step_of(clock)
    with pytest.raises(KeyboardInterrupt), shown_progress(console):
        step.tick()
        raise KeyboardInterrupt
    assert written(console).endswith("\x1b[?25h\r" + 2 * "\x1b[1A\x1b[2K") and progress.watchers == []


@pytest.mark.parametrize("dumb", [True, False])
def test_elsewhere_a_step_that_takes_long_gets_a_line_at_each_interval(dumb, monkeypatch):
    if dumb:
        monkeypatch.setenv("TERM", "dumb")
    clock, console = Clock(), terminal(force_terminal=dumb)
    step = step_of(clock)
    with shown_progress(console):
        step.tick()
        assert written(console) == ""
        for _ in range(20):
            clock.now += 0.5
            step.tick()
        step.end()
    [line] = written(console).splitlines()
    assert line == "  raw_counts: 3 of 46 partitions, 122,325 documents, 148.1 MB, 15 MB/s, 45%, 12 s left"
