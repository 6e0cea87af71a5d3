"""Tasks room: CoNLL column files, read and written one sentence at a time.

One word a line, its tag in the last column, 2 to 4 columns separated by spaces or tabs, the same number in
the whole file; a blank line ends a sentence. Which columns hold the word and the tag can be said; then there may be any
number of them, and spaces part none where tabs do.

Numbered words: where the first column counts the words of each sentence (GermEval, CoNLL-U), the word is in the second.
Such a file may have any number of columns, of which one must hold tags; every line that begins with `#` is a comment,
`# newdoc` begins a document, and the ranges (`1-2`) and empty nodes (`8.1`) of CoNLL-U are left out.

Documents: a line whose first column is `-DOCSTART-` parts two of them, or begins the first. In a file without
such a line nothing says which sentences belong together, so every sentence is a document of its own.

Comments: a line whose first column is exactly `#` is a comment where it cannot be the word "#": when its
number of columns is not the file's, or, between sentences, when its last column is no tag. `# O` is the
word "#".
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.config import InputError
from app.data.sentence import DOCUMENT_MARK, MAX_SENTENCE_WORDS, Sentence, words_fault
from app.data.text_lines import read_lines
from app.run.directory import atomic
from app.tasks.tagging.labels import OUTSIDE, decode_tags, detect_scheme, from_iob2, order_fault, tag_fault

MAX_LINE_BYTES = 2**20
MIN_COLUMNS, MAX_COLUMNS = 2, 4
HEAD_LINES = 2000  # of words, by which the columns are told apart
MAX_FAULTS = 0.1  # of these lines, the part that may be faulty: what is wrong with them is said when they are read
_BLANKS = re.compile("[ \t]+")  # not str.split(): a no-break space or U+2028 may be part of a word
_NUMBER = re.compile("[0-9]{1,9}")
_NO_WORD = re.compile("[0-9]+[-.][0-9]+")  # CoNLL-U: a range of words, an empty node
_NEW_DOCUMENT = re.compile(r"#\s*newdoc\b")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which columns hold what, counted from 0.

    Attributes:
        word: column of the word.
        tag: column of the tag; -1 is the last.
        numbered: the first column counts the words.
        tabs: only tabs part columns, so that a cell may hold blanks.
        any_width: the file may have more than 4 columns.
    """

    word: int = 0
    tag: int = -1
    numbered: bool = False
    tabs: bool = False
    any_width: bool = False

    def split(self, line: str) -> list[str]:
        """The cells of a line; `[""]` for a blank one."""
        stripped = line.strip(" \t\r")
        if not self.tabs or not stripped:
            return _BLANKS.split(stripped)
        if stripped.startswith((f"{DOCUMENT_MARK} ", "# ")):
            return [stripped.partition(" ")[0]]
        return [cell.strip(" ") for cell in line.strip(" \r").split("\t")]


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
    word_column: int = 0,
    tag_column: int = 0,
) -> Iterator[Sentence]:
    """Reads a CoNLL file as IOB2 sentences; memory holds one sentence.

    Args:
        path: the file; `.gz` is decompressed.
        scheme: "iob1", "iob2", "iobes", or "auto" to decide it in a first pass (see `detect_scheme`).
        strict: fail on a tag that the scheme forbids where it stands, instead of repairing it.
        types: the only entity types allowed; None allows all.
        on_repair: called with the number of repaired tags of each sentence that had any.
        word_column: column of the word, counted from 1; 0 = the first, or the second if the first only counts.
        tag_column: column of the tag, counted from 1; 0 = the last.

    Raises:
        InputError: naming the file and line: wrong number of columns, unknown tag, invalid UTF-8, a
            sentence of more than 10,000 words; or a missing file, or one without sentences.
    """
    layout = _find_layout(path, word_column=word_column, tag_column=tag_column)
    if scheme == "auto":
        scheme = detect_scheme(block.tags for block in _read_blocks(path, layout, scheme="auto"))
    for block in _read_blocks(path, layout, scheme=scheme, types=None if types is None else set(types)):
        tags, repaired = decode_tags(block.tags, scheme)
        if repaired and strict:
            i, fault = order_fault(block.tags, scheme)
            raise InputError(f"{path}, line {block.lines[i]}: {fault}")
        if repaired and on_repair:
            on_repair(repaired)
        yield Sentence(tuple(block.words), tags, block.document)


def detect_conll_scheme(path: str | Path, *, word_column: int = 0, tag_column: int = 0) -> str:
    """Decides the scheme of a CoNLL file in one pass over it."""
    layout = _find_layout(path, word_column=word_column, tag_column=tag_column)
    return detect_scheme(block.tags for block in _read_blocks(path, layout, scheme="auto"))


