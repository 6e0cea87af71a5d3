"""Data room: the sentences of documents packed into rows of one fixed length (no TensorFlow).

A document is cut into windows of whole sentences. Each window has a core, whose words are scored here and nowhere else,
and words of context on both sides that are only read. Windows of several documents share a row; a word attends
to words of its own window alone, and positions are counted from its beginning, because every window of a row carries
its own number in `padding_mask`:

    token_ids   [CLS] s1 .. [SEP] s2 .. [SEP] [CLS] t1 .. [SEP] [PAD]
    padding_mask    1   1  1    1   1  1    1     2   2  2    2     0
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

FEATURES = ("token_ids", "shape_ids", "padding_mask")  # what a network reads of a row
IGNORED = -1  # label or word number of a position that is neither learnt from nor scored
OPEN_ROWS = 64  # rows a window may still be added to: bounds memory, and fills rows to about 99 %


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """One document as a stream of pieces, `[SEP]` after each sentence.

    Attributes:
        ids: int32 [pieces]; shapes: int32 [pieces], the word shape of the word a piece belongs to (0 at `[SEP]`).
        starts: int32 [words + 1], where each word begins in `ids`; the `[SEP]` belongs to the last word before it.
        sentence_ends: int32 [sentences], the number of words up to and including each sentence.
        labels: int32 [words], `IGNORED` where unknown.
        inside: bool [words], true where the label continues the entity of the word before.
        first_word: number of the document's first word in its corpus, which makes word numbers global.
    """

    ids: np.ndarray
    shapes: np.ndarray
    starts: np.ndarray
    sentence_ends: np.ndarray
    labels: np.ndarray
    inside: np.ndarray
    first_word: int

    def learnable_labels(self, left: int, right: int) -> np.ndarray:
        """Labels of words [left, right); what continues an entity that begins before `left` is not learnt from.

        Only an entity longer than a window is cut in training, see `cut_windows`.
        """
        labels = self.labels[left:right]
        if not left or left in self.sentence_ends or not self.inside[left]:
            return labels
        begins_outside = np.logical_and.accumulate(self.inside[left:right])
        return np.where(begins_outside, IGNORED, labels)

    def span(self, window: "Window", *, start_id: int) -> "Span":
        """The pieces of a window behind `[CLS]`, with labels and word numbers at the first pieces of its core words."""
        first, last = int(self.starts[window.left]), int(self.starts[window.right])
        size = 1 + last - first
        labels, unit_ids = np.full((2, size), IGNORED, np.int32)
        core = np.arange(window.core_left, window.core_right)
        positions = self.starts[core] - first + 1
        labels[positions] = self.learnable_labels(window.core_left, window.core_right)
        unit_ids[positions] = core + self.first_word
        token_ids = np.concatenate([np.array([start_id], np.int32), self.ids[first:last]])
        shape_ids = np.concatenate([np.zeros(1, np.int32), self.shapes[first:last]])
        return Span(token_ids, shape_ids, labels, unit_ids)


@dataclass(frozen=True, slots=True)
class Window:
    """Words [left, right) of a document are read, words [core_left, core_right) are scored."""

    left: int
    core_left: int
    core_right: int
    right: int


@dataclass(frozen=True, slots=True)
class Example:
    """One row. All arrays are int32 [max_length].

    Attributes:
        token_ids: piece ids, `[PAD]` at the end.
        shape_ids: word shape of each piece, 0 at special pieces.
        padding_mask: 1, 2, ... for the windows of the row, 0 for padding; a piece attends to its own window.
        labels: label id at each piece that a label sits at, else `IGNORED`.
        unit_ids: number of what is labelled (a word, a text) in its corpus at these pieces, else `IGNORED`.
    """

    token_ids: np.ndarray
    shape_ids: np.ndarray
    padding_mask: np.ndarray
    labels: np.ndarray
    unit_ids: np.ndarray


def cut_windows(
    document: EncodedDocument, *, capacity: int, context: int, whole_entities: bool = False
) -> list[Window]:
    """Cuts a document into windows whose cores cover every word exactly once.

    Args:
        document: its pieces and sentence ends.
        capacity: pieces a window may hold, `[CLS]` not counted.
        context: pieces kept free for words before and after the core, half on each side; a window at an end of the
            document, or with a small core, reads more of the other side.
        whole_entities: cut a long sentence between entities where it can be, so that all labels are learnt from. For
            training only: where a text is cut to be scored must not depend on its labels.
    """
    cores: list[tuple[int, int]] = []
    core_left = core_right = 0
    for left, right in _units(document, limit=capacity - context, whole_entities=whole_entities):
        whole = document.starts[right] - document.starts[core_left]
        at_an_end = core_left == 0 or right == len(document.starts) - 1
        room = capacity - (context // 2 if at_an_end else context)
        if core_left == 0 and right == len(document.starts) - 1:
            room = capacity
        if core_right > core_left and whole > room:
            cores.append((core_left, core_right))
            core_left = left
        core_right = right
    if core_right > core_left:
        cores.append((core_left, core_right))
    if not context:
        return [Window(left, left, right, right) for left, right in cores]
    return [_widened(document.starts, left, right, capacity=capacity) for left, right in cores]


def _units(document: EncodedDocument, *, limit: int, whole_entities: bool) -> Iterator[tuple[int, int]]:
    """Sentences, and sentences longer than `limit` pieces in runs of words that fit."""
    starts, left = document.starts, 0
    for end in document.sentence_ends.tolist():
        while starts[end] - starts[left] > limit:
            right = int(np.searchsorted(starts, starts[left] + limit, side="right")) - 1
            right = max(right, left + 1)
            if whole_entities:
                between = np.flatnonzero(~document.inside[left + 1 : right + 1])
                right = left + 1 + int(between[-1]) if between.size else right
            yield left, right
            left = right
        if end > left:
            yield left, end
        left = end


def _widened(starts: np.ndarray, left: int, right: int, *, capacity: int) -> Window:
    """Adds context to a core: the same number of pieces on both sides, what one side cannot use goes to the other."""
    spare = capacity - int(starts[right] - starts[left])
    before, after = int(starts[left]), int(starts[-1] - starts[right])
    take_before = min(before, max(spare // 2, spare - after))
    outer_left = int(np.searchsorted(starts, starts[left] - take_before, side="left"))
    take_after = spare - int(starts[left] - starts[outer_left])
    outer_right = int(np.searchsorted(starts, starts[right] + take_after, side="right")) - 1
    return Window(outer_left, left, right, outer_right)


@dataclass(frozen=True, slots=True)
class Span:
    """The pieces of one window, ready to be put into a row: int32 [pieces] each, `[CLS]` first.

    Attributes:
        token_ids: piece ids.
        shape_ids: word shape of each piece, 0 at special pieces.
        labels: label id at the pieces that a label sits at, else `IGNORED`.
        unit_ids: number of what is labelled (a word, a text) in its corpus at these pieces, else `IGNORED`.
    """

    token_ids: np.ndarray
    shape_ids: np.ndarray
    labels: np.ndarray
    unit_ids: np.ndarray


class _Row:
    """A row under construction."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.used = 0

    def add(self, span: Span) -> None:
        self.spans.append(span)
        self.used += len(span.token_ids)

    def example(self, *, max_length: int, pad_id: int) -> Example:
        token_ids = np.full(max_length, pad_id, np.int32)
        shape_ids, padding_mask = np.zeros((2, max_length), np.int32)
        labels, unit_ids = np.full((2, max_length), IGNORED, np.int32)
        at = 0
        for number, span in enumerate(self.spans, start=1):
            end = at + len(span.token_ids)
            token_ids[at:end], shape_ids[at:end] = span.token_ids, span.shape_ids
            labels[at:end], unit_ids[at:end] = span.labels, span.unit_ids
            padding_mask[at:end] = number
            at = end
        return Example(token_ids, shape_ids, padding_mask, labels, unit_ids)


