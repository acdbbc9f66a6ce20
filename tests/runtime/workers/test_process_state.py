"""A task begins as the initializer left its worker, whatever the tasks before have done to the process."""

import os
import sys

import executor_jobs as jobs
import pytest

from pytest_membudget import FallbackExecutor

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="what POSIX knows"),
]


def test_what_a_task_changes_in_its_process_is_set_back(tmp_path):
    with FallbackExecutor(1, budget="1 GB") as executor:
        before = executor.submit(jobs.state_of_the_process, 0).result()
        pid = executor.submit(jobs.change_the_process, str(tmp_path)).result()
        after = executor.submit(jobs.state_of_the_process, 0).result()
    assert pid == before[0]
    assert after == before


def test_a_worker_that_cannot_be_set_back_is_replaced(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    with FallbackExecutor(1, budget="1 GB", initializer=os.chdir, initargs=(str(folder),)) as executor:
        pid = executor.submit(jobs.remove_the_folder, str(folder)).result()
        folder.mkdir()
        others = [executor.submit(jobs.state_of_the_process, number) for number in range(3)]
        found = [each.result() for each in others]
    assert pid not in {number for number, _ in found}
    assert {state[0] for _, state in found} == {str(folder)}
    assert executor.events == ()
