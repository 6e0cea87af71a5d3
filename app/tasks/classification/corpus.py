"""Tasks room: corpora of labelled texts: from any source, what is odd about them, and a part set aside."""

import hashlib
import json
import math
import os
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any

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

# A corpus of labelled texts from any source, read from the start as often as wanted, never held in memory.
# Imports nothing heavy: what can be wrong with a corpus is said before TensorFlow is there.

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


# What is odd about labelled texts without being wrong on any line: labels, and texts in two corpora.


MANY_LABELS = 1000
FEW_TEXTS_EACH = 2  # so few on average, and many labels: they are names or numbers of the texts themselves
SMALL_TEXTS = 20  # a corpus of so few texts may be somebody's first try
KINDS = ("single texts", "pairs of texts")
_MOST_NAMED = 5  # labels in a message


def check_split_head(path: str, *, config: Config, split: str, labels: Sequence[str] | None = None) -> None:
    """What can be known of a split before TensorFlow is there.

    Args:
        path: of the corpus.
        config: of the run.
        split: "train", "valid" or "test".
        labels: of the model that there is already; None: what a new one learns is looked up in the training corpus, if
            that is small.

    Raises:
        InputError: for what is wrong.
    """
    text_format, train = text_format_of(config), config.data.train_path
    is_alone = labels is None and not config.data.train_on_valid and is_head(train)  # no other corpus adds labels
    if is_alone and split != "train":
        labels = summarize_texts(open_texts(train, split="train", text_format=text_format), text_format).labels
    if is_alone and split != "train":  # before its labels, which are unknown then as well
        size = check_texts_head(path, split=split, text_format=text_format)
        expected = check_texts_head(train, split="train", text_format=text_format)
        if size and expected and size != expected:
            raise InputError(f"{path} has {KINDS[size - 1]}, {train} has {KINDS[expected - 1]}")
    check_texts_head(path, split=split, text_format=text_format, labels=labels)
    if is_alone and split == "train":
        check_texts(summarize_texts(open_texts(path, split=split, text_format=text_format), text_format), text_format)


def check_kind_head(path: str, *, config: Config, split: str, facts: Mapping[str, Any]) -> None:
    """Fails if a corpus begins with pairs of texts and a model of these facts reads single ones, or the reverse.

    Its labels are not looked at: that they are unknown would follow from it.
    """
    size = check_texts_head(path, split=split, text_format=text_format_of(config))
    expected = 1 + bool(facts.get("pairs"))
    if size and size != expected:
        raise InputError(f"{path} has {KINDS[size - 1]}, the model learns from {KINDS[expected - 1]}")


def check_texts(summary: TextSummary, text_format: TextFormat) -> list[str]:
    """What a user should know about a training corpus, a sentence each.

    Raises:
        InputError: nothing can be learnt from it: one label only, or about as many labels as texts.
    """
    _check_several(summary, text_format)
    found = [*summary.notes, *_many_labels(summary)]
    single = [label for label in summary.labels if summary.counts[label] == 1]
    if single:
        found.append(
            f"{summary.source} has a single text for {_named(single)}: it is learnt badly, and cannot be scored by "
            "another text of this corpus"
        )
    known = [*summary.labels, *([text_format.out_of_scope_label] if text_format.out_of_scope_label else [])]
    for _, group in groupby(sorted(known, key=_look_alike), key=_look_alike):
        alike = list(group)
        if len(alike) > 1:
            found.append(
                f"{summary.source} has labels that differ only in case, in blanks or in how Unicode writes them: "
                f"{', '.join(map(ascii, alike))}; they are learnt as different labels"
            )
    return found + _separators(summary, text_format) + _conflicts(summary, text_format)


