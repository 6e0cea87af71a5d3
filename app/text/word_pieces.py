"""Text room: words to word pieces, with the backbone's own vocabulary.

One tokenizer serves training, evaluation and export: TF Text's `FastBertTokenizer`, whose offsets are right on accented
text and which runs inside TFLite.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from app.text.vocabulary import PieceRows, Vocabulary


class WordPieces(Vocabulary):
    """Splits words into the pieces of one vocabulary, see `Vocabulary`."""

    def __init__(self, vocabulary: Sequence[str], *, lowercase: bool) -> None:
        super().__init__(vocabulary, lowercase=lowercase)
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