def fill_rows(spans: Iterable[Span], *, max_length: int, share_rows: bool, pad_id: int) -> Iterator[Example]:
    """Puts windows into rows; the memory it needs does not depend on their number.

    Args:
        spans: in corpus order, each of at most `max_length` pieces.
        max_length: pieces in a row.
        share_rows: put several windows into one row (training). Off, each row holds one.
        pad_id: id of `[PAD]`.

    Yields:
        Examples in an order that depends on the windows alone.
    """
    finish = {"max_length": max_length, "pad_id": pad_id}
    rows: list[_Row] = []
    for span in spans:
        size = len(span.token_ids)
        # Best fit: the row that this window fills most, so that few rows stay half empty.
        fitting = [row for row in rows if row.used + size <= max_length]
        row = max(fitting, key=lambda row: row.used, default=None) if share_rows else None
        if row is None:
            row = _Row()
            rows.append(row)
        row.add(span)
        if row.used > max_length - 4 or not share_rows:
            rows.remove(row)
            yield row.example(**finish)
        elif len(rows) > OPEN_ROWS:
            fullest = max(rows, key=lambda row: row.used)
            rows.remove(fullest)
            yield fullest.example(**finish)
    for row in rows:
        yield row.example(**finish)


def pack(
    documents: Iterable[EncodedDocument],
    *,
    max_length: int,
    context: int,
    share_rows: bool,
    start_id: int,
    pad_id: int,
) -> Iterator[Example]:
    """Packs documents whose words are labelled into rows, see `fill_rows`.

    Args:
        documents: in corpus order.
        max_length: pieces in a row, `[CLS]` and `[SEP]` included.
        context: see `cut_windows`; 0 for training, where every piece should teach.
        share_rows: put windows of several documents into one row (training). Off, each row holds one window.
        start_id: id of `[CLS]`.
        pad_id: id of `[PAD]`.
    """
    spans = (
        document.span(window, start_id=start_id)
        for document in documents
        for window in cut_windows(document, capacity=max_length - 1, context=context, whole_entities=share_rows)
    )
    return fill_rows(spans, max_length=max_length, share_rows=share_rows, pad_id=pad_id)