def check_scored_texts(summary: TextSummary, text_format: TextFormat, *, labels: Sequence[str]) -> list[str]:
    """The same of a corpus that is scored by a model with so many labels."""
    found = [*summary.notes]
    missing = [label for label in labels if label not in summary.counts]
    if summary.out_of_scope == summary.texts:
        found.append(f"{summary.source} holds only texts out of scope: scores of the labels say nothing")
    elif missing:
        found.append(f"{summary.source} has no text of {_named(missing)}: nothing is known of scores there")
    return found + _conflicts(summary, text_format)


def check_same_kind(summary: TextSummary, *, pairs: bool) -> None:
    """Fails if a corpus has pairs of texts and its model reads single ones, or the reverse."""
    if summary.pairs != pairs:
        raise InputError(f"{summary.source} has {KINDS[summary.pairs]}, the model learns from {KINDS[pairs]}")


def _check_several(summary: TextSummary, text_format: TextFormat) -> None:
    if text_format.multi_label:
        if len(summary.label_sets) < 2:
            labels = ", ".join(map(repr, summary.label_sets[0])) if summary.label_sets else ""
            raise InputError(
                f"{summary.source}: every text has the same labels ({labels or 'none'}), there is nothing to learn"
            )
    elif len(summary.labels) < 2:
        raise InputError(
            f"{summary.source} has a single label ({', '.join(map(repr, summary.labels))}), at least two are needed: "
            "data.label_column says where the labels are"
        )


def _many_labels(summary: TextSummary) -> list[str]:
    labels, texts = len(summary.labels), summary.texts
    wrong_column = "data.label_column says which column has the labels"
    if (labels > MANY_LABELS and texts < FEW_TEXTS_EACH * labels) or (texts > SMALL_TEXTS and labels >= texts):
        raise InputError(
            f"{summary.source} has {labels:,} labels for {texts:,} texts ({', '.join(map(repr, summary.labels[:3]))}, "
            f"...): they seem to be something else; {wrong_column}"
        )
    if labels > MANY_LABELS:
        return [f"{summary.source} has {labels:,} labels: are they in another column (data.label_column)?"]
    return []


def _separators(summary: TextSummary, text_format: TextFormat) -> list[str]:
    """Labels that look like several, where a text has one."""
    separator = text_format.label_separator
    joined = [label for label in summary.labels if separator and separator in label]
    if text_format.multi_label or not joined:
        return []
    return [
        f"{summary.source} has labels with {separator!r} in them, such as {joined[0]!r}, each learnt as one label: are "
        "they several (classification.multi_label=true)?"
    ]


def _conflicts(summary: TextSummary, text_format: TextFormat) -> list[str]:
    if not summary.conflicts:
        return []
    examples = "; ".join(map(_described, summary.conflict_examples))
    hint = ": all labels of a text stand in one row" if text_format.multi_label else ""
    return [f"{summary.source} has {summary.conflicts:,} text(s) with different labels{hint} ({examples})"]


def _described(conflict: Conflict) -> str:
    def shown(labels: Sequence[str]) -> str:
        return " and ".join(map(repr, labels)) or "no label"

    return (
        f"{conflict.text} is {shown(conflict.labels)} in {conflict.first} and {shown(conflict.others)} in "
        f"{conflict.second}"
    )


