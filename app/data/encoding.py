"""Data room: what turns the examples of a task into rows; it travels with the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from app.data.packing import Example

if TYPE_CHECKING:
    from app.text.word_pieces import WordPieces


@dataclass(frozen=True)
class Encoder:
    """Everything that turns words into model input. The encoder of a task says which pieces are labelled.

    Attributes:
        pieces: the backbone's word pieces, by TF Text or in plain Python.
        labels: label names in the order of their ids.
        shapes: words to word-shape ids, int32 [words].
        max_length: pieces in a row, `[CLS]` and `[SEP]` included.
        overlap: pieces of context, left and right together, that a window keeps free when a long text is scored.
    """

    pieces: WordPieces
    labels: tuple[str, ...]
    shapes: Callable[[Sequence[str]], np.ndarray]
    max_length: int
    overlap: int

    @property
    def max_pieces_per_word(self) -> int:
        """Pieces kept of a word."""
        return max(1, (self.max_length - 2 - self.overlap) // 4)

    def training_rows(self, examples: Iterable[Any]) -> Iterator[Example]:
        """Rows to learn from: windows share a row, and no piece is read twice where it can be helped."""
        raise NotImplementedError

    def scoring_rows(self, examples: Iterable[Any]) -> Iterator[Example]:
        """Rows to score, in corpus order, one window in each; units are numbered through the examples from 0."""
        raise NotImplementedError
