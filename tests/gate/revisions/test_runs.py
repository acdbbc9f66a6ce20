"""What is told of a run of pytest that could not be used."""

import pytest

from pytest_membudget.gate.revisions.runs import last_lines


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (b"one\ntwo\n", "one\ntwo"),
        (b"a first line that is long\nerror: nothing\n", "error: nothing"),
        (b"x" * 30, "x" * 20),
        (b"", ""),
    ],
)
def test_the_last_lines_of_an_output_are_whole(output, told):
    assert last_lines(output, 20) == told
