"""Data room: documents to answer, from standard input, files and folders.

    lines   one document per line
    jsonl   {"id": 7, "text": "Ada lived in London."}: one a line; all other keys come back with the answer
    files   one document a file, line ends included
    table   one document per row of a CSV or TSV file whose first line names the columns; all columns come back

`auto` takes `.jsonl` and `.ndjson` for JSON lines, `.csv`, `.tsv` and `.tab` for tables, and else one file (or standard
input) for lines, several for files. A pair of texts is one document, with a tab between them.
Documents are given out a few at a time: memory holds those, and none may be longer than 16 MiB.
"""

import glob
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from app.config import DataConfig, InputError
from app.config.paths import escape_existing, split_list
from app.data.json_lines import layout_hint, parse_json
from app.data.sentence import surrogate_fault
from app.data.tables import find_delimiter, read_table_rows
from app.data.text_lines import utf16_hint

STANDARD_INPUT = "-"
MAX_DOCUMENT_BYTES = 2**24
BYTES_AT_A_TIME = 2**16
GIVEN = "given_"  # before the name of a key of the input that the answer has too
_JSON_ENDINGS = (".jsonl", ".ndjson")
_TABLE_ENDINGS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP_MARK = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Document:
    """A text, and what stands beside it in the answer: the keys of its JSON line or row, the file it comes from."""

    text: str
    fields: dict[str, Any]

    def beside(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to the document with all that stands beside it.

        A key that the answer has too is kept as `given_KEY`, such as `given_label`; only a text that is the same is
        there once.
        """
        kept: dict[str, Any] = {}
        for name, value in self.fields.items():
            if name in row and (name != "text" or value != row[name]):
                while name in row or name in self.fields:
                    name = GIVEN + name
            kept[name] = value
        return {**kept, **row}


@dataclass(frozen=True)
class TextKeys:
    """Where the text of a document is, in JSON lines and in tables.

    Attributes:
        single: keys of the text; the first that is there counts.
        pair: keys of the two texts of a pair.
        pairs: whether a document is a pair: in place of the two keys, a text with a tab in it.
        tables: whether CSV and TSV files are read as tables; otherwise they are refused.
    """

    single: tuple[str, ...] = ("text",)
    pair: tuple[str, ...] = ()
    pairs: bool = False
    tables: bool = True

    def find(self, names: Collection[str], kind: str) -> tuple[str, ...]:
        """Those of the names that hold the text, or the two of a pair.

        Raises:
            InputError: there are none.
        """
        if self.pairs and self.pair and all(name in names for name in self.pair):
            return self.pair
        for name in self.single:
            if name in names:
                return (name,)
        wanted = " or ".join(map(_quoted, self.single))
        if self.pairs and self.pair:
            wanted = f"{' and '.join(map(_quoted, self.pair))}, nor {wanted} with a tab between the texts of a pair"
        keys = ", ".join(repr(name[:40]) for name in list(names)[:8]) or "none"
        raise InputError(f"there is no {kind} {wanted}; the {kind}s are {keys}")


USUAL_KEYS = TextKeys()


def text_keys(data: DataConfig, *, pairs: bool, tables: bool) -> TextKeys:
    """The keys that a model answers: those it was trained on, and `text`."""
    single = tuple(dict.fromkeys(filter(None, (data.text_column, "text"))))
    return TextKeys(single, tuple(data.pair_columns) if pairs else (), pairs, tables)


def join_pair(first: str, second: str) -> str:
    """A pair as one text; a tab inside the first one becomes a blank, which parts words as well."""
    return f"{first.replace(chr(9), ' ')}\t{second}"


def pair_fault(text: str) -> str:
    """What is wrong with a text that is to be a pair; an empty string if nothing is. A blank one is no fault."""
    first, tab, second = text.partition("\t")
    if not text.strip() and not tab:
        return ""
    if not tab:
        return f"must be two texts with a tab between them, as the model reads pairs, received {_short(text)}"
    if not first.strip() or not second.strip():
        which = "second" if first.strip() else "first"
        return f"must be two texts with a tab between them, and the {which} one is empty: {_short(text)}"
    return ""


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


def check_texts(texts: str | Iterable[str | Sequence[str]], *, pairs: bool = False) -> list[str]:
    """Documents that a program has in memory; one text is a list of one.

    Args:
        texts: where they are pairs, each is two texts, or one with a tab between them.
        pairs: whether they must be pairs.

    Raises:
        InputError: naming the number of the text: it is no text, or no pair, too long, or has half of a surrogate pair
            in it.
    """
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise InputError(f"texts must be a list of texts, received {_short(texts)}")
    found: list[Any] = [texts] if isinstance(texts, str) else [_joined(each) if pairs else each for each in texts]
    for number, text in enumerate(found):
        if not isinstance(text, str):
            wanted = "two texts, or one with a tab between them" if pairs else "a text"
            raise InputError(f"texts[{number}] must be {wanted}, received {_short(text)}")
        if pairs and (fault := pair_fault(text)):
            raise InputError(f"texts[{number}] {fault}")
        if fault := surrogate_fault(text):
            raise InputError(f"texts[{number}] {fault}")
        if 4 * len(text) > MAX_DOCUMENT_BYTES and (size := len(text.encode("utf-8"))) > MAX_DOCUMENT_BYTES:
            raise InputError(_too_long(f"texts[{number}] ({size:,} bytes)"))
    return found


def _joined(value: Any) -> Any:
    """Two texts as a pair; whatever else it is stays."""
    if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(text, str) for text in value):
        return join_pair(*value)
    return value


def divide_texts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts in their order, in lists of about 64 KB: memory need not hold what all of them become."""
    first = size = 0
    for number, text in enumerate(texts):
        size += len(text)
        if size >= BYTES_AT_A_TIME or number == len(texts) - 1:
            yield texts[first : number + 1]
            first, size = number + 1, 0


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
            if size > MAX_DOCUMENT_BYTES:
                raise InputError(_too_long(f"{path} ({size:,} bytes)", whole=True))
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
            if size > MAX_DOCUMENT_BYTES:
                raise InputError(_too_long(source.place, whole=True))
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
        if size > MAX_DOCUMENT_BYTES:
            raise InputError(_too_long(f"{source.place}, line {number + 1}"))
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
            f'{where}: expected an object with the key "{keys.single[0]}", received {_short(record)}'
            f"{layout_hint(content)}"
        )
    names = _located(keys.find, record, "key", where=where)
    for name in names:
        if not isinstance(record[name], str):
            raise InputError(f'{where}: "{name}" must be a text, received {_short(record[name])}')
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


def _too_long(what: str, *, whole: bool = False) -> str:
    hint = ", or read its lines with predict.input_format=lines" if whole else ""
    return f"{what} is longer than a document may be ({MAX_DOCUMENT_BYTES:,} bytes): divide it{hint}"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
