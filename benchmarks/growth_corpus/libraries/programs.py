"""What programs and servers do: requests, databases, pools, tasks, files, registries."""

import asyncio
import concurrent.futures
import ctypes
import functools
import itertools
import json
import multiprocessing
import sqlite3
import tempfile
import threading
import time
from multiprocessing import shared_memory
from pathlib import Path

from growth_corpus.case import clean, leaking, records, slow

_LIBC = ctypes.CDLL(None)


_LIBC.malloc.restype, _LIBC.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]


_LIBC.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


@clean
def httpx_client_opened_and_closed(random):
    import httpx

    def call():
        with httpx.Client():
            pass

    return call


@clean
def httpx_request_over_a_mock_transport(random):
    import httpx

    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=records(random, 100)))

    def call():
        with httpx.Client(transport=transport) as client:
            client.get("http://example.org/items", params={"page": random.randrange(1000)}).json()

    return call


@clean
def sqlalchemy_session(random):
    import sqlalchemy as sa

    engine = sa.create_engine(
        "sqlite://", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False}
    )
    table = sa.Table(
        "t", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String)
    )
    table.create(engine)

    def call():
        with engine.begin() as connection:
            connection.execute(table.insert(), [{"name": "n" * random.randrange(50)} for _ in range(50)])
            connection.execute(sa.select(table).where(table.c.id < random.randrange(100))).fetchall()
            connection.execute(table.delete())

    return call


@clean
def asyncio_tasks(random):
    async def work():
        await asyncio.gather(
            *(asyncio.sleep(0.001 * random.random()) for _ in range(random.randrange(1, 60)))
        )

    return lambda: asyncio.run(work())


@clean
def thread_pool_made_each_time(random):
    def call():
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda size: len(bytes(size)), [random.randrange(100_000) for _ in range(20)]))

    return call


@clean
def process_pool_made_each_time(random):
    def call():
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            pool.submit(int).result()

    return call


@clean
def lru_cache_of_100_slowly(random):
    made, numbers = functools.lru_cache(100)(lambda _: bytes(1000)), itertools.count()

    def call():
        made(next(numbers) % 60)
        time.sleep(0.02)

    return call


@clean
def temporary_files(random):
    def call():
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "a").write_bytes(bytes(random.randrange(200_000)))
        time.sleep(0.005)

    return call


@clean
def sqlite_database_each_time(random):
    def call():
        with sqlite3.connect(":memory:") as connection:
            connection.execute("CREATE TABLE t (a, b)")
            connection.executemany(
                "INSERT INTO t VALUES (?, ?)", [(n, "s" * n) for n in range(random.randrange(300))]
            )
        connection.close()
        time.sleep(0.005)

    return call


@clean
def shared_memory_given_back(random):
    def call():
        block = shared_memory.SharedMemory(create=True, size=random.randrange(1, 500_000))
        block.buf[:1] = b"x"
        block.close()
        block.unlink()
        time.sleep(0.005)

    return call


@clean
def records_written_in_batches_of_100(random):
    batch = []

    def call():
        batch.append({"id": len(batch), "text": "t" * random.randrange(300)})
        if len(batch) == 100:
            json.dumps(batch)
            batch.clear()
        time.sleep(0.01)

    return call


@clean
def statements_of_150_shapes(random):
    import sqlalchemy as sa

    engine, numbers = sa.create_engine("sqlite://"), itertools.count()

    def call():
        columns = [sa.literal(1).label(f"c{n}") for n in range(1 + next(numbers) % 150)]
        with engine.connect() as connection:
            connection.execute(sa.select(*columns)).fetchall()

    return call


@clean
def latest_200_results_in_a_deque(random):
    import collections

    latest = collections.deque(maxlen=200)

    def call():
        latest.append(bytes(random.randrange(2000)))
        time.sleep(0.005)

    return call


@clean
def http_server_asked_once(random):
    import http.server
    import urllib.request

    class Quiet(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"w" * random.randrange(50_000))

        def log_message(self, *arguments): ...

    def call():
        with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
            thread = threading.Thread(target=server.handle_request)
            thread.start()
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}") as answer:
                answer.read()
            thread.join()

    return call


@clean
def objects_with_weak_references(random):
    import weakref

    class Node:
        pass

    names = weakref.WeakValueDictionary()

    def call():
        nodes = [Node() for _ in range(random.randrange(200))]
        for node in nodes:
            node.neighbours = nodes
            names[id(node)] = node
        time.sleep(0.005)

    return call


@leaking(300)
def appended_bytes_in_a_slow_handler(random):
    kept = []
    return slow(0.05)(lambda: kept.append(bytes(300)))


@leaking(1000)
def malloc_in_a_slow_handler(random):
    return slow(0.02)(lambda: _LIBC.memset(_LIBC.malloc(1000), 1, 1000))


@leaking(200)
def every_fifth_request_is_kept(random):
    kept, numbers = [], itertools.count()
    return slow(0.01)(lambda: next(numbers) % 5 or kept.append(bytes(1000)))


