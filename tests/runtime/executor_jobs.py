"""Functions that worker processes import."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path


def square(number):
    return number * number


def square_slowly(number):
    time.sleep(0.005)
    return number * number


def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()


def die_first_time(marker):
    """Kills its worker in the first attempt."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        die(marker)
    return os.getpid()


def die(_):
    crash("SIGKILL")


def crash(signal_name):
    """Dies as by a fault of its own, or leaves by the back door where none is named."""
    # An executor that fell back to threads would end the whole run of tests, without a word.
    assert multiprocessing.parent_process() is not None, "this is no worker process"
    if not signal_name:
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, signal_name))


def hang(_):
    time.sleep(3600)


def leave_a_thread(number):
    """As a library does that forgets to stop its helper; the interpreter waits for such threads."""
    import threading

    threading.Thread(target=time.sleep, args=(3600,)).start()
    return number


def fill(size_bytes):
    """Touches every page of so many bytes."""
    return len(bytearray(size_bytes))


def fill_in_a_program(size_bytes):
    """As `fill`, in a program that holds it for many readings; its exit code."""
    program = f"import time; block = bytearray(b'x') * {size_bytes}; time.sleep(0.3)"
    return subprocess.call([sys.executable, "-S", "-c", program])


def raise_named(name):
    raise {
        "OSError": OSError(12, "mine"),
        "FileNotFoundError": FileNotFoundError(2, "mine"),
        "RuntimeError": RuntimeError("can't start new thread"),
        "BrokenProcessPool": BrokenProcessPool("mine"),
        "KeyboardInterrupt": KeyboardInterrupt("mine"),
        "SystemExit": SystemExit("mine"),
        "MemoryError": MemoryError("mine"),
        "ValueError": ValueError("mine"),
    }[name]


def note_and_run_out(marker):
    with Path(marker).open("a") as stream:
        stream.write("x")
    raise MemoryError


def return_unpicklable(_):
    return threading.Lock()  # which cloudpickle cannot send either


class UnpicklableOneError(Exception):
    def __reduce__(self):
        raise TypeError("not me")


class UnloadableError(Exception):
    """Pickles, but cannot be loaded: its arguments are not its constructor's."""

    def __init__(self, one, two):
        super().__init__("together")


class SpeechlessError(Exception):
    """Neither its text nor its pickle can be had."""

    def __init__(self, *, travels):
        super().__init__()
        self.held = None if travels else threading.Lock()

    def __reduce__(self):
        return _speechless, (self.held,)

    def __str__(self):
        raise ValueError("no text")


def _speechless(_):
    return SpeechlessError(travels=True)


class Speechless:
    """An input without a text."""

    def __repr__(self):
        raise ValueError("no text")


def raise_speechless(_):
    raise SpeechlessError(travels=True)


def raise_speechless_unpicklable(_):
    raise SpeechlessError(travels=False)


def raise_unpicklable(_):
    raise UnpicklableOneError("inside")


def raise_unloadable(_):
    raise UnloadableError(1, 2)


def file_size(path):
    return Path(path).stat().st_size


def environment(name):
    return os.environ.get(name)


def start_sleeper(path):
    """Leaves a child behind and hangs."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(path).write_text(str(child.pid))
    time.sleep(600)


def fail_to_initialize():
    raise ValueError("error in initializer")


STATE = []


def initialize(value):
    STATE.append(value)


def state(_):
    return list(STATE)


def fill_and_wait(size_bytes, seconds):
    held = bytearray(size_bytes)
    time.sleep(seconds)
    return len(held)


def hold_and_return(what):
    held_bytes, returned_bytes, seconds = what
    held = bytearray(held_bytes)
    time.sleep(seconds)
    del held
    return b"x" * returned_bytes


def fill_by_name(path):
    """Touches 40 MB, whatever the file."""
    return fill(40_000_000) if Path(path).exists() else 0


def die_once_or_square(item):
    if isinstance(item, str):
        return die_first_time(item)
    time.sleep(0.02)
    return square(item)


def die_at_seven(number):
    if number == 7:
        die(number)
    return number


def read_text(path):
    return Path(path).read_text()


def name_and_text(path):
    return Path(path).name, Path(path).read_text(), str(Path(path).parent)


def touch_and_wait(folder, number):
    (Path(folder) / str(number)).touch()
    time.sleep(0.1)
    return number


_memory = []


def remember(value):
    _memory.append(value)


def remembered():
    return _memory


def gauged_peaks(sizes, exact):
    from pytest_membudget.runtime.workers.task_memory import TaskMemory as Gauge

    gauge = Gauge()
    peaks = []
    for size in sizes:
        gauge.begin(exact=exact)
        block = bytearray(size)
        del block
        peaks.append(gauge.end().peak_bytes)
    return peaks


def gauged_kept(size):
    from pytest_membudget.runtime.workers.task_memory import TaskMemory as Gauge

    gauge = Gauge()
    gauge.begin(exact=True)
    block = bytearray(size)
    kept = gauge.end().kept_bytes
    del block
    return kept


_KEPT = []
_CACHE = {}


def keep_100_kb(number):
    """A leak."""
    _KEPT.append(bytes(100_000))


def keep_nothing(number):
    return len(bytes(100_000 + number))


def warm_up(number):
    """Fills a cache of five entries, which then is full."""
    _CACHE.setdefault(number % 5, bytes(500_000))


def leave_cycles(number):
    """Garbage that only the collector frees."""
    ring = [bytes(20_000)]
    ring.append(ring)


_MODULES = []


def load_once(path):
    """As a function that imports pandas: the first call in a worker takes 100 MB, and they stay."""
    if not _MODULES:
        _MODULES.append(bytearray(100_000_000))
    time.sleep(0.02)
    return os.getpid()


DOOR = []


def open_the_door():
    DOOR.append("open")


def size_of_opened(item, suffix):
    """Needs the initializer above, and the argument that a partial gives."""
    assert DOOR
    name = item if isinstance(item, str) else item[0]
    return len(Path(name + suffix).read_bytes())


def fail_on_three(number):
    if number == 3:
        raise ValueError("three")
    return number


def fill_slowly(size_bytes):
    """Grows by 8 MB every 20 ms."""
    held = []
    while len(held) * 8_000_000 < size_bytes:
        held.append(bytearray(b"x") * 8_000_000)
        time.sleep(0.02)
    return len(held)


_pools: list[ProcessPoolExecutor] = []


def keep_a_pool(number):
    """Works in a pool of the worker's own, which the worker keeps for its next task."""
    if not _pools:
        _pools.append(ProcessPoolExecutor(1))
    return _pools[0].submit(square, number).result()


def square_by_joblib(number):
    from joblib import Parallel, delayed

    return sum(Parallel(n_jobs=2)(delayed(square)(each) for each in (number, 0)))


def change_the_process(folder):
    """What a task may do to its process, and the next one would find."""
    import resource  # not on Windows

    os.chdir(folder)
    os.umask(0o777)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    signal.alarm(60)
    return os.getpid()


def state_of_the_process(_):
    import resource

    mask = os.umask(0o022)
    os.umask(mask)
    return os.getpid(), (
        str(Path.cwd()),
        mask,
        resource.getrlimit(resource.RLIMIT_FSIZE),
        signal.getsignal(signal.SIGCHLD),
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        signal.getitimer(signal.ITIMER_REAL),
    )


def remove_the_folder(folder):
    Path(folder).rmdir()
    return os.getpid()
