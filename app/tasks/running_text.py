"""Tasks room: running text, cut into units that are read independently; as lines, or as sentences without labels."""

import gzip
import hashlib
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO, cast

from app.config import DataConfig, InputError
from app.config.paths import existing_folder, plain, split_list
from app.data.sentence import Sentence
from app.tasks.tagging.corpus import open_corpus
from app.tasks.tagging.tfds import PREFIX, describe_tfds
from app.text.words import split_sentences

# Running text for pretraining, cut into units of some megabytes that are read independently.
# Plain text is UTF-8, gzip-compressed if the name ends in `.gz`: a line is a paragraph or sentence, a blank line ends
# a document. CoNLL and JSON-lines corpora and `tfds:NAME` are read by the readers of the data room, their words joined
# by blanks. A unit never ends inside a document, and holds one line in memory while it is read.

FORMATS = ("auto", "text", "conll", "jsonl")
MAX_LINE_CHARACTERS = 1_000_000
_MAX_LINE_BYTES = 4 * MAX_LINE_CHARACTERS  # UTF-8 needs at most 4 bytes a character
_HEAD_BYTES = 2**16
_GZIP_RATIO = 3  # bytes of text in a byte of gzip, to plan with
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Source:
    """One file, or one split of a TFDS dataset.

    Attributes:
        path: where it is read from.
        format: "text", "conll", "jsonl" or "tfds".
        name: what it is called in the index, the same wherever the folder lies.
        size: bytes of a file, rows of a TFDS split.
        head: digest of the first 64 KB, so that an edited file is not taken for the old one.
        split: "train", "valid" or "test", for TFDS.
        tfds_dir: folder of the prepared datasets, for TFDS.
    """

    path: str
    format: str
    name: str
    size: int
    head: str = ""
    split: str = "train"
    tfds_dir: str = ""


@dataclass(frozen=True)
class Segment:
    """Bytes [start, end) of a plain text file, on document borders; or a whole source where `end` is None."""

    source: Source
    start: int = 0
    end: int | None = None


def find_sources(
    source: str | Sequence[str], *, file_format: str = "auto", split: str = "train", tfds_dir: str = ""
) -> list[Source]:
    """The files a corpus consists of, each looked into.

    Args:
        source: paths, globs or `tfds:NAME`; several in one string are parted by commas. A file that exists under the
            very name is no glob.
        file_format: "text", "conll", "jsonl"; "auto" takes `.conll` and `.jsonl` (and these with `.gz`) for what they
            say, a file that begins with `-DOCSTART-` for CoNLL columns, everything else for text.
        split: of a TFDS dataset.
        tfds_dir: see `DataConfig`.

    Raises:
        InputError: nothing matches, all files are empty, or a file does not begin as UTF-8 text.
    """
    if file_format not in FORMATS:
        raise InputError(f"the format of a corpus must be one of {', '.join(FORMATS)}, received {file_format!r}")
    patterns = split_list(source) if isinstance(source, str) else source
    sources: dict[str, Source] = {}
    for pattern in filter(None, (each if os.path.lexists(each) else each.strip() for each in patterns)):
        if pattern.startswith(PREFIX):
            name, rows = describe_tfds(pattern, split=split, tfds_dir=tfds_dir)
            sources[pattern] = Source(pattern, "tfds", name, rows, split=split, tfds_dir=tfds_dir)
            continue
        for path, size in _matches(pattern):
            kind = _format_of(path) if file_format == "auto" else file_format
            sources[path] = Source(path, kind, os.path.basename(path), size, _checked_head(path, kind))
    if not sources:
        raise InputError("the pretraining corpus is not named: expected files, globs or tfds:NAME")
    if not any(each.size or each.format == "tfds" for each in sources.values()):
        raise InputError(f"the corpus is empty: {_listed([each.path for each in sources.values()])}")
    return list(sources.values())


def check_readable(sources: Sequence[Source], *, documents: int = 1) -> None:
    """Reads a corpus to its end, as making records of it would, and keeps nothing.

    Args:
        sources: of the corpus.
        documents: how many with text it must have.

    Raises:
        InputError: a fault anywhere in it, see `read_unit`; or it has too few documents.
    """
    found, in_document = 0, False
    for line in read_unit([Segment(source) for source in sources]):
        found += line is not None and not in_document
        in_document = line is not None
    check_documents(found, sources, at_least=documents)