@leaking(1000)
def results_of_varying_size_kept(random):
    kept = []
    return slow(0.02)(lambda: kept.append(bytes(random.randrange(2000))))


@leaking(100)
def httpx_clients_registered(random):
    import httpx

    clients = []

    def call():
        client = httpx.Client()
        client.close()
        clients.append(client)

    return call


@leaking(500)
def sqlalchemy_engines_kept(random):
    import sqlalchemy as sa

    engines = []

    def call():
        engines.append(sa.create_engine("sqlite://"))
        time.sleep(0.005)

    return call


@leaking(500)
def asyncio_futures_in_a_set(random):
    waiting = set()

    async def work():
        waiting.add(asyncio.get_running_loop().create_future())
        await asyncio.sleep(0.005)

    return lambda: asyncio.run(work())


@leaking(400)
def unbounded_lru_cache(random):
    made, numbers = functools.cache(lambda _: bytes(400)), itertools.count()
    return slow(0.02)(lambda: made(next(numbers)))


@leaking(100_000)
def shared_memory_never_unlinked(random):
    blocks = []

    def call():
        block = shared_memory.SharedMemory(create=True, size=100_000)
        block.buf[:] = b"\1" * 100_000
        block.close()
        blocks.append(block)  # its name, so that the case can remove it
        time.sleep(0.002)

    import atexit

    atexit.register(lambda: [block.unlink() for block in blocks])
    return call


def _kept_in_worker(size):
    _kept_in_worker.kept = [*getattr(_kept_in_worker, "kept", ()), b"x" * size]


@leaking(100_000)
def worker_of_a_pool_keeps_results(random):
    pool = multiprocessing.get_context("fork").Pool(1)

    def call():
        pool.apply(_kept_in_worker, (100_000,))

    return call


@leaking(300)
def thread_locals_of_a_pool(random):
    pool, local = concurrent.futures.ThreadPoolExecutor(2), threading.local()

    def work():
        if not hasattr(local, "kept"):
            local.kept = []
        local.kept.append(bytes(600))

    return slow(0.01)(lambda: pool.submit(work).result())


@leaking(0)
def files_left_open(random):
    kept = []

    def call():
        kept.append(open(__file__))
        time.sleep(0.02)

    return call


@leaking(300)
def handlers_added_to_a_logger(random):
    import logging

    logger = logging.getLogger("corpus")
    return slow(0.01)(lambda: logger.addHandler(logging.NullHandler()))


@leaking(100)
def callbacks_for_the_end_of_the_program(random):
    import atexit

    return slow(0.005)(lambda: atexit.register(str, random.random()))


@leaking(1000)
def classes_made_in_each_call(random):
    kept = []
    return slow(0.01)(lambda: kept.append(type("Row", (), {"id": 1})))


@leaking(500)
def tasks_that_never_end(random):
    loop, waiting = asyncio.new_event_loop(), []

    async def wait():
        await loop.create_future()

    async def work():
        waiting.append(loop.create_task(wait()))
        await asyncio.sleep(0.005)

    return lambda: loop.run_until_complete(work())


@leaking(500)
def exceptions_kept_with_their_frames(random):
    kept = []

    def fails():
        unused = bytes(300)
        raise ValueError(len(unused))

    def call():
        try:
            fails()
        except ValueError as error:
            kept.append(error)
        time.sleep(0.01)

    return call


@leaking(500)
def sqlite_connections_kept(random):
    kept = []
    return slow(0.01)(lambda: kept.append(sqlite3.connect(":memory:")))


@clean
def asynchronous_requests(random):
    import httpx

    async def answer(_request):
        await asyncio.sleep(0.001)
        return httpx.Response(200, content=b"a" * random.randrange(20_000))

    async def main():
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            await asyncio.gather(*(client.get(f"http://host/{number}") for number in range(5)))

    return lambda: asyncio.run(main())


@clean
def rows_added_and_rolled_back(random):
    import sqlalchemy as sa
    from sqlalchemy import orm

    base = orm.declarative_base()

    class Row(base):
        __tablename__ = "row"
        id = sa.Column(sa.Integer, primary_key=True)
        name = sa.Column(sa.String)

    engine = sa.create_engine("sqlite://")
    base.metadata.create_all(engine)

    def call():
        with orm.Session(engine) as session:
            session.add_all(Row(name="n" * random.randrange(100)) for _ in range(random.randrange(1, 30)))
            session.flush()
            session.rollback()

    return call


@leaking(500)
def responses_kept_for_later(random):
    import httpx

    kept = []
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=b"a" * random.randrange(4000)))
    client = httpx.Client(transport=transport)
    return slow(0.005)(lambda: kept.append(client.get("http://host/")))


@leaking(1000)
def sessions_never_closed(_random):
    import sqlalchemy as sa
    from sqlalchemy import orm

    engine, kept = sa.create_engine("sqlite://"), []

    def call():
        session = orm.Session(engine)
        session.execute(sa.text("select 1")).scalar()
        kept.append(session)
        time.sleep(0.01)

    return call
