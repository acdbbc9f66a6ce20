"""Where a handler may raise: never where that would leave a lock taken."""

import logging
import signal
import sys
from types import SimpleNamespace

import pytest

from pytest_membudget.errors import WatchdogStop
from pytest_membudget.measurement.growth import repeat
from pytest_membudget.measurement.growth.repeat import CallTooLongError, interrupted_after
from pytest_membudget.measurement.thread_stacks import _Interruption

IN_LOGGING = SimpleNamespace(f_code=logging.Logger.isEnabledFor.__code__)


def test_a_stop_waits_until_logging_is_left():
    interruption = _Interruption()
    interruption.armed = True
    interruption.handle(0, IN_LOGGING)
    assert interruption.armed
    with pytest.raises(WatchdogStop):
        interruption.handle(0, sys._getframe())
    assert not interruption.armed


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no interval timers here")
def test_a_time_limit_waits_until_logging_is_left():
    number = repeat._free_signal()
    with interrupted_after(60, lambda: True):
        handler = signal.getsignal(number)
        handler(number, IN_LOGGING)
        with pytest.raises(CallTooLongError):
            handler(number, sys._getframe())
