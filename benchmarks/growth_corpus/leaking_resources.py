"""Descriptors, mappings, threads and children that pile up."""

import itertools
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading

from growth_corpus.case import leaking


@leaking(4096)
def mappings_of_a_page(random):
    held = []
    return lambda: held.append(mmap.mmap(-1, 4096))


@leaking(1 << 20)
def mappings_of_a_mebibyte(random):
    held = []
    return lambda: held.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


@leaking(4096)
def mappings_of_a_file(random):
    held, file = [], tempfile.TemporaryFile()
    file.truncate(4096)
    return lambda: held.append(mmap.mmap(file.fileno(), 4096))


@leaking(0)
def descriptors(random):
    return lambda: os.open(os.devnull, os.O_RDONLY)


@leaking(0)
def descriptor_every_fifth_call(random):
    calls = itertools.count()
    return lambda: os.open(os.devnull, os.O_RDONLY) if next(calls) % 5 == 0 else None


@leaking(0)
def files_kept_open(random):
    held = []
    return lambda: held.append(open(os.devnull))


@leaking(0)
def socket_pairs(random):
    held = []
    return lambda: held.append(socket.socketpair())


@leaking(0)
def pipes(random):
    return lambda: os.pipe()


@leaking(0)
def threads_that_wait(random):
    never = threading.Event()
    return lambda: threading.Thread(target=never.wait, daemon=True).start()


@leaking(0)
def children_never_waited_for(random):
    def call():
        if os.fork() == 0:
            os._exit(0)

    return call


@leaking(0)
def children_that_sleep(random):
    held = []
    # They end with their parent: their input closes.
    return lambda: held.append(
        subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    )
