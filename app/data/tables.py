r"""Data room: CSV and TSV files, read one row at a time.

The first line names the columns. Commas part fields, in TSV files tabs; where a header has none, what it has instead:
semicolons or tabs, in TSV files commas or semicolons. A field in double quotes may hold what parts fields, line breaks,
and quotes that are written twice. Lines end at LF or CRLF, and a line break inside a field is `\n`. Blank lines and
rows of empty fields are skipped.
"""

import csv
import os
from collections.abc import Iterator, Sequence

from app.config import InputError
from app.data.text_lines import MAX_LINE_BYTES, place_of, read_lines, shortened, utf16_hint

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


def read_table_rows(path: str, *, delimiter: str, at_most_bytes: int = 0) -> Iterator[tuple[int, list[str]]]:
    """The names of the columns, then each row that is not blank: (line where it begins, its fields).

    Memory holds one row. With `at_most_bytes`, only the rows within the first so many bytes of text are read.

    Raises:
        InputError: naming the line: a row with too few or too many fields, a quote without a partner, a NUL byte,
            invalid UTF-8; or a file without a header or without rows.
    """
    header: list[str] = []
    found = False
    for line, row in _read_rows(path, delimiter, at_most_bytes):
        if not header:
            header = [name.strip() for name in row]
            yield line, header
            continue
        if len(row) != len(header):
            raise InputError(f"{place_of(path, line)}: {_width_fault(row, header, delimiter)}")
        found = True
        yield line, row
    if not found and not (at_most_bytes and may_go_on(path, at_most_bytes)):
        raise InputError(f"{path} holds no text, only a header" if header else f"{path} is empty")


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
            hint = utf16_hint(line.encode())
            raise InputError(f"{place_of(path, number)}: a NUL byte: this is not UTF-8 text{hint}")
        yield number, line


def may_go_on(path: str, at_most_bytes: int) -> bool:
    """Whether a file has more than the bytes that were read of it; of a compressed one nobody knows."""
    return path.endswith(".gz") or os.path.getsize(path) > at_most_bytes
