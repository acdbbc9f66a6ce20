"""A link that passes everything on, later: stands between a Dask client or worker and its scheduler."""

import asyncio
import threading


class SlowLink:
    def __init__(self, address, delay_s):
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._delay_s = delay_s
        self._writers = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_):
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self):
        """Breaks all connections and takes no new ones."""
        self._run(self._cut())

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _cut(self):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader, writer):
        there, onwards = await asyncio.open_connection(*self._target)
        self._writers += [writer, onwards]
        await asyncio.gather(self._pass_on(reader, onwards), self._pass_on(there, writer))

    async def _pass_on(self, reader, writer):
        try:
            while data := await reader.read(2**16):
                self._loop.call_later(self._delay_s, writer.write, data)
        except OSError:
            pass  # cut, or the other side ended
        self._loop.call_later(self._delay_s, writer.close)
