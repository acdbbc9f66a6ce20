"""What has an end that no attribute states: expiry, cleaning now and then, keys that all come in time. And leaks that look like it."""

import collections
import functools
import itertools
import os
import queue
import re
import sqlite3
import string
import threading
import time
import weakref

from growth_corpus.case import clean, leaking, slow


@clean
def entries_that_expire_after_two_seconds(random):
    held = {}

    @slow(0.006)
    def call():
        now = time.monotonic()
        held[now] = bytes(random.randrange(500, 2000))
        for key in [key for key in held if key < now - 2]:
            del held[key]

    return call


@clean
def results_dropped_every_400_calls(random):
    held = []

    @slow(0.004)
    def call():
        held.append({"id": random.randrange(1000), "text": "x" * random.randrange(300)})
        if len(held) >= 400:
            held.clear()

    return call


@clean
def a_cache_halved_when_full(random):
    held = {}

    @slow(0.003)
    def call():
        held[random.randrange(10**6)] = [random.random()] * random.randrange(100)
        if len(held) > 256:
            for key in list(held)[:128]:
                del held[key]

    return call


@clean
def two_generations_of_150(random):
    generations = [{}, {}]

    @slow(0.004)
    def call():
        key = random.randrange(400)
        generations[0][key] = generations[1].get(key) or bytes(random.randrange(2000))
        if len(generations[0]) >= 150:
            generations[:] = [{}, generations[0]]

    return call


@clean
def products_of_twelve_by_twelve(random):
    held = {}

    @slow(0.006)
    def call():
        pair = random.randrange(12), random.randrange(12)
        if pair not in held:
            held[pair] = [random.random() for _ in range(100)]

    return call


@clean
def a_thread_with_a_ring(random):
    work, latest = queue.Queue(), []

    def run():
        while True:
            latest.append(bytes(work.get()))
            del latest[:-200]
            work.task_done()

    threading.Thread(target=run, daemon=True).start()

    @slow(0.003)
    def call():
        work.put(random.randrange(5000))
        work.join()

    return call


@clean
def latencies_counted_by_milliseconds(random):
    counts = collections.Counter()

    @slow(0.004)
    def call():
        for _ in range(10):
            counts[int(random.expovariate(1 / 8))] += 1

    return call


@clean
def a_trie_of_four_hundred_words(random):
    letters = string.ascii_lowercase
    words = ["".join(random.choice(letters) for _ in range(random.randrange(3, 9))) for _ in range(400)]
    root = {}

    @slow(0.003)
    def call():
        for word in random.choices(words, k=5):
            node = root
            for letter in word:
                node = node.setdefault(letter, {})

    return call


@clean
def sixty_functions_made_on_first_use(random):
    made = {}

    @slow(0.01)
    def call():
        number = random.randrange(60)
        if number not in made:
            names = {}
            exec(f"def f(a, b=1):\n    return [a * {number} + b for b in range(10)]", names)
            made[number] = names["f"]
        made[number](3)

    return call


@clean
def connections_opened_on_demand(random):
    free = []

    def call():
        wanted = random.randrange(1, 6)
        taken = [
            free.pop() if free else sqlite3.connect(":memory:", check_same_thread=False)
            for _ in range(wanted)
        ]
        for connection in taken:
            connection.execute("select ?", ("x" * random.randrange(1000),)).fetchall()
        free.extend(taken)
        time.sleep(0.005)

    return call


@clean
def an_undo_history_of_one_hundred(random):
    history = collections.deque()

    @slow(0.005)
    def call():
        history.append("x" * random.randrange(20_000))
        if len(history) > 100:
            history.popleft()

    return call


@clean
def edges_rebuilt_every_200_calls(random):
    edges, numbers = collections.defaultdict(set), itertools.count(1)

    @slow(0.004)
    def call():
        edges[random.randrange(50)].add(random.randrange(10**6))
        if next(numbers) % 200 == 0:
            kept = {node: set(itertools.islice(near, 2)) for node, near in edges.items()}
            edges.clear()
            edges.update(kept)

    return call


