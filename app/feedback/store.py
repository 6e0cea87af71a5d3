"""The store of corrections: what people said about answers, as they said it, kept until they want it deleted."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection

from app.config import InputError
from app.feedback import database as tables
from app.feedback.correction import JUDGED, VERDICTS, Correction, check_correction, check_storable, utc_time
from app.feedback.database import Database, file_url, insert_into, text_key
from app.feedback.queue import settle

__all__ = ["JUDGED", "VERDICTS", "Correction", "Store", "open_store"]

FILE_NAME = "feedback.sqlite"  # in the run directory
_BATCH = 500  # ids in a query; SQLite takes 999 values in old versions
_PAGE = 2000  # rows
_TABLE = tables.corrections
_FIELDS = tuple(field.name for field in fields(Correction))
_COLUMNS = [_TABLE.c[name] for name in _FIELDS]


def open_store(url: str, run_dir: str | os.PathLike[str]) -> Store:
    """The store of `feedback.url`; an empty URL is a file in the run directory, made when it is first needed."""
    return Store.open(url or file_url(Path(run_dir, FILE_NAME)))


class Store:
    """Corrections in a database. Threads may share a store; each process opens its own.

    Methods raise RunError where the database fails while in use (full disk, lost connection).
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def open(cls, url: str | URL) -> Store:
        """Connects, and makes the tables where there are none.

        Raises:
            InputError: why the database cannot be used, in one sentence without the password.
        """
        return cls(Database.open(url))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self.database.name

    def add(
        self,
        corrections: Iterable[Correction],
        *,
        labels: Collection[str] | None = None,
        several: bool | None = None,
    ) -> list[str]:
        """Stores all of them or none; they are on the disk when this returns.

        In the review queue of their model, texts that were judged or skipped wait no longer, and flagged ones wait.

        Args:
            corrections: an id that is stored already is left as it is. One without a time is the last word on its
                text, whatever the clocks say by which the others were dated.
            labels: the labels that answers may have; None = any.
            several: whether the model gives a text several labels; None = not known.

        Returns:
            The id of each, in the order given.

        Raises:
            InputError: one of them cannot be stored, or its id is that of one with another text, answer or verdict.
        """
        given = list(corrections)
        checked = [
            check_correction(
                each,
                labels=labels,
                several=several,
                where=f"correction {number}" if len(given) > 1 else "the correction",
            )
            for number, each in enumerate(given, 1)
        ]
        if checked:
            undated = {each.id for each, said in zip(checked, given, strict=True) if not said.time}
            self.database.write(lambda connection: _insert(connection, _after_others(connection, checked, undated)))
        return [each.id for each in checked]

    def read(
        self, *, task: str = "", model: str = "", verdicts: Sequence[str] = (), since: str = "", author: str = ""
    ) -> Iterator[Correction]:
        """Yields those that match, oldest first; those added meanwhile may be among them.

        Args:
            task: empty = any, as for the others.
            model: its name.
            verdicts: any of these.
            since: ISO 8601; not those before.
            author: who said it.
        """
        conditions = _conditions(task=task, model=model, verdicts=verdicts, since=since, author=author)
        return self._in_pages(sa.select(_TABLE.c.number, *_COLUMNS).where(*conditions).subquery())

    def latest(self, *, task: str = "", model: str = "") -> Iterator[Correction]:
        """Yields the newest judgement (accepted or fixed) of each text, oldest first."""
        place = sa.func.row_number().over(
            partition_by=(_TABLE.c.task, _TABLE.c.text_key), order_by=(_TABLE.c.time.desc(), _TABLE.c.number.desc())
        )
        conditions = _conditions(task=task, model=model, verdicts=JUDGED)
        ranked = sa.select(_TABLE.c.number, _TABLE.c.time, place.label("place")).where(*conditions).subquery()
        query = sa.select(ranked.c.number).where(ranked.c.place == 1).order_by(ranked.c.time, ranked.c.number)
        with self.database.reading() as connection:
            numbers = connection.execute(query).scalars().all()
        for start in range(0, len(numbers), _BATCH):
            chosen = sa.select(*_COLUMNS).where(_TABLE.c.number.in_(numbers[start : start + _BATCH]))
            with self.database.reading() as connection:
                rows = connection.execute(chosen.order_by(_TABLE.c.time, _TABLE.c.number)).mappings().all()
            yield from map(_correction, rows)

    def recent(self, *, limit: int = 50, offset: int = 0, task: str = "", model: str = "") -> list[Correction]:
        """The newest ones, newest first."""
        query = (
            sa.select(*_COLUMNS)
            .where(*_conditions(task=task, model=model))
            .order_by(_TABLE.c.time.desc(), _TABLE.c.number.desc())
        )
        with self.database.reading() as connection:
            return [_correction(row) for row in connection.execute(query.limit(limit).offset(offset)).mappings()]

    def count(
        self, *, task: str = "", model: str = "", verdicts: Sequence[str] = (), since: str = "", author: str = ""
    ) -> int:
        """How many `read` would yield."""
        conditions = _conditions(task=task, model=model, verdicts=verdicts, since=since, author=author)
        query = sa.select(sa.func.count()).select_from(_TABLE).where(*conditions)
        with self.database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def agreement(self, *, model: str, version: int, last: int, since: str = "") -> tuple[int, int]:
        """(accepted, judged): how many of the last judged answers of a version people accepted as they were.

        Args:
            model: its name.
            version: of its SavedModel.
            last: how many of the newest judgements count at most.
            since: ISO 8601; not those before.
        """
        newest = (
            sa.select(_TABLE.c.verdict)
            .where(*_conditions(model=model, verdicts=JUDGED, since=since), _TABLE.c.version == version)
            .order_by(_TABLE.c.time.desc(), _TABLE.c.number.desc())
            .limit(last)
            .subquery()
        )
        with self.database.reading() as connection:
            verdicts = connection.execute(sa.select(newest.c.verdict)).scalars().all()
        return verdicts.count("accepted"), len(verdicts)

    def delete(self, *, author: str = "", text: str = "", source: str = "") -> int:
        """Deletes corrections of an author, text and source, or of those that are given, so that their bytes are gone.

        Their texts leave the review queue too.

        Returns:
            How many corrections were deleted.

        Raises:
            InputError: none is given, or an author or source that nobody can have.
        """
        if not (author or text or source):
            raise InputError("to delete corrections, name an author or a text")
        for name, value in (("author", author), ("source", source)):
            check_storable(value, f"the {name} to delete")
        conditions = [_TABLE.c.author == author] if author else []
        conditions += [_TABLE.c.source == source] if source else []
        conditions += [_TABLE.c.text_key == text_key(text)] if text else []

        def work(connection: Connection) -> int:
            texts = sa.select(_TABLE.c.text_key).where(*conditions)
            connection.execute(tables.queue.delete().where(tables.queue.c.text_key.in_(texts)))
            if text and not author and not source:  # it may wait without a correction
                connection.execute(tables.queue.delete().where(tables.queue.c.text_key == text_key(text)))
            return connection.execute(_TABLE.delete().where(*conditions)).rowcount

        deleted = self.database.write(work)
        self.database.erase_deleted()
        return deleted

    def close(self) -> None:
        self.database.close()

    def _in_pages(self, found: sa.Subquery) -> Iterator[Correction]:
        """Page by page, so that nobody who reads slowly holds a transaction open."""
        query = sa.select(found).order_by(found.c.time, found.c.number).limit(_PAGE)
        after: sa.ColumnElement[bool] = sa.true()
        while True:
            with self.database.reading() as connection:
                rows = connection.execute(query.where(after)).mappings().all()
            yield from map(_correction, rows)
            if len(rows) < _PAGE:
                return
            time, number = rows[-1]["time"], rows[-1]["number"]
            after = sa.tuple_(found.c.time, found.c.number) > sa.tuple_(sa.literal(time), sa.literal(number))


