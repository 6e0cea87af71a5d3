"""The review queue: texts whose answers people should look at, kept in the database of the corrections."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from app.config import InputError
from app.feedback.correction import JUDGED, Correction, check_correction, utc_time
from app.feedback.database import Database, insert_into, text_key
from app.feedback.database import queue as _TABLE

REASONS = ("added", "uncertain", "disagreement", "flagged")
STATES = ("waiting", "done", "skipped")
ORDERS = ("uncertainty", "disagreement", "flagged")


@dataclass(frozen=True)
class Waiting:
    """A text that waits for review.

    Attributes:
        text: as it was given to the model.
        model: the name under which the model is served; a text waits once for each.
        version: of its SavedModel; 0 = none.
        reason: why it waits, one of `REASONS`.
        uncertainty: how unsure the model is, of 0 to 1; None = not known.
        answer: what the model says, in the shape of `Correction.answer`.
        other_answer: what another model or version says; {} if none was asked.
        state: one of `STATES`.
        added: when, ISO 8601; empty = now.
        id: number in the queue; 0 = not yet in it.
    """

    text: str
    model: str = ""
    version: int = 0
    reason: str = "added"
    uncertainty: float | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    other_answer: dict[str, Any] = field(default_factory=dict)
    state: str = "waiting"
    added: str = ""
    id: int = 0


class Progress(NamedTuple):
    """How many texts of a queue are in each state."""

    done: int
    skipped: int
    left: int


class ReviewQueue:
    """The queue in the database of a store: `ReviewQueue(store.database)`. Threads may share it.

    Methods raise RunError where the database fails while in use.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, items: Iterable[Waiting]) -> int:
        """Puts texts in the queue, all or none.

        A text that waits for the same model already gets the newer answers and stays where it is; one that was reviewed
        is left alone, unless it comes back as flagged.

        Returns:
            How many wait now that did not wait before.

        Raises:
            InputError: one of them cannot be stored.
        """
        rows = [_row(each, f"text {number} of the queue") for number, each in enumerate(items, 1)]

        def work(connection: Connection) -> int:
            before = _count_waiting(connection)
            _upsert(connection, rows)
            return _count_waiting(connection) - before

        return self._database.write(work) if rows else 0

    def next(self, *, model: str = "", by: str = "uncertainty", limit: int = 20, offset: int = 0) -> list[Waiting]:
        """The texts to look at first.

        Args:
            model: only its queue; empty = all.
            by: "uncertainty" (least sure first; those without a number last), "disagreement" (only texts on which two
                answers differ, most first) or "flagged" (only those, oldest first).
            limit: how many.
            offset: how many to pass over.
        """
        if by not in ORDERS:
            raise InputError(f"the queue is in the order of {', '.join(ORDERS)}, received {by!r}")
        query = sa.select(_TABLE).where(_TABLE.c.state == "waiting")
        if model:
            query = query.where(_TABLE.c.model == model)
        unsure = sa.func.coalesce(_TABLE.c.uncertainty, -1.0).desc()
        if by == "uncertainty":
            query = query.order_by(unsure, _TABLE.c.number)
        elif by == "disagreement":
            apart = _TABLE.c.disagreement
            query = query.where(apart > 0).order_by(apart.desc(), unsure, _TABLE.c.number)
        else:
            query = query.where(_TABLE.c.reason == "flagged").order_by(_TABLE.c.number)
        with self._database.reading() as connection:
            return [_waiting(row) for row in connection.execute(query.limit(limit).offset(offset)).mappings()]

    def mark(self, texts: Iterable[str], *, model: str, state: str = "done") -> int:
        """Sets the state of texts; corrections do so by themselves when they are added to the store.

        Returns:
            How many texts changed.
        """
        if state not in STATES:
            raise InputError(f"the state of a text in the queue is one of {', '.join(STATES)}, received {state!r}")
        keys = [text_key(text) for text in texts]
        return self._database.write(lambda connection: sum(_mark(connection, key, model, state) for key in keys))

    def progress(self, *, model: str = "") -> Progress:
        """How far the review is."""
        query = sa.select(_TABLE.c.state, sa.func.count()).group_by(_TABLE.c.state)
        if model:
            query = query.where(_TABLE.c.model == model)
        with self._database.reading() as connection:
            counts = {state: number for state, number in connection.execute(query)}
        return Progress(counts.get("done", 0), counts.get("skipped", 0), counts.get("waiting", 0))