def _look_alike(label: str) -> str:
    """What labels have in common that differ only in case, blanks or Unicode normal form."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return " ".join(folded.split())


def _named(labels: Sequence[str]) -> str:
    shown = ", ".join(map(repr, labels[:_MOST_NAMED]))
    more = f" and {len(labels) - _MOST_NAMED:,} more" if len(labels) > _MOST_NAMED else ""
    return f"{'label' if len(labels) == 1 else f'each of {len(labels):,} labels:'} {shown}{more}"


@dataclass(frozen=True)
class SharedTexts:
    """What a corpus has in common with the training corpus.

    Attributes:
        texts: that are in both, whatever their labels.
        of_texts: those in the corpus.
    """

    texts: int
    of_texts: int


def find_shared_texts(train: TextCorpus, others: Mapping[str, TextCorpus]) -> dict[str, SharedTexts]:
    """How much of other corpora is in the training corpus too, by their names. Reads every corpus once.

    Memory holds a key of eight bytes for each text of the others.
    """
    keys = {name: Counter(text_key(text.texts) for text in corpus.examples()) for name, corpus in others.items()}
    wanted = set().union(*keys.values())
    found = {key for key in (text_key(text.texts) for text in train.examples()) if key in wanted}
    return {
        name: SharedTexts(sum(count for key, count in counts.items() if key in found), counts.total())
        for name, counts in keys.items()
    }


def describe_shared_texts(found: Mapping[str, SharedTexts], sources: Mapping[str, str]) -> list[str]:
    """A sentence for each corpus that has texts of the training corpus."""
    return [
        f"{sources[name]}: {each.texts:,} of {each.of_texts:,} texts are in the training corpus too, so scores on it "
        "are too good"
        for name, each in found.items()
        if each.texts
    ]


# A part of a training corpus set aside for validation, of each label its share.
#
# What is set aside follows from the texts, their labels, the fraction and a seed, and not from their order: in a file
# that is sorted by label, or shuffled anew, the same texts are found. Texts that are there several times with one
# label go to one side. Every label keeps a text to learn from.


def split_off_texts(corpus: TextCorpus, *, fraction: float, seed: int) -> tuple[TextCorpus, TextCorpus]:
    """The two parts of a corpus: what is trained on, and about `fraction` of its texts. Reads it once.

    Memory holds a key of eight bytes for each text while it chooses, and for each text that is set aside later.

    Raises:
        InputError: a fault of the corpus, or no text can be set aside.
    """
    aside = _choose(corpus, fraction=fraction, seed=seed)

    def part(split: str, source: str) -> TextCorpus:
        def read() -> Iterator[LabelledText]:
            number = 0
            for text in corpus.examples():
                if (_key(text, seed) in aside) == (split == "valid"):
                    yield replace(text, number=number)
                    number += 1

        return replace(corpus, source=source, split=split, _read=read)

    percent = f"{100 * fraction:g} %"
    return (
        part("train", f"{corpus.source} (without the {percent} set aside)"),
        part("valid", f"{corpus.source} (the {percent} set aside)"),
    )


def _choose(corpus: TextCorpus, *, fraction: float, seed: int) -> frozenset[int]:
    """Keys of the texts that are set aside: of each set of labels the first of its texts in the order of their keys.

    Shares are rounded over all sets together, so that of sets with few texts some give one and the sum is right.
    """
    groups: dict[tuple[str, ...], array[int]] = {}
    for text in corpus.examples():
        groups.setdefault(text.labels, array("Q")).append(_key(text, seed))
    left = Counter(label for labels, keys in groups.items() for _ in set(keys) for label in labels)  # to learn from
    aside: set[int] = set()
    taken = before = 0

    def takes(labels: tuple[str, ...], key: int) -> bool:
        if any(left[label] < 2 for label in labels):
            return False
        aside.add(key)
        left.subtract(labels)
        return True

    for labels, keys in sorted(groups.items()):
        before += len(keys)
        quota = min(round(fraction * before) - taken, math.ceil(fraction * len(keys)))
        for key, count in sorted(Counter(keys).items()):
            if quota < 1:
                break
            if count <= quota and takes(labels, key):
                quota, taken = quota - count, taken + count
    if not aside and not any(takes(labels, min(keys)) for labels, keys in sorted(groups.items())):
        raise InputError(
            f"{corpus.source}: no label has a second text, so data.valid_fraction={fraction:g} cannot set a part "
            "aside: name a file in data.valid_path"
        )
    return frozenset(aside)


def _key(text: LabelledText, seed: int) -> int:
    """Tells a text with its labels from any other, and puts them into an order that is as good as drawn by lot."""
    content = f"{seed} {text_key(text.texts).hex()} {json.dumps(text.labels)}"
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big")
