"""Where tasks meet workers: who starts next in which worker, how a place becomes free, and how all of it ends.

Owned by one thread (see `dispatcher`), so nothing here is locked. Who waits is in `line`, what is on its way to a worker in
`handover`, which calls wait in a worker in `prefetch`, and what a cluster's workers get in `cluster_dispatch`. What a
worker's reply sets in motion is in `aftermath`, what happens to a task while it runs in `watch`.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor

from pytest_membudget.runtime.executor.causes import Failed, given_up, not_run
from pytest_membudget.runtime.executor.cluster_dispatch import ClusterDispatch
from pytest_membudget.runtime.executor.concurrency import Concurrency
from pytest_membudget.runtime.executor.handover import Handover
from pytest_membudget.runtime.executor.line import Line
from pytest_membudget.runtime.executor.prefetch import Prefetch
from pytest_membudget.runtime.executor.replies import conclude
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.workers.protocol import CannotStartError, RanOut
from pytest_membudget.runtime.workers.slot import Post
from pytest_membudget.runtime.workers.worker_growth import HeapLog


class Floor:
    """Starts tasks and ends them. `most_in_cluster` of them run at once in a cluster; `None` for one in each worker."""

    def __init__(
        self,
        line: Line,
        handover: Handover,
        concurrency: Concurrency,
        *,
        most_in_cluster: int | None,
        degraded_threads: int,
    ) -> None:
        self.line = line
        self.handover = handover
        self.crew = handover.crew
        self.concurrency = concurrency
        self._degraded_threads = degraded_threads
        self._prefetch = Prefetch(line, handover)
        self._cluster = ClusterDispatch(line, handover, most_in_cluster)
        self.heap_log = HeapLog()

    @property
    def is_hungry(self) -> bool:
        """Whether one more task might start now, or in a cluster be looked at."""
        if self.crew.in_cluster:
            return self.line.takes_more
        if self.handover.is_full():
            return False
        if self.crew.busy() < self.concurrency.now:
            return True
        return any(len(post.in_flight) <= self.handover.pace.enough for post in self.crew.posts)

    def end_with(self, error: BaseException) -> None:
        """Gives `error` to every task and ends all workers at once; nothing runs here any more."""
        posts = list(self.crew.posts)
        running = [task for post in posts for task in post.in_flight]
        self.line.end_with(error)
        for post in posts:
            post.in_flight.clear()
        for task in running:
            conclude(task, not_run(error))
        for post in posts:
            post.worker.kill()

    def dispatch(self) -> None:
        """Starts everything that may start now."""
        try:
            if self.crew.in_cluster and self._cluster.dispatch():
                return
        except CannotStartError as error:
            self.end_with(BrokenExecutor(str(error)))
            return
        while True:
            is_saturated = self.crew.busy() >= self.concurrency.now or self.handover.is_full()
            if not (is_saturated and self.handover.pace.is_fast):
                self.line.line_up()
            if is_saturated:
                break
            aside_bytes = self.crew.aside_bytes() + self.crew.start_bytes()
            task = self.line.admission.next(aside_bytes, self.own_bytes)
            if task is not None:
                self._begin(task)
            elif not self._make_room():
                break
        self._prefetch.fill()

    def own_bytes(self) -> int:
        """What the workers hold above what they held when they were ready."""
        return sum(post.worker.added_bytes() for post in self.crew.posts)

    def leave(self, post: Post) -> None:
        """A call has ended: the lease goes back, or on to the next call of the same worker."""
        if not post.in_flight:
            self.line.admission.release(post.ticket)
            post.ticket = None
            if post.is_last and not post.is_gone:
                self.crew.retire([post])

    def _begin(self, task: Task) -> None:
        """Starts a task that has been granted its memory."""
        admission = self.line.admission
        if not task.begin():
            admission.release(task.ticket)
            return
        if task.ticket is not None and task.ticket.exclusive:
            self.crew.retire(self.crew.surplus(leave_one=not task.attempts))
        try:
            post = self.crew.post_for(task)
        except CannotStartError as error:
            admission.release(task.ticket)
            conclude(task, Failed(RuntimeError(str(error))))
            return
        except BaseException:  # a defect of ours: this task must be found by who tells everybody
            self.line.again(task)
            raise
        if post is None:
            admission.release(task.ticket)
            self.concurrency.lower_to(self.crew.busy())
            self.line.again(task)
        elif task.ran_out and not post.launcher.own_memory:
            admission.release(task.ticket)
            conclude(task, given_up(task, RanOut(MemoryError()), in_own_memory=False))
        else:
            self._limit_to(post)
            post.ticket = task.ticket
            self.handover.hand(post, task)

    def _limit_to(self, post: Post) -> None:
        if post.level == "sequential":
            self.concurrency.lower_to(1)
        elif post.level == "thread" and self.crew.levels.has_fallen:
            self.concurrency.lower_to(self._degraded_threads)

    def _make_room(self) -> bool:
        """Ends the idle worker that keeps most of the memory which the line waits for; whether there was one.

        Where all of them together keep too little for the next task, its memory has to come from those that are busy.
        """
        surplus = self.crew.surplus() if self.line.admission.waiting else []
        kept_bytes = sum(self.crew.warmth.charged_bytes(self.crew.own_bytes(post)) for post in surplus)
        if not surplus or (self.crew.busy() and kept_bytes < self.line.admission.lacking_bytes()):
            return False
        self.crew.retire(surplus[:1])
        return True
