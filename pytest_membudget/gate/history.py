"""The history as an object: runs in, runs and series out; and the file that holds it, with its versions.

The file is one SQLite database in rollback-journal mode: no second file has to be kept with it, a killed writer's
half transaction is undone by the next reader, and a full disk fails the transaction and leaves the file as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from pytest_membudget.errors import UnreadableFileError, UsageError
from pytest_membudget.records.comparison import HistoryPoint, HistoryRun, TestHistory
from pytest_membudget.records.report import COUNTED, Environment, Report, TestRecord
from pytest_membudget.records.storage import check_writable, encodable


class RawRun(NamedTuple):
    """A row of `runs`, as merging needs it."""

    id: int
    digest: str
    revision: str
    created: str
    environment: str


class RawSeries(NamedTuple):
    """One test: for each run that measured it the run's index in `History.runs` and the peak in bytes."""

    nodeid: str
    runs: list[int]
    peaks_bytes: list[int]


class History:
    """An open history. Each method that writes is one transaction."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def add(self, report: Report, revision: str = "") -> bool:
        """Keeps the tests of `report` that passed; False where this very run is kept already.

        `revision` beats the report's own.
        """
        revision = encodable(revision or report.revision)
        rows = [
            _row(test) for test in report.tests if test.peak_bytes is not None and test.outcome in COUNTED
        ]
        environment = _encode(report.environment)
        # The revision belongs to it: one file given for two revisions is two runs.
        digest = _digest(revision, report.created, environment, rows)
        with writing(self._connection):
            if self._has(digest):
                return False
            (last,) = self._one("SELECT coalesce(max(position), 0) FROM runs")
            run = self._insert_run(last + 1, digest, revision, report.created, environment)
            self._insert_results(run, rows)
        return True

    def merge(self, other: History) -> int:
        """Takes over the runs of `other` that are missing here, each in its place; how many there were."""
        with writing(self._connection):
            mine, theirs = self._raw_runs(), other._raw_runs()
            known = {run.digest for run in mine}
            missing = {run.digest: run for run in theirs if run.digest not in known}
            for run in missing.values():
                own = self._insert_run(0, run.digest, run.revision, run.created, run.environment)
                self._insert_results(own, list(other._rows_of(run.id)))
            self._connection.executemany(
                "UPDATE runs SET position = ? WHERE digest = ?",
                [(number, run.digest) for number, run in enumerate(interleaved(mine, theirs), start=1)],
            )
        return len(missing)

    def runs(self) -> tuple[HistoryRun, ...]:
        """Every run, the oldest first."""
        found = self._connection.execute(
            "SELECT revision, created, json, coalesce(measured, 0) FROM runs "
            "JOIN environments ON environments.id = environment_id "
            "LEFT JOIN (SELECT run_id, count(*) AS measured FROM results GROUP BY run_id) ON run_id = runs.id "
            "ORDER BY position, runs.id"
        )
        return tuple(
            HistoryRun(
                revision=revision, created=created, environment=self._environment(text), tests=measured
            )
            for revision, created, text, measured in found
        )

    def nodeids(self) -> tuple[str, ...]:
        """Every test, in the order of the node ids."""
        return tuple(
            nodeid for (nodeid,) in self._connection.execute("SELECT nodeid FROM tests ORDER BY nodeid")
        )

    def test(self, nodeid: str) -> TestHistory:
        """One test over all its runs; a part of its name is enough where only one test has it.

        Raises:
            UsageError: no test, or more than one, has that name.
        """
        name = self._full_name(nodeid)
        found = self._connection.execute(
            "SELECT revision, created, outcome, peak_bytes, peak_upper_bytes, samples FROM results "
            "JOIN runs ON runs.id = run_id JOIN tests ON tests.id = test_id WHERE nodeid = ? ORDER BY position",
            (name,),
        )
        return TestHistory(
            nodeid=name,
            points=tuple(
                HistoryPoint(
                    revision=revision,
                    created=created,
                    outcome=outcome,
                    peak_bytes=peak_bytes,
                    peak_upper_bytes=upper_bytes,
                    samples_bytes=_decode_samples(samples),
                )
                for revision, created, outcome, peak_bytes, upper_bytes, samples in found
            ),
        )

    def series(self) -> Iterator[RawSeries]:
        """Each test with all its peaks, in the order of the node ids; one test at a time is held in memory."""
        order = self._connection.execute("SELECT id FROM runs ORDER BY position, id")
        index = {run: number for number, (run,) in enumerate(order)}
        names: dict[int, str] = dict(self._connection.execute("SELECT id, nodeid FROM tests"))
        for test in sorted(names, key=names.__getitem__):
            found = self._connection.execute(
                "SELECT run_id, peak_bytes FROM results WHERE test_id = ?", (test,)
            ).fetchall()
            points = sorted((index[run], peak_bytes) for run, peak_bytes in found)
            yield RawSeries(names[test], [run for run, _ in points], [peak for _, peak in points])

    def samples(self) -> Mapping[str, tuple[int, ...]]:
        """The fresh samples of each test's newest run that has some."""
        found = self._connection.execute(
            "SELECT nodeid, samples FROM results JOIN runs ON runs.id = run_id JOIN tests ON tests.id = test_id "
            "WHERE samples != '' ORDER BY position"
        )
        return {nodeid: _decode_samples(samples) for nodeid, samples in found}

    def _has(self, digest: str) -> bool:
        return self._one("SELECT count(*) FROM runs WHERE digest = ?", digest)[0] > 0

    def _one(self, query: str, *values: object) -> tuple[int, ...]:
        found: tuple[int, ...] = self._connection.execute(query, values).fetchone()
        return found

    def _insert_run(self, position: int, digest: str, revision: str, created: str, environment: str) -> int:
        self._connection.execute("INSERT OR IGNORE INTO environments (json) VALUES (?)", (environment,))
        (kept,) = self._one("SELECT id FROM environments WHERE json = ?", environment)
        inserted = self._connection.execute(
            "INSERT INTO runs (position, digest, revision, created, environment_id) VALUES (?, ?, ?, ?, ?)",
            (position, digest, revision, created, kept),
        )
        assert inserted.lastrowid is not None
        return inserted.lastrowid

    def _insert_results(self, run: int, rows: Sequence[tuple[object, ...]]) -> None:
        self._connection.executemany(
            "INSERT OR IGNORE INTO tests (nodeid) VALUES (?)", [(row[0],) for row in rows]
        )
        self._connection.executemany(
            "INSERT INTO results (test_id, run_id, outcome, peak_bytes, peak_upper_bytes, samples) "
            "VALUES ((SELECT id FROM tests WHERE nodeid = ?), ?, ?, ?, ?, ?)",
            [(nodeid, run, *figures) for nodeid, *figures in rows],
        )

    def _raw_runs(self) -> list[RawRun]:
        found = self._connection.execute(
            "SELECT runs.id, digest, revision, created, json FROM runs "
            "JOIN environments ON environments.id = environment_id ORDER BY position, runs.id"
        )
        return [RawRun(*row) for row in found]

    def _rows_of(self, run: int) -> sqlite3.Cursor:
        return self._connection.execute(
            "SELECT nodeid, outcome, peak_bytes, peak_upper_bytes, samples FROM results "
            "JOIN tests ON tests.id = test_id WHERE run_id = ?",
            (run,),
        )

    def _environment(self, text: str) -> Environment:
        try:
            return msgspec.json.decode(text, type=Environment)
        except msgspec.DecodeError as error:
            raise UnreadableFileError(
                f"{self._path} is not a membudget history: it holds an environment that cannot be read ({error})"
            ) from None

    def _full_name(self, text: str) -> str:
        names = self.nodeids()
        if text in names:
            return text
        like = [name for name in names if text in name]
        if len(like) == 1:
            return like[0]
        if not like:
            raise UsageError(
                f"{self._path} has no test with {text!r} in its name; "
                f"membudget history trend {self._path} lists those that it has"
            )
        named = ", ".join(like[:3]) + (", …" if len(like) > 3 else "")
        raise UsageError(
            f"{len(like)} tests of {self._path} have {text!r} in their names: {named}; write more of it"
        )