@clean
def threads_that_end_when_idle(random):
    idle = []

    def work(wake):
        while wake.wait(0.3):
            wake.clear()
            bytes(100_000)

    def call():
        for _ in range(random.randrange(1, 4)):
            idle[:] = [each for each in idle if each[0].is_alive()]
            if len(idle) < 4:
                wake = threading.Event()
                thread = threading.Thread(target=work, args=(wake,), daemon=True)
                thread.start()
                idle.append((thread, wake))
            random.choice(idle)[1].set()
        time.sleep(0.005)

    return call


@leaking(200)
def values_whose_keys_expire(random):
    times, values = {}, {}

    @slow(0.005)
    def call():
        now = time.monotonic()
        times[now] = now
        values[now] = bytes(random.randrange(600))
        for key in [key for key in times if key < now - 0.5]:
            del times[key]

    return call


@leaking(30)
def cleaned_but_for_the_errors(random):
    held, numbers = {}, itertools.count(1)

    @slow(0.004)
    def call():
        number = next(numbers)
        kind = "error" if random.random() < 0.06 else "result"
        held[kind, number] = "x" * random.randrange(1500)
        if number % 200 == 0:
            for key in [key for key in held if key[0] == "result"]:
                del held[key]

    return call


@leaking(700)
def one_call_in_forty_keeps_30_kb(random):
    kept, numbers = [], itertools.count(1)

    @slow(0.004)
    def call():
        if next(numbers) % 40 == 0:
            kept.append(bytes(30_000 + random.randrange(100)))

    return call


@leaking(60)
def seventy_bytes_beside_a_saw_tooth(random):
    batch, kept = [], []

    @slow(0.003)
    def call():
        batch.append(bytes(random.randrange(2000)))
        kept.append(bytes(30))
        if len(batch) == 100:
            batch.clear()

    return call


@leaking(300)
def a_thread_that_keeps_each_result(random):
    work, kept = queue.Queue(), []

    def run():
        while True:
            kept.append(bytes(work.get()))
            work.task_done()

    threading.Thread(target=run, daemon=True).start()

    @slow(0.003)
    def call():
        work.put(random.randrange(700))
        work.join()

    return call


@leaking(0)
def a_descriptor_every_twentieth_call(random):
    numbers = itertools.count(1)

    @slow(0.004)
    def call():
        if next(numbers) % 20 == 0:
            os.dup(1)

    return call


@leaking(0)
def a_thread_every_thirtieth_call(random):
    numbers, never = itertools.count(1), threading.Event()

    @slow(0.005)
    def call():
        if next(numbers) % 30 == 0:
            threading.Thread(target=never.wait, daemon=True).start()

    return call


@leaking(150)
def a_function_wrapped_again(random):
    def answer():
        return 1

    held = [answer]

    @slow(0.004)
    def call():
        inner, number = held[0], random.randrange(100)

        @functools.wraps(inner)
        def outer():
            return number or inner()

        held[0] = outer

    return call


@leaking(100)
def nodes_that_their_root_knows(random):
    class Node:
        def __init__(self, parent=None):
            self.children, self.parent = [], weakref.ref(parent) if parent else None
            if parent:
                parent.children.append(self)

    root = Node()
    return slow(0.004)(lambda: Node(random.choice(root.children[-3:] or [root])))


@leaking(160)
def an_array_made_longer(random):
    import numpy

    held = [numpy.zeros(10)]

    @slow(0.004)
    def call():
        held[0] = numpy.append(held[0], [random.random()] * 25)

    return call


@leaking(60)
def text_that_is_the_same_kept_once(random):
    same = {}

    @slow(0.003)
    def call():
        text = f"request {random.random()}"
        same.setdefault(text, text)

    return call


@leaking(200)
def names_in_a_namespace_of_exec(random):
    names, numbers = {}, itertools.count()

    @slow(0.004)
    def call():
        exec(f"def handler_{next(numbers)}(): return {random.randrange(100)}", names)

    return call


@leaking(10)
def a_pattern_made_longer(random):
    words, held = [], []

    @slow(0.003)
    def call():
        words.append(f"w{random.randrange(10**6)}")
        held[:] = [" ".join(words), re.escape(words[-1])]

    return call
