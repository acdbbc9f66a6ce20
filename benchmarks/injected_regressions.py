"""Thirty functions that use more memory in the second of two commits, five of each kind, and the name of the guilty one.

`write_project` makes the repository. Each case is a small module with a caller between the test and the guilty function, as real
code has; `GROWTH` stands where the second commit differs.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """The module's text, and the function in it that allocates more at the head."""

    kind: str
    guilty: str
    source: str
    base: str
    head: str


def _case(kind: str, guilty: str, body: str, base: str = "1", head: str = "3", *, imports: str = "") -> Case:
    source = f"{imports}\n\ndef {guilty}():\n{body}\n\ndef service():\n    steady = bytes(2_000_000)\n    return steady, {guilty}()\n"
    return Case(kind, guilty, source, base, head)


NUMPY = "import numpy as np"
WRITER = "import subprocess, sys"
CASES = [
    _case("python", "read_rows", "    return [{'id': n, 'name': str(n)} for n in range(20_000 * GROWTH)]"),
    _case("python", "join_lines", "    return '\\n'.join(['x' * 60] * (60_000 * GROWTH))"),
    _case("python", "index_words", "    return {f'word {n}': n for n in range(40_000 * GROWTH)}"),
    _case("python", "unique_keys", "    return {(n, n + 1) for n in range(40_000 * GROWTH)}"),
    _case("python", "copy_blocks", "    return [bytes(1_000) for _ in range(4_000 * GROWTH)]"),
    _case("numpy", "fill_table", "    return np.ones((500_000, GROWTH))", imports=NUMPY),
    _case(
        "numpy", "stack_frames", "    return np.concatenate([np.ones(200_000)] * (3 * GROWTH))", imports=NUMPY
    ),
    _case(
        "numpy", "draw_samples", "    return np.random.default_rng(0).random(600_000 * GROWTH)", imports=NUMPY
    ),
    _case("numpy", "sort_values", "    return np.sort(np.arange(600_000 * GROWTH)[::-1])", imports=NUMPY),
    _case(
        "numpy",
        "outer_product",
        "    return np.outer(np.arange(700.0), np.arange(900.0 * GROWTH))",
        imports=NUMPY,
    ),
    _case(
        "library",
        "inflate_archive",
        "    return zlib.decompress(zlib.compress(b'a' * (5_000_000 * GROWTH)))",
        imports="import zlib",
    ),
    _case(
        "library",
        "parse_document",
        "    return json.loads('[' + ','.join(['[1, 2]'] * (40_000 * GROWTH)) + ']')",
        imports="import json",
    ),
    _case(
        "library",
        "query_table",
        "    database = sqlite3.connect(':memory:')\n    database.execute('CREATE TABLE t (x)')\n"
        "    database.executemany('INSERT INTO t VALUES (?)', (('x' * 100,) for _ in range(30_000 * GROWTH)))\n    return database",
        imports="import sqlite3",
    ),
    _case(
        "library",
        "build_tree",
        "    return ET.fromstring('<r>' + '<a><b>1</b></a>' * (15_000 * GROWTH) + '</r>')",
        imports="import xml.etree.ElementTree as ET",
    ),
    _case(
        "library",
        "load_state",
        "    return pickle.loads(pickle.dumps([str(n) for n in range(60_000 * GROWTH)]))",
        imports="import pickle",
    ),
    _case(
        "child",
        "convert_file",
        "    subprocess.run([sys.executable, '-c', 'from {module} import worker; worker(GROWTH)'], check=True)\n\n"
        "def worker(factor):\n    return bytearray(b'x' * (6_000_000 * factor))",
        imports=WRITER,
    ),
    _case(
        "child",
        "render_pages",
        "    process = multiprocessing.get_context('spawn').Process(target=worker, args=(GROWTH,))\n    process.start()\n    process.join()\n\n"
        "def worker(factor):\n    return [bytes(1_000) for _ in range(6_000 * factor)]",
        imports="import multiprocessing",
    ),
    _case(
        "child",
        "scan_folder",
        "    process = multiprocessing.get_context('fork').Process(target=worker, args=(GROWTH,))\n    process.start()\n    process.join()\n\n"
        "def worker(factor):\n    return bytearray(b'x' * (6_000_000 * factor))",
        imports="import multiprocessing",
    ),
    _case(
        "child",
        "resize_images",
        "    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:\n"
        "        pool.submit(worker, GROWTH).result()\n\n"
        "def worker(factor):\n    return len(bytearray(b'x' * (6_000_000 * factor)))",
        imports="import concurrent.futures, multiprocessing",
    ),
    _case(
        "child",
        "compile_assets",
        "    subprocess.run([sys.executable, '-m', '{module}'], check=True)\n\ndef worker(factor):\n"
        "    return [str(n) * 20 for n in range(40_000 * factor)]\n\nif __name__ == '__main__':\n    worker(GROWTH)",
        imports=WRITER,
    ),
    _case(
        "cache",
        "render_template",
        "    return [_render(n) for n in range(3_000 * GROWTH)]\n\n@functools.lru_cache(maxsize=None)\ndef _render(n):\n    return str(n) * 400",
        imports="import functools",
    ),
    _case(
        "cache",
        "load_settings",
        "    for n in range(3_000 * GROWTH):\n        _SETTINGS[n] = bytes(1_500)",
        imports="_SETTINGS = {}",
    ),
    _case(
        "cache",
        "note_events",
        "    for n in range(30_000 * GROWTH):\n        _EVENTS.append((n, str(n)))",
        imports="_EVENTS = []",
    ),
    _case(
        "cache",
        "resolve_names",
        "    return sum(len(_resolve(n)) for n in range(2_000 * GROWTH))\n\n@functools.cache\ndef _resolve(n):\n    return [n] * 300",
        imports="import functools",
    ),
    _case(
        "cache",
        "keep_results",
        "    Store.results.extend(bytes(2_000) for _ in range(2_500 * GROWTH))",
        imports="class Store:\n    results = []",
    ),
    _case(
        "dtype",
        "read_columns",
        "    return np.ones(1_000_000, dtype=GROWTH)",
        "'float32'",
        "'float64'",
        imports=NUMPY,
    ),
    _case(
        "dtype",
        "encode_labels",
        "    return np.full(1_500_000, 3, dtype=GROWTH)",
        "'int8'",
        "'int64'",
        imports=NUMPY,
    ),
    _case(
        "dtype",
        "parse_prices",
        "    return np.arange(400_000).astype(GROWTH)",
        "'int32'",
        "'object'",
        imports=NUMPY,
    ),
    _case(
        "dtype",
        "transform_signal",
        "    return np.ones(700_000).astype(GROWTH)",
        "'float32'",
        "'complex128'",
        imports=NUMPY,
    ),
    _case(
        "dtype",
        "name_rows",
        "    return np.full(100_000, 'row', dtype=GROWTH)",
        "'U4'",
        "'U40'",
        imports=NUMPY,
    ),
]
ALSO_RIGHT = {
    "convert_file": "worker",
    "render_pages": "worker",
    "scan_folder": "worker",
    "resize_images": "worker",
    "compile_assets": "worker",
    "render_template": "_render",
    "resolve_names": "_resolve",
}
"""Where the guilty function allocates in a helper of its own, which is then the right name."""


def write_project(folder: Path) -> None:
    """A repository of two commits at `folder`: HEAD~1 and HEAD."""
    folder.mkdir(parents=True)
    tests = []
    for number, case in enumerate(CASES):
        tests.append(f"def test_{case.guilty}():\n    from case_{number:02} import service\n    service()\n")
    (folder / "test_cases.py").write_text("\n\n".join(tests))
    (folder / "pytest.ini").write_text("[pytest]\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "-q", "."], cwd=folder, check=True)
    for side in ("base", "head"):
        for number, case in enumerate(CASES):
            growth = case.base if side == "base" else case.head
            text = case.source.replace("GROWTH", growth).replace("{module}", f"case_{number:02}")
            (folder / f"case_{number:02}.py").write_text(text)
        subprocess.run([*git, "add", "."], cwd=folder, check=True)
        subprocess.run([*git, "commit", "-qm", side], cwd=folder, check=True)
