"""Packing: windows cover every word exactly once, whatever the documents look like."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.data.packing import IGNORED, EncodedDocument, cut_windows, encode_document, pack

START, END, PAD = 101, 102, 0


def make_document(sentences: list[list[int]], *, first_word: int = 0, inside=None) -> EncodedDocument:
    """A document from the numbers of pieces of its words; word i consists of pieces 1000 + i, its label is i."""
    sizes = [size for sentence in sentences for size in sentence]
    ids = np.repeat(np.arange(len(sizes)) + 1000 + first_word, sizes).astype(np.int32)
    return encode_document(
        [len(sentence) for sentence in sentences],
        ids,
        np.concatenate([[0], np.cumsum(sizes)]),
        np.arange(1, len(sizes) + 1, dtype=np.int32),
        np.arange(len(sizes), dtype=np.int32),
        np.array(inside if inside is not None else [False] * len(sizes)),
        end_id=END,
        first_word=first_word,
        max_pieces_per_word=4,
    )


def pack_all(documents, **settings_):
    defaults = {"max_length": 24, "context": 0, "share_rows": True, "start_id": START, "pad_id": PAD}
    return list(pack(documents, **{**defaults, **settings_}))


documents_of_sizes = st.lists(
    st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=30), min_size=1, max_size=6), min_size=1, max_size=8
)


def numbered(document_sizes):
    documents, first_word = [], 0
    for sentences in document_sizes:
        documents.append(make_document(sentences, first_word=first_word))
        first_word += sum(map(len, sentences))
    return documents, first_word


@settings(max_examples=120, deadline=None)
@given(documents_of_sizes, st.integers(16, 48), st.integers(0, 8), st.booleans())
def test_every_word_is_scored_exactly_once_with_its_own_pieces(sizes, max_length, context, share_rows):
    documents, words = numbered(sizes)
    rows = pack_all(documents, max_length=max_length, context=context, share_rows=share_rows)
    scored = np.concatenate([row.unit_ids[row.unit_ids != IGNORED] for row in rows])
    assert sorted(scored) == list(range(words))
    for row in rows:
        at = row.unit_ids != IGNORED
        assert (row.token_ids[at] == row.unit_ids[at] + 1000).all()
        assert (row.token_ids[row.padding_mask == 0] == PAD).all()


@settings(max_examples=60, deadline=None)
@given(documents_of_sizes, st.integers(16, 48), st.integers(0, 8))
def test_unshared_rows_read_in_order_give_the_words_in_order(sizes, max_length, context):
    documents, words = numbered(sizes)
    rows = pack_all(documents, max_length=max_length, context=context, share_rows=False)
    scored = np.concatenate([row.unit_ids[row.unit_ids != IGNORED] for row in rows])
    assert scored.tolist() == list(range(words))
    assert all(row.padding_mask.max() == 1 for row in rows)


def test_sentences_of_a_document_share_a_window_and_documents_do_not():
    documents, _ = numbered([[[1, 1], [2]], [[1, 1, 1]]])
    (row,) = pack_all(documents)
    assert row.token_ids[:12].tolist() == [START, 1000, 1001, END, 1002, 1002, END, START, 1003, 1004, 1005, END]
    assert row.padding_mask[:13].tolist() == [1] * 7 + [2] * 5 + [0]
    assert row.labels[:7].tolist() == [-1, 0, 1, -1, 2, -1, -1]


def test_only_the_first_piece_of_a_word_carries_its_label():
    (row,) = pack_all([make_document([[3, 2]])])
    assert np.flatnonzero(row.labels != IGNORED).tolist() == [1, 4]
    assert row.shape_ids[:8].tolist() == [0, 1, 1, 1, 2, 2, 0, 0]


def test_a_scored_word_in_the_middle_of_a_long_document_has_context_on_both_sides():
    document = make_document([[1] * 9] * 20)
    for window in cut_windows(document, capacity=47, context=16):
        before = document.starts[window.core_left] - document.starts[window.left]
        after = document.starts[window.right] - document.starts[window.core_right]
        assert before >= 7 or window.left == 0
        assert after >= 7 or window.right == 180
        assert document.starts[window.right] - document.starts[window.left] <= 47


def test_a_sentence_longer_than_a_window_is_cut_between_words():
    document = make_document([[2] * 100])
    windows = cut_windows(document, capacity=30, context=10)
    assert [w.core_left for w in windows][1:] == [w.core_right for w in windows][:-1]
    assert windows[0].core_left == 0 and windows[-1].core_right == 100


def test_a_window_that_begins_inside_an_entity_does_not_learn_from_its_rest():
    document = make_document([[1] * 12], inside=[False] + [True] * 9 + [False, True])
    rows = pack_all([document], max_length=8)
    learnt = [row.labels[row.unit_ids != IGNORED].tolist() for row in rows]
    assert learnt == [[0, 1, 2, 3, 4, 5, 6], [-1, -1, -1, 10, 11]]


@st.composite
def hostile_documents(draw):
    """Sentences of words with up to 9 pieces (4 are kept), and which words continue an entity of the word before."""
    sentences = draw(
        st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=40), min_size=1, max_size=4)
    )
    inside = [draw(st.booleans()) and i > 0 for sentence in sentences for i in range(len(sentence))]
    return sentences, inside


@settings(max_examples=200, deadline=None)
@given(st.lists(hostile_documents(), min_size=1, max_size=4), st.integers(16, 40))
def test_every_label_is_learnt_except_the_ends_of_entities_longer_than_a_row(documents, max_length):
    made, first_word = [], 0
    for sentences, inside in documents:
        made.append(make_document(sentences, first_word=first_word, inside=inside))
        first_word += len(inside)
    rows = pack_all(made, max_length=max_length)
    learnt = {int(word) for row in rows for word in row.unit_ids[row.labels != IGNORED]}
    for document, (_, inside) in zip(made, documents, strict=True):
        begins = [word for word, goes_on in enumerate(inside) if not goes_on]
        for first, after in zip(begins, [*begins[1:], len(inside)], strict=True):
            words = range(document.first_word + first, document.first_word + after)
            if document.starts[after] - document.starts[first] <= max_length - 1:
                assert learnt.issuperset(words)
            else:
                assert words[0] in learnt


def test_where_a_text_is_cut_to_be_scored_does_not_depend_on_its_labels():
    sizes, inside = [[2] * 100], [False] + [True] * 60 + [False] * 39
    cuts = [
        cut_windows(make_document(sizes, inside=labels), capacity=30, context=context)
        for labels in (inside, None) for context in (0, 10)
    ]
    assert cuts[0] == cuts[2] and cuts[1] == cuts[3]


def test_a_sentence_that_begins_a_window_keeps_its_first_label():
    document = make_document([[1] * 5, [1] * 5], inside=[False] * 10)
    assert all((row.labels != IGNORED).sum() == 5 for row in pack_all([document], max_length=8, share_rows=False))


def test_a_document_that_fits_is_one_window():
    assert len(cut_windows(make_document([[1] * 10, [1] * 10]), capacity=23, context=12)) == 1


def test_a_word_of_many_pieces_keeps_its_first_ones():
    document = make_document([[1, 6, 1]])
    assert document.ids.tolist() == [1000, 1001, 1001, 1001, 1001, 1002, END]


def test_rows_are_nearly_full_when_documents_share_them():
    sizes = np.random.default_rng(0).integers(3, 60, size=400)
    documents, _ = numbered([[[1] * int(size)] for size in sizes])
    rows = pack_all(documents, max_length=128)
    assert np.mean([np.count_nonzero(row.padding_mask) / 128 for row in rows]) > 0.95


def test_packing_holds_few_rows_however_many_documents_come():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield make_document([[1] * 20])

    rows = pack(endless(), max_length=64, context=0, share_rows=True, start_id=START, pad_id=PAD)
    for _ in range(50):
        next(rows)
    assert taken < 400
