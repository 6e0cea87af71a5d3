"""Feedback room: corrections in the training data of spaCy, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.config import InputError
from app.feedback.correction import Correction
from app.feedback.formats.record import (
    Found,
    Item,
    Refused,
    find_words,
    form_fault,
    json_line,
    labels_of,
    read_values,
    triple,
    triples,
)
from app.feedback.spans import Span
from app.tasks.tagging.labels import decode_tags, spans


def read(path: Path, task: str) -> Iterator[Item]:
    for where, value in read_values(path):
        try:
            if isinstance(value, Refused):
                yield value
            elif isinstance(value, Mapping) and "paragraphs" in value:
                for number, paragraph in enumerate(value["paragraphs"], 1):
                    yield _paragraph(f"{where}, paragraph {number}", paragraph)
            elif isinstance(value, list) and len(value) == 2 and isinstance(value[1], Mapping):
                yield _annotated(where, *value)
            else:
                yield Refused(where, 'it must be [text, {"entities": ...}] or an object with paragraphs')
        except (InputError, TypeError, KeyError, AttributeError, ValueError) as error:
            reason = form_fault(error)
            yield Refused(where, reason)


def _annotated(where: str, text: Any, values: Mapping[str, Any]) -> Found:
    entities, cats = values.get("entities"), values.get("cats")
    spans = None if entities is None else [triple(list(each)) for each in entities]
    return _with_cats(Found(where, text, spans=spans), cats)


def _with_cats(found: Found, cats: Mapping[str, Any] | None) -> Found:
    if cats is None:
        return found
    chosen = [label for label, value in cats.items() if value >= 0.5]
    return replace(found, label=chosen[0] if chosen else "", several=chosen if len(chosen) > 1 else None)


def _paragraph(where: str, paragraph: Mapping[str, Any]) -> Found:
    tokens = [token for sentence in paragraph.get("sentences", []) for token in sentence["tokens"]]
    words = [token["orth"] for token in tokens]
    text = paragraph.get("raw")
    if text is None:
        text = "".join(token["orth"] + token.get("space", " ") for token in tokens).rstrip(" ")
    cats = {each["label"]: each["value"] for each in paragraph.get("cats", [])} or None
    if "entities" in paragraph:
        return _with_cats(Found(where, text, spans=[triple(list(each)) for each in paragraph["entities"]]), cats)
    if not any("ner" in token for token in tokens):
        return _with_cats(Found(where, text), cats)
    places = find_words(text, words)
    if len(places) != len(words):
        raise InputError("its tokens are not those of its raw text")
    decoded, _ = decode_tags([_from_biluo(token.get("ner") or "O") for token in tokens], "iobes")
    found = [Span(places[first][0], places[last - 1][1], label) for label, first, last in spans(decoded)]
    return _with_cats(Found(where, text, spans=found), cats)


def _from_biluo(tag: str) -> str:
    """The IOBES tag; "-" says that nobody knows."""
    return "O" if tag == "-" else {"L": "E", "U": "S"}.get(tag[0], tag[0]) + tag[1:]


def write(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
    for each in corrections:
        if task == "tagging":
            yield json_line([each.text, {"entities": triples(each)}])
        else:
            yield json_line([each.text, {"cats": dict.fromkeys(labels_of(each), 1.0)}])
