"""What fills late, is emptied now and then, or leaks in few of its calls."""

import collections
import contextlib
import functools
import importlib
import importlib.util
import itertools
import json
import os
import sqlite3
import sys
import tempfile
import time
import warnings
from pathlib import Path

from growth_corpus.case import clean, leaking, slow


def _busy(seconds):
    end_at = time.perf_counter() + seconds
    while time.perf_counter() < end_at:
        pass


@clean
def one_module_imported_in_each_of_sixty_calls(random):
    names = iter(
        "xmlrpc.client wave uu turtle tty this telnetlib tabnanny symtable sunau sndhdr smtplib shlex rlcompleter quopri pyclbr pty profile poplib plistlib pipes pdb optparse nntplib netrc modulefinder mailcap mailbox imghdr imaplib getpass gettext ftplib formatter filecmp fileinput doctest dbm cProfile crypt colorsys codeop code cmd chunk cgitb cgi calendar binhex bdb asyncore asynchat aifc wsgiref.util xdrlib zipapp trace timeit curses ensurepip venv lib2to3.pgen2".split()
    )

    def call():
        name = next(names, None)
        if name:
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
        time.sleep(0.05)

    return call


@leaking(2000)
def plugins_loaded_under_new_names(random):
    folder, numbers = Path(tempfile.mkdtemp()), itertools.count()
    (folder / "plugin.py").write_text(
        "import json\nVALUES = list(range(1000, 1200))\ndef run(x):\n    return x + len(VALUES)\n"
    )

    def call():
        name = f"plugin_{next(numbers)}"
        spec = importlib.util.spec_from_file_location(name, folder / "plugin.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        module.run(1)
        time.sleep(0.01)

    return call


@clean
def grows_and_is_freed_each_fifty_calls_slowly(random):
    kept = []

    def call():
        kept.append(bytes(random.randrange(100_000, 300_000)))
        if len(kept) == 50:
            kept.clear()
        time.sleep(0.03)

    return call


@leaking(20)
def kept_on_the_error_path_only(random):
    errors = []

    def parse(text):
        try:
            return json.loads(text)
        except ValueError as error:
            errors.append(str(error) + text[:200])

    def call():
        text = json.dumps([random.random() for _ in range(random.randrange(500))])
        parse(text if random.random() < 0.9 else text[:-1] + "x" * random.randrange(300))
        time.sleep(0.004)

    return call


@clean
def a_dictionary_of_64_users_at_random(random):
    seen = {}

    def call():
        seen[f"user{random.randrange(64)}"] = "x" * random.randrange(5000)
        time.sleep(0.01)

    return call


@leaking(5000)
def each_tenth_call_keeps_50_kb_slowly(random):
    kept, numbers = [], itertools.count()

    def call():
        data = os.urandom(50_000)
        _busy(0.04)
        if next(numbers) % 10 == 9:
            kept.append(data)

    return call


@leaking(50)
def fifty_bytes_beside_the_latest_result(random):
    kept, latest = [], [None]

    def call():
        latest[0] = bytes(random.randrange(500_000))
        kept.append(bytes(17))
        time.sleep(0.01)

    return call


@leaking(2_000_000)
def two_megabytes_in_a_very_slow_call(random):
    kept = []
    return slow(0.2)(lambda: kept.append(bytearray(b"y") * 2_000_000))


@leaking(40)
def history_of_floats_in_200_ms(random):
    kept = []
    return slow(0.15)(lambda: kept.append([random.random()]))


@clean
def a_pool_that_is_full_at_call_300(random):
    pool, numbers = [], itertools.count()

    def call():
        if next(numbers) % 10 == 0 and len(pool) < 30:
            pool.append(bytearray(b"z") * 100_000)
        time.sleep(0.005)

    return call


@clean
def a_pool_that_is_full_at_call_700(random):
    pool, numbers = [], itertools.count()

    def call():
        if next(numbers) < 700:
            pool.append(bytes(1000))
        time.sleep(0.005)

    return call


@clean
def a_dictionary_of_the_last_700(random):
    kept, numbers = {}, itertools.count()

    def call():
        number = next(numbers)
        kept[number] = bytes(1000)
        kept.pop(number - 700, None)
        time.sleep(0.005)

    return call


@clean
def a_least_recently_used_dictionary_of_400(random):
    kept = collections.OrderedDict()
    numbers = itertools.count()

    def call():
        kept[next(numbers)] = "v" * random.randrange(2000)
        if len(kept) > 400:
            kept.popitem(last=False)
        time.sleep(0.002)

    return call


@clean
def sqlite_file_whose_pages_are_cached(random):
    folder = tempfile.mkdtemp()
    db = sqlite3.connect(os.path.join(folder, "x.db"))
    db.execute("pragma synchronous=off")
    db.execute("create table t(a, b)")

    def call():
        db.execute("insert into t values (?, ?)", (random.random(), "x" * random.randrange(1500)))
        db.commit()
        time.sleep(0.008)

    return call


@clean
def sqlite_file_read_at_random(random):
    folder = tempfile.mkdtemp()
    db = sqlite3.connect(os.path.join(folder, "x.db"))
    db.execute("create table t(a integer primary key, b)")
    db.executemany("insert into t values (?, ?)", ((i, "x" * 3000) for i in range(3000)))
    db.commit()
    db.close()
    db = sqlite3.connect(os.path.join(folder, "x.db"))

    def call():
        db.execute("select b from t where a=?", (random.randrange(3000),)).fetchall()
        time.sleep(0.006)

    return call


@clean
def temporary_table_emptied(random):
    db = sqlite3.connect(":memory:")
    db.execute("create table t(a, b)")

    def call():
        db.executemany("insert into t values (?, ?)", [(i, "x" * 50) for i in range(random.randrange(500))])
        db.execute("delete from t")
        db.commit()
        time.sleep(0.003)

    return call


@clean
def unbounded_but_few_keys_in_a_functools_cache(random):
    @functools.cache
    def f(n):
        return bytes(20_000)

    def call():
        f(random.randrange(150))
        time.sleep(0.01)

    return call


@clean
def sqlalchemy_reflected_each_time(random):
    import sqlalchemy as sa

    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    with engine.begin() as c:
        for i in range(10):
            c.execute(sa.text(f"create table t{i}(id integer primary key, a text, b float)"))

    def call():
        meta = sa.MetaData()
        meta.reflect(engine)
        with engine.connect() as c:
            for t in list(meta.tables.values())[: random.randrange(1, 10)]:
                c.execute(sa.select(t)).fetchall()

    return call
