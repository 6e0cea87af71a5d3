"""report.txt and the CoNLL columns."""

import pytest

from app.tasks.report import Segment
from app.tasks.tagging.report import build_report, conll_rows, text_report, token_table
from app.tasks.tagging.scores import Row, TokenScores, compute_scores, count_errors, error_rows

GOLD = [["B-PER", "I-PER", "O", "B-ORG"], ["B-LOC", "O", "O"]]
PREDICTED = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "O", "B-MISC"]]


def report(**changes):
    arguments = {"title": "runs/one, test split", "notes": ["a note"], **changes}
    return text_report(compute_scores(GOLD, PREDICTED), count_errors(GOLD, PREDICTED), **arguments)


def test_the_token_table_has_the_founding_documents_layout():
    table = token_table(
        TokenScores(
            tags=(Row("B-LOC", 0.926, 0.906, 0.916, 1668), Row("O", 0.993, 0.995, 0.994, 38323)),
            macro=Row("macro avg", 0.923, 0.897, 0.909, 46435),
            weighted=Row("weighted avg", 0.973, 0.973, 0.973, 46435),
            accuracy=0.973,
        )
    )
    rows = [line.split() for line in table.splitlines() if not line.startswith("-")]

    assert rows == [
        ["tag", "precision", "recall", "f1", "support"],
        ["B-LOC", "0.926", "0.906", "0.916", "1668"],
        ["O", "0.993", "0.995", "0.994", "38323"],
        ["macro", "avg", "0.923", "0.897", "0.909", "46435"],
        ["weighted", "avg", "0.973", "0.973", "0.973", "46435"],
        ["accuracy", "0.973", "46435"],
    ]
    assert len({len(line) for line in table.splitlines()}) == 1  # columns are aligned


def test_the_report_opens_with_the_entity_f1_and_names_both_conventions():
    lines = report().splitlines()

    assert lines[0] == "runs/one, test split"
    assert lines[2].startswith(
        "entity F1 0.3333 (precision 0.3333, recall 0.3333; exact spans, seqeval strict"
    )
    assert "conlleval F1 0.3333" in lines[2]
    assert "7 words, 2 sentences, 3 entities" in lines
    assert "a note" in lines


def test_the_token_level_comes_before_the_entity_level():
    text = report()
    places = [text.index(part) for part in ("Token level", "Entity level", "Entity types", "Errors (2 of 2")]

    assert places == sorted(places)


def test_confusion_has_a_row_and_a_column_for_no_entity():
    lines = [line.split() for line in report().splitlines()]
    start = lines.index(["gold", "LOC", "MISC", "ORG", "PER", "none"])

    assert lines[start + 2 : start + 7] == [
        ["LOC", "0", "0", "0", "0", "1"],
        ["MISC", "0", "0", "0", "0", "0"],
        ["ORG", "1", "0", "0", "0", "0"],
        ["PER", "0", "0", "0", "1", "0"],
        ["none", "0", "1", "0", "0", "-"],
    ]


def test_stray_inside_tags_are_explained():
    gold, predicted = [["B-PER", "O"]], [["I-PER", "O"]]
    text = text_report(compute_scores(gold, predicted), count_errors(gold, predicted), title="t", notes=[])

    assert "1 predicted I- tags continue no entity" in text
    assert "continue no entity" not in report()


def test_a_split_without_entities_can_be_reported():
    tags = [["O", "O"]]

    assert "entity F1 0.0000" in text_report(compute_scores(tags, tags), count_errors(tags, tags), title="t")


def test_conll_rows_are_word_gold_predicted_with_a_blank_line_after_each_sentence():
    words = [["Ada", "wrote"], ["London"]]
    gold, predicted = [["B-PER", "O"], ["B-LOC"]], [["B-PER", "O"], ["O"]]

    assert conll_rows(words, gold, predicted) == "Ada B-PER B-PER\nwrote O O\n\nLondon B-LOC O\n\n"


@pytest.mark.parametrize(
    "word", ["New York", "a\tb", "", "\u00a0", "a\u2028b", "nul\x00", "-X-", "\ud800", "🙂"]
)
def test_no_word_can_break_a_column_or_get_lost(word):
    text = conll_rows([[word, "next"]], [["B-X", "O"]], [["O", "O"]])

    lines = text.encode("utf-8").decode("utf-8").splitlines()
    assert len(lines) == 3
    first = lines[0].split()
    assert first[1:] == ["B-X", "O"]
    assert first[0] != "-X-"  # conlleval's sentence boundary


def test_words_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="2 words in 1 sentences and 1 tags in 1 sentences"):
        conll_rows([["a", "b"]], [["O"]], [["O"]])


def test_the_parts_of_the_report_show_the_numbers_of_its_text():
    scores, counts = compute_scores(GOLD, PREDICTED), count_errors(GOLD, PREDICTED)
    words = [["Ada", "Lovelace", "met", "IBM"], ["Rome", "is", "big"]]
    built = build_report(scores, counts, list(error_rows(words, GOLD, PREDICTED, [0, 1])), title="t", notes=["a note"])
    types, confusion, kinds = built.charts

    assert built.text == text_report(scores, counts, title="t", notes=["a note"]) and built.size in built.text
    assert built.tiles[0] == ("entity F1", "0.3333")
    assert types.names == ("LOC", "MISC", "ORG", "PER") and types.marks["recall"] == (0, 0, 0, 1)
    assert types.notes[-1] == "1.000" and types.sizes == ("1", "0", "1", "1")
    assert confusion.rows == confusion.columns == (*types.names, "none") and confusion.blank == ((4, 4),)
    assert confusion.counts[2] == (1, 0, 0, 0, 0)  # the ORG is taken for a LOC
    assert dict(zip(kinds.names, kinds.values, strict=True)) == counts.kinds
    assert [sum(parts) for parts in zip(*kinds.parts.values(), strict=True)] == list(kinds.values)
    assert [table.rows[-table.averages][0] for table in built.tables] == ["macro avg", "micro avg", "micro avg"]
    assert built.examples[0].where == "sentence 1, document 1" and built.examples[0].kinds == ("wrong type",)
    before = (Segment("Ada Lovelace", "PER"), Segment(" "), Segment("met "))
    assert built.examples[0].lines == (
        ("gold", (*before, Segment("IBM", "ORG", wrong=True), Segment(" "))),
        ("predicted", (*before, Segment("IBM", "LOC", wrong=True), Segment(" "))),
    )
