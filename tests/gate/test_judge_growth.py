from msgspec.structs import replace

from pytest_membudget.gate.budgets import judge_growth
from pytest_membudget.records.judgement import Culprit, Growth, ResourceGrowth


def growth(verdict, low, high, **more):
    return Growth(
        verdict=verdict,
        bytes_per_call=(low + high) / 2,
        low_bytes_per_call=low,
        high_bytes_per_call=high,
        allowed_bytes_per_call=64,
        calls=2048,
        duration_s=0.5,
        **more,
    )


def test_a_leak_fails_with_both_numbers_and_its_culprit():
    found = growth("leak", 900, 1100, culprits=(Culprit("site", "app.py:12", 990.0),))
    judgement = judge_growth(found)
    assert (judgement.verdict, judgement.failed) == ("leak", True)
    assert judgement.message.splitlines() == [
        "leak: 1000 B more per call, 64 B allowed",
        "  measured  2,048 calls in 500 ms: 900 B to 1.07 KiB per call with 99% confidence",
        "  how       heap in use, mappings, children, shared memory and resources, after a collection at each boundary",
        "  grows     app.py:12: 990 B per call",
        '  next      look at what keeps app.py:12 alive between calls, or allow it: per_call="1.18 KiB"',
    ]


def test_descriptors_that_pile_up_are_named():
    found = growth("leak", 0, 10, resources=(ResourceGrowth("descriptors", 1.0, ("/tmp/a",)),))
    message = judge_growth(found).message
    assert message.startswith("leak of descriptors: 1 more per call, 0 allowed")
    assert "piles up  descriptors: 1 per call, such as /tmp/a" in message
    assert message.endswith("  next      close, join or wait for what each call opens or starts")


def test_bytes_come_first_where_both_grow():
    both = growth("leak", 900, 1100, resources=(ResourceGrowth("descriptors", 1.0, ("/tmp/a",)),))
    message = judge_growth(both).message
    assert message.startswith("leak: 1000 B more per call, 64 B allowed")
    assert message.endswith("  next      close, join or wait for what each call opens or starts")


def test_what_to_do_follows_what_is_known_of_a_leak():
    piles = ResourceGrowth("descriptors", 1.0, ("/tmp/a",))
    unnamed, named = (
        growth("leak", 900, 1100),
        growth("leak", 900, 1100, culprits=(Culprit("site", "a.py:1", 990.0),)),
    )
    assert "next      look for what each call adds to a module" in judge_growth(unnamed).message
    assert (
        "next      look at what keeps a.py:1 alive"
        in judge_growth(replace(named, resources=(piles,))).message
    )


def test_inconclusive_is_a_caveat_and_fails_only_when_strict():
    found = growth("inconclusive", 10, 500)
    loose, strict = judge_growth(found), judge_growth(found, strict=True)
    assert (loose.verdict, loose.failed, loose.message) == ("inconclusive", False, "")
    assert loose.caveats == ("growth is inconclusive: between 10 B and 500 B per call, 64 B allowed",)
    assert strict.failed
    assert strict.message.startswith("growth is inconclusive")


def test_a_growth_that_too_few_calls_leave_open_has_no_absurd_figures():
    found = growth("inconclusive", -(2.0**64), 2.0**64)
    one_call = replace(found, calls=1)
    assert judge_growth(one_call).caveats == (
        "growth is inconclusive: unknown after 1 call, 64 B allowed per call",
    )
    measured = judge_growth(one_call, strict=True).message.splitlines()[1]
    assert measured == "  measured  1 call in 500 ms: too few to measure the growth per call"


def test_each_doubt_has_a_line_in_the_message_of_a_leak():
    message = judge_growth(
        growth("leak", 900, 1100, caveats=("half of the calls failed", "a timer runs"))
    ).message
    assert "  doubt     half of the calls failed\n            a timer runs\n" in message


def test_clean_passes_in_silence():
    judgement = judge_growth(growth("clean", 0, 1), strict=True)
    assert (judgement.verdict, judgement.failed, judgement.message) == ("clean", False, "")
