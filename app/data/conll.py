"""Data room: CoNLL column files, read and written one sentence at a time.

One word a line, its tag in the last column, 2 to 4 columns separated by spaces or tabs, the same number in
the whole file; a blank line ends a sentence.

Documents: a line whose first column is `-DOCSTART-` parts two of them, or begins the first. In a file without
such a line nothing says which sentences belong together, so every sentence is a document of its own.

Comments: a line whose first column is exactly `#` is a comment where it cannot be the word "#": when its
number of columns is not the file's, or, between sentences, when its last column is no tag. `# O` is the
word "#".
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.config import InputError
from app.data.labels import OUTSIDE, decode_tags, detect_scheme, from_iob2, order_fault, tag_fault
from app.data.sentence import DOCUMENT_MARK, MAX_SENTENCE_WORDS, Sentence, words_fault
from app.data.text_lines import read_lines

MAX_LINE_BYTES = 2**20
MIN_COLUMNS, MAX_COLUMNS = 2, 4
_BLANKS = re.compile("[ \t]+")  # not str.split(): a no-break space or U+2028 may be part of a word


@dataclass(slots=True)
class _Block:
    """One sentence as it stands in the file."""

    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    document: int = 0


def read_conll(
    path: str | Path,
    *,
    scheme: str = "auto",
    strict: bool = False,
    types: Iterable[str] | None = None,
    on_repair: Callable[[int], None] | None = None,
) -> Iterator[Sentence]:
    """Reads a CoNLL file as IOB2 sentences; memory holds one sentence.

    Args:
        path: the file; `.gz` is decompressed.
        scheme: "iob1", "iob2", "iobes", or "auto" to decide it in a first pass (see `detect_scheme`).
        strict: fail on a tag that the scheme forbids where it stands, instead of repairing it.
        types: the only entity types allowed; None allows all.
        on_repair: called with the number of repaired tags of each sentence that had any.

    Raises:
        InputError: naming the file and line: wrong number of columns, unknown tag, invalid UTF-8, a
            sentence of more than 10,000 words; or a missing file, or one without sentences.
    """
    if scheme == "auto":
        scheme = detect_conll_scheme(path)
    for block in _read_blocks(path, scheme=scheme, types=None if types is None else set(types)):
        tags, repaired = decode_tags(block.tags, scheme)
        if repaired and strict:
            i, fault = order_fault(block.tags, scheme)
            raise InputError(f"{path}, line {block.lines[i]}: {fault}")
        if repaired and on_repair:
            on_repair(repaired)
        yield Sentence(tuple(block.words), tags, block.document)


def detect_conll_scheme(path: str | Path) -> str:
    """Decides the scheme of a CoNLL file in one pass over it."""
    return detect_scheme(block.tags for block in _read_blocks(path, scheme="auto"))


def check_conll_head(path: str | Path, *, scheme: str, types: Iterable[str] | None, at_most_bytes: int) -> None:
    """Reads the beginning of a file; faults in it are those of `read_conll`."""
    for _ in _read_blocks(
        path, scheme=scheme, types=None if types is None else set(types), at_most_bytes=at_most_bytes
    ):
        pass


def _read_blocks(
    path: str | Path, *, scheme: str, types: Collection[str] | None = None, at_most_bytes: int = 0
) -> Iterator[_Block]:
    """Splits a file, or its first bytes, into sentences and numbers its documents."""
    columns, document = 0, -1
    marked = not at_most_bytes and _has_document_marks(path)
    fresh = True  # whether the next sentence begins a document
    block = _Block()
    lines = read_lines(path, max_line_bytes=MAX_LINE_BYTES, at_most_bytes=at_most_bytes)
    for number, line in itertools.chain(lines, [(0, "")]):
        cells = _BLANKS.split(line.strip(" \t\r"))
        if cells == [""] or cells[0] == DOCUMENT_MARK:
            if block.words:
                yield block
                fresh, block = not marked, _Block()
            fresh = fresh or cells[0] == DOCUMENT_MARK
            continue
        if _is_comment(cells, columns=columns, scheme=scheme, inside=bool(block.words)):
            continue
        columns = columns or len(cells)
        if fault := _row_fault(cells, columns=columns) or tag_fault(cells[-1], scheme, types):
            raise InputError(f"{path}, line {number}: {fault}")
        if not block.words:
            document += fresh
            block.document = document
        block.words.append(cells[0])
        block.tags.append(cells[-1])
        block.lines.append(number)
        if len(block.words) > MAX_SENTENCE_WORDS:
            raise InputError(
                f"{path}, line {block.lines[0]}: the sentence beginning here is longer than "
                f"{MAX_SENTENCE_WORDS:,} words (a blank line ends a sentence)"
            )
    if not columns and not _may_go_on(path, at_most_bytes):
        raise InputError(f"{path} is empty: it holds no sentence")


def _may_go_on(path: str | Path, at_most_bytes: int) -> bool:
    """Whether a file has more than the bytes that were read of it; of a compressed one nobody knows."""
    return bool(at_most_bytes) and (str(path).endswith(".gz") or Path(path).stat().st_size > at_most_bytes)


def _has_document_marks(path: str | Path) -> bool:
    """Looks for the first document mark; a marked file has it near its beginning, so this reads little."""
    lines = read_lines(path, max_line_bytes=MAX_LINE_BYTES)
    return any(_BLANKS.split(line.strip(" \t\r"))[0] == DOCUMENT_MARK for _, line in lines)


def _is_comment(cells: list[str], *, columns: int, scheme: str, inside: bool) -> bool:
    """Applies the rule of the module docstring; `columns` is 0 before the first word line."""
    if cells[0] != "#":
        return False
    fits = len(cells) == columns if columns else MIN_COLUMNS <= len(cells) <= MAX_COLUMNS
    return not fits or (not inside and bool(tag_fault(cells[-1], scheme)))


def _row_fault(cells: list[str], *, columns: int) -> str:
    """Says what is wrong with the number of columns of a line, or returns an empty string."""
    if not MIN_COLUMNS <= len(cells) <= MAX_COLUMNS:
        return (
            f"wrong number of columns, received {len(cells)}, allowed are {MIN_COLUMNS} to {MAX_COLUMNS} "
            "(word first, tag last; a comment begins with '# ')"
        )
    if len(cells) != columns:
        return f"wrong number of columns, received {len(cells)}, the lines before have {columns}"
    return ""


def write_conll(path: str | Path, sentences: Iterable[Sentence], *, scheme: str = "iob2") -> None:
    """Writes sentences as two columns, word and tag, with a document mark before each document.

    Raises:
        InputError: a sentence has no tags, or a word cannot be written in columns (see `words_fault`).
    """
    document = -1
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        for number, sentence in enumerate(sentences, start=1):
            fault = words_fault(sentence.words)
            if not fault and len(sentence.tags) != len(sentence.words):
                fault = f"{len(sentence.words)} words but {len(sentence.tags)} tags"
            if fault:
                raise InputError(f"{path}, sentence {number}: {fault}")
            if sentence.document != document:
                document = sentence.document
                file.write(f"{DOCUMENT_MARK} {OUTSIDE}\n\n")
            tags = from_iob2(sentence.tags, scheme)
            file.writelines(f"{word} {tag}\n" for word, tag in zip(sentence.words, tags, strict=True))
            file.write("\n")
    partial.replace(path)
