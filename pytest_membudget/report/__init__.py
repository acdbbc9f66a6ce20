"""Show: what the records carry, on a terminal, as Markdown, JSON or one HTML page.

1. `page` turns a report into a headline, failures and tables of finished text;
2. one small file a format lays that out: `terminal`, `markdown`, `json_report` (by `schema`), `html`, `github`;
3. `writing` picks the format by a path's ending, checks that path early, and reads reports back.

Renderers compute nothing, and text from outside is escaped where it is shown. Names are loaded when first used: a
session that shows nothing loads no renderer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_membudget.lazy import names_on_demand

if TYPE_CHECKING:
    from pytest_membudget.report.github import render_annotations as render_annotations
    from pytest_membudget.report.github import render_benchmark_json as render_benchmark_json
    from pytest_membudget.report.github import render_step_summary as render_step_summary
    from pytest_membudget.report.headline import render_headline as render_headline
    from pytest_membudget.report.html import render_html as render_html
    from pytest_membudget.report.json_report import render_json as render_json
    from pytest_membudget.report.markdown import render_markdown as render_markdown
    from pytest_membudget.report.schema import SCHEMA as SCHEMA
    from pytest_membudget.report.terminal import render_terminal as render_terminal
    from pytest_membudget.report.writing import check_report_path as check_report_path
    from pytest_membudget.report.writing import load_report as load_report
    from pytest_membudget.report.writing import write_report as write_report

_MODULE_OF = {
    "SCHEMA": "schema",
    "check_report_path": "writing",
    "load_report": "writing",
    "render_annotations": "github",
    "render_benchmark_json": "github",
    "render_headline": "headline",
    "render_html": "html",
    "render_json": "json_report",
    "render_markdown": "markdown",
    "render_step_summary": "github",
    "render_terminal": "terminal",
    "write_report": "writing",
}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605 - every name is text

__getattr__ = names_on_demand(__name__, _MODULE_OF)
