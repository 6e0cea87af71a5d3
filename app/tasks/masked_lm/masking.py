"""Tasks room: pieces hidden for the masked-language-model objective, anew at every step (RoBERTa's dynamic masks).

KerasNLP's `MaskedLMMaskGenerator` draws from a random state of its own, which no checkpoint holds, and hides single
pieces only. Here the masks of a step are a function of (seed, step), so a resumed run hides what the interrupted one
would have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from app.text.word_pieces import WordPieces

Batch = dict[str, tf.Tensor]


@dataclass(frozen=True)
class PieceMasker:
    """Chooses pieces and hides them (Devlin et al. 2019, appendix A.1; Liu et al. 2019, section 4.1).

    Of the chosen pieces 80 % become `[MASK]`, 10 % a random piece, 10 % stay. Special pieces and padding are never
    chosen.

    Attributes:
        mask_id: id of `[MASK]`.
        special_ids: ids that are never chosen and never put in place of another.
        continues: bool [vocabulary], true for pieces that go on a word (`##ing`).
        fraction: part of a row's real pieces that is chosen, rounded up, one at least.
        whole_words: choose all pieces of a word or none; a word that would exceed the fraction is left alone.
    """

    mask_id: int
    special_ids: tuple[int, ...]
    continues: np.ndarray
    fraction: float
    whole_words: bool = False

    @classmethod
    def build(cls, pieces: WordPieces, *, fraction: float, whole_words: bool = False) -> "PieceMasker":
        special = (pieces.pad_id, pieces.unknown_id, pieces.start_id, pieces.end_id, pieces.mask_id)
        continues = np.array([piece.startswith("##") for piece in pieces.vocabulary])
        return cls(pieces.mask_id, special, continues, fraction, whole_words)

    def mask(self, batch: Batch, seed: Sequence[int] | tf.Tensor) -> Batch:
        """Hides pieces of a batch; every op has a static shape and compiles with XLA.

        Args:
            batch: `token_ids` and `padding_mask` int32 [batch, length], anything else is handed on.
            seed: two integers; the same seed hides the same pieces.

        Returns:
            the batch with changed `token_ids`, and `positions` int32, `targets` int32 and `weights` float32, all
            [batch, hidden] with hidden = fraction * length; the weight is 0 where a row has fewer pieces to hide.
        """
        pieces = batch["token_ids"]  # [batch, length]
        # Philox by name: left to choose, XLA would draw other numbers than the plain kernels.
        seeds = tf.unstack(tf.random.experimental.stateless_split(tf.cast(seed, tf.int64), 3, alg="philox"))
        hidden = max(1, round(self.fraction * pieces.shape[1]))
        special = batch["padding_mask"] == 0
        for number in self.special_ids:
            special |= pieces == number
        draw = tf.random.stateless_uniform(tf.shape(pieces), seeds[0], alg="philox")
        words = tf.broadcast_to(tf.range(tf.shape(pieces)[1])[tf.newaxis], tf.shape(pieces))
        if self.whole_words:
            begins = ~tf.gather(tf.constant(self.continues), pieces) | special
            words = tf.cumsum(tf.cast(begins, tf.int32), axis=1) - 1
            draw = tf.gather(draw, tf.maximum(words, 0), batch_dims=1)  # the pieces of a word share one draw
        order = tf.math.top_k(draw - tf.cast(special, tf.float32), k=min(hidden + 1, pieces.shape[1])).indices
        real = tf.reduce_sum(tf.cast(~special, tf.float32), axis=1)
        wanted = tf.minimum(tf.minimum(tf.math.ceil(self.fraction * real), real), float(hidden))
        ranks = tf.range(order.shape[1], dtype=tf.float32)[tf.newaxis]
        chosen = ranks < wanted[:, tf.newaxis]
        if self.whole_words:
            chosen &= ~self._cut_off(tf.gather(words, order, batch_dims=1), chosen, real)
        positions, chosen = order[:, :hidden], chosen[:, :hidden]
        targets = tf.gather(pieces, positions, batch_dims=1)
        shown = tf.where(chosen, self._shown(targets, seeds[1], seeds[2]), targets)
        rows = tf.broadcast_to(tf.range(tf.shape(pieces)[0])[:, tf.newaxis], tf.shape(positions))
        changed = tf.tensor_scatter_nd_update(pieces, tf.stack([rows, positions], axis=-1), shown)
        found = {"positions": positions, "targets": targets, "weights": tf.cast(chosen, tf.float32)}
        return {**batch, "token_ids": changed, **found}

    def _cut_off(self, words: tf.Tensor, chosen: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
        """Places, in the order of choice, of a word that is chosen only in part; the first word is kept even so."""
        last = tf.reduce_sum(tf.cast(chosen, tf.int32), axis=1, keepdims=True) - 1
        after = tf.minimum(last + 1, words.shape[1] - 1)
        last_word = tf.gather(words, tf.maximum(last, 0), batch_dims=1)
        next_word = tf.gather(words, after, batch_dims=1)
        cut = (last_word == next_word) & (after > last) & (tf.cast(last + 1, tf.float32) < real[:, tf.newaxis])
        first_word = words[:, :1]
        return cut & (words == last_word) & (words != first_word)

    def _shown(self, targets: tf.Tensor, kind_seed: tf.Tensor, piece_seed: tf.Tensor) -> tf.Tensor:
        """What stands in place of the chosen pieces, special pieces excluded."""
        ordinary = np.setdiff1d(np.arange(len(self.continues)), self.special_ids).astype(np.int32)
        kind = tf.random.stateless_uniform(tf.shape(targets), kind_seed, alg="philox")
        number = tf.random.stateless_uniform(
            tf.shape(targets), piece_seed, maxval=len(ordinary), dtype=tf.int32, alg="philox"
        )
        random = tf.gather(tf.constant(ordinary), number)
        return tf.where(kind < 0.8, self.mask_id, tf.where(kind < 0.9, random, targets))


def with_masks(batches: tf.data.Dataset, masker: PieceMasker, *, seed: int, first_step: int) -> tf.data.Dataset:
    """Hides pieces of every batch, each by its own number counted from `first_step`."""
    numbered = batches.enumerate(start=first_step)
    return numbered.map(
        lambda step, batch: masker.mask(batch, tf.stack([tf.constant(seed, tf.int64), step])),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).prefetch(tf.data.AUTOTUNE)
