"""tests/README.md names every folder and file of tests once."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_the_table_names_every_folder_and_file():
    named: set[str] = set()
    for cell in re.findall(
        r"^\| (`.*?) \|", (HERE / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    ):
        first, *others = re.findall(r"`([\w./]+)`", cell)
        parent = first.rpartition("/")[0]
        named |= {first, *(f"{parent}/{each}" if parent and "/" not in each else each for each in others)}
    files = [path.relative_to(HERE) for path in HERE.rglob("test_*.py")]
    for path in files:
        place = path.name if len(path.parts) == 1 else path.parent.as_posix()
        assert place in named or path.name == Path(__file__).name, place
