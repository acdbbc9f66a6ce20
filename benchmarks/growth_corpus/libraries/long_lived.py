"""Objects that live as long as the program (clients, connections, parsers, pools), and what each call adds to them, or not."""

import asyncio
import ctypes
import functools
import io
import itertools
import logging
import logging.config
import multiprocessing
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from multiprocessing import shared_memory
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

from growth_corpus.case import clean, leaking, records, slow


@leaking(100)
def hooks_added_to_one_client(random):
    import httpx

    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"a": 1})))

    def call():
        number = random.randrange(100)
        client.event_hooks["response"].append(lambda response: response.headers.get(f"x-{number}"))
        client.get("http://example.com/")

    return call


@leaking(300)
def views_of_duckdb_under_new_names(random):
    import duckdb

    db, numbers = duckdb.connect(), itertools.count()
    db.execute("create table t as select range a from range(100)")

    def call():
        db.execute(f"create view v{next(numbers)} as select a + {random.randrange(100)} b from t")
        db.execute("select sum(a) from t").fetchall()

    return call


@leaking(100)
def cell_styles_of_one_workbook(random):
    import openpyxl
    from openpyxl.styles import Font

    sheet = openpyxl.Workbook().active
    numbers = itertools.count()

    @slow(0.003)
    def call():
        cell = sheet.cell(row=1 + random.randrange(100), column=1)
        cell.font = Font(size=10 + next(numbers) / 100)
        cell.value = random.random()

    return call


@leaking(200)
def rows_joined_to_one_frame(random):
    import pandas

    held = [pandas.DataFrame({"a": [0.0], "b": [0.0]})]

    @slow(0.004)
    def call():
        rows = pandas.DataFrame({"a": [random.random()] * 20, "b": [random.random()] * 20})
        held[0] = pandas.concat([held[0], rows], ignore_index=True)

    return call


@leaking(100)
def functions_registered_with_lxml(random):
    from lxml import etree

    numbers = itertools.count()

    @slow(0.003)
    def call():
        space = etree.FunctionNamespace(f"urn:request-{next(numbers)}")
        space["size"] = lambda _, nodes: len(nodes)
        etree.fromstring("<a>" + "<b/>" * random.randrange(100) + "</a>").xpath("count(//b)")

    return call


@leaking(200)
def listeners_of_one_engine(random):
    import sqlalchemy as sa

    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)

    def call():
        request = {"user": random.randrange(1000)}
        sa.event.listen(engine, "before_cursor_execute", lambda *_: request["user"])
        with engine.connect() as connection:
            connection.execute(sa.text("select 1")).fetchall()

    return call


@leaking(100)
def callbacks_of_one_canvas(random):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = FigureCanvasAgg(Figure(figsize=(2, 2)))

    @slow(0.002)
    def call():
        size = random.randrange(100)
        canvas.mpl_connect("button_press_event", lambda _: size)

    return call


@leaking(300)
def a_stream_fed_and_never_read(random):
    loop = asyncio.new_event_loop()
    reader = asyncio.StreamReader(loop=loop)

    async def main():
        reader.feed_data(b"x" * random.randrange(1000))
        await asyncio.sleep(0.003)

    return lambda: loop.run_until_complete(main())


@leaking(100)
def aligned_blocks_lost_now_and_then(random):
    library = ctypes.CDLL(None)
    library.aligned_alloc.restype, library.aligned_alloc.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t, ctypes.c_size_t],
    )
    library.free.argtypes = [ctypes.c_void_p]
    numbers = itertools.count(1)

    @slow(0.003)
    def call():
        block = library.aligned_alloc(64, 64 * random.randrange(1, 60))
        if next(numbers) % 12:
            library.free(block)

    return call


@leaking(300)
def classes_registered_for_dispatch(random):
    @functools.singledispatch
    def shown(value):
        return str(value)

    @slow(0.004)
    def call():
        kind = type("Kind", (), {"size": random.randrange(100)})
        shown.register(kind, lambda _: "kind")
        shown(kind())

    return call


@leaking(80)
def names_of_levels(random):
    numbers = itertools.count(1000)

    @slow(0.002)
    def call():
        level = next(numbers)
        logging.addLevelName(level, f"REQUEST {level}")
        logging.getLevelName(random.randrange(50))

    return call


@leaking(200)
def cursors_half_read_and_kept(random):
    db, kept = sqlite3.connect(":memory:"), []
    db.execute("create table t(a, b)")
    db.executemany("insert into t values (?, ?)", ((i, "x" * 100) for i in range(300)))

    @slow(0.003)
    def call():
        cursor = db.execute("select * from t where a > ?", (random.randrange(100),))
        cursor.fetchone()
        kept.append(cursor)

    return call


