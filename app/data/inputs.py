"""Data room: documents to answer, from standard input, files and folders.

    lines   one document per line
    jsonl   {"id": 7, "text": "Ada lived in London."}: one a line; all other keys come back with the answer
    files   one document a file, line ends included
    table   one document per row of a CSV or TSV file whose first line names the columns; all columns come back

`auto` takes `.jsonl` and `.ndjson` for JSON lines, `.csv`, `.tsv` and `.tab` for tables, and else one file (or standard
input) for lines, several for files. Documents are given out a few at a time: memory holds those.
"""

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from app.config import InputError
from app.config.paths import escape_existing, split_list
from app.data.documents import BYTES_AT_A_TIME, USUAL_KEYS, Document, TextKeys, check_size, join_pair, pair_fault
from app.data.json_lines import layout_hint, parse_json
from app.data.sentence import surrogate_fault
from app.data.tables import find_delimiter, read_table_rows
from app.data.text_lines import shortened, utf16_hint

STANDARD_INPUT = "-"
_JSON_ENDINGS = (".jsonl", ".ndjson")
_TABLE_ENDINGS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP_MARK = b"\x1f\x8b"
_QUOTED = 80  # characters of a value in a message


@dataclass(frozen=True)
class Input:
    """Where documents are read from.

    Attributes:
        path: of a file; "-" is standard input.
        format: "lines", "jsonl", "files" or "table".
        named: whether answers say which file they belong to, because there may be several.
    """

    path: str
    format: str
    named: bool

    @property
    def place(self) -> str:
        """What it is called in a message."""
        return "standard input" if self.path == STANDARD_INPUT else self.path


def find_inputs(
    inputs: Sequence[str], *, input_format: str = "auto", output: str = "", keys: TextKeys = USUAL_KEYS
) -> list[Input]:
    """The inputs that `--input` means, each looked into.

    Args:
        inputs: values of the flag: "-", a file, a folder, a glob, or several of the last three parted by commas. What
            is there under its whole name is that.
        input_format: "auto", "lines", "jsonl" or "files".
        output: file of the answers, which is not read when it lies in a folder that is.
        keys: of the texts.

    Raises:
        InputError: nothing is there, it cannot be read, or a file cannot be a document.
    """
    names = [part for each in inputs for part in _parts(each)]
    if not names or not all(names):
        raise InputError("--mode=predict needs --input=FILE, or --input=- for standard input")
    if STANDARD_INPUT in names and len(names) > 1:
        raise InputError("--input=- (standard input) cannot be combined with files")
    paths: dict[str, None] = {}
    for name in names:
        paths.update(dict.fromkeys(_files(name, output)))
    several = len(names) > 1 or list(paths) != names
    if output and os.path.isfile(output):
        for path in paths:
            if path != STANDARD_INPUT and os.path.exists(path) and os.path.samefile(path, output):
                raise InputError(f"--output={output} is one of the inputs ({path}): the answers would replace the text")
    sources = [Input(path, _format_of(path, input_format, several=several, keys=keys), several) for path in paths]
    for source in sources:
        _check(source, keys)
    return sources


def check_count(sources: Sequence[Input], *, limit: int) -> None:
    """Raises InputError if files hold more documents than can be ranked; pipes are not read, they tell later."""
    count = 0
    for source in sources:
        if source.path == STANDARD_INPUT or not os.path.isfile(source.path):
            continue
        with _open(source) as file:
            for line in [b"a document"] if source.format == "files" else file:
                count += source.format != "jsonl" or not line.isspace()
                if count > limit:
                    raise too_many(limit)


def too_many(limit: int) -> InputError:
    return InputError(
        f"the input has more than {limit:,} texts (predict.rank_limit), and ranking needs its end: give it in parts "
        "that end, or set a higher limit"
    )


def read_documents(sources: Sequence[Input], *, keys: TextKeys = USUAL_KEYS) -> Iterator[list[Document]]:
    """Documents in their order, in lists of about 64 KB of text; lines that are there already are taken together, and
    nobody waits for more.

    Raises:
        InputError: naming file and line: not UTF-8, not JSON, no text, too long. What comes before it is given out.
    """
    waiting: list[Document] = []
    size = 0
    for source in sources:
        if source.format != "files":
            yield from [waiting] if waiting else []
            waiting, size = [], 0
            yield from (_read_table if source.format == "table" else _read_lines)(source, keys)
            continue
        document, fault = _attempt(_read_file, source, keys)
        if document:
            waiting.append(document)
            size += len(document.text)
        if waiting and (fault or size >= BYTES_AT_A_TIME):
            yield waiting
            waiting, size = [], 0
        if fault:
            raise fault
    if waiting:
        yield waiting


