"""Does what a document tells its reader to do, in order, in the present folder: `python document_runner.py README.md`.

A block below a line that is nothing but a file's name, such as `parsers.py`, is written to that file, so that readers
see the name wherever the document is shown. Any other python block is run in
one namespace with the ones before it. In a console block the lines that start with `$ ` are run by bash, and what they
print must be what the document shows: `...` stands for anything, figures may differ, and so may spacing. Runs may agree in
one figure where the document shows two with `to` between them. A command that fails must be followed by `$ echo $?`. Other
blocks are only read. What an executor says where the machine is short of memory is left out, and what a figure loses to shared
memory that other programs made meanwhile.
"""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^ *```(?P<language>\w*) *(?P<rest>.*)$")
NAME = re.compile(r"^ *`(?P<name>[\w./-]+\.\w+)` *$")
FIGURE = re.compile(r"[-+~≥≤<>]?\d[\d,.:]*(?: ?(?:[kKMGT]i?B|B|µs|ms|s|min|%)(?!\w))?")
PRESSURE = re.compile(r"^memory pressure: .*\n", re.MULTILINE)
SHARED = re.compile(r"^.*up to .* of shared memory or of files in tmpfs came meanwhile.*\n", re.MULTILINE)
BETWEEN = re.compile(r"peak at least (.+?), at most .+?,")
OTHER_PLUGINS = "anyio asyncio benchmark hypothesispytest memray platformdirs pytest_cov rerunfailures timeout xdist xdist.looponfail"
"""Of this environment; no document is about them, and each start of pytest would import them."""
RANGE = re.compile(r"#( to #)+")
RULE = re.compile(r"[-=─━═]{3,}")


class Block(NamedTuple):
    line: int
    language: str
    title: str | None
    text: str


class Command(NamedTuple):
    text: str
    shown: list[str]


def blocks(document: str) -> Iterator[Block]:
    """The fenced blocks of a document; `line` is where their text starts."""
    opened: Block | None = None
    text: list[str] = []
    above = ""
    for number, line in enumerate(document.splitlines(), 1):
        fence = FENCE.match(line)
        if opened is None and fence:
            if fence["rest"]:
                raise SystemExit(
                    f"line {number}: write the file's name in backticks above the block, where it is seen"
                )
            name = NAME.match(above)
            opened, text = Block(number + 1, fence["language"], name["name"] if name else None, ""), []
        elif opened is not None and line.strip() == "```":
            yield opened._replace(text=textwrap.dedent("\n".join(text)) + "\n")
            opened = None
        elif opened is not None:
            text.append(line)
        if opened is None and line.strip():
            above = line
    if opened is not None:
        raise SystemExit(f"the block that starts at line {opened.line} does not end")


def commands(text: str) -> list[Command]:
    """The commands of a console block, each with the lines shown under it; a backslash joins lines."""
    found: list[Command] = []
    for line in text.rstrip("\n").splitlines():
        if line.startswith("$ "):
            found.append(Command(line.removeprefix("$ "), []))
        elif found and found[-1].text.endswith("\\"):
            found[-1] = Command(f"{found[-1].text[:-1]}{line.strip()}", [])
        elif found:
            found[-1].shown.append(line)
        else:
            raise SystemExit(f"a console block starts with {line!r}, not with a command")
    return found


def undisturbed(printed: str) -> str:
    """What a command printed, as if this machine had enough memory and no other program shared any meanwhile."""
    printed = PRESSURE.sub("", printed)
    if SHARED.search(printed):
        printed = BETWEEN.sub(r"peak \1 (exact, by the kernel),", SHARED.sub("", printed))
    return printed


def as_shown(printed: str, shown: list[str]) -> bool:
    """Whether `printed` is what the document shows; a command under which nothing is shown may print anything."""
    if not shown:
        return True
    lines = [re.escape(loosened(line)).replace(r"\.\.\.", ".*") for line in shown]
    pattern = "\n".join(line if line != ".*" else "(?s:.*)" for line in lines)
    # A line of dots alone may also stand for no line at all.
    pattern = pattern.replace("\n(?s:.*)", "(?s:.*)").replace("(?s:.*)\n", "(?s:.*)")
    text = "\n".join(map(loosened, printed.strip("\n").splitlines()))
    return re.fullmatch(pattern.strip("\n"), text) is not None


def loosened(line: str) -> str:
    """A line without what may differ from machine to machine."""
    figures = RANGE.sub("#", FIGURE.sub("#", line.replace("...", "\0")))
    return re.sub(r"\s+", " ", RULE.sub("---", figures)).replace("\0", "...").strip()


def run_commands(block: Block) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "80",
        "NO_COLOR": "1",
        # Other plugins speak up at the start of pytest; what they say is not the document's.
        "PYTHONWARNINGS": "ignore:The configuration option",
        "PYTEST_ADDOPTS": " ".join(f"-p no:{name}" for name in OTHER_PLUGINS.split()),
    }
    status = 0
    listed = commands(block.text)
    for command, following in zip(listed, [*listed[1:], None], strict=True):
        done = subprocess.run(
            ["bash", "-c", f"(exit {status}); {command.text}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        status = done.returncode
        if not as_shown(undisturbed(done.stdout), command.shown):
            shown = "\n".join(command.shown)
            raise SystemExit(f"$ {command.text}\nprinted\n{done.stdout}\nbut the document shows\n{shown}")
        if status and (following is None or following.text != "echo $?"):
            raise SystemExit(
                f"$ {command.text}\nended with {status} and no `$ echo $?` after it:\n{done.stdout}"
            )


def run_document(path: Path) -> None:
    namespace = {"__name__": "document"}
    sys.path.insert(0, str(Path.cwd()))
    for block in blocks(path.read_text(encoding="utf-8")):
        print(f"{path.name}:{block.line} {block.language} {block.title or ''}", flush=True)
        if block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            # Blank lines put the document's own line numbers into tracebacks.
            exec(compile("\n" * (block.line - 1) + block.text, str(path), "exec"), namespace)
        elif block.language == "console":
            run_commands(block)


if __name__ == "__main__":
    run_document(Path(sys.argv[1]))