@leaking(300)
def one_archive_never_closed(random):
    archive, numbers = zipfile.ZipFile(io.BytesIO(), "w", zipfile.ZIP_DEFLATED), itertools.count()

    @slow(0.005)
    def call():
        archive.writestr(f"part-{next(numbers)}.txt", random.randbytes(random.randrange(500)))

    return call


@leaking(200)
def a_pull_parser_of_an_endless_stream(random):
    parser = ElementTree.XMLPullParser(["end"])
    parser.feed("<stream>")

    @slow(0.002)
    def call():
        parser.feed(
            f"<message id='{random.randrange(1000)}'><body>{'x' * random.randrange(200)}</body></message>"
        )
        for _, element in parser.read_events():
            element.get("id")

    return call


@leaking(0)
def pipes_of_programs_that_ended(random):
    kept = []

    def call():
        program = subprocess.Popen(["/bin/echo", "x" * random.randrange(1000)], stdout=subprocess.PIPE)
        program.wait()
        kept.append(program)

    return call


@leaking(300)
def temporary_folders_never_cleaned(random):
    kept = []

    @slow(0.002)
    def call():
        folder = tempfile.TemporaryDirectory()
        with open(os.path.join(folder.name, "a"), "wb") as file:
            file.write(b"x" * random.randrange(10_000))
        kept.append(folder)

    return call


@leaking(1000)
def a_forest_with_one_more_tree(random):
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_estimators=1, warm_start=True, max_depth=4, random_state=1)
    features = [[random.random() for _ in range(5)] for _ in range(60)]
    labels = [random.randrange(2) for _ in range(60)]

    @slow(0.005)
    def call():
        forest.fit(features, labels)
        forest.n_estimators += 1

    return call


@leaking(2000)
def one_lazy_plan_made_longer(random):
    import polars

    held = [polars.LazyFrame({"a": [0] * 1000})]

    @slow(0.003)
    def call():
        held.append(polars.LazyFrame({"a": [random.randrange(1000)] * 1000}).filter(polars.col("a") > 3))

    return call


@clean
def responses_streamed_by_one_client(random):
    import httpx

    client = httpx.Client(
        transport=httpx.MockTransport(
            lambda _: httpx.Response(
                200,
                headers={"set-cookie": f"c{random.randrange(20)}=1", "x-request": str(random.random())},
                content=(b"x" * random.randrange(5000) for _ in range(5)),
            )
        )
    )

    def call():
        with client.stream("GET", f"http://example.com/{random.random()}") as response:
            for _ in response.iter_lines():
                pass

    return call


@clean
def cursors_of_one_duckdb(random):
    import duckdb

    db = duckdb.connect()
    db.execute("create table t as select range a, range % 10 b from range(10000)")

    @slow(0.003)
    def call():
        with db.cursor() as cursor:
            cursor.execute("select b, sum(a) from t where a < ? group by b", [random.randrange(10000)])
            cursor.fetchnumpy()

    return call


@clean
def sheets_read_row_by_row(random):
    import openpyxl

    book = openpyxl.Workbook()
    for row in records(random, 200) or [{"id": 1, "name": "x"}]:
        book.active.append(list(row.values()))
    file = io.BytesIO()
    book.save(file)

    def call():
        file.seek(0)
        read = openpyxl.load_workbook(file, read_only=True)
        for row in itertools.islice(read.active.iter_rows(values_only=True), random.randrange(1, 200)):
            len(row)
        read.close()

    return call


@clean
def the_last_fifty_frames_joined(random):
    import pandas

    held = []

    @slow(0.005)
    def call():
        held.append(pandas.DataFrame(records(random, 100)))
        del held[:-50]
        pandas.concat(held).describe()

    return call


@clean
def lists_of_any_length_in_a_query(random):
    import sqlalchemy as sa

    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    table = sa.Table(
        "t", sa.MetaData(), sa.Column("a", sa.Integer, primary_key=True), sa.Column("b", sa.Text)
    )
    table.metadata.create_all(engine)

    def call():
        wanted = random.sample(range(1000), random.randrange(1, 100))
        with engine.begin() as connection:
            connection.execute(sa.select(table).where(table.c.a.in_(wanted)).limit(len(wanted))).fetchall()
            connection.execute(sa.delete(table))
            connection.execute(sa.insert(table), [{"a": a, "b": "x" * a} for a in wanted])

    return call