def encode_document(
    words_per_sentence: Sequence[int],
    piece_ids: np.ndarray,
    piece_splits: np.ndarray,
    shapes: np.ndarray,
    labels: np.ndarray,
    inside: np.ndarray,
    *,
    end_id: int,
    first_word: int,
    max_pieces_per_word: int,
) -> EncodedDocument:
    """Joins the words of a document into one stream, `[SEP]` after each sentence.

    Args:
        words_per_sentence: number of words of each sentence, all positive.
        piece_ids: int32 [pieces], of all words of the document one after the other.
        piece_splits: int64 [words + 1] into `piece_ids`.
        shapes: int32 [words].
        labels: int32 [words].
        inside: bool [words], see `EncodedDocument`.
        end_id: id of `[SEP]`.
        first_word: number of the first word in the corpus.
        max_pieces_per_word: pieces kept of a word; the rest of a very long word is dropped, its first piece,
            which carries the label, never is.
    """
    lengths = np.diff(piece_splits)
    kept = np.minimum(lengths, max_pieces_per_word)
    if (kept != lengths).any():
        places = np.arange(len(piece_ids)) - np.repeat(piece_splits[:-1], lengths)  # of each piece in its word
        piece_ids = piece_ids[places < max_pieces_per_word]
    sentence_ends = np.cumsum(words_per_sentence).astype(np.int32)
    sizes = kept.copy()
    sizes[sentence_ends - 1] += 1
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    ids = np.full(starts[-1], end_id, np.int32)
    ends = np.zeros(starts[-1], bool)
    ends[starts[sentence_ends] - 1] = True
    ids[~ends] = piece_ids
    spread = np.repeat(shapes, sizes).astype(np.int32)
    spread[ends] = 0
    return EncodedDocument(ids, spread, starts, sentence_ends, labels.astype(np.int32), inside, first_word)
