"""Tasks room: whole texts to rows in which the `[CLS]` that opens each text, or each window of a long one, is labelled.

Imports no TensorFlow.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from app.data.encoding import Encoder
from app.data.packing import IGNORED, EncodedDocument, Example, Span, cut_windows, encode_document, fill_rows
from app.run.screen import say
from app.text.words import split_words

MOST_EXTRA = 0.05  # of what is learnt, that long texts may have beyond their share without a word about it
TEXTS_PER_CALL = 1024  # texts cut into word pieces by one call


def spell_words(text: str) -> list[str]:
    """The words of a text, as word pieces are made of them."""
    return [text[word.start : word.end] for word in split_words(text)]


@dataclass(frozen=True)
class WholeTextEncoder(Encoder):
    """Texts to rows. A text longer than a row is cut into windows; none of its words is left out."""

    def texts_in(self, example: Any) -> Sequence[str]:
        """The text of an example, or the two of a pair."""
        raise NotImplementedError

    def label_of(self, example: Any) -> int:
        """What the `[CLS]` of an example is labelled with in its row; `IGNORED` if it has no label."""
        raise NotImplementedError

    def training_rows(self, examples: Iterable[Any]) -> Iterator[Example]:
        """Rows to learn from: many texts share a row, each a window of its own; no piece is read twice.

        Each window is learnt from like a text of its own, so a text longer than a row counts as often as it has
        windows; where that is much, it is said when the rows end.

        Raises:
            AssertionError: a text with a label is in no row.
        """
        expected: set[int] = set()
        long: set[int] = set()
        texts = windows = 0

        def remembered() -> Iterator[Any]:
            nonlocal texts
            for number, example in enumerate(examples):
                if self.label_of(example) != IGNORED:
                    expected.add(number)
                    texts += 1
                yield example

        for row in fill_rows(
            self._spans(remembered(), context=0), max_length=self.max_length, share_rows=True, pad_id=self.pieces.pad_id
        ):
            for text in row.unit_ids[row.labels != IGNORED].tolist():
                windows += 1
                if text in expected:
                    expected.remove(text)
                else:
                    long.add(text)
            yield row
        if warning := describe_long_texts(texts, long=len(long), windows=windows, max_length=self.max_length):
            _say_once(warning)
        if expected:
            raise AssertionError(f"{len(expected):,} labelled texts are in no row, the first is {min(expected) + 1}")

    def scoring_rows(self, examples: Iterable[Any]) -> Iterator[Example]:
        spans = self._spans(examples, context=self.overlap)
        return fill_rows(spans, max_length=self.max_length, share_rows=False, pad_id=self.pieces.pad_id)

    def _spans(self, examples: Iterable[Any], *, context: int) -> Iterator[Span]:
        stream, first = iter(examples), 0
        while group := list(islice(stream, TEXTS_PER_CALL)):
            for number, (example, document) in enumerate(zip(group, self._encode(group), strict=True), start=first):
                label = self.label_of(example)
                if document is None:  # a text without a word: `[CLS]` and `[SEP]` alone
                    yield self._span(np.array([self.pieces.end_id], np.int32), np.zeros(1, np.int32), label, number)
                    continue
                for window in cut_windows(document, capacity=self.max_length - 1, context=context):
                    part = slice(document.starts[window.left], document.starts[window.right])
                    yield self._span(document.ids[part], document.shapes[part], label, number)
            first += len(group)

    def _span(self, ids: np.ndarray, shapes: np.ndarray, label: int, number: int) -> Span:
        labels, unit_ids = np.full((2, len(ids) + 1), IGNORED, np.int32)
        labels[0], unit_ids[0] = label, number
        token_ids = np.concatenate([np.array([self.pieces.start_id], np.int32), ids])
        return Span(token_ids, np.concatenate([np.zeros(1, np.int32), shapes]), labels, unit_ids)

    def _encode(self, group: Sequence[Any]) -> Iterator[EncodedDocument | None]:
        words = [[spell_words(text) for text in self.texts_in(example)] for example in group]
        flat = [word for texts in words for text in texts for word in text]
        rows, shapes, at = self.pieces.encode(flat), self.shapes(flat), 0
        for texts in words:
            sizes = [len(text) for text in texts if text]
            end = at + sum(sizes)
            if not sizes:
                yield None
                continue
            splits = rows.splits[at : end + 1]
            yield encode_document(
                sizes,
                rows.ids[splits[0] : splits[-1]],
                splits - splits[0],
                shapes[at:end],
                np.full(end - at, IGNORED, np.int32),
                np.zeros(end - at, bool),
                end_id=self.pieces.end_id,
                first_word=at,
                max_pieces_per_word=self.max_pieces_per_word,
            )
            at = end


def describe_long_texts(texts: int, *, long: int, windows: int, max_length: int) -> str:
    """What a user should know about long texts in training; empty where they hardly count more than others.

    Args:
        texts: with a label.
        long: those of them that do not fit into a row.
        windows: that all texts have together.
        max_length: of a row.
    """
    share = (windows - (texts - long)) / windows if windows else 0.0
    if not long or share - long / texts < MOST_EXTRA:
        return ""
    return (
        f"{long:,} of {texts:,} texts do not fit into data.max_length={max_length} word pieces, and are learnt from in "
        f"{windows - (texts - long):,} windows that count as a text each: they are {share:.0%} of what is learnt, "
        f"{long / texts:.0%} of the texts. A larger data.max_length, or texts cut to what matters, even that out"
    )


@lru_cache
def _say_once(warning: str) -> None:
    """Rows are made several times in a run."""
    say(f"warning: {warning}")
