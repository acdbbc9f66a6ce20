"""The tables of a history, their version, and how an older file is brought up to date.

The file is one SQLite database in rollback-journal mode: no second file has to be kept with it, a killed writer's
half transaction is undone by the next reader, and a full disk fails the transaction and leaves what was there.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from pytest_membudget.errors import UnreadableFileError
from pytest_membudget.records.storage import check_writable

#: "mbhi": SQLite keeps it in the file's header, so that a database of another program is told from ours.
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
