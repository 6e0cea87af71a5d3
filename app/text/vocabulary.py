"""Text room: the vocabulary of a backbone, and words as its pieces. Imports no TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.config import InputError
from app.text import SPECIAL_PIECES


@dataclass(frozen=True, slots=True)
class PieceRows:
    """The pieces of a run of words: word i owns `ids[splits[i]:splits[i + 1]]`, never an empty slice.

    Attributes:
        ids: int32 [pieces].
        splits: int64 [words + 1].
    """

    ids: np.ndarray
    splits: np.ndarray


class Vocabulary:
    """The pieces of a backbone; what extends it splits words into them.

    Args:
        vocabulary: one piece a line of the backbone's `vocab.txt`, in its order.
        lowercase: whether the vocabulary is uncased (lower-case, NFD, accents stripped, as BERT does it).

    Raises:
        InputError: a special piece is missing from the vocabulary.
    """

    def __init__(self, vocabulary: Sequence[str], *, lowercase: bool) -> None:
        missing = [piece for piece in SPECIAL_PIECES if piece not in set(vocabulary)]
        if missing:
            raise InputError(f"the vocabulary must hold {', '.join(SPECIAL_PIECES)}; missing: {', '.join(missing)}")
        self.vocabulary = list(vocabulary)
        self.lowercase = lowercase
        self.pad_id, self.unknown_id, self.start_id, self.end_id, self.mask_id = (
            self.vocabulary.index(piece) for piece in SPECIAL_PIECES
        )
        self.boundary_ids = (self.start_id, self.end_id)
