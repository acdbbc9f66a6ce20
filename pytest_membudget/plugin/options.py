"""Every option and marker, declared once: pytest's flags and the ini options are made from the same table.

A flag beats its ini option. Values stay text until the session is configured, so that a bad one is a usage error
that names where it was written. Paths given as flags start at the invocation directory, those in the ini file at
the folder of that file. Every session imports this module, so it has to stay cheap.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest

from pytest_membudget import units

if TYPE_CHECKING:
    from pytest_membudget.units import Tolerance

Kind = Literal["switch", "size", "share", "tolerance", "count", "milliseconds", "names", "path", "reports"]

MARKER_DESCRIPTIONS = (
    (
        "memory_budget(peak, total=None, retained=None, tolerance=None, isolate=False, hard=False, timeout_s=None): "
        "limit the memory of a test: fail it when "
        "its process tree rises by more than peak above its start; a size is text such as '200 MiB', bytes, a function, "
        "or 'estimate'; tolerance is how far it may rise above its baseline; isolate runs it in a fresh interpreter, hard ends it as "
        "soon as it is over; memory_budget(False) leaves the test out"
    ),
    (
        "memory_growth(per_call='0 B', timeout_s=10, fresh_fixtures=False): repeat the test and fail it when memory grows by more "
        "per call; fresh_fixtures sets fixtures of function scope up for each repetition"
    ),
    (
        "memory_scales(*names, law=None, at_most=None, predictors=None): run the test once for each scale, which it takes as memory_scale; "
        "law is 'flat' or 'linear', at_most the largest slope, such as '8 B/B'; predictors are named functions of a scale "
        "that larger scales are predicted by"
    ),
)

MARKER_NAMES = frozenset({"memory_budget", "memory_growth", "memory_scales"})
ASKING_FIXTURES = frozenset({"membudget", "memory_scale"})
"""A test that takes one of them is measured without a marker or an option."""


class Option(NamedTuple):
    """One line of the table; `switch` takes no value, `reports` an optional one, the others need one."""

    name: str
    kind: Kind
    help: str
    metavar: str = ""
    in_ini: bool = True

    @property
    def flag(self) -> str:
        """As written on the command line."""
        return f"--{self.name}"

    @property
    def ini(self) -> str:
        """As written in pyproject.toml; also pytest's name for the parsed value."""
        return self.name.replace("-", "_")


OPTIONS = (
    Option("membudget", "switch", "measure every test, marked or not"),
    Option(
        "no-membudget",
        "switch",
        "measure, judge and report nothing, whatever markers, the ini file and other options ask for",
        in_ini=False,
    ),
    Option(
        "membudget-report",
        "reports",
        "measure every test and show the tables; write PATH too when it ends in .md, .json or .html; "
        "may be given more than once",
        "PATH",
    ),
    Option("membudget-default", "size", "budget for tests without a memory_budget marker", "SIZE"),
    Option("membudget-warn", "switch", "report what is over, but fail nothing"),
    Option(
        "membudget-strict",
        "switch",
        "judge by the upper bound; inconclusive growth, baselines from another environment and stale calibrations fail",
    ),
    Option(
        "membudget-baseline",
        "path",
        "compare every test with this baseline; {python} and {platform} in the path stand for those that run, "
        "such as 3.12 and linux",
        "PATH",
    ),
    Option(
        "membudget-update-baseline",
        "switch",
        "write what was measured to the baseline",
        in_ini=False,
    ),
    Option("membudget-history", "path", "add this run to the history in this file", "PATH"),
    Option(
        "membudget-tolerance",
        "tolerance",
        "how far a test may rise above its baseline (default: 10%% + 1 MiB)",
        "TOLERANCE",
    ),
    Option(
        "membudget-samples",
        "count",
        "fresh runs of a test that exceeds its tolerance, or that a new baseline is taken of (default: 5)",
        "N",
    ),
    Option("membudget-scales", "names", "which scales to run, such as micro,small", "NAMES"),
    Option(
        "membudget-memray",
        "switch",
        "run each failing test again under memray and show what allocated the peak",
    ),
    Option("membudget-memray-dir", "path", "keep memray's captures and flame graphs in this folder", "DIR"),
    Option("membudget-suggest", "switch", "print markers that fit what was measured"),
    Option(
        "membudget-stop-at",
        "share",
        "percentage of the memory limit at which the watchdog ends a test, such as 80%% (default: off)",
        "PERCENT",
    ),
    Option(
        "membudget-interval", "milliseconds", "milliseconds between two samples of the process tree", "MS"
    ),
)


