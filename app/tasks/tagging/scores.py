"""Tasks room: the one place where precision, recall and F1 of tags are computed; and what went wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, Tokens
from sklearn.metrics import classification_report

# Entity spans of one sentence's IOB2 tags, by the two conventions in use.


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


TagLists = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a report. ``support`` counts gold entities (or gold tags)."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class EntityScores:
    """Exact spans: an entity counts when start, end and type are all right."""

    convention: str
    types: tuple[Row, ...]
    micro: Row
    macro: Row  # mean over the types that occur in gold or predicted


@dataclass(frozen=True, slots=True)
class TokenScores:
    """One tag a word, ``O`` included, as scikit-learn's ``classification_report`` counts them."""

    tags: tuple[Row, ...]
    macro: Row  # mean over the tags that occur in gold or predicted, O included
    weighted: Row
    accuracy: float


@dataclass(frozen=True, slots=True)
class Scores:
    """Everything the reports print about one evaluated split.

    Attributes:
        strict: seqeval's strict mode, scheme IOB2. Its micro F1 is the headline.
        conlleval: the convention of the CoNLL script.
        token: the token-level report of the founding table.
        sentences: number of sentences.
        words: number of words, each scored once.
        stray_inside: predicted ``I-X`` tags that belong to no entity in strict mode. The two
            conventions agree when this is 0 and the gold tags are well formed.
    """

    strict: EntityScores
    conlleval: EntityScores
    token: TokenScores
    sentences: int
    words: int
    stray_inside: int


def compute_scores(gold: TagLists, predicted: TagLists) -> Scores:
    """Scores predicted IOB2 tags against gold ones.

    Args:
        gold: the right tags, one list a sentence.
        predicted: the tags to score, of the same shape.

    Raises:
        ValueError: the shapes differ, a tag is not IOB2, or there is no word at all.
    """
    check_tags(gold, predicted)
    words = sum(len(tags) for tags in gold)
    if not words:
        raise ValueError("there is nothing to score: the split has no words")
    strict_gold, strict_predicted = _both(strict_spans, gold, predicted)
    inside_spans = sum(span.end - span.start for spans in strict_predicted for span in spans)
    tagged = sum(tag != "O" for tags in predicted for tag in tags)
    return Scores(
        strict=_entity_scores("seqeval strict mode, IOB2", strict_gold, strict_predicted),
        conlleval=_entity_scores("CoNLL script (conlleval)", *_both(conlleval_spans, gold, predicted)),
        token=_token_scores(gold, predicted),
        sentences=len(gold),
        words=words,
        stray_inside=tagged - inside_spans,
    )


def count_entities(gold: TagLists, predicted: TagLists) -> np.ndarray:
    """What entity F1 is made of, sentence by sentence: right, predicted and gold entities, int64 [sentences, 3].

    The convention is that of the headline, so `micro_f1` of their sum is `Scores.strict.micro.f1`.

    Raises:
        ValueError: the shapes differ, or a tag is not IOB2.
    """
    check_tags(gold, predicted)
    pairs = zip(*_both(strict_spans, gold, predicted), strict=True)
    rows = [(len(set(right) & set(found)), len(found), len(right)) for right, found in pairs]
    return np.array(rows, np.int64).reshape(-1, 3)


def micro_f1(counts: np.ndarray) -> np.ndarray:
    """F1 of sums of right, predicted and gold entities: [..., 3] -> float64 [...], 0 where nothing is right."""
    right, found, support = np.moveaxis(counts, -1, 0)
    return 2 * right / np.maximum(found + support, 1)


def flat_metrics(scores: Scores, prefix: str = "test") -> dict[str, float]:
    """The scores as ``metrics.json`` holds them, every name under ``prefix/``."""
    metrics: dict[str, float] = {}
    for row in scores.strict.types:
        metrics[f"entity_f1_{row.name}"] = row.f1
    # The overall names come last, so that a type with an unlucky name cannot hide them.
    for ending, entity in (("", scores.strict), ("_conlleval", scores.conlleval)):
        metrics[f"entity_f1{ending}"] = entity.micro.f1
        metrics[f"entity_precision{ending}"] = entity.micro.precision
        metrics[f"entity_recall{ending}"] = entity.micro.recall
        metrics[f"entity_macro_f1{ending}"] = entity.macro.f1
    metrics["token_macro_f1"] = scores.token.macro.f1
    metrics["token_weighted_f1"] = scores.token.weighted.f1
    metrics["token_accuracy"] = scores.token.accuracy
    metrics["entities"] = scores.strict.micro.support
    metrics["words"] = scores.words
    metrics["sentences"] = scores.sentences
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def _both(
    read_spans: Callable[[Sequence[str]], list[Span]], gold: TagLists, predicted: TagLists
) -> tuple[list[list[Span]], list[list[Span]]]:
    return [read_spans(tags) for tags in gold], [read_spans(tags) for tags in predicted]


def _entity_scores(convention: str, gold: list[list[Span]], predicted: list[list[Span]]) -> EntityScores:
    support, found, correct = Counter[str](), Counter[str](), Counter[str]()
    for gold_spans, predicted_spans in zip(gold, predicted, strict=True):
        support.update(span.label for span in gold_spans)
        found.update(span.label for span in predicted_spans)
        correct.update(span.label for span in set(gold_spans) & set(predicted_spans))
    types = tuple(score_counts(name, correct[name], found[name], support[name]) for name in sorted(support | found))
    return EntityScores(
        convention=convention,
        types=types,
        micro=score_counts("micro avg", correct.total(), found.total(), support.total()),
        macro=Row(
            "macro avg",
            _mean([row.precision for row in types]),
            _mean([row.recall for row in types]),
            _mean([row.f1 for row in types]),
            support.total(),
        ),
    )


def _token_scores(gold: TagLists, predicted: TagLists) -> TokenScores:
    names = sorted({tag for tags in (*gold, *predicted) for tag in tags}, key=_tag_order)
    number = {name: index for index, name in enumerate(names)}  # scikit-learn is slow on strings
    report: dict[str, Any] = classification_report(
        [number[tag] for tags in gold for tag in tags],
        [number[tag] for tags in predicted for tag in tags],
        labels=list(range(len(names))),
        target_names=names,
        output_dict=True,
        zero_division=0,
    )
    rows = {name: _report_row(name, report[name]) for name in (*names, "macro avg", "weighted avg")}
    return TokenScores(
        tags=tuple(rows[name] for name in names),
        macro=rows["macro avg"],
        weighted=rows["weighted avg"],
        accuracy=float(report["accuracy"]),
    )


def _tag_order(tag: str) -> tuple[bool, str, str]:
    """The founding table's order: types in alphabetical order, B before I, O last."""
    return tag == "O", tag[2:], tag[0]


def _report_row(name: str, values: dict[str, float]) -> Row:
    return Row(
        name,
        float(values["precision"]),
        float(values["recall"]),
        float(values["f1-score"]),
        int(values["support"]),
    )


def score_counts(name: str, correct: int, found: int, support: int) -> Row:
    """Scores from numbers of entities: right ones, predicted ones, those of the corpus."""
    precision = correct / found if found else 0.0
    recall = correct / support if support else 0.0
    f1 = 2 * correct / (found + support) if correct else 0.0
    return Row(name, precision, recall, f1, support)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


# What went wrong, entity by entity: the kind of every error, and who was taken for whom.
#
# Spans are read in strict mode, so that the counts here add up to the headline scores: correct pairs are the true
# positives, every other pair with a gold side is a false negative, every other pair with a predicted side a false
# positive.


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
