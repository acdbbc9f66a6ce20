"""What a session says: progress while a test runs again; at its end the summary, suggested markers, and what GitHub shows."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter  # public, as pytest.TerminalReporter, from 8.4 on

from pytest_membudget.gate.budgets import suggested_budget
from pytest_membudget.plugin import is_fresh, is_worker
from pytest_membudget.plugin.options import Settings
from pytest_membudget.records.report import BaselineCheck, Report, TestRecord
from pytest_membudget.records.storage import is_plain_file
from pytest_membudget.report.page import render_headline
from pytest_membudget.report.text import clean_text
from pytest_membudget.units import format_count, format_size, parse_size

_NOTHING_TO_SUGGEST = "none: no test that passed is without a budget, or has one far above what it uses"

_LEAST_COLUMNS = 20
"""With less room in the line nothing is said: text that wraps could not be taken back."""


def load_renderers(report_paths: Sequence[Path]) -> None:
    """Imports what the session's end will need, while there are descriptors and address space to import with."""
    import pytest_membudget.report.terminal

    if report_paths:
        import pytest_membudget.report.writing  # noqa: F401


def show(terminal: Any, report: Report, settings: Settings, notes: Sequence[str]) -> None:
    """Tables where asked for, then one line, then what was written."""
    if settings.show_tables:
        terminal.section("membudget")
        # pytest itself has shown why a test failed.
        terminal.write_line(_tables(terminal, report, failures=settings.warn))
    else:
        terminal.write_line(f"membudget: {render_headline(report)}")
        _tell_of_other_tests(terminal, report.baseline)
        for caveat in report.caveats:
            terminal.write_line(f"membudget: {caveat}", yellow=True)
    if settings.warn and not settings.show_tables:
        for record in report.tests:
            # One line for each judgement: over its budget, and beyond its baseline as well.
            for judgement in filter(None, record.message.split("\n\n")):
                line = f"membudget: {record.nodeid}: {judgement.splitlines()[0]}"
                terminal.write_line(clean_text(line), yellow=True)
    _tell_of_reruns(terminal, report)
    if settings.suggest:
        terminal.section("membudget: suggested markers")
        for suggestion in [*suggestions(report.tests)] or [_NOTHING_TO_SUGGEST]:
            terminal.write_line(clean_text(suggestion))
    for note in notes:
        terminal.write_line(f"membudget: {clean_text(note)}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from pytest_membudget.report.markdown import render_annotations

        terminal.write(render_annotations(report, folder=_folder_in_workspace(terminal.config.rootpath)))


def _tell_of_reruns(terminal: Any, report: Report) -> None:
    """What took its time, which a log without a terminal does not show while it happens."""
    reruns = [len(test.comparison.samples_bytes) for test in report.tests if test.comparison is not None]
    if any(reruns):
        tests, times = format_count(sum(map(bool, reruns)), "test"), format_count(sum(reruns), "time")
        terminal.write_line(f"membudget: {tests} beyond the baseline, run again {times} in fresh processes")


def _tell_of_other_tests(terminal: Any, check: BaselineCheck | None) -> None:
    """That the baseline and the suite are not of the same tests, which no failure shows."""
    if check is None:
        return
    groups = {"new": check.new, "gone": check.gone, "renamed": check.renamed}
    counts = [f"{len(names):,} {title}" for title, names in groups.items() if names]
    if counts:
        terminal.write_line(
            f"membudget: {check.path} differs from this suite: {', '.join(counts)}; --membudget-report names them, "
            "--membudget-update-baseline accepts them"
        )


def _tables(terminal: Any, report: Report, *, failures: bool) -> str:
    from pytest_membudget.report.terminal import render_terminal

    writer = terminal._tw  # noqa: SLF001 - the one place that knows colours, width and encoding
    encoding = getattr(writer._file, "encoding", None) or "ascii"  # noqa: SLF001 - likewise
    return render_terminal(
        report,
        width=writer.fullwidth,
        verbose=terminal.config.get_verbosity() > 0,
        color=writer.hasmarkup,
        ascii_only=not encoding.lower().startswith("utf"),
        failures=failures,
    ).rstrip("\n")


def _folder_in_workspace(root: Path) -> str:
    """GitHub wants paths as they are in the repository, which pytest's root may lie below."""
    folder = os.path.relpath(root, os.environ.get("GITHUB_WORKSPACE", root))
    return "" if folder == os.curdir or folder.startswith(os.pardir) else folder


def write_step_summary(report: Report) -> None:
    """Adds the Markdown tables to GitHub's summary of the step; nothing elsewhere."""
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    if Path(target).exists() and not is_plain_file(target):
        raise OSError(errno.EINVAL, "is not a plain file", target)
    from pytest_membudget.report.markdown import render_step_summary

    with Path(target).open("a", encoding="utf-8") as stream:
        stream.write(render_step_summary(report))


def suggestions(records: Sequence[TestRecord]) -> Iterator[str]:
    """One line for each passing test without a budget, or with one far above what it uses."""
    for record in records:
        if record.outcome != "passed" or record.peak_upper_bytes is None:
            continue
        suggested = suggested_budget(record.peak_upper_bytes)
        if record.budget_bytes is None or record.budget_bytes > 2 * parse_size(suggested):
            marker = f'@pytest.mark.memory_budget("{suggested}")'
            yield f"{record.nodeid}: {marker}  # used {format_size(record.peak_upper_bytes)}"


@contextlib.contextmanager
def showing_progress(config: pytest.Config, text: str) -> Iterator[None]:
    """Shows `text` behind what stands in pytest's line while the block runs.

    Not where lines are kept (no terminal), were not asked for (`-q`), or are another's: the test's with `-s`, those of
    pytest-xdist's controller, and of plugins that draw the terminal in their own way.
    """
    terminal = _progress_terminal(config)
    room = terminal._tw.fullwidth - terminal._tw.width_of_current_line - 1 if terminal is not None else 0  # noqa: SLF001 - pytest tells its column nowhere else
    if terminal is None or room < _LEAST_COLUMNS:
        yield
        return
    shown = f" {text}"[:room]
    back = "\b" * len(shown)
    _write_progress(config, terminal, shown)
    try:
        yield
    finally:
        _write_progress(config, terminal, back + " " * len(shown) + back)


def _progress_terminal(config: pytest.Config) -> TerminalReporter | None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if is_worker(config) or is_fresh(config) or type(terminal) is not TerminalReporter:
        return None
    wanted = terminal.isatty and config.get_verbosity() >= 0 and config.getoption("capture", "no") != "no"
    return terminal if wanted else None


def _write_progress(config: pytest.Config, terminal: TerminalReporter, text: str) -> None:
    """Past the count of columns that pytest keeps of its line, and past the capture of the test's output."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture is not None else contextlib.nullcontext():
        terminal._tw._file.write(text)  # noqa: SLF001 - see above
        terminal._tw._file.flush()  # noqa: SLF001 - see above
