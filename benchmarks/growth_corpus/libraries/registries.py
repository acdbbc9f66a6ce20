"""Registries, caches and records of the interpreter and the standard library: those that are bounded, and those that are not."""

import abc
import asyncio
import bz2
import codecs
import concurrent.futures
import contextlib
import contextvars
import cProfile
import csv
import ctypes
import dataclasses
import datetime
import enum
import fnmatch
import functools
import hashlib
import http.cookiejar
import importlib
import io
import itertools
import linecache
import logging
import os
import pickle
import sched
import sqlite3
import ssl
import struct
import sys
import tempfile
import time
import traceback
import tracemalloc
import typing
import urllib.request
import warnings
import weakref
import zlib
import zoneinfo
from pathlib import Path
from unittest import mock

from growth_corpus.case import clean, leaking, records, slow


@clean
def formats_of_struct(random):
    def call():
        for _ in range(30):
            struct.calcsize(f"{random.randrange(1, 400)}i{random.randrange(1, 400)}h")
        time.sleep(0.005)

    return call


@clean
def generic_aliases(random):
    kinds = [int, str, bytes, float, list, dict, set, tuple]

    def call():
        for _ in range(20):
            typing.Dict[random.choice(kinds), typing.List[random.choice(kinds)] | None]  # noqa: UP006
        time.sleep(0.006)

    return call


@clean
def dates_in_many_formats(random):
    directives = ["%Y", "%m", "%d", "%H", "%M", "%S"]

    def call():
        random.shuffle(directives)
        text = "-".join(directives)
        datetime.datetime.strptime(datetime.datetime(2020, 2, 3, 4, 5, 6).strftime(text), text)
        time.sleep(0.005)

    return call


@clean
def zones_of_the_world(random):
    names = sorted(name for name in zoneinfo.available_timezones() if "/" in name)

    def call():
        for name in random.sample(names, 10):
            datetime.datetime(2024, random.randrange(1, 13), 1, tzinfo=zoneinfo.ZoneInfo(name)).utcoffset()
        time.sleep(0.004)

    return call


@clean
def tracebacks_of_thirty_files(random):
    folder = Path(tempfile.mkdtemp())
    sources = [folder / f"part{number}.py" for number in range(30)]
    for source in sources:
        source.write_text(
            "\n" * random.randrange(200) + "def fails():\n    raise ValueError\n" + "# line\n" * 300
        )

    def call():
        names = {}
        source = random.choice(sources)
        exec(compile(source.read_text(), str(source), "exec"), names)
        try:
            names["fails"]()
        except ValueError:
            traceback.format_exc()
        time.sleep(0.005)

    return call


@clean
def warnings_of_forty_texts(random):
    def call():
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            with contextlib.redirect_stderr(io.StringIO()):
                warnings.warn(f"text {random.randrange(40)}", UserWarning, stacklevel=1)
        time.sleep(0.005)

    return call


@clean
def classes_asked_of_abstract_ones(_random):
    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self): ...

    def call():
        kinds = [type(f"Kind{number}", (), {}) for number in range(10)]
        assert not any(issubclass(kind, Shape) for kind in kinds)
        time.sleep(0.01)

    return call


@clean
def dispatched_by_classes_that_end(_random):
    @functools.singledispatch
    def show(value):
        return repr(value)

    def call():
        kind = dataclasses.make_dataclass("Point", ["x", "y"])
        show(kind(1, 2))
        enum.Enum("Colour", "RED GREEN BLUE")
        time.sleep(0.005)

    return call


@clean
def statements_of_a_hundred_texts(random):
    connection = sqlite3.connect(":memory:")

    def call():
        for _ in range(10):
            connection.execute(f"SELECT {random.randrange(100)} + ?", (1,)).fetchall()
        time.sleep(0.005)

    return call


