"""Threads: results in order, bounded work in flight, errors and early ends that leave nothing behind."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir_dagster.resources.engine import Engine, available_cores


@pytest.fixture(params=[1, 2, 5], ids="threads={}".format)
def engine(request) -> Engine:
    return Engine(request.param)


@pytest.fixture(params=["map_blocks", "map_shards"])
def map_in(request, engine):
    """Either map; both promise the same."""
    return getattr(engine, request.param)


class Stopped(Exception):
    pass


def soon(condition, seconds: float = 5.0) -> bool:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


# --- maps --------------------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_items_however_long_each_takes(map_in):
    def work(i: int) -> int:
        time.sleep(0.003 * (7 * i % 4))
        return i * i

    assert list(map_in(work, range(20))) == [i * i for i in range(20)]


def test_no_items_give_no_results(map_in):
    assert list(map_in(lambda i: i, [])) == []


def test_no_more_threads_work_at_a_time_than_the_engine_has(map_in, engine):
    lock, running, most = threading.Lock(), 0, 0

    def work(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1

    list(map_in(work, range(30)))
    assert 1 <= most <= engine.threads
    assert engine.threads == 1 or most > 1, "the work is to be done in parallel"


def test_few_items_are_taken_before_their_results_are_asked_for(map_in, engine):
    taken = 0

    def source():
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = map_in(lambda i: i, source())
    assert taken == 0
    for asked_for in range(1, 40):
        assert next(results) == asked_for
        assert taken <= asked_for + engine.threads + 1
    results.close()


def test_an_error_in_the_work_is_raised_after_the_results_before_it_and_ends_the_stream(map_in, engine):
    worked_on = []

    def work(i: int) -> int:
        worked_on.append(i)
        if i == 5:
            raise Stopped(i)
        return i

    results = map_in(work, range(1000))
    found = []
    with pytest.raises(Stopped, match="5"):
        found.extend(results)
    assert found == [0, 1, 2, 3, 4]
    assert next(results, "ended") == "ended"
    assert max(worked_on) <= 5 + engine.threads + 1
    assert list(map_in(lambda i: i, range(3))) == [0, 1, 2], "the engine stays of use"


def test_an_error_in_the_source_of_items_is_raised(map_in):
    def source():
        yield 1
        raise Stopped

    with pytest.raises(Stopped):
        list(map_in(lambda i: i, source()))


def test_work_in_flight_is_cancelled_when_the_stream_is_closed(map_in, engine):
    done = []

    def work(i: int) -> int:
        time.sleep(0.02)
        done.append(i)
        return i

    results = map_in(work, range(1000))
    next(results)
    results.close()
    assert list(map_in(lambda i: i, [1])) == [1]
    assert len(done) <= 2 + 2 * engine.threads


def test_shards_may_map_blocks(engine):
    def shard(i: int) -> list[int]:
        return list(engine.map_blocks(lambda j: 10 * i + j, range(5)))

    assert list(engine.map_shards(shard, range(8))) == [[10 * i + j for j in range(5)] for i in range(8)]


# Some outputs go through all shards (an evaluation, a fit on a sample) or read several at once (a selection).
# This runs in a process of its own, since threads that wait for each other keep the interpreter from ending.
NESTED = """
import sys
from dsir_dagster.resources.engine import Engine

