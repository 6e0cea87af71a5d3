"""Feedback room: corrections in this program's own JSON lines, of which nothing is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.config import InputError
from app.feedback.correction import Correction, correction_from
from app.feedback.formats.record import (
    Found,
    Item,
    Refused,
    are_spans,
    json_line,
    read_records,
    span_of,
)


def read(path: Path, task: str) -> Iterator[Item]:
    def read_one(where: str, record: Mapping[str, Any]) -> Iterator[Item]:
        if "answer" in record:
            yield Found(where, whole=correction_from(record, where="it", task=task))
            return
        entities, several = record.get("entities"), record.get("labels")
        if entities is not None and not are_spans(entities):
            raise InputError('"entities" must be a list of {"start", "end", "label"}')
        spans = entities if entities is None else list(map(span_of, entities))
        label = "" if "label" in record and record["label"] is None else record.get("label")
        author = record.get("author", "")
        yield Found(where, record.get("text"), spans=spans, label=label, several=several, author=author)

    return read_records(path, read_one)


def write(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
    return (json_line(asdict(each)) for each in corrections)
