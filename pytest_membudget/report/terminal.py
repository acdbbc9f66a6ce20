"""The report on a terminal: failures and one summary line; on request the tables, within the width."""

from __future__ import annotations

from pytest_membudget.records.report import Report
from pytest_membudget.report.page import Failure, make_page
from pytest_membudget.report.plain_text import Paint, clean_page, without_commands, wrap

_MOST_TESTS = 20


def render_terminal(
    report: Report,
    *,
    width: int = 80,
    verbose: bool = False,
    color: bool = False,
    ascii_only: bool = False,
    tables: bool = True,
    failures: bool = True,
) -> str:
    """Failures and tables where asked for, and one summary line last; no line is wider than `width`.

    `verbose` shows every test and more columns. Whether colours and signs beyond ASCII suit the terminal is
    the caller's to know.
    """
    paint = Paint(color)
    page = make_page(report, verbose=verbose, most_tests=None if verbose else _MOST_TESTS)
    page = clean_page(page, ascii_only=ascii_only)
    blocks = [_failure(failure, width, paint) for failure in page.failures] if failures else []
    if tables:
        # tabulate takes 10 ms to import, which a session without tables need not pay.
        from pytest_membudget.report.terminal_table import lay_out

        blocks += [lay_out(table, width, paint) for table in page.tables]
        if verbose and page.environment:
            blocks.append("\n".join(wrap(f"{title:<11} {text}", width) for title, text in page.environment))
    blocks += [paint(wrap(f"caveat: {caveat}", width, indent=8), "yellow") for caveat in page.caveats]
    blocks.append(paint(wrap(f"membudget: {page.headline}", width), "red" if page.failures else "green"))
    return without_commands("\n\n".join(blocks) + "\n")


def _failure(failure: Failure, width: int, paint: Paint) -> str:
    first, _, rest = failure.message.partition("\n")
    blocks = [
        paint(wrap(failure.nodeid, width, indent=0), "bold"),
        paint(wrap(f"  {first}", width), "red"),
        wrap(rest, width) if rest else "",
    ]
    return "\n".join(block for block in blocks if block)
