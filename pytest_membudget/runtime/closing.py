"""What a `with` block closes or gives back at its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """Closed at the end of its `with` block, and whenever `close` is called."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of what it holds; again, without effect."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Released(ABC):
    """What is released at the end of its `with` block."""

    __slots__ = ()

    @abstractmethod
    def release(self) -> None:
        """Gives back what is held."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