def check_documents(found: int, sources: Sequence[Source], *, at_least: int = 1) -> None:
    """Raises InputError unless the corpus has as many documents as it must."""
    names = _listed([source.path for source in sources])
    if not found:
        raise InputError(f"the corpus is empty: {names} holds no text")
    if found < at_least:
        raise InputError(f"next_sentence needs {at_least} documents, {names} has {found}: a blank line ends a document")


def plan_units(sources: Sequence[Source], *, unit_bytes: int) -> list[tuple[Segment, ...]]:
    """Cuts sources into units of about `unit_bytes` of text, in corpus order.

    Small files share a unit; a compressed file, a tagged corpus and a document of any size stay in one.
    """
    units: list[tuple[Segment, ...]] = []
    open_unit: list[Segment] = []
    size = 0
    for segment, text_bytes in _segments(sources, unit_bytes):
        if open_unit and size + text_bytes > 1.5 * unit_bytes:
            units.append(tuple(open_unit))
            open_unit, size = [], 0
        open_unit.append(segment)
        size += text_bytes
    return [*units, tuple(open_unit)] if open_unit else units


def read_unit(unit: Iterable[Segment]) -> Iterator[str | None]:
    """The lines of a unit without surrounding blanks, and None where a document ends.

    Raises:
        InputError: naming file and line: a NUL byte, not UTF-8, a line of more than 1,000,000 characters; or what the
            readers of tagged corpora raise.
    """
    for segment in unit:
        yield from _read_text(segment) if segment.source.format == "text" else _read_tagged(segment.source)
        yield None


def _matches(pattern: str) -> list[tuple[str, int]]:
    """Paths and sizes of the files that match, sorted by path."""
    if os.path.isdir(pattern):
        raise InputError(f"{pattern} is a folder: name its files, for example {os.path.join(pattern, '*.txt')}")
    if os.path.exists(pattern):
        return [(pattern, os.path.getsize(pattern))]
    folder, rest = existing_folder(pattern)
    folder = folder or os.curdir  # Beam finds nothing for a glob without a folder
    base = plain(folder)
    try:
        found = FileSystems.match([os.path.join(base, rest)])[0].metadata_list
    except (ValueError, OSError) as error:
        raise InputError(f"{pattern} cannot be listed: {error}") from error
    if not found:
        raise InputError(f"no file matches {pattern}")
    return sorted((folder + file.path.removeprefix(base), file.size_in_bytes) for file in found)


def _format_of(path: str) -> str:
    ending = os.path.splitext(path.lower().removesuffix(".gz"))[1]
    named = {".conll": "conll", ".jsonl": "jsonl", ".json": "jsonl"}.get(ending)
    return named or ("conll" if _begins_with_document_mark(path) else "text")


def _begins_with_document_mark(path: str) -> bool:
    """Whether this is CoNLL-2003 as it is handed round, `train.txt`: as text its columns would be learnt."""
    with suppress(OSError, EOFError, zlib.error):  # a file that cannot be read is complained of later
        with FileSystems.open(path) as file:
            return file.read(256).removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"-DOCSTART-")
    return False


def _checked_head(path: str, file_format: str) -> str:
    """Digest of the beginning of a file; a binary file is found here, before anything is made of the others."""
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            digest = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if file_format == "text":
        for _ in _read_text(Segment(Source(path, "text", path, 0), 0, _HEAD_BYTES)):
            pass
    return digest


def _segments(sources: Sequence[Source], unit_bytes: int) -> Iterator[tuple[Segment, int]]:
    """Segments and their bytes of text."""
    for source in sources:
        if source.format == "text" and not source.path.endswith(".gz"):
            borders = [0, *_borders(source, unit_bytes), source.size]
            for start, end in pairwise(borders):
                yield Segment(source, start, end), end - start
        elif source.format == "tfds":
            yield Segment(source), unit_bytes
        else:
            yield Segment(source), source.size * (_GZIP_RATIO if source.path.endswith(".gz") else 1)


def _borders(source: Source, unit_bytes: int) -> Iterator[int]:
    """Offsets after blank lines, about `unit_bytes` apart. Reads only from each cut to the next blank line."""
    try:
        with _opened(source.path) as file:
            border = 0
            while source.size - border > 1.5 * unit_bytes:
                file.seek(border + unit_bytes - 1)
                at_line_start = False
                while line := file.readline(2**20):
                    whole = line.endswith(b"\n")
                    if at_line_start and whole and not line.strip():
                        break
                    at_line_start = whole
                border = file.tell()
                if border >= source.size:
                    return
                yield border
    except OSError as error:
        raise InputError(f"{source.path} cannot be read: {error}") from error