def check_conll_head(
    path: str | Path,
    *,
    scheme: str,
    types: Iterable[str] | None,
    at_most_bytes: int,
    word_column: int = 0,
    tag_column: int = 0,
) -> None:
    """Reads the beginning of a file; faults in it are those of `read_conll`."""
    layout = _find_layout(path, word_column=word_column, tag_column=tag_column)
    allowed = None if types is None else set(types)
    for _ in _read_blocks(path, layout, scheme=scheme, types=allowed, at_most_bytes=at_most_bytes):
        pass


def _find_layout(path: str | Path, *, word_column: int, tag_column: int) -> _Layout:
    """The columns as they are asked for; what is not, by what the first lines of words hold.

    Raises:
        InputError: the first column only counts, and it is not clear where the word or the tag is.
    """
    asked = bool(word_column or tag_column)
    numbers = None if word_column == 1 else _count_columns(path)
    if numbers is None:
        return _Layout(max(word_column - 1, 0), tag_column - 1, False, asked and _has_tabs(path), asked)
    lines, width, tagged = numbers
    if width < 3 and not word_column:
        raise InputError(
            f"{path}: column 1 only counts (1, 2, 3, ...), and there is no column of words beside it and the tags; "
            "if the numbers are the words, set data.word_column=1"
        )
    word = word_column - 1 if word_column else 1
    found = [column for column in range(width) if tagged[column] > (1 - MAX_FAULTS) * lines and column != word]
    tag = tag_column - 1 if tag_column else found[-1] if found else -1
    if not tag_column and len(found) > 1:
        listed = " and ".join(str(column + 1) for column in found)
        raise InputError(
            f"{path}: several columns hold tags ({listed}), as of nested entities: choose one, for example "
            f"data.tag_column={found[0] + 1}"
        )
    if not tag_column and not found and width > MAX_COLUMNS:
        raise InputError(
            f"{path}: none of its {width} columns holds tags (O, B-TYPE, I-TYPE): write them into one and name it with "
            "data.tag_column"
        )
    return _Layout(word, tag, True, _has_tabs(path), True)


def _count_columns(path: str | Path) -> tuple[int, int, Counter[int]] | None:
    """Lines, columns, and in how many lines each column has a tag, if the first column counts words; else None."""
    lines = width = longest = starts = last = faults = 0
    tagged: Counter[int] = Counter()
    begins, counts, layout = True, False, _Layout(tabs=_has_tabs(path))
    for _, line in read_lines(path, max_line_bytes=MAX_LINE_BYTES):
        cells = layout.split(line)
        if not cells[0] or cells[0] == DOCUMENT_MARK:
            begins = True
            continue
        if cells[0].startswith("#") or _NO_WORD.fullmatch(cells[0]):
            continue
        number = int(cells[0]) if _NUMBER.fullmatch(cells[0]) else -1
        faults += number != last + 1 and not (begins and number in (0, 1))
        if faults > MAX_FAULTS * lines:
            return None
        starts += begins
        longest = 1 if begins else longest + 1 if number == last + 1 else 1
        last, begins, lines, width = number, False, lines + 1, max(width, len(cells))
        tagged.update(column for column, cell in enumerate(cells) if not tag_fault(cell, "auto"))
        counts = counts or longest > 2 or starts > 2
        if lines == HEAD_LINES:
            break
    return (lines, width, tagged) if counts else None


def _has_tabs(path: str | Path) -> bool:
    """Whether the first line that is no comment has columns parted by tabs."""
    for _, line in read_lines(path, max_line_bytes=MAX_LINE_BYTES):
        if line.strip(" \t\r") and not line.startswith(("#", DOCUMENT_MARK)):
            return "\t" in line
    return False


