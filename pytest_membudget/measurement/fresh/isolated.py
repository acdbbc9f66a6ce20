"""Measuring a function in a fresh interpreter, where nothing that ran before can change the figure."""

from __future__ import annotations

import contextlib
import multiprocessing.spawn
import os
import pickle
import select
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from pytest_membudget.errors import (
    IsolatedCrashError,
    MeasurementError,
    MissingExtraError,
    UnguardedMainError,
    UsageError,
)
from pytest_membudget.measurement.fresh.launcher import Launched, launch
from pytest_membudget.measurement.process.children import pipe
from pytest_membudget.module_origins import main_is_importable, off_path, refuse_in_unguarded_main
from pytest_membudget.records.measurement import (
    Caveat,
    Ending,
    Measurement,
)

T = TypeVar("T")

POLL_S = 0.05
ENDING_S = 10.0
"""How long an interpreter that has given its answer may take to end by itself."""

LENGTH_BYTES = 8
MOST_AT_ONCE = 1 << 20

# The path comes first: the package may be importable by it alone. The pipe is this program's own.
LAUNCH = (
    "import os, pickle, sys; orders = os.fdopen(int(sys.argv[1]), 'rb'); sys.path[:] = pickle.load(orders); "
    "from pytest_membudget.measurement.fresh import isolated_child; isolated_child.main(orders, int(sys.argv[2]))"
)


def measure_isolated(fn: Callable[..., T], *args: Any, **kwargs: Any) -> Measurement[T]:
    """Runs `fn` in a fresh interpreter and measures it there; its result is in `value`, its exception propagates.

    `fn` lives in an importable module or in the script being run; as with multiprocessing, a script that measures its own
    functions does so under `if __name__ == "__main__":`. A function of a notebook, of the prompt or of `python -c` travels by
    value (cloudpickle). What the function imports at its module's top is loaded before the start.

    Raises:
        UsageError: the function or its arguments cannot be sent to another interpreter.
        MeasurementError: there is no fork here, or no working directory.
        UnguardedMainError: the script calls this while a fresh interpreter imports it.
        IsolatedCrashError: the interpreter died by a signal or left without a result.
    """
    if sys.platform == "win32":
        raise MeasurementError("measure_isolated needs a system with fork and exec; use measure here")
    refuse_in_unguarded_main("measure_isolated")
    orders = _orders(fn, args, kwargs)
    name = getattr(fn, "__qualname__", repr(fn))
    their_orders, ours = pipe()
    answers, theirs = pipe()
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing
    command = [sys.executable, *flags, "-c", LAUNCH, str(their_orders), str(theirs)]
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(os.close, answers)
        try:
            launched = cleanup.enter_context(launch(command, pass_fds=(their_orders, theirs)))
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(their_orders)
            os.close(theirs)
        _send(ours, orders)
        answer = _receive(answers, launched)
        ending = launched.poll(ENDING_S)
        is_over = ending is not None
        found = _judge(name, answer, ending or launched.cancel())
    if is_over:
        return found
    kept_running = Caveat("thread-left-running", detail=f"{ENDING_S:g} s")
    return msgspec.structs.replace(found, caveat_records=(*found.caveat_records, kept_running))


def _orders(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    call = fn, args, kwargs
    name = getattr(fn, "__qualname__", fn)
    try:
        task = pickle.dumps(call)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{name!r} cannot be sent to a fresh interpreter ({error}); "
            "use a function at the top of a module, and arguments that can be pickled"
        ) from error
    try:
        preparation = multiprocessing.spawn.get_preparation_data("membudget-isolated")
    except FileNotFoundError as error:
        raise MeasurementError(
            "a fresh interpreter runs in this program's working directory, which is gone; go to another"
        ) from error
    by_value = False
    if b"__main__" not in task:
        # Nothing of the script is needed, and what stands at its top would run once more.
        drop = {"init_main_from_name", "init_main_from_path"}
    elif main_is_importable():
        drop = set()
    else:
        task, by_value = _packed_by_value(call, name), True
        drop = {"init_main_from_name", "init_main_from_path"}
    drop |= {"sys_path", "authkey"}  # the one is sent ahead, the other must not be
    preparation = {key: value for key, value in preparation.items() if key not in drop}
    return pickle.dumps(sys.path) + pickle.dumps((preparation, off_path(), by_value, task))


def _packed_by_value(call: object, name: object) -> bytes:
    try:
        import cloudpickle
    except ImportError as missing:
        raise MissingExtraError(
            f"a fresh interpreter for {name!r}, which is in no file,", "cloudpickle", "cloudpickle"
        ) from missing
    packed: bytes = cloudpickle.dumps(call)
    return packed


def _send(descriptor: int, orders: bytes) -> None:
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(orders)
    except BrokenPipeError:
        pass  # it died before it read everything: its exit says how


def _receive(descriptor: int, launched: Launched) -> bytearray:
    """The answer; empty when the interpreter died before all of it came. A grandchild may hold the pipe's other end open."""
    length = _receive_exactly(LENGTH_BYTES, descriptor, launched)
    return _receive_exactly(int.from_bytes(length), descriptor, launched)


def _receive_exactly(size: int, descriptor: int, launched: Launched) -> bytearray:
    """So many bytes, or none. They grow in place: adding to `bytes` would copy all that came before with each part."""
    poll = select.poll()  # unlike select, at home with any number of descriptors
    poll.register(descriptor, select.POLLIN)
    received = bytearray()
    ended = False
    while len(received) < size:
        if poll.poll(POLL_S * 1000):
            part = os.read(descriptor, min(size - len(received), MOST_AT_ONCE))
            if not part:
                return bytearray()
            received += part
        elif launched.poll() is not None:
            # What it wrote last may still be on its way: it is read once more.
            if ended:
                return bytearray()
            ended = True
    return received


def _judge(name: str, answer: bytes | bytearray, ending: Ending) -> Measurement:
    if not answer:
        raise IsolatedCrashError(f"the fresh interpreter that ran {name} {ending} before it gave a result")
    measurement, error, remote_traceback = pickle.loads(answer)  # noqa: S301 - our own child's, over our own pipe
    if isinstance(error, UnguardedMainError):
        raise error  # where it arose over there says nothing more
    if error is not None:
        error.add_note(f"raised in the fresh interpreter of measure_isolated:\n{remote_traceback}")
        raise error
    assert isinstance(measurement, Measurement)
    return msgspec.structs.replace(measurement, label=measurement.label or name)
