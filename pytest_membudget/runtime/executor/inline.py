"""The sequential level as the caller meets it: each call runs inside `submit`."""

from __future__ import annotations

import threading

from pytest_membudget.runtime.executor.admission import Admission
from pytest_membudget.runtime.executor.causes import Again, not_run
from pytest_membudget.runtime.executor.replies import Rules, broken_by, conclude, learn, verdict
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.in_process import SequentialLauncher
from pytest_membudget.runtime.workers.protocol import Call, InitializerFailed, Reply, Worker


class Inline:
    """Runs one task at a time, in the thread that brings it; a task may bring another one."""

    def __init__(self, launcher: SequentialLauncher, admission: Admission, rules: Rules) -> None:
        self._launcher = launcher
        self._admission = admission
        self._rules = rules
        self._lock = threading.RLock()
        self._worker: Worker | None = None
        self.broken: BaseException | None = None

    def run(self, task: Task) -> None:
        """Runs `task`; its future is done when this returns.

        Raises:
            KeyboardInterrupt: the user pressed Ctrl-C meanwhile.
        """
        with self._lock:
            if not task.begin():
                return
            task.level = "sequential"
            try:
                self._admission.check_size(task)
            except Exception as error:  # too large; or the caller's own estimator failed
                conclude(task, not_run(error))
                return
            if self._worker is None:
                self._worker = self._launcher.start()
            task.attempts += 1
            call = Call(task.sequence, task.fn, task.args, task.kwargs)
            self._worker.send(call, lambda reply: self._replied(task, reply))

    def _replied(self, task: Task, reply: Reply) -> None:
        learn(task, "sequential", reply.figures)
        if isinstance(reply, InitializerFailed):
            self.broken = broken_by(reply.error)
        what = verdict(task, reply, self._rules, in_own_memory=False)
        if not isinstance(what, Again):  # nothing is repeated inside the coordinator
            conclude(task, what)
