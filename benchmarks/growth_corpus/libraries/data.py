"""Tables, arrays and graphs, in libraries with caches, threads and allocators of their own."""

import io
import itertools
import time

from growth_corpus.case import clean, leaking, slow


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
def polars_lazy_query(random):
    import polars

    def call():
        rows = random.randrange(1, 50_000)
        frame = polars.DataFrame({"k": [n % 7 for n in range(rows)]}).lazy()
        frame.group_by("k").agg(polars.len()).collect()

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
def networkx_shortest_paths(random):
    import networkx

    def call():
        networkx.shortest_path(networkx.gnm_random_graph(100, random.randrange(100, 300)), 0)

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


@leaking(100)
def sklearn_models_in_a_registry(random):
    import numpy
    from sklearn.linear_model import LinearRegression

    models = []

    def call():
        x = numpy.random.default_rng(0).random((200, 3))
        models.append(LinearRegression().fit(x, x[:, 0]))

    return call


@leaking(80_000)
def views_that_keep_their_arrays(random):
    import numpy

    kept = []
    return slow(0.005)(lambda: kept.append(numpy.ones(10_000)[:3]))


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
    return slow(0.005)(lambda: kept.update({next(numbers): networkx.path_graph(20)}))


@clean
def network_drawn_at_random(random):
    import networkx as nx

    def call():
        graph = nx.gnp_random_graph(random.randrange(10, 60), 0.1, seed=random.randrange(1000))
        nx.pagerank(graph)
        nx.to_dict_of_lists(graph)

    return call


@clean
def frames_pivoted_and_written(random):
    import io

    import pandas as pd

    def call():
        rows = random.randrange(50, 2000)
        frame = pd.DataFrame({"a": range(rows), "b": ["x", "y"] * (rows // 2) + ["x"] * (rows % 2)})
        frame.pivot_table(index="b", values="a").to_csv(io.StringIO())

    return call


@clean
def histogram_saved_as_a_picture(random):
    import io

    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    def call():
        figure, axes = plt.subplots(figsize=(2, 2))
        axes.hist([random.random() for _ in range(100)])
        figure.savefig(io.BytesIO(), format="png", dpi=40)
        plt.close(figure)

    return call


@clean
def trees_fitted_and_asked(random):
    import numpy as np
    from sklearn.tree import DecisionTreeClassifier

    numbers = np.random.default_rng(random.randrange(1000))

    def call():
        rows = random.randrange(50, 400)
        DecisionTreeClassifier(max_depth=4).fit(
            numbers.random((rows, 5)), numbers.integers(0, 2, rows)
        ).predict(numbers.random((20, 5)))

    return call


@leaking(10_000)
def slices_of_frames_in_a_list(random):
    import pandas as pd

    frame, kept = pd.DataFrame({"a": range(100_000)}), []

    def call():
        begin = random.randrange(90_000)
        kept.append(frame.iloc[begin : begin + 2000].copy())
        time.sleep(0.01)

    return call


@leaking(300)
def colour_maps_registered(_random):
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap

    numbers = itertools.count()

    def call():
        mpl.colormaps.register(ListedColormap(["red", "blue"], name=f"ours {next(numbers)}"))
        time.sleep(0.01)

    return call
