"""Files that are not what they should be: one sentence with the file and the place, and never a traceback."""

import copy
import json
import os
import random

import pytest
from sample_report import full_report

from pytest_membudget.cli import main
from pytest_membudget.errors import UnreadableFileError
from pytest_membudget.gate.baseline import compare_reports, load_baseline, make_baseline
from pytest_membudget.report.html import render_html
from pytest_membudget.report.markdown import (
    render_annotations,
    render_benchmark_json,
    render_markdown,
    render_step_summary,
)
from pytest_membudget.report.terminal import render_terminal
from pytest_membudget.report.writing import load_report, render_json

GOOD = render_json(full_report())
HEAD = '{"format": "membudget-report", "version": 1, "kind": "report", "tests": '
CASES = {
    "": "it ends too early, in line 1",
    "{": "it ends too early",
    GOOD[:5000].decode(): "it ends too early, in line 2",
    "[]": "Expected `object`, got `array`",
    "{}": '"format" is None, not "membudget-report"; is it the right file?',
    '{"format": "coverage"}': '"format" is \'coverage\', not "membudget-report"',
    '{"format": "membudget-report", "version": 2, "tests": 7}': "of version 2 and this pytest-membudget reads version 1",
    '{"format": "membudget-report"}': 'it has no "version"',
    '{"format": "membudget-report", "version": 1, "kind": "report"}': 'it has no "tests"',
    '{"format": "membudget-report", "version": "x", "kind": "report", "tests": []}': "`$.version`",
    HEAD + "5}": "Expected `array`, got `int` - at `$.tests`",
    HEAD + '[{"outcome": "passed"}]}': "missing required field `nodeid` - at `$.tests[0]`",
    HEAD + '[{"nodeid": "a", "outcome": "great"}]}': "'great' - at `$.tests[0].outcome`",
    HEAD
    + '[{"nodeid": "a", "outcome": "passed", "peak_bytes": NaN}]}': "invalid character in line 1, column",
    HEAD + '[{"nodeid": "a", "outcome": "passed", "peak_bytes": -1}]}': ">= 0 - at `$.tests[0].peak_bytes`",
    HEAD
    + '[{"nodeid": "a", "outcome": "passed", "peak_bytes": 1.5}]}': "got `float` - at `$.tests[0].peak_bytes`",
    HEAD
    + '[{"nodeid": "a", "outcome": "passed", "peak_bytes": 9223372036854775808}]}': "`$.tests[0].peak_bytes`",
    HEAD + '[{"nodeid": "a", "outcome": "passed", "peak_bytes": 1' + "0" * 5000 + "}]}": "out of range",
    HEAD + '[{"nodeid": "a", "outcome": "passed", "duration_s": 1e999}]}': "out of range",
    HEAD + '[{"nodeid": "a", "outcome": "passed", "outcome": "failed"}]}': (
        "the key 'outcome' stands twice in one object, which begins with 'nodeid': 'a'"
    ),
    HEAD
    + '[{"nodeid": "a", "outcome": "passed"}, {"nodeid": "a", "outcome": "passed"}]}': "has the test 'a' twice",
    HEAD + '[], "tests": []}': "the key 'tests' stands twice",
    HEAD
    + "[" * 100_000: "is not a membudget",  # nested too deeply, or ended too early: as deep as the stack is
}