@leaking(2000)
def one_figure_cleared_and_drawn_with_formulas(random):
    """matplotlib 3.11 leaks itself: an unbounded `functools.cache` of a method of `StixFonts` keeps the fonts of every formula it parses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 2))
    canvas = FigureCanvasAgg(figure)

    def call():
        figure.clear()
        axes = figure.subplots()
        axes.plot([random.random() for _ in range(random.randrange(2, 200))])
        axes.set_title(rf"$\sqrt{{{random.randrange(1000)}}}$")
        canvas.draw()

    return call


@clean
def clusters_of_varying_data(random):
    import numpy
    from sklearn.cluster import KMeans
    from sklearn.neighbors import KDTree

    @slow(0.005)
    def call():
        points = numpy.random.default_rng(random.randrange(1000)).random((random.randrange(50, 500), 3))
        KMeans(n_clusters=4, n_init=1).fit(points)
        KDTree(points).query(points[:20], k=3)

    return call


@clean
def timeouts_and_threads_of_one_loop(random):
    loop = asyncio.new_event_loop()
    free = asyncio.Semaphore(3)

    async def work(size):
        async with free:
            await asyncio.wait_for(asyncio.to_thread(bytes, size), 5)
            with_timeout = asyncio.timeout(0.001)
            try:
                async with with_timeout:
                    await asyncio.sleep(1)
            except TimeoutError:
                pass

    async def main():
        await asyncio.gather(*(work(random.randrange(200_000)) for _ in range(random.randrange(1, 6))))

    return lambda: loop.run_until_complete(main())


def _answer(connection, size):
    connection.send({"data": bytes(size), "rows": [{"id": n} for n in range(size // 1000)]})
    connection.close()


@clean
def results_sent_by_a_forked_child(random):
    context = multiprocessing.get_context("fork")

    def call():
        ours, theirs = context.Pipe()
        child = context.Process(target=_answer, args=(theirs, random.randrange(300_000)))
        child.start()
        theirs.close()
        ours.recv()
        child.join()
        ours.close()

    return call


@clean
def eight_segments_in_turn(random):
    held = []

    @slow(0.005)
    def call():
        segment = shared_memory.SharedMemory(create=True, size=random.randrange(1, 400_000))
        segment.buf[0] = 1
        held.append(segment)
        if len(held) > 8:
            oldest = held.pop(0)
            oldest.close()
            oldest.unlink()

    return call


@clean
def workspaces_by_shape(random):
    import numpy

    @functools.lru_cache(maxsize=64)
    def workspace(rows, columns):
        return numpy.ones((rows, columns))

    @slow(0.004)
    def call():
        workspace(random.randrange(1, 40), random.randrange(1, 40)).sum()

    return call


@clean
def logging_configured_again(random):
    @slow(0.004)
    def call():
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {"plain": {"format": f"%(message)s {random.randrange(10)}"}},
                "handlers": {"null": {"class": "logging.NullHandler", "formatter": "plain"}},
                "loggers": {"corpus.configured": {"handlers": ["null"], "propagate": False}},
            }
        )
        logging.getLogger("corpus.configured").warning("x" * random.randrange(1000))

    return call


@clean
def feeds_read_by_iterparse(random):
    def call():
        body = "".join(f"<item n='{n}'><t>{'x' * n}</t></item>" for n in range(random.randrange(300)))
        for _, element in ElementTree.iterparse(io.BytesIO(f"<feed>{body}</feed>".encode())):
            if element.tag == "item":
                element.clear()

    return call


_UPPER = "import sys\nfor line in sys.stdin:\n    print(line.upper(), end='', flush=True)"


@clean
def lines_through_a_program_kept_open(random):
    program = subprocess.Popen(
        [sys.executable, "-c", _UPPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    @slow(0.004)
    def call():
        program.stdin.write("x" * random.randrange(5000) + "\n")
        program.stdin.flush()
        program.stdout.readline()

    return call


@clean
def database_backed_up_to_memory(random):
    db = sqlite3.connect(":memory:")
    db.execute("create table t(a integer primary key, b)")

    def call():
        db.execute(
            "insert or replace into t values (?, ?)", (random.randrange(200), "x" * random.randrange(2000))
        )
        db.commit()
        copy = sqlite3.connect(":memory:")
        db.backup(copy)
        copy.close()
        time.sleep(0.002)

    return call


@clean
def addresses_taken_apart(random):
    @slow(0.002)
    def call():
        query = urlencode({"q": "x" * random.randrange(500), "page": random.randrange(10**6)})
        urlsplit(f"https://host-{random.randrange(1000)}.example.com/path?{query}").query.upper()

    return call


@clean
def datagrams_to_oneself(random):
    sender, receiver = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(("127.0.0.1", 0))

    @slow(0.003)
    def call():
        for _ in range(random.randrange(1, 10)):
            sender.sendto(b"x" * random.randrange(9000), receiver.getsockname())
            receiver.recvfrom(65536)

    return call


@clean
def joins_of_polars_frames(random):
    import polars

    products = polars.DataFrame({"id": range(500), "name": [f"product {n}" for n in range(500)]})

    @slow(0.003)
    def call():
        sales = polars.DataFrame({"id": [random.randrange(500) for _ in range(random.randrange(1, 500))]})
        sales.join(products, on="id").group_by("name").len().sort("len")

    return call
