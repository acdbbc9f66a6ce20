import json

import pytest

from pytest_membudget.records.report import Report, TestRecord
from pytest_membudget.report.markdown import MARKER, render_badge, render_comment

MIB = 2**20


def report(*verdicts):
    return Report(
        tests=tuple(
            TestRecord(
                nodeid=f"t.py::test_{n}",
                outcome="failed",
                verdict=verdict,
                peak_bytes=n * MIB,
                message="m" * 200,
            )
            for n, verdict in enumerate(verdicts)
        )
    )


@pytest.mark.parametrize(
    ("found", "message", "color"),
    [
        (report("within", "none"), "2 tests, 1.00 MiB at most", "brightgreen"),
        (report("regressed", "over", "regressed"), "1 over budget, 2 regressed", "red"),
        (report(), "not measured", "lightgrey"),
    ],
)
def test_a_badge_has_the_format_of_shields(found, message, color):
    assert json.loads(render_badge(found)) == {
        "schemaVersion": 1,
        "label": "memory",
        "message": message,
        "color": color,
    }


def test_a_comment_begins_with_the_line_by_which_it_is_found():
    assert render_comment(report("within")).splitlines()[0] == MARKER


def test_a_comment_is_never_longer_than_a_service_takes():
    text = render_comment(report(*["over"] * 2_000))
    assert len(text) < 61_000
    assert text.endswith("The rest is in the reports of this run.\n")
