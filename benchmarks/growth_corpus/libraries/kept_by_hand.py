"""What people keep by hand: containers that are made longer, chained or bounded, keys that become ever rarer, children that keep little."""

import array
import bisect
import collections
import ctypes
import itertools
import logging
import logging.handlers
import math
import multiprocessing
import os
import queue
import sqlite3
import subprocess
import sys
import threading
import time

from growth_corpus.case import clean, leaking


@leaking(10)
def keys_that_become_ever_rarer(random):
    """Which no number of calls tells from a cache: *inconclusive* is the best answer."""
    seen = {}

    def call():
        rank = int(random.paretovariate(0.8))
        seen.setdefault(f"term-{rank}", [0])[0] += 1
        time.sleep(0.004)

    return call


@leaking(5)
def visitors_by_the_square_root(random):
    """Likewise."""
    seen, n = set(), itertools.count(1)

    def call():
        i = next(n)
        if random.random() < 1 / math.sqrt(i) * 3:
            seen.add(f"visitor {i}")
        time.sleep(0.004)

    return call


_SERVER = """
import sys
kept = []
for line in sys.stdin:
    kept.append(bytearray(%d))
    %s
    sys.stdout.write('ok\\n'); sys.stdout.flush()
"""


def _server(size, extra="pass"):
    return subprocess.Popen(
        [sys.executable, "-c", _SERVER % (size, extra)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@leaking(400)
def a_child_that_keeps_400_bytes(random):
    """Less than a megabyte in all, which pages alone do not prove: *inconclusive*, unless the time limit is longer."""
    s = _server(400)

    def call():
        s.stdin.write("x\n")
        s.stdin.flush()
        s.stdout.readline()
        time.sleep(0.005)

    return call


@leaking(600)
def three_children_in_turn(random):
    s = itertools.cycle([_server(600) for _ in range(3)])

    def call():
        p = next(s)
        p.stdin.write("x\n")
        p.stdin.flush()
        p.stdout.readline()
        time.sleep(0.004)

    return call


@clean
def a_child_with_a_ring_of_300(random):
    s = _server(1000, "del kept[:-300]")

    def call():
        s.stdin.write("x\n")
        s.stdin.flush()
        s.stdout.readline()
        time.sleep(0.004)

    return call


@leaking(8)
def a_tuple_made_longer(random):
    box = [()]

    def call():
        box[0] = box[0] + (random.random(),)
        time.sleep(0.003)

    return call


@leaking(40)
def text_made_longer(random):
    box = [""]

    def call():
        box[0] = box[0] + f"a line of the journal, with a number {random.random():f}\n"
        time.sleep(0.004)

    return call


@leaking(8)
def doubles_in_an_array(random):
    a = array.array("d")

    def call():
        a.append(random.random())
        time.sleep(0.003)

    return call


@leaking(30)
def maps_chained_by_request(random):
    box = [collections.ChainMap()]

    def call():
        box[0] = box[0].new_child({"user": random.randrange(9)})
        time.sleep(0.003)

    return call


@leaking(100)
def callbacks_for_c_kept(random):
    kind, kept = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int), []

    def call():
        kept.append(kind(lambda n: n + 1))
        time.sleep(0.005)

    return call


@leaking(100)
def one_logger_for_each_request(random):
    n = itertools.count()

    def call():
        logging.getLogger(f"growth_corpus.request.{next(n)}").debug("x")
        time.sleep(0.004)

    return call


@leaking(0)
def one_descriptor_in_five_calls(random):
    n = itertools.count()

    def call():
        if next(n) % 5 == 0:
            os.dup(0)
        time.sleep(0.01)

    return call


@leaking(100)
def rows_in_a_database_in_memory(random):
    db = sqlite3.connect(":memory:")
    db.execute("create table t(a, b)")

    def call():
        db.execute("insert into t values (?, ?)", (random.random(), "x" * random.randrange(400)))
        db.commit()
        time.sleep(0.006)

    return call


@leaking(500)
def a_queue_between_processes_never_read(random):
    q = multiprocessing.Queue()
    q.cancel_join_thread()  # or this process would wait at its end for a reader

    def call():
        q.put(bytes(random.randrange(3000)))
        time.sleep(0.008)

    return call


@leaking(60)
def sorted_latencies_of_all_time(random):
    seen = []

    def call():
        work = [random.random() for _ in range(random.randrange(3000))]
        bisect.insort(seen, sum(work))
        time.sleep(0.005)

    return call


@leaking(100)
def cells_that_hold_the_ones_before(random):
    box = [None]

    def call():
        before = box[0]

        def again():
            return before

        box[0] = again
        time.sleep(0.004)

    return call


@clean
def rows_written_in_batches_of_250(random):
    rows = []

    def call():
        rows.append("r" * random.randrange(200, 400))
        if len(rows) >= 250:
            rows.clear()
        time.sleep(0.004)

    return call


@clean
def a_list_as_a_ring_of_120(random):
    kept = []

    def call():
        kept.append({"at": time.time(), "text": "x" * random.randrange(500)})
        if len(kept) > 120:
            kept.pop(0)
        time.sleep(0.006)

    return call


@clean
def least_recently_used_of_300_by_hand(random):
    kept = collections.OrderedDict()

    def call():
        k = random.randrange(1000)
        if k in kept:
            kept.move_to_end(k)
        else:
            kept[k] = bytes(random.randrange(100, 900))
            if len(kept) > 300:
                kept.popitem(last=False)
        time.sleep(0.003)

    return call


@clean
def sessions_of_half_a_second(random):
    live = {}

    def call():
        now = time.monotonic()
        live[now] = "s" * random.randrange(3000)
        for k in [k for k in live if k < now - 0.5]:
            del live[k]
        time.sleep(0.005)

    return call


@clean
def a_workspace_for_inputs_of_any_size(random):
    box = [bytearray()]

    def call():
        n = min(int(random.lognormvariate(9, 1)), 200_000)
        if n > len(box[0]):
            box[0] = bytearray(n)
        box[0][:n] = bytes(n)
        time.sleep(0.008)

    return call


@clean
def words_of_a_finite_language(random):
    seen = {}

    def call():
        rank = min(int(random.paretovariate(0.9)), 150)
        seen.setdefault(f"word{rank}", "definition " * 20)
        time.sleep(0.005)

    return call


@clean
def a_handler_flushed_at_80(random):
    log = logging.getLogger("growth_corpus.flushed")
    log.propagate = False
    log.setLevel(10)
    log.addHandler(logging.handlers.MemoryHandler(80, flushLevel=60, target=logging.NullHandler()))

    def call():
        log.info("x" * random.randrange(800))
        time.sleep(0.006)

    return call


@clean
def the_latest_image_by_a_thread(random):
    box, q = [None], queue.Queue()

    def work():
        while True:
            n = q.get()
            box[0] = bytearray(b"i") * n
            q.task_done()

    threading.Thread(target=work, daemon=True).start()

    def call():
        q.put(random.randrange(1_000_000))
        q.join()
        time.sleep(0.004)

    return call