_SAMPLES = 5


class Settings(NamedTuple):
    """What the options say, typed. Sizes are bytes, shares fractions, paths absolute. `off` is `--no-membudget`."""

    measure_all: bool = False
    show_tables: bool = False
    report_paths: tuple[Path, ...] = ()
    default_bytes: int | None = None
    warn: bool = False
    strict: bool = False
    baseline: Path | None = None
    update_baseline: bool = False
    history: Path | None = None
    tolerance: Tolerance | None = None
    samples: int = _SAMPLES
    scales: tuple[str, ...] = ()
    memray: bool = False
    memray_dir: Path | None = None
    suggest: bool = False
    stop_at: float | None = None
    interval_s: float | None = None
    off: bool = False


def add_options(parser: pytest.Parser) -> None:
    """Makes flags and ini options from the table."""
    group = parser.getgroup("membudget", "membudget: memory budgets for tests")
    for option in OPTIONS:
        group.addoption(option.flag, dest=option.ini, help=option.help, **_flag_attributes(option))
        if option.in_ini:
            parser.addini(option.ini, option.help.replace("%%", "%"), type=_ini_type(option), default=None)


def read_settings(config: pytest.Config) -> Settings:
    """Every option's value: the flag's where given, else the ini file's, else the default.

    Raises:
        pytest.UsageError: a value cannot be read; names the option.
    """
    if config.getoption("no_membudget"):
        return _switched_off(config)
    value = {option.ini: _read(option, config) for option in OPTIONS}
    reports = value["membudget_report"]
    update = bool(value["membudget_update_baseline"])
    if update and value["membudget_baseline"] is None:
        raise pytest.UsageError(
            "--membudget-update-baseline has no baseline to write; name it: --membudget-baseline=memory.json"
        )
    return Settings(
        measure_all=bool(
            value["membudget"]
            or reports is not None
            or value["membudget_default"] is not None
            or value["membudget_baseline"] is not None
            or value["membudget_history"] is not None
            or value["membudget_suggest"]
            or value["membudget_stop_at"] is not None
        ),
        show_tables=reports is not None,
        report_paths=tuple(reports or ()),
        default_bytes=value["membudget_default"],
        warn=bool(value["membudget_warn"]),
        strict=bool(value["membudget_strict"]),
        baseline=value["membudget_baseline"],
        update_baseline=update,
        history=value["membudget_history"],
        tolerance=value["membudget_tolerance"],
        samples=_SAMPLES if value["membudget_samples"] is None else value["membudget_samples"],
        scales=value["membudget_scales"] or (),
        memray=bool(value["membudget_memray"] or value["membudget_memray_dir"]),
        memray_dir=value["membudget_memray_dir"],
        suggest=bool(value["membudget_suggest"]),
        stop_at=value["membudget_stop_at"],
        interval_s=value["membudget_interval"],
    )


def _switched_off(config: pytest.Config) -> Settings:
    """Nothing but which scales to run, since that decides which tests there are."""
    scales = next(_read(option, config) for option in OPTIONS if option.kind == "names")
    return Settings(scales=scales or (), off=True)


def _flag_attributes(option: Option) -> dict[str, Any]:
    if option.kind == "switch":
        return {"action": "store_true", "default": None}
    if option.kind == "reports":
        return {
            "action": ReportAction,
            "nargs": "?",
            "metavar": option.metavar,
            "default": None,
        }
    return {"metavar": option.metavar, "default": None}


def _ini_type(option: Option) -> Literal["bool", "linelist", "string"]:
    if option.kind == "switch":
        return "bool"
    return "linelist" if option.kind == "reports" else "string"


def _read(option: Option, config: pytest.Config) -> Any:
    """The option's value, `None` where neither flag nor ini file gives one."""
    given, written, folder = config.getoption(option.ini), option.flag, config.invocation_params.dir
    if given is None and option.in_ini:
        given, written, folder = _ini_value(option, config), f"ini option {option.ini}", _ini_folder(config)
    if given is None or option.kind == "switch":
        return given
    try:
        if option.kind == "reports":
            return read_paths(given, folder)
        return folder / fill_in(given) if option.kind == "path" else _read_text(option.kind, given)
    except ValueError as error:
        raise pytest.UsageError(f"{written}: {error}") from None


