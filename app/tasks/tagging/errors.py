"""What went wrong, entity by entity: the kind of every error, and who was taken for whom.

Spans are read in strict mode, so that the counts here add up to the headline scores: correct pairs are
the true positives, every other pair with a gold side is a false negative, every other pair with a
predicted side a false positive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.tasks.tagging.scores import Span, check_tags, check_words, strict_spans

KINDS = ("wrong type", "wrong boundary", "wrong type and boundary", "missed", "invented")
CORRECT = "correct"


@dataclass(frozen=True, slots=True)
class Pair:
    """A gold and a predicted span that belong together; one side may be missing."""

    gold: Span | None
    predicted: Span | None

    @property
    def kind(self) -> str:
        """``correct`` or one of ``KINDS``."""
        if self.gold is None:
            return "invented"
        if self.predicted is None:
            return "missed"
        if self.gold == self.predicted:
            return CORRECT
        if self.gold.label == self.predicted.label:
            return "wrong boundary"
        same_place = (self.gold.start, self.gold.end) == (self.predicted.start, self.predicted.end)
        return "wrong type" if same_place else "wrong type and boundary"

    @property
    def label(self) -> str:
        """The gold type, or the predicted type of an invented entity."""
        span = self.gold or self.predicted
        assert span is not None  # a pair has at least one side
        return span.label


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Errors of one evaluated split.

    Attributes:
        kinds: number of errors for each of ``KINDS``.
        by_type: the same for each entity type (the gold type; of an invented entity the predicted one).
        confusion: number of pairs by (gold type, predicted type); None stands for no entity.
        sentences: number of sentences.
        wrong_sentences: number of sentences with at least one error.
    """

    kinds: dict[str, int]
    by_type: dict[str, dict[str, int]]
    confusion: dict[tuple[str | None, str | None], int]
    sentences: int
    wrong_sentences: int


def match_spans(gold: Sequence[Span], predicted: Sequence[Span]) -> list[Pair]:
    """Pairs the spans of one sentence one to one, in order of their place in it.

    The pair with the largest overlap is made first; of equal overlaps the one of equal types, then the
    one further left. What overlaps nothing that is still free stays alone.

    Args:
        gold: spans in ascending order that do not overlap one another.
        predicted: likewise.
    """
    overlaps = [
        (-shared, left.label != right.label, left, right)
        for shared, left, right in _overlaps(gold, predicted)
    ]
    pairs: list[Pair] = []
    free_gold, free_predicted = set(gold), set(predicted)
    for _, _, left, right in sorted(overlaps):
        if left in free_gold and right in free_predicted:
            free_gold.remove(left)
            free_predicted.remove(right)
            pairs.append(Pair(left, right))
    pairs += [Pair(span, None) for span in free_gold] + [Pair(None, span) for span in free_predicted]
    return sorted(pairs, key=_place)


def error_rows(
    words: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    documents: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """One JSON-ready row for every sentence with an error, as ``errors/SPLIT.jsonl`` holds them.

    Yields:
        ``{"sentence": index in the split, "document": number, "words": [...], "gold": [span, ...],
        "predicted": [span, ...], "errors": [{"kind", "gold": span or None, "predicted": span or None}]}``
        where a span is ``{"start", "end", "label", "text"}``, counted in words, end exclusive.
    """
    check_words(words, gold)
    if len(documents) != len(words):
        received = f"{len(documents)} for {len(words)} sentences"
        raise ValueError(f"documents must have one entry per sentence, received {received}")
    check_tags(gold, predicted)
    for index, (sentence, gold_tags, predicted_tags) in enumerate(zip(words, gold, predicted, strict=True)):
        gold_spans, predicted_spans = strict_spans(gold_tags), strict_spans(predicted_tags)
        if gold_spans == predicted_spans:
            continue
        pairs = match_spans(gold_spans, predicted_spans)
        yield {
            "sentence": index,
            "document": documents[index],
            "words": list(sentence),
            "gold": [_span_row(span, sentence) for span in gold_spans],
            "predicted": [_span_row(span, sentence) for span in predicted_spans],
            "errors": [
                {
                    "kind": pair.kind,
                    "gold": pair.gold and _span_row(pair.gold, sentence),
                    "predicted": pair.predicted and _span_row(pair.predicted, sentence),
                }
                for pair in pairs
                if pair.kind != CORRECT
            ],
        }


def count_errors(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> ErrorCounts:
    """Counts errors by kind and by type, and pairs by (gold type, predicted type)."""
    check_tags(gold, predicted)
    kinds = dict.fromkeys(KINDS, 0)
    by_type: dict[str, dict[str, int]] = {}
    confusion = Counter[tuple[str | None, str | None]]()
    wrong_sentences = 0
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        pairs = match_spans(strict_spans(gold_tags), strict_spans(predicted_tags))
        wrong_sentences += any(pair.kind != CORRECT for pair in pairs)
        for pair in pairs:
            gold_label = pair.gold.label if pair.gold else None
            confusion[gold_label, pair.predicted.label if pair.predicted else None] += 1
            type_kinds = by_type.setdefault(pair.label, dict.fromkeys(KINDS, 0))
            if pair.kind != CORRECT:
                kinds[pair.kind] += 1
                type_kinds[pair.kind] += 1
    return ErrorCounts(kinds, dict(sorted(by_type.items())), dict(confusion), len(gold), wrong_sentences)


def _overlaps(gold: Sequence[Span], predicted: Sequence[Span]) -> Iterator[tuple[int, Span, Span]]:
    """Every overlapping pair and its number of shared words; one sweep over both ascending lists."""
    left = right = 0
    while left < len(gold) and right < len(predicted):
        one, other = gold[left], predicted[right]
        shared = min(one.end, other.end) - max(one.start, other.start)
        if shared > 0:
            yield shared, one, other
        if one.end <= other.end:
            left += 1
        else:
            right += 1


def _place(pair: Pair) -> tuple[int, int, bool]:
    span = pair.gold or pair.predicted
    assert span is not None  # a pair has at least one side
    return span.start, span.end, pair.gold is None


def _span_row(span: Span, words: Sequence[str]) -> dict[str, Any]:
    text = " ".join(words[span.start : span.end])
    return {"start": span.start, "end": span.end, "label": span.label, "text": text}
