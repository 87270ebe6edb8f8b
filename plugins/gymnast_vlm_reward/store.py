"""The file that remembers what was paid for: SQLite in WAL mode, shared by any number of processes on one machine.

Every received answer is committed, together with what it cost, before anything is done with it. A process that is
killed leaves at worst a charge marked as open, which counts as spent. Nobody but its owner may read the file.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.network.wording import MOST_LETTERS, fit
from gymnast_vlm_reward.claims import Claims
from gymnast_vlm_reward.completeness import Fault

PATIENCE_SECONDS = 60.0
"""How long others may hold the file."""
SCHEMA_VERSION = 3
_TABLES = """
CREATE TABLE answers (
    key TEXT NOT NULL, vote INTEGER NOT NULL, text TEXT NOT NULL, fault TEXT, model TEXT NOT NULL,
    received REAL NOT NULL, refused INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (key, vote)
) WITHOUT ROWID;
CREATE TABLE charges (
    id INTEGER PRIMARY KEY, account TEXT NOT NULL, model TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL,
    usd REAL, input_tokens INTEGER, output_tokens INTEGER, began REAL NOT NULL
);
CREATE INDEX charges_of_account ON charges (account, state, usd);
CREATE TABLE accounts (name TEXT PRIMARY KEY, usd REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE buckets (name TEXT PRIMARY KEY, level REAL NOT NULL, updated REAL NOT NULL) WITHOUT ROWID;
"""
_STEPS = {
    0: _TABLES,
    1: "DROP TABLE claims",
    2: """
ALTER TABLE answers ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
UPDATE answers SET refused = 1 WHERE fault LIKE 'the model refused%'
""",
}
"""What turns a file of a version into one of the next, an empty one (0) into one of this version. Claims are files
since version 2 (claims.py); before version 3, that a model refused was in the words of the fault."""
_INSTEAD = "Move it away if it is damaged, or choose another file with reward_model.args.cache=PATH."


_KEPT = 2000


@dataclass(frozen=True)
class Answer:
    """What a model said once."""

    text: str
    fault: Fault | None = None
    """Why it cannot hold a verdict (a refusal, cut off at the token limit); None for a complete answer."""

    @classmethod
    def of(cls, text: str, fault: Fault | None) -> Self:
        """An answer as a server gave it: one that is too long to be a verdict is kept by its beginning."""
        if len(text) > MOST_LETTERS:
            fault = fault or Fault(f"the answer has {len(text)} letters, more than the {MOST_LETTERS} that are read")
            text = text[:_KEPT]
        return cls(text, fault)


class Store:
    """The database file. Safe for several threads and processes; opened at first use, again after `close`."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.RLock()
        self._claims = Claims(self.path.with_name(f"{self.path.name}.claims"))
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all or nothing, one at a time across processes. Raises `DataError`."""
        with self._lock:
            connection = self._connection or self._open()
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    # A full disk ends the transaction by itself.
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise DataError(f"{self.path} cannot be read or written: {error}. {_INSTEAD}") from error

    def answers(self, key: str) -> list[Answer]:
        """The answers to a question so far, in the order in which they were received. Raises `DataError`."""
        return [answer for answer, _ in self._answers(key)]

    def age(self, key: str) -> float | None:
        """Seconds since the last answer to a question, by this machine's clock; None if there is none."""
        found = self._answers(key)
        return time.time() - found[-1][1] if found else None

    def _answers(self, key: str) -> list[tuple[Answer, float]]:
        with self._lock:
            try:
                rows = (self._connection or self._open()).execute(
                    "SELECT text, fault, refused, received FROM answers WHERE key = ? ORDER BY vote", (key,)
                )
                return [
                    (Answer(text, None if why is None else Fault(why, bool(refused))), received)
                    for text, why, refused, received in rows
                ]
            except sqlite3.Error as error:
                raise DataError(f"{self.path} cannot be read: {error}. {_INSTEAD}") from error

    def claim(self, key: str) -> bool:
        """Whether this store may ask the question now; no other one may until it is released or its process ends."""
        return self._claims.take(key)

    def release(self, key: str) -> None:
        """Give a claimed question back."""
        self._claims.give_back(key)

    def close(self) -> None:
        self._claims.close()
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite gives its other files the mode of this one.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            if self.path.stat().st_uid == os.geteuid():
                self.path.chmod(0o600)
            connection = sqlite3.connect(
                self.path, timeout=PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
            )
            # A commit survives the death of the process at once, a power cut after the system's next write-back. To
            # wait for the disk thrice a request (10 ms and more) would hold up everything else in flight.
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            self._prepare(connection)
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{self.path} cannot be used to remember answers: {error}. {_INSTEAD}") from error
        self._claims.sweep()
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version in _STEPS:
            for step in (0,) if version == 0 else range(version, SCHEMA_VERSION):
                for statement in _STEPS[step].split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
        if version not in (*_STEPS, SCHEMA_VERSION):
            raise ConfigError(
                f"{self.path} was written by another version (format {version}; this one reads {SCHEMA_VERSION}). "
                "Choose another file with reward_model.args.cache=PATH."
            )


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the journal that lets others read meanwhile. SQLite waits for no one who does so at the same moment."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)


def add_answers(connection: sqlite3.Connection, key: str, model: str, answers: Sequence[Answer]) -> None:
    """Append received answers within a transaction."""
    (first,) = connection.execute("SELECT count(*) FROM answers WHERE key = ?", (key,)).fetchone()
    connection.executemany(
        "INSERT INTO answers (key, vote, text, fault, refused, model, received) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (key, first + i, fit(answer.text), *_columns(answer.fault), model, time.time())
            for i, answer in enumerate(answers)
        ],
    )


def _columns(fault: Fault | None) -> tuple[str | None, int]:
    return (None, 0) if fault is None else (fit(fault.why), int(fault.refused))
