"""Classes made at run time, and packages with code in C or Rust."""

import contextlib
import dataclasses
import datetime
import decimal
import io
import itertools
import logging
import lzma
import os
import ssl
import string
import time
import unittest.mock
import weakref
import zoneinfo

from growth_corpus.case import clean, leaking


@leaking(300)
def attrs_classes_made(random):
    import attr

    numbers = itertools.count()

    def call():
        attr.make_class(f"C{next(numbers)}", ["a", "b", "c"])(1, 2, 3)
        time.sleep(0.005)

    return call


@clean
def dataclasses_made(random):
    def call():
        dataclasses.make_dataclass("D", [(c, int) for c in string.ascii_lowercase[: random.randrange(1, 10)]])
        time.sleep(0.005)

    return call


@clean
def pydantic_models_made(random):
    import pydantic

    def call():
        model = pydantic.create_model(
            "M", **dict.fromkeys(string.ascii_lowercase[: random.randrange(1, 10)], (int, 1))
        )
        model()
        time.sleep(0.005)

    return call


@leaking(500)
def subclasses_registered_by_a_hook(random):
    class Base:
        registry = {}  # noqa: RUF012 - that is how it leaks

        def __init_subclass__(cls, **kw):
            Base.registry[f"{cls.__name__}{len(Base.registry)}"] = cls

    def call():
        type("Sub", (Base,), {"run": len})
        time.sleep(0.005)

    return call


@clean
def mocks_specified_and_reset(random):
    double = unittest.mock.MagicMock(spec=dict)

    def call():
        for n in range(random.randrange(100)):
            double[n] = "x" * 100
            double.get(n)
        double.reset_mock()
        time.sleep(0.003)

    return call


@leaking(300)
def patches_started_and_never_stopped(random):
    class T:
        value = 1

    def call():
        p = unittest.mock.patch.object(T, "value", bytes(300))
        p.start()
        time.sleep(0.005)

    return call


@clean
def zstandard_and_lz4(random):
    import lz4.frame
    import zstandard

    c, d = zstandard.ZstdCompressor(), zstandard.ZstdDecompressor()

    def call():
        data = random.randbytes(random.randrange(500_000))
        assert d.decompress(c.compress(data)) == data
        assert lz4.frame.decompress(lz4.frame.compress(data)) == data

    return call


@leaking(10_000)
def decompressors_kept_half_fed(random):
    kept = []
    data = lzma.compress(os.urandom(20_000))

    def call():
        d = lzma.LZMADecompressor()
        d.decompress(data[: random.randrange(5000, 15000)])
        kept.append(d)
        time.sleep(0.01)

    return call


@clean
def orjson_documents(random):
    import orjson

    def call():
        orjson.loads(
            orjson.dumps(
                [
                    {f"k{random.randrange(5000)}": "v" * random.randrange(50)}
                    for _ in range(random.randrange(500))
                ]
            )
        )
        time.sleep(0.002)

    return call


@clean
def numexpr_expressions(random):
    import numexpr
    import numpy

    a = numpy.random.default_rng(0).random(100_000)

    def call():
        numexpr.evaluate(f"a*{random.randrange(300)} + sin(a)", {"a": a})

    return call


@leaking(64)
def cffi_memory_kept(random):
    import cffi

    ffi = cffi.FFI()
    kept = []

    def call():
        kept.append(ffi.new("char[]", random.randrange(64, 128)))
        time.sleep(0.003)

    return call


@clean
def cffi_callbacks_sorted(random):
    import cffi

    ffi = cffi.FFI()
    ffi.cdef("void qsort(void*, size_t, size_t, int(*)(const void*, const void*));")
    lib = ffi.dlopen(None)

    @ffi.callback("int(const void*, const void*)")
    def compare(a, b):
        return ffi.cast("int*", a)[0] - ffi.cast("int*", b)[0]

    def call():
        n = random.randrange(1, 800)
        block = ffi.new("int[]", [random.randrange(10**6) for _ in range(n)])
        lib.qsort(block, n, 4, compare)

    return call


@clean
def lxml_iterparse_and_xslt(random):
    from lxml import etree

    sheet = etree.XSLT(
        etree.XML(
            '<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"><xsl:template match="/"><o><xsl:for-each select="//b"><c><xsl:value-of select="."/></c></xsl:for-each></o></xsl:template></xsl:stylesheet>'
        )
    )

    def call():
        text = b"<a>" + b"<b>text</b>" * random.randrange(3000) + b"</a>"
        for _ in etree.iterparse(io.BytesIO(text), tag="b"):
            pass
        str(sheet(etree.fromstring(text)))

    return call


