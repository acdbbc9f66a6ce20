"""While tasks of the machine stall for want of memory nothing new starts beside what runs."""

from scripted_scheduler import Played, a_task, only

from pytest_membudget.runtime.executor.state import Record

SOURCE = "/proc/pressure/memory"


def test_nothing_starts_beside_what_runs_until_the_pressure_has_passed():
    played = Played(workers=4)
    tasks = [a_task(10) for _ in range(4)]
    played.submit(tasks[0])
    played.scheduler.pressure_changed(SOURCE)
    played.submit(*tasks[1:])
    assert played.running == tasks[:1]
    played.returned(tasks[0])
    assert played.running == tasks[1:2], "one at a time goes on"
    played.scheduler.pressure_changed("")
    played.decided()
    assert played.running == tasks[1:]


def test_each_closing_is_one_event_that_names_the_file():
    played = Played()
    for source in (SOURCE, SOURCE, "", SOURCE):
        played.scheduler.pressure_changed(source)
        played.decided()
    events = only(played.effects, Record)
    assert [event.kind for event in events] == ["pressure", "pressure"]
    assert events[0].cause == "tasks stall for want of memory (/proc/pressure/memory)"
