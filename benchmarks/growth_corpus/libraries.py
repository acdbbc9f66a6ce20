"""Functions as people have them: 5 to 100 ms a call, inputs of varying size, libraries with caches and allocators of their own."""

import asyncio
import concurrent.futures
import csv
import ctypes
import functools
import io
import itertools
import json
import multiprocessing
import sqlite3
import tempfile
import threading
import time
import xml.etree.ElementTree
import zipfile
from multiprocessing import shared_memory
from pathlib import Path

from growth_corpus.case import clean, leaking

_LIBC = ctypes.CDLL(None)
_LIBC.malloc.restype, _LIBC.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
_LIBC.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


def _records(random, most=600):
    return [{"id": number, "name": "x" * random.randrange(600)} for number in range(random.randrange(most))]


# Clean.


@clean
def json_of_varying_size_slowly(random):
    def call():
        json.loads(json.dumps(_records(random, 1000)))
        time.sleep(0.1)

    return call


@clean
def json_of_varying_size(random):
    def call():
        json.loads(json.dumps(_records(random, 1000)))
        time.sleep(0.02)

    return call


@clean
def csv_of_varying_size(random):
    def call():
        stream = io.StringIO()
        csv.writer(stream).writerows(
            [number, "y" * random.randrange(80)] for number in range(random.randrange(3000))
        )
        list(csv.reader(io.StringIO(stream.getvalue())))

    return call


@clean
def elementtree_of_varying_size(random):
    def call():
        text = "<a>" + "".join(f"<b n='{n}'>{n}</b>" for n in range(random.randrange(2000))) + "</a>"
        xml.etree.ElementTree.fromstring(text)

    return call


@clean
def zip_in_memory(random):
    def call():
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(5):
                archive.writestr(f"{number}.txt", random.randbytes(random.randrange(100_000)))

    return call


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

    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=_records(random, 100)))

    def call():
        with httpx.Client(transport=transport) as client:
            client.get("http://example.org/items", params={"page": random.randrange(1000)}).json()

    return call


@clean
def duckdb_query(random):
    import duckdb

    connection = duckdb.connect()

    def call():
        most = random.randrange(1, 100_000)
        connection.execute(f"SELECT sum(i), avg(i) FROM range({most}) AS t(i)").fetchall()
        time.sleep(0.01)

    return call


@clean
def duckdb_connection_each_time(random):
    import duckdb

    def call():
        with duckdb.connect() as connection:
            connection.execute("CREATE TABLE t AS SELECT * FROM range(1000)")
            connection.execute("SELECT count(*) FROM t").fetchone()

    return call


@clean
def openpyxl_workbook(random):
    import openpyxl

    def call():
        book = openpyxl.Workbook()
        for row in range(random.randrange(1, 60)):
            book.active.append([row, "z" * random.randrange(20), row / 3])
        stream = io.BytesIO()
        book.save(stream)
        openpyxl.load_workbook(stream)

    return call


@clean
def arrow_sum_of_a_table(random):
    import pyarrow as pa
    import pyarrow.compute as pc

    def call():
        pc.sum(pa.table({"a": list(range(random.randrange(1, 20_000)))})["a"])

    return call


@clean
def arrow_parquet_by_threads(random):
    import numpy
    import pyarrow as pa
    import pyarrow.parquet as pq

    def call():
        stream = io.BytesIO()
        pq.write_table(pa.table({f"c{n}": numpy.zeros(random.randrange(1, 20_000)) for n in [0]}), stream)
        pq.read_table(io.BytesIO(stream.getvalue()))

    return call


@clean
def pandas_group_by(random):
    import numpy
    import pandas

    def call():
        rows = random.randrange(1, 20_000)
        frame = pandas.DataFrame({"k": numpy.arange(rows) % 17, "v": numpy.arange(rows) / 7})
        frame.groupby("k").agg({"v": ["mean", "max"]})

    return call


@clean
def pandas_read_csv(random):
    import pandas

    def call():
        text = "a,b\n" + "".join(f"{n},{'q' * (n % 40)}\n" for n in range(random.randrange(1, 5000)))
        pandas.read_csv(io.StringIO(text))

    return call


