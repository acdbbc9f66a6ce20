"""The standard library as programs use it: caches of many sizes, loggers, tasks, threads, mappings, programs that are started."""

import array
import asyncio
import collections
import concurrent.futures
import contextvars
import ctypes
import email.message
import functools
import hashlib
import io
import itertools
import json
import logging
import logging.handlers
import mmap
import pickle
import queue
import re
import socket
import string
import subprocess
import tarfile
import tempfile
import threading
import time
import weakref
from pathlib import Path

from growth_corpus.case import clean, leaking, records, slow


def _cache_of(size, entry_bytes, pause_s):
    numbers = itertools.count()
    load = functools.lru_cache(size)(lambda _: bytes(entry_bytes))
    return slow(pause_s)(lambda: load(next(numbers)))


@clean
def lru_cache_of_30(_random):
    return _cache_of(30, 2000, 0.05)


@clean
def lru_cache_of_500(_random):
    return _cache_of(500, 500, 0.01)


@clean
def dictionary_that_is_emptied_at_64(random):
    kept = {}

    def call():
        if len(kept) >= 64:
            kept.clear()
        kept[random.random()] = bytes(random.randrange(3000))
        time.sleep(0.008)

    return call


@clean
def patterns_compiled_from_a_list(random):
    words = [f"{letter}{number}" for letter in string.ascii_lowercase for number in range(4)]
    return slow(0.005)(lambda: re.search(f"^{random.choice(words)}+$", "some text", re.IGNORECASE))


@clean
def json_lines_in_a_rotating_log(random):
    folder = tempfile.TemporaryDirectory()
    handler = logging.handlers.RotatingFileHandler(f"{folder.name}/log", maxBytes=100_000, backupCount=2)
    logger = logging.Logger("corpus")
    logger.addHandler(handler)

    def call():
        for record in records(random, 60):
            logger.warning("%s", json.dumps(record))
        time.sleep(0.003)
        assert folder

    return call


@clean
def gathered_tasks(random):
    async def work(size):
        await asyncio.sleep(0.001)
        return bytes(size)

    async def main():
        async with asyncio.TaskGroup() as group:
            for _ in range(random.randrange(1, 40)):
                group.create_task(work(random.randrange(5000)))

    return lambda: asyncio.run(main())


@clean
def event_loop_of_its_own_with_a_server(random):
    async def answer(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"a" * random.randrange(20_000) + b"\n")
            await reader.readline()
            writer.close()
            await writer.wait_closed()

    return lambda: asyncio.run(main())


@clean
def context_variables_set_and_reset(random):
    current = contextvars.ContextVar("current")

    def call():
        token = current.set(records(random, 100))
        contextvars.copy_context().run(lambda: current.get())
        current.reset(token)
        time.sleep(0.005)

    return call


@clean
def mapped_file_searched(random):
    file = tempfile.TemporaryFile()
    file.write(b"line of text\n" * 100_000)
    file.flush()

    def call():
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
            assert pages.find(b"none", random.randrange(1000)) == -1
        time.sleep(0.002)

    return call


@clean
def programs_started(random):
    def call():
        subprocess.run(["/bin/cat"], input=b"x" * random.randrange(100_000), capture_output=True, check=True)

    return call


@clean
def archive_written_and_read(random):
    def call():
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for number in range(random.randrange(1, 8)):
                info = tarfile.TarInfo(f"file {number}")
                info.size = random.randrange(50_000)
                archive.addfile(info, io.BytesIO(bytes(info.size)))
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as archive:
            assert archive.getnames()

    return call


@clean
def producer_and_consumer(random):
    def call():
        items = queue.Queue(maxsize=20)
        thread = threading.Thread(target=lambda: [items.get() for _ in range(50)])
        thread.start()
        for _ in range(50):
            items.put(bytes(random.randrange(2000)))
        thread.join()

    return call


@clean
def objects_with_finalizers(random):
    class Resource:
        pass

    def call():
        for _ in range(random.randrange(50)):
            resource = Resource()
            weakref.finalize(resource, int)
        time.sleep(0.005)

    return call


@clean
def pickled_copies(random):
    return slow(0.002)(lambda: pickle.loads(pickle.dumps(records(random, 200))))


@clean
def mails_put_together(random):
    def call():
        message = email.message.EmailMessage()
        message["Subject"] = "s" * random.randrange(100)
        message.set_content("text " * random.randrange(2000))
        message.as_bytes()

    return call


