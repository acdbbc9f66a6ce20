"""The watchdog over a test: who is watched, what its bite means for the test, and what is saved when all else fails."""

from __future__ import annotations

import pytest

from pytest_membudget.errors import WatchdogStop
from pytest_membudget.measurement.system.machine import memory_limit
from pytest_membudget.measurement.watchdog.listener import KillRecord
from pytest_membudget.measurement.watchdog.watchdog import GuardedProbe, Watchdog
from pytest_membudget.originals import restored, sys
from pytest_membudget.plugin import emergency_report as last_words
from pytest_membudget.plugin.options import Settings
from pytest_membudget.plugin.plans import Plan
from pytest_membudget.plugin.report.session_files import shared_folder
from pytest_membudget.records.judgement import Advice, Budget, Judgement


def guard(config: pytest.Config, plan: Plan, budget: Budget, settings: Settings) -> GuardedProbe:
    """The probe of a watched test."""
    hard = plan.budget is not None and plan.budget.hard and not settings.warn
    with restored():
        folder = shared_folder(config)
    teller = config.pluginmanager.get_plugin("membudget-reporting")
    with restored():
        if teller is not None:
            teller.write_journal()
        stop_bytes = None if settings.stop_at is None else int(settings.stop_at * memory_limit().bytes)

    def save(bite: KillRecord) -> None:
        message = f"killed: {bite}; it did not stop, so its process was ended"
        last_words.save(
            folder,
            last_words.killed_record(
                plan.nodeid, plan.file, plan.line, bite.peak_bytes, message, budget_bytes=budget.peak_bytes
            ),
        )

    dog = Watchdog(
        stop_total_bytes=stop_bytes,
        last_words=[
            sys.executable,
            "-m",
            last_words.__name__,
            str(folder),
            plan.nodeid,
            plan.file,
            "" if plan.line is None else str(plan.line),
        ],
        on_stuck=save,
    )
    return dog.guard(
        plan.nodeid,
        limit_bytes=budget.peak_bytes if hard else None,
        interval_s=settings.interval_s,
        settle=True,
    )


def judge_bite(bite: KillRecord, own_error: BaseException | None, *, advises: bool) -> Judgement:
    """The judgement that goes before all others; `advises` where none of those says what to do."""
    # pytest names the test above it, and cuts the line in its short summary.
    lines = [
        f"killed: {str(bite).removeprefix(bite.label).lstrip()}",
        "  how       the watchdog read the process tree while the test ran",
    ]
    if own_error is not None and not isinstance(own_error, WatchdogStop):
        lines.append(f"            the test then ended with {type(own_error).__name__}: {own_error}")
    return Judgement(
        verdict="killed",
        failed=True,
        finding="\n".join(lines),
        advice=Advice() if advises else None,
        trace=bite.stack.rstrip(),
    )