def _read_blocks(
    path: str | Path, layout: _Layout, *, scheme: str, types: Collection[str] | None = None, at_most_bytes: int = 0
) -> Iterator[_Block]:
    """Splits a file, or its first bytes, into sentences and numbers its documents."""
    columns, document = 0, -1
    marked = not at_most_bytes and _has_document_marks(path, layout)
    fresh = True  # whether the next sentence begins a document
    block = _Block()
    lines = read_lines(path, max_line_bytes=MAX_LINE_BYTES, at_most_bytes=at_most_bytes)
    for number, line in itertools.chain(lines, [(0, "")]):
        cells = layout.split(line)
        if cells == [""] or cells[0] == DOCUMENT_MARK:
            if block.words:
                yield block
                fresh, block = not marked, _Block()
            fresh = fresh or cells[0] == DOCUMENT_MARK
            continue
        if _is_comment(cells, layout, columns=columns, scheme=scheme, inside=bool(block.words)):
            fresh = fresh or (layout.numbered and _begins_document(line))
            continue
        if len(cells) != columns or layout.any_width:  # else nothing can be wrong with the columns
            columns = columns or len(cells)
            if fault := _row_fault(cells, layout, columns=columns):
                raise InputError(f"{path}, line {number}: {fault}")
            if layout.numbered and _NO_WORD.fullmatch(cells[0]):
                continue
        if fault := tag_fault(cells[layout.tag], scheme, types):
            raise InputError(f"{path}, line {number}: {fault}{_tag_hint(cells, layout, scheme)}")
        if not block.words:
            document += fresh
            block.document = document
        word = cells[layout.word]
        block.words.append(word.replace(" ", "\u00a0") if layout.tabs else word)  # CoNLL-U has "10 000", one word
        block.tags.append(cells[layout.tag])
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


def _has_document_marks(path: str | Path, layout: _Layout) -> bool:
    """Looks for the first document mark; a marked file has it near its beginning, so this reads little."""
    return any(
        _BLANKS.split(line.strip(" \t\r"))[0] == DOCUMENT_MARK or (layout.numbered and _begins_document(line))
        for _, line in read_lines(path, max_line_bytes=MAX_LINE_BYTES)
    )


def _begins_document(line: str) -> bool:
    return bool(_NEW_DOCUMENT.match(line))


def _is_comment(cells: list[str], layout: _Layout, *, columns: int, scheme: str, inside: bool) -> bool:
    """Applies the rules of the module docstring; `columns` is 0 before the first word line."""
    if layout.numbered:
        return cells[0].startswith("#")
    if cells[0] != "#":
        return False
    if columns:
        fits = len(cells) == columns
    else:
        fits = len(cells) >= MIN_COLUMNS and (layout.any_width or len(cells) <= MAX_COLUMNS)
    tag = cells[layout.tag] if layout.tag < len(cells) else ""
    return not fits or (not inside and bool(tag_fault(tag, scheme)))


def _row_fault(cells: list[str], layout: _Layout, *, columns: int) -> str:
    """Says what is wrong with the columns of a line, or returns an empty string."""
    if len(cells) < MIN_COLUMNS or (len(cells) > MAX_COLUMNS and not layout.any_width):
        commas = ", which blanks or tabs part, not commas" if len(cells) == 1 and "," in cells[0] else ""
        return (
            f"wrong number of columns, received {len(cells)}, allowed are {MIN_COLUMNS} to {MAX_COLUMNS}{commas} "
            "(word first, tag last, or where data.word_column and data.tag_column say; a comment begins with '# ')"
        )
    if len(cells) != columns:
        return f"wrong number of columns, received {len(cells)}, the lines before have {columns}"
    if len(cells) <= max(layout.word, layout.tag):
        name = "data.word_column" if layout.word >= len(cells) else "data.tag_column"
        return f"wrong number of columns, received {len(cells)}, {name} is {max(layout.word, layout.tag) + 1}"
    if layout.numbered and not (_NUMBER.fullmatch(cells[0]) or _NO_WORD.fullmatch(cells[0])):
        return (
            f"column 1 counts the words of this file (1, 2, 3, ...), received {cells[0]!r}; if it holds the words, set "
            "data.word_column=1"
        )
    if not cells[layout.word]:
        return f"column {layout.word + 1} must hold a word, received none"
    return ""


def _tag_hint(cells: list[str], layout: _Layout, scheme: str) -> str:
    """Where a line has its tag, if the columns were not chosen and what stands in the tag's column is none at all."""
    others = [column for column, cell in enumerate(cells[:-1]) if not tag_fault(cell, scheme)]
    if layout.any_width or len(others) != 1 or not tag_fault(cells[layout.tag], "auto"):
        return ""
    return f"; column {others[0] + 1} has one (data.tag_column={others[0] + 1}, data.word_column=...)"


def write_conll(path: str | Path, sentences: Iterable[Sentence], *, scheme: str = "iob2") -> None:
    """Writes sentences as two columns, word and tag, with a document mark before each document.

    Raises:
        InputError: a sentence has no tags, or a word cannot be written in columns (see `words_fault`).
    """
    document = -1
    with atomic(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for number, sentence in enumerate(sentences, start=1):
            fault = words_fault(sentence.words)
            if not fault and any(word.startswith("\ufeff") for word in sentence.words):
                fault = "a word begins with a byte order mark (U+FEFF), which is not read back"
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
