from typing import get_args

from pytest_membudget.records.measurement import Caveat, CaveatKind, Measurement


def test_every_kind_has_a_sentence_with_its_figures():
    for kind in get_args(CaveatKind):
        assert "{" not in str(Caveat(kind, 1024, "a reason"))
    assert "at most 1.00 KiB" in str(Caveat("process-missed", 1024))


def test_a_measurement_shows_its_doubts_as_plain_sentences():
    found = Measurement(
        peak_bytes=1,
        peak_upper_bytes=2,
        total_peak_bytes=3,
        start_bytes=1,
        end_bytes=1,
        duration_s=0.1,
        processes=1,
        source="sampled",
        caveat_records=(Caveat("no-helper", detail="there is none here"),),
    )
    assert found.caveats == ("there is none here",)