@contextlib.contextmanager
def open_history(path: str | os.PathLike[str], *, create: bool = False) -> Iterator[History]:
    """The history at `path` while the block runs; `create` makes it where it is missing.

    Raises:
        FileNotFoundError: there is none.
        UsageError: its folder is missing or cannot be written.
        UnreadableFileError: it is not a history, damaged, or of a newer version.
        OSError: the disk is full, or another writer held it for too long.
    """
    with connected(path, create=create) as connection:
        yield History(connection, os.fspath(path))


def _row(test: TestRecord) -> tuple[object, ...]:
    samples = json.dumps(sorted(test.samples_bytes)) if test.samples_bytes else ""
    return (encodable(test.nodeid), test.outcome, test.peak_bytes, test.peak_upper_bytes, samples)


def _encode(environment: Environment) -> str:
    return msgspec.json.encode(encodable(msgspec.to_builtins(environment)), order="deterministic").decode()


def _digest(revision: str, created: str, environment: str, rows: Sequence[tuple[object, ...]]) -> str:
    content = json.dumps([revision, created, environment, sorted(rows, key=str)])
    return hashlib.sha256(content.encode()).hexdigest()


def _decode_samples(text: str) -> tuple[int, ...]:
    return tuple(json.loads(text)) if text else ()


