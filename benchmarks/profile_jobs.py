"""What the tasks of the benchmark of profiles do. Workers import this and not the benchmark, whose imports they would keep."""

import mmap
import time

CHUNK_BYTES = 1_000_000

#: what a task holds at each tenth of its time, as shares of its peak
SHAPES = {
    "ramp": [0.1 * (place + 1) for place in range(10)],
    "late peak": [0.1] * 7 + [1.0] * 3,
    "early peak": [1.0] * 3 + [0.1] * 7,
    "flat": [1.0] * 10,
}


def hold(item):
    """Holds what its shape says for its time; when it held how much, `[(seconds, bytes), …]`."""
    shape, peak_bytes, duration_s = item
    began_s = time.monotonic()
    chunks: list[mmap.mmap] = []
    spans = []
    for place, share in enumerate(SHAPES[shape]):
        wanted = int(share * peak_bytes + 1) // CHUNK_BYTES  # never more than its share
        if len(chunks) < wanted:
            spans.append((time.monotonic(), wanted * CHUNK_BYTES))
        while len(chunks) < wanted:
            chunk = mmap.mmap(-1, CHUNK_BYTES)
            chunk.write(b"\x01" * CHUNK_BYTES)
            chunks.append(chunk)
        while len(chunks) > wanted:
            chunks.pop().close()
        spans.append((time.monotonic(), wanted * CHUNK_BYTES))
        time.sleep(max(0.0, began_s + (place + 1) / 10 * duration_s - time.monotonic()))
    for chunk in chunks:
        chunk.close()
    spans.append((time.monotonic(), 0))
    return spans
