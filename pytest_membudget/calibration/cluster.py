"""The runs of a calibration on the hosts of a Dask cluster: each in a fresh interpreter there, one at a time on a host."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from pytest_membudget.calibration import remote_run
from pytest_membudget.calibration.function_reference import FunctionReference
from pytest_membudget.calibration.places import Finished, LeftS
from pytest_membudget.calibration.plan import PlannedRun
from pytest_membudget.calibration.worker import Answer
from pytest_membudget.errors import CalibrationError
from pytest_membudget.runtime.cluster.host_pool import LentHosts
from pytest_membudget.runtime.workers.protocol import CannotStartError, Died, Reply, Returned

_logger = logging.getLogger("pytest_membudget.calibration")


class OnCluster:
    """A Dask cluster, by its scheduler's address, a scheduler file or a `distributed.Client`."""

    def __init__(
        self, cluster: Any, function: FunctionReference, plan: Sequence[PlannedRun], kind: str, seed: int
    ) -> None:
        self._cluster = cluster
        self._function = function
        self._warm_up = min(plan, key=lambda run: run.size_bytes).path
        self._kind = kind
        self._seed = seed
        self._token = uuid.uuid4().hex

    def finished(self, todo: Sequence[PlannedRun], left_s: LeftS) -> Generator[Finished, None, None]:
        """As the protocol says.

        Raises:
            CalibrationError: no scheduler answers, no worker can be used, or the cluster is gone.
            MissingExtraError: Dask is not installed here.
        """
        if not todo:
            return
        with LentHosts(self._cluster, _tell) as hosts:
            try:
                for item, host, reply in hosts.spread(remote_run.carry_out, self._orders(todo, left_s)):
                    yield _read(item.run, host, reply)
            except CannotStartError as error:
                raise CalibrationError(f"the cluster cannot be used: {error}") from None
            finally:
                hosts.call_off(remote_run.call_off, self._token)

    def _orders(self, todo: Sequence[PlannedRun], left_s: LeftS) -> Iterator[remote_run.RemoteOrder]:
        for run in todo:
            timeout_s = left_s()
            if timeout_s == 0:
                return
            yield remote_run.order_for(
                self._token,
                self._function,
                run,
                self._warm_up,
                kind=self._kind,
                seed=self._seed,
                timeout_s=timeout_s,
            )


def _read(run: PlannedRun, host: str, reply: Reply) -> Finished:
    """What came of the run; what went wrong around it names the host."""
    match reply:
        case Returned(value=Finished() as finished):
            return finished
        case Died(detail=detail):
            return Finished(run, run.size_bytes, Answer(failed_at="run", error=detail))
    error = getattr(reply, "error", reply)
    raise CalibrationError(f"a run could not be made on host {host}: {type(error).__name__}: {error}")


def _tell(cause: str, next_step: str) -> None:
    _logger.warning("%s; %s", cause, next_step)
