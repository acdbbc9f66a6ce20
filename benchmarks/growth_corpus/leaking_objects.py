"""Objects that pile up in registries, frames and native code."""

import atexit
import ctypes
import itertools
import logging
import sqlite3
import time
import warnings
import weakref
import zlib

from growth_corpus.case import leaking

_LIBC = ctypes.CDLL(None)
_LIBC.malloc.restype = _LIBC.calloc.restype = _LIBC.realloc.restype = _LIBC.strdup.restype = ctypes.c_void_p
_LIBC.malloc.argtypes = [ctypes.c_size_t]
_LIBC.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
_LIBC.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Listener:
    """Somebody who wants to be told."""

    def hear(self, event):
        return event


@leaking(100)
def listeners_never_removed(random):
    listeners = []
    return lambda: listeners.append(Listener().hear)


@leaking(100)
def closures_kept(random):
    kept = []

    def call():
        number = random.random()
        kept.append(lambda: number)

    return call


@leaking(1000)
def classes_kept(random):
    kept = []
    return lambda: kept.append(type("Made", (), {}))


@leaking(100)
def generators_never_finished(random):
    kept = []

    def numbers():
        yield 1
        yield 2

    def call():
        waiting = numbers()
        next(waiting)
        kept.append(waiting)

    return call


@leaking(100)
def errors_kept_with_their_frames(random):
    kept = []

    def call():
        try:
            raise ValueError(random.random())
        except ValueError as error:
            kept.append(error)

    return call


@leaking(100)
def weak_references_kept(random):
    kept = []
    return lambda: kept.append(weakref.ref(Listener()))


@leaking(300)
def loggers_by_request(random):
    numbers, start = itertools.count(), random.getrandbits(40)
    return lambda: logging.getLogger(f"request.{start}.{next(numbers)}")


@leaking(50)
def warnings_of_unique_text(random):
    numbers = itertools.count()
    warnings.simplefilter("default")
    warnings.showwarning = lambda *_, **__: None
    return lambda: warnings.warn(f"happened {next(numbers)}", stacklevel=1)


@leaking(24)
def exit_handlers(random):
    def leave(): ...

    return lambda: atexit.register(leave)


@leaking(16)
def reference_never_dropped(random):
    return lambda: ctypes.pythonapi.Py_IncRef(ctypes.py_object(object()))


@leaking(100)
def foreign_callbacks_kept(random):
    kept, kind = [], ctypes.CFUNCTYPE(None)
    return lambda: kept.append(kind(int))


@leaking(8)
def malloc_of_8(random):
    return lambda: _LIBC.malloc(8)


@leaking(100)
def malloc_of_100(random):
    return lambda: _LIBC.malloc(100)


@leaking(65_536)
def calloc_of_64k(random):
    return lambda: _LIBC.calloc(1, 65_536)


@leaking(10)
def malloc_every_tenth_call(random):
    calls = itertools.count()
    return lambda: _LIBC.malloc(100) if next(calls) % 10 == 0 else None


@leaking(40)
def strdup_not_freed(random):
    return lambda: _LIBC.strdup(b"forty characters, and nobody frees them.")


@leaking(16)
def realloc_growing(random):
    held = [None, 0]

    def call():
        held[1] += 16
        held[0] = _LIBC.realloc(held[0], held[1])

    return call


@leaking(8)
def malloc_next_to_matching_frees(random):
    _LIBC.free.argtypes = [ctypes.c_void_p]

    def call():
        _LIBC.free(_LIBC.malloc(random.randrange(1, 5000)))
        _LIBC.malloc(8)

    return call


@leaking(8)
def rows_in_a_database(random):
    database = sqlite3.connect(":memory:")
    database.execute("create table seen (number integer)")
    return lambda: database.execute("insert into seen values (?)", (random.getrandbits(50),))


@leaking(10_000)
def compressors_kept(random):
    kept = []
    return lambda: kept.append(zlib.compressobj(wbits=9, memLevel=1))


@leaking(24)
def slow_leak(random):
    kept = []

    def call():
        time.sleep(0.002)
        kept.append(object())

    return call
