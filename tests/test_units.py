import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_membudget.units import (
    LARGEST_BYTES,
    format_as_written,
    format_count,
    format_duration,
    format_share,
    format_size,
    parse_share,
    parse_size,
    parse_size_range,
    parse_tolerance,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0 B", 0),
        ("64 B", 64),
        ("1kB", 1000),
        ("1 KB", 1000),
        ("20 mb", 20_000_000),
        ("1.5 GB", 1_500_000_000),
        ("200 MiB", 200 * 1024**2),
        ("2TIB", 2 * 1024**4),
        (" .5 KiB ", 512),
        ("200M", 200_000_000),
        ("4G", 4_000_000_000),
        ("512Mi", 512 * 1024**2),
        ("2 ti", 2 * 1024**4),
        (4096, 4096),
    ],
)
def test_sizes_are_read(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("size", "what"),
    [
        ("200", "no unit"),
        ("-1 MB", "not a size"),
        ("5 parsecs", "unknown unit 'parsecs'"),
        ("", "not a size"),
        ("nan MB", "not a size"),
        ("9" * 25 + " TB", "more than any machine"),
        (-1, "negative"),
        (True, "not a size"),
        (1.5, "not a size"),
        (None, "not a size"),
    ],
)
def test_a_bad_size_is_a_value_error_that_shows_a_spelling(size, what):
    with pytest.raises(ValueError, match=what) as caught:
        parse_size(size)
    assert '"200 MiB"' in str(caught.value)


@given(st.text(max_size=40))
def test_no_text_is_worse_than_a_value_error(text):
    try:
        assert 0 <= parse_size(text) <= LARGEST_BYTES
    except ValueError as error:
        assert len(str(error)) < 300


def test_a_range_doubles_from_end_to_end():
    assert parse_size_range("1MB..16MB") == tuple(n * 1_000_000 for n in (1, 2, 4, 8, 16))
    assert parse_size_range("1MB..10MB") == tuple(n * 1_000_000 for n in (1, 2, 4, 8, 10))
    assert parse_size_range("3MB..3MB") == (3_000_000,)
    assert parse_size_range("1MB, 5MB") == (1_000_000, 5_000_000)


@pytest.mark.parametrize("text", ["4MB..1MB", "0B..1MB", "1..2", "..", "1MB.."])
def test_a_bad_range_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_size_range(text)


def test_tolerances_sum_a_share_and_a_size():
    tolerance = parse_tolerance("10% + 1 MiB")
    assert tolerance == (0.1, 1024**2)
    assert tolerance.allowed_bytes(10 * 1024**2) == 12 * 1024**2
    assert parse_tolerance("5%") == (0.05, 0)
    assert str(tolerance) == "10% + 1.00 MiB"
    assert parse_tolerance(str(tolerance)) == tolerance
    assert parse_tolerance("2 MB") == (0.0, 2_000_000)


@pytest.mark.parametrize("text", ["", "10", "10% + 5%", "1 MB + 2 MB", "ten%"])
def test_a_bad_tolerance_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_tolerance(text)


def test_shares_are_fractions_or_percentages():
    assert parse_share("70%") == parse_share(0.7) == parse_share("0.7") == pytest.approx(0.7)
    for bad in (0, -0.1, 1.1, "150%", "many", float("nan"), None):
        with pytest.raises(ValueError, match="70%"):
            parse_share(bad)


def test_text_has_three_significant_digits():
    mebibyte = 1024**2
    sizes = (0, 512, 1023, 1024, 1536 * mebibyte, 187.4 * mebibyte, -12.34 * mebibyte, 1023.9 * mebibyte, 2.5)
    assert [format_size(size) for size in sizes] == [
        "0 B",
        "512 B",
        "1023 B",
        "1.00 KiB",
        "1.50 GiB",
        "187 MiB",
        "-12.3 MiB",
        "1.00 GiB",
        "2.5 B",
    ]
    assert format_share(0.4361) == "43.6%"
    assert [format_duration(seconds) for seconds in (0.0123, 4.071, 348)] == ["12.3 ms", "4.07 s", "5.8 min"]


def test_one_thing_is_told_from_several():
    counted = [format_count(1, "process"), format_count(2, "process"), format_count(1200, "fresh batch")]
    assert counted == ["1 process", "2 processes", "1,200 fresh batches"]


@given(st.integers(0, 10**18))
def test_formatted_sizes_read_back_within_their_rounding(size_bytes):
    assert abs(parse_size(format_size(size_bytes)) - size_bytes) <= max(1, 0.006 * size_bytes)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (20_000_000, "20 MB"),
        (1_500_000_000, "1.5 GB"),
        (999_000, "999 kB"),
        (1_000, "1 kB"),
        (4_000_000_000, "4 GB"),
        (20 << 20, "20.0 MiB"),
        (1_234_567, "1.18 MiB"),
        (999, "999 B"),
        (0, "0 B"),
    ],
)
def test_a_chosen_size_is_shown_as_it_was_written(size_bytes, text):
    assert format_as_written(size_bytes) == text


def test_the_largest_size_is_the_largest_that_a_signed_64_bit_number_holds():
    assert parse_size("9223372036854775807 B") == LARGEST_BYTES == 2**63 - 1
    with pytest.raises(ValueError, match="9223372036854775808"):
        parse_size("9223372036854775808 B")
