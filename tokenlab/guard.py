"""The one way to run a system: check, look up, run within a time budget, turn every failure into a sentence.

The panel, the endpoint, the MCP tool and the command line all come through `answer`.
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import json
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from tokenlab import limits, spec, views
from tokenlab.errors import UserError

log = logging.getLogger("tokenlab")


class TimeUp(UserError):
    """The run's time is over, or the user pressed Stop."""


@dataclass(frozen=True)
class Run:
    """What a run has given so far: its views as JSON, seconds since the start, whether it is whole."""

    values: dict[str, Any]
    result: dict[str, Any]
    seconds: float
    done: bool
    cached: bool = False


@dataclass
class Budget:
    """The time that a run may take, and the event that ends it early."""

    seconds: float
    stopped: threading.Event = field(default_factory=threading.Event)
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        return self.started + self.seconds - time.monotonic()

    def check(self) -> None:
        if self.stopped.is_set():
            raise TimeUp("The run was stopped.")
        if self.left() <= 0:
            raise TimeUp(
                f"This took longer than {self.seconds:g} seconds; please try a shorter text or a smaller setting."
            )


_budget: contextvars.ContextVar[Budget | None] = contextvars.ContextVar("budget", default=None)


def check_time() -> None:
    """Raise TimeUp when the current run is over its budget or was stopped; call it in long loops."""
    budget = _budget.get()
    if budget is not None:
        budget.check()


def answer(module: ModuleType, values: dict[str, Any], stopped: threading.Event | None = None) -> Iterator[Run]:
    """Run `module.run(**values)`: partial runs as they come, the whole one last. Raises only UserError.

    A module may set SECONDS, its own time budget. stopped: set it from another thread to end the run."""
    budget = Budget(getattr(module, "SECONDS", limits.RUN_SECONDS), stopped or threading.Event())
    checked = sentence(spec.check, module.run, values)
    key = module.__name__, json.dumps(checked, sort_keys=True)
    known = _cache.get(key)
    if known is not None:
        yield Run(checked, known, 0.0, done=True, cached=True)
        return
    result: dict[str, Any] = {}
    for part in _in_thread(lambda: module.run(**checked), budget):
        result = sentence(views.result_to_json, part)
        if inspect.isgeneratorfunction(module.run):
            yield Run(checked, result, time.monotonic() - budget.started, done=False)
    _cache.put(key, result)
    yield Run(checked, result, time.monotonic() - budget.started, done=True)


def last(module: ModuleType, values: dict[str, Any]) -> Run:
    """The whole run, for callers that do not stream."""
    *_, run = answer(module, values)
    return run


def sentence(function: Callable, *arguments: Any) -> Any:
    """Call a function; whatever it raises leaves as UserError.

    BaseException, because a crafted tokenizer.json makes the Rust library panic, and a panic is no
    Exception: uncaught, it would leave the caller waiting for ever."""
    try:
        return function(*arguments)
    except BaseException as error:  # noqa: BLE001
        raise as_user_error(error) from error


def as_user_error(error: BaseException) -> UserError:
    """The error itself when a user caused it; otherwise one sentence, and the details in the log."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError):
        return UserError("There was not enough memory for this; please try a shorter text or a smaller setting.")
    log.error("a run failed", exc_info=error)
    return UserError("Something went wrong on our side; the details are in the server's log.")


def _in_thread(start: Callable[[], Any], budget: Budget) -> Iterator[Any]:
    """Items of start() (or its one value), computed in a thread so that the caller gets an answer in time.

    Python cannot kill a thread: one that is over time ends at its next `check_time`."""
    items: queue.Queue = queue.Queue()

    def work() -> None:
        _budget.set(budget)
        try:
            value = start()
            if not inspect.isgenerator(value):
                value = iter_one(value)
            with contextlib.closing(value):  # an ended run must clean up now, not when it is collected
                for item in value:
                    with contextlib.suppress(queue.Empty):
                        items.get_nowait()  # a part that nobody has taken is out of date
                    items.put((item, None))
                    budget.check()
            items.put((None, StopIteration()))
        except BaseException as error:  # noqa: BLE001
            items.put((None, error))

    def iter_one(value: Any) -> Iterator[Any]:
        yield value

    threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
    try:
        while True:
            item, error = _next(items, budget)
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise as_user_error(error)
            yield item
    finally:
        budget.stopped.set()


def _next(items: queue.Queue, budget: Budget) -> tuple[Any, BaseException | None]:
    while True:
        sentence(budget.check)
        with contextlib.suppress(queue.Empty):
            # Short waits, so that Stop is heard while the thread is inside a library call.
            return items.get(timeout=0.1)


class _Cache:
    """Finished runs by (module, values), least recently used out first, bounded in number and bytes."""

    def __init__(self, results: int, size: int):
        self.results, self.size = results, size
        self.lock = threading.Lock()
        self.items: OrderedDict[Any, tuple[dict, int]] = OrderedDict()

    def get(self, key: Any) -> dict | None:
        with self.lock:
            if key not in self.items:
                return None
            self.items.move_to_end(key)
            return self.items[key][0]

    def put(self, key: Any, result: dict) -> None:
        with self.lock:
            self.items[key] = result, len(json.dumps(result))
            while len(self.items) > self.results or sum(n for _, n in self.items.values()) > self.size:
                self.items.popitem(last=False)


_cache = _Cache(limits.CACHE_RESULTS, limits.CACHE_BYTES)
