"""Corrections in files: this program's own, and those of annotation tools.

    jsonl         one object a line with the fields of `Correction`; nothing is lost. Rows of --mode=predict and corpora
                  ({"text", "entities"}, {"text", "label"}, {"text", "labels"}) are read too.
    conll         tagging: word and tag (IOB2; IOB1 and IOBES are read too), `-DOCSTART-` before each text, and the text
                  itself in a comment `# text = "..."`, as JSON; without it, the words are joined by blanks.
    csv           classification: columns text and label (several labels are parted by |, none is an empty field).
                  Tagging: one row a text, columns text and entities, the latter as JSON:
                  [{"start": 0, "end": 3, "label": "PER", "text": "Ada"}]. Semicolons and tabs are read too.
    label_studio  its JSON export (not JSON-MIN): regions of `labels`, and `choices`. Each annotation is a correction of
                  its annotator. Its offsets count characters since 2021, before that UTF-16 units; see `spans.py`.
    doccano       its JSONL export: "label" or "labels" with [start, end, label], or with labels alone; or "entities"
                  with start_offset and end_offset.
    spacy         JSON lines or a list of [text, {"entities": [[start, end, label]]}] or [text, {"cats": {label: 1.0}}],
                  as its `Example.from_dict` takes them; its JSON training format (documents with paragraphs) is read
                  too. The binary .spacy (DocBin) needs spaCy itself.

Written are corrections with an answer. Only jsonl keeps who said it, when, and about which version, and the difference
between {"label": "a"} and {"labels": ["a"]}, which the other forms give back as the former.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from app.config import InputError
from app.data.sentence import MAX_SENTENCE_WORDS
from app.data.text_lines import read_lines, utf16_hint
from app.feedback.correction import JUDGED, Correction, check_correction, correction_from
from app.feedback.spans import Span, place_entities, snap_entities
from app.run.directory import atomic
from app.run.files import json_fault
from app.tasks.tagging.conll import MAX_LINE_BYTES, read_conll
from app.tasks.tagging.labels import decode_tags, spans, tags_from_offsets, type_fault
from app.text.words import split_sentences

FORMS = ("jsonl", "conll", "csv", "label_studio", "doccano", "spacy")
LABEL_SEPARATOR = "|"
_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # of ids made from what a correction says
_COMMENT = "# text = "
_ENDINGS = {
    **dict.fromkeys((".conll", ".conllu", ".iob", ".iob2", ".bio"), "conll"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
}
_MOST_FIELD_CHARACTERS = 16 * 2**20


class Refused(NamedTuple):
    """What could not be used: where it is, and why not."""

    where: str
    reason: str


@dataclass(frozen=True)
class _Found:
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


_Item = _Found | Refused


def read_corrections(
    path: str | Path,
    *,
    form: str = "auto",
    task: str,
    labels: Collection[str] | None = None,
    several: bool | None = None,
    author: str = "",
) -> tuple[list[Correction], list[Refused]]:
    """Reads a file of corrections.

    Args:
        path: the file.
        form: one of `FORMS`; auto = by the name and what the file begins with.
        task: "tagging" or "classification".
        labels: those of the model (tagging: types of entities); None = any.
        several: whether the model gives a text several labels; None = not known.
        author: who said what the file gives no author for.

    Returns:
        The corrections in the order of the file, checked, with ids that are the same each time the file is read; and
        what could not be used. A text with one unusable entity is not used at all: the rest would teach that there is
        nothing at that place.

    Raises:
        InputError: the file as a whole cannot be read as this form.
    """
    path = Path(path)
    if form == "auto":
        form = detect_form(path)
    if form not in _READERS:
        raise InputError(f"the form of {path} must be auto or one of {', '.join(FORMS)}, received {form!r}")
    if task not in ("tagging", "classification") and form != "jsonl":
        raise InputError(f"{path} is {form}: corrections of the task {task!r} can be read only as jsonl")
    if form == "conll" and task != "tagging":
        raise InputError(f"{path} is conll, which holds entities: labels of whole texts are read as csv or jsonl")
    found: list[Correction] = []
    refused: list[Refused] = []
    for item in _READERS[form](path, task):
        if isinstance(item, Refused):
            refused.append(item)
            continue
        try:
            found.append(_finish(item, path=path, task=task, labels=labels, several=several, author=author))
        except InputError as error:
            refused.append(Refused(item.where, str(error)))
    return found, refused


def write_corrections(
    path: str | Path, corrections: Iterable[Correction], *, form: str = "jsonl", task: str
) -> list[Refused]:
    """Writes the corrections of a task to a file, whole or not at all.

    Returns:
        Those that were left out: without an answer (except in jsonl, which keeps all), or of a kind that the form does
        not have.
    """
    if form not in _WRITERS:
        raise InputError(f"the form to write {path} in must be one of {', '.join(FORMS)}, received {form!r}")
    if task not in ("tagging", "classification") and form != "jsonl":
        raise InputError(f"corrections of the task {task!r} can be written only as jsonl, received {form!r}")
    if form == "conll" and task != "tagging":
        raise InputError("conll holds entities: write labels of whole texts as csv or jsonl")
    refused: list[Refused] = []
    kept = _written(corrections, form=form, task=task, refused=refused)
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(_WRITERS[form](kept, task, refused))
    return refused


def detect_form(path: Path) -> str:
    """The form of a file, by its name and what it begins with.

    Raises:
        InputError: it is none of them.
    """
    name = path.name.removesuffix(".gz")
    ending = Path(name).suffix.lower()
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    if ending == ".spacy":
        raise InputError(
            f"{path} is a DocBin, which only spaCy reads: write [text, {{'entities': [[start, end, label]]}}] of each "
            "document as a JSON line and read that as spacy"
        )
    first = next((line for _, line in _some_lines(path) if line.strip()), "")
    if first.lstrip()[:1] not in ("{", "["):
        return "conll"
    record = next((value for _, value in _read_values(path) if not isinstance(value, Refused)), None)
    if isinstance(record, list) or (isinstance(record, Mapping) and "paragraphs" in record):
        return "spacy"
    if isinstance(record, Mapping):
        if {"annotations", "completions"} & set(record) and isinstance(record.get("data"), Mapping):
            return "label_studio"
        if "answer" in record or ("entities" in record and _are_spans(record["entities"])):
            return "jsonl"
        label = record.get("label", record.get("labels"))
        if isinstance(label, list) and not ("labels" in record and "scores" in record):
            return "doccano"
        if "entities" in record:
            return "doccano"
        if "text" in record:
            return "jsonl"
    raise InputError(f"{path} is none of {', '.join(FORMS)} that can be told apart: name its form")


def _are_spans(entities: Any) -> bool:
    return isinstance(entities, list) and all(isinstance(each, Mapping) and "start" in each for each in entities)


def _finish(
    found: _Found, *, path: Path, task: str, labels: Collection[str] | None, several: bool | None, author: str
) -> Correction:
    source = f"import:{path.name[-150:]}"
    if found.whole:
        if found.whole.task != task:
            raise InputError(f"it is of the task {found.whole.task}, not of {task}")
        whole = replace(
            found.whole, author=found.whole.author or author, source=found.whole.source or source
        )
        return _checked(whole, labels=labels, several=several)
    if not isinstance(found.text, str):
        raise InputError(f"the text must be a text, received {found.text!r}")
    correction = Correction(found.text, task, author=found.author or author, source=source, time=found.time)
    return _checked(replace(correction, answer=_answer_of(found, task, labels)), labels=labels, several=several)


def _checked(correction: Correction, *, labels: Collection[str] | None, several: bool | None) -> Correction:
    return check_correction(_with_id(correction), labels=labels, several=several)


def _answer_of(found: _Found, task: str, labels: Collection[str] | None) -> dict[str, Any]:
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


def _written(
    corrections: Iterable[Correction], *, form: str, task: str, refused: list[Refused]
) -> Iterator[Correction]:
    for number, each in enumerate(corrections, 1):
        where = f"correction {each.id or number}"
        if each.task != task:
            refused.append(Refused(where, f"it is of the task {each.task}, not of {task}"))
        elif form != "jsonl" and (each.verdict not in JUDGED or not each.answer):
            refused.append(Refused(where, f"nobody has said what is right ({each.verdict})"))
        else:
            yield each


# JSON of any kind


def _read_values(path: Path) -> Iterator[tuple[str, Any]]:
    """(where, value) of each line of JSON lines, or of each item of a list; a line that is no JSON is Refused."""
    one = next(((number, line) for number, line in _some_lines(path) if line.strip()), None)
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


def _some_lines(path: Path) -> Iterator[tuple[int, str]]:
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


def _records(path: Path, read: Callable[[str, Mapping[str, Any]], Iterable[_Item]]) -> Iterator[_Item]:
    """What `read` makes of each object of a file."""
    for where, value in _read_values(path):
        if isinstance(value, Refused):
            yield value
        elif not isinstance(value, Mapping):
            yield Refused(where, "it must be a JSON object")
        else:
            try:
                yield from read(where, value)
            except (InputError, TypeError, KeyError, AttributeError, ValueError) as error:
                reason = _form_fault(error)
                yield Refused(where, reason)


def _form_fault(error: Exception) -> str:
    """Why a record cannot be read."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, KeyError):
        return f"it is not of this form: it has no {json.dumps(error.args[0])}"
    return "it is not of this form: its values are of other kinds"


