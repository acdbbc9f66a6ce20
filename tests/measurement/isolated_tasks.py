"""Functions for fresh interpreters."""

import os
import signal
import sys
import threading
import time

from tree_programs import hold


def take(size):
    hold(size).close()
    return size


def say(text):
    print(text)


def raise_key_error():
    raise KeyError("no such thing")


class PickyError(Exception):
    def __init__(self, first, second):
        super().__init__(first)


def raise_picky():
    raise PickyError(1, 2)


def leave_a_thread():
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return "done"


def kill_myself():
    os.kill(os.getpid(), signal.SIGKILL)


def break_off():
    """Dies in the middle of an answer."""
    os.write(int(sys.orig_argv[-1]), (1000).to_bytes(8, "big") + b"half of it")
    kill_myself()


def leave():
    os._exit(3)


def unpicklable():
    return lambda: None


def fork_and_die():
    if os.fork() == 0:
        signal.pause()
    os.kill(os.getpid(), signal.SIGSEGV)


def build_a_block(size):
    return b"x" * size


def allocate_in_a_helper(size):
    return len(build_a_block(size))
