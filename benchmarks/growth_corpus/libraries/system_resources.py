"""Memory that the kernel or another process holds: shared memory of every kind, mappings, children, threads."""

import concurrent.futures
import ctypes
import json
import mmap
import multiprocessing
import multiprocessing.managers
import os
import queue
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib

from growth_corpus.case import clean, leaking, records, slow

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.shmat.restype, _LIBC.shmat.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
_LIBC.shmdt.argtypes = [ctypes.c_void_p]
_IPC_RMID = 0

_SERVER = """
import sys
kept = []
for line in sys.stdin:
    size = int(line)
    {action}
    print(size, flush=True)
"""


def _server(action):
    return subprocess.Popen(
        [sys.executable, "-c", _SERVER.format(action=action)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _ask(server, size):
    server.stdin.write(f"{size}\n")
    server.stdin.flush()
    server.stdout.readline()


def _segment(size):
    number = _LIBC.shmget(0, size, 0o1600)
    assert number >= 0
    address = _LIBC.shmat(number, None, 0)
    ctypes.memset(address, 1, size)
    _LIBC.shmdt(address)
    return number


@clean
def segments_of_system_v_removed(random):
    def call():
        _LIBC.shmctl(_segment(random.randrange(4096, 500_000)), _IPC_RMID, None)
        time.sleep(0.005)

    return call


@leaking(100_000)
def segments_of_system_v_left(_random):
    import atexit

    def call():
        atexit.register(_LIBC.shmctl, _segment(100_000), _IPC_RMID, None)
        time.sleep(0.01)

    return call


@clean
def memory_files_closed(random):
    def call():
        file = os.memfd_create("corpus")
        os.write(file, bytes(random.randrange(500_000)))
        os.close(file)
        time.sleep(0.005)

    return call


@leaking(50_000)
def a_memory_file_that_grows(_random):
    file = os.memfd_create("corpus")
    return slow(0.01)(lambda: os.write(file, bytes(50_000)))


@leaking(50_000)
def an_unlinked_file_in_shared_memory_that_grows(_random):
    file = tempfile.TemporaryFile(dir="/dev/shm", buffering=0)
    return slow(0.01)(lambda: file.write(bytes(50_000)))


@clean
def a_file_in_shared_memory_written_again(random):
    folder = tempfile.mkdtemp(dir="/dev/shm")
    path = os.path.join(folder, "state")

    def call():
        with open(path, "wb") as file:
            file.write(bytes(random.randrange(1_000_000)))
        time.sleep(0.005)

    return call


@leaking(20_000)
def files_left_in_a_folder_of_shared_memory(random):
    import atexit
    import shutil

    folder = tempfile.mkdtemp(dir="/dev/shm")
    atexit.register(shutil.rmtree, folder)

    def call():
        with open(os.path.join(folder, f"result{random.random()}"), "wb") as file:
            file.write(bytes(20_000))
        time.sleep(0.01)

    return call


@leaking(10_000)
def a_mapping_made_larger(_random):
    mapping = mmap.mmap(-1, 4096)

    def call():
        mapping.resize(len(mapping) + 12_288)
        time.sleep(0.01)

    return call


@leaking(4096)
def pages_of_a_memory_file_mapped(_random):
    kept = []

    def call():
        file = os.memfd_create("corpus")
        os.ftruncate(file, 8192)
        kept.append(mmap.mmap(file, 8192))
        os.close(file)
        time.sleep(0.01)

    return call


@clean
def a_file_mapped_and_read_slowly(random):
    file = tempfile.NamedTemporaryFile()
    file.write(bytes(50_000_000))
    file.flush()
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def call():
        begin = random.randrange(49_000_000)
        mapping[begin : begin + 1_000_000]
        time.sleep(0.005)

    return call


@clean
def values_shared_with_children(random):
    def call():
        array = multiprocessing.Array(
            "d", random.choice([10, 300, 2000])
        )  # each length is a type that is kept
        lock = multiprocessing.Lock()
        with lock:
            array[0] = 1.0
        time.sleep(0.005)

    return call


@leaking(1000)
def values_shared_and_kept(_random):
    kept = []
    return slow(0.01)(lambda: kept.append(multiprocessing.Array("c", 2000)))


@leaking(100_000)
def a_server_process_that_keeps_requests(random):
    server = _server("kept.append(b'x' * size)")
    return slow(0.01)(lambda: _ask(server, random.randrange(100_000, 150_000)))


@leaking(60_000)
def a_grandchild_that_keeps_requests(_random):
    code = _SERVER.format(action="kept.append(b'x' * size)")
    server = subprocess.Popen(
        ["/bin/sh", "-c", f'{sys.executable} -c "$0"; true', code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return slow(0.01)(lambda: _ask(server, 60_000))


@clean
def a_server_process_with_a_bounded_cache(random):
    server = _server("kept.append(b'x' * size); del kept[:-30]")
    return slow(0.005)(lambda: _ask(server, random.randrange(100_000)))


@clean
def a_server_process_that_forgets(random):
    server = _server("held = b'x' * size")
    return slow(0.005)(lambda: _ask(server, random.randrange(3_000_000)))


def _square(size):
    return len(bytes(size))


@clean
def workers_replaced_after_ten_tasks(random):
    pool = multiprocessing.get_context("fork").Pool(2, maxtasksperchild=10)

    def call():
        pool.map(_square, [random.randrange(100_000) for _ in range(4)])
        time.sleep(0.005)

    return call


@leaking(20_000)
def entries_in_the_process_of_a_manager(_random):
    manager = multiprocessing.managers.SyncManager()
    manager.start()
    shared, numbers = manager.dict(), iter(range(10**9))

    def call():
        shared[next(numbers)] = b"m" * 20_000
        time.sleep(0.01)

    call.manager = manager
    return call


@clean
def proxies_made_and_dropped(random):
    manager = multiprocessing.managers.SyncManager()
    manager.start()

    def call():
        manager.list(range(random.randrange(100)))
        time.sleep(0.005)

    call.manager = manager
    return call


@clean
def native_work_in_eight_threads(random):
    pool = concurrent.futures.ThreadPoolExecutor(8)

    def work(size):
        text = json.dumps(list(range(size)))
        return len(zlib.compress(text.encode()))

    def call():
        list(pool.map(work, [random.randrange(3000) for _ in range(16)]))
        time.sleep(0.003)

    return call


@clean
def forty_threads_started_when_needed(_random):
    pool = concurrent.futures.ThreadPoolExecutor(40)

    def call():
        pool.submit(time.sleep, 0.05)
        time.sleep(0.005)

    return call


@clean
def short_timers(_random):
    def call():
        threading.Timer(0.01, print, [""], {"end": ""}).start()
        time.sleep(0.008)

    return call


@leaking(0)
def timers_of_an_hour(_random):
    def call():
        timer = threading.Timer(3600, print)
        timer.daemon = True
        timer.start()
        time.sleep(0.02)

    return call


@leaking(500)
def a_queue_that_a_slow_thread_reads(_random):
    waiting = queue.Queue()

    def work():
        while True:
            waiting.get()
            time.sleep(0.03)

    threading.Thread(target=work, daemon=True).start()

    def call():
        waiting.put(bytes(1500))
        time.sleep(0.01)

    return call


@leaking(0)
def listings_of_folders_left_open(_random):
    kept = []

    def call():
        entries = os.scandir("/")
        next(entries)
        kept.append(entries)
        time.sleep(0.01)

    return call


@leaking(0)
def event_polls_kept(_random):
    kept = []
    return slow(0.01)(lambda: kept.append(select.epoll()))


@clean
def a_socket_that_is_never_read(_random):
    one, other = socket.socketpair()
    one.setblocking(False)

    def call():
        try:
            one.send(bytes(2000))
        except BlockingIOError:
            assert other
        time.sleep(0.005)

    return call


@clean
def a_file_on_the_disk_that_grows(random):
    file = tempfile.TemporaryFile()

    def call():
        file.write(random.randbytes(random.randrange(100_000)))
        time.sleep(0.005)

    return call


@leaking(200_000)
def blocks_mapped_by_a_c_library(_random):
    _LIBC.valloc.restype = ctypes.c_void_p

    def call():
        ctypes.memset(_LIBC.valloc(200_000), 1, 200_000)
        time.sleep(0.02)

    return call


@leaking(1000)
def rows_of_requests_with_their_size(random):
    kept = []

    def call():
        kept.extend(row for row in records(random) if row["id"] % 50 == 0)
        time.sleep(0.02)

    return call
