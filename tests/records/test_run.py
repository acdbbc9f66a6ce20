from types import SimpleNamespace

from pytest_membudget.records.run import BatchResult, LevelEvent, Outcome

MB = 1_000_000


def failed(number):
    return Outcome(item=f"{number}.csv", error=ValueError("row 3\nis short"), cause="error", attempts=2)


def batch(outcomes, **fields):
    return BatchResult(
        outcomes=tuple(outcomes),
        peak_bytes=300 * MB,
        duration_s=2.0,
        budget_bytes=500 * MB,
        limit_bytes=900 * MB,
        workers=1,
        max_in_flight=1,
        **fields,
    )


def test_an_outcome_says_what_became_of_its_input():
    assert str(failed(1)) == "1.csv: error after 2 attempts: ValueError: row 3 is short"
    assert str(Outcome(item="2.csv", duration_s=0.25, peak_bytes=MB)) == "2.csv: ok in 250 ms, peak 977 KiB"


def test_a_summary_names_what_failed_and_how_to_run_it_again():
    lines = str(
        batch([Outcome(item="0.csv"), failed(1)], dead_letters=(failed(1),), dead_letters_path="dead.jsonl")
    ).splitlines()
    assert lines == [
        "2 inputs in 2 s by 1 worker, 1 failed",
        "1.csv: error after 2 attempts: ValueError: row 3 is short",
        "dead letters: dead.jsonl; `membudget retry` runs them again",
        "peak: 286 MiB, budget 477 MiB",
    ]


def test_a_summary_stays_short():
    event = LevelEvent(kind="retry", level="process", cause="it died", next_step="again", at_s=1.0)
    text = str(batch(map(failed, range(2000)), events=(event,) * 300))
    assert "and 1,995 more failed inputs" in text
    assert "and 295 more events" in text
    assert len(text.splitlines()) == 14
    assert str(batch([Outcome(item="0.csv")])).startswith("1 input in 2 s by 1 worker, none failed")
    assert "and 1 more failed input\n" in str(batch(map(failed, range(6))))


def test_a_notebook_shows_the_summary():
    shown = []
    one = batch([Outcome(item="0.csv")])
    one._repr_pretty_(SimpleNamespace(text=shown.append), False)
    assert shown == [str(one)]
