"""What a worker takes over from the coordinator as it is now: a fork server may be older than that."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple, Self

_LIMITS = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE")


class Surroundings(NamedTuple):
    """The environment, and resource limits by their number in `resource`: soft and hard, each in its own unit."""

    environment: Mapping[str, str]
    limits: Mapping[int, tuple[int, int]]

    @classmethod
    def of_now(cls) -> Self:
        """This process's."""
        return cls(dict(os.environ), _limits())

    def take_over(self) -> None:
        """Makes them this process's own."""
        if dict(os.environ) != dict(self.environment):
            os.environ.clear()
            os.environ.update(self.environment)
        if not self.limits:
            return
        import resource

        for which, limits in self.limits.items():
            if resource.getrlimit(which) != limits:
                with contextlib.suppress(ValueError, OSError):  # raising one may need a privilege
                    resource.setrlimit(which, limits)


def _limits() -> dict[int, tuple[int, int]]:
    if sys.platform == "win32":
        return {}
    import resource

    which = [getattr(resource, name) for name in _LIMITS if hasattr(resource, name)]
    return {each: resource.getrlimit(each) for each in which}