def interleaved(mine: Sequence[RawRun], theirs: Sequence[RawRun]) -> list[RawRun]:
    """All runs of both, each once; either side keeps its own order.

    Where both have a revision or a run, they meet there; between two such places the older run comes first.
    """
    place = {run.digest: index for index, run in enumerate(mine)}
    last_of = {run.revision: index for index, run in enumerate(mine) if run.revision}
    meeting = {place.get(run.digest, last_of.get(run.revision)) for run in theirs}
    ordered: list[RawRun] = []
    here = 0
    for run in theirs:
        meets = place.get(run.digest, last_of.get(run.revision))
        end = here
        if meets is not None:
            end = max(here, meets + 1)
        else:
            while end < len(mine) and end not in meeting and mine[end].created <= run.created:
                end += 1
        ordered += mine[here:end]
        ordered += [] if run.digest in place else [run]
        here = end
    return ordered + list(mine[here:])


#: "mbhi": SQLite keeps it in the file's header, so that a database of another program is distinguished from ours.
APPLICATION_ID = 0x6D626869
#: How long a writer waits for another one.
WAIT_S = 60.0

#: Each script brings the file from its index to the next version; what was released is never edited.
MIGRATIONS = (
    """
    CREATE TABLE environments (
        id INTEGER PRIMARY KEY,
        json TEXT NOT NULL UNIQUE
    );
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        position INTEGER NOT NULL,
        digest TEXT NOT NULL UNIQUE,
        revision TEXT NOT NULL,
        created TEXT NOT NULL,
        environment_id INTEGER NOT NULL REFERENCES environments (id)
    );
    CREATE INDEX runs_by_position ON runs (position);
    CREATE TABLE tests (
        id INTEGER PRIMARY KEY,
        nodeid TEXT NOT NULL UNIQUE
    );
    CREATE TABLE results (
        test_id INTEGER NOT NULL REFERENCES tests (id),
        run_id INTEGER NOT NULL REFERENCES runs (id),
        outcome TEXT NOT NULL,
        peak_bytes INTEGER NOT NULL CHECK (typeof(peak_bytes) = 'integer' AND peak_bytes >= 0),
        peak_upper_bytes INTEGER CHECK (typeof(peak_upper_bytes) IN ('integer', 'null')),
        samples TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (test_id, run_id)
    ) WITHOUT ROWID;
    """,
)


@contextlib.contextmanager
def connected(path: str | os.PathLike[str], *, create: bool) -> Iterator[sqlite3.Connection]:
    """A connection to the history at `path`, at the present version; what SQLite cannot do is one sentence.

    Raises:
        FileNotFoundError: there is none, and `create` is not set.
        UsageError: its folder is missing or cannot be written.
        UnreadableFileError: it is not a history, damaged, or of a newer version.
        OSError: the disk is full, or another writer held it for too long.
    """
    file = Path(path)
    if create:
        check_writable(file, such_as="memory.sqlite")
    elif not file.exists():
        raise FileNotFoundError(
            2, "there is no history here; make one with: membudget history add", str(path)
        )
    with _plainly_told(path), contextlib.closing(_connect(file, create=create)) as connection:
        _bring_up_to_date(connection, str(path), create=create)
        yield connection


@contextlib.contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that no other writer shares: everything in the block is kept, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has SQLite roll back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _connect(file: Path, *, create: bool) -> sqlite3.Connection:
    # A plain path would let SQLite make an empty file where a reader misspelled the name.
    place = f"file:{quote(str(file.resolve()))}?mode={'rwc' if create else 'rw'}"
    if not create and not os.access(file, os.W_OK):
        place = f"file:{quote(str(file.resolve()))}?mode=ro"
    connection = sqlite3.connect(place, uri=True, timeout=WAIT_S, isolation_level=None)
    # The file may come from a cache that others can write: its schema must not run functions of its choice.
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _bring_up_to_date(connection: sqlite3.Connection, name: str, *, create: bool) -> None:
    version = _version(connection, name, create=create)
    if version == len(MIGRATIONS):
        return
    with writing(connection):
        # Another program may have done it while this one waited for its turn.
        version = _version(connection, name, create=create)
        for number in range(version, len(MIGRATIONS)):
            for statement in MIGRATIONS[number].split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _version(connection: sqlite3.Connection, name: str, *, create: bool) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    is_empty = not tables and not application
    if application != APPLICATION_ID and not (is_empty and create):
        raise UnreadableFileError(
            f"{name} is not a membudget history: "
            + ("it is empty" if is_empty else "it is the database of another program")
            + "; name another file"
        )
    if version > len(MIGRATIONS):
        raise UnreadableFileError(
            f"{name} is a history of version {version} and this pytest-membudget reads version {len(MIGRATIONS)}; "
            "upgrade pytest-membudget"
        )
    return int(version)


@contextlib.contextmanager
def _plainly_told(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            text = f"another program has been writing to it for {WAIT_S:g} s; try again when it has ended"
        raise OSError(None, text, str(path)) from error
    except sqlite3.IntegrityError as error:
        raise UnreadableFileError(f"{path} is not a membudget history: {error}") from error
    except sqlite3.DatabaseError as error:
        raise UnreadableFileError(
            f"{path} is not a membudget history: {error}; restore it from a copy, or remove it and begin a new one"
        ) from error
