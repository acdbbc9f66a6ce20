"""Measuring a function in a fresh interpreter, where nothing that ran before can change the figure; and any command.

Of a command it is the most that its whole process tree held, from its first instruction to its end:

1. `launcher.launch` starts a guard, which waits.
2. A tree helper, as blocks have one (`tree.helper`), begins to watch the guard and all below it.
3. The guard runs the command. When that has ended, it sends what the kernel knows of the command's largest process
   (`ru_maxrss`): exact for a command of one process that grew larger than the guard, about 10 MB.
4. Both together make the figure. The guard itself is not in it.
"""

from __future__ import annotations

import contextlib
import multiprocessing.spawn
import os
import pickle
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from pytest_membudget.errors import (
    IsolatedCrashError,
    MeasurementError,
    MissingExtraError,
    UnguardedMainError,
    UsageError,
)
from pytest_membudget.measurement.fresh.launcher import Launched, checked_command, launch
from pytest_membudget.measurement.process.children import pipe, runs_with_others
from pytest_membudget.measurement.system.control_group import group_statistics
from pytest_membudget.measurement.tree.combine import MOST_SHARES
from pytest_membudget.measurement.tree.helper.messages import Summary
from pytest_membudget.measurement.tree.helper.shared_memory import SharedReader
from pytest_membudget.measurement.tree.sampler import SamplerLostError, TreeSampler
from pytest_membudget.origins import main_is_importable, off_path, refuse_in_unguarded_main
from pytest_membudget.records.measurement import (
    Caveat,
    CommandMeasurement,
    Ending,
    Measurement,
    ProcessShare,
    TimelinePoint,
)
from pytest_membudget.units import format_duration

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

PATIENCE_S = 3.0
"""How long a command may go on after Ctrl-C, which the terminal has sent to it as well."""


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


def measure_command(
    command: Sequence[str],
    *,
    timeout_s: float | None = None,
    limit_bytes: int | None = None,
    passthrough: bool = False,
    keep_rest: bool = False,
) -> CommandMeasurement:
    """Runs `command` with this process's input, output and terminal, and measures its whole tree.

    Args:
        command: the program and its arguments.
        timeout_s: the most that it may take.
        limit_bytes: the most that its whole tree may hold; it is ended when it is proven to hold more.
        passthrough: send signals that this process gets on to the command, as if the command were in its place.
        keep_rest: leave what outlives the command running; without, it is ended.

    Raises:
        UsageError: there is no command, or a limit is no number above 0.
        MeasurementError: this system has no /proc, or nothing can be started.
    """
    words = checked_command(command, limit_bytes=limit_bytes, timeout_s=timeout_s)
    if sys.platform != "linux":
        raise MeasurementError(
            "commands are measured on Linux only; use measure_isolated for a Python function"
        )
    with launch(
        words, limit_bytes=limit_bytes, timeout_s=timeout_s, own_session=False, held=True, keep_rest=keep_rest
    ) as launched:
        launched.poll(0)
        helper, lost = _helper(launched.root)
        key: int | None = None
        summary: Summary | None = None
        try:
            if helper is not None:
                key = helper.begin(shared=SharedReader(group_statistics()).read())
        except SamplerLostError as error:
            lost = str(error)
        try:
            launched.start()
            ending = _wait(launched, passthrough=passthrough)
            if helper is not None and key is not None:
                summary = helper.end(key)
        except SamplerLostError as error:
            lost = str(error)
        finally:
            if helper is not None:
                helper.close()
        return _combine(tuple(words), ending, summary, launched, lost=lost)


def _wait(launched: Launched, *, passthrough: bool) -> Ending:
    try:
        return launched.wait(passthrough=passthrough)
    except KeyboardInterrupt:
        launched.poll(PATIENCE_S)
        raise


def _helper(root: int) -> tuple[TreeSampler | None, str]:
    try:
        return TreeSampler(root), ""
    except SamplerLostError as error:
        return None, str(error)


def _combine(
    command: tuple[str, ...],
    ending: Ending,
    summary: Summary | None,
    launched: Launched,
    *,
    lost: str,
) -> CommandMeasurement:
    largest_bytes = launched.largest_bytes
    kernel = largest_bytes if largest_bytes > launched.floor_bytes else 0
    low, high, processes = kernel, largest_bytes, 1
    caveats = [Caveat("command-not-watched", detail=lost)] if lost else []
    shares: dict[int, int] = {}
    names: dict[int, str] = {}
    if summary is not None:
        shares = {pid: size for pid, size in summary.seen if pid != launched.root}
        names = dict(summary.names)
        processes = max(1, len(shares))
        # What the guard maps of files at the start is in no figure of the tree above its start.
        tree_high_bytes = summary.peak_high_bytes + summary.start_file_bytes
        if processes > 1 or summary.missed_bytes:
            low = max(low, summary.peak_low_bytes)
            high = max(low, largest_bytes, tree_high_bytes)
        else:
            low = max(low, *shares.values(), 0) if shares else low
            high = max(low, min(largest_bytes, tree_high_bytes))
    shared_bytes = summary.shared_high_bytes if summary else 0
    if shared_bytes and not runs_with_others([launched.root, *shares]):
        low = max(low, summary.shared_total_low_bytes if summary else 0)
    elif shared_bytes:
        caveats.append(Caveat("shared-not-attributed", shared_bytes))
    high = max(low, high + shared_bytes)
    exact = kernel > 0 and low == high and processes == 1 and not lost and not shared_bytes
    if summary is not None and processes == 1 and not kernel and low < high / 2:
        interval = format_duration(summary.interval_s or 0.0)
        caveats.append(Caveat("command-below-launcher", launched.floor_bytes, interval))
    return CommandMeasurement(
        command=command,
        exit_code=ending.exit_code,
        duration_s=ending.duration_s,
        peak_bytes=low,
        peak_upper_bytes=high,
        processes=processes,
        source="kernel" if exact else "sampled",
        interval_s=None if exact or summary is None else summary.interval_s,
        timed_out=ending.how == "timeout",
        ending=ending,
        shares=tuple(
            ProcessShare(pid, names.get(pid, ""), size)
            for pid, size in sorted(shares.items(), key=lambda item: -item[1])[:MOST_SHARES]
        ),
        timeline=tuple(TimelinePoint(*point) for point in summary.timeline) if summary else (),
        caveats=tuple(map(str, caveats)),
    )