def _line(value: Any) -> str:
    """A JSON line: halves of surrogate pairs, which UTF-8 does not have, are escaped with everything else then."""
    text = json.dumps(value, ensure_ascii=False)
    return (text if text.isprintable() else json.dumps(value)) + "\n"


# This program's own JSON lines


def _read_own(path: Path, task: str) -> Iterator[_Item]:
    def read(where: str, record: Mapping[str, Any]) -> Iterator[_Item]:
        if "answer" in record:
            yield _Found(where, whole=correction_from(record, where="it", task=task))
            return
        entities, several = record.get("entities"), record.get("labels")
        if entities is not None and not _are_spans(entities):
            raise InputError('"entities" must be a list of {"start", "end", "label"}')
        spans = entities if entities is None else list(map(_span_of, entities))
        label = "" if "label" in record and record["label"] is None else record.get("label")
        author = record.get("author", "")
        yield _Found(where, record.get("text"), spans=spans, label=label, several=several, author=author)

    return _records(path, read)


def _write_own(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
    return (_line(asdict(each)) for each in corrections)


# CoNLL columns


def _read_conll(path: Path, task: str) -> Iterator[_Item]:
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
            yield _Found(where, text, spans=spans_)
            document = []
        if sentence is not None:
            number = sentence.document
            document.append((sentence.words, sentence.tags))


def _find_text(words: Sequence[str], comments: list[tuple[int, str]]) -> tuple[str, list[tuple[int, int]]]:
    """The text of a document and where its words are in it: that of the next comment that has them, or their own."""
    for i, (_, comment) in enumerate(comments[:50]):
        for text in _readings(comment):
            places = _find_words(text, words)
            if places:
                del comments[: i + 1]
                return text, places
    joined = " ".join(words)
    return joined, _find_words(joined, words)


def _readings(comment: str) -> Iterator[str]:
    try:
        if isinstance(text := json.loads(comment), str):
            yield text
    except (ValueError, RecursionError):
        pass
    yield comment


def _find_words(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
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


def _write_conll(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
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


# CSV


def _read_csv(path: Path, task: str) -> Iterator[_Item]:
    column = "entities" if task == "tagging" else "label"
    rows = _csv_rows(path)
    _, header = next(rows, (0, []))
    names = [name.strip().lower() for name in header]
    wanted = "labels" if column == "label" and "labels" in names and "label" not in names else column
    if "text" not in names or wanted not in names:
        received = ", ".join(header)
        raise InputError(f"{path}: the first line must name the columns text and {column}, received {received}")
    text_at, at = names.index("text"), names.index(wanted)
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(header):
            yield Refused(where, f"it has {len(row)} fields, the header has {len(header)}")
        elif task == "tagging":
            yield from _entities_in_cell(where, row[text_at], row[at])
        elif wanted == "labels" or LABEL_SEPARATOR in row[at]:
            several = [each.strip() for each in row[at].split(LABEL_SEPARATOR) if each]
            yield _Found(where, row[text_at], several=several)
        else:
            yield _Found(where, row[text_at], label=row[at].strip())


def _entities_in_cell(where: str, text: str, cell: str) -> Iterator[_Item]:
    try:
        entities = json.loads(cell or "[]")
    except (ValueError, RecursionError) as error:
        yield Refused(where, f"the field entities is not valid JSON ({json_fault(error)})")
        return
    if not _are_spans(entities):
        yield Refused(where, 'the field entities must be a list of {"start", "end", "label"}')
        return
    yield _Found(where, text, spans=list(map(_span_of, entities)))


def _span_of(entity: Mapping[str, Any]) -> Span:
    return Span(entity["start"], entity.get("end"), entity.get("label"), entity.get("text"))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line where it begins, fields) of each row; line ends inside quotes are kept as they are."""
    csv.field_size_limit(max(csv.field_size_limit(), _MOST_FIELD_CHARACTERS))
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            reader = csv.reader(chain([head], file), delimiter=max(",;\t", key=head.count), strict=True)
            line = 1
            for row in reader:
                if any(row):
                    yield line, row
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read as CSV: it is not UTF-8{_other_text(path)}") from error
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from error


def _other_text(path: Path) -> str:
    """A hint on what the file may be instead."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        return utf16_hint(file.read(200))


def _write_csv(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
    column = "entities" if task == "tagging" else "label"
    yield f"text,{column}\r\n"
    for each in corrections:
        if task == "tagging":
            entities = [{**one, "text": _slice(each, one)} for one in each.answer["entities"]]
            cell = json.dumps(entities, ensure_ascii=False)
        else:
            given = _labels_of(each)
            if bad := [label for label in given if LABEL_SEPARATOR in label or label != label.strip()]:
                refused.append(Refused(f"correction {each.id}", f"its label {bad[0]!r} cannot be told from several"))
                continue
            cell = LABEL_SEPARATOR.join(given)
        line = io.StringIO(newline="")
        csv.writer(line, quoting=csv.QUOTE_ALL).writerow([each.text, cell])
        yield line.getvalue()


def _slice(correction: Correction, entity: Mapping[str, Any]) -> str:
    return correction.text[entity["start"] : entity["end"]]


def _labels_of(correction: Correction) -> list[str]:
    if "labels" in correction.answer:
        return list(correction.answer["labels"])
    label = correction.answer["label"]
    return [] if label is None else [label]


# Label Studio


def read_annotated(
    record: Any, *, task: str, labels: Collection[str] | None = None, several: bool | None = None
) -> tuple[list[Correction], list[Refused]]:
    """The annotations of one task of Label Studio, {"data": {...}, "annotations": [...]}, as its webhooks have it.

    Args:
        record: the task.
        task: "tagging" or "classification".
        labels: those of the model (tagging: types of entities); None = any.
        several: whether the model gives a text several labels; None = not known.

    Returns:
        Corrections, checked, and what could not be used.
    """
    if not isinstance(record, Mapping):
        return [], [Refused("the task", "it must be a JSON object")]
    found: list[Correction] = []
    refused: list[Refused] = []
    try:
        for item in _annotated_task("the task", record, task):
            if isinstance(item, Refused):
                refused.append(item)
            else:
                path = Path("label_studio")
                found.append(_finish(item, path=path, task=task, labels=labels, several=several, author=""))
    except (InputError, TypeError, KeyError, AttributeError, ValueError) as error:
        reason = _form_fault(error)
        refused.append(Refused("the task", reason))
    return found, refused


def _read_label_studio(path: Path, task: str) -> Iterator[_Item]:
    return _records(path, lambda where, record: _annotated_task(where, record, task))


def _annotated_task(where: str, record: Mapping[str, Any], task: str) -> Iterator[_Item]:
    annotations = record.get("annotations", record.get("completions"))
    if not isinstance(annotations, list) or not isinstance(record.get("data"), Mapping):
        raise InputError('it has no "data" and "annotations": export as JSON, not as JSON-MIN')
    if not annotations:
        raise InputError("nobody has annotated it yet")
    text = _text_of(record["data"])
    truth = [each for each in annotations if each.get("ground_truth")]
    for number, annotation in enumerate(truth or annotations, 1):
        at = where if len(annotations) == 1 else f"{where}, annotation {number}"
        if annotation.get("was_cancelled"):
            yield Refused(at, "it was skipped")
            continue
        try:
            yield _annotation(at, text, annotation, task)
        except InputError as error:
            yield Refused(at, str(error))


def _text_of(data: Mapping[str, Any]) -> str:
    """The text of a task: "text", or the only one there is."""
    texts = [value for value in data.values() if isinstance(value, str)]
    text = data.get("text", texts[0] if len(texts) == 1 else None)
    if not isinstance(text, str):
        raise InputError(f'its data has no "text" (only {", ".join(map(str, data))})')
    return text


def _annotation(where: str, text: str, annotation: Mapping[str, Any], task: str) -> _Found:
    regions: list[Span] = []
    choices: list[Any] = []
    results = annotation.get("result", [])
    kinds = {result.get("type") for result in results}
    for result in results:
        kind, value = result.get("type"), result.get("value", {})
        if kind == "labels":
            given = value.get("labels", [])
            if len(given) != 1:
                at = f"{value.get('start')} to {value.get('end')}"
                raise InputError(f"the region at {at} must have one label, received {given}")
            regions.append(Span(value.get("start"), value.get("end"), given[0], value.get("text")))
        elif kind == "choices":
            choices += value.get("choices", [])
        elif kind in ("hypertextlabels", "paragraphlabels") and task == "tagging":
            raise InputError(f"regions of {kind} are places in a page, not in a text")
    who, when = annotation.get("completed_by", ""), annotation.get("updated_at") or annotation.get("created_at")
    if isinstance(who, Mapping):
        who = who.get("email") or who.get("id", "")
    return _Found(  # an annotation without results says that there is nothing
        where,
        text,
        spans=regions if "labels" in kinds or not kinds else None,
        label=choices[0] if choices else None if kinds else "",
        several=choices if len(choices) > 1 else None,
        author=who if isinstance(who, str) else f"label_studio:{who}",
        time=when if isinstance(when, str) else "",
    )


def _write_label_studio(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
    """A list of tasks that Label Studio imports; the control is named "label", the text "text"."""
    separator = "[\n"
    for number, each in enumerate(corrections, 1):
        item: dict[str, Any] = {
            "id": number,
            "data": {"text": each.text},
            "annotations": [{"result": _results(each, each.answer), "was_cancelled": False}],
        }
        if each.prediction:
            version = f"{each.model}:{each.version}"
            item["predictions"] = [{"model_version": version, "result": _results(each, each.prediction)}]
        yield separator + _line(item).rstrip("\n")
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def _results(correction: Correction, answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    plain = {"from_name": "label", "to_name": "text"}
    if correction.task == "tagging":
        return [
            {
                **plain,
                "id": f"e{number}",
                "type": "labels",
                "value": {
                    "start": one["start"],
                    "end": one["end"],
                    "text": _slice(correction, one),
                    "labels": [one["label"]],
                },
                **({"score": one["score"]} if "score" in one else {}),
            }
            for number, one in enumerate(answer.get("entities", []), 1)
        ]
    given = answer["labels"] if "labels" in answer else [answer.get("label")]
    chosen = [label for label in given if label is not None]
    score = {"score": answer["score"]} if "score" in answer else {}
    return [{**plain, "id": "c1", "type": "choices", "value": {"choices": chosen}, **score}] if chosen else []


# doccano


def _read_doccano(path: Path, task: str) -> Iterator[_Item]:
    def read(where: str, record: Mapping[str, Any]) -> Iterator[_Item]:
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
            yield _Found(where, text, label=given[0] if given else None, several=several, author=author)
        else:
            yield _Found(where, text, spans=[_doccano_span(each) for each in given], author=author)

    return _records(path, read)


def _doccano_span(given: Any) -> Span:
    if isinstance(given, Mapping) and "start_offset" in given:
        return Span(given["start_offset"], given.get("end_offset"), given.get("label"))
    return _triple(given)


def _triple(given: Any) -> Span:
    if not isinstance(given, list) or len(given) < 3:
        raise InputError(f"an entity must be [start, end, label], received {given!r:.60}")
    return Span(*given[:3])


def _write_doccano(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
    for number, each in enumerate(corrections, 1):
        label: list[Any] = _triples(each) if task == "tagging" else _labels_of(each)
        if not label and task == "classification":
            reason = "it has no label, which doccano cannot tell from a text that waits"
            refused.append(Refused(f"correction {each.id}", reason))
            continue
        yield _line({"id": number, "text": each.text, "label": label})


def _triples(correction: Correction) -> list[list[Any]]:
    return [[one["start"], one["end"], one["label"]] for one in correction.answer["entities"]]


# spaCy


def _read_spacy(path: Path, task: str) -> Iterator[_Item]:
    for where, value in _read_values(path):
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
            reason = _form_fault(error)
            yield Refused(where, reason)


def _annotated(where: str, text: Any, values: Mapping[str, Any]) -> _Found:
    entities, cats = values.get("entities"), values.get("cats")
    spans = None if entities is None else [_triple(list(each)) for each in entities]
    return _with_cats(_Found(where, text, spans=spans), cats)


def _with_cats(found: _Found, cats: Mapping[str, Any] | None) -> _Found:
    if cats is None:
        return found
    chosen = [label for label, value in cats.items() if value >= 0.5]
    return replace(found, label=chosen[0] if chosen else "", several=chosen if len(chosen) > 1 else None)


def _paragraph(where: str, paragraph: Mapping[str, Any]) -> _Found:
    tokens = [token for sentence in paragraph.get("sentences", []) for token in sentence["tokens"]]
    words = [token["orth"] for token in tokens]
    text = paragraph.get("raw")
    if text is None:
        text = "".join(token["orth"] + token.get("space", " ") for token in tokens).rstrip(" ")
    cats = {each["label"]: each["value"] for each in paragraph.get("cats", [])} or None
    if "entities" in paragraph:
        return _with_cats(_Found(where, text, spans=[_triple(list(each)) for each in paragraph["entities"]]), cats)
    if not any("ner" in token for token in tokens):
        return _with_cats(_Found(where, text), cats)
    places = _find_words(text, words)
    if len(places) != len(words):
        raise InputError("its tokens are not those of its raw text")
    decoded, _ = decode_tags([_from_biluo(token.get("ner") or "O") for token in tokens], "iobes")
    found = [Span(places[first][0], places[last - 1][1], label) for label, first, last in spans(decoded)]
    return _with_cats(_Found(where, text, spans=found), cats)


def _from_biluo(tag: str) -> str:
    """The IOBES tag; "-" says that nobody knows."""
    return "O" if tag == "-" else {"L": "E", "U": "S"}.get(tag[0], tag[0]) + tag[1:]


def _write_spacy(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
    for each in corrections:
        if task == "tagging":
            yield _line([each.text, {"entities": _triples(each)}])
        else:
            yield _line([each.text, {"cats": dict.fromkeys(_labels_of(each), 1.0)}])


_READERS: dict[str, Callable[[Path, str], Iterator[_Item]]] = {
    "jsonl": _read_own,
    "conll": _read_conll,
    "csv": _read_csv,
    "label_studio": _read_label_studio,
    "doccano": _read_doccano,
    "spacy": _read_spacy,
}
_WRITERS: dict[str, Callable[[Iterable[Correction], str, list[Refused]], Iterator[str]]] = {
    "jsonl": _write_own,
    "conll": _write_conll,
    "csv": _write_csv,
    "label_studio": _write_label_studio,
    "doccano": _write_doccano,
    "spacy": _write_spacy,
}