@clean
def polars_lazy_query(random):
    import polars

    def call():
        rows = random.randrange(1, 50_000)
        frame = polars.DataFrame({"k": [n % 7 for n in range(rows)]}).lazy()
        frame.group_by("k").agg(polars.len()).collect()

    return call


@clean
def lxml_documents(random):
    from lxml import etree

    def call():
        text = "<a>" + "".join(f"<b n='{n}'>{n}</b>" for n in range(random.randrange(5000))) + "</a>"
        etree.fromstring(text).xpath("count(//b)")
        time.sleep(0.005)

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
def matplotlib_figure_closed(random):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def call():
        figure = pyplot.figure()
        figure.gca().plot([random.random() for _ in range(50)])
        figure.savefig(io.BytesIO())
        pyplot.close(figure)

    return call


@clean
def sklearn_fit(random):
    import numpy
    from sklearn.linear_model import LogisticRegression

    def call():
        rows = random.randrange(50, 500)
        x = numpy.random.default_rng(0).random((rows, 5))
        LogisticRegression().fit(x, numpy.arange(rows) % 2)

    return call


@clean
def jinja_templates(random):
    import jinja2

    environment = jinja2.Environment()

    def call():
        environment.from_string("{% for i in items %}{{ i }}{% endfor %}").render(
            items=range(random.randrange(5000))
        )

    return call


@clean
def beautiful_soup(random):
    import bs4

    def call():
        bs4.BeautifulSoup("<p>" + "<b>x</b>" * random.randrange(300), "html.parser").find_all("b")

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
def networkx_shortest_paths(random):
    import networkx

    def call():
        networkx.shortest_path(networkx.gnm_random_graph(100, random.randrange(100, 300)), 0)

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
def pillow_thumbnails(random):
    from PIL import Image

    def call():
        image = Image.new("RGB", (random.randrange(10, 600), random.randrange(10, 600)), (9, 9, 9))
        image.thumbnail((64, 64))
        image.save(io.BytesIO(), "PNG")

    return call


@clean
def numpy_linear_algebra(random):
    import numpy

    def call():
        size = random.randrange(2, 200)
        numpy.linalg.svd(numpy.random.default_rng(size).random((size, size)))

    return call


@clean
def scipy_transforms_of_many_lengths(random):
    import numpy
    import scipy.fft

    def call():
        scipy.fft.fft(numpy.ones(random.randrange(2, 20_000)))
        time.sleep(0.005)

    return call


@clean
def yaml_documents(random):
    import yaml

    def call():
        yaml.safe_load(yaml.safe_dump(_records(random, 20)))

    return call


@clean
def jsonschema_validation(random):
    import jsonschema

    schema = {"type": "array", "items": {"$ref": "#/$defs/row"}, "$defs": {"row": {"required": ["id"]}}}
    return lambda: jsonschema.Draft202012Validator(schema).validate(_records(random, 50))


@clean
def markdown_pages(random):
    import markdown_it

    def call():
        markdown_it.MarkdownIt().render("# a\n\n* b `c` [d](e)\n" * random.randrange(1, 100))

    return call


@clean
def patterns_up_to_the_size_of_their_cache(random):
    import re

    numbers = itertools.count()

    def call():
        re.fullmatch(f"a{next(numbers) % 300}b*", "a7bb")
        time.sleep(0.002)

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


# Leaking.


def _slow(pause_s):
    def wait(call):
        def slowed():
            call()
            time.sleep(pause_s)

        return slowed

    return wait


@leaking(300)
def appended_bytes_in_a_slow_handler(random):
    kept = []
    return _slow(0.05)(lambda: kept.append(bytes(300)))


@leaking(1000)
def malloc_in_a_slow_handler(random):
    return _slow(0.02)(lambda: _LIBC.memset(_LIBC.malloc(1000), 1, 1000))


@leaking(200)
def every_fifth_request_is_kept(random):
    kept, numbers = [], itertools.count()
    return _slow(0.01)(lambda: next(numbers) % 5 or kept.append(bytes(1000)))


