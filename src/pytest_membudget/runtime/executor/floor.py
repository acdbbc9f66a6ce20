"""Where tasks meet workers: the line, the ledger and the crew, and who starts next in which worker.

Owned by one thread (see `dispatcher`), so nothing here is locked. What a worker's reply sets in motion is in
`aftermath`, what happens to a task while it runs in `watch`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from pytest_membudget.errors import OversizeError, WorkerKilledError
from pytest_membudget.runtime.executor.admission import Admission
from pytest_membudget.runtime.executor.causes import given_up
from pytest_membudget.runtime.executor.cluster_dispatch import ClusterDispatch
from pytest_membudget.runtime.executor.concurrency import Concurrency
from pytest_membudget.runtime.executor.crew import Crew, Post
from pytest_membudget.runtime.executor.heap_readings import HeapLog
from pytest_membudget.runtime.executor.launcher import Call, CannotStartError, Done, RanOut, Reply
from pytest_membudget.runtime.executor.placement import Placement
from pytest_membudget.runtime.executor.replies import conclude, failed
from pytest_membudget.runtime.executor.task import Task
from pytest_membudget.runtime.ledger import Ticket

SHORT_S = 0.02
"""Tasks below this are queued one ahead in their worker, so that it need not wait for the next."""

TINY_S = 0.005
"""Tasks below this are queued seven ahead."""

_DEPTH_OF_SHORT = 2
_DEPTH_OF_TINY = 8


class Replied(NamedTuple):
    """A worker's answer to one call."""

    post: Post
    task: Task
    sequence: int
    reply: Reply


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
        self._pending: deque[Task] = deque()
        self._sequence = 0
        self.mean_s = 1.0
        self.broken: BaseException | None = None
        self.heap_log = HeapLog()

    @property
    def has_waiting(self) -> bool:
        """Whether any task waits to start."""
        return bool(self._pending) or self._line.waiting > 0

    @property
    def _line(self) -> Admission | Placement:
        """Where tasks wait at this level: for memory, or for a worker of the cluster."""
        return self._cluster.placement if self.crew.in_cluster else self.admission

    @property
    def tasks_are_short(self) -> bool:
        """Whether tasks end faster than a worker gets its next one."""
        return self.mean_s <= SHORT_S

    @property
    def is_hungry(self) -> bool:
        """Whether one more task might start now, or in a cluster be looked at."""
        if self.crew.in_cluster:
            return not self._line.is_full
        if self.is_full():
            return False
        if self.crew.busy() < self.concurrency.now:
            return True
        depth = self._depth()
        return any(len(post.in_flight) <= depth // 2 for post in self.crew.posts)

    @property
    def enough(self) -> int:
        """A worker with more calls than this left needs no more yet."""
        return self._depth() // 2

    def accept(self, task: Task) -> None:
        """Puts a task at the end of the line."""
        if self.broken is not None:
            self.refuse(task, self.broken)
        else:
            self._pending.append(task)

    def withdraw(self, task: Task) -> None:
        """Forgets a task whose future was cancelled."""
        if not task.begin():
            self._line.withdraw(task)

    def cancel_waiting(self) -> None:
        """Cancels every task that has not started."""
        for task in [*self._line.tasks(), *self._pending]:
            if not task.is_running and task.future.cancel():
                self.withdraw(task)

    def end_now(self) -> None:
        """Ends all workers at once; what they ran is reported, not repeated."""
        posts = list(self.crew.posts)
        self.fail_everything(WorkerKilledError("the executor was ended while this task ran"))
        for post in posts:
            post.worker.kill()

    def fail_everything(self, error: BaseException) -> None:
        """Gives `error` to every task; nothing runs here any more."""
        self.broken = error
        waiting = [*self._line.tasks(), *self._pending]
        running = [task for post in self.crew.posts for task in post.in_flight]
        self._pending.clear()
        for task in waiting:
            self._line.withdraw(task)
            self.refuse(task, error)
        for post in self.crew.posts:
            post.in_flight.clear()
        for task in running:
            conclude(task, failed(error))

    def dispatch(self) -> None:
        """Starts everything that may start now."""
        if self.crew.in_cluster and self._cluster.dispatch():
            return
        while True:
            is_saturated = self.crew.busy() >= self.concurrency.now or self.is_full()
            if not (is_saturated and self.tasks_are_short):
                self.line_up()
            if is_saturated:
                break
            task = self.admission.next(self.crew.aside_bytes(), self.own_bytes)
            if task is not None:
                self._begin(task)
            elif not self._make_room():
                break
        self._queue_ahead()

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
            self._pending.appendleft(task)

    def note_duration(self, duration_s: float) -> None:
        """Follows how long tasks usually take."""
        self.mean_s += (duration_s - self.mean_s) / 8

    def line_up(self) -> None:
        """Lets the tasks that came last into the line, as far as it takes them."""
        while self._pending and not self._line.is_full:
            task = self._pending.popleft()
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
            conclude(task, failed(error, "oversize" if isinstance(error, OversizeError) else "error"))

    def _begin(self, task: Task) -> None:
        """Starts a task that has been granted its memory."""
        if not task.begin():
            self.admission.release(task.ticket)
            return
        try:
            post = self.crew.post_for(task)
        except CannotStartError as error:
            self.admission.release(task.ticket)
            conclude(task, failed(RuntimeError(str(error))))
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
            self._hand(post, task)

    def _limit_to(self, post: Post) -> None:
        if post.level == "sequential":
            self.concurrency.lower_to(1)
        elif post.level == "thread" and self.crew.has_fallen:
            self.concurrency.lower_to(self._degraded_threads)

    def call(self, post: Post, task: Task) -> tuple[Call, Done]:
        """Notes that `post` gets the task, and makes one attempt of it."""
        self._sequence += 1
        task.sequence = self._sequence
        task.level = post.level
        self.crew.take_on(post, task, self._weight(task))
        call = Call(
            task.sequence, task.fn, task.args, task.kwargs, task.charged_bytes or 0, task.is_file, task.exact
        )
        return call, partial(self._put, post, task, task.sequence)

    def _hand(self, post: Post, task: Task) -> None:
        post.worker.send(*self.call(post, task))
        if self.crew.nears_its_end(post):
            self.crew.spare()

    def _weight(self, task: Task) -> float:
        """Files count one each. Calls far shorter than it takes to start a worker count by their time."""
        return 1.0 if task.exact or not self.tasks_are_short else self.mean_s / SHORT_S

    def _put(self, post: Post, task: Task, sequence: int, reply: Reply) -> None:
        self._report(Replied(post, task, sequence, reply))

    def _queue_ahead(self) -> None:
        """A few tasks ahead in each worker, in the order of the line, under the lease that the worker has."""
        depth = self._depth()
        for post in self.crew.posts:
            # Several at a time: the pool's thread, woken once, takes all of them.
            if not 1 <= len(post.in_flight) <= depth // 2 or not _may_queue_behind(post):
                continue
            while len(post.in_flight) < depth and not post.is_last and not self.is_full():
                task = self._next_behind(post.ticket)
                if task is None:
                    return
                if task.begin():
                    self._hand(post, task)

    def _next_behind(self, ticket: Ticket | None) -> Task | None:
        """Who is next, where the worker's lease is enough for it. One that nobody waits before needs no line."""
        if self.admission.waiting == 0:
            if self._pending and self.admission.fits_within(self._pending[0], ticket):
                return self._pending.popleft()
            self.line_up()
        return self.admission.head_within(ticket)

    def _depth(self) -> int:
        """How many calls a worker may have at a time."""
        if not self.tasks_are_short:
            return 1
        return _DEPTH_OF_TINY if self.mean_s <= TINY_S else _DEPTH_OF_SHORT

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


def now() -> float:
    """The clock that workers use as well."""
    return time.monotonic()


def _may_queue_behind(post: Post) -> bool:
    return post.launcher.own_memory and post.ticket is not None and not post.ticket.exclusive
