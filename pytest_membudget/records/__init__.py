"""The frozen values that one folder passes to another, and their versioned JSON.

Raw numbers are fields in base units; what follows from them is a property. Doubt travels with the number:
`caveats` holds plain sentences and is empty where there are none. The types of numbers here are those that a file of ours may hold:
a reader refuses what no machine can have measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from pytest_membudget.units import LARGEST_BYTES

Bytes = Annotated[int, Meta(ge=0, le=LARGEST_BYTES)]
"""A size."""
SignedBytes = Annotated[int, Meta(ge=-LARGEST_BYTES, le=LARGEST_BYTES)]
"""A difference of sizes."""
Count = Annotated[int, Meta(ge=0, le=LARGEST_BYTES)]
"""How many there are of something."""
Seconds = Annotated[float, Meta(ge=0, le=1e12)]
"""A duration."""

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Result_co = TypeVar("Result_co", default=Any, covariant=True)
else:
    from typing import TypeVar

    # Python has defaults of type variables from 3.13 on; only type checkers need this one.
    Result_co = TypeVar("Result_co", covariant=True)
"""What a measured function, or a task, returns."""
