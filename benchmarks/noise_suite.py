"""Twenty pieces of real work, each measured in a fresh interpreter: how much do their peaks scatter?

`python benchmarks/noise_suite.py NAME` prints the peak of one run in bytes;
`python benchmarks/noise_suite.py --all 60 benchmarks/data/noise_samples.json` takes 60 of each, shuffled, and
keeps them for `test_gate_noise.py`.
"""

from __future__ import annotations

import concurrent.futures
import csv
import io
import json
import os
import pickle
import random
import re
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Work = Callable[[], Any]


def _table(rows: int) -> str:
    return "id,name,value\n" + "".join(f"{n},name {n % 97},{n * 0.5}\n" for n in range(rows))


def csv_rows() -> Work:
    text = _table(120_000)
    return lambda: [row for row in csv.reader(io.StringIO(text)) if row]


def csv_dicts() -> Work:
    text = _table(60_000)
    return lambda: [row for row in csv.DictReader(io.StringIO(text)) if row]


def json_document() -> Work:
    text = json.dumps([{"id": n, "tags": [str(n), str(n + 1)]} for n in range(60_000)])
    return partial(json.loads, text)


def xml_tree() -> Work:
    text = "<all>" + "".join(f"<row id='{n}'><name>{n}</name></row>" for n in range(40_000)) + "</all>"
    return partial(ET.fromstring, text)


def html_soup() -> Work:
    from bs4 import BeautifulSoup

    text = "<table>" + "".join(f"<tr><td>{n}</td><td>{n * 2}</td></tr>" for n in range(3_000)) + "</table>"
    return partial(BeautifulSoup, text, "html.parser")


def frame_read() -> Work:
    import pandas as pd

    text = _table(200_000)
    return lambda: pd.read_csv(io.StringIO(text))


def frame_group() -> Work:
    import pandas as pd

    frame = pd.read_csv(io.StringIO(_table(200_000)))
    return lambda: frame.groupby("name").agg({"value": ["mean", "std"], "id": "count"})


def frame_merge() -> Work:
    import pandas as pd

    frame = pd.read_csv(io.StringIO(_table(150_000)))
    return lambda: frame.merge(frame, on="id").sort_values("value_x")


def array_product() -> Work:
    import numpy as np

    left = np.ones((900, 900))
    return lambda: float((left @ left.T).sum())


def array_sort() -> Work:
    import numpy as np

    values = np.random.default_rng().random(3_000_000)
    return lambda: float(np.sort(values)[::2].cumsum()[-1])


def string_set() -> Work:
    """Hash randomisation moves the collisions from run to run."""
    return lambda: {f"word {n * 7919 % 300_007}" for n in range(250_000)}


def random_sizes() -> Work:
    """The sizes themselves are drawn again in each run: about 3% of scatter."""
    chance = random.Random()
    return lambda: [bytes(chance.randrange(1, 60_000)) for _ in range(1_500)]


def cyclic_garbage() -> Work:
    def work() -> None:
        for _ in range(150_000):
            node: dict[str, Any] = {"payload": [0] * 20}
            node["self"] = node

    return work


def threads_at_once() -> Work:
    """Four threads allocate and free as the scheduler lets them: the peak depends on who meets whom."""

    def task(_: int) -> int:
        return len(zlib.compress(os.urandom(3_000_000), 1))

    def work() -> list[int]:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return list(pool.map(task, range(24)))

    return work


def threads_parsing() -> Work:
    text = _table(30_000)

    def work() -> list[int]:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            return list(pool.map(lambda _: len(list(csv.reader(io.StringIO(text)))), range(6)))

    return work


def database() -> Work:
    def work() -> Any:
        connection = sqlite3.connect(":memory:")
        connection.execute("create table t (id integer primary key, name text, value real)")
        rows = ((n, f"name {n}", n * 0.5) for n in range(150_000))
        connection.executemany("insert into t values (?, ?, ?)", rows)
        return connection.execute("select name, sum(value) from t group by name order by 2").fetchall()

    return work


def text_search() -> Work:
    text = " ".join(f"user{n}@example.org" for n in range(150_000))
    return lambda: re.findall(r"(\w+)@(\w+)\.org", text)


def compression() -> Work:
    data = os.urandom(8_000_000)
    return lambda: zlib.decompress(zlib.compress(data, 6))


def pickling() -> Work:
    values = [(n, str(n), float(n)) for n in range(120_000)]
    return lambda: pickle.loads(pickle.dumps(values))


def small_work() -> Work:
    return lambda: sorted(range(20_000), key=str)


SUITE = (
    csv_rows,
    csv_dicts,
    json_document,
    xml_tree,
    html_soup,
    frame_read,
    frame_group,
    frame_merge,
    array_product,
    array_sort,
    string_set,
    random_sizes,
    cyclic_garbage,
    threads_at_once,
    threads_parsing,
    database,
    text_search,
    compression,
    pickling,
    small_work,
)


def peak_of(name: str) -> int:
    """The peak of one piece of work in this interpreter, its preparation not counted."""
    from pytest_membudget import measure

    work = next(maker for maker in SUITE if maker.__name__ == name)()
    return measure(work).peak_bytes


def sample_all(count: int, target: Path) -> None:
    """`count` fresh samples of each, in an order shuffled over all, so that no one has a quiet hour to itself."""
    order = [maker.__name__ for maker in SUITE for _ in range(count)]
    random.Random(1).shuffle(order)
    samples: dict[str, list[int]] = {maker.__name__: [] for maker in SUITE}
    for done, name in enumerate(order):
        answer = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True)
        samples[name].append(int(answer.stdout))
        if done % 20 == 19 and sys.stderr.isatty():
            print(f"\r{done + 1} of {len(order)}", end="", file=sys.stderr)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(taken)}" for name, taken in samples.items())
    target.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    if sys.argv[1] == "--all":
        sample_all(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(peak_of(sys.argv[1]))
