"""Saves the session's record when its process cannot go on: `python -m pytest_membudget.plugin.emergency_report`.

Before a watched test begins, all records so far are put into a journal on disk. Should the test not stop when it is told
to, the reports are written from that journal, with the test named as killed. A worker or an isolated interpreter writes
no report: it only leaves its record for the session that started it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_membudget.records import json_lines
from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.units import format_size

_JOURNAL = "journal.jsonl"
_KILLED = "killed.jsonl"
_PATHS = "report-paths.json"


def open_journal(folder: Path, report_paths: Sequence[Path]) -> None:
    """Begins the journal of a session whose reports go to these paths."""
    (folder / _PATHS).write_text(json.dumps([str(path) for path in report_paths]), encoding="utf-8")


def add_to_journal(folder: Path, records: Iterable[TestRecord]) -> None:
    """Adds finished tests to the journal."""
    json_lines.add_records(folder / _JOURNAL, records)


def save(folder: Path, record: TestRecord) -> None:
    """Leaves the record of the killed test, and writes the reports of all that were measured so far."""
    from pytest_membudget.report.writing import write_report

    json_lines.add_records(folder / _KILLED, [record])
    if not (folder / _PATHS).exists():
        return
    finished = json_lines.read_records(folder / _JOURNAL, TestRecord).records
    tests = {each.nodeid: each for each in (*finished, *killed(folder).records)}
    for path in json.loads((folder / _PATHS).read_text(encoding="utf-8")):
        write_report(Report(tests=tuple(tests.values())), path)


def killed(folder: Path) -> json_lines.Lines[TestRecord]:
    """The tests whose process had to end."""
    return json_lines.read_records(folder / _KILLED, TestRecord)


def killed_record(
    nodeid: str,
    file: str,
    line: int | None,
    peak_bytes: int,
    message: str,
    *,
    budget_bytes: int | None = None,
) -> TestRecord:
    """What is known of a test whose process has to end; of its peak, what the tree had taken by then."""
    return TestRecord(
        nodeid=nodeid,
        outcome="failed",
        verdict="killed",
        file=file,
        line=line,
        peak_bytes=peak_bytes,
        peak_upper_bytes=peak_bytes,
        source="sampled",
        budget_bytes=budget_bytes,
        message=message,
    )


def main(arguments: Sequence[str]) -> None:
    """The helper process runs this as a command when a process is stuck; the facts are JSON on standard input.

    `arguments` are the session's folder, and the test's node id, file and line (empty where it has none).
    """
    folder, nodeid, file, line = arguments
    facts = json.load(sys.stdin)
    if any(record.nodeid == nodeid for record in killed(Path(folder)).records):
        return  # the process found the time to say so itself
    message = (
        f"killed: it took {format_size(facts['peak_bytes'])} while it ran (the whole tree holds "
        f"{format_size(facts['total_bytes'])}) and did not stop, so its process was ended"
    )
    where = int(line) if line else None
    save(Path(folder), killed_record(nodeid, file, where, facts["peak_bytes"], message))


if __name__ == "__main__":
    main(sys.argv[1:])
