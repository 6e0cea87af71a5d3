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

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from app.config import InputError
from app.feedback.correction import JUDGED, Correction
from app.feedback.formats import conll, csv_rows, doccano, json_lines, label_studio, spacy
from app.feedback.formats.label_studio import read_annotated
from app.feedback.formats.record import Item, Refused, are_spans, finish, read_values, some_lines
from app.run.directory import atomic

__all__ = ["FORMS", "Refused", "detect_form", "read_annotated", "read_corrections", "write_corrections"]

FORMS = ("jsonl", "conll", "csv", "label_studio", "doccano", "spacy")
_ENDINGS = {
    **dict.fromkeys((".conll", ".conllu", ".iob", ".iob2", ".bio"), "conll"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
}


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
            found.append(finish(item, path=path, task=task, labels=labels, several=several, author=author))
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
    first = next((line for _, line in some_lines(path) if line.strip()), "")
    if first.lstrip()[:1] not in ("{", "["):
        return "conll"
    record = next((value for _, value in read_values(path) if not isinstance(value, Refused)), None)
    if isinstance(record, list) or (isinstance(record, Mapping) and "paragraphs" in record):
        return "spacy"
    if isinstance(record, Mapping):
        if {"annotations", "completions"} & set(record) and isinstance(record.get("data"), Mapping):
            return "label_studio"
        if "answer" in record or ("entities" in record and are_spans(record["entities"])):
            return "jsonl"
        label = record.get("label", record.get("labels"))
        if isinstance(label, list) and not ("labels" in record and "scores" in record):
            return "doccano"
        if "entities" in record:
            return "doccano"
        if "text" in record:
            return "jsonl"
    raise InputError(f"{path} is none of {', '.join(FORMS)} that can be told apart: name its form")


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


_READERS: dict[str, Callable[[Path, str], Iterator[Item]]] = {
    "jsonl": json_lines.read,
    "conll": conll.read,
    "csv": csv_rows.read,
    "label_studio": label_studio.read,
    "doccano": doccano.read,
    "spacy": spacy.read,
}
_WRITERS: dict[str, Callable[[Iterable[Correction], str, list[Refused]], Iterator[str]]] = {
    "jsonl": json_lines.write,
    "conll": conll.write,
    "csv": csv_rows.write,
    "label_studio": label_studio.write,
    "doccano": doccano.write,
    "spacy": spacy.write,
}