def _parts(value: str) -> list[str]:
    if os.path.lexists(value) or "," not in value:
        return [value]
    return split_list(value) if all(part.strip() for part in value.split(",")) else [""]


def _files(name: str, output: str) -> list[str]:
    """The files of one name; hidden ones of a folder are left out."""
    if os.path.isdir(name):
        found = []
        for folder, folders, files in os.walk(name):
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            found += [os.path.join(folder, each) for each in sorted(files) if not each.startswith(".")]
        found = [path for path in found if not (output and os.path.abspath(path) == os.path.abspath(output))]
        if not found:
            raise InputError(f"--input={name} is a folder without a file")
        return found
    if name == STANDARD_INPUT or os.path.lexists(name) or not glob.has_magic(name):
        return [name]
    found = sorted(path for path in glob.glob(escape_existing(name), recursive=True) if not os.path.isdir(path))
    if not found:
        raise InputError(f"--input={name} cannot be read: no file matches")
    return found


def _format_of(path: str, asked: str, *, several: bool, keys: TextKeys) -> str:
    if asked != "auto":
        return asked
    if path.lower().endswith(_JSON_ENDINGS):
        return "jsonl"
    if os.path.splitext(path.lower())[1] in _TABLE_ENDINGS and os.path.isfile(path):
        if keys.tables:
            return "table"
        raise InputError(
            f"{path} is a table, and this model reads running text: write the column of the text to a .txt file, one a "
            'line, or to JSON lines ({"text": ...}), with which the other columns come back; or '
            f"predict.input_format={'files' if several else 'lines'} takes it as it is"
        )
    return "files" if several else "lines"


def _check(source: Input, keys: TextKeys) -> None:
    """Says at once what could only fail later; a pipe is not touched."""
    path = source.path
    if path == STANDARD_INPUT or (os.path.exists(path) and not os.path.isfile(path) and os.access(path, os.R_OK)):
        return
    with _open(source) as file:
        head = file.read(BYTES_AT_A_TIME)
        if head.startswith(_GZIP_MARK):
            raise InputError(f"{path} is compressed (gzip): predict reads text, so decompress it")
        if hint := utf16_hint(head):
            raise InputError(f"{path} is not UTF-8{hint}")
        if source.format == "table":
            for _ in _rows_of(source, keys, at_most_bytes=BYTES_AT_A_TIME):
                pass
        if source.format == "files":
            size = os.fstat(file.fileno()).st_size
            check_size(f"{path} ({size:,} bytes)", size, whole=True)
            if b"\0" in head:
                raise InputError(f"{path}, line {_line_at(head, head.index(0))}: a NUL byte: a binary file, not text")


def _open(source: Input) -> BufferedReader:
    if source.path == STANDARD_INPUT:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    try:
        return open(source.path, "rb")
    except OSError as error:
        raise InputError(f"--input={source.path} cannot be read: {error.strerror}") from error


def _attempt(read: Callable[..., Document | None], *arguments: object) -> tuple[Document | None, InputError | None]:
    try:
        return read(*arguments), None
    except InputError as error:
        return None, error


def _read_file(source: Input, keys: TextKeys) -> Document:
    blocks, size = [], 0
    with _open(source) as file:
        while block := file.read1(BYTES_AT_A_TIME):
            blocks.append(block)
            size += len(block)
            check_size(source.place, size, whole=True)
    content = b"".join(blocks)
    if b"\0" in content:
        line = _line_at(content, content.index(0))
        raise InputError(f"{source.place}, line {line}: a NUL byte: a binary file, not text")
    text = _checked(_decoded(content, source, 1), keys, where=source.place)
    return Document(text, {"file": source.path} if source.named else {})


def _read_table(source: Input, keys: TextKeys) -> Iterator[list[Document]]:
    """The rows of a table, in lists of about 64 KB of text."""
    waiting: list[Document] = []
    size = 0
    try:
        for document in _rows_of(source, keys):
            waiting.append(document)
            size += len(document.text)
            if size >= BYTES_AT_A_TIME:
                yield waiting
                waiting, size = [], 0
    except InputError:
        yield from [waiting] if waiting else []
        raise
    if waiting:
        yield waiting


