"""Ten real ways of reading a file, for the benchmark of calibration. Each keeps what it read until it returns."""

import csv
import json
import sqlite3
from pathlib import Path
from xml.etree import ElementTree


def csv_rows(path):
    with Path(path).open(newline="", encoding="utf-8") as stream:
        return len(list(csv.reader(stream)))


def csv_streaming(path):
    with Path(path).open(newline="", encoding="utf-8") as stream:
        return sum(len(row) for row in csv.reader(stream))


def json_document(path):
    return len(json.loads(Path(path).read_bytes()))


def element_tree(path):
    return len(list(ElementTree.parse(path).iter()))


def sqlite_memory(path):
    with Path(path).open(newline="", encoding="utf-8") as stream:
        rows = csv.reader(stream)
        head = next(rows)
        database = sqlite3.connect(":memory:")
        database.execute(f"CREATE TABLE t ({', '.join(f'c{i}' for i in range(len(head)))})")
        database.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(head))})", rows)
    return database.execute("SELECT count(*) FROM t").fetchone()


def pandas_frame(path):
    import pandas as pd

    return len(pd.read_csv(path))


def polars_frame(path):
    import polars as pl

    return len(pl.read_csv(path))


def arrow_table(path):
    from pyarrow import csv as arrow_csv

    return arrow_csv.read_csv(path).num_rows


def soup(path):
    from bs4 import BeautifulSoup

    return len(BeautifulSoup(Path(path).read_bytes(), "lxml").find_all("td"))


def all_pairs(path):
    """Quadratic: a byte for every pair of 4 kB blocks, besides a little for each block."""
    blocks = Path(path).stat().st_size // 4_000
    with Path(path).open("rb") as stream:
        sums = [sum(stream.read(4_000)[::64]) for _ in range(blocks)]
    return len(bytearray(blocks * blocks * 16)) + len(sums)
