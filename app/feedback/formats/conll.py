"""Feedback room: corrections of entities in CoNLL columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from app.config import InputError
from app.data.sentence import MAX_SENTENCE_WORDS
from app.data.text_lines import read_lines
from app.feedback.correction import Correction
from app.feedback.formats.record import (
    Found,
    Item,
    Refused,
    find_words,
)
from app.feedback.spans import Span, snap_entities
from app.tasks.tagging.conll import MAX_LINE_BYTES, read_conll
from app.tasks.tagging.labels import decode_tags, spans, tags_from_offsets, type_fault
from app.text.words import split_sentences

_COMMENT = "# text = "


def read(path: Path, task: str) -> Iterator[Item]:
    comments = [
        (number, line[len(_COMMENT) :]) for number, line in read_lines(path) if line.startswith(_COMMENT)
    ]
    document: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    number = 0
    for sentence in [*read_conll(path), None]:
        if document and (sentence is None or sentence.document != number):
            where = f"{path}, text {number + 1} ({' '.join(document[0][0])[:40]})"
            text, words = _find_text([word for words, _ in document for word in words], comments)
            tags, _ = decode_tags([tag for _, tags in document for tag in tags], "iob2")
            spans_ = [Span(words[first][0], words[last - 1][1], label) for label, first, last in spans(tags)]
            yield Found(where, text, spans=spans_)
            document = []
        if sentence is not None:
            number = sentence.document
            document.append((sentence.words, sentence.tags))


def _find_text(words: Sequence[str], comments: list[tuple[int, str]]) -> tuple[str, list[tuple[int, int]]]:
    """The text of a document and where its words are in it: that of the next comment that has them, or their own."""
    for i, (_, comment) in enumerate(comments[:50]):
        for text in _readings(comment):
            places = find_words(text, words)
            if places:
                del comments[: i + 1]
                return text, places
    joined = " ".join(words)
    return joined, find_words(joined, words)


def _readings(comment: str) -> Iterator[str]:
    try:
        if isinstance(text := json.loads(comment), str):
            yield text
    except (ValueError, RecursionError):
        pass
    yield comment


def write(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
    for each in corrections:
        sentences, comment = split_sentences(each.text), f"{_COMMENT}{json.dumps(each.text)}\n"
        words = [word for sentence in sentences for word in sentence]
        try:
            snapped = snap_entities(each.text, each.answer["entities"])
            entities = [(one["start"], one["end"], one["label"]) for one in snapped]
            tags = tags_from_offsets(words, entities)
            if not words:
                raise InputError("its text has no word")
            if len(words) > MAX_SENTENCE_WORDS or len(comment) > MAX_LINE_BYTES:
                raise InputError("its text is too long for a column file")
            if fault := next(filter(None, (type_fault(label) for _, _, label in entities)), ""):
                raise InputError(fault)
        except InputError as error:
            refused.append(Refused(f"correction {each.id}", str(error)))
            continue
        breaks = {sentence[0].start for sentence in sentences}
        yield f"-DOCSTART- O\n\n{comment}"
        for i, ((start, end), tag) in enumerate(zip(words, tags, strict=True)):
            if i and start in breaks and not tag.startswith("I-"):
                yield "\n"
            yield f"{each.text[start:end]} {tag}\n"
        yield "\n"