@clean
def text_compressed_piece_by_piece(random):
    def call():
        packer, unpacker = zlib.compressobj(random.randrange(1, 10)), zlib.decompressobj()
        for _ in range(random.randrange(1, 30)):
            unpacker.decompress(packer.compress(random.randbytes(random.randrange(20_000))))
        unpacker.decompress(packer.flush())
        bz2.compress(random.randbytes(random.randrange(30_000)))

    return call


@clean
def cancelled_timers(random):
    loop = asyncio.new_event_loop()

    def call():
        for _ in range(random.randrange(1, 40)):
            loop.call_later(3600, print).cancel()
        loop.run_until_complete(asyncio.sleep(0.005))

    return call


@clean
def coroutines_never_awaited(_random):
    async def work():
        await asyncio.sleep(0)

    def call():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
        time.sleep(0.005)

    return call


@clean
def certificates_loaded(_random):
    def call():
        ssl.create_default_context()
        time.sleep(0.002)

    return call


@leaking(100)
def traced_by_itself(random):
    """CPython 3.11 frees less than it takes."""

    def call():
        tracemalloc.start(5)
        kept = [bytes(random.randrange(1000)) for _ in range(500)]
        tracemalloc.take_snapshot().statistics("lineno")
        tracemalloc.stop()
        del kept

    return call


@clean
def profiled_by_itself(random):
    def call():
        with cProfile.Profile() as profile:
            sorted(records(random), key=lambda row: row["name"])
        profile.getstats()
        time.sleep(0.005)

    return call


@clean
def modules_imported_and_forgotten(random):
    folder = tempfile.mkdtemp()
    for number in range(20):
        Path(folder, f"part_of_corpus{number}.py").write_text("values = list(range(1000))\n")
    sys.path.insert(0, folder)

    def call():
        name = f"part_of_corpus{random.randrange(20)}"
        importlib.import_module(name)
        del sys.modules[name]
        time.sleep(0.005)

    return call


@clean
def a_dictionary_of_200_keys(random):
    kept = {}

    def call():
        kept.setdefault(random.randrange(200), bytes(500))
        time.sleep(0.005)

    return call


@clean
def spooled_to_the_disk(random):
    def call():
        with tempfile.SpooledTemporaryFile(max_size=100_000) as file:
            for _ in range(random.randrange(1, 40)):
                file.write(random.randbytes(10_000))
        time.sleep(0.003)

    return call


@leaking(100)
def one_error_raised_again(_random):
    error = ValueError("the same each time")

    def call():
        with contextlib.suppress(ValueError):
            raise error
        time.sleep(0.01)

    return call


@leaking(100)
def names_of_unknown_encodings(random):
    def call():
        with contextlib.suppress(LookupError):
            codecs.lookup(f"x-charset-{random.random()}".replace(".", ""))
        time.sleep(0.01)

    return call


@leaking(200)
def folders_that_modules_came_from(_random):
    numbers = itertools.count()

    def call():
        with tempfile.TemporaryDirectory() as folder:
            name = f"plugin_of_corpus{next(numbers)}"
            Path(folder, f"{name}.py").write_text("")
            sys.path.insert(0, folder)
            importlib.invalidate_caches()
            importlib.import_module(name)
            sys.path.remove(folder)
            del sys.modules[name]
        time.sleep(0.005)

    return call


@leaking(100)
def calls_recorded_by_a_mock(random):
    double = mock.Mock()

    def call():
        double.send("message", size=random.randrange(1000))
        time.sleep(0.01)

    return call


@leaking(300)
def a_pickler_used_again(random):
    pickler = pickle.Pickler(io.BytesIO())

    def call():
        pickler.dump({"text": "p" * random.randrange(300, 900), "at": [time.time()]})
        time.sleep(0.02)

    return call


@leaking(40)
def one_iterator_behind_the_other(_random):
    first, behind = itertools.tee(itertools.count(10**6))

    def call():
        next(first)
        assert behind
        time.sleep(0.005)

    return call


