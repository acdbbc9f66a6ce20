"""Whether a worker can import the program's main module, as the standard library has it do, and what to do if not.

It cannot where the program was typed in (`python -c`, the prompt, a notebook) or came through a pipe, and it does not
where the program is a package, a folder or a zip file that was run as a whole. Functions of such a program have to
travel by value, which takes cloudpickle.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Iterator

_one_at_a_time = threading.Lock()


def is_found() -> bool:
    """Whether a worker has the functions of the main module under their names."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name = str(spec.name)
        return name != "__main__" and not name.endswith(".__main__")
    return getattr(main, "__file__", None) is not None and not _came_through_a_pipe()


@contextlib.contextmanager
def left_alone_where_it_is_no_file() -> Iterator[None]:
    """While this lasts, workers that start are not told to import `<stdin>`, which would end them."""
    if not _came_through_a_pipe() or importlib.util.find_spec("cloudpickle") is None:
        yield
        return
    main = vars(sys.modules["__main__"])
    with _one_at_a_time:
        name = main.pop("__file__", None)
        try:
            yield
        finally:
            main["__file__"] = name


def _came_through_a_pipe() -> bool:
    name = getattr(sys.modules.get("__main__"), "__file__", None)
    return isinstance(name, str) and name.startswith("<")
