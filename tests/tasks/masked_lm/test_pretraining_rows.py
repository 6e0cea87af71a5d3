"""Rows of word pieces: nothing of the corpus is lost, and pairs are what their label says."""

import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from app.tasks.masked_lm.rows import NO_PAIR, RowFormat, encode_blocks, make_rows
from app.text.word_pieces import WordPieces

LETTERS = [f"{mark}{letter}" for letter in "abcdefghij" for mark in ("", "##")]
PIECES = WordPieces([*toy.SPECIAL, *LETTERS, "[", "]", "CLS"], lowercase=False)
FIRST = 2_000  # pieces of numbered documents, far from the vocabulary


def lines_of(documents):
    for document in documents:
        yield from document
        yield None


def rows_of(documents, row_format, *, block_characters=2**21, seed=0):
    blocks = encode_blocks(lines_of(documents), PIECES, block_characters=block_characters)
    return list(make_rows(blocks, row_format, pieces=PIECES, random=np.random.default_rng(seed)))


def token_rows(*arguments, **options):
    return np.concatenate([rows["token_ids"] for rows in rows_of(*arguments, **options)])


def runs_of(row):
    """The pieces between each [CLS] and its [SEP]; a row is nothing but these, then [PAD]."""
    used = len(np.trim_zeros(row, "b"))
    assert (row[:used] != PIECES.pad_id).all()
    starts, ends = np.flatnonzero(row == PIECES.start_id), np.flatnonzero(row == PIECES.end_id)
    assert starts[0] == 0 and ends[-1] == used - 1 and (starts[1:] == ends[:-1] + 1).all()
    return [row[start + 1 : end].tolist() for start, end in zip(starts, ends, strict=True)]