def _read_text(segment: Segment) -> Iterator[str | None]:
    path, number, at, in_document = segment.source.path, 0, segment.start, False
    try:
        with _opened(path) as file:
            if at:
                file.seek(at)
            while segment.end is None or at < segment.end:
                line = file.readline(_MAX_LINE_BYTES + 1)
                if not line:
                    return
                number += 1
                at += len(line)
                try:
                    text = _decoded(line.removeprefix(_BYTE_ORDER_MARK))  # joined files have one inside
                except ValueError as error:
                    raise InputError(f"{path}, line {_lines_before(segment) + number}: {error}") from error
                if text:
                    yield text
                elif in_document:
                    yield None
                in_document = bool(text)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read after line {_lines_before(segment) + number}: {error}") from error


def _decoded(line: bytes) -> str:
    """A line as text without surrounding blanks; a ValueError says why it cannot be text of a corpus."""
    if b"\0" in line:
        raise ValueError("a NUL byte: this is a binary file, not text")
    try:
        text = line.decode("utf-8").strip() if len(line) <= _MAX_LINE_BYTES else ""
    except UnicodeDecodeError as error:
        place = f"byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line"
        raise ValueError(f"not UTF-8 text ({place})") from error
    if len(line) > _MAX_LINE_BYTES or len(text) > MAX_LINE_CHARACTERS:
        raise ValueError(
            f"longer than {MAX_LINE_CHARACTERS:,} characters: a corpus has a paragraph or sentence a line, "
            "and a blank line after each document"
        )
    return text


def _lines_before(segment: Segment) -> int:
    """Lines of the file before a segment, counted when an error needs their number."""
    if not segment.start:
        return 0
    count, left = 0, segment.start
    with suppress(OSError), _opened(segment.source.path) as file:  # a file that is gone has no line numbers
        while left and (block := file.read(min(left, 2**20))):
            count += block.count(b"\n")
            left -= len(block)
    return count


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as raw:
        if path.endswith(".gz"):
            with gzip.open(raw) as file:
                yield cast(BinaryIO, file)
        else:
            yield raw


def _read_tagged(source: Source) -> Iterator[str | None]:
    file_format = "auto" if source.format == "tfds" else source.format
    config = DataConfig(format=file_format, tfds_dir=source.tfds_dir)
    document = 0
    for sentence in open_corpus(source.path, split=source.split, config=config).examples():
        if sentence.document != document:
            yield None
        document = sentence.document
        yield " ".join(sentence.words)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# the one place Apache Beam comes from.
#
# Its import warns about cloud packages that are not installed here and that local files do not need.


_level = logging.root.manager.disable
logging.disable(logging.WARNING)
try:
    import apache_beam as beam
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems
finally:
    logging.disable(_level)

__all__ = ["CompressionTypes", "FileSystems", "beam"]


# Running text without labels, as sentences to distil on.


_UNIT_BYTES = 2**24
_LONGEST_SENTENCE_WORDS = 512  # text without punctuation is cut there
_LONGEST_DOCUMENT_WORDS = 10_000  # a document is held in memory; text without blank lines is cut there


def read_unlabelled(sources: Sequence[Source], *, limit_words: int = 0) -> Iterator[Sentence]:
    """Sentences without tags, in corpus order.

    Args:
        sources: from `find_sources`.
        limit_words: stop after so many words; 0 reads everything.
    """
    words_read = document = words_in_document = 0
    for unit in plan_units(sources, unit_bytes=_UNIT_BYTES):
        for line in read_unit(unit):
            if line is None or words_in_document > _LONGEST_DOCUMENT_WORDS:
                document, words_in_document = document + bool(words_in_document), 0
            for words in _sentences(line or ""):
                left = limit_words - words_read if limit_words else len(words)
                if left <= 0:
                    return
                yield Sentence(words[:left], (), document)
                words_read += len(words[:left])
                words_in_document += len(words)


def _sentences(line: str) -> Iterator[tuple[str, ...]]:
    for found in split_sentences(line):
        words = tuple(line[word.start : word.end] for word in found)
        for at in range(0, len(words), _LONGEST_SENTENCE_WORDS):
            yield words[at : at + _LONGEST_SENTENCE_WORDS]
