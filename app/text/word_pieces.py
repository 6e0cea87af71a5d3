"""Text room: words to word pieces, with the backbone's own vocabulary.

One tokenizer serves training, evaluation and export: TF Text's `FastBertTokenizer`, whose offsets are right on accented
text and which runs inside TFLite.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from app.config import InputError

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True, slots=True)
class PieceRows:
    """The pieces of a run of words: word i owns `ids[splits[i]:splits[i + 1]]`, never an empty slice.

    Attributes:
        ids: int32 [pieces].
        splits: int64 [words + 1].
    """

    ids: np.ndarray
    splits: np.ndarray


class WordPieces:
    """Splits words into the pieces of one vocabulary.

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
        with tf.device("CPU:0"):
            self._tokenizer = tf_text.FastBertTokenizer(
                vocab=self.vocabulary, token_out_type=tf.int32, lower_case_nfd_strip_accents=lowercase
            )

    def encode(self, words: Sequence[str]) -> PieceRows:
        """Pieces of each word; a word that leaves no piece (a lone control character) becomes `[UNK]`."""
        if not words:
            return PieceRows(np.zeros(0, np.int32), np.zeros(1, np.int64))
        with tf.device("CPU:0"):
            rows = self._tokenizer.tokenize(tf.constant(list(words)))
        rows = rows.merge_dims(1, -1) if rows.ragged_rank > 1 else rows
        ids, splits = rows.flat_values.numpy(), rows.row_splits.numpy()
        lengths = np.diff(splits)
        if lengths.all():
            return PieceRows(ids, splits)
        ids = np.insert(ids, splits[:-1][lengths == 0], self.unknown_id)
        return PieceRows(ids, np.concatenate([[0], np.cumsum(np.maximum(lengths, 1))]))
