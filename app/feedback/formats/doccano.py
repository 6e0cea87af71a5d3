"""Feedback room: corrections in doccano's JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.config import InputError
from app.feedback.correction import Correction
from app.feedback.formats.record import (
    Found,
    Item,
    Refused,
    json_line,
    labels_of,
    read_records,
    triple,
    triples,
)
from app.feedback.spans import Span


def read(path: Path, task: str) -> Iterator[Item]:
    def read_one(where: str, record: Mapping[str, Any]) -> Iterator[Item]:
        text = record.get("text", record.get("data"))
        author = record.get("annotator", record.get("username", ""))
        author = author if isinstance(author, str) else ""
        given = record.get("label", record.get("labels", record.get("entities")))
        if isinstance(given, str):
            given = [given]
        if not isinstance(given, list):
            raise InputError('it has no "label"')
        if task == "classification":
            several = given if len(given) > 1 else None
            yield Found(where, text, label=given[0] if given else None, several=several, author=author)
        else:
            yield Found(where, text, spans=[_doccano_span(each) for each in given], author=author)

    return read_records(path, read_one)


def _doccano_span(given: Any) -> Span:
    if isinstance(given, Mapping) and "start_offset" in given:
        return Span(given["start_offset"], given.get("end_offset"), given.get("label"))
    return triple(given)


def write(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
    for number, each in enumerate(corrections, 1):
        label: list[Any] = triples(each) if task == "tagging" else labels_of(each)
        if not label and task == "classification":
            reason = "it has no label, which doccano cannot tell from a text that waits"
            refused.append(Refused(f"correction {each.id}", reason))
            continue
        yield json_line({"id": number, "text": each.text, "label": label})
