"""Clients, servers, asynchronous work, threads and processes, those that are left behind among them."""

import asyncio
import atexit
import concurrent.futures
import itertools
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from growth_corpus.case import clean, leaking


@leaking(0)
def shells_that_leave_a_daemon(random):
    def call():
        subprocess.run("sleep 60 >/dev/null 2>&1 &", shell=True, check=True)
        time.sleep(0.02)

    return call


@leaking(0)
def daemons_by_double_fork(random):
    def call():
        pid = os.fork()
        if pid == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 3)  # a pipe of ours would stay open as long
                time.sleep(60)
            os._exit(0)
        os.waitpid(pid, 0)
        time.sleep(0.02)

    return call


@clean
def shells_with_pipes(random):
    def call():
        subprocess.run("seq 20000 | sort -rn | head -5", shell=True, check=True, capture_output=True)

    return call


@clean
def short_daemons_by_double_fork(random):
    def call():
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                time.sleep(0.1)
            os._exit(0)
        os.waitpid(pid, 0)
        time.sleep(0.02)

    return call


@clean
def trio_nursery(random):
    import trio

    async def work(n):
        await trio.sleep(0.001)
        return bytes(n)

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(random.randrange(30)):
                nursery.start_soon(work, random.randrange(10_000))

    return lambda: trio.run(main)


@leaking(100)
def trio_channel_never_received(random):
    import trio

    channels = []

    async def main():
        send, receive = trio.open_memory_channel(10**9)
        channels.append((send, receive))
        for _ in range(random.randrange(1, 20)):
            send.send_nowait("x" * 50)
        await trio.sleep(0.005)

    return lambda: trio.run(main)


@clean
def anyio_worker_threads(random):
    import anyio
    import anyio.to_thread

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(random.randrange(1, 8)):
                group.start_soon(anyio.to_thread.run_sync, bytes, 100_000)

    return lambda: anyio.run(main)


def _aiohttp_server():
    from aiohttp import web

    loop, ready, port = asyncio.new_event_loop(), threading.Event(), []

    async def answer(request):
        body = await request.read()
        return web.json_response({"size": len(body), "text": "x" * (len(body) % 5000)})

    async def start():
        app = web.Application()
        app.router.add_post("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.append(runner.addresses[0][1])
        ready.set()

    def run():
        loop.run_until_complete(start())
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()
    ready.wait()
    return port[0]


@clean
def aiohttp_client_and_server(random):
    import aiohttp

    port = _aiohttp_server()

    async def main():
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{port}/", data=b"x" * random.randrange(20_000)) as response,
        ):
            return await response.json()

    return lambda: asyncio.run(main())


@leaking(500)
def aiohttp_sessions_kept(random):
    import aiohttp

    kept, loop = [], asyncio.new_event_loop()

    async def main():
        kept.append(aiohttp.ClientSession())
        await asyncio.sleep(0.003)

    return lambda: loop.run_until_complete(main())


@clean
def asyncio_queue_with_workers(random):
    async def main():
        q = asyncio.Queue(10)

        async def worker():
            while True:
                item = await q.get()
                json.dumps([item] * 100)
                q.task_done()

        workers = [asyncio.create_task(worker()) for _ in range(4)]
        for n in range(random.randrange(200)):
            await q.put(n)
        await q.join()
        for w in workers:
            w.cancel()

    return lambda: asyncio.run(main())


@clean
def subprocesses_by_asyncio(random):
    async def main():
        p = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        await p.communicate(b"x" * random.randrange(100_000))

    return lambda: asyncio.run(main())


@leaking(100)
def done_callbacks_that_hold_results(random):
    loop = asyncio.new_event_loop()
    gate = loop.create_future()

    async def main():
        async def wait(data):
            await asyncio.shield(gate)
            return data

        t = loop.create_task(wait(bytes(random.randrange(500))))
        await asyncio.sleep(0.002)
        gate.add_done_callback(lambda _, t=t: t.cancel())

    return lambda: loop.run_until_complete(main())


@clean
def thread_locals_of_short_threads(random):
    local = threading.local()

    def work(n):
        local.buffer = bytearray(n)

    def call():
        threads = [
            threading.Thread(target=work, args=(random.randrange(100_000),))
            for _ in range(random.randrange(1, 8))
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    return call


@leaking(100)
def state_by_thread_number(random):
    states, numbers = {}, itertools.count()

    def work():
        states[next(numbers)] = {"name": threading.current_thread().name, "data": bytes(100)}

    def call():
        t = threading.Thread(target=work)
        t.start()
        t.join()
        time.sleep(0.003)

    return call


@leaking(200)
def futures_never_dropped(random):
    pool, kept = concurrent.futures.ThreadPoolExecutor(3), []

    def call():
        f = pool.submit(bytes, random.randrange(500))
        f.result()
        kept.append(f)
        time.sleep(0.004)

    return call


def _child_main(conn, how):
    kept = []
    while True:
        n = conn.recv()
        data = b"x" * n
        if how == "keep":
            kept.append(data)
        elif how == "cache":
            kept.append(data)
            del kept[:-100]
        conn.send(len(data))


def _child(how):
    one, other = multiprocessing.Pipe()
    multiprocessing.get_context("fork").Process(target=_child_main, args=(other, how), daemon=True).start()
    return one


def _asking(conn, random):
    def call():
        conn.send(random.randrange(5000, 20_000))
        conn.recv()
        time.sleep(0.01)

    return call


@leaking(5000)
def a_child_by_multiprocessing_that_grows(random):
    return _asking(_child("keep"), random)


@clean
def a_child_by_multiprocessing_with_a_ring(random):
    return _asking(_child("cache"), random)


@clean
def process_pool_with_shared_arrays(random):
    from multiprocessing import shared_memory

    pool = concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork"))

    def call():
        s = shared_memory.SharedMemory(create=True, size=random.randrange(100, 2_000_000))
        s.buf[:100] = bytes(100)
        pool.submit(len, "abc").result()
        s.close()
        s.unlink()

    return call


@leaking(20_000)
def spool_files_left_in_shared_memory_now_and_then(random):
    folder = tempfile.mkdtemp(dir="/dev/shm")
    atexit.register(shutil.rmtree, folder)
    numbers = itertools.count()

    def call():
        path = os.path.join(folder, str(next(numbers)))
        Path(path).write_bytes(bytes(200_000))
        if random.random() < 0.9:
            os.unlink(path)
        time.sleep(0.005)

    return call


@clean
def socket_server_with_threads(random):
    import socketserver

    class H(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(self.request.recv(100_000))

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), H)
    threading.Thread(target=server.serve_forever, daemon=True, args=(0.01,)).start()

    def call():
        with socket.create_connection(server.server_address) as s:
            s.sendall(b"x" * random.randrange(1, 5000))
            s.recv(10_000)

    return call


@leaking(2000)
def ten_requests_then_one_kept_body(random):
    import httpx

    kept = []

    def handler(request):
        return httpx.Response(200, content=b"x" * random.randrange(10_000, 30_000))

    client = httpx.Client(transport=httpx.MockTransport(handler))
    numbers = itertools.count()

    def call():
        r = client.get("http://x/")
        if next(numbers) % 10 == 0:
            kept.append(r)

    return call