def _conditions(
    *, task: str = "", model: str = "", verdicts: Sequence[str] = (), since: str = "", author: str = ""
) -> list[sa.ColumnElement[bool]]:
    found = [_TABLE.c[name] == value for name, value in (("task", task), ("model", model), ("author", author)) if value]
    if strange := [verdict for verdict in verdicts if verdict not in VERDICTS]:
        raise InputError(f"verdicts must be among {', '.join(VERDICTS)}, received {strange[0]!r}")
    if verdicts:
        found.append(_TABLE.c.verdict.in_(verdicts))
    if since:
        found.append(_TABLE.c.time >= utc_time(since, "since"))
    return found


def _after_others(
    connection: Connection, corrections: Sequence[Correction], undated: Collection[str]
) -> list[Correction]:
    """The corrections, those with these ids dated after all that is stored on their texts: a clock may be behind."""
    keys = list({text_key(each.text) for each in corrections if each.id in undated})
    newest: dict[tuple[str, str], str] = {}
    for start in range(0, len(keys), _BATCH):
        found = (
            sa.select(_TABLE.c.task, _TABLE.c.text_key, sa.func.max(_TABLE.c.time))
            .where(_TABLE.c.text_key.in_(keys[start : start + _BATCH]))
            .group_by(_TABLE.c.task, _TABLE.c.text_key)
        )
        newest.update({(task, key): time for task, key, time in connection.execute(found)})
    dated = []
    for each in corrections:
        last = newest.get((each.task, text_key(each.text)), "") if each.id in undated else ""
        # Times of one text may be equal: then the order in which they were stored decides.
        dated.append(replace(each, time=last) if last > each.time else each)
    return dated