def compute_disagreement(answer: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """How far two answers are apart: 0 = the same, 1 = nothing in common; 1 - |both| / |any| (Jaccard distance).

    What is compared is entities with their place and label, or labels. Answers of another shape are the same or not.
    """
    if not answer or not other:
        return 0.0
    ours, theirs = _parts(answer), _parts(other)
    return 1 - len(ours & theirs) / len(ours | theirs) if ours | theirs else 0.0


def _unsure(prediction: Mapping[str, Any]) -> float | None:
    """How unsure the model was of a prediction that a client sent; None where it came without usable scores."""
    from app.evaluation.uncertainty import measure_row  # NumPy, which nobody needs who looks before an update

    try:
        found = measure_row(prediction)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return None
    return found if found is not None and 0 <= found <= 1 else None


def settle(connection: Connection, corrections: Sequence[Correction]) -> None:
    """Has the queue know what people said: judged and skipped texts wait no longer, flagged ones wait."""
    flagged: list[dict[str, Any]] = []
    settled: list[dict[str, str]] = []
    for each in {(each.model, each.text): each for each in corrections}.values():  # of several, the last word counts
        if each.verdict == "flagged":
            item = Waiting(
                each.text, each.model, each.version, "flagged", _unsure(each.prediction), answer=each.prediction
            )
            flagged.append(_row(item, "the correction"))
        else:
            state = "done" if each.verdict in JUDGED else "skipped"
            settled.append({"of_model": each.model, "of_text": text_key(each.text), "to": state})
    if flagged:
        _upsert(connection, flagged)
    if settled:
        chosen = (_TABLE.c.text_key == sa.bindparam("of_text"), _TABLE.c.model == sa.bindparam("of_model"))
        connection.execute(_TABLE.update().where(*chosen).values(state=sa.bindparam("to")), settled)


def _parts(answer: Mapping[str, Any]) -> set[Any]:
    if "entities" in answer:
        return {(each["start"], each["end"], each["label"]) for each in answer["entities"]}
    if "labels" in answer:
        return set(answer["labels"])
    if "label" in answer:
        return {answer["label"]}
    return {json.dumps(answer, sort_keys=True)}


def _mark(connection: Connection, key: str, model: str, state: str) -> int:
    chosen = (_TABLE.c.text_key == key, _TABLE.c.model == model, _TABLE.c.state != state)
    return connection.execute(_TABLE.update().where(*chosen).values(state=state)).rowcount


def _upsert(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    insert = insert_into(connection, _TABLE)
    new = insert.excluded
    flagged = _TABLE.c.reason == "flagged"
    changed = {name: new[name] for name in ("version", "uncertainty", "answer", "other_answer", "disagreement")}
    changed["reason"] = sa.case((sa.and_(flagged, _TABLE.c.state == "waiting"), "flagged"), else_=new.reason)
    statement = insert.on_conflict_do_update(
        index_elements=["model", "text_key"],
        set_={**changed, "state": "waiting"},
        where=sa.or_(_TABLE.c.state == "waiting", new.reason == "flagged"),
    )
    connection.execute(statement, list(rows))


def _count_waiting(connection: Connection) -> int:
    query = sa.select(sa.func.count()).select_from(_TABLE).where(_TABLE.c.state == "waiting")
    return int(connection.execute(query).scalar_one())


def _row(item: Waiting, where: str) -> dict[str, Any]:
    """The row of a text, checked as a correction is."""
    unsure = item.uncertainty
    if unsure is not None and not (isinstance(unsure, int | float) and math.isfinite(unsure)):
        raise InputError(f"uncertainty of {where} must be a number, received {unsure!r}")
    if item.reason not in REASONS:
        raise InputError(f"reason of {where} must be one of {', '.join(REASONS)}, received {item.reason!r}")
    for answer in (item.answer, item.other_answer):
        check_correction(
            Correction(item.text, "any", answer, model=item.model, version=item.version, verdict="flagged"), where=where
        )
    return {
        "model": item.model,
        "version": item.version,
        "text_key": text_key(item.text),
        "text": item.text,
        "reason": item.reason,
        "uncertainty": unsure,
        "answer": json.dumps(item.answer),
        "other_answer": json.dumps(item.other_answer),
        "disagreement": compute_disagreement(item.answer, item.other_answer),
        "state": "waiting",
        "added": utc_time(item.added, f"added of {where}"),
    }


def _waiting(row: Any) -> Waiting:
    return Waiting(
        text=row["text"],
        model=row["model"],
        version=row["version"],
        reason=row["reason"],
        uncertainty=row["uncertainty"],
        answer=json.loads(row["answer"]),
        other_answer=json.loads(row["other_answer"]),
        state=row["state"],
        added=row["added"],
        id=row["number"],
    )
