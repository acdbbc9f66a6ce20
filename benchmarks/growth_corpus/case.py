"""How a case is written down."""

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
