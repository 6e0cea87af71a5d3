"""Tasks room: what is odd about labelled texts without being wrong on any line: labels, and texts in two corpora."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from app.config import Config, InputError
from app.tasks.classification.corpus import (
    Conflict,
    TextCorpus,
    TextSummary,
    check_texts_head,
    is_head,
    open_texts,
    summarize_texts,
    text_format_of,
    text_key,
)
from app.tasks.classification.labelled_text import TextFormat

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
