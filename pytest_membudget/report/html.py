"""The report as one self-contained HTML page: no network, readable on a phone, in the dark and without scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from typing import Any

from pytest_membudget.records.report import Report
from pytest_membudget.report import html_view, job_tables, test_tables
from pytest_membudget.report.pictures import draw_calibration, draw_scale_curve, draw_scale_timelines
from pytest_membudget.report.small_pictures import changes, timelines_of

_FOLDER = "page_files"
_PARTS = re.compile(r"[^_/:\[.-]*[_/:\[.-]*", re.DOTALL)


def render_html(report: Report) -> str:
    """The page of `report`.

    Text from outside passes through autoescaping, and through JSON in which `<`, `>`, `&` and line separators
    are escapes; the page's policy lets no script run but its own, named by its hash.
    """
    from jinja2 import Environment

    script = read_page_file("page.js")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = breakable
    template = environment.from_string(read_page_file("page.html"))
    timelines = timelines_of(report.tests)
    page = template.render(
        style=read_page_file("page.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_script_json(html_view.table_data(report.tests)),
        cards=html_view.cards(report.tests),
        first_rows=html_view.first_rows(report.tests),
        test_count=len(report.tests),
        timelines=timelines,
        drawn={timeline.number for timeline in timelines},
        left_behind=test_tables.left_behind_table(report.left_behind),
        comparison=test_tables.comparison_table(report.tests),
        changes=changes(report.tests),
        baseline=test_tables.baseline_table(report.baseline),
        scales=[_scale_section(table) for table in report.scales],
        in_flight=[job_tables.in_flight_table(table) for table in report.in_flight],
        batches=job_tables.batch_table(report.batches),
        hosts=job_tables.host_table(report.batches),
        monitors=job_tables.monitor_table(report.monitors),
        calibrations=job_tables.calibration_table(report.calibrations),
        calibration_pictures=[
            (fit.name, picture) for fit in report.calibrations if (picture := draw_calibration(fit))
        ],
        obtained=html_view.obtained(report.tests),
        test_caveats=test_tables.caveat_counts(report.tests),
        most_caveats=test_tables.MOST_CAVEATS,
        caveats=report.caveats,
        **html_view.summary(report),
    )
    # Names that are not UTF-8 hold lone surrogates, which no file can carry.
    return page.encode("utf-8", "backslashreplace").decode()


def _scale_section(table: Any) -> dict[str, Any]:
    found = [(row.scale.name.upper(), row.breakdown) for row in table.rows if row.breakdown is not None]
    return {
        "table": job_tables.scale_table(table),
        "curve": draw_scale_curve(table),
        "timelines": draw_scale_timelines(table),
        "breakdown": job_tables.breakdown_table(table),
        "bars": html_view.breakdown_bars(found),
    }


def breakable(text: str) -> str:
    """A node id as markup that may be broken after its separators rather than within a word."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in _PARTS.findall(text))


def _script_json(value: Any) -> str:
    """JSON that can stand inside a script element whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def read_page_file(name: str) -> str:
    """A template, style or script that ships with the package."""
    return resources.files(__package__).joinpath(_FOLDER, name).read_text(encoding="utf-8")
