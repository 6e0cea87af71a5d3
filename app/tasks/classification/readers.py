"""Tasks room: labelled texts in CSV and TSV files, JSON lines, class folders and prepared TensorFlow Datasets."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from app.config import InputError
from app.data.json_lines import layout_hint, parse_json
from app.data.tables import may_go_on, read_table_rows, read_text_lines
from app.data.text_lines import place_of, shortened
from app.data.tfds import feature_names, open_dataset, read_rows
from app.tasks.classification.labelled_text import RawText, TextFormat, find_columns


def read_table(
    path: str, text_format: TextFormat, *, delimiter: str, labelled: bool, at_most_bytes: int = 0
) -> Iterator[RawText]:
    """Reads a file, or its beginning; memory holds one row.

    Raises:
        InputError: naming the line: a column is missing or there twice, or what `read_table_rows` says.
    """
    places: list[int] = []
    for line, row in read_table_rows(path, delimiter=delimiter, at_most_bytes=at_most_bytes):
        if not places:
            places = _find_places(row, text_format, where=place_of(path, line), labelled=labelled)
            continue
        cells = [row[place] for place in places]
        yield RawText(tuple(cells[:-1] if labelled else cells), cells[-1] if labelled else None, path, line)


def _find_places(header: Sequence[str], text_format: TextFormat, *, where: str, labelled: bool) -> list[int]:
    """Numbers of the columns: of the texts, then of the label if there are labels."""
    try:
        columns = find_columns(tuple(header), text_format, labelled=labelled, kind="column")
    except InputError as error:
        wanted = {text_format.text_column, text_format.label_column, *text_format.pair_columns}
        no_header = "" if wanted & set(header) else " (the first line must name the columns)"
        raise InputError(f"{where}: {error}{no_header}") from error
    return [header.index(name) for name in (*columns.texts, *([columns.label] if labelled else []))]


# Labelled texts in JSON lines and in folders, and texts without labels, one a line.
#
# {"text": "The parcel has not arrived.", "label": "delivery"} {"text_a": "It rains.", "text_b": "The street is wet.",
# "label": "entailment"} {"text": "Late, and broken.", "labels": ["delivery", "quality"]} with
# classification.multi_label
#
# A folder holds a folder for each label, and in it a file `*.txt` for each text. Hidden files are skipped. Other keys
# of JSON lines, and other files, are left out.


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
        record = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid JSON, one object a line ({error}){layout_hint(line)}") from error
    if not isinstance(record, dict):
        raise InputError(f"expected an object with a text and a label, received {shortened(record)}{layout_hint(line)}")
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
        names = sorted(
            name
            for name in _visible(folder)
            if name.lower().endswith(_TEXT_ENDING) and not os.path.isdir(os.path.join(folder, name))
        )
        if not names:
            raise InputError(
                f"{folder} holds no {_TEXT_ENDING} file{_what_else(folder)}: a class has one for each of its texts"
            )
        for name in names[:1] if head else names:
            file = os.path.join(folder, name)
            yield RawText(("\n".join(line for _, line in read_text_lines(file)),), label, file, 0)


def describe_folder(path: str) -> str:
    """What a user should know about how class folders are read: what is left out, and which are one class."""
    left_out: dict[str, list[str]] = {}
    labels: dict[str, str] = {}
    said = []
    classes = _class_folders(path)
    beside = [os.path.join(path, name) for name in sorted(_visible(path)) if name.lower().endswith(_TEXT_ENDING)]
    left_out[f"{_TEXT_ENDING} files beside the class folders"] = [file for file in beside if os.path.isfile(file)]
    others = left_out[f"files that do not end in {_TEXT_ENDING}"] = []
    inside = left_out["folders inside class folders"] = []
    for label, folder in classes:
        first = labels.setdefault(label.strip(), label)
        if first != label:
            said.append(f"{path}: the folders {first!r} and {label!r} are read as one class, {label.strip()!r}")
        for name in sorted(_visible(folder)):
            found = os.path.join(folder, name)
            if os.path.isdir(found):
                inside.append(found)
            elif not name.lower().endswith(_TEXT_ENDING):
                others.append(found)
    said += [
        f"{path}: {len(found):,} {what} are left out, such as {found[0]}" for what, found in left_out.items() if found
    ]
    return "; ".join(said)


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


# Labelled texts of TensorFlow Datasets, read from their prepared files and never downloaded.
#
# The features are named by the same settings as columns of a file. Class labels give the names of the classes; labels
# that are texts or plain numbers are taken as they are.


def read_tfds_texts(source: str, text_format: TextFormat, *, split: str, labelled: bool) -> Iterator[RawText]:
    """Reads one split ("train", "valid" or "test") of a prepared dataset.

    Raises:
        InputError: the dataset is unknown, not prepared, or has no such split or features; or a text, named by its
            number, that is not UTF-8 or has no label.
    """
    builder = open_dataset(source, tfds_dir=text_format.tfds_dir)
    try:
        names = tuple(feature_names(builder))
        columns = find_columns(names, text_format, labelled=labelled, kind="feature")
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    read_label = _label_reader(builder.info.features[columns.label]) if labelled else lambda _: None
    count = 0
    for count, row in enumerate(read_rows(builder, source, split=split, tfds_dir=text_format.tfds_dir), 1):
        where = f"{source}, split {split}, text {count}"
        try:
            texts = tuple(_plain(row[name]) for name in columns.texts)
            label = read_label(row[columns.label]) if labelled else None
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: invalid UTF-8 (byte 0x{error.object[error.start]:02x})") from error
        yield RawText(texts, label, where, 0)
    if not count:
        raise InputError(f"{source}, split {split} is empty")


def _label_reader(feature: Any) -> Callable[[Any], object]:
    """What makes a label, or a list of them, of the value that a row has; a class number below 0 is none."""
    names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)

    def read(value: Any) -> object:
        plain = _plain(value)
        if not names:
            return plain
        if isinstance(plain, list):
            return [names[number] for number in plain]
        return names[plain] if isinstance(plain, int) and plain >= 0 else None

    return read


def _plain(value: Any) -> Any:
    """A NumPy value as Python's own, bytes as text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value
