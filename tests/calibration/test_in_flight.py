import calibrated_functions as functions
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_membudget import CalibrationError, UsageError, calibrate_in_flight
from pytest_membudget.calibration.in_flight import _run_long_enough, fill_table
from pytest_membudget.records.run import BatchResult, Breakdown, LevelEvent, Outcome

LIMIT = 1_000


class Machine:
    """Takes 100 and 90 for each task in flight; speed grows up to four."""

    def __init__(self, per_task=90):
        self.per_task = per_task
        self.runs = []

    def __call__(self, value):
        self.runs.append(value)
        peak = 100 + self.per_task * value
        parts = Breakdown(
            peak_bytes=peak,
            coordinator_bytes=100,
            workers_base_bytes=0,
            task_bytes=peak - 100,
            waiting_results_bytes=0,
            other_bytes=0,
        )
        return BatchResult(
            outcomes=(),
            peak_bytes=peak,
            duration_s=16 / min(value, 4),
            budget_bytes=LIMIT,
            limit_bytes=LIMIT,
            workers=8,
            max_in_flight=value,
            breakdown=parts,
        )


def test_values_between_are_foretold_and_one_of_them_is_checked():
    machine = Machine()
    table = fill_table(machine, [1, 2, 4, 8], 0.70, LIMIT, items=16)
    assert machine.runs == [1, 2, 4, 8, 6]
    assert [row.max_in_flight for row in table.rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row.max_in_flight for row in table.rows if row.predicted] == [3, 5, 6, 7]
    assert [row.peak_bytes for row in table.rows] == [190, 280, 370, 460, 550, 640, 730, 820]
    assert [row.verified_bytes for row in table.rows if row.verified_bytes] == [640]
    assert table.recommended == 6
    assert table.reason == (
        "it takes 640 B, 64.0% of the limit, under the target of 70.0%, while 7 would take 73.0%"
    )


def test_slowdown_is_against_the_fastest():
    table = fill_table(Machine(), [1, 4, 8], 0.99, LIMIT, items=16)
    slowdown = {row.max_in_flight: row.slowdown for row in table.rows}
    assert (slowdown[1], slowdown[4], slowdown[8]) == (0.75, 0, 0)


def test_no_value_is_run_after_the_first_above_the_target():
    machine = Machine(per_task=200)
    table = fill_table(machine, [1, 2, 4, 8, 16], 0.70, LIMIT, items=16)
    assert machine.runs == [1, 2, 4, 3]
    assert table.recommended == 3
    assert {row.max_in_flight: row.peak_bytes for row in table.rows}[8] == pytest.approx(1700, abs=2)


def test_when_even_one_is_too_much_it_is_said():
    table = fill_table(Machine(per_task=800), [1, 2], 0.70, LIMIT, items=16)
    assert table.recommended == 1
    assert "even that takes 90.0% of the limit, above the target of 70.0%" in table.reason


def test_when_all_fit_it_is_said_that_nothing_larger_was_tried():
    table = fill_table(Machine(per_task=10), [1, 2], 0.70, LIMIT, items=16)
    assert (table.recommended, table.reason.endswith("nothing larger was asked for")) == (2, True)


def test_a_smaller_value_that_is_as_fast_is_told():
    table = fill_table(Machine(), [1, 4, 8], 0.99, LIMIT, items=16)
    assert table.recommended == 8
    assert table.caveats == ("4 in flight is 100.0% as fast and takes 460 B: use that where memory is short",)
    assert str(table).splitlines()[0].startswith("1 in flight: measured 190 B, 19.0% of the limit; 1 items/s")
    assert fill_table(Machine(), [1, 2, 4], 0.99, LIMIT, items=16).caveats == ()


@given(
    st.dictionaries(
        st.integers(1, 20), st.tuples(st.integers(0, 10**13), st.floats(0, 1e6)), min_size=1, max_size=5
    ),
    st.integers(0, 10**13),
    st.floats(0.01, 1),
)
@settings(max_examples=60, deadline=None)
def test_any_figures_make_a_table(ran, limit_bytes, target):
    def run(value):
        peak_bytes, duration_s = ran.get(value, (5, 1.0))
        return msgspec.structs.replace(Machine()(value), peak_bytes=peak_bytes, duration_s=duration_s)

    table = fill_table(run, sorted(ran), target, limit_bytes, items=16)
    assert table.recommended in [row.max_in_flight for row in table.rows]
    assert all(0 <= row.slowdown <= 1 for row in table.rows)
    assert len(str(table).splitlines()) > len(table.rows)


def test_quick_tasks_are_run_again_until_their_speed_can_be_told():
    machine = Machine()
    peaks, durations = iter((3, 9, 4)), iter((0.7, 0.2, 0.3))

    def run():
        return msgspec.structs.replace(machine(1), peak_bytes=next(peaks), duration_s=next(durations))

    batch = _run_long_enough(run)
    assert (batch.peak_bytes, batch.duration_s, len(machine.runs)) == (9, 0.2, 3)


def test_tasks_that_did_not_run_in_processes_are_told():
    event = LevelEvent(kind="fallback", level="process", cause="no room", next_step="goes on", at_s=0.0)
    batch = msgspec.structs.replace(
        Machine()(1), outcomes=(Outcome(item="a", level="thread"),), events=(event,)
    )
    assert _run_long_enough(lambda: batch).caveats == ("tasks ran at level thread (no room)",)


@pytest.mark.parametrize("values", [(), (0,), (1.5,), (True,)])
def test_values_that_make_no_sense_are_refused(values):
    with pytest.raises(UsageError, match="whole numbers above 0"):
        calibrate_in_flight(functions.tenfold, ["a"], values=values)


def test_no_files_are_refused():
    with pytest.raises(UsageError, match="no files"):
        calibrate_in_flight(functions.tenfold, [])


@pytest.mark.processes
def test_real_processes_hold_more_when_more_is_in_flight(tmp_path):
    path = tmp_path / "input.bin"
    path.write_bytes(bytes(3_000_000))
    table = calibrate_in_flight(functions.holds, [path], values=(1, 2), progress=False)
    one, two = table.rows
    assert one.peak_bytes < two.peak_bytes
    assert one.breakdown.peak_bytes == one.peak_bytes
    assert "1 file was gone through again, to 4 tasks" in table.caveats[-1]
    with pytest.raises(CalibrationError, match=r"1 of 1 tasks failed, the first on .*KeyError"):
        calibrate_in_flight(functions.fails_always, [path], values=(1,), progress=False)