@leaking(1000)
def results_of_varying_size_kept(random):
    kept = []
    return _slow(0.02)(lambda: kept.append(bytes(random.randrange(2000))))


@leaking(100)
def httpx_clients_registered(random):
    import httpx

    clients = []

    def call():
        client = httpx.Client()
        client.close()
        clients.append(client)

    return call


@leaking(80_000)
def arrow_buffers_kept(random):
    import pyarrow as pa

    kept = []

    def call():
        buffer = pa.allocate_buffer(80_000)
        memoryview(buffer).cast("B")[:] = bytes(80_000)
        kept.append(buffer)
        time.sleep(0.005)

    return call


@leaking(8_000)
def arrow_arrays_kept(random):
    import pyarrow as pa

    kept = []

    def call():
        kept.append(pa.array(range(1000)))
        time.sleep(0.01)

    return call


@leaking(40_000)
def polars_frames_kept(random):
    import polars

    kept = []

    def call():
        kept.append(polars.DataFrame({"a": range(5000)}))
        time.sleep(0.005)

    return call


@leaking(80_000)
def pandas_frames_kept(random):
    import pandas

    kept = []

    def call():
        kept.append(pandas.DataFrame({"a": range(10_000)}).copy())
        time.sleep(0.005)

    return call


@leaking(1000)
def duckdb_table_grows(random):
    import duckdb

    connection = duckdb.connect()
    connection.execute("CREATE TABLE t (a BIGINT)")

    def call():
        connection.execute("INSERT INTO t SELECT * FROM range(20000)")

    return call


@leaking(1000)
def matplotlib_figures_left_open(random):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import figure

    kept = []

    def call():
        each = figure.Figure()
        each.gca().plot([1, 2, 3])
        kept.append(each)

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
def lxml_trees_kept(random):
    from lxml import etree

    kept = []

    def call():
        kept.append(etree.fromstring("<a>" + "<b/>" * 20 + "</a>"))
        time.sleep(0.01)

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
    return _slow(0.02)(lambda: made(next(numbers)))


@leaking(100)
def sklearn_models_in_a_registry(random):
    import numpy
    from sklearn.linear_model import LinearRegression

    models = []

    def call():
        x = numpy.random.default_rng(0).random((200, 3))
        models.append(LinearRegression().fit(x, x[:, 0]))

    return call


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

    return _slow(0.01)(lambda: pool.submit(work).result())


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
    return _slow(0.01)(lambda: logger.addHandler(logging.NullHandler()))


@leaking(100)
def callbacks_for_the_end_of_the_program(random):
    import atexit

    return _slow(0.005)(lambda: atexit.register(str, random.random()))


@leaking(30_000)
def pillow_images_kept(random):
    from PIL import Image

    kept = []
    return _slow(0.005)(lambda: kept.append(Image.new("RGB", (100, 100), (1, 2, 3))))


@leaking(1000)
def classes_made_in_each_call(random):
    kept = []
    return _slow(0.01)(lambda: kept.append(type("Row", (), {"id": 1})))


@leaking(500)
def tasks_that_never_end(random):
    loop, waiting = asyncio.new_event_loop(), []

    async def wait():
        await loop.create_future()

    async def work():
        waiting.append(loop.create_task(wait()))
        await asyncio.sleep(0.005)

    return lambda: loop.run_until_complete(work())


@leaking(80_000)
def views_that_keep_their_arrays(random):
    import numpy

    kept = []
    return _slow(0.005)(lambda: kept.append(numpy.ones(10_000)[:3]))


@leaking(500)
def duckdb_rows_kept(random):
    import duckdb

    connection, kept = duckdb.connect(), []

    def call():
        kept.append(connection.execute("SELECT i, 'n' || i FROM range(20) AS t(i)").fetchall())
        time.sleep(0.005)

    return call


@leaking(5_000)
def graphs_in_a_dictionary(random):
    import networkx

    kept, numbers = {}, itertools.count()
    return _slow(0.005)(lambda: kept.update({next(numbers): networkx.path_graph(20)}))


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
    return _slow(0.01)(lambda: kept.append(sqlite3.connect(":memory:")))