def fill_in(path: str) -> str:
    """`path` with `{python}` and `{platform}` replaced, so that each of them can have a baseline of its own.

    Raises:
        ValueError: another name in braces.
    """
    known = {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "platform": sys.platform}
    for name in re.findall(r"{(\w*)}", path):
        if name not in known:
            raise ValueError(
                f"{path!r} holds the unknown placeholder {{{name}}}; there are {{python}} and {{platform}}"
            )
        path = path.replace(f"{{{name}}}", known[name])
    return path


def _ini_value(option: Option, config: pytest.Config) -> Any:
    given = config.getini(option.ini)
    return None if given in ("", []) else given


def _ini_folder(config: pytest.Config) -> Path:
    return config.inipath.parent if config.inipath else config.rootpath


def _read_text(kind: Kind, text: str) -> Any:
    return READERS[kind](text)


def _read_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= 1000:
        raise ValueError(f"{text!r} is not a count from 1 to 1000; write a whole number such as 5")
    return int(text)


def _read_milliseconds(text: str) -> float:
    spelling = "write milliseconds from 0.5 to 10000, such as 2"
    try:
        interval_s = float(text) / 1000
    except ValueError:
        raise ValueError(f"{text!r} is not a number; {spelling}") from None
    if not 0.0005 <= interval_s <= 10:
        raise ValueError(f"{text!r} is out of range; {spelling}")
    return interval_s


def _read_names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names):
        raise ValueError(f"{text!r} holds an empty name; write names with commas between them: micro,small")
    return names


READERS: Mapping[str, Callable[[str], Any]] = {
    "size": units.parse_size,
    "share": units.parse_share,
    "tolerance": units.parse_tolerance,
    "count": _read_count,
    "milliseconds": _read_milliseconds,
    "names": _read_names,
}
"""By the kind of an option, how its text is read."""


FLAG = "--membudget-report"
ENDINGS = (".md", ".json", ".html")


class ReportAction(argparse.Action):
    """Takes the following word only where it can be a report; any other word stays a test path."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Called by argparse for each `--membudget-report`."""
        word = str(values or "")
        reports = [*(getattr(namespace, self.dest, None) or [])]
        if word and not is_report(word):
            # argparse hands these words on as positional arguments, which are pytest's test paths.
            left = argparse._UNRECOGNIZED_ARGS_ATTR  # noqa: SLF001 - no public way
            namespace.__dict__.setdefault(left, []).append(word)
            word = ""
        setattr(namespace, self.dest, [*reports, word])


def separate_report_paths(args: list[str]) -> None:
    """Writes `--membudget-report tests` as `--membudget-report= tests`, so that test paths keep their order.

    Raises:
        pytest.UsageError: a path is written with `=`, so that it can only be a report, and has another ending.
    """
    for place, (word, following) in enumerate(pairwise([*args, ""])):
        if word == FLAG and following and not is_report(following):
            args[place] = f"{FLAG}="
        path = word.removeprefix(f"{FLAG}=")
        if path != word and path and not is_report(path):
            raise pytest.UsageError(f"{FLAG}: {_unknown_form(path)}")


def read_paths(words: Sequence[str], folder: Path) -> tuple[Path, ...] | None:
    """Paths of the reports; the ini file says `true` for the tables alone and `false` for none.

    Raises:
        ValueError: a path has another ending.
    """
    if [word.lower() for word in words] == ["false"]:
        return None
    paths = [word for word in words if word and word.lower() != "true"]
    wrong = next((path for path in paths if not is_report(path)), None)
    if wrong is not None:
        raise ValueError(_unknown_form(wrong))
    return tuple(folder / path for path in paths)


def is_report(word: str) -> bool:
    """Whether the ending is one that a report can have."""
    return word.lower().endswith(ENDINGS)


def _unknown_form(path: str) -> str:
    return f"{path!r} names no known form; write a path that ends in .md, .json or .html"


def is_marked(item: pytest.Item) -> bool:
    """Whether a marker or a fixture asks for this test to be measured (about 2 µs)."""
    return any(mark.name in MARKER_NAMES for mark in item.iter_markers()) or not ASKING_FIXTURES.isdisjoint(
        getattr(item, "fixturenames", ())
    )