@pytest.mark.parametrize("number", range(len(CASES)))
@pytest.mark.parametrize("load", [load_report, load_baseline])
def test_one_sentence_names_the_file_and_the_place(tmp_path, number, load):
    content, told = list(CASES.items())[number]
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(UnreadableFileError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert told in message
    assert "\n" not in message
    assert path.read_text() == content


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "bad.json"
    path.write_bytes(GOOD.replace(b"worker", b"work\xffr"))
    with pytest.raises(UnreadableFileError, match=r"bad\.json is not a membudget report"):
        load_report(path)


def test_a_gigabyte_is_refused_unread(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as stream:
        stream.truncate(1024**3)
    with pytest.raises(UnreadableFileError, match=r"huge\.json has 1\.00 GiB, more than the 256 MiB"):
        load_baseline(path)


def test_what_never_ends_is_refused():
    with pytest.raises(UnreadableFileError, match="/dev/zero is not a plain file"):
        load_report("/dev/zero")


def test_a_pipe_without_a_writer_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UnreadableFileError, match="is not a plain file"):
        load_report(tmp_path / "pipe.json")


def test_more_fields_of_the_same_version_are_read_over(tmp_path):
    path = tmp_path / "more.json"
    path.write_text(json.dumps(json.loads(GOOD) | {"later": {"x": [1, 2]}}))
    assert load_report(path) == full_report()


NASTY = [
    None,
    True,
    -1,
    0,
    1,
    2**40,
    2**63 - 1,
    2**63,
    -(2**70),
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 5000,
    "</script><script>",
    "\ud800",
    "\x00\x1b[31m",
    "$\\frac{a}{b$ _^ {{ }} {% %}",
    [],
    {},
    [[]],
    {"": {}},
    [0, 1],
    ["a"] * 50,
]


def mutated(chance):
    """One bad input: bytes changed at random, or one value somewhere in the tree replaced, dropped or doubled."""
    if chance.random() < 0.4:
        return _broken_bytes(chance)
    document = json.loads(GOOD)
    for _ in range(chance.randint(1, 3)):
        _change_somewhere(document, chance)
    text = json.dumps(document)
    if chance.random() < 0.1:
        text = text.replace('"nodeid":', '"nodeid": "twin", "nodeid":', 1)
    return text.encode("utf-8", "surrogatepass")


def _broken_bytes(chance):
    data = bytearray(GOOD)
    for _ in range(chance.randint(1, 8)):
        start = chance.randrange(len(data))
        kind = chance.randrange(4)
        if kind == 0:
            data[start] = chance.randrange(256)
        elif kind == 1:
            del data[start : start + chance.randrange(1, 200)]
        elif kind == 2:
            data[start:start] = data[start : start + chance.randrange(1, 200)]
        else:
            data[start:start] = chance.choice(
                [b'"', b"{", b"}", b"[", b"-", b"9" * 30, b"\\u0000", b"\xff", b"null"]
            )
        if not data:
            break
    return bytes(data)


def _change_somewhere(node, chance):
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(node[key], (dict, list)) and node[key] and chance.random() < 0.8:
            node = node[key]
            continue
        if isinstance(node, dict) and chance.random() < 0.2:
            del node[key]
        else:
            alike = [value for value in NASTY if type(value) is type(node[key])]
            node[key] = copy.deepcopy(chance.choice(alike if alike and chance.random() < 0.8 else NASTY))
        return


@pytest.mark.parametrize(
    "count", [150, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_no_fuzzed_input_ends_in_a_traceback(tmp_path, count):
    path = tmp_path / "fuzzed.json"
    good = full_report()
    read = 0
    for seed in range(count):
        data = mutated(random.Random(seed))
        path.write_bytes(data)
        try:
            report = load_report(path)
        except UnreadableFileError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            assert len(str(error)) < 1000
            continue
        finally:
            assert path.read_bytes() == data
        read += 1
        render_terminal(report, verbose=seed % 2 == 0, ascii_only=seed % 3 == 0).encode()
        for render in (render_json, render_benchmark_json):
            json.loads(render(report))
        for render in (render_markdown, render_step_summary, render_annotations):
            render(report).encode()
        make_baseline(report)
        compare_reports(good, report)
        if read % 100 == 1:
            render_html(report).encode()
    assert count // 20 < read < count


@pytest.mark.parametrize("seed", range(20))
def test_the_command_ends_with_2_or_shows_it(tmp_path, capsys, seed):
    path = tmp_path / "fuzzed.json"
    path.write_bytes(mutated(random.Random(10**6 + seed)))
    good = tmp_path / "good.json"
    good.write_bytes(GOOD)
    code = main(["compare", str(good), str(path)])
    error = capsys.readouterr().err
    assert code in {0, 1, 2}
    assert (code == 2) == (error != "")
    assert error.count("\n") <= 1