@leaking(100)
def context_variables_of_each_call(_random):
    numbers = itertools.count()

    def call():
        contextvars.ContextVar(f"request {next(numbers)}").set(bytes(100))
        time.sleep(0.01)

    return call


@leaking(160)
def callbacks_of_one_future(_random):
    future = concurrent.futures.Future()
    return slow(0.01)(lambda: future.add_done_callback(lambda _: None))


@leaking(100)
def an_exit_stack_never_closed(random):
    stack = contextlib.ExitStack()
    return slow(0.015)(lambda: stack.callback(print, bytes(random.randrange(200))))


@leaking(100)
def events_of_a_scheduler(_random):
    scheduler = sched.scheduler()

    def call():
        scheduler.enter(3600, 1, print)
        scheduler.run(blocking=False)
        time.sleep(0.01)

    return call


@leaking(300)
def cookies_of_each_request(random):
    jar = http.cookiejar.CookieJar()

    class Answer:
        def info(self):
            import email.message

            headers = email.message.Message()
            headers["Set-Cookie"] = f"visit{random.random()}=1; path=/"
            return headers

    def call():
        jar.extract_cookies(Answer(), urllib.request.Request("http://example.org/"))
        time.sleep(0.005)

    return call


@leaking(100)
def dialects_by_name(_random):
    numbers = itertools.count()
    return slow(0.01)(lambda: csv.register_dialect(f"dialect {next(numbers)}", delimiter=";"))


@leaking(200)
def functions_of_a_database(_random):
    connection, numbers = sqlite3.connect(":memory:"), itertools.count()
    return slow(0.01)(lambda: connection.create_function(f"f{next(numbers)}", 1, lambda value: value))


@leaking(10_000)
def contexts_of_tls_kept(_random):
    kept = []
    return slow(0.01)(lambda: kept.append(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)))


@leaking(200)
def digests_kept(_random):
    kept = []
    return slow(0.005)(lambda: kept.append(hashlib.sha512(b"text")))


@leaking(200)
def sources_in_the_cache_of_lines(_random):
    numbers = itertools.count()

    def call():
        name = f"<generated {next(numbers)}>"
        source = "def work():\n    return 1\n"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), {})
        time.sleep(0.008)

    return call


@leaking(50)
def pointers_to_arrays_of_each_size(_random):
    sizes = itertools.count(1)
    return slow(0.01)(lambda: ctypes.POINTER(ctypes.c_char * next(sizes)))


@leaking(30)
def values_of_an_environment_variable(random):
    return slow(0.005)(lambda: os.environ.__setitem__("CORPUS_REQUEST", f"{random.random():.20f}" * 4))


@leaking(100)
def filters_of_a_logger(_random):
    logger = logging.Logger("corpus")
    return slow(0.01)(lambda: logger.addFilter(lambda _: True))


@leaking(200)
def results_by_weak_keys_that_live(_random):
    results, kept = weakref.WeakKeyDictionary(), []

    class Key: ...

    def call():
        key = Key()
        kept.append(key)
        results[key] = bytes(100)
        time.sleep(0.01)

    return call


@leaking(200)
def asynchronous_generators_kept(_random):
    kept = []

    async def numbers():
        yield 1

    async def work():
        generator = numbers()
        await anext(generator)
        kept.append(generator)
        await asyncio.sleep(0.005)

    loop = asyncio.new_event_loop()
    return lambda: loop.run_until_complete(work())


@leaking(100)
def written_to_a_stream_in_memory(random):
    stream = io.BytesIO()
    return slow(0.01)(lambda: stream.write(random.randbytes(random.randrange(100, 600))))


@clean
def patterns_of_file_names(random):
    """`fnmatch` keeps 32,768 of them, which no check reaches: the answer may be *inconclusive*, never a leak."""

    def call():
        fnmatch.fnmatch("name.txt", f"{random.random()}*.txt")
        time.sleep(0.005)

    return call
