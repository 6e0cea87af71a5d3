"""The report of a split, ``report.txt`` in it, and the CoNLL columns of ``predictions/SPLIT.conll``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.data.sentence import Sentence
from app.tasks.report import Bars, Example, Matrix, Report, Segment, Table
from app.tasks.tagging.scores import KINDS, EntityScores, ErrorCounts, Row, Scores, TokenScores, check_tags, check_words

# Whatever would break a column or a line, and lone surrogates, which UTF-8 cannot hold.
_BREAKS_COLUMNS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTEXT_WORDS = 25  # shown on either side of the errors of a long sentence
_MAX_WORDS = 150


def build_report(
    scores: Scores, counts: ErrorCounts, examples: Sequence[Mapping[str, Any]], *, title: str, notes: Sequence[str] = ()
) -> Report:
    """Everything there is to show of a scored split.

    Args:
        scores: from ``compute_scores``.
        counts: from ``count_errors`` on the same tags.
        examples: rows of ``error_rows`` on the same tags.
        title: first line of the text.
        notes: further lines under the headline of the text.
    """
    micro = scores.strict.micro
    return Report(
        size=_size(scores),
        text=text_report(scores, counts, title=title, notes=notes),
        tiles=(
            ("entity F1", f"{micro.f1:.4f}"),
            ("precision", f"{micro.precision:.4f}"),
            ("recall", f"{micro.recall:.4f}"),
            ("conlleval F1", f"{scores.conlleval.micro.f1:.4f}"),
            ("token macro-F1", f"{scores.token.macro.f1:.4f}"),
            ("token accuracy", f"{scores.token.accuracy:.4f}"),
        ),
        charts=(_type_chart(scores), _confusion_chart(counts), _kind_chart(counts)),
        tables=(_token_part(scores.token), _entity_part(scores.strict), _entity_part(scores.conlleval)),
        examples=tuple(map(_example, examples)),
        labels=tuple(counts.by_type),
        kinds=KINDS,
        unit="sentence",
    )


def text_report(scores: Scores, errors: ErrorCounts, *, title: str, notes: Sequence[str] = ()) -> str:
    """The whole of ``report.txt``: headline, tags, entities, confusion and error kinds.

    Args:
        scores: from ``compute_scores``.
        errors: from ``count_errors`` on the same tags.
        title: first line, for example the run and the split.
        notes: further lines under the headline.
    """
    blocks = [
        _headline(scores, title, notes),
        f"Token level (one tag per word, O included)\n\n{token_table(scores.token)}",
        *(
            f"Entity level (exact spans, {entity.convention})\n\n{_entity_table(entity)}"
            for entity in (scores.strict, scores.conlleval)
        ),
        f"Entity types, gold in rows, predicted in columns, paired by overlap\n\n{_confusion_table(errors)}",
        f"Errors ({_wrong_sentences(errors)})\n\n{_error_table(errors)}",
    ]
    return "\n\n\n".join(blocks) + "\n"


def token_table(token: TokenScores) -> str:
    """The founding document's table: tag, precision, recall, f1, support; averages; accuracy."""
    rows = [*token.tags, token.macro, token.weighted]
    accuracy = ["accuracy", "", "", f"{token.accuracy:.3f}", str(token.macro.support)]
    return _table([["tag", *_COLUMNS], *map(_cells, rows), accuracy], rule=len(token.tags) + 1)


