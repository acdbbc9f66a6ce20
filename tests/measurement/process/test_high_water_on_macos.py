import struct
import sys

import pytest

from pytest_membudget.measurement.process.high_water import FIELDS, decode, footprint


def test_the_two_fields_are_found_in_the_kernels_answer():
    fields = [0] * FIELDS
    fields[7], fields[28] = 123, 456
    raw = b"\xff" * 16 + struct.pack(f"={FIELDS}Q", *fields)
    assert decode(raw) == (123, 456)


@pytest.mark.kernel
@pytest.mark.skipif(sys.platform != "darwin", reason="only macOS has a physical footprint")
def test_this_process_has_a_footprint():
    now, most = footprint()
    assert 0 < now <= most
