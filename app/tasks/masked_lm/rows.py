"""Tasks room: lines of documents to rows of word pieces, for masked-language-model pretraining.

Three forms of a row, all of one fixed length:

    masked_lm        [CLS] pieces .. [SEP] [PAD]    the next pieces of a document
    next_sentence    [CLS] A [SEP] B [SEP] [PAD]    label 0: B follows A, 1: B is from another document (BERT)
    sentence_order   [CLS] A [SEP] B [SEP] [PAD]    label 0: in order, 1: swapped (ALBERT, Lan et al. 2020)

Sentences (lines) of a document are joined and cut where a row is full. Pieces of two documents never share a row,
except with `share_rows`, where each gets its own `[CLS] .. [SEP]`, and in the false pairs of next_sentence.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from app.text.word_pieces import WordPieces

FORMS = ("masked_lm", "next_sentence", "sentence_order")
NO_PAIR = -1  # pair label of a row without a second segment
BLOCK_CHARACTERS = 2**21  # text tokenized at a time; also what rows are shuffled in, and false pairs are drawn from
Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class PieceBlock:
    """Some documents as one stream of pieces.

    Attributes:
        ids: int32 [pieces].
        sentence_starts: int64 [sentences + 1] into `ids`.
        document_starts: int64 [documents + 1] into `ids`; no document is empty.
        continues: whether the last document goes on in the next block.
    """

    ids: np.ndarray
    sentence_starts: np.ndarray
    document_starts: np.ndarray
    continues: bool


@dataclass(frozen=True)
class RowFormat:
    """What rows look like.

    Attributes:
        form: one of `FORMS`.
        max_length: pieces in a row, `[CLS]` and `[SEP]` included.
        share_rows: masked_lm: fill rows with several documents, each with its own `[CLS]` and `[SEP]`.
    """

    form: str = "masked_lm"
    max_length: int = 128
    share_rows: bool = False


def encode_blocks(
    lines: Iterable[str | None], pieces: WordPieces, *, block_characters: int = BLOCK_CHARACTERS
) -> Iterator[PieceBlock]:
    """Tokenizes lines block by block; None ends a document (see `read_unit`)."""
    block: list[str] = []
    ends: list[int] = []  # lines up to the end of each document
    characters = 0
    for line in lines:
        if line is None:
            if len(block) > (ends[-1] if ends else 0):
                ends.append(len(block))
            continue
        if characters >= block_characters:
            yield _encode(block, ends, pieces)
            block, ends, characters = [], [], 0
        block.append(line)
        characters += len(line)
    if block:
        yield _encode(block, [*ends, len(block)] if len(block) > (ends[-1] if ends else 0) else ends, pieces)


def _encode(lines: list[str], ends: list[int], pieces: WordPieces) -> PieceBlock:
    rows = pieces.encode(lines)
    continues = not ends or ends[-1] < len(lines)
    documents = [0, *ends, len(lines)] if continues else [0, *ends]
    return PieceBlock(rows.ids, rows.splits, rows.splits[documents], continues)


def make_rows(
    blocks: Iterable[PieceBlock], row_format: RowFormat, *, pieces: WordPieces, random: np.random.Generator
) -> Iterator[Rows]:
    """Rows of one block after the other, in corpus order.

    Args:
        blocks: of one unit.
        row_format: form and length.
        pieces: for the ids of the special pieces.
        random: draws the pairs.

    Yields:
        token_ids int32 [rows, length]; with a pair form also segment_ids int32 [rows, length] (0, and 1 for B with its
        `[SEP]`) and pair_label int32 [rows]. A document cut by the end of a block goes on in its last row with
        masked_lm; with a pair form its parts are treated as two documents.
    """
    if row_format.form == "masked_lm":
        return _masked_lm_rows(blocks, row_format, pieces)
    return (_PairMaker(block, row_format, pieces, random).rows() for block in blocks)


def _masked_lm_rows(blocks: Iterable[PieceBlock], row_format: RowFormat, pieces: WordPieces) -> Iterator[Rows]:
    carried = np.zeros(0, np.int32)  # the last pieces of a document that goes on, too few for a row
    for block in blocks:
        ids = np.concatenate([carried, block.ids])
        sizes = np.diff(block.document_starts)
        sizes[0] += len(carried)
        kept = int(sizes[-1]) % (row_format.max_length - 2) if block.continues else 0
        sizes[-1] -= kept
        ids, carried = ids[: len(ids) - kept], ids[len(ids) - kept :]
        if len(ids):
            yield {"token_ids": _filled(ids, sizes[sizes > 0], row_format, pieces)}


def _filled(ids: np.ndarray, sizes: np.ndarray, row_format: RowFormat, pieces: WordPieces) -> np.ndarray:
    """Runs of at most length - 2 pieces of each document, in order, as rows int32 [rows, length]."""
    length = row_format.max_length
    capacity = length - 2
    runs = -(-sizes // capacity)  # of each document
    run_sizes = np.full(runs.sum(), capacity)
    run_sizes[np.cumsum(runs) - 1] = sizes - (runs - 1) * capacity
    starts = _shared_starts(run_sizes, length) if row_format.share_rows else np.arange(len(run_sizes)) * length
    tokens = np.full((starts[-1] // length + 1) * length, pieces.pad_id, np.int32)
    tokens[starts] = pieces.start_id
    tokens[starts + 1 + run_sizes] = pieces.end_id
    shifts = starts + 1 - (np.cumsum(run_sizes) - run_sizes)
    tokens[np.arange(len(ids)) + np.repeat(shifts, run_sizes)] = ids
    return tokens.reshape(-1, length)


def _shared_starts(run_sizes: np.ndarray, length: int) -> np.ndarray:
    """Where each run begins when it joins the row of the run before it if there is room."""
    starts, row, used = [], -1, length
    for size in run_sizes.tolist():
        if used + size + 2 > length:
            row, used = row + 1, 0
        starts.append(row * length + used)
        used += size + 2
    return np.array(starts)


class _PairMaker:
    """The pairs of one block."""

    def __init__(
        self, block: PieceBlock, row_format: RowFormat, pieces: WordPieces, random: np.random.Generator
    ) -> None:
        self.block = block
        self.draw_others = row_format.form == "next_sentence" and len(block.document_starts) > 2
        self.swap = row_format.form == "sentence_order"
        self.length = row_format.max_length
        self.pieces = pieces
        self.random = random

    def rows(self) -> Rows:
        tokens, segments, labels = [], [], []
        for document in range(len(self.block.document_starts) - 1):
            for first, second, label in self._pairs(document):
                row, segment = self._row(first, second)
                tokens.append(row)
                segments.append(segment)
                labels.append(label)
        return {
            "token_ids": np.stack(tokens),
            "segment_ids": np.stack(segments),
            "pair_label": np.array(labels, np.int32),
        }

    def _pairs(self, document: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        ids = self.block.ids
        at, end = (int(border) for border in self.block.document_starts[document : document + 2])
        while at < end:
            right = min(at + self.length - 3, end)
            if right - at < 2:
                yield ids[at:right], ids[:0], NO_PAIR
                return
            middle = self._split(at, right)
            first, second = ids[at:middle], ids[middle:right]
            other = self.random.random() < 0.5
            if other and self.draw_others:
                yield first, self._segment_of_another(document, self.length - 3 - len(first)), 1
                at = middle  # what was to be B is read again, as in BERT
                continue
            yield (second, first, 1) if other and self.swap else (first, second, 0)
            at = right

    def _split(self, left: int, right: int) -> int:
        """A sentence border within (left, right); without one, a place in the middle half."""
        starts = self.block.sentence_starts
        low, high = np.searchsorted(starts, left, side="right"), np.searchsorted(starts, right)
        if low < high:
            return int(starts[self.random.integers(low, high)])
        quarter = (right - left) // 4
        return left + int(self.random.integers(max(1, quarter), max(2, right - left - quarter)))

    def _segment_of_another(self, document: int, room: int) -> np.ndarray:
        """Up to `room` pieces of another document, from a sentence on."""
        documents, starts = self.block.document_starts, self.block.sentence_starts
        other = int(self.random.integers(len(documents) - 2))
        other += other >= document
        low, high = np.searchsorted(starts, documents[other : other + 2])
        start = int(starts[self.random.integers(low, high)])
        return self.block.ids[start : min(start + room, int(documents[other + 1]))]

    def _row(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.full(self.length, self.pieces.pad_id, np.int32)
        segments = np.zeros(self.length, np.int32)
        middle = len(first) + 2
        tokens[0], tokens[middle - 1] = self.pieces.start_id, self.pieces.end_id
        tokens[1 : middle - 1] = first
        if len(second):
            end = middle + len(second)
            tokens[middle:end] = second
            tokens[end] = self.pieces.end_id
            segments[middle : end + 1] = 1
        return tokens, segments
