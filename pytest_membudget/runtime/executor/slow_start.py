"""Slow start: while little is known of a function its calls start one after the other, where the budget might not hold more.

Its first call shows what those after it are charged. The first few inputs may have been the smallest, so until more calls have
ended each next one may take several times what is known. Pure: by what the scheduler knows of the calls that run.
"""

from __future__ import annotations

from pytest_membudget.runtime.executor.local_memory import LocalMemory
from pytest_membudget.runtime.executor.state import Slot, Task
from pytest_membudget.runtime.executor.worker_pool import WorkerPool

STEADY_S = 3.0
"""Where nothing is known of a function the others wait until a call has ended, or has held the same for so long and half
its time: then it is taken for what it will hold."""

FOLLOWS_AFTER_S = 1.0
"""So long after one that was started beside it the next one follows."""

LONGEST_SLOW_START_S = 60.0
"""Other calls are not held up longer by one that goes on growing, and a first call not longer by calls of known functions."""

FEW_CALLS = 8
SPREAD = 4
"""Where fewer calls of a function have ended, the next one may take so many times as much as any before: the first input
may have been the smallest."""

SHOWN_S = 0.2
"""Where the budget would not hold that, the next call follows so long after the one before: two readings."""


def must_wait(following: Task, memory: LocalMemory, pool: WorkerPool) -> bool:
    """Whether one that runs, or starts, will soon show what the next one takes, and the budget might not hold it before."""
    of_few = [slot for slot in pool.slots if slot.running and _is_one_of_few(slot.running[0])]
    if following.charge.calls_seen == 0:
        return _is_being_tried(of_few, pool.now_s) or _may_exceed_beside_known(following, memory, pool)
    return _may_exceed(following, of_few, memory) and any(
        not _has_shown(slot.running[0], pool.now_s) for slot in of_few if slot.backend.own_memory
    )


def _may_exceed(following: Task, of_few: list[Slot], memory: LocalMemory) -> bool:
    """Whether the budget would break where each call of which few are known takes `SPREAD` times what it is charged."""
    following_bytes = following.charged_bytes * (SPREAD if _is_one_of_few(following) else 1)
    running_bytes = sum(slot.lease.charge_bytes for slot in of_few if slot.lease is not None)
    more_bytes = (SPREAD - 1) * running_bytes + following_bytes
    return bool(of_few) and memory.ledger.reserved_bytes + more_bytes > memory.obtainable_bytes


def _may_exceed_beside_known(first: Task, memory: LocalMemory, pool: WorkerPool) -> bool:
    """Whether a function's first call would break the budget with `SPREAD` times its charge, and known ones will soon end."""
    if memory.ledger.reserved_bytes + SPREAD * first.charged_bytes <= memory.obtainable_bytes:
        return False
    running = (slot.running[0] for slot in pool.slots if slot.running and slot.backend.own_memory)
    return any(
        task.began_s is None or pool.now_s - task.began_s < LONGEST_SLOW_START_S
        for task in running
        if not _is_one_of_few(task)
    )


def _is_one_of_few(task: Task) -> bool:
    calls_seen = task.charge.calls_seen
    return calls_seen is not None and calls_seen < FEW_CALLS


def _is_being_tried(of_few: list[Slot], now_s: float) -> bool:
    """Whether a first call of its function runs that will soon show what the others take; the one after that takes less time to."""
    tried = [slot.running[0] for slot in of_few if not slot.running[0].charge.calls_seen]
    tried.sort(key=lambda task: task.sequence)
    return any(
        _may_grow(task, now_s, FOLLOWS_AFTER_S if number else STEADY_S) for number, task in enumerate(tried)
    )


def _has_shown(task: Task, now_s: float) -> bool:
    """Whether a running call has had the time to show what it takes at first; one above its charge, what it takes at all."""
    if not task.charge.calls_seen:
        return not _may_grow(task, now_s, STEADY_S)
    if task.began_s is None or now_s - task.began_s < SHOWN_S:
        return False
    return task.held_bytes <= task.charged_bytes or not _may_grow(task, now_s, FOLLOWS_AFTER_S)


def _may_grow(task: Task, now_s: float, steady_after_s: float) -> bool:
    """Whether what a running call holds says nothing yet of what it will take."""
    if task.began_s is None:
        return True
    age_s = now_s - task.began_s
    steady_s = now_s - max(task.began_s, task.grew_s)
    return age_s < LONGEST_SLOW_START_S and steady_s < max(steady_after_s, age_s / 2)
