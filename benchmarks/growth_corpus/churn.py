"""Clean: everything that is taken is given back, with much coming and going."""

import ast
import asyncio
import concurrent.futures
import contextvars
import csv
import ctypes
import datetime
import decimal
import gzip
import hashlib
import io
import json
import mmap
import os
import pickle
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET

from growth_corpus.case import clean

_LIBC = ctypes.CDLL(None)
_LIBC.malloc.restype = ctypes.c_void_p
_LIBC.malloc.argtypes = [ctypes.c_size_t]
_LIBC.free.argtypes = [ctypes.c_void_p]
_ROWS = [{"name": f"row {number}", "value": number * 1.5, "tags": ["a", "b"]} for number in range(50)]


@clean
def arithmetic(random):
    return lambda: sum(number * number for number in range(50))


@clean
def lists_built_and_dropped(random):
    return lambda: sorted(random.random() for _ in range(200))


@clean
def dictionaries_built_and_dropped(random):
    return lambda: {number: str(number) for number in range(random.randrange(1, 500))}


@clean
def container_filled_and_emptied(random):
    held = {}

    def call():
        for number in range(1000):
            held[number] = None
        held.clear()

    return call


@clean
def json_there_and_back(random):
    return lambda: json.loads(json.dumps(_ROWS))


@clean
def pickle_there_and_back(random):
    return lambda: pickle.loads(pickle.dumps(_ROWS))


@clean
def csv_written_and_read(random):
    def call():
        text = io.StringIO()
        csv.writer(text).writerows([[1, 2.5, "x"]] * 50)
        text.seek(0)
        return list(csv.reader(text))

    return call


@clean
def xml_parsed(random):
    text = "<a>" + "<b c='1'>text</b>" * 50 + "</a>"
    return lambda: ET.fromstring(text)


@clean
def source_compiled(random):
    return lambda: exec(
        compile(ast.parse(f"x = {random.randrange(10**6)}\ndef f():\n    return x"), "s", "exec"), {}
    )


@clean
def classes_made_and_dropped(random):
    return lambda: type("Made", (), {"x": 1})()


@clean
def cycles(random):
    def call():
        left, right = {}, []
        left["right"] = right
        right.append(left)

    return call


@clean
def cycles_with_finalizers(random):
    class Node:
        def __init__(self):
            self.itself = self

        def __del__(self):
            self.gone = True

    return Node


@clean
def errors_raised_and_caught(random):
    def call():
        try:
            raise KeyError(random.random())
        except KeyError as error:
            return str(error)

    return call


@clean
def dates_parsed(random):
    return lambda: datetime.datetime.strptime("2026-11-21 10:00", "%Y-%m-%d %H:%M")


@clean
def decimals(random):
    return lambda: decimal.Decimal(random.randrange(1, 10**9)).sqrt()


@clean
def text_interned_and_dropped(random):
    return lambda: sys.intern(f"transient {random.getrandbits(60)}")


@clean
def compressed(random):
    data = bytes(20_000)
    return lambda: gzip.decompress(gzip.compress(data))


@clean
def hashed(random):
    return lambda: hashlib.sha256(random.randbytes(1000)).hexdigest()


@clean
def buffer_of_10_mb(random):
    return lambda: bytearray(10_000_000)


@clean
def buffer_of_50_mb(random):
    return lambda: bytes(50_000_000)


@clean
def buffers_of_any_size(random):
    return lambda: bytes(int(10 ** random.uniform(1, 6)))


@clean
def malloc_and_free(random):
    return lambda: _LIBC.free(_LIBC.malloc(random.randrange(1, 100_000)))


@clean
def mapping_opened_and_closed(random):
    return lambda: mmap.mmap(-1, 1 << 20).close()


@clean
def file_opened_and_closed(random):
    def call():
        with open(os.devnull) as file:
            return file.fileno()

    return call


@clean
def temporary_file(random):
    def call():
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 1000)

    return call


@clean
def sockets_closed(random):
    def call():
        for end in socket.socketpair():
            end.close()

    return call


@clean
def thread_joined(random):
    def call():
        thread = threading.Thread(target=sum, args=(range(10),))
        thread.start()
        thread.join()

    return call


@clean
def thread_that_ends_by_itself(random):
    return lambda: threading.Thread(target=sum, args=(range(10),), daemon=True).start()


@clean
def pool_of_threads_for_each_call(random):
    def call():
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            return list(pool.map(abs, range(5)))

    return call


@clean
def pool_of_threads_kept(random):
    pool = concurrent.futures.ThreadPoolExecutor(4)
    return lambda: pool.submit(abs, -1).result()


@clean
def child_process(random):
    return lambda: subprocess.run(["true"], check=True)


@clean
def forked_and_waited_for(random):
    def call():
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    return call


@clean
def event_loop_for_each_call(random):
    async def work():
        await asyncio.sleep(0)

    return lambda: asyncio.run(work())


@clean
def database_for_each_call(random):
    def call():
        database = sqlite3.connect(":memory:")
        database.execute("create table seen (number integer)")
        database.close()

    return call


@clean
def context_variables(random):
    variable = contextvars.ContextVar("variable")

    def call():
        context = contextvars.copy_context()
        context.run(variable.set, random.random())

    return call


@clean
def waits_2_ms(random):
    return lambda: time.sleep(0.002)


@clean
def cost_that_changes(random):
    return lambda: sum(range(int(10 ** random.uniform(0, 5))))
