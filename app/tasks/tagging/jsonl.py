"""Tasks room: JSON lines, either words with tags or text with entities at character offsets.

    {"tokens": ["Ada", "Lovelace", "wrote"], "tags": ["B-PER", "I-PER", "O"], "document": "a"}
    {"text": "Ada Lovelace wrote.", "entities": [{"start": 0, "end": 12, "label": "PER"}]}

A line is one sentence in the first form; in the second it may hold several, which are split by rule.
Consecutive lines with the same `document` (text or number) are one document; a line without it is a
document of its own. Other keys are ignored, unless they look like misspelt ones of these.
"""

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from app.config import InputError
from app.data.json_lines import layout_hint, parse_json
from app.data.sentence import Sentence, surrogate_fault, words_fault
from app.data.text_lines import read_lines
from app.tasks.tagging.labels import decode_tags, detect_scheme, order_fault, tag_fault, tags_from_offsets, type_fault
from app.text.words import Word, split_sentences

Tagged = tuple[tuple[str, ...], tuple[str, ...]]
_Entity = tuple[int, int, str]  # start, end, label
_KEYS = ("text", "entities", "tokens", "tags", "document")
_MISSPELT = 0.85  # how alike a key is to one of these, of 1: `documnt` is, `document_id` is not


def read_jsonl(
    path: str | Path,
    *,
    scheme: str = "auto",
    strict: bool = False,
    types: Iterable[str] | None = None,
    on_repair: Callable[[int], None] | None = None,
) -> Iterator[Sentence]:
    """Reads JSON lines as IOB2 sentences; memory holds one line. The arguments are those of `read_conll`.

    Raises:
        InputError: naming the file and line: no JSON object, neither form, an unknown tag, entities that
            overlap or are not at word boundaries, a sentence of more than 10,000 words; or a file without
            sentences.
    """
    if scheme == "auto":
        scheme = detect_jsonl_scheme(path)
    allowed = None if types is None else set(types)
    document, previous = -1, None
    for number, record in _read_records(path):
        sentences = _sentences_of(record, where=f"{path}, line {number}")
        if not sentences:  # a text without a word
            continue
        key = record.get("document")
        document += key is None or key != previous
        previous = key
        scheme_here = "iob2" if "text" in record else scheme  # tags made from offsets
        for words, tags in sentences:
            if fault := words_fault(words) or _tags_fault(tags, scheme_here, allowed):
                raise InputError(f"{path}, line {number}: {fault}")
            decoded, repaired = decode_tags(tags, scheme_here)
            if repaired and strict:
                raise InputError(f"{path}, line {number}: {order_fault(tags, scheme_here)[1]}")
            if repaired and on_repair:
                on_repair(repaired)
            yield Sentence(words, decoded, document)
    if document < 0:
        raise InputError(f"{path} is empty: it holds no sentence")


def detect_jsonl_scheme(path: str | Path) -> str:
    """Decides the scheme of the `tags` of a file in one pass over it."""
    return detect_scheme(
        tags
        for number, record in _read_records(path)
        if "text" not in record
        for _, tags in _sentences_of(record, where=f"{path}, line {number}")
        if not _tags_fault(tags, "auto", None)
    )


def check_jsonl_head(path: str | Path, *, scheme: str, types: Iterable[str] | None, at_most_bytes: int) -> None:
    """Reads the beginning of a file; faults in it are those of `read_jsonl`."""
    allowed = None if types is None else set(types)
    for number, record in _read_records(path, at_most_bytes=at_most_bytes):
        for words, tags in _sentences_of(record, where=f"{path}, line {number}"):
            if fault := words_fault(words) or _tags_fault(tags, "iob2" if "text" in record else scheme, allowed):
                raise InputError(f"{path}, line {number}: {fault}")