def _insert(connection: Connection, corrections: Sequence[Correction]) -> None:
    before = _find_ids(connection, corrections)
    insert = insert_into(connection, _TABLE).on_conflict_do_nothing(index_elements=["id"])
    connection.execute(insert, [_row(each) for each in corrections])
    after = _stored(connection, corrections)
    for each in corrections:
        if _said(after[each.id]) != _said(each):
            raise InputError(
                f"a correction with the id {each.id!r} and another text, answer or verdict is stored already: give "
                "each correction an id of its own"
            )
    settle(connection, [each for each in corrections if each.id not in before])


def _find_ids(connection: Connection, corrections: Sequence[Correction]) -> set[str]:
    """Those of the ids that are in the database."""
    found: set[str] = set()
    for start in range(0, len(corrections), _BATCH):
        ids = {each.id for each in corrections[start : start + _BATCH]}
        found.update(connection.execute(sa.select(_TABLE.c.id).where(_TABLE.c.id.in_(ids))).scalars())
    return found


def _stored(connection: Connection, corrections: Sequence[Correction]) -> dict[str, Correction]:
    """What is in the database under the ids."""
    found: dict[str, Correction] = {}
    for start in range(0, len(corrections), _BATCH):
        ids = {each.id for each in corrections[start : start + _BATCH]}
        rows = connection.execute(sa.select(*_COLUMNS).where(_TABLE.c.id.in_(ids))).mappings()
        found.update({row["id"]: _correction(row) for row in rows})
    return found


def _said(correction: Correction) -> tuple[Any, ...]:
    return correction.text, correction.task, correction.answer, correction.verdict


def _row(correction: Correction) -> dict[str, Any]:
    values = {name: getattr(correction, name) for name in _FIELDS}
    values.update({name: json.dumps(values[name]) for name in ("answer", "prediction")})
    return {**values, "text_key": text_key(correction.text)}


def _correction(row: Any) -> Correction:
    values = {name: row[name] for name in _FIELDS}
    values.update({name: json.loads(values[name]) for name in ("answer", "prediction")})
    return Correction(**values)
