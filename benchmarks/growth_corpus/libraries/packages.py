"""Packages with code in C or Rust, and such with registries and caches of their own."""

import concurrent.futures
import io
import itertools
import tempfile
import threading
import time
from pathlib import Path

from growth_corpus.case import clean, leaking, records, slow


@clean
def greenlets_that_end(random):
    import gevent

    def call():
        gevent.joinall(
            [gevent.spawn(gevent.sleep, 0.001 * random.random()) for _ in range(random.randrange(1, 40))]
        )

    return call


@leaking(300)
def greenlets_that_wait(_random):
    import gevent
    import gevent.event

    never, kept = gevent.event.Event(), []

    def call():
        kept.append(gevent.spawn(never.wait))
        gevent.sleep(0.01)

    return call


@clean
def text_encrypted(random):
    from cryptography.fernet import Fernet

    key = Fernet(Fernet.generate_key())

    def call():
        key.decrypt(key.encrypt(random.randbytes(random.randrange(100_000))))
        time.sleep(0.003)

    return call


@leaking(400)
def keys_kept(_random):
    from cryptography.hazmat.primitives.asymmetric import ed25519

    kept = []
    return slow(0.01)(lambda: kept.append(ed25519.Ed25519PrivateKey.generate()))


@clean
def models_validated(random):
    import pydantic

    class Row(pydantic.BaseModel):
        id: int
        name: str

    adapter = pydantic.TypeAdapter(list[Row])

    def call():
        adapter.dump_json(adapter.validate_python(records(random)))
        time.sleep(0.003)

    return call


@leaking(1000)
def models_kept_for_each_request(_random):
    import pydantic

    kept = []

    def call():
        kept.append(pydantic.create_model("Answer", status=(int, 200)))
        time.sleep(0.01)

    return call


@clean
def a_cache_with_a_time_to_live(random):
    import cachetools

    cache = cachetools.TTLCache(maxsize=60, ttl=0.3)

    def call():
        cache[random.random()] = bytes(random.randrange(2000))
        time.sleep(0.005)

    return call


@clean
def a_cache_of_the_least_recently_used(random):
    import cachetools

    cache = cachetools.LRUCache(maxsize=100)

    def call():
        cache[random.randrange(300)] = bytes(random.randrange(2000))
        time.sleep(0.006)

    return call


@clean
def messages_packed(random):
    import msgpack

    packer = msgpack.Packer()

    def call():
        msgpack.unpackb(packer.pack(records(random)))
        time.sleep(0.005)

    return call


@leaking(400)
def unpackers_fed_and_never_read(random):
    """Into a buffer that doubles, once for each doubling of the calls: *inconclusive* until then."""
    import msgpack

    unpacker = msgpack.Unpacker(max_buffer_size=10**9, read_size=1024)
    return slow(0.01)(lambda: unpacker.feed(msgpack.packb("m" * random.randrange(400, 900))))


@clean
def workbooks_written(random):
    import xlsxwriter

    def call():
        with xlsxwriter.Workbook(io.BytesIO(), {"in_memory": True}) as book:
            sheet = book.add_worksheet()
            for row in records(random, 200):
                sheet.write_row(row["id"], 0, row.values())

    return call


@leaking(1000)
def a_workbook_that_is_never_closed(random):
    import xlsxwriter

    book = xlsxwriter.Workbook(io.BytesIO(), {"in_memory": True})
    sheet, numbers = book.add_worksheet(), itertools.count()

    def call():
        sheet.write_row(next(numbers), 0, [f"text {random.random()}" for _ in range(10)])
        time.sleep(0.01)

    return call


@clean
def arrays_mapped_from_a_file(random):
    import numpy as np

    file = Path(tempfile.mkdtemp(), "array")
    np.zeros(2_000_000).tofile(file)

    def call():
        array = np.memmap(file, dtype=float, mode="r+")
        array[random.randrange(1_900_000) :][:50_000] += 1.0
        array.flush()

    return call


@clean
def sparse_matrices_multiplied(random):
    import numpy as np
    import scipy.sparse as sp

    source = np.random.default_rng(random.randrange(10**6))

    def call():
        size = random.randrange(100, 2000)
        matrix = sp.random(size, size, density=0.01, random_state=source, format="csr")
        (matrix @ matrix).sum()

    return call


