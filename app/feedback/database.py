"""The database of corrections and of texts that wait for review: SQLite in a file, or PostgreSQL.

Writing transactions are durable when they return: SQLite runs with a write-ahead log and `synchronous=FULL`,
PostgreSQL with `synchronous_commit`. What is deleted is overwritten (SQLite: `secure_delete`, and the log is emptied;
PostgreSQL: `VACUUM FULL` rewrites the tables; its own log and backups are for whoever runs it to expire).
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from app.config import InputError, RunError

SCHEMA = 1  # number of the tables below; raised with every change of theirs
BUSY_SECONDS = 60.0  # how long a writer waits for the others
ALLOWED = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"
_LOCK_KEY = 7_160_391_005  # of PostgreSQL's advisory lock while tables are made
_TRIES = 5  # of a transaction that PostgreSQL ended to solve a deadlock
_NO_ROOM = "the disk is full; it is as it was, make room and try again"
_RETRIED = {"40P01", "40001"}  # deadlock, serialization
_Result = TypeVar("_Result")

metadata = sa.MetaData()
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
schema = sa.Table("feedback_schema", metadata, sa.Column("number", sa.Integer, nullable=False))
corrections = sa.Table(
    "feedback_corrections",
    metadata,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False, index=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("text_key", sa.Text, nullable=False, index=True),  # SHA-256 of the text: an index takes no long texts
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),  # JSON
    sa.Column("prediction", sa.Text, nullable=False),  # JSON
    sa.Index("feedback_corrections_in_time", "time", "number"),
    sa.Index("feedback_corrections_of_version", "model", "version", "time"),
)
queue = sa.Table(
    "feedback_queue",
    metadata,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("text_key", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("uncertainty", sa.Float, nullable=True),
    sa.Column("answer", sa.Text, nullable=False),  # JSON
    sa.Column("other_answer", sa.Text, nullable=False),  # JSON
    sa.Column("disagreement", sa.Float, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("added", sa.Text, nullable=False),
    sa.UniqueConstraint("model", "text_key"),
    sa.Index("feedback_queue_of_model", "model", "state"),
)


class FullDiskError(RunError):
    """There was no room for what was to be written; nothing was changed, unless the message says otherwise."""


class Database:
    """Threads may share it; a process opens its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._file: tuple[int, int] | None = None  # device and number of the file of SQLite

    @classmethod
    def open(cls, url: str | URL) -> Database:
        """Connects, and makes the tables where there are none.

        Args:
            url: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST:PORT/NAME`.

        Raises:
            InputError: why the database cannot be used, in one sentence without the password.
        """
        parsed = _parse(url)
        if parsed.drivername == "sqlite":
            _check_file(parsed)
        database = cls(_make_engine(parsed))
        try:
            if parsed.drivername == "sqlite":
                _use_write_ahead_log(database._engine)
            database._make_tables()
            database._file = _identify(parsed)
        except SQLAlchemyError as error:
            database.close()
            if _is_full(error):
                raise FullDiskError(f"{mask_url(parsed)} could not be made: {_NO_ROOM}") from error
            raise InputError(_why_not_opened(parsed, error)) from error
        except BaseException:
            database.close()
            raise
        return database

    @property
    def name(self) -> str:
        """The URL without its password."""
        return mask_url(self._engine.url)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database."""
        with self._translated("read"), self._engine.connect() as connection, connection.begin():
            yield connection

    def write(self, work: Callable[[Connection], _Result]) -> _Result:
        """Runs `work` in a transaction, which is on the disk when this returns; it may run again after a deadlock.

        Raises:
            FullDiskError: the disk is full; nothing was changed.
            RunError: the database failed in another way, such as a lost connection; nothing was changed.
        """
        self._require_file()
        for tries_left in reversed(range(_TRIES)):
            try:
                with self._translated("written"), self._engine.connect() as connection:
                    with connection.execution_options(writes=True).begin():
                        return work(connection)
            except RunError as error:
                if not tries_left or _state(error.__cause__) not in _RETRIED:
                    raise
        raise AssertionError("unreachable")

    def erase_deleted(self) -> None:
        """Has deleted rows leave the files of the database too.

        Raises:
            FullDiskError: the disk is full.
            RunError: another process has been reading for too long.
        """
        try:
            self._erase_deleted()
        except FullDiskError as error:
            raise FullDiskError(
                f"{self.name}: no row is left of it, but bytes of deleted rows stay in the files, since the disk is "
                "full: make room, then delete once more"
            ) from error

    def _erase_deleted(self) -> None:
        with self._translated("written"), _outside_transactions(self._engine) as connection:
            if self._engine.dialect.name == "sqlite":
                busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar_one()
                if busy:
                    raise RunError(
                        f"{self.name}: the rows are deleted, but their bytes stay in the log beside the file until "
                        "another process that reads the database lets go of it: delete once more then"
                    )
            else:
                for table in (corrections, queue):
                    connection.exec_driver_sql(f"VACUUM (FULL) {table.name}")

    def _make_tables(self) -> None:
        with self._engine.connect() as connection, connection.execution_options(writes=True).begin():
            if self._engine.dialect.name == "postgresql":  # several processes may open a new database at once
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
            if not sa.inspect(connection).has_table(schema.name):
                metadata.create_all(connection)
                connection.execute(schema.insert().values(number=SCHEMA))
                return
            number = connection.execute(sa.select(sa.func.max(schema.c.number))).scalar()
        if number != SCHEMA:
            age = "a newer" if (number or 0) > SCHEMA else "an older"
            raise InputError(
                f"{self.name} was written by {age} version of this program (schema {number}, this one reads {SCHEMA}): "
                "use that version to export the corrections as JSON lines, and import them here into a new database"
            )

    def _require_file(self) -> None:
        """What is written into a file that was deleted or replaced is lost with it, and SQLite does not notice.

        Raises:
            RunError: that happened; connections to the old file are let go, so that a new one would be used.
        """
        if self._file is None or _identify(self._engine.url) == self._file:
            return
        self._engine.dispose()
        raise RunError(
            f"{self.name} was deleted, moved or replaced while it was in use: put it back, or start again to use what "
            "is there now"
        )

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            if _is_full(error):
                raise FullDiskError(f"{self.name} could not be {what}: {_NO_ROOM}") from error
            raise RunError(f"{self.name} could not be {what}: {_reason(error)}") from error


def text_key(text: str) -> str:
    """What a text is found by: its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def insert_into(connection: Connection, table: sa.Table) -> Any:
    """The dialect's own INSERT, which knows ON CONFLICT."""
    return (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(table)


def mask_url(url: str | URL) -> str:
    """A database URL with *** for its password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        scheme, found, _ = str(url).partition("://")
        return f"{scheme}://..." if found else "..."
    if parsed.drivername == "postgresql+psycopg":
        parsed = parsed.set(drivername="postgresql")
    if parsed.drivername == "sqlite":
        return f"sqlite:///{parsed.database or ''}"
    masked = parsed.update_query_dict({name: "MASKED" for name in parsed.query if "pass" in name.lower()})
    return masked.render_as_string(hide_password=True).replace("=MASKED", "=***")


def file_url(path: str | os.PathLike[str]) -> URL:
    """The URL of an SQLite file, whatever characters its path has."""
    return URL.create("sqlite", database=os.fspath(path))


def _parse(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InputError(f"feedback.url must be {ALLOWED}, received {mask_url(url)}") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite+pysqlite":
        parsed = parsed.set(drivername="sqlite")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise InputError(f"feedback.url must be {ALLOWED}, received {mask_url(parsed)}")
    if parsed.drivername == "sqlite" and (not parsed.database or parsed.database == ":memory:" or parsed.host):
        raise InputError(
            f"feedback.url must name a file, as in sqlite:///feedback.sqlite, received {mask_url(parsed)}"
        )
    return parsed


def _identify(url: URL) -> tuple[int, int] | None:
    """Device and number of the file of an SQLite database; None of others, or if it is not there."""
    if url.drivername != "sqlite":
        return None
    try:
        found = os.stat(url.database or "")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_file(url: URL) -> None:
    path = Path(url.database or "")
    if path.is_dir():
        raise InputError(f"{path} is a folder; feedback.url must name a file")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} of feedback.url is not there: make it first")
    # SQLite keeps a log beside the file, so the folder must be writable too.
    effective = os.access in os.supports_effective_ids
    places = [each for each in (path, path.parent) if each.exists()]
    refused = next((each for each in places if not os.access(each, os.W_OK, effective_ids=effective)), None)
    if refused:
        raise InputError(
            f"{refused} cannot be written: corrections need a folder that can be, set feedback.url to one"
        )


def _make_engine(url: URL) -> Engine:
    try:
        if url.drivername == "sqlite":
            arguments: dict[str, Any] = {"timeout": BUSY_SECONDS}
            engine = sa.create_engine(url, connect_args=arguments, pool_size=8, max_overflow=56, hide_parameters=True)
        else:
            arguments = {"connect_timeout": 10}
            engine = sa.create_engine(
                url, connect_args=arguments, pool_pre_ping=True, max_overflow=20, hide_parameters=True
            )
    except ModuleNotFoundError as error:
        raise InputError(
            f"feedback.url is {mask_url(url)}, but the package {error.name} is not installed: pip install "
            "'psycopg[binary]'"
        ) from error
    except (SQLAlchemyError, TypeError, ValueError) as error:
        raise InputError(f"feedback.url must be {ALLOWED}, received {mask_url(url)}: {_reason(error)}") from error
    if url.drivername == "sqlite":
        sa.event.listen(engine, "connect", _set_up_sqlite)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # `_begin` begins transactions
    for pragma in ("synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    writes = options.get("writes", False)
    if options.get("outside", False):
        return
    if connection.dialect.name == "sqlite":
        # A transaction that starts by reading and then writes fails if another has written in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
    elif writes:
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO ON")


@contextmanager
def _outside_transactions(engine: Engine) -> Iterator[Connection]:
    """A connection for the statements that databases refuse in a transaction."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            yield connection.execution_options(isolation_level="AUTOCOMMIT", outside=True)
        else:  # the driver begins none by itself, see `_set_up_sqlite`
            yield connection.execution_options(outside=True)


def _use_write_ahead_log(engine: Engine) -> None:
    """The mode stays with the file. While another process switches to it, SQLite says "locked" at once."""
    until = time.monotonic() + BUSY_SECONDS
    with _outside_transactions(engine) as connection:
        while True:
            try:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # a file system without it keeps another mode
                return
            except DBAPIError as error:
                if "locked" not in str(error.orig) or time.monotonic() > until:
                    raise
                time.sleep(0.01)


def _why_not_opened(url: URL, error: SQLAlchemyError) -> str:
    name, reason = mask_url(url), _reason(error)
    if url.drivername == "sqlite":
        if "not a database" in reason or "malformed" in reason:
            return f"{url.database} is no SQLite database ({reason}): set feedback.url to another file"
        return f"{url.database} cannot be opened as the database of corrections: {reason}"
    if "password authentication failed" in reason:
        return f"{name} refuses the user or the password of feedback.url"
    if "does not exist" in reason and "database" in reason:
        return f"{name}: there is no database {url.database!r}; make it with createdb, or correct feedback.url"
    return f"{name} of feedback.url cannot be used: {reason}"


def _reason(error: BaseException) -> str:
    """What a driver says, on one line without its prefixes and without the statement and its values."""
    said = str(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    text = re.sub(r"^.*?FATAL:\s*", "", lines[0]) if lines else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def _is_full(error: SQLAlchemyError) -> bool:
    """SQLite's "database or disk is full", PostgreSQL's state disk_full."""
    return "disk is full" in _reason(error) or _state(error) == "53100"


def _state(error: BaseException | None) -> str:
    """The SQLSTATE of an error of PostgreSQL."""
    return str(getattr(getattr(error, "orig", None), "sqlstate", "") or "")
