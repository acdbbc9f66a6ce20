"""What workers of a cluster say while they do not come to a call; what follows is in test_scheduler_starts."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from pytest_membudget.runtime.cluster.connection import Offer
from pytest_membudget.runtime.cluster.membership import Membership, WorkerRegistry
from pytest_membudget.runtime.cluster.remote_worker import RemoteWorker
from pytest_membudget.runtime.cluster.worker_side import Hello, Progress


def test_a_worker_of_a_cluster_says_whether_it_has_called_the_function():
    who = Hello("there", 7, (), 0)
    remote = RemoteWorker(SimpleNamespace(), "tcp://there:1", who, 1000, 0, has_nanny=False)
    remote.update(Progress(3, False, 5.0, 0, ()))
    now_s = time.monotonic()
    assert remote.reading(3).started_s is None
    assert remote.reading(4).delay is None
    delay = remote.reading(3).delay
    assert delay.stage == "import"
    assert now_s - 5.1 < delay.since_s <= now_s - 5.0
    remote.update(Progress(3, True, 2.0, 0, ()))
    assert remote.reading(3).delay is None
    assert now_s - 2.1 < remote.reading(3).started_s <= time.monotonic() - 2.0


def test_a_worker_of_a_cluster_whose_initializer_never_returns_is_not_used():
    pytest.importorskip("cloudpickle")

    class Connection:
        token = "t"

        async def workers(self):
            return {"tcp://there:1": Offer(1000, has_nanny=False)}

        async def run_on(self, *_):
            await asyncio.sleep(3600)

    told = []
    membership = Membership(
        Connection(), WorkerRegistry(), make_worker=None, report=lambda *each: told.append(each), initializer=None, initargs=(), start_timeout_s=0.01
    )  # fmt: skip
    asyncio.run(membership.open())
    assert "was not ready within 0.01 s" in membership.why_no_worker()
    assert [next_step for _, next_step in told] == ["it is not used"]