words = st.text("abcdefghij", min_size=1, max_size=8)
documents_of_words = st.lists(
    st.lists(st.lists(words, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=5), min_size=1, max_size=8
)


@settings(max_examples=100)
@given(documents_of_words, st.integers(8, 24), st.booleans(), st.sampled_from([1, 25, 2**21]))
def test_every_piece_is_in_the_rows_once_and_in_order(documents, max_length, share_rows, block_characters):
    row_format = RowFormat("masked_lm", max_length, share_rows)
    rows = token_rows(documents, row_format, block_characters=block_characters)
    expected = [PIECES.encode(document).ids.tolist() for document in documents]
    left = [list(pieces) for pieces in expected]
    for row in rows:
        runs = runs_of(row)
        assert len(row) == max_length and (share_rows or len(runs) == 1)
        for run in runs:  # of one document each: the next of its pieces
            assert run and run == left[0][: len(run)]
            left[0] = left[0][len(run) :]
            if not left[0]:
                left.pop(0)
    assert not left


@settings(max_examples=40)
@given(documents_of_words, st.integers(8, 24), st.sampled_from([1, 25]))
def test_the_size_of_blocks_shows_in_no_row_of_unshared_documents(documents, max_length, block_characters):
    row_format = RowFormat("masked_lm", max_length)
    whole = token_rows(documents, row_format)
    assert (whole == token_rows(documents, row_format, block_characters=block_characters)).all()


def test_documents_share_rows_each_with_its_own_start_and_end():
    a, b, c = (PIECES.vocabulary.index(letter) for letter in "abc")
    (row,) = token_rows([["a a"], ["b", "b"], ["c c c"]], RowFormat("masked_lm", 16, share_rows=True))
    start, end = PIECES.start_id, PIECES.end_id
    assert row.tolist() == [start, a, a, end, start, b, b, end, start, c, c, c, end, 0, 0, 0]
    alone = token_rows([["a a"], ["b", "b"], ["c c c"]], RowFormat("masked_lm", 16))
    assert len(alone) == 3 and alone[1].tolist() == [start, b, b, end] + [0] * 12


def test_shared_rows_are_nearly_full():
    documents = [["ab cd " * int(size)] for size in np.random.default_rng(0).integers(1, 8, 300)]
    rows = token_rows(documents, RowFormat("masked_lm", 128, share_rows=True))
    assert (rows != PIECES.pad_id).mean() > 0.85


def test_special_pieces_written_in_the_text_are_text():
    rows = token_rows([["a [CLS] b [SEP] [PAD]"]], RowFormat("masked_lm", 32))
    assert len(runs_of(rows[0])) == 1
    assert PIECES.mask_id not in token_rows([["a [MASK] b"]], RowFormat("masked_lm", 32))


class Numbered:
    """Stands for the word pieces: the i-th line of the corpus has the pieces `numbers[i]`."""

    pad_id, start_id, end_id = PIECES.pad_id, PIECES.start_id, PIECES.end_id

    def encode(self, lines):
        from app.text.vocabulary import PieceRows

        numbers = [[int(number) for number in line.split()] for line in lines]
        splits = np.concatenate([[0], np.cumsum([len(line) for line in numbers])])
        return PieceRows(np.concatenate(numbers).astype(np.int32), splits)


def numbered_documents(sizes):
    """Documents whose pieces count up; `document_of[piece - FIRST]` and `first_of_line` say where each belongs."""
    documents, document_of, first_of_line, number = [], [], set(), FIRST
    for i, document in enumerate(sizes):
        lines = []
        for size in document:
            first_of_line.add(number)
            lines.append(" ".join(str(piece) for piece in range(number, number + size)))
            document_of += [i] * size
            number += size
        documents.append(lines)
    return documents, np.array(document_of), first_of_line


def pairs_of(sizes, form, max_length, seed=0):
    """(A, B, label) of each row, after checks of what every row of pairs must be."""
    documents, document_of, first_of_line = numbered_documents(sizes)
    blocks = encode_blocks(lines_of(documents), Numbered())
    random = np.random.default_rng(seed)
    pairs = []
    for rows in make_rows(blocks, RowFormat(form, max_length), pieces=Numbered(), random=random):
        assert {name: values.dtype.name for name, values in rows.items()} == dict.fromkeys(rows, "int32")
        for tokens, segments, label in zip(rows["token_ids"], rows["segment_ids"], rows["pair_label"], strict=True):
            used = len(np.trim_zeros(tokens, "b"))
            ends = np.flatnonzero(tokens == PIECES.end_id)
            assert tokens[0] == PIECES.start_id and len(tokens) == max_length and ends[-1] == used - 1
            assert len(ends) == (1 if label == NO_PAIR else 2)
            assert np.flatnonzero(segments).tolist() == list(range(ends[0] + 1, used))
            first, second = tokens[1 : ends[0]], tokens[ends[0] + 1 : max(used - 1, ends[0] + 1)]
            assert len(first) and (len(second) > 0) == (label != NO_PAIR)
            for part in (first, second):  # of one document, without a gap
                assert (np.diff(part) == 1).all() and len(set(document_of[part - FIRST])) <= 1
            pairs.append((first, second, int(label)))
    return pairs, document_of, first_of_line


sizes_of_lines = st.lists(st.lists(st.integers(1, 20), min_size=1, max_size=6), min_size=1, max_size=8)


@settings(max_examples=100)
@given(sizes_of_lines, st.integers(8, 32), st.integers(0, 3))
def test_sentence_order_is_kept_or_swapped_and_every_piece_is_there_once(sizes, max_length, seed):
    pairs, document_of, _ = pairs_of(sizes, "sentence_order", max_length, seed)
    seen = []
    for first, second, label in pairs:
        before, after = (second, first) if label == 1 else (first, second)
        assert label == NO_PAIR or before[-1] + 1 == after[0]
        assert label == NO_PAIR or document_of[before[0] - FIRST] == document_of[after[0] - FIRST]
        seen += [*before, *after]
    assert seen == list(range(FIRST, FIRST + len(document_of)))


@settings(max_examples=100)
@given(sizes_of_lines, st.integers(8, 32), st.integers(0, 3))
def test_the_next_sentence_follows_or_is_of_another_document(sizes, max_length, seed):
    pairs, document_of, first_of_line = pairs_of(sizes, "next_sentence", max_length, seed)
    in_order = []
    for first, second, label in pairs:
        in_order += [*first]
        if label == 0:
            assert first[-1] + 1 == second[0]
            assert document_of[first[0] - FIRST] == document_of[second[0] - FIRST]
            in_order += [*second]
        elif label == 1:
            assert document_of[first[0] - FIRST] != document_of[second[0] - FIRST]
            assert second[0] in first_of_line
    # What a false B stood in for is read again: no piece is lost, none is twice where the document is read.
    assert in_order == list(range(FIRST, FIRST + len(document_of)))


def test_a_block_with_a_single_document_has_no_false_pair_and_no_piece_less():
    pairs, document_of, _ = pairs_of([[9, 12, 7, 15] * 20], "next_sentence", 32)
    assert len(pairs) > 20 and all(label in (0, NO_PAIR) for *_, label in pairs)
    seen = [piece for first, second, _ in pairs for piece in (*first, *second)]
    assert seen == list(range(FIRST, FIRST + len(document_of)))


@pytest.mark.parametrize("form", ["next_sentence", "sentence_order"])
def test_half_of_the_pairs_are_of_each_kind_and_split_between_sentences(form):
    sizes = [[9, 12, 7, 15, 11, 8] * 3] * 60
    pairs, _, first_of_line = pairs_of(sizes, form, 64)
    labels = np.array([label for *_, label in pairs if label != NO_PAIR])
    assert len(labels) > 200 and 0.42 < labels.mean() < 0.58
    for first, second, label in pairs:
        before, after = (second, first) if label == 1 and form == "sentence_order" else (first, second)
        read = [*before, *(after if label == 0 or form == "sentence_order" else [])]
        assert label == NO_PAIR or after[0] in first_of_line or first_of_line.isdisjoint(read[1:])


def test_pairs_depend_on_the_seed_alone():
    documents = [["a b c d", "e f g"], ["h i", "j a b"], ["c d e f"]] * 5
    one, same, other = (rows_of(documents, RowFormat("next_sentence", 16), seed=seed)[0] for seed in (1, 1, 2))
    assert all((one[name] == same[name]).all() for name in one)
    assert one["token_ids"].tolist() != other["token_ids"].tolist()


@pytest.mark.parametrize("form", ["next_sentence", "sentence_order"])
def test_a_document_of_one_piece_has_no_pair(form):
    (rows,) = rows_of([["a"], ["b c"]], RowFormat(form, 8))
    assert rows["pair_label"][0] == NO_PAIR and rows["pair_label"][1] != NO_PAIR
    assert not rows["segment_ids"][0].any()
