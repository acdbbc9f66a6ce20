"""What the interpreter is like while a function is repeated: collections are cheap, and no warning is kept thousands of times."""

from __future__ import annotations

import gc as live_gc  # changed here
import warnings as live_warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytest_membudget.measurement.process.garbage import collector
from pytest_membudget.originals import gc


@contextmanager
def each_warning_once() -> Iterator[None]:
    """A test runner keeps every warning that it gets: what it keeps of each call is not the call's own growth."""
    show = live_warnings.showwarning
    shown = set()

    def show_once(message: Any, category: Any, filename: str, lineno: int, *rest: Any, **named: Any) -> None:
        if (category, filename, lineno) not in shown:
            shown.add((category, filename, lineno))
            show(message, category, filename, lineno, *rest, **named)

    live_warnings.showwarning = show_once
    try:
        yield
    finally:
        live_warnings.showwarning = show


@contextmanager
def old_objects_frozen() -> Iterator[None]:
    """Takes what exists already out of every collection, so that collecting after each round is cheap.

    A function that asks the collector what there is gets everything, as ever: from its first question on nothing is frozen.
    """
    frozen_before = gc.get_freeze_count()
    answers = {name: getattr(live_gc, name) for name in _QUESTIONS}
    collector.collect_fully()
    gc.freeze()

    def thaw() -> None:
        gc.unfreeze()
        for name, answer in answers.items():
            setattr(live_gc, name, answer)

    def thawing(answer: Callable[..., Any]) -> Callable[..., Any]:
        def answer_thawed(*arguments: Any, **named: Any) -> Any:
            thaw()
            return answer(*arguments, **named)

        return answer_thawed

    for name, answer in answers.items():
        setattr(live_gc, name, thawing(answer))
    try:
        yield
    finally:
        thaw()
        if frozen_before:
            gc.freeze()


_QUESTIONS = ("freeze", "get_freeze_count", "get_objects", "get_referrers", "unfreeze")
"""What tells a program that objects are frozen."""
