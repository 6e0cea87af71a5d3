"""Plain-text reports: ``report.txt`` and the CoNLL columns of ``predictions/SPLIT.conll``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from app.data.sentence import Sentence
from app.tasks.tagging.errors import ErrorCounts
from app.tasks.tagging.scores import EntityScores, Row, Scores, TokenScores, check_tags, check_words

# Whatever would break a column or a line, and lone surrogates, which UTF-8 cannot hold.
_BREAKS_COLUMNS = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def text_report(scores: Scores, errors: ErrorCounts, *, title: str, notes: Sequence[str] = ()) -> str:
    """The whole of ``report.txt``: headline, tags, entities, confusion and error kinds.

    Args:
        scores: from ``compute_scores``.
        errors: from ``count_errors`` on the same tags.
        title: first line, for example the run and the split.
        notes: further lines under the headline.
    """
    wrong = f"{errors.wrong_sentences:,} of {errors.sentences:,} sentences have at least one"
    blocks = [
        _headline(scores, title, notes),
        f"Token level (one tag per word, O included)\n\n{token_table(scores.token)}",
        *(
            f"Entity level (exact spans, {entity.convention})\n\n{_entity_table(entity)}"
            for entity in (scores.strict, scores.conlleval)
        ),
        f"Entity types, gold in rows, predicted in columns, paired by overlap\n\n{_confusion_table(errors)}",
        f"Errors ({wrong})\n\n{_error_table(errors)}",
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
        f"{scores.words:,} words, {scores.sentences:,} sentences, {micro.support:,} entities",
    ]
    if scores.stray_inside:
        lines.append(
            f"{scores.stray_inside:,} predicted I- tags continue no entity: "
            "strict mode leaves them out, conlleval lets them start one"
        )
    return "\n".join([*lines, *notes])


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