engine = Engine(int(sys.argv[1]))
inside = {
    "map_shards": lambda _: list(engine.map_shards(lambda i: i, range(5))),
    "chain": lambda _: list(engine.chain([lambda i=i: iter([i]) for i in range(5)])),
}[sys.argv[2]]
print(list(engine.map_outputs(inside, [0])))
"""


@pytest.mark.parametrize("inner", ["map_shards", "chain"])
@pytest.mark.parametrize("threads", [1, 2])
def test_work_on_an_output_may_go_through_shards_with_any_number_of_threads(threads, inner):
    process = subprocess.run(
        [sys.executable, "-c", NESTED, str(threads), inner], capture_output=True, text=True, timeout=60
    )
    assert process.stdout.strip() == str([[0, 1, 2, 3, 4]]), process.stderr


def test_an_engine_has_as_many_threads_as_there_are_cores_unless_told():
    assert Engine().threads == available_cores() >= 1
    assert Engine(3).threads == 3


# --- chain -------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), max_size=8),
    threads=st.integers(1, 4),
    held=st.sampled_from([1, 2, 8]),
)
def test_a_chain_of_streams_of_any_lengths_equals_itertools_chain(lengths, threads, held):
    streams = [[(s, i) for i in range(length)] for s, length in enumerate(lengths)]
    chained = Engine(threads).chain([lambda s=s: iter(s) for s in streams], held=held)
    assert list(chained) == list(itertools.chain.from_iterable(streams))


def test_items_of_any_value_pass_through(engine):
    items = [None, False, 0, (), Stopped, [None]]
    assert list(engine.chain([lambda: iter(items)] * 3)) == items * 3


def test_later_streams_read_ahead_by_at_most_what_may_be_held(engine):
    produced = [0] * 12

    def stream(s: int):
        def items():
            for _ in range(100):
                produced[s] += 1
                yield s

        return items

    chained = engine.chain([stream(s) for s in range(12)], held=4)
    assert sum(produced) == 0
    assert next(chained) == 0
    ahead = range(1, engine.threads)
    assert soon(lambda: all(produced[s] >= 4 for s in ahead))
    time.sleep(0.15)
    assert produced[0] <= 1 + 4 + 1
    assert all(produced[s] <= 4 + 1 for s in ahead)
    assert not any(produced[engine.threads :]), "streams beyond the number of threads are not started"
    chained.close()


def test_an_error_in_a_stream_is_raised_after_its_items_and_ends_the_others(engine):
    stopped = threading.Event()

    def failing():
        yield from range(3)
        raise Stopped

    def endless():
        try:
            yield from itertools.count(100)
        finally:
            stopped.set()

    chained = engine.chain([lambda: iter([-1]), failing, endless])
    assert [next(chained) for _ in range(4)] == [-1, 0, 1, 2]
    with pytest.raises(Stopped):
        next(chained)
    assert next(chained, "ended") == "ended"
    assert list(engine.chain([lambda: iter("ab")])) == ["a", "b"], "the engine stays of use"
    assert engine.threads == 1 or stopped.wait(5)


def test_an_error_in_opening_a_stream_is_raised(engine):
    def unopenable():
        raise Stopped

    with pytest.raises(Stopped):
        list(engine.chain([unopenable]))


def test_closing_early_ends_every_stream_soon_and_does_not_wait_for_them(engine):
    opened, ended, lock = [], [], threading.Lock()

    def stream(s: int):
        def items():
            with lock:
                opened.append(s)
            try:
                yield from itertools.count()
            finally:
                with lock:
                    ended.append(s)

        return items

    chained = engine.chain([stream(s) for s in range(20)])
    assert [next(chained) for _ in range(3)] == [0, 1, 2]
    started = time.monotonic()
    chained.close()
    assert time.monotonic() - started < 1
    assert soon(lambda: sorted(ended) == sorted(opened))
    assert len(opened) <= engine.threads
    # Every thread is free again: as many at a time as there are.
    barrier = threading.Barrier(engine.threads)
    assert len(list(engine.map_shards(lambda _: barrier.wait(timeout=5), range(engine.threads)))) == (
        engine.threads
    )


def test_leaving_a_loop_over_a_chain_ends_its_streams(engine):
    ended = threading.Event()

    def endless():
        try:
            yield from itertools.count()
        finally:
            ended.set()

    with pytest.raises(Stopped):
        for item in engine.chain([endless]):
            if item == 5:
                raise Stopped
    assert ended.wait(5)


def test_a_list_of_streams_that_fails_is_raised_and_ends_the_streams_before_it():
    ended = threading.Event()

    def stream():
        try:
            for i in range(200):  # not endless: what is not stopped would keep the interpreter from ending
                yield i
                time.sleep(0.01)
        finally:
            ended.set()

    def streams():
        yield stream
        raise Stopped

    chained = Engine(2).chain(streams(), held=1000)
    with pytest.raises(Stopped):
        list(chained)
    assert ended.wait(0.5)


def test_an_error_in_a_function_ends_the_streams_even_while_the_error_and_the_stream_are_held():
    engine = Engine(2)
    stream = engine.chain([lambda: iter(range(1000))] * 2)

    def failing(item):
        raise Stopped

    with pytest.raises(Stopped) as held:
        list(engine.map_blocks(failing, stream))
    done = threading.Event()
    threading.Thread(target=lambda: (list(engine.map_shards(str, range(4))), done.set()), daemon=True).start()
    assert done.wait(5)
    assert held.value.__traceback__ is not None
