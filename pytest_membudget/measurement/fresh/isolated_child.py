"""The fresh interpreter's end of `measure_isolated`. What it reads and writes is its parent's and its own, by pipe."""

from __future__ import annotations

import multiprocessing.spawn
import os
import pickle
import traceback
from typing import Any, BinaryIO

import msgspec

from pytest_membudget.errors import MeasurementError, text_of
from pytest_membudget.measurement.probe import Probe
from pytest_membudget.measurement.tree.sampler import close_sampler
from pytest_membudget.origins import install
from pytest_membudget.records.caveats import Caveat
from pytest_membudget.records.measurement import Measurement


def main(orders: BinaryIO, answers: int) -> None:
    """Runs the one function that was asked for and answers with what it took."""
    try:
        answer = _run(orders)
    except BaseException as error:  # whatever it is belongs to the caller, an exit included
        answer = _encode(None, error)
    finally:
        orders.close()
    data = memoryview(len(answer).to_bytes(8, "big") + answer)
    while data:
        data = data[os.write(answers, data) :]
    os.close(answers)
    close_sampler()


def _run(orders: BinaryIO) -> bytes:
    preparation, origins, task = pickle.load(orders)  # noqa: S301 - from our own parent, over our own pipe
    multiprocessing.spawn.prepare(preparation)
    install(origins)
    fn, args, kwargs = pickle.loads(task)  # noqa: S301 - likewise
    probe = Probe(getattr(fn, "__qualname__", ""), settle=True)
    probe.begin()
    value: Any = None
    try:
        value = fn(*args, **kwargs)
    finally:
        probe.finish()
    return _encode(msgspec.structs.replace(probe.measurement, value=value), None)


def _encode(measurement: Measurement | None, error: BaseException | None) -> bytes:
    told = "".join(traceback.format_exception(error)) if error else ""
    try:
        answer = pickle.dumps((measurement, error, told))
        pickle.loads(answer)  # noqa: S301 - an exception with a constructor of its own may only fail here
    except Exception as failure:  # what pickle meets in other people's objects can be anything
        if measurement is None:
            stand_in = MeasurementError(
                f"an exception that cannot travel between processes was raised: {error!r}"
            )
            return pickle.dumps((None, stand_in, told))
        caveats = (*measurement.caveat_records, Caveat("result-not-sent", detail=text_of(failure)))
        bare = msgspec.structs.replace(measurement, value=None, caveat_records=caveats)
        return pickle.dumps((bare, None, told))
    return answer
