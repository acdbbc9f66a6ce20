"""What inputs, results, exceptions and workers can do to a batch. Each name is a behaviour of `do`."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("mine")


class ExitsWhenRead:
    """Ends the process that unpickles it, where unpickling is allowed."""

    def __reduce__(self):
        return sys.exit, (99,)


class OwnInitError(Exception):
    def __init__(self, path, line):
        super().__init__(f"{path}: line {line} is broken")


class SpeechlessError(Exception):
    def __str__(self):
        raise SystemExit(5)

    __repr__ = __str__


class OddItem:
    """An input whose own methods raise."""

    def __init__(self, behaviour, number):
        self.behaviour, self.number = behaviour, number

    def __eq__(self, other):
        raise ValueError("mine")

    __hash__ = None

    def __fspath__(self):
        raise ValueError("mine")

    def __str__(self):
        raise SystemExit(5)

    __repr__ = __str__


class Text(str):
    __slots__ = ()

    def __str__(self):
        raise ValueError("mine")


def _raise(error):
    raise error


def _fork_and_leave(_):
    if not os.fork():
        os.setsid()
        time.sleep(0.3)
        os._exit(0)


GOOD = {
    "return": lambda _: None,
    "nap": lambda _: time.sleep(0.01),
    "fill": lambda _: bytearray(20_000_000) and None,
    "thread": lambda _: threading.Thread(target=time.sleep, args=(0.1,), daemon=True).start(),
    "program": lambda _: subprocess.run(["true"], check=True),
    "daemon": _fork_and_leave,
    "chdir": lambda _: os.chdir("/"),
    "environ": lambda _: os.environ.clear(),
    "stdio": lambda _: os.closerange(0, 2),
    "signals": lambda _: signal.signal(signal.SIGTERM, signal.SIG_IGN) and None,
}
"""After these the result is the input's number."""

BAD = {
    "raise": lambda _: _raise(ValueError("mine")),
    "own init": lambda _: _raise(OwnInitError("a.csv", 17)),
    "speechless": lambda _: _raise(SpeechlessError()),
    "exit": lambda _: sys.exit(3),
    "interrupt": lambda _: _raise(KeyboardInterrupt("mine")),
    "os._exit": lambda _: os._exit(7),
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda _: ctypes.string_at(0),
    "stop": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "hang": lambda _: time.sleep(3600),
    "memory": lambda _: _raise(MemoryError()),
    "unpicklable": lambda _: Unpicklable(),
    "exits when read": lambda _: ExitsWhenRead(),
    "lock": lambda _: threading.Lock(),
}
"""After these the outcome is an error."""


def do(item):
    behaviour, number = (item.behaviour, item.number) if isinstance(item, OddItem) else item
    if behaviour in BAD:
        return BAD[behaviour](number)
    GOOD[behaviour](number)
    return number