def _rows_of(source: Input, keys: TextKeys, *, at_most_bytes: int = 0) -> Iterator[Document]:
    """The documents of a table, or those at its beginning.

    Raises:
        InputError: a column is missing or there twice, or what `read_table_rows` says.
    """
    delimiter, _ = find_delimiter(source.path, _TABLE_ENDINGS[os.path.splitext(source.path.lower())[1]])
    header: list[str] = []
    columns: tuple[str, ...] = ()
    for line, row in read_table_rows(source.path, delimiter=delimiter, at_most_bytes=at_most_bytes):
        where = f"{source.place}, line {line}"
        if not header:
            header = row
            twice = next((name for name in header if header.count(name) > 1), None)
            if twice is not None:
                raise InputError(f"{where}: the column {twice!r} is there {header.count(twice)} times: rename one")
            columns = _located(keys.find, header, "column", where=where)
            continue
        record = dict(zip(header, row, strict=True))
        text = _checked(_text_of([record[name] for name in columns]), keys, where=where)
        yield Document(text, {"file": source.path, **record} if source.named else record)


def _text_of(texts: Sequence[str]) -> str:
    return join_pair(*texts) if len(texts) == 2 else texts[0]


def _checked(text: str, keys: TextKeys, *, where: str) -> str:
    """A text that is a pair if it must be one."""
    if keys.pairs and (fault := pair_fault(text)):
        raise InputError(f"{where}: the text {fault}")
    return text


def _located(function: Callable[..., Any], *arguments: Any, where: str) -> Any:
    """What a function returns; an error it raises says where."""
    try:
        return function(*arguments)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _read_lines(source: Input, keys: TextKeys) -> Iterator[list[Document]]:
    parse = _from_json if source.format == "jsonl" else _from_line
    number = 0
    with _open(source) as file:
        for lines in _whole_lines(file, source):
            documents: list[Document] = []
            for line in lines:
                number += 1
                document, fault = _attempt(parse, line, source, number, keys)
                if document:
                    documents.append(document)
                if fault:
                    yield from [documents] if documents else []
                    raise fault
            if documents:
                yield documents


def _whole_lines(file: BufferedReader, source: Input) -> Iterator[list[bytes]]:
    """Lines as they come, without their LF."""
    begun: list[bytes] = []
    size = number = 0
    while block := file.read1(BYTES_AT_A_TIME):
        first, *others = block.split(b"\n")
        begun.append(first)
        size += len(first)
        if others:
            lines = [b"".join(begun), *others[:-1]]
            begun, size = [others[-1]], len(others[-1])
            number += len(lines)
            yield lines
        check_size(f"{source.place}, line {number + 1}", size)
    if size:
        yield [b"".join(begun)]


def _from_line(line: bytes, source: Input, number: int, keys: TextKeys) -> Document:
    text = _checked(_decoded(line, source, number).removesuffix("\r"), keys, where=f"{source.place}, line {number}")
    return Document(text, {"file": source.path} if source.named else {})


def _from_json(line: bytes, source: Input, number: int, keys: TextKeys) -> Document | None:
    """The document of a JSON line; None for a blank one."""
    where = f"{source.place}, line {number}"
    content = _decoded(line, source, number)
    if not content.strip():
        return None
    try:
        record = parse_json(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error}){layout_hint(content)}") from error
    if not isinstance(record, dict):
        raise InputError(
            f'{where}: expected an object with the key "{keys.single[0]}", received {shortened(record, _QUOTED)}'
            f"{layout_hint(content)}"
        )
    names = _located(keys.find, record, "key", where=where)
    for name in names:
        if not isinstance(record[name], str):
            raise InputError(f'{where}: "{name}" must be a text, received {shortened(record[name], _QUOTED)}')
        if fault := surrogate_fault(record[name]):
            raise InputError(f'{where}: "{name}" {fault}')
    text = _checked(_text_of([record[name] for name in names]), keys, where=where)
    return Document(text, record | {"file": record.get("file", source.path)} if source.named else record)


def _decoded(content: bytes, source: Input, number: int) -> str:
    content = content.removeprefix(_BYTE_ORDER_MARK)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number - 1 + _line_at(content, error.start)
        byte = error.start - content.rfind(b"\n", 0, error.start)
        hint = utf16_hint(content) if line == 1 else ""
        others = ", or leave the file out by naming the texts: --input='FOLDER/*.txt'" if source.named else ""
        raise InputError(
            f"{source.place}, line {line}: not UTF-8 at byte {byte} (0x{content[error.start]:02x}); "
            f"convert the text to UTF-8{others}{hint}"
        ) from error


def _line_at(content: bytes, place: int) -> int:
    return content.count(b"\n", 0, place) + 1