@leaking(8_000)
def columns_added_to_a_frame(random):
    import pandas as pd

    frame, numbers = pd.DataFrame(index=range(1000)), itertools.count()

    def call():
        frame[f"column {next(numbers)}"] = random.random()
        time.sleep(0.01)

    return call


@clean
def labels_looked_up(random):
    import pandas as pd

    frame = pd.DataFrame({"value": range(50_000)}, index=[f"row {number}" for number in range(50_000)])

    def call():
        frame.loc[f"row {random.randrange(50_000)}"]
        frame.loc[frame["value"] > random.randrange(50_000)].describe()
        time.sleep(0.002)

    return call


@clean
def categories_joined(random):
    import polars as pl

    def call():
        with pl.StringCache():
            names = [f"name {random.randrange(500)}" for _ in range(2000)]
            pl.DataFrame({"name": names}).with_columns(pl.col("name").cast(pl.Categorical)).group_by(
                "name"
            ).len()
        time.sleep(0.005)

    return call


@clean
def parquet_scanned(random):
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    folder = tempfile.mkdtemp()
    for number in range(5):
        pq.write_table(
            pa.table({"a": range(20_000), "b": [str(number)] * 20_000}), f"{folder}/{number}.parquet"
        )

    def call():
        ds.dataset(folder).to_table(filter=ds.field("a") > random.randrange(20_000)).num_rows  # noqa: B018

    return call


@leaking(60_000)
def batches_of_arrow_kept_by_a_writer(random):
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    table = pa.table({"a": list(range(10_000))})
    writer = pa.ipc.new_stream(sink, table.schema)

    def call():
        writer.write_table(table.slice(random.randrange(100)))
        time.sleep(0.01)

    return call


@clean
def requests_to_a_server_of_this_process(random):
    import http.server

    import requests

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = random.randbytes(random.randrange(50_000))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_): ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    session = requests.Session()
    return lambda: session.get(f"http://127.0.0.1:{server.server_port}/").content


@clean
def examples_drawn(_random):
    import hypothesis
    from hypothesis import strategies as st

    @hypothesis.settings(max_examples=10, database=None, deadline=None)
    @hypothesis.given(st.lists(st.integers() | st.text()))
    def call(_values): ...

    return call


@clean
def work_of_joblib_in_threads(random):
    import joblib

    pool = joblib.Parallel(4, backend="threading")

    def call():
        pool(joblib.delayed(sorted)([random.random() for _ in range(size)]) for size in (10, 2000, 500, 4000))

    return call


@clean
def text_drawn_in_a_figure(random):
    """`lru_cache` of 4,096 measured texts: *inconclusive* until it is full."""
    from matplotlib.figure import Figure

    def call():
        figure = Figure()
        figure.suptitle(f"run {random.random():.6f}")
        figure.savefig(io.BytesIO(), format="png", dpi=40)

    return call


@clean
def numpy_in_eight_threads(random):
    import numpy as np

    pool = concurrent.futures.ThreadPoolExecutor(8)

    def work(size):
        array = np.arange(float(size))
        return np.sort(array[::-1]).sum() + len(str(array[:500]))

    def call():
        list(pool.map(work, [random.randrange(1, 200_000) for _ in range(12)]))

    return call


@leaking(2_000)
def text_in_a_table_of_duckdb(random):
    import duckdb

    connection = duckdb.connect(config={"threads": 1})
    connection.execute("CREATE TABLE log (moment DOUBLE, line VARCHAR)")

    def call():
        connection.execute("INSERT INTO log VALUES (?, ?)", [time.time(), "t" * random.randrange(2000, 6000)])
        time.sleep(0.005)

    return call


@clean
def table_of_duckdb_replaced(random):
    import duckdb

    connection = duckdb.connect()

    def call():
        connection.execute(
            f"CREATE OR REPLACE TABLE t AS SELECT range AS a, range % 7 AS b FROM range({random.randrange(1, 30_000)})"
        )
        connection.execute("SELECT b, sum(a) FROM t GROUP BY b").fetchall()

    return call


@leaking(1000)
def elements_added_to_one_tree(random):
    from lxml import etree

    root = etree.Element("log")

    def call():
        for _ in range(5):
            etree.SubElement(root, "entry").text = "t" * random.randrange(200, 500)
        time.sleep(0.01)

    return call
