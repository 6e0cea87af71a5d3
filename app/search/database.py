"""Search room: the database of a study, SQLite or PostgreSQL: where it is, its lock, and what is said when it fails."""

from __future__ import annotations

import fcntl
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url

from app.config import InputError, RunError, TuneConfig
from app.config.options import mask
from app.config.rules import STORAGES
from app.run.files import first_line

_BUSY_SECONDS = 60.0


def locate(config: TuneConfig, *, file: Path) -> tuple[URL, str]:
    """The database of a search, `file` if the configuration names none, and what people are shown of its address.

    Raises:
        InputError: what is named is no address, or what it needs is not installed.
    """
    shown = mask(config.storage) or str(file)
    return _parse(config.storage) if config.storage else URL.create("sqlite", database=str(file)), shown


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise InputError(f"tune.storage must be {STORAGES}, received {mask(text)}") from None
    if url.drivername != "postgresql":
        return url
    try:
        import psycopg  # noqa: F401  (SQLAlchemy does, at several places)
    except ImportError as error:
        raise InputError(
            "tune.storage names PostgreSQL, but the package psycopg is not installed: pip install 'psycopg[binary]'"
        ) from error
    return url.set(drivername="postgresql+psycopg")


@contextmanager
def explained(shown: str, *, opened: bool) -> Iterator[None]:
    """Says in a sentence why a database failed.

    Args:
        shown: its address, as people may see it.
        opened: whether it could be used before.

    Raises:
        InputError: it cannot be used.
        RunError: it failed later.
    """
    try:
        yield
    except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        if opened and isinstance(error, OSError):
            raise
        cause = error.__cause__ or error
        reason = first_line(getattr(cause, "orig", None) or cause)
        kind = RunError if opened else InputError
        raise kind(f"tune.storage: {shown} cannot be {'used any more' if opened else 'used'}: {reason}") from error


def open_storage(url: URL, *, shown: str) -> RDBStorage:
    """Optuna's storage in a database, made where it is not there.

    Raises:
        InputError: it is another version's.
    """
    options: dict[str, Any] = {"hide_parameters": True}
    if url.drivername == "sqlite":
        options["connect_args"] = {"timeout": _BUSY_SECONDS}
    else:
        options |= {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
    try:
        return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)
    except RuntimeError as error:
        raise InputError(
            f"tune.storage: {shown} was made by another version of Optuna and is not read: {first_line(error)}"
        ) from error


class StudyLock:
    """Keeps the other processes of a search waiting for the milliseconds that a change takes; a kill frees it.

    Args:
        url: of the database.
        name: of the study.
    """

    def __init__(self, url: URL, name: str) -> None:
        self._file = Path(f"{url.database}.lock") if url.drivername == "sqlite" else None
        self._engine = None if self._file else sa.create_engine(url, hide_parameters=True)
        self._key = zlib.crc32(f"tune/{name}".encode())

    @contextmanager
    def held(self) -> Iterator[None]:
        if self._file:
            with self._file.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
            return
        assert self._engine
        with self._engine.connect() as connection:
            connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": self._key})
            try:
                yield
            finally:
                connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": self._key})
