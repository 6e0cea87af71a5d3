"""Entity spans of one sentence's IOB2 tags, by the two conventions in use.

The conventions agree on well-formed tags. They differ where an ``I-X`` does not continue an entity of
type X: in strict mode it belongs to no entity, for the CoNLL script it starts one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Tokens

IOB2_TAG = re.compile(r"O|[BI]-\S+")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """An entity: words ``start`` to ``end`` (exclusive) of a sentence, and its type."""

    start: int
    end: int
    label: str


def strict_spans(tags: Sequence[str]) -> list[Span]:
    """Spans by seqeval's strict mode with scheme IOB2: only ``B-X`` starts an entity."""
    found = Tokens(list(tags), scheme=IOB2).entities
    return [Span(entity.start, entity.end, tags[entity.start][2:]) for entity in found]


def conlleval_spans(tags: Sequence[str]) -> list[Span]:
    """Spans by the CoNLL script ``conlleval``: an ``I-X`` that continues no entity starts one.

    seqeval's default mode is the script's rule (its ``E``, ``S`` and bare ``B`` / ``I`` tags, where the
    two programs do differ, are not IOB2 tags and are refused by ``check_tags``).
    """
    return [Span(start, last + 1, label) for label, start, last in get_entities(list(tags))]


def check_tags(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> None:
    """Raises ValueError unless both sides hold IOB2 tags, one for each word of each sentence."""
    if len(gold) != len(predicted):
        raise ValueError(
            f"gold and predicted must have the same sentences, received {len(gold)} and {len(predicted)}"
        )
    for index, (gold_tags, predicted_tags) in enumerate(zip(gold, predicted, strict=True)):
        if len(gold_tags) != len(predicted_tags):
            raise ValueError(
                f"sentence {index} must have one predicted tag per word, "
                f"received {len(gold_tags)} gold and {len(predicted_tags)} predicted tags"
            )
    for side, sentences in (("gold", gold), ("predicted", predicted)):
        for tag in sorted({tag for tags in sentences for tag in tags}):
            if not IOB2_TAG.fullmatch(tag):
                raise ValueError(f"{side} tags must be O, B-TYPE or I-TYPE (IOB2), received {tag!r}")


def check_words(words: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> None:
    """Raises ValueError unless every word has one gold tag."""
    if [len(sentence) for sentence in words] != [len(tags) for tags in gold]:
        raise ValueError(
            "words and gold must have one tag per word in every sentence, received "
            f"{sum(map(len, words))} words in {len(words)} sentences and "
            f"{sum(map(len, gold))} tags in {len(gold)} sentences"
        )
