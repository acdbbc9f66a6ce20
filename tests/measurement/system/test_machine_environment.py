import sys

from pytest_membudget.measurement.system.machine import environment


def test_the_fingerprint_names_what_may_change_a_figure():
    found = environment()
    assert found.python.endswith(".".join(map(str, sys.version_info[:3])))
    assert found.page_size_bytes in {4096, 16384, 65536}
    assert found.cores >= 1
    assert found.limit_bytes > 0
    assert found.limit_source
    assert found.packages["pytest"]
