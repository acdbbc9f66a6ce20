"""What a task raises reaches the caller: its type, its text, its attributes and its traceback, whatever it does when pickled."""

import pickle
import subprocess
import sys
import threading

import pytest

from pytest_membudget.runtime.workers import worker_main
from pytest_membudget.runtime.workers.protocol import Raised, Unpicklable
from pytest_membudget.runtime.workers.serialization import Report, by_name, unpacked


class ParseError(Exception):
    """As in libraries: its `__init__` takes other arguments than it hands on."""

    def __init__(self, path, line):
        super().__init__(f"{path}: line {line} is broken")
        self.path = path


class HoldsLockError(Exception):
    def __init__(self):
        super().__init__("holds a lock")
        self.lock = threading.Lock()
        self.kept = 7


class LockArgumentError(Exception):
    def __str__(self):
        return "a lock among its arguments"


class BrokenFileError(SyntaxError):
    """As lxml's: its `__init__` takes more than it hands on, and it keeps a log that cannot be pickled."""

    def __init__(self, text, log, line):
        super().__init__(text)
        self.log = log
        self.lineno = line


class FarFileError(OSError):
    def __init__(self, url):
        super().__init__(5, "cannot be read", url)
        self.lock = threading.Lock()


class SilentError(Exception):
    def __str__(self):
        raise ValueError("no text")


class KeywordsOnlyError(Exception):
    def __init__(self, *, code):
        super().__init__(code)
        self.code = code


def reply_to(error):
    """What the caller gets for a task that raises `error`."""

    def fail():
        raise error

    ending, body = worker_main._called(fail, (), {}, by_name)
    return unpacked(Report(ending, body), "fail", "here")


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (ValueError("plain"), {}),
        (OSError(2, "no such file", "a.csv"), {"filename": "a.csv", "errno": 2}),
        (ParseError("a.csv", 17), {"path": "a.csv"}),
        (HoldsLockError(), {"kept": 7}),
        (KeywordsOnlyError(code=5), {"code": 5}),
        (BrokenFileError("no end", threading.Lock(), 11), {"lineno": 11, "msg": "no end"}),
        (FarFileError("s3://a"), {"filename": "s3://a", "errno": 5}),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), {"reason": "invalid"}),
        (KeyboardInterrupt("of the task's own"), {}),
        (SystemExit(3), {"code": 3}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_arrives_as_itself(error, attributes):
    reply = reply_to(error)
    assert isinstance(reply, Raised)
    assert (type(reply.error), str(reply.error)) == (type(error), str(error))
    assert {name: getattr(reply.error, name) for name in attributes} == attributes
    assert "in fail" in str(reply.error.__cause__)


@pytest.mark.parametrize(
    "error",
    [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), SystemExit(3), OSError(2, "no such file")],
    ids=lambda error: type(error).__name__,
)
def test_it_arrives_so_where_dask_has_installed_its_way_of_pickling_exceptions(error):
    code = (
        "import pickle\n"
        "import tblib.pickling_support\n"
        "from pytest_membudget.runtime.workers import serialization\n"
        "tblib.pickling_support.install()\n"
        "try:\n"
        f"    raise {error!r}\n"
        "except BaseException as error:\n"
        "    arrived = pickle.loads(serialization.packed_error(error, pickle.dumps))\n"
        "    print(type(arrived).__name__, arrived)\n"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{type(error).__name__} {error}"


def test_an_exception_whose_base_in_c_cannot_make_it_arrives():
    etree = pytest.importorskip("lxml.etree")
    try:
        etree.fromstring("<a><b></a>")
    except etree.XMLSyntaxError as error:
        arrived = reply_to(error).error
        assert (type(arrived), str(arrived), arrived.lineno) == (type(error), str(error), error.lineno)


def test_a_group_arrives_with_all_that_is_in_it():
    group = ExceptionGroup("two", [ValueError("plain"), ExceptionGroup("inner", [ParseError("a.csv", 17)])])
    arrived = reply_to(group).error
    assert arrived.message == "two"
    first, inner = arrived.exceptions
    assert (str(first), inner.message, inner.exceptions[0].path) == ("plain", "inner", "a.csv")


def test_arguments_that_cannot_travel_are_replaced_by_the_text():
    reply = reply_to(LockArgumentError(threading.Lock()))
    assert (type(reply.error), reply.error.args) == (LockArgumentError, ("a lock among its arguments",))


def test_an_exception_without_a_text_arrives():
    assert type(reply_to(SilentError()).error) is SilentError


def test_where_its_type_cannot_be_imported_type_text_and_traceback_are_told():
    class LocalError(Exception):
        pass

    reply = reply_to(LocalError("inside"))
    assert isinstance(reply, Unpicklable)
    assert "LocalError: inside" in str(reply.error)
    assert "in fail" in str(reply.error.__cause__)


def test_what_arrives_can_be_pickled_again():
    """An executor in a worker of another one hands its errors on."""
    reply = reply_to(ValueError("plain"))
    assert str(pickle.loads(pickle.dumps(reply.error))) == "plain"
