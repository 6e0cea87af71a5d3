"""Feedback room: what a person said about an answer, and whether it can be stored."""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from uuid import uuid4

from app.config import InputError
from app.run.files import json_fault
from app.text.words import Word, split_words

VERDICTS = ("accepted", "fixed", "flagged", "skipped")
JUDGED = ("accepted", "fixed")  # the verdicts that come with an answer that is right
MAX_TEXT_CHARACTERS = 1_000_000
MAX_NAME_CHARACTERS = 200  # of ids, authors, models, sources, labels
MAX_JSON_CHARACTERS = 8_000_000  # of an answer or a prediction
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
_CLOCKS_DIFFER = timedelta(days=1)  # of one machine and another, time zones mistaken included


@dataclass(frozen=True)
class Correction:
    """What a person said about the answer to one text.

    Attributes:
        text: as it was given to the model.
        task: "tagging", "classification", or a task of one's own.
        answer: what is right. Tagging: {"entities": [{"start", "end", "label"}]}, offsets in characters (Unicode code
            points), the end excluded. Classification: {"label": str or None}, or {"labels": [...]} where a text has
            several. {} where nobody has said what is right (flagged, skipped).
        prediction: what the model answered then, of the same shape, with its scores; {} if it was not asked.
        model: the name under which the model is served.
        version: of its SavedModel; 0 = none.
        digest: SHA-256 of its weights.
        author: who said it.
        source: where, such as "page", "label_studio" or "import:FILE".
        time: when, ISO 8601; empty = now. It is stored in UTC with microseconds.
        verdict: "accepted" (the answer was right), "fixed" (`answer` is right instead), "flagged" (somebody is to look
            at it) or "skipped".
        id: saving the same id twice stores it once, so that a client may try again; empty = a new one.
    """

    text: str
    task: str
    answer: dict[str, Any] = field(default_factory=dict)
    prediction: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    version: int = 0
    digest: str = ""
    author: str = ""
    source: str = ""
    time: str = ""
    verdict: str = "fixed"
    id: str = ""


def check_correction(
    correction: Correction,
    *,
    labels: Collection[str] | None = None,
    several: bool | None = None,
    where: str = "the correction",
) -> Correction:
    """The correction as it is stored: with an id and a time, entities in order, on whole words, and only their span.

    What is stored is what an update can learn: models tag words, and give a text one label or several.

    Args:
        correction: as a person or a program gave it.
        labels: the labels of the model (tagging: types of entities); None = any.
        several: whether the model gives a text several labels; None = not known.
        where: what the error calls it, such as "correction 3" or "line 3 of FILE".

    Raises:
        InputError: what is wrong, and where.
    """
    _check_text(correction.text, f"text of {where}")
    if correction.verdict not in VERDICTS:
        raise InputError(f"verdict of {where} must be one of {', '.join(VERDICTS)}, received {correction.verdict!r}")
    for name in ("task", "model", "digest", "author", "source", "id"):
        _check_name(getattr(correction, name), f"{name} of {where}")
    if not correction.task:
        raise InputError(f"task of {where} must not be empty")
    version = correction.version
    if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version < 2**63:
        raise InputError(f"version of {where} must be an integer of at least 0, received {version!r}")
    for name in ("answer", "prediction"):
        _check_json(getattr(correction, name), f"{name} of {where}")
    answer = correction.answer
    if answer or correction.verdict in JUDGED:
        answer = _check_answer(correction, labels, several, f"answer of {where}")
    time = utc_time(correction.time, f"time of {where}")
    if time > utc_time((datetime.now(timezone.utc) + _CLOCKS_DIFFER).isoformat(), "now"):
        raise InputError(f"time of {where} must not be in the future, or it would outlast what is said later: {time}")
    return replace(correction, answer=answer, time=time, id=correction.id or str(uuid4()))


def utc_time(time: str, name: str) -> str:
    """A time as it is stored: UTC, of fixed length, so that the order of the texts is that of the times.

    Args:
        time: ISO 8601; without a zone it is UTC; empty = now.
        name: what the error calls it.
    """
    if not time:
        moment = datetime.now(timezone.utc)
    else:
        try:
            moment = datetime.fromisoformat(time.replace("Z", "+00:00").replace("z", "+00:00"))
            moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
        except (TypeError, ValueError, AttributeError, OverflowError):
            raise InputError(
                f"{name} must be ISO 8601, such as 2026-01-31T12:00:00Z, received {_short(time)}"
            ) from None
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def correction_from(record: Any, *, where: str = "the correction", **defaults: Any) -> Correction:
    """A correction of a JSON object with the fields of `Correction`; not checked yet, see `check_correction`.

    Args:
        record: the object, as `json.loads` gives it.
        where: what the error calls it.
        **defaults: values of fields that the object does not have.

    Raises:
        InputError: it is no object, has a field that corrections do not have, or lacks one they must have.
    """
    if not isinstance(record, Mapping):
        raise InputError(f"{where} must be a JSON object, received {_short(record)}")
    known = Correction.__dataclass_fields__
    if strange := [name for name in record if name not in known]:
        raise InputError(f"{where} has a field {strange[0]!r}; the fields are {', '.join(known)}")
    values = {**defaults, **record}
    if missing := [name for name in ("text", "task") if name not in values]:
        raise InputError(f"{where} has no {missing[0]}")
    return Correction(**values)


