"""Tasks room: labelled texts in CSV and TSV files, JSON lines, class folders and prepared TensorFlow Datasets."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from app.config import InputError
from app.data.text_lines import MAX_LINE_BYTES, read_lines
from app.data.tfds import feature_names, open_dataset, read_rows
from app.tasks.classification.labelled_text import RawText, TextFormat, find_columns, place_of, shortened

# Labelled texts in CSV and TSV files, read one row at a time.
# The first line names the columns. Commas part fields, in TSV files tabs; where a header has none, what it has
# instead: semicolons or tabs, in TSV files commas or semicolons. A field in double quotes may hold what parts fields,
# line breaks, and quotes that are written twice. Lines end at LF or CRLF, and a line break inside a field is `\n`.
# Blank lines and rows of empty fields are skipped.

MAX_FIELD_CHARACTERS = MAX_LINE_BYTES  # a quote that nothing closes is noticed there at the latest
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_INSTEAD = {"csv": ";\t", "tsv": ",;"}
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}


class Dialect(csv.Dialect):
    """Strict: a quoted field that goes on after its closing quote is a fault, and so is one that never closes."""

    quotechar = '"'
    doublequote = True
    skipinitialspace = False
    lineterminator = "\n"
    quoting = csv.QUOTE_MINIMAL
    strict = True


def find_delimiter(path: str, kind: str) -> tuple[str, str]:
    """What parts the fields of a file, and a sentence about it if that is not what its kind ("csv", "tsv") says."""
    usual = _DELIMITERS[kind]
    header = next((line for _, line in read_text_lines(path) if line.strip()), "")
    if _count_fields(header, usual) > 1:
        return usual, ""
    found = max(_INSTEAD[kind], key=lambda delimiter: _count_fields(header, delimiter))
    if _count_fields(header, found) < 2:
        return usual, ""
    name = _NAMES[found]
    return found, f"{path}: its first line has {name} and no {_NAMES[usual]}, so {name} part its fields"


def _count_fields(line: str, delimiter: str) -> int:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARACTERS))
    try:
        return len(next(csv.reader([line], delimiter=delimiter), []))
    except csv.Error:
        return 0


def read_table(
    path: str, text_format: TextFormat, *, delimiter: str, labelled: bool, at_most_bytes: int = 0
) -> Iterator[RawText]:
    """Reads a file, or its beginning; memory holds one row.

    Raises:
        InputError: naming the line: a column is missing or there twice, a row with too few or too many fields, a quote
            without a partner, a NUL byte, invalid UTF-8; or a file without a header or without texts.
    """
    header: list[str] = []
    places: list[int] = []
    found = False
    for line, row in _read_rows(path, delimiter, at_most_bytes):
        if not header:
            header = [name.strip() for name in row]
            places = _find_places(header, text_format, where=place_of(path, line), labelled=labelled)
            continue
        if len(row) != len(header):
            raise InputError(f"{place_of(path, line)}: {_width_fault(row, header, delimiter)}")
        found = True
        cells = [row[place] for place in places]
        yield RawText(tuple(cells[:-1] if labelled else cells), cells[-1] if labelled else None, path, line)
    if not found and not (at_most_bytes and may_go_on(path, at_most_bytes)):
        raise InputError(f"{path} holds no text, only a header" if header else f"{path} is empty")


def _find_places(header: Sequence[str], text_format: TextFormat, *, where: str, labelled: bool) -> list[int]:
    """Numbers of the columns: of the texts, then of the label if there are labels."""
    try:
        columns = find_columns(tuple(header), text_format, labelled=labelled, kind="column")
    except InputError as error:
        wanted = {text_format.text_column, text_format.label_column, *text_format.pair_columns}
        no_header = "" if wanted & set(header) else " (the first line must name the columns)"
        raise InputError(f"{where}: {error}{no_header}") from error
    return [header.index(name) for name in (*columns.texts, *([columns.label] if labelled else []))]


def _width_fault(row: Sequence[str], header: Sequence[str], delimiter: str) -> str:
    shown = ", ".join(header[:8]) + (", ..." if len(header) > 8 else "")
    hint = ""
    if len(row) > len(header):
        hint = f"; a field that holds {delimiter!r} must be in double quotes"
    return f"{len(row)} field{'s' * (len(row) != 1)}, the header has {len(header)} ({shown}){hint}"


def _read_rows(path: str, delimiter: str, at_most_bytes: int) -> Iterator[tuple[int, list[str]]]:
    """(line where a row begins, its fields) of each row that is not blank."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARACTERS))
    pending: list[str] = []  # the lines of the row that is being read
    ended = False

    def lines() -> Iterator[str]:
        nonlocal ended
        for _, line in read_text_lines(path, at_most_bytes=at_most_bytes):
            pending.append(line + "\n")
            yield pending[-1]
        ended = True

    reader = csv.reader(lines(), Dialect, delimiter=delimiter)
    while True:
        first = reader.line_num + 1
        pending.clear()
        try:
            row = next(reader, None)
        except csv.Error as error:
            if ended and at_most_bytes and may_go_on(path, at_most_bytes):
                return  # the row goes on after what was read
            fault = _quote_fault(path, first, pending, delimiter, ended=ended)
            if not fault and "\r" in pending[-1]:
                fault = f"{place_of(path, reader.line_num)}: a carriage return alone: lines end at LF or CRLF"
            raise InputError(fault or f"{place_of(path, first)}: {error}") from error
        if row is None:
            return
        if any(row):
            yield first, row