def conll_rows(
    words: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> str:
    """Lines ``word gold predicted`` with a blank line after each sentence: conlleval's input.

    A space or control character inside a word becomes ``_``. So does an empty word, and the word
    ``-X-``, which the script takes for a sentence boundary, becomes ``_X_``: no word may be lost.
    """
    check_words(words, gold)
    check_tags(gold, predicted)
    lines: list[str] = []
    for sentence, gold_tags, predicted_tags in zip(words, gold, predicted, strict=True):
        for word, gold_tag, predicted_tag in zip(sentence, gold_tags, predicted_tags, strict=True):
            lines.append(f"{_column(word)} {gold_tag} {predicted_tag}\n")
        lines.append("\n")
    return "".join(lines)


_COLUMNS = ("precision", "recall", "f1", "support")


def _headline(scores: Scores, title: str, notes: Sequence[str]) -> str:
    micro = scores.strict.micro
    exact = f"exact spans, {scores.strict.convention}"
    lines = [
        title,
        "=" * len(title),
        f"entity F1 {micro.f1:.4f} (precision {micro.precision:.4f}, recall {micro.recall:.4f}; {exact}); "
        + f"conlleval F1 {scores.conlleval.micro.f1:.4f}",
        f"token macro-F1 {scores.token.macro.f1:.4f}, token accuracy {scores.token.accuracy:.4f}",
        _size(scores),
    ]
    if scores.stray_inside:
        lines.append(
            f"{scores.stray_inside:,} predicted I- tags continue no entity: "
            "strict mode leaves them out, conlleval lets them start one"
        )
    return "\n".join([*lines, *notes])


def _size(scores: Scores) -> str:
    return f"{scores.words:,} words, {scores.sentences:,} sentences, {scores.strict.micro.support:,} entities"


def _wrong_sentences(errors: ErrorCounts) -> str:
    return f"{errors.wrong_sentences:,} of {errors.sentences:,} sentences have at least one"


def _entity_table(entity: EntityScores) -> str:
    rows = [*entity.types, entity.micro, entity.macro]
    return _table([["type", *_COLUMNS], *map(_cells, rows)], rule=len(entity.types) + 1)


def _confusion_table(errors: ErrorCounts) -> str:
    labels: list[str | None] = [*errors.by_type, None]
    rows = [["gold", *(label or "none" for label in labels)]]
    for gold in labels:
        counts = [str(errors.confusion.get((gold, predicted), 0)) for predicted in labels]
        rows.append([gold or "none", *counts])
    rows[-1][-1] = "-"  # no entity on either side: nothing to count
    return _table(rows)


def _error_table(errors: ErrorCounts) -> str:
    rows = [["kind", *errors.by_type, "all"]]
    for kind, count in errors.kinds.items():
        rows.append([kind, *(str(kinds[kind]) for kinds in errors.by_type.values()), str(count)])
    totals = [sum(kinds.values()) for kinds in errors.by_type.values()]
    rows.append(["all", *map(str, totals), str(sum(totals))])
    return _table(rows, rule=len(rows) - 1)


def _cells(row: Row) -> list[str]:
    return [row.name, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", str(row.support)]


def _table(rows: Sequence[Sequence[str]], *, rule: int = 0) -> str:
    """Aligned columns, the first to the left; a rule under the header and before one later row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for index, (first, *others) in enumerate(rows):
        if index in (1, rule) and index:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def _column(word: str) -> str:
    if word == "-X-":
        return "_X_"
    return _BREAKS_COLUMNS.sub("_", word) or "_"


def is_predicted_in(rows: str, sentences: Iterable[Sentence]) -> bool:
    """Whether a text of `conll_rows` is about these sentences, whatever was predicted."""
    words, tags = zip(*((sentence.words, sentence.tags) for sentence in sentences), strict=True)
    return _without_predictions(rows) == _without_predictions(conll_rows(words, tags, tags))


def _without_predictions(rows: str) -> list[str]:
    return [line.rpartition(" ")[0] for line in rows.split("\n")]
# The same as parts of a page.


def _type_chart(scores: Scores) -> Bars:
    rows = scores.strict.types
    return Bars(
        heading="Entity types",
        caption="Exact spans",
        names=tuple(row.name for row in rows),
        values=tuple(row.f1 for row in rows),
        notes=tuple(f"{row.f1:.3f}" for row in rows),
        measure="F1",
        marks={"precision": tuple(row.precision for row in rows), "recall": tuple(row.recall for row in rows)},
        sizes=tuple(f"{row.support:,}" for row in rows),
        sizes_name="entities",
    )


def _confusion_chart(errors: ErrorCounts) -> Matrix:
    labels: list[str | None] = [*errors.by_type, None]
    names = tuple(label or "none" for label in labels)
    return Matrix(
        heading="Confusion matrix",
        caption="Entities paired by overlap; the darker, the larger the part of its row (the gold type)",
        rows=names,
        columns=names,
        counts=tuple(tuple(errors.confusion.get((gold, found), 0) for found in labels) for gold in labels),
        blank=((len(names) - 1, len(names) - 1),),  # no entity on either side
    )


def _kind_chart(errors: ErrorCounts) -> Bars:
    return Bars(
        heading="Kinds of error",
        caption=_wrong_sentences(errors),
        names=tuple(errors.kinds),
        values=tuple(errors.kinds.values()),
        notes=tuple(f"{count:,}" for count in errors.kinds.values()),
        parts={name: tuple(counts[kind] for kind in errors.kinds) for name, counts in errors.by_type.items()},
    )


def _token_part(token: TokenScores) -> Table:
    accuracy = ("accuracy", "", "", f"{token.accuracy:.3f}", f"{token.macro.support:,}")
    rows = [_page_cells(row) for row in (*token.tags, token.macro, token.weighted)]
    return Table("Token level", "One tag per word, O included", ("tag", *_PAGE_COLUMNS), (*rows, accuracy), averages=3)


def _entity_part(entity: EntityScores) -> Table:
    rows = tuple(_page_cells(row) for row in (*entity.types, entity.micro, entity.macro))
    return Table("Entity level", f"Exact spans, {entity.convention}", ("type", *_PAGE_COLUMNS), rows, averages=2)


_PAGE_COLUMNS = ("precision", "recall", "F1", "support")


def _page_cells(row: Row) -> tuple[str, ...]:
    return row.name, f"{row.precision:.3f}", f"{row.recall:.3f}", f"{row.f1:.3f}", f"{row.support:,}"


def _example(row: Mapping[str, Any]) -> Example:
    """A row of ``error_rows``, cut around the errors when it is long."""
    return Example(
        where=f"sentence {row['sentence'] + 1:,}, document {row['document'] + 1:,}",
        kinds=tuple(dict.fromkeys(error["kind"] for error in row["errors"])),
        lines=tuple((side, _segments(row, side)) for side in ("gold", "predicted")),
    )


def _segments(row: Mapping[str, Any], side: str) -> tuple[Segment, ...]:
    """The sentence with the spans of one side as segments of their own."""
    words: list[str] = row["words"]
    wrong = {(error[side]["start"], error[side]["end"]) for error in row["errors"] if error[side]}
    first, last = _window(row)
    segments: list[Segment] = [Segment("… ")] if first else []
    place = first
    for span in row[side]:
        start, end = max(span["start"], first), min(span["end"], last)
        if start >= end:
            continue
        segments.append(Segment("".join(f"{word} " for word in words[place:start])))
        is_wrong = (span["start"], span["end"]) in wrong
        segments += [Segment(" ".join(words[start:end]), span["label"], is_wrong), Segment(" ")]
        place = end
    segments.append(Segment(" ".join([*words[place:last], *(["…"] if last < len(words) else [])])))
    return tuple(segment for segment in segments if segment.text or segment.label)


def _window(row: Mapping[str, Any]) -> tuple[int, int]:
    """First and last (exclusive) word to show."""
    spans = [error[side] for error in row["errors"] for side in ("gold", "predicted") if error[side]]
    first = max(0, min(span["start"] for span in spans) - _CONTEXT_WORDS)
    last = max(span["end"] for span in spans) + _CONTEXT_WORDS
    return first, min(last, first + _MAX_WORDS, len(row["words"]))