def _check_text(text: Any, name: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{name} must be a text that is not empty, received {_short(text)}")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InputError(f"{name} must have at most {MAX_TEXT_CHARACTERS} characters, received {len(text)}")
    check_storable(text, name)


def _check_name(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise InputError(f"{name} must be a text, received {_short(value)}")
    if len(value) > MAX_NAME_CHARACTERS:
        raise InputError(f"{name} must have at most {MAX_NAME_CHARACTERS} characters, received {len(value)}")
    check_storable(value, name)


def check_storable(text: str, name: str) -> None:
    """Raises InputError for what no database takes: PostgreSQL has no NUL, UTF-8 no half of a surrogate pair."""
    if found := _NOT_STORABLE.search(text):
        what = "a NUL character" if found.group() == "\0" else "half of a surrogate pair"
        raise InputError(f"{name} holds {what} at character {found.start()}, which cannot be stored")


def _check_json(value: Any, name: str) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{name} must be a JSON object, received {_short(value)}")
    try:
        length = len(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{name} cannot be written as JSON: {json_fault(error)}") from None
    if length > MAX_JSON_CHARACTERS:
        raise InputError(f"{name} must have at most {MAX_JSON_CHARACTERS} characters as JSON, received {length}")


def _check_answer(
    correction: Correction, labels: Collection[str] | None, several: bool | None, name: str
) -> dict[str, Any]:
    answer = correction.answer
    if correction.task == "tagging":
        entities = answer.get("entities")
        if not isinstance(entities, list):
            raise InputError(f'{name} must be {{"entities": [...]}}, received {_short(answer)}')
        return {"entities": check_entities(correction.text, entities, labels=labels, name=name)}
    if correction.task != "classification":
        return answer
    if "labels" in answer:
        given = answer["labels"]
        if not isinstance(given, list):
            raise InputError(f"labels in {name} must be a list, received {_short(given)}")
        for label in given:
            _check_label(label, labels, f"label in {name}")
        unique = list(dict.fromkeys(given))
        if several is False and len(unique) > 1:
            raise InputError(f"{name} must have one label, as the model gives, received {', '.join(unique)[:200]}")
        return {"labels": unique}
    if "label" not in answer:
        raise InputError(f'{name} must be {{"label": ...}} or {{"labels": [...]}}, received {_short(answer)}')
    if answer["label"] is not None:
        _check_label(answer["label"], labels, f"label in {name}")
    return {"label": answer["label"]}


def check_entities(
    text: str, entities: list[Any], *, labels: Collection[str] | None = None, name: str = "entities"
) -> list[dict[str, Any]]:
    """Entities on whole words in the order of the text, each {"start", "end", "label"}.

    A word that one covers in part is taken whole, blanks around one are left out, and the same entity twice is one:
    models tag words.

    Raises:
        InputError: one is not inside the text, covers no word, overlaps another or shares a word with it, has an
            unknown label, or names a text ("text") that is not the one between its offsets.
    """
    found: dict[tuple[int, int, str], None] = {}
    words = split_words(text) if entities else []
    for number, entity in enumerate(entities, 1):
        each = f"entity {number} in {name}"
        if not isinstance(entity, Mapping):
            raise InputError(f"{each} must be a JSON object, received {_short(entity)}")
        start, end = entity.get("start"), entity.get("end")
        whole = all(isinstance(offset, int) and not isinstance(offset, bool) for offset in (start, end))
        if not whole or not 0 <= start < end <= len(text):  # type: ignore[operator]
            raise InputError(
                f"{each} must have 0 <= start < end <= {len(text)}, the characters of the text, received start "
                f"{_short(start)} and end {_short(end)}"
            )
        said = entity.get("text", text[start:end])
        if said != text[start:end]:
            raise InputError(
                f"{each} is {_short(text[start:end])} at {start} to {end}, received the text {_short(said)}: offsets "
                "count characters (Unicode code points), not bytes or UTF-16 units"
            )
        _check_label(entity.get("label"), labels, f"label of {each}")
        assert isinstance(start, int) and isinstance(end, int)
        start, end = _whole_words(text, words, start, end, name=f"{each}, {entity['label']}")
        found[start, end, entity["label"]] = None
    ordered = sorted(found)
    for one, other in pairwise(ordered):
        if other[0] < one[1]:
            raise InputError(
                f"entities in {name} must not overlap, received {one[2]} at {one[0]} to {one[1]} and "
                f"{other[2]} at {other[0]} to {other[1]}, words taken whole"
            )
    return [{"start": start, "end": end, "label": label} for start, end, label in ordered]


def _whole_words(text: str, words: Sequence[Word], start: int, end: int, *, name: str) -> tuple[int, int]:
    """Where the words begin and end that an entity covers, at least in part."""
    first = bisect_right(words, start, key=lambda word: word.end)
    last = bisect_left(words, end, key=lambda word: word.start)
    if first >= last:
        raise InputError(f"{name} at {start} to {end} covers no word, only {_short(text[start:end])}")
    return words[first].start, words[last - 1].end


def _check_label(label: Any, labels: Collection[str] | None, name: str) -> None:
    if not isinstance(label, str) or not label.strip():
        raise InputError(f"{name} must be a text that is not empty, received {_short(label)}")
    _check_name(label, name)
    if labels is not None and label not in labels:
        known = ", ".join(sorted(labels)[:20]) + (", ..." if len(labels) > 20 else "")
        raise InputError(f"{name} must be one of {known}, received {_short(label)}")


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested deeply; a number of thousands of digits
        return "something that is too long to show"
    return text if len(text) <= 60 else text[:57] + "..."
