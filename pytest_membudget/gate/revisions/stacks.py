"""Which call stacks hold more at the peak of one revision than of the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pytest_membudget.measurement.fresh.memray_run import Frame, RecordedStack
from pytest_membudget.records.comparison import FlameFrame, StackComparison, StackGrowth, StackKind
from pytest_membudget.units import format_size

MOST_STACKS = 10
_MOST_FRAMES = 12
#: A stack whose bytes differ by less than this share of the largest difference is not worth a line.
_LEAST_SHARE_SHOWN = 0.02
#: Stacks that show less than this share of the measured growth do not explain it.
_LEAST_EXPLAINED = 0.1
_WHY_NOT = "more of what was asked for is touched, or memory comes from elsewhere than the heap; these are the largest stacks"
#: A branch of the flame graph that held less than this share of the whole cannot be seen.
_LEAST_SHARE = 0.002
#: The functions of pytest and unittest that call the test.
_CALLS_THE_TEST = frozenset({"pytest_pyfunc_call", "_callTestMethod", "runtest"})
#: Python before 3.12 gives these a frame; a reader looks for the function around them.
_UNNAMED = frozenset({"<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>", "<lambda>"})
_RUNNER = ("/_pytest/", "/pluggy/")
_MACHINERY = ("importlib._bootstrap", "<frozen importlib")


class _Key(NamedTuple):
    """A stack without its line numbers, which any edit above moves: project frames from the innermost outwards."""

    process: str
    frames: tuple[tuple[str, str], ...]


class _Held(NamedTuple):
    stack: RecordedStack
    own: Sequence[Frame]
    inner: Sequence[Frame]


def compare_stacks(
    base: Iterable[RecordedStack],
    head: Iterable[RecordedStack],
    base_top: Path,
    head_top: Path,
    *,
    grew_bytes: int,
) -> StackComparison:
    """Both peaks by stack, the largest growth first.

    Files are named from the tops of the checkouts. `grew_bytes` is the growth that was measured: where the heap shows next to
    nothing of it, the largest stacks of the head are named instead, with a caveat.
    """
    old, new = _by_key(base, base_top), _by_key(head, head_top)
    grown = [_growth(key, old.get(key, ()), new.get(key, ())) for key in {**new, **old}]
    grown.sort(key=lambda each: (-each.grew_bytes, each.function))
    largest = max((each.grew_bytes for each in grown), default=0)
    if largest < _LEAST_EXPLAINED * grew_bytes:
        grown.sort(key=lambda each: (-each.head_bytes, each.function))
        caveat = f"the heap grew by {format_size(max(0, largest))} at most in one stack, memory by {format_size(grew_bytes)}: {_WHY_NOT}"
        return StackComparison(stacks=tuple(grown[:MOST_STACKS]), flame=_flame(old, new), caveats=(caveat,))
    shown = [each for each in grown if each.grew_bytes > _LEAST_SHARE_SHOWN * largest]
    return StackComparison(stacks=tuple(shown[:MOST_STACKS]), flame=_flame(old, new))


def _by_key(stacks: Iterable[RecordedStack], top: Path) -> dict[_Key, list[_Held]]:
    found: defaultdict[_Key, list[_Held]] = defaultdict(list)
    for stack in stacks:
        if _is_of_the_runner(stack):
            continue
        frames = [_named_from(frame, top) for frame in _below_the_test(stack.frames)]
        depth = next(
            (n for n, frame in enumerate(frames) if _is_own(frame[1]) and frame[0] not in _UNNAMED), 0
        )
        own, inner = frames[depth:] or frames, frames[:depth]
        key = _Key(_program(stack.process, top), tuple((function, file) for function, file, _ in own))
        found[key].append(_Held(stack, own, inner))
    return dict(found)


def _is_of_the_runner(stack: RecordedStack) -> bool:
    """Whether pytest itself holds it, outside the test. Threads that the test started have no frame of either."""
    if stack.process or any(function in _CALLS_THE_TEST for function, _, _ in stack.frames):
        return False
    return any(part in file for _, file, _ in stack.frames for part in _RUNNER)


def _below_the_test(frames: Sequence[Frame]) -> Sequence[Frame]:
    """The stack up to the test's own function; all of it in a child, and where there is no such function."""
    end = next((n for n, frame in enumerate(frames) if frame[0] in _CALLS_THE_TEST), len(frames))
    return frames[:end] or frames


