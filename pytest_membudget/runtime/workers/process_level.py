"""Processes: each worker is one that can be killed, and whose peak is its task's own."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import Any

from pytest_membudget.records.run import Level
from pytest_membudget.runtime.workers.before_start import check_directory, check_threads
from pytest_membudget.runtime.workers.forgotten import drop_forgotten_modules
from pytest_membudget.runtime.workers.fork_server import answering_within, default_context, let_server_end
from pytest_membudget.runtime.workers.main_module import left_alone_where_it_is_no_file
from pytest_membudget.runtime.workers.process import ProcessWorker
from pytest_membudget.runtime.workers.protocol import CannotStartError

_SERVERS_THAT_MAY_BE_KILLED = 2


class ProcessLauncher:
    """Starts worker processes."""

    level: Level = "process"
    own_memory = True

    def __init__(
        self,
        context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        start_timeout_s: float | None = None,
    ) -> None:
        self._start_timeout_s = start_timeout_s
        self._context = context
        self._initializer = initializer
        self._initargs = initargs

    def start(self) -> ProcessWorker:
        """A new worker process, on its way up.

        Raises:
            CannotStartError: no memory, threads, processes or semaphores for one, or it cannot be told what it needs.
        """
        try:
            check_threads()
            check_directory()
            drop_forgotten_modules()
            for _ in range(_SERVERS_THAT_MAY_BE_KILLED):
                try:
                    return self._started()
                except (EOFError, ConnectionError):
                    let_server_end()  # somebody has killed it just then; there will be another
            return self._started()
        except Exception as error:
            # The system's, the standard library's or a pickle's: no function has run yet.
            raise CannotStartError(f"{type(error).__name__}: {error}") from error

    def _started(self) -> ProcessWorker:
        context = self._context or default_context()
        with answering_within(self._start_timeout_s), left_alone_where_it_is_no_file():
            return ProcessWorker(context, self._initializer, self._initargs, self._start_timeout_s)
