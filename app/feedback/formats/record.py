"""Feedback room: what the forms of corrections share: records as a file has them, checked and with an id; JSON."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from app.config import InputError
from app.data.text_lines import read_lines
from app.feedback.correction import Correction, check_correction
from app.feedback.spans import Span, place_entities
from app.run.files import json_fault

_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # of ids made from what a correction says


class Refused(NamedTuple):
    """What could not be used: where it is, and why not."""

    where: str
    reason: str


@dataclass(frozen=True)
class Found:
    """A text as a file has it; what it does not have is None.

    Attributes:
        where: line or item of the file.
        text: the text.
        spans: its entities.
        label: its label; "" = it has none on purpose.
        several: its labels, where it may have any number.
        whole: a full correction, which is only checked.
        author: who said it.
        time: when.
    """

    where: str
    text: Any = ""
    spans: Sequence[Span] | None = None
    label: Any = None
    several: Sequence[Any] | None = None
    whole: Correction | None = None
    author: str = ""
    time: str = ""


Item = Found | Refused


def finish(
    found: Found, *, path: Path, task: str, labels: Collection[str] | None, several: bool | None, author: str
) -> Correction:
    source = f"import:{path.name[-150:]}"
    if found.whole:
        if found.whole.task != task:
            raise InputError(f"it is of the task {found.whole.task}, not of {task}")
        whole = replace(
            found.whole, author=found.whole.author or author, source=found.whole.source or source
        )
        return _checked(whole, labels=labels, several=several)
    if found.text is None:
        raise InputError("it has no text")
    if not isinstance(found.text, str):
        raise InputError(f"the text must be a text, received {found.text!r}")
    correction = Correction(found.text, task, author=found.author or author, source=source, time=found.time)
    return _checked(replace(correction, answer=_answer_of(found, task, labels)), labels=labels, several=several)


def _checked(correction: Correction, *, labels: Collection[str] | None, several: bool | None) -> Correction:
    return check_correction(_with_id(correction), labels=labels, several=several)


def _answer_of(found: Found, task: str, labels: Collection[str] | None) -> dict[str, Any]:
    if task == "tagging":
        if found.spans is None:
            raise InputError("it has no entities")
        return {"entities": place_entities(found.text, found.spans, labels=labels)}
    if found.several is not None:
        return {"labels": list(found.several)}
    if found.label is None:
        raise InputError("it has no label")
    return {"label": None if found.label == "" else found.label}


def _with_id(correction: Correction) -> Correction:
    """With an id made from what it says, so that a file that is read twice is stored once."""
    if correction.id:
        return correction
    said = (correction.task, correction.text, correction.answer, correction.verdict, correction.author, correction.time)
    return replace(correction, id=str(uuid.uuid5(_NAMESPACE, json.dumps(said, sort_keys=True))))


# JSON of any kind


def read_values(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, value) of each line of JSON lines, or of each item of a list; a line that is no JSON is Refused."""
    one = next(((number, line) for number, line in some_lines(path) if line.strip()), None)
    if one is None:
        raise InputError(f"{path} is empty")
    try:
        first = json.loads(one[1])
        by_line = not isinstance(first, list) or (bool(first) and isinstance(first[0], str))
    except (ValueError, RecursionError):
        by_line = one[1].lstrip()[:1] == "{" and one[1].rstrip()[-1:] == "}"
    if not by_line:
        yield from _read_list(path)
        return
    for number, line in read_lines(path):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                yield where, Refused(where, f"it is not valid JSON ({json_fault(error)})")


def some_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file; one that is too long for a line is a list."""
    try:
        yield from read_lines(path)
    except InputError as error:
        if "longer than" not in str(error):
            raise
        yield 1, "["


def _read_list(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        content = path.read_bytes()
        values = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {json_fault(error)}") from error
    if not isinstance(values, list):
        values = [values]
    for number, value in enumerate(values, 1):
        yield f"{path}, item {number}", value


def read_records(path: Path, read: Callable[[str, Mapping[str, Any]], Iterable[Item]]) -> Iterator[Item]:
    """What `read` makes of each object of a file."""
    for where, value in read_values(path):
        if isinstance(value, Refused):
            yield value
        elif not isinstance(value, Mapping):
            yield Refused(where, "it must be a JSON object")
        else:
            try:
                yield from read(where, value)
            except (InputError, TypeError, KeyError, AttributeError, ValueError) as error:
                reason = form_fault(error)
                yield Refused(where, reason)


def form_fault(error: Exception) -> str:
    """Why a record cannot be read."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, KeyError):
        return f"it is not of this form: it has no {json.dumps(error.args[0])}"
    return "it is not of this form: its values are of other kinds"


def json_line(value: Any) -> str:
    """A JSON line: halves of surrogate pairs, which UTF-8 does not have, are escaped with everything else then."""
    text = json.dumps(value, ensure_ascii=False)
    return (text if text.isprintable() else json.dumps(value)) + "\n"


# Entities and labels


def are_spans(entities: Any) -> bool:
    return isinstance(entities, list) and all(isinstance(each, Mapping) and "start" in each for each in entities)


def span_of(entity: Mapping[str, Any]) -> Span:
    return Span(entity["start"], entity.get("end"), entity.get("label"), entity.get("text"))


def slice_of(correction: Correction, entity: Mapping[str, Any]) -> str:
    return correction.text[entity["start"] : entity["end"]]


def labels_of(correction: Correction) -> list[str]:
    if "labels" in correction.answer:
        return list(correction.answer["labels"])
    label = correction.answer["label"]
    return [] if label is None else [label]


def triple(given: Any) -> Span:
    if not isinstance(given, list) or len(given) < 3:
        raise InputError(f"an entity must be [start, end, label], received {given!r:.60}")
    return Span(*given[:3])


def triples(correction: Correction) -> list[list[Any]]:
    return [[one["start"], one["end"], one["label"]] for one in correction.answer["entities"]]


def find_words(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Where the words are in a text that has nothing else but blanks; [] if it has."""
    places: list[tuple[int, int]] = []
    at = 0
    for word in words:
        start = text.find(word, at)
        if start < 0 or not _is_blank(text[at:start]):
            return []
        at = start + len(word)
        places.append((start, at))
    return places if _is_blank(text[at:]) else []


def _is_blank(text: str) -> bool:
    """Whether there is nothing to see: blanks, control characters, zero-width ones."""
    return all(letter.isspace() or not letter.isprintable() for letter in text)