def _named_from(frame: Frame, top: Path) -> Frame:
    function, file, line = frame
    prefix = f"{top}/"
    if file.startswith(prefix):
        return function, file[len(prefix) :], line
    for folder in ("site-packages/", "dist-packages/"):
        if folder in file:
            return function, f"…/{file.rpartition(folder)[2]}", line
    return frame


def _is_own(file: str) -> bool:
    """Whether a file belongs to the project: named from the top of its checkout."""
    return not file.startswith(("/", "…", "<"))


def _program(command_line: str, top: Path) -> str:
    """A child by what it runs, without the names of temporary folders, which differ on both sides."""
    return command_line.replace(f"{top}/", "")


def _growth(key: _Key, old: Sequence[_Held], new: Sequence[_Held]) -> StackGrowth:
    shown = max(new or old, key=lambda held: held.stack.size_bytes)
    function, file, line = shown.own[0] if shown.own else ("<unknown>", "", 0)
    kind: StackKind = "child" if key.process else "native" if shown.stack.native else "python"
    return StackGrowth(
        function=function,
        file=file,
        line=line,
        kind=kind,
        base_bytes=_sum(old),
        head_bytes=_sum(new),
        stack=tuple(_text(frame) for frame in shown.own[:_MOST_FRAMES]),
        inner=(*shown.stack.native[:3], *(_text(frame) for frame in shown.inner[:_MOST_FRAMES])),
        process=key.process,
    )


def _sum(held: Sequence[_Held]) -> int:
    return sum(each.stack.size_bytes for each in held)


def _text(frame: Frame) -> str:
    function, file, line = frame
    return f"{function} ({file}:{line})"


class _Node:
    """A frame of the graph while it is put together."""

    def __init__(self) -> None:
        self.sizes = [0, 0]
        self.children: defaultdict[str, _Node] = defaultdict(_Node)

    def frozen(self, name: str, least_bytes: float) -> FlameFrame:
        children = [
            child.frozen(text, least_bytes)
            for text, child in sorted(self.children.items(), key=lambda item: -max(item[1].sizes))
            if max(child.sizes) >= least_bytes
        ]
        return FlameFrame(
            name=name, base_bytes=self.sizes[0], head_bytes=self.sizes[1], children=tuple(children)
        )


def _flame(old: dict[_Key, list[_Held]], new: dict[_Key, list[_Held]]) -> FlameFrame | None:
    root = _Node()
    for side, stacks in enumerate((old, new)):
        for key, holders in stacks.items():
            for held in holders:
                names = [f"child: {key.process}"] if key.process else []
                names += [
                    _plain(frame) for frame in reversed([*held.inner, *held.own]) if not _is_machinery(frame)
                ]
                names += reversed(held.stack.native[:3])
                _add(root, names, side, held.stack.size_bytes)
    if not max(root.sizes):
        return None
    return root.frozen("all", _LEAST_SHARE * max(root.sizes))


def _add(root: _Node, names: Sequence[str], side: int, size_bytes: int) -> None:
    node = root
    node.sizes[side] += size_bytes
    for name in names:
        node = node.children[name]
        node.sizes[side] += size_bytes


def _plain(frame: Frame) -> str:
    function, file, _ = frame
    return f"{function} ({file})"


def _is_machinery(frame: Frame) -> bool:
    return any(part in frame[1] for part in _MACHINERY)
