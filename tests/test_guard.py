"""Whatever a run does, the caller gets an answer in time: a result or one sentence."""

import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated

import pytest

from tokenlab import guard
from tokenlab.controls import Slider
from tokenlab.errors import UserError
from tokenlab.views import Note


@dataclass(frozen=True)
class Result:
    note: Note


def note(text):
    return Result(Note(title="t", text=text))


N = Annotated[int, Slider("N", minimum=0, maximum=9, step=1)]


def system(run, **settings):
    """A module made of one function, with a name of its own so that the cache does not mix them up."""
    return SimpleNamespace(__name__=f"{run.__qualname__}-{time.monotonic_ns()}", run=run, **settings)


def test_a_result_and_then_the_same_from_memory():
    calls = []

    def run(n: N = 1) -> Result:
        calls.append(n)
        return note(str(n))

    module = system(run)
    first, second = guard.last(module, {"n": 2}), guard.last(module, {"n": "2"})
    assert (
        first.result == second.result == {"note": {"kind": "Note", "alt": "2", "title": "t", "note": "", "text": "2"}}
    )
    assert (first.cached, second.cached, calls) == (False, True, [2])


def test_partial_results_stream_and_the_last_is_whole():
    def run(n: N = 3) -> Result:
        for i in range(n):
            yield note(str(i))
            time.sleep(0.05)

    parts = [(r.result["note"]["text"], r.done) for r in guard.answer(system(run), {})]
    assert parts == [("0", False), ("1", False), ("2", False), ("2", True)]


def test_a_slow_reader_gets_the_newest_part_and_stop_is_heard_at_once():
    def run(n: N = 1) -> Result:
        for i in range(1000):
            yield note(str(i))
            time.sleep(0.001)

    stopped = threading.Event()
    stream = guard.answer(system(run), {}, stopped)
    next(stream)
    time.sleep(0.3)
    assert int(next(stream).result["note"]["text"]) > 20
    stopped.set()
    with pytest.raises(UserError, match="stopped"):
        next(stream)


class Panic(BaseException):
    """Stands for the Rust panic, which is no Exception either."""


@pytest.mark.parametrize(
    "error", [ValueError("secret path"), Panic("boom"), KeyboardInterrupt(), SystemExit(3), RecursionError()]
)
def test_any_failure_is_one_sentence_without_its_details(error):
    def run(n: N = 1) -> Result:
        raise error

    with pytest.raises(UserError) as caught:
        guard.last(system(run), {})
    assert str(caught.value) == "Something went wrong on our side; the details are in the server's log."


def test_a_users_error_keeps_its_words():
    def run(n: N = 1) -> Result:
        raise UserError("Please add text.")

    with pytest.raises(UserError, match="Please add text."):
        guard.last(system(run), {})


def test_a_wrong_value_never_reaches_the_run():
    def run(n: N = 1) -> Result:
        raise AssertionError("ran")

    with pytest.raises(UserError, match="outside 0 to 9"):
        guard.last(system(run), {"n": 10})


def test_the_budget_ends_a_library_call_that_never_returns():
    release = threading.Event()

    def run(n: N = 1) -> Result:
        release.wait(20)
        return note("late")

    started = time.monotonic()
    with pytest.raises(UserError, match="longer than 0.3 seconds"):
        guard.last(system(run, SECONDS=0.3), {})
    assert time.monotonic() - started < 2
    release.set()


def test_a_loop_that_checks_the_time_really_ends():
    ended = threading.Event()

    def run(n: N = 1) -> Result:
        try:
            while True:
                guard.check_time()
                time.sleep(0.01)
        finally:
            ended.set()

    with pytest.raises(UserError):
        guard.last(system(run, SECONDS=0.2), {})
    assert ended.wait(2)


def test_stop_keeps_what_has_come_and_ends_the_run():
    stopped, ended = threading.Event(), threading.Event()

    def run(n: N = 1) -> Result:
        try:
            for i in range(1000):
                yield note(str(i))
                time.sleep(0.02)
        finally:
            ended.set()

    came = []
    with pytest.raises(UserError, match="stopped"):
        for part in guard.answer(system(run), {}, stopped):
            came.append(part)
            if len(came) == 3:
                stopped.set()
    assert 3 <= len(came) < 100 and ended.wait(2)


def test_leaving_a_stream_early_ends_the_run():
    ended = threading.Event()

    def run(n: N = 1) -> Result:
        try:
            while True:
                yield note("x")
                guard.check_time()
        finally:
            ended.set()

    stream = guard.answer(system(run), {})
    next(stream)
    stream.close()
    assert ended.wait(2)


def test_the_memory_of_runs_is_bounded():
    cache = guard._Cache(results=2, size=1000)
    for key in "abc":
        cache.put(key, {"x": key})
    assert cache.get("a") is None and cache.get("c") == {"x": "c"}
    cache.put("d", {"x": "y" * 2000})
    assert cache.get("d") is None
