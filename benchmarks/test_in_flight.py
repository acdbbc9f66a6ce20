"""Is the peak of a value of max_in_flight that was not run predicted?"""

import calibrated_parsers as parsers
import pytest

from pytest_membudget import calibrate_in_flight, synthesize

VALUES = (1, 2, 4, 6)


@pytest.mark.parametrize(
    ("fn", "kind"),
    [(parsers.json_document, "json"), (parsers.csv_rows, "csv"), (parsers.element_tree, "xml")],
    ids=["json", "csv", "xml"],
)
def test_an_untried_value_is_foretold(fn, kind, figure, tmp_path):
    files = [synthesize(tmp_path / f"{seed}.{kind}", "4 MB", kind, seed).path for seed in range(6)]
    table = calibrate_in_flight(fn, files, values=VALUES, progress=False)
    for row in table.rows:
        if not row.predicted:
            figure(
                f"{kind}: {row.max_in_flight} in flight",
                f"{row.peak_bytes / 1e6:.0f} MB",
                f"{row.items_per_s:.2f} files/s",
            )
    ((checked, verified_bytes),) = [(row, row.verified_bytes) for row in table.rows if row.verified_bytes]
    error = checked.peak_bytes / verified_bytes - 1
    figure(
        f"{kind}: {checked.max_in_flight} in flight, predicted and then run",
        f"{checked.peak_bytes / 1e6:.0f} MB, {verified_bytes / 1e6:.0f} MB",
        f"{error:+.1%}, at most 10%",
    )
    assert abs(error) <= 0.10
