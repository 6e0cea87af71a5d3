"""Feedback room: corrections in the rows of spreadsheets, as CSV."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from app.config import InputError
from app.data.text_lines import require_file, utf16_hint
from app.feedback.correction import Correction
from app.feedback.formats.record import (
    Found,
    Item,
    Refused,
    are_spans,
    labels_of,
    slice_of,
    span_of,
)
from app.run.files import json_fault

LABEL_SEPARATOR = "|"
_MOST_FIELD_CHARACTERS = 16 * 2**20


def read(path: Path, task: str) -> Iterator[Item]:
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
            yield Found(where, row[text_at], several=several)
        else:
            yield Found(where, row[text_at], label=row[at].strip())


def _entities_in_cell(where: str, text: str, cell: str) -> Iterator[Item]:
    try:
        entities = json.loads(cell or "[]")
    except (ValueError, RecursionError) as error:
        yield Refused(where, f"the field entities is not valid JSON ({json_fault(error)})")
        return
    if not are_spans(entities):
        yield Refused(where, 'the field entities must be a list of {"start", "end", "label"}')
        return
    yield Found(where, text, spans=list(map(span_of, entities)))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line where it begins, fields) of each row; line ends inside quotes are kept as they are."""
    require_file(path)
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


def write(corrections: Iterable[Correction], task: str, refused: list[Refused]) -> Iterator[str]:
    column = "entities" if task == "tagging" else "label"
    yield f"text,{column}\r\n"
    for each in corrections:
        if task == "tagging":
            entities = [{**one, "text": slice_of(each, one)} for one in each.answer["entities"]]
            cell = json.dumps(entities, ensure_ascii=False)
        else:
            given = labels_of(each)
            if bad := [label for label in given if LABEL_SEPARATOR in label or label != label.strip()]:
                refused.append(Refused(f"correction {each.id}", f"its label {bad[0]!r} cannot be told from several"))
                continue
            cell = LABEL_SEPARATOR.join(given)
        line = io.StringIO(newline="")
        csv.writer(line, quoting=csv.QUOTE_ALL).writerow([each.text, cell])
        yield line.getvalue()
