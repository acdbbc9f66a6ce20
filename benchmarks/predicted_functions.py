"""Ten functions whose memory follows two or three predictors, and makers of their inputs, for the benchmark of predictors.

Each keeps what it read until it returns. A maker writes one input into a folder and returns the item; the predictors are
what a user would count: a header, a trailer, lines, words.
"""

import gzip
import json
import struct
from pathlib import Path

WORDS = "budget memory parallel file process lease estimate ledger retry peak".split()


def make_table(folder, source):
    rows, columns = source.randint(5_000, 40_000), source.randint(4, 40)
    path = folder / "table.csv"
    with path.open("w") as stream:
        stream.write(",".join(f"c{each}" for each in range(columns)) + "\n")
        width = source.randint(1, 6)
        line = ",".join("7" * width for _ in range(columns)) + "\n"
        stream.writelines(line for _ in range(rows))
    return path


def read_table(path):
    import pandas as pd

    return len(pd.read_csv(path))


def rows_of(path):
    return Path(path).read_bytes().count(b"\n") - 1


def columns_of(path):
    with Path(path).open() as stream:
        return stream.readline().count(",") + 1


def make_image(folder, source):
    width, height = source.randint(300, 3000), source.randint(300, 3000)
    path = folder / "image.ppm"
    path.write_bytes(b"P6 %d %d 255\n" % (width, height) + bytes(3 * width * height))
    return path


def image_header(path):
    with Path(path).open("rb") as stream:
        return [int(part) for part in stream.readline().split()[1:3]]


def decode_image(path):
    import numpy as np

    width, height = image_header(path)
    pixels = np.frombuffer(Path(path).read_bytes()[-3 * width * height :], dtype=np.uint8)
    return float((pixels.reshape(height, width, 3).astype(np.float32) + 1).mean())


def make_gzip(folder, source):
    path = folder / "document.gz"
    kind = source.choice([b"a", b"ab cd ", bytes(range(256))])
    body = kind * (source.randint(1_000_000, 12_000_000) // len(kind))
    noise = source.randbytes(source.randint(10_000, 4_000_000))
    path.write_bytes(gzip.compress(body + noise, 1))
    return path


def unpacked_bytes(path):
    return struct.unpack("<I", Path(path).read_bytes()[-4:])[0]


def unpack(path):
    text = gzip.decompress(Path(path).read_bytes())
    return len(text), len(text.upper())


def make_points(folder, source):
    path = folder / "points.txt"
    count = source.randint(200, 2200)
    padding = " " * source.randint(0, 60)
    path.write_text("".join(f"{source.random()}{padding}\n" for _ in range(count)))
    return path


def lines_of(path):
    return Path(path).read_bytes().count(b"\n")


def all_distances(path):
    import numpy as np

    points = np.array([float(line) for line in Path(path).read_text().splitlines()])
    return float(np.abs(points[:, None] - points[None, :]).max())


def make_text(folder, source):
    path = folder / "text.txt"
    length = source.choice([2, 8, 30])
    count = source.randint(20_000, 300_000)
    path.write_text(" ".join(f"{number:0{length}d}" for number in range(count)))
    return path


def words_of(path):
    return len(Path(path).read_text().split())


def tokenize(path):
    return len([(word, number) for number, word in enumerate(Path(path).read_text().split())])


def make_pages(folder, source):
    path = folder / f"pages-{source.choice([50, 75, 100, 150])}.txt"
    path.write_text("\f".join("page" for _ in range(source.randint(2, 40))))
    return path, int(path.stem.rpartition("-")[2])


def pages_of(item):
    return item[0].read_text().count("\f") + 1


def pixels_of(item):
    return (8 * item[1]) * (11 * item[1])


def render_pages(item):
    return sum(len(page) for page in [bytearray(pixels_of(item)) for _ in range(pages_of(item))])


def make_audio(folder, source):
    path = folder / "audio.raw"
    channels, frames = source.choice([1, 2, 6, 8]), source.randint(100_000, 900_000)
    path.write_bytes(struct.pack("<II", channels, frames) + bytes(2 * channels * frames))
    return path


def channels_of(path):
    return struct.unpack("<II", Path(path).read_bytes()[:8])[0]


def frames_of(path):
    return struct.unpack("<II", Path(path).read_bytes()[:8])[1]


def load_audio(path):
    import numpy as np

    samples = np.frombuffer(Path(path).read_bytes()[8:], dtype=np.int16).astype(np.float64)
    return float((samples / 32768).sum())


def make_records(folder, source):
    path = folder / "records.json"
    fields = {f"field{number}": "x" * source.randint(1, 40) for number in range(source.randint(2, 25))}
    path.write_text(json.dumps([fields] * source.randint(2_000, 30_000)))
    return path


def records_of(path):
    return Path(path).read_bytes().count(b"{")


def load_records(path):
    return len(json.loads(Path(path).read_bytes()))


def make_join(folder, source):
    left, right = folder / "left.txt", folder / "right.txt"
    for path in (left, right):
        path.write_text("\n".join(f"key{number}" for number in range(source.randint(5_000, 200_000))))
    return left, right


def left_lines(item):
    return lines_of(item[0])


def right_lines(item):
    return lines_of(item[1])


def hash_join(item):
    left, right = item
    table = dict.fromkeys(left.read_text().split("\n"), 1.5)
    return sum(table.get(key, 0) for key in right.read_text().split("\n"))


def make_grid(folder, source):
    return source.randint(20, 200), source.randint(20, 200), source.randint(20, 200)


def solve_grid(item):
    import numpy as np

    grid = np.ones(item)
    return float((grid + 1.0).sum())


def first(item):
    return item[0]


def second(item):
    return item[1]


def third(item):
    return item[2]


def width_of(path):
    return image_header(path)[0]


def height_of(path):
    return image_header(path)[1]


def noise(item):
    """Says nothing of what an item takes."""
    return len(str(item)) % 7


FUNCTIONS = {
    "table, rows × columns": (
        read_table,
        make_table,
        {"bytes": None, "rows": rows_of, "columns": columns_of},
    ),
    "image, width × height": (decode_image, make_image, {"width": width_of, "height": height_of}),
    "gzip, size in its trailer": (unpack, make_gzip, {"bytes": None, "unpacked": unpacked_bytes}),
    "distances, n²": (all_distances, make_points, {"bytes": None, "lines": lines_of, "noise": noise}),
    "words": (tokenize, make_text, {"bytes": None, "words": words_of}),
    "pages × resolution": (render_pages, make_pages, {"pages": pages_of, "pixels": pixels_of}),
    "audio, channels × length": (load_audio, make_audio, {"channels": channels_of, "frames": frames_of}),
    "records and bytes": (load_records, make_records, {"bytes": None, "records": records_of}),
    "join of two files": (hash_join, make_join, {"bytes": None, "left": left_lines, "right": right_lines}),
    "grid, x × y × z": (solve_grid, make_grid, {"x": first, "y": second, "z": third}),
}
