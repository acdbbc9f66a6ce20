"""When the program is over, so is the fork server it started."""

import subprocess
import sys
import textwrap

import psutil
import pytest

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="fork servers are Linux's"),
]


def test_nothing_runs_on_after_the_program():
    code = """
        from multiprocessing import forkserver
        from pytest_membudget import FallbackExecutor
        if __name__ == "__main__":
            with FallbackExecutor(max_workers=1) as executor:
                assert executor.submit(len, "abc").result() == 3
            print(forkserver._forkserver._forkserver_pid)
    """
    server_pid = int(
        subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True, timeout=60)
    )
    try:
        status = psutil.Process(server_pid).status()
    except psutil.NoSuchProcess:
        status = "gone"
    assert status in ("gone", psutil.STATUS_ZOMBIE)