def _read_records(path: str | Path, *, at_most_bytes: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(path, at_most_bytes=at_most_bytes):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not valid JSON ({error}){layout_hint(line)}") from error
        if not isinstance(record, dict):
            raise InputError(
                f"{path}, line {number}: expected an object with tokens and tags, or with text and entities"
                f"{layout_hint(line)}"
            )
        if fault := _keys_fault(record):
            raise InputError(f"{path}, line {number}: {fault}")
        if not isinstance(record.get("document", ""), str | int | None):
            raise InputError(f'{path}, line {number}: "document" must be a text or a whole number')
        yield number, record


def _keys_fault(record: dict[str, Any]) -> str:
    """Says why a line is neither form, or which of its keys is misspelt; else returns an empty string."""
    for key in record:
        nearest = _nearest_key(key)
        if nearest != key and nearest not in ("", *record):
            return f"unknown key {key[:40]!r}, did you mean {nearest!r}?"
    if ("text" in record) == ("tokens" in record):
        return f"expected an object with tokens and tags, or with text and entities; the keys are {_keys_of(record)}"
    return ""


def _keys_of(record: dict[str, Any]) -> str:
    return ", ".join(repr(key[:40]) for key in list(record)[:8]) or "none"


@lru_cache(maxsize=1024)  # the lines of a file have the same keys
def _nearest_key(key: str) -> str:
    """The key itself if it is one of the two forms, one that it seems to mean, or an empty string."""
    return key if key in _KEYS else next(iter(difflib.get_close_matches(key.casefold(), _KEYS, 1, _MISSPELT)), "")


def _sentences_of(record: dict[str, Any], *, where: str) -> list[Tagged]:
    """The sentences of one line, as they stand there."""
    if "text" in record:
        return _from_offsets(record, where)
    tokens, tags = record["tokens"], record.get("tags", [])
    for name, values in (("tokens", tokens), ("tags", tags)):
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise InputError(f'{where}: "{name}" must be a list of texts, received {_short(values)}')
    if len(tokens) != len(tags):
        missing = "" if "tags" in record else f'; there is no "tags" beside {_keys_of(record)}'
        raise InputError(f"{where}: {len(tokens)} tokens but {len(tags)} tags{missing}")
    return [(tuple(tokens), tuple(tags))]


def _from_offsets(record: dict[str, Any], where: str) -> list[Tagged]:
    """Splits a text and places its entities; a sentence boundary inside an entity is not one."""
    text = record["text"]
    if not isinstance(text, str):
        raise InputError(f'{where}: "text" must be a text, received {_short(text)}')
    if fault := surrogate_fault(text):
        raise InputError(f'{where}: "text" {fault}')
    entities = _entities_of(record, where)
    sentences = split_sentences(text)
    words = [word for sentence in sentences for word in sentence]
    try:
        tags = tags_from_offsets(words, entities)
    except InputError as error:
        raise InputError(f"{where}: {error}{_other_unit(text, words, record['entities'])}") from error
    result: list[Tagged] = []
    first = last = 0
    for sentence in sentences:
        last += len(sentence)
        if last == len(words) or not tags[last].startswith("I-"):
            result.append((_texts(text, words[first:last]), tags[first:last]))
            first = last
    return result


def _texts(text: str, words: list[Word]) -> tuple[str, ...]:
    return tuple(text[start:end] for start, end in words)


def _entities_of(record: dict[str, Any], where: str) -> list[tuple[int, int, str]]:
    text, entities = record["text"], record.get("entities")
    if not isinstance(entities, list):
        missing = "" if "entities" in record else f"; the keys are {_keys_of(record)}"
        if missing and {"label", "labels"} & record.keys():
            missing += "; labelled texts, one label each, need --set task=classification"
        raise InputError(f'{where}: "entities" must be a list, received {_short(entities)}{missing}')
    found: list[_Entity] = []
    for entity in entities:
        fields = entity if isinstance(entity, dict) else {}
        start, end, label = fields.get("start"), fields.get("end"), fields.get("label")
        if type(start) is not int or type(end) is not int or not isinstance(label, str):
            raise InputError(
                f"{where}: an entity needs start and end as whole numbers and label as text, "
                f"received {_short(entity)}"
            )
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"{where}: {_short(label)} at {start}-{end} is outside the text of {len(text)} characters"
                f"{_other_unit(text, None, entities)}"
            )
        if fault := type_fault(label):
            raise InputError(f"{where}: {fault}")
        if fields.get("text", text[start:end]) != text[start:end]:
            unit = _other_unit(text, None, entities)
            raise InputError(
                f"{where}: {label} at {start}-{end} is {text[start:end]!r} in the text but "
                f"{_short(fields['text'])} in the entity; offsets count characters from 0, end not included{unit}"
            )
        found.append((start, end, label))
    return found


def _other_unit(text: str, words: list[Word] | None, entities: list[Any]) -> str:
    """What else the offsets of a text may count, if every entity fits it then; else an empty string.

    Args:
        text: the text.
        words: of the text, at whose borders entities must be; None to split it.
        entities: as they stand in the line.
    """
    must = "they must count characters (Unicode code points)"
    same = {i: i for i in range(len(text) + 1)}
    units = [("the end seems to be the last character, it must be the one after it", 1, same)]
    if not text.isascii():
        units.append((f"the offsets seem to count bytes of UTF-8, {must}", 0, _places(text, lambda c: len(c.encode()))))
        utf_16 = _places(text, lambda c: 1 + (c > "\uffff"))
        units.append((f"the offsets seem to count units of UTF-16, as JavaScript does, {must}", 0, utf_16))
    words = [word for sentence in split_sentences(text) for word in sentence] if words is None else words
    starts, ends = {word.start for word in words}, {word.end for word in words}
    for hint, to_end, place in units:
        for entity in entities:
            fields = entity if isinstance(entity, dict) else {}
            first, last = fields.get("start"), fields.get("end")
            start = place.get(first) if type(first) is int else None
            end = place.get(last + to_end) if type(last) is int else None
            if start not in starts or end not in ends or fields.get("text", text[start:end]) != text[start:end]:
                break
        else:
            return f"; {hint}"
    return ""


def _places(text: str, size: Callable[[str], int]) -> dict[int, int]:
    """The number of the character that begins, or ends the text, at each offset in another unit."""
    return {offset: i for i, offset in enumerate(accumulate(map(size, text), initial=0))}


def _tags_fault(tags: tuple[str, ...], scheme: str, types: Collection[str] | None) -> str:
    return next(filter(None, (tag_fault(tag, scheme, types) for tag in tags)), "")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
