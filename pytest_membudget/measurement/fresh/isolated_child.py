"""The fresh interpreter's end of `measure_isolated`. What it reads and writes is its parent's and its own, by pipe."""

from __future__ import annotations

import multiprocessing.spawn
import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from pytest_membudget.errors import MeasurementError, text_of
from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.tree.sampler import close_sampler
from pytest_membudget.module_origins import importing_main, install
from pytest_membudget.records.measurement import Caveat, Measurement

Pack = Callable[[Any], bytes]


def main(orders: BinaryIO, answers: int) -> None:
    """Runs the one function that was asked for and answers with what it took."""
    pack: Pack = pickle.dumps
    try:
        preparation, origins, by_value, task = pickle.load(orders)  # noqa: S301 - from our own parent, over our own pipe
        if by_value:
            import cloudpickle

            pack = cloudpickle.dumps
        with importing_main():
            multiprocessing.spawn.prepare(preparation)
        install(origins)
        answer = _encode(_run(task), None, pack)
    except BaseException as error:  # whatever it is belongs to the caller, an exit included
        answer = _encode(None, error, pack)
    finally:
        orders.close()
    data = memoryview(len(answer).to_bytes(8, "big") + answer)
    while data:
        data = data[os.write(answers, data) :]
    os.close(answers)
    close_sampler()


def _run(task: bytes) -> Measurement:
    fn, args, kwargs = pickle.loads(task)  # noqa: S301 - likewise
    probe = Probe(getattr(fn, "__qualname__", ""), settle=True)
    probe.begin()
    value: Any = None
    try:
        value = fn(*args, **kwargs)
    finally:
        probe.finish()
    return msgspec.structs.replace(probe.measurement, value=value)


def _encode(measurement: Measurement | None, error: BaseException | None, pack: Pack) -> bytes:
    text = "".join(traceback.format_exception(error)) if error else ""
    try:
        answer = pack((measurement, error, text))
        pickle.loads(answer)  # noqa: S301 - an exception with a constructor of its own may only fail here
    except Exception as failure:  # what pickle meets in other people's objects can be anything
        if measurement is None:
            stand_in = MeasurementError(
                f"an exception that cannot travel between processes was raised: {error!r}"
            )
            return pickle.dumps((None, stand_in, text))
        caveats = (*measurement.caveat_records, Caveat("result-not-sent", detail=text_of(failure)))
        bare = msgspec.structs.replace(measurement, value=None, caveat_records=caveats)
        return pickle.dumps((bare, None, text))
    return answer
