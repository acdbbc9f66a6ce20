"""How a case is written down."""

import time
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

Call = Callable[[], Any]


class Case(NamedTuple):
    """One function of the corpus: `make(random)` gives the function to call."""

    name: str
    leaks: bool
    make: Callable[[Random], Call]
    bytes_per_call: float = 0.0


CASES: dict[str, Case] = {}


def leaking(bytes_per_call=8.0):
    """Registers a case that leaks at least so many bytes a call, or a resource (0)."""

    def register(make):
        CASES[make.__name__] = Case(make.__name__, leaks=True, make=make, bytes_per_call=bytes_per_call)
        return make

    return register


def clean(make):
    """Registers a case that keeps no more and no more with each call."""
    CASES[make.__name__] = Case(make.__name__, leaks=False, make=make)
    return make


def slow(pause_s):
    """Makes a function wait after each of its calls."""

    def wait(call):
        def slowed():
            call()
            time.sleep(pause_s)

        return slowed

    return wait


def records(random, most=600):
    """Up to so many rows with text of varying length."""
    return [{"id": number, "name": "x" * random.randrange(600)} for number in range(random.randrange(most))]
