"""Tasks room: a corpus of labelled texts from any source, read from the start as often as wanted, never held in memory.

Imports nothing heavy: what can be wrong with a corpus is said before TensorFlow is there.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from app.config import Config, InputError
from app.data.tables import find_delimiter, may_go_on
from app.data.text_lines import shortened
from app.data.tfds import PREFIX, check_tfds_head
from app.tasks.classification.labelled_text import LabelledText, RawText, TextFormat, check_raw_texts
from app.tasks.classification.readers import (
    describe_folder,
    read_folder,
    read_json_texts,
    read_lines_as_texts,
    read_table,
    read_tfds_texts,
)

HEAD_BYTES = 2**17
FORMATS = ("auto", "csv", "tsv", "jsonl", "folder")
_ENDINGS = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".json": "jsonl"}
_MOST_CONFLICTS = 3  # that are kept as examples


@dataclass(frozen=True)
class TextCorpus:
    """A split of a corpus.

    Attributes:
        source: the path or `tfds:NAME` it is read from.
        split: "train", "valid" or "test".
        labels: the only labels allowed, or None.
        notes: what a user should know about how it is read, a sentence each.
    """

    source: str
    split: str
    labels: tuple[str, ...] | None
    _read: Callable[[], Iterator[LabelledText]] = field(repr=False)
    notes: tuple[str, ...] = ()

    def examples(self) -> Iterator[LabelledText]:
        """Reads the corpus from its beginning.

        Raises:
            InputError: at the first fault, naming the file and line.
        """
        return self._read()


@dataclass(frozen=True, slots=True)
class Conflict:
    """A text that a corpus has with different labels.

    Attributes:
        text: as it is quoted in a message.
        first: where it is first.
        labels: it has there; () for a text out of scope.
        second: where it is first with others.
        others: its labels there.
    """

    text: str
    first: str
    labels: tuple[str, ...]
    second: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class TextSummary:
    """What one pass over a corpus finds.

    Attributes:
        source: where it was read from.
        labels: sorted, without that of texts out of scope.
        counts: number of texts of each label.
        texts: number of texts, or pairs, those out of scope included.
        words: number of words, as blanks part them.
        pairs: whether each has two texts.
        out_of_scope: number of texts that belong to no class.
        digest: SHA-256 of texts and labels in their order. The same texts with the same labels have the same one, in
            whatever file or format; nothing else has.
        label_sets: with several labels to a text, the different sets of them that there are; else ().
        conflicts: number of different texts that are there with different labels.
        conflict_examples: the first few of these.
        notes: those of the corpus.
    """

    source: str
    labels: tuple[str, ...]
    counts: dict[str, int]
    texts: int
    words: int
    pairs: bool
    out_of_scope: int
    digest: str
    label_sets: tuple[tuple[str, ...], ...] = ()
    conflicts: int = 0
    conflict_examples: tuple[Conflict, ...] = ()
    notes: tuple[str, ...] = ()


def open_texts(
    path: str,
    *,
    split: str,
    text_format: TextFormat,
    labels: Sequence[str] | None = None,
    labelled: bool = True,
) -> TextCorpus:
    """Opens a corpus; of a file this reads the first line at most.

    Args:
        path: a CSV, TSV or JSON lines file, a folder of class folders, or `tfds:NAME`; without labels also a text file
            of one text a line.
        split: "train", "valid" or "test"; chooses the split of a TFDS dataset.
        text_format: how it is written.
        labels: those of a fixed label set; any other then is an error. None allows all.
        labelled: whether each text must have a label; if not, labels are neither needed nor read.

    Raises:
        InputError: the source is missing, or cannot be recognised.
    """
    if not path:
        raise InputError(f"data.{split}_path is empty, expected a file, a folder or tfds:NAME")
    if labels is not None and not labels:
        raise InputError(f"{path}: the label set that it must have is empty")
    allowed = None if labels is None else tuple(labels)
    read, note = _find_reader(path, split=split, text_format=text_format, labelled=labelled)

    def read_checked() -> Iterator[LabelledText]:
        return check_raw_texts(read(), text_format, split=split, labels=allowed, labelled=labelled)

    return TextCorpus(path, split, allowed, read_checked, (note,) if note else ())


def check_texts_head(
    path: str,
    *,
    split: str,
    text_format: TextFormat,
    labels: Sequence[str] | None = None,
    labelled: bool = True,
) -> int:
    """Looks into a corpus within milliseconds; the arguments are those of `open_texts`.

    Returns:
        texts in an example, 1 or 2; 0 where that is not known.

    Raises:
        InputError: the corpus is missing, or there is a fault near its beginning.
    """
    if path.startswith(PREFIX):
        check_tfds_head(path, text_format.tfds_dir)
        return 0
    read, _ = _find_reader(path, split=split, text_format=text_format, labelled=labelled, at_most_bytes=HEAD_BYTES)
    size = 0
    for text in check_raw_texts(read(), text_format, split=split, labels=labels, labelled=labelled):
        size = len(text.texts)
    return size


def is_head(path: str) -> bool:
    """Whether what `check_texts_head` looks into is all there is."""
    return os.path.isfile(path) and not may_go_on(path, HEAD_BYTES)


def _find_reader(
    path: str, *, split: str, text_format: TextFormat, labelled: bool, at_most_bytes: int = 0
) -> tuple[Callable[[], Iterator[RawText]], str]:
    """What reads a source from its beginning, and a sentence about how it does, if that is worth one."""
    kind = _kind_of(path, text_format.format, labelled=labelled)
    if kind == "tfds":
        return partial(read_tfds_texts, path, text_format, split=split, labelled=labelled), ""
    if kind == "folder":
        note = "" if at_most_bytes else describe_folder(path)
        return partial(read_folder, path, head=bool(at_most_bytes)), note
    if kind == "jsonl":
        return partial(read_json_texts, path, text_format, labelled=labelled, at_most_bytes=at_most_bytes), ""
    if kind == "lines":
        return partial(read_lines_as_texts, path, at_most_bytes=at_most_bytes), ""
    delimiter, note = find_delimiter(path, kind)
    read = partial(read_table, path, text_format, delimiter=delimiter, labelled=labelled, at_most_bytes=at_most_bytes)
    return read, note


def _kind_of(path: str, file_format: str, *, labelled: bool) -> str:
    """A source is "tfds", "folder", "csv", "tsv", "jsonl", or "lines" if it is a text file without labels."""
    if path.startswith(PREFIX):
        return "tfds"
    if file_format not in FORMATS:
        raise InputError(f"data.format={file_format} is none of labelled texts, allowed are {', '.join(FORMATS)}")
    if file_format != "auto":
        return file_format
    if os.path.isdir(path):
        return "folder"
    if not os.path.exists(path):
        raise InputError(f"{path} is missing")
    ending = os.path.splitext(path.lower().removesuffix(".gz"))[1]
    if ending == ".txt" and not labelled:
        return "lines"
    if ending not in _ENDINGS:
        raise InputError(
            f"{path}: its ending does not say what it is, expected {', '.join(_ENDINGS)} (each also with .gz), a "
            f"folder or tfds:NAME; or set data.format to one of {', '.join(FORMATS[1:])}"
        )
    return _ENDINGS[ending]


def join_texts(parts: Sequence[TextCorpus]) -> TextCorpus:
    """Corpora one after the other as one training corpus, which has no texts out of scope: they are left out."""

    def read() -> Iterator[LabelledText]:
        number = size = 0
        for part in parts:
            for text in part.examples():
                if size and len(text.texts) != size:
                    raise InputError(f"{parts[0].source} and {part.source}: one has pairs of texts, the other has not")
                size = len(text.texts)
                if not text.out_of_scope:
                    yield replace(text, number=number)
                    number += 1

    notes = tuple(note for part in parts for note in part.notes)
    return replace(parts[0], source=" and ".join(part.source for part in parts), notes=notes, _read=read)


def text_key(texts: Sequence[str]) -> bytes:
    """Eight bytes that tell a text, or a pair, from any other; how blanks are written does not count."""
    plain = "\0".join(" ".join(text.split()) for text in texts)
    return hashlib.blake2b(plain.encode(), digest_size=8).digest()


def summarize_texts(corpus: TextCorpus, text_format: TextFormat) -> TextSummary:
    """Counts a corpus in one pass. Memory holds a key of eight bytes of each text, and which labels it has.

    Raises:
        InputError: at the first fault of the corpus.
    """
    counts: Counter[str] = Counter()
    sets: dict[tuple[tuple[str, ...], bool], int] = {}  # (labels, out of scope) -> number of the set
    seen: dict[bytes, int] = {}  # text -> number of its set where it is first
    conflicts: dict[bytes, None] = {}  # a dict keeps their order
    words = out_of_scope = texts = size = 0
    digest = hashlib.sha256()
    for text in corpus.examples():
        texts += 1
        size = len(text.texts)
        words += sum(len(each.split()) for each in text.texts)
        out_of_scope += text.out_of_scope
        counts.update(text.labels)
        digest.update(json.dumps([text.texts, text.labels, text.out_of_scope]).encode("ascii"))
        number = sets.setdefault((text.labels, text.out_of_scope), len(sets))
        key = text_key(text.texts)
        if seen.setdefault(key, number) != number:
            conflicts[key] = None
    return TextSummary(
        source=corpus.source,
        labels=tuple(sorted(counts)),
        counts=dict(sorted(counts.items())),
        texts=texts,
        words=words,
        pairs=size == 2,
        out_of_scope=out_of_scope,
        digest=digest.hexdigest(),
        label_sets=tuple(sorted(labels for labels, outside in sets if not outside)) if text_format.multi_label else (),
        conflicts=len(conflicts),
        conflict_examples=tuple(_first_conflicts(corpus, list(conflicts)[:_MOST_CONFLICTS])),
        notes=corpus.notes,
    )


def _first_conflicts(corpus: TextCorpus, wanted: Sequence[bytes]) -> Iterator[Conflict]:
    """Where texts, by their keys, are first, and first with other labels; reads the corpus as far as it must."""
    first: dict[bytes, LabelledText] = {}
    left = set(wanted)
    for text in corpus.examples() if left else ():
        key = text_key(text.texts)
        if key not in left:
            continue
        before = first.setdefault(key, text)
        if (before.labels, before.out_of_scope) != (text.labels, text.out_of_scope):
            yield Conflict(shortened(text.texts[0]), before.place, before.labels, text.place, text.labels)
            left.remove(key)
            if not left:
                return


def text_format_of(config: Config) -> TextFormat:
    """How the corpora of a run are written."""
    data, settings = config.data, config.classification
    return TextFormat(
        format=data.format,
        text_column=data.text_column,
        label_column=data.label_column,
        pair_columns=tuple(data.pair_columns),
        multi_label=settings.multi_label,
        label_separator=settings.label_separator,
        out_of_scope_label=settings.out_of_scope_label,
        tfds_dir=data.tfds_dir,
    )