@clean
def pillow_drawn_text_and_filters(random):
    from PIL import Image, ImageDraw, ImageFilter

    def call():
        image = Image.new("RGB", (random.randrange(50, 600), random.randrange(50, 600)), "white")
        ImageDraw.Draw(image).text((5, 5), "".join(random.choices(string.printable[:90], k=30)), fill="black")
        out = io.BytesIO()
        image.filter(ImageFilter.GaussianBlur(3)).save(out, "PNG")

    return call


@clean
def certificate_signed(random):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())

    def call():
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "n" * random.randrange(1, 60))])
        now = datetime.datetime.now(datetime.UTC)
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(
            key.public_key()
        ).serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(
            now + datetime.timedelta(days=1)
        ).sign(key, hashes.SHA256())

    return call


@leaking(1000)
def tls_connections_left_in_memory(random):
    context, kept = ssl.create_default_context(), []

    def call():
        a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
        obj = context.wrap_bio(a, b, server_hostname="example.org")
        with contextlib.suppress(ssl.SSLWantReadError):
            obj.do_handshake()
        kept.append(obj)
        time.sleep(0.005)

    return call


@clean
def pandas_resample_and_merge(random):
    import numpy as np
    import pandas as pd

    source = np.random.default_rng(0)

    def call():
        n = random.randrange(100, 20_000)
        f = pd.DataFrame(
            {
                "t": pd.date_range("2024-01-01", periods=n, freq="min"),
                "v": source.random(n),
                "k": source.integers(0, 50, n),
            }
        )
        f.set_index("t").resample("1h").mean()
        f.merge(f.groupby("k").v.mean().reset_index(), on="k")

    return call


@leaking(8000)
def pandas_columns_cached_on_an_accessor(random):
    import numpy as np
    import pandas as pd

    kept = {}
    numbers = itertools.count()

    def call():
        f = pd.DataFrame({"a": np.arange(1000.0)})
        kept[f"r{next(numbers)}"] = f["a"].rolling(3).mean()
        time.sleep(0.01)

    return call


@clean
def arrow_ipc_stream_and_csv(random):
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.ipc

    def call():
        n = random.randrange(10, 50_000)
        table = pa.table({"a": list(range(n)), "b": [f"x{i % 100}" for i in range(n)]})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as w:
            w.write_table(table)
        pa.ipc.open_stream(sink.getvalue()).read_all()
        out = pa.BufferOutputStream()
        pa.csv.write_csv(table, out)
        pa.csv.read_csv(pa.BufferReader(out.getvalue()))

    return call


@leaking(20_000)
def arrow_chunks_appended_to_a_table(random):
    import pyarrow as pa

    held = [pa.table({"a": pa.array([0.0])})]

    def call():
        n = random.randrange(1000, 6000)
        held[0] = pa.concat_tables([held[0], pa.table({"a": pa.array([1.0] * n)})])
        time.sleep(0.01)

    return call


@leaking(100_000)
def polars_results_by_day(random):
    import polars as pl

    kept = []

    def call():
        n = random.randrange(10_000, 30_000)
        kept.append(pl.DataFrame({"a": range(n)}).with_columns((pl.col("a") * 2).alias("b")))

    return call


@clean
def sklearn_pipeline_with_text(random):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    words = ["".join(random.choices(string.ascii_lowercase, k=6)) for _ in range(500)]

    def call():
        texts = [" ".join(random.choices(words, k=30)) for _ in range(random.randrange(20, 200))]
        make_pipeline(TfidfVectorizer(), SGDClassifier(max_iter=5, tol=None)).fit(
            texts, [i % 2 for i in range(len(texts))]
        )

    return call


@clean
def decimal_contexts_and_time_zones(random):
    zones = sorted(zoneinfo.available_timezones())

    def call():
        with decimal.localcontext() as c:
            c.prec = random.randrange(5, 2000)
            decimal.Decimal(2).sqrt()
        datetime.datetime.now(zoneinfo.ZoneInfo(random.choice(zones))).isoformat()

    return call


@leaking(300)
def log_handlers_for_each_request(random):
    numbers = itertools.count()

    def call():
        h = logging.StreamHandler(io.StringIO())
        h.set_name(f"held{next(numbers)}")
        logger = logging.getLogger("corpus")
        logger.addHandler(h)
        logger.warning("x" * random.randrange(100))
        time.sleep(0.005)

    return call


@leaking(100)
def weak_references_with_callbacks_that_hold(random):
    class Node:
        pass

    root, refs = Node(), []

    def call():
        data = bytes(100)
        refs.append(weakref.ref(root, lambda _, held=data: held))
        time.sleep(0.002)

    return call