def _quote_fault(path: str, first: int, lines: Sequence[str], delimiter: str, *, ended: bool) -> str:
    """Which field of a row that cannot be read has a quote without a partner; an empty string if none has.

    Args:
        path: of the file.
        first: the line where the row begins.
        lines: of the row, as far as it was read.
        delimiter: what parts its fields.
        ended: whether the file ended inside the row.
    """
    state, column, opened, closing, start = "start", 1, 0, 0, ""
    for number, line in enumerate(lines, first):
        for at, character in enumerate(line):
            if state == "quoted":
                if character == '"':
                    state, closing = "closing", number
            elif state == "closing" and character == '"':
                state = "quoted"
            elif character in (delimiter, "\n", "\r"):
                state, column = "start", column + 1
            elif state == "closing":
                return (
                    f"{place_of(path, opened)}: field {column} begins with a quote ({start}), and the next quote, in "
                    f"line {closing}, is not the end of the field: a quote that belongs to the text is written twice, "
                    "inside a quoted field"
                )
            elif state == "start" and character == '"':
                state, opened, start = "quoted", number, shortened(line[at : at + 40].rstrip("\n"))
            else:
                state = "plain"
    if state != "quoted":
        return ""
    never = "never ends" if ended else f"does not end within {MAX_FIELD_CHARACTERS:,} characters"
    return (
        f"{place_of(path, opened)}: field {column} begins with a quote ({start}) and {never}: its closing quote is "
        "missing; a quote that belongs to the text is written twice, inside a quoted field"
    )


def read_text_lines(path: str, *, at_most_bytes: int = 0) -> Iterator[tuple[int, str]]:
    """The lines of a file, as `read_lines` reads them.

    Raises:
        InputError: those of `read_lines`, or a NUL byte.
    """
    for number, line in read_lines(path, at_most_bytes=at_most_bytes):
        if "\0" in line:
            raise InputError(f"{place_of(path, number)}: a NUL byte: this is not UTF-8 text")
        yield number, line


def may_go_on(path: str, at_most_bytes: int) -> bool:
    """Whether a file has more than the bytes that were read of it; of a compressed one nobody knows."""
    return path.endswith(".gz") or os.path.getsize(path) > at_most_bytes


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
