"""The one tree helper of this process: started when first asked for, replaced once if it dies, and why there is none."""

from __future__ import annotations

import atexit

from pytest_membudget.measurement.process import high_water
from pytest_membudget.measurement.tree.client import SamplerLostError, TreeSampler
from pytest_membudget.originals import logging, os, restored, sys, threading
from pytest_membudget.records.caveats import Caveat

_logger = logging.getLogger("pytest_membudget")


class _Keeper:
    """The one helper of this process, and why there is none."""

    def __init__(self) -> None:
        self.sampler: TreeSampler | None = None
        self.lost = 0
        self.reason = ""
        self.lock = threading.Lock()


_keeper = _Keeper()

RESTARTS = 1


def sampler() -> TreeSampler | None:
    """The helper, started when first asked for or dead; `None` where there can be none, for `why_not`."""
    if sys.platform != "linux":
        return None
    with _keeper.lock:
        if _keeper.sampler is not None and not _keeper.sampler.is_alive():
            _forget(SamplerLostError("it ended by itself or was killed"))
        if _keeper.sampler is None and _keeper.lost <= RESTARTS:
            try:
                with restored():
                    _keeper.sampler = TreeSampler()
            except SamplerLostError as error:
                _lost(error)
        return _keeper.sampler


def helper_pid() -> int:
    """The helper's process, which is no part of any tree; 0 where there is none. Starts none."""
    helper = _keeper.sampler
    return 0 if helper is None else helper.pid


def is_starting() -> bool:
    """Whether a helper is being started, or searched for, just now."""
    return _keeper.lock.locked()


def report_loss(lost: TreeSampler, error: SamplerLostError) -> Caveat:
    """Notes that `lost` is gone; the next measurement starts another one, once. Returns the doubt about this one."""
    with _keeper.lock:
        if _keeper.sampler is lost:
            _forget(error)
    return Caveat("helper-lost", detail=str(error))


def why_not() -> str:
    """Why there is no helper, as a sentence; empty while there is one or none was needed."""
    if sys.platform != "linux":
        return "process trees are followed exactly on Linux only"
    return _keeper.reason if _keeper.sampler is None else ""


def close_sampler() -> None:
    """Ends the helper and closes what is kept open; a later measurement starts another."""
    high_water.close_files()
    with _keeper.lock:
        if _keeper.sampler is not None:
            _keeper.sampler.close()
            _keeper.sampler = None


def _forget(error: SamplerLostError) -> None:
    assert _keeper.sampler is not None
    _keeper.sampler.forget()
    _keeper.sampler = None
    _lost(error)


def _lost(error: SamplerLostError) -> None:
    _keeper.lost += 1
    again = "starting another one" if _keeper.lost <= RESTARTS else "sampling from inside from now on"
    _keeper.reason = f"the helper process that watches children was lost: {error}"
    _logger.warning("%s; %s", _keeper.reason, again)


def _forget_in_child() -> None:
    """A forked child has a helper of its own when it measures; this one belongs to its parent."""
    if _keeper.sampler is not None:
        _keeper.sampler.forget()
    _keeper.__init__()  # type: ignore[misc]


atexit.register(close_sampler)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