@clean
def socket_pairs(random):
    def call():
        first, second = socket.socketpair()
        with first, second:
            first.sendall(b"x" * random.randrange(1, 5000))
            second.recv(5000)
        time.sleep(0.005)

    return call


@clean
def a_pool_of_threads_kept_open(random):
    pool = concurrent.futures.ThreadPoolExecutor(4)

    def call():
        list(pool.map(lambda size: hashlib.sha256(bytes(size)).digest(), [random.randrange(200_000)] * 8))
        time.sleep(0.005)

    return call


@leaking(1000)
def results_by_argument_in_a_dictionary(random):
    numbers, results = itertools.count(), {}

    def call():
        results[next(numbers)] = "r" * random.randrange(500, 3000)
        time.sleep(0.01)

    return call


@leaking(200)
def records_kept_by_a_memory_handler(_random):
    handler = logging.handlers.MemoryHandler(10**9, flushLevel=logging.CRITICAL)
    logger = logging.Logger("corpus")
    logger.addHandler(handler)
    return slow(0.02)(lambda: logger.warning("something happened at %s", time.time()))


@leaking(300)
def tasks_kept_by_their_loop(_random):
    loop = asyncio.new_event_loop()
    ended = loop.create_future()

    async def waits():
        await asyncio.shield(ended)

    def call():
        loop.create_task(waits())  # noqa: RUF006 - the loop alone keeps it
        loop.run_until_complete(asyncio.sleep(0.01))

    return call


@leaking(4096)
def mappings_left_open(_random):
    kept = []
    return slow(0.01)(lambda: kept.append(mmap.mmap(-1, 4096)))


@leaking(100)
def finalizers_of_what_lives(_random):
    lives = type("Lives", (), {})()
    return slow(0.01)(lambda: weakref.finalize(lives, int))


@leaking(400)
def listeners_registered_each_time(_random):
    listeners = collections.defaultdict(list)

    class Window:
        def __init__(self):
            listeners["closed"].append(self.close)

        def close(self): ...

    return slow(0.015)(Window)


@leaking(0)
def programs_not_waited_for(_random):
    kept = []
    return slow(0.01)(lambda: kept.append(subprocess.Popen(["/bin/true"])))


@leaking(1_000_000)
def megabytes_kept(_random):
    kept = []
    return slow(0.03)(lambda: kept.append(b"x" * 1_000_000))


@leaking(8)
def numbers_appended_in_a_slow_loop(random):
    kept = array.array("d")

    def call():
        kept.extend(random.random() for _ in range(20))
        time.sleep(0.01)

    return call


@leaking(0)
def sockets_left_open(_random):
    kept = []
    return slow(0.02)(lambda: kept.append(socket.socket()))


@leaking(0)
def threads_that_wait_for_ever(_random):
    ended = threading.Event()
    return slow(0.05)(lambda: threading.Thread(target=ended.wait, daemon=True).start())


@leaking(100)
def a_key_of_text_each_time(random):
    seen = set()
    return slow(0.005)(lambda: seen.add(f"key-{random.random()}"))


@leaking(5000)
def buffers_of_a_c_library(random):
    library = ctypes.CDLL(None)
    library.strdup.restype = ctypes.c_void_p
    return slow(0.01)(lambda: library.strdup(b"c" * random.randrange(5000, 9000)))


@leaking(500)
def histories_without_an_end(random):
    class Account:
        history = collections.deque()  # noqa: RUF012 - that is the leak

        def add(self, amount):
            self.history.append({"amount": amount, "at": time.time(), "note": "n" * random.randrange(300)})

    account = Account()
    return slow(0.01)(lambda: account.add(random.random()))


@leaking(2000)
def methods_cached_with_their_objects(random):
    class Page:
        def __init__(self):
            self.text = "t" * random.randrange(1000, 4000)

        @functools.lru_cache(None)  # noqa: B019 - that is the leak
        def words(self):
            return len(self.text.split())

    return slow(0.02)(lambda: Page().words())


@leaking(1000)
def paths_opened_and_text_kept(random):
    folder, kept = Path(tempfile.mkdtemp()), []

    def call():
        file = folder / "page"
        file.write_text("p" * random.randrange(1000, 4000))
        kept.append(file.read_text())
        time.sleep(0.01)

    return call
