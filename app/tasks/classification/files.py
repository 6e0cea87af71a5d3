"""Tasks room: labelled texts in JSON lines and in folders, and texts without labels, one a line.

    {"text": "The parcel has not arrived.", "label": "delivery"}
    {"text_a": "It rains.", "text_b": "The street is wet.", "label": "entailment"}
    {"text": "Late, and broken.", "labels": ["delivery", "quality"]}      with classification.multi_label

A folder holds a folder for each label, and in it a file `*.txt` for each text. Hidden files are skipped. Other keys of
JSON lines, and other files, are left out.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from app.config import InputError
from app.tasks.classification.labelled_text import RawText, TextFormat, find_columns, place_of, shortened
from app.tasks.classification.tables import may_go_on, read_text_lines

_TEXT_ENDING = ".txt"
_HEAD_FILES = 16  # of a folder, that are looked into


def read_json_texts(path: str, text_format: TextFormat, *, labelled: bool, at_most_bytes: int = 0) -> Iterator[RawText]:
    """Reads JSON lines, or the first of them; memory holds one line.

    Raises:
        InputError: naming the line: no JSON object, a key is missing, a NUL byte, invalid UTF-8; or a file without
            texts.
    """
    found = False
    for number, line in read_text_lines(path, at_most_bytes=at_most_bytes):
        if not line.strip():
            continue
        found = True
        try:
            record = _record_of(line)
            columns = find_columns(tuple(record), text_format, labelled=labelled, kind="key")
        except InputError as error:
            raise InputError(f"{place_of(path, number)}: {error}") from error
        label = record[columns.label] if labelled else None
        yield RawText(tuple(record[name] for name in columns.texts), label, path, number)
    if not found and not (at_most_bytes and may_go_on(path, at_most_bytes)):
        raise InputError(f"{path} is empty")


def _record_of(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid JSON, one object a line ({error})") from error
    if not isinstance(record, dict):
        raise InputError(f"expected an object with a text and a label, received {shortened(record)}")
    return record


def read_lines_as_texts(path: str, *, at_most_bytes: int = 0) -> Iterator[RawText]:
    """Reads a file of texts without labels, one a line; blank lines are skipped."""
    found = False
    for number, line in read_text_lines(path, at_most_bytes=at_most_bytes):
        if line.strip():
            found = True
            yield RawText((line,), None, path, number)
    if not found and not (at_most_bytes and may_go_on(path, at_most_bytes)):
        raise InputError(f"{path} is empty")


def read_folder(path: str, *, head: bool = False) -> Iterator[RawText]:
    """Reads a folder of class folders, in the order of their names; memory holds one text.

    Args:
        path: the folder.
        head: read the first file of the first few classes only.

    Raises:
        InputError: there are no class folders, or one without texts; a file that is not UTF-8 text.
    """
    for at, (label, folder) in enumerate(_class_folders(path)):
        if head and at == _HEAD_FILES:
            return
        names = sorted(name for name in _visible(folder) if name.lower().endswith(_TEXT_ENDING))
        if not names:
            raise InputError(
                f"{folder} holds no {_TEXT_ENDING} file{_what_else(folder)}: a class has one for each of its texts"
            )
        for name in names[:1] if head else names:
            file = os.path.join(folder, name)
            yield RawText(("\n".join(line for _, line in read_text_lines(file)),), label, file, 0)


def describe_left_out(path: str) -> str:
    """A sentence about the files of class folders that are not read, or an empty string."""
    count, example = 0, ""
    for _, folder in _class_folders(path):
        others = [name for name in _visible(folder) if not name.lower().endswith(_TEXT_ENDING)]
        count += len(others)
        example = example or next((os.path.join(folder, name) for name in sorted(others)), "")
    return f"{path}: {count:,} files that do not end in {_TEXT_ENDING} are left out, such as {example}" if count else ""


def _class_folders(path: str) -> list[tuple[str, str]]:
    """(label, folder) of each class, sorted by label."""
    if not os.path.isdir(path):
        raise InputError(f"{path} is {'a file, not a folder' if os.path.exists(path) else 'missing'}")
    found = [(name, os.path.join(path, name)) for name in sorted(_visible(path))]
    classes = [(name, folder) for name, folder in found if os.path.isdir(folder)]
    if not classes:
        raise InputError(f"{path} holds no folder for each class{_what_else(path)}: expected {path}/LABEL/*.txt")
    return classes


def _visible(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def _what_else(folder: str) -> str:
    names = sorted(_visible(folder))
    if not names:
        return ", it is empty"
    return f", but {f'{len(names):,} others such as' if len(names) > 1 else '1 other,'} {shortened(names[0])}"
