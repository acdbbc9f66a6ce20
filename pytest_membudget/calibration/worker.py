"""What a fresh interpreter does for one run: import, warm up, measure. Started by `fresh_run`."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path
from typing import Any, Literal

import msgspec

from pytest_membudget.calibration.function_reference import FunctionReference, digest_source, find_function
from pytest_membudget.errors import text_of
from pytest_membudget.measurement.probe import measuring
from pytest_membudget.measurement.process.high_water import (
    high_water_bytes,
    reset_high_water_mark,
    resident_bytes,
)
from pytest_membudget.records.caveats import Kind

_LONGEST_TEXT = 500

_SAME_IN_A_WORKER: frozenset[Kind] = frozenset({"kept-small-blocks", "library-pool", "arrow-pool"})
"""The call before has left free memory that this one reused. So has a task in a worker, and what it adds is asked for."""


class RunInput(msgspec.Struct, frozen=True, kw_only=True):
    """What the function is called with: a path, as text or as a `Path`, or an item that this program pickled."""

    path: str = ""
    as_path: bool = False
    pickled: bytes = b""

    def value(self) -> Any:
        """The argument itself."""
        if self.pickled:
            return pickle.loads(self.pickled)  # noqa: S301 - from the program that started this interpreter
        return Path(self.path) if self.as_path else self.path


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One run: the function, a tiny file to warm up on, the file to measure, and where to put the answer."""

    function: FunctionReference
    warm_up: RunInput
    input: RunInput
    answer: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one run found, or where it failed and with what. Sizes are bytes."""

    failed_at: Literal["", "input", "import", "warm-up", "run"] = ""
    error: str = ""
    #: The peak of the first call, on the tiny input: what it loads and caches is in it.
    first_peak_bytes: int = 0
    warm_bytes: int = 0
    peak_bytes: int = 0
    duration_s: float = 0.0
    read_bytes: int | None = None
    digest: str = ""
    caveats: tuple[str, ...] = ()


def main(order_path: str) -> int:
    """Carries out the order and writes the answer."""
    order = msgspec.json.decode(Path(order_path).read_bytes(), type=Order)
    partial = Path(f"{order.answer}.part")
    partial.write_bytes(msgspec.json.encode(_carry_out(order)))
    partial.rename(order.answer)  # the starter reads it as soon as it exists
    return 0


def _carry_out(order: Order) -> Answer:
    stage: Literal["import", "warm-up", "run"] = "import"
    try:
        fn = find_function(order.function)
        stage = "warm-up"
        tiny = order.warm_up.value()
        # By the high-water mark alone: a probe would load code here, whose freed memory the measured call would reuse.
        start_bytes = resident_bytes()
        is_reset = reset_high_water_mark()
        fn(tiny)
        first_peak_bytes = (high_water_bytes() if is_reset else resident_bytes()) - start_bytes
        gc.collect()
        warm_bytes = resident_bytes()
        stage = "run"
        item = order.input.value()
        with measuring(settle=True) as probe:
            before = _read_bytes()
            value = fn(item)
            after = _read_bytes()
        del value
    except (Exception, SystemExit) as error:  # whatever the user's function raises is named to its owner
        return Answer(failed_at=stage, error=_described(error))
    found = probe.measurement
    return Answer(
        first_peak_bytes=max(0, first_peak_bytes),
        warm_bytes=warm_bytes,
        peak_bytes=found.peak_bytes,
        duration_s=found.duration_s,
        read_bytes=None if before is None or after is None else after - before,
        digest=digest_source(fn),
        caveats=tuple(str(doubt) for doubt in found.caveat_records if doubt.kind not in _SAME_IN_A_WORKER),
    )


def _read_bytes() -> int | None:
    """Bytes that this process has read by system calls; `None` where the system does not count them."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("rchar:")), None)


def _described(error: BaseException) -> str:
    text = f"{type(error).__name__}: {text_of(error)}"
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "..."
