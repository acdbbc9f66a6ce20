"""Where tasks meet workers: the line, the ledger and the crew, and who starts next in which worker.

Owned by one thread (see `dispatcher`), so nothing here is locked. What a worker's reply sets in motion is in
`aftermath`, what happens to a task while it runs in `watch`, which calls wait in a worker in `prefetch`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from pytest_membudget.runtime.executor.admission import Admission
from pytest_membudget.runtime.executor.causes import Failed, given_up, not_run
from pytest_membudget.runtime.executor.cluster_dispatch import ClusterDispatch
from pytest_membudget.runtime.executor.concurrency import Concurrency
from pytest_membudget.runtime.executor.crew import Crew
from pytest_membudget.runtime.executor.heap_readings import HeapLog
from pytest_membudget.runtime.executor.launcher import Call, CannotStartError, Done, RanOut, Reply
from pytest_membudget.runtime.executor.pace import Pace
from pytest_membudget.runtime.executor.placement import Placement
from pytest_membudget.runtime.executor.post import Post, Replied
from pytest_membudget.runtime.executor.prefetch import Prefetch
from pytest_membudget.runtime.executor.replies import conclude
from pytest_membudget.runtime.executor.task import Task


class Floor:
    """Starts tasks and ends them."""

    def __init__(
        self,
        admission: Admission,
        placement: Placement,
        crew: Crew,
        concurrency: Concurrency,
        *,
        most_in_cluster: int | None,
        max_in_flight: int | None,
        degraded_threads: int,
        report: Callable[[Replied], None],
    ) -> None:
        self.admission = admission
        self.crew = crew
        self._cluster = ClusterDispatch(self, placement, most_in_cluster)
        self.concurrency = concurrency
        self._max_in_flight = max_in_flight
        self._degraded_threads = degraded_threads
        self._report = report
        self.pending: deque[Task] = deque()
        self._sequence = 0
        self.pace = Pace()
        self._prefetch = Prefetch(self)
        self.broken: BaseException | None = None
        self.heap_log = HeapLog()

    @property
    def has_waiting(self) -> bool:
        """Whether any task waits to start."""
        return bool(self.pending) or self._line.waiting > 0

    @property
    def _line(self) -> Admission | Placement:
        """Where tasks wait at this level: for memory, or for a worker of the cluster."""
        return self._cluster.placement if self.crew.in_cluster else self.admission

    @property
    def is_hungry(self) -> bool:
        """Whether one more task might start now, or in a cluster be looked at."""
        if self.crew.in_cluster:
            return not self._line.is_full
        if self.is_full():
            return False
        if self.crew.busy() < self.concurrency.now:
            return True
        return any(len(post.in_flight) <= self.pace.enough for post in self.crew.posts)

    def accept(self, task: Task) -> None:
        """Puts a task at the end of the line."""
        if self.broken is not None:
            self.refuse(task, self.broken)
        else:
            self.pending.append(task)

    def withdraw(self, task: Task) -> None:
        """Forgets a task whose future was cancelled."""
        if not task.begin():
            self._line.withdraw(task)

    def cancel_waiting(self) -> None:
        """Cancels every task that has not started."""
        for task in [*self._line.tasks(), *self.pending]:
            if not task.is_running and task.future.cancel():
                self.withdraw(task)

    def end_with(self, error: BaseException) -> None:
        """Gives `error` to every task and ends all workers at once; nothing runs here any more."""
        self.broken = error
        posts = list(self.crew.posts)
        waiting = [*self._line.tasks(), *self.pending]
        running = [task for post in posts for task in post.in_flight]
        self.pending.clear()
        for task in waiting:
            self._line.withdraw(task)
            self.refuse(task, error)
        for post in posts:
            post.in_flight.clear()
        for task in running:
            conclude(task, not_run(error))
        for post in posts:
            post.worker.kill()

    def dispatch(self) -> None:
        """Starts everything that may start now."""
        if self.crew.in_cluster and self._cluster.dispatch():
            return
        while True:
            is_saturated = self.crew.busy() >= self.concurrency.now or self.is_full()
            if not (is_saturated and self.pace.is_fast):
                self.line_up()
            if is_saturated:
                break
            task = self.admission.next(self.crew.aside_bytes(), self.own_bytes)
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
            self.admission.release(post.ticket)
            post.ticket = None
            if post.is_last and not post.is_gone:
                self.crew.retire([post])

    def again(self, task: Task) -> None:
        """Puts a task back to the front of the line."""
        task.ticket = None
        if self.broken is not None:
            self.refuse(task, self.broken)
        else:
            self.pending.appendleft(task)

    def line_up(self) -> None:
        """Lets the tasks that came last into the line, as far as it takes them."""
        while self.pending and not self._line.is_full:
            task = self.pending.popleft()
            if task.is_cancelled:
                continue
            try:
                self._line.line_up(task)
            except Exception as error:  # too large; or the caller's own estimator failed
                self.refuse(task, error)

    @staticmethod
    def refuse(task: Task, error: BaseException) -> None:
        """Gives a task that has not begun its exception."""
        if task.begin():
            conclude(task, not_run(error))

    def _begin(self, task: Task) -> None:
        """Starts a task that has been granted its memory."""
        if not task.begin():
            self.admission.release(task.ticket)
            return
        try:
            post = self.crew.post_for(task)
        except CannotStartError as error:
            self.admission.release(task.ticket)
            conclude(task, Failed(RuntimeError(str(error))))
            return
        except BaseException:  # a defect of ours: this task must be found by who tells everybody
            self.again(task)
            raise
        if post is None:
            self.admission.release(task.ticket)
            self.concurrency.lower_to(self.crew.busy())
            self.again(task)
        elif task.ran_out and not post.launcher.own_memory:
            self.admission.release(task.ticket)
            conclude(task, given_up(task, RanOut(MemoryError()), in_own_memory=False))
        else:
            self._limit_to(post)
            post.ticket = task.ticket
            self.hand(post, task)

    def _limit_to(self, post: Post) -> None:
        if post.level == "sequential":
            self.concurrency.lower_to(1)
        elif post.level == "thread" and self.crew.levels.has_fallen:
            self.concurrency.lower_to(self._degraded_threads)

    def call(self, post: Post, task: Task) -> tuple[Call, Done]:
        """Notes that `post` gets the task, and makes one attempt of it."""
        self._sequence += 1
        task.sequence = self._sequence
        task.level = post.level
        self.crew.take_on(post, task, self.pace.weight(task))
        call = Call(
            task.sequence, task.fn, task.args, task.kwargs, task.charged_bytes or 0, task.is_file, task.exact
        )
        return call, partial(self._put, post, task, task.sequence)

    def hand(self, post: Post, task: Task) -> None:
        """Gives `post` one more call, and sees to its successor in time."""
        post.worker.send(*self.call(post, task))
        if self.crew.nears_its_end(post):
            self.crew.spare()

    def _put(self, post: Post, task: Task, sequence: int, reply: Reply) -> None:
        self._report(Replied(post, task, sequence, reply))

    def is_full(self) -> bool:
        """Whether as many calls are in flight as may be."""
        room = self.room_in_flight()
        return room is not None and room <= 0

    def room_in_flight(self) -> int | None:
        """How many more calls may be in flight; `None` where nobody set a limit."""
        if self._max_in_flight is None:
            return None
        return self._max_in_flight - sum(len(post.in_flight) for post in self.crew.posts)

    def _make_room(self) -> bool:
        """Ends idle workers that keep memory which the line waits for; whether there were any."""
        if not self.admission.waiting:
            return False
        keepers = [post for post in self.crew.idle() if self.crew.excess_bytes(post)]
        self.crew.retire(keepers)
        return bool(keepers)
