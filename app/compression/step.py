"""Compression room: what a step is, and the bench it works at.

A step knows an algorithm and nothing of corpora, taggers or files: the bench, which a mode builds, lends it those.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from app.config import CompressionConfig
from app.encoder.parts import parts_of
from app.one_keras import keras

Replace = Callable[[keras.layers.Layer], keras.layers.Layer]
KeptLayer = tuple[int, tuple[int, ...], tuple[int, ...]]  # number of a layer, its heads, its feed-forward columns
Batch = dict[str, tf.Tensor]


class Bench(Protocol):
    """What a step is lent."""

    config: CompressionConfig

    def once(self, part: str, act: Callable[[Any], Any]) -> None:
        """Does a part of the step unless an earlier process did: `act` takes the tagger and returns it changed."""

    def train(
        self,
        tagger: Any,
        *,
        part: str,
        epochs: int,
        view: Any = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        settle: Callable[[], None] | None = None,
        first_kept_epoch: int = 1,
    ) -> Any:
        """Fine-tunes in place and returns the tagger.

        Args:
            tagger: whose weights are trained; zeros and shared values of its kernels stay.
            part: of the step, as given to `once`.
            epochs: passes over the training corpus.
            view: what is trained and scored in place of the tagger's own network, on the same weights.
            callbacks: what happens between steps.
            settle: called before weights are scored and when training is over.
            first_kept_epoch: the first epoch whose weights may be the best.
        """

    def passes(self, tagger: Any, epochs: int) -> int:
        """Forward passes of the network in so many epochs of training."""

    def with_layers(self, tagger: Any, replace: Replace) -> Any:
        """A second tagger on the same weights, some layers of its encoder replaced."""

    def cut_layers(self, tagger: Any, kept: Sequence[KeptLayer]) -> Any:
        """A tagger with these layers, heads and feed-forward columns only."""

    def cut_vocabulary(self, tagger: Any, ids: Sequence[int]) -> Any:
        """A tagger with these word pieces only."""

    def count_pieces(self, tagger: Any) -> np.ndarray:
        """How often each word piece occurs in the text there is to learn from: int64 [vocabulary]."""

    def batches(self, tagger: Any, steps: int) -> Iterator[Batch]:
        """So many batches of the training corpus, the same at every call."""

    def loss(self, tagger: Any, batch: Batch) -> tf.Tensor:
        """Mean loss of a batch, without dropout."""

    def latency_ms(self, tagger: Any) -> float:
        """Milliseconds that one text takes on this machine."""

    def int8_ms(self, taggers: Sequence[Any]) -> list[float]:
        """Milliseconds of a processor that one text takes in the int8 TFLite files of these taggers."""

    def remember(self, name: str, find: Callable[[], float]) -> float:
        """A number that is found once and stays the same in a process that resumes."""

    def say(self, text: str) -> None:
        """Tells the person watching."""


class Step(Protocol):
    """A named step: `run` leads through its parts."""

    def run(self, bench: Bench) -> None: ...


# The matrices of an encoder that steps work on.


def attention_kernels(layer: Any) -> list[tf.Variable]:
    """Query, key and value [width, heads, size] and output [heads, size, width] of a transformer layer."""
    return [dense.kernel for dense in parts_of(layer).attention_parts.projections]


def feed_forward_kernels(layer: Any) -> list[tf.Variable]:
    """[width, columns] and [columns, width] of a transformer layer."""
    parts = parts_of(layer)
    return [parts.inner.kernel, parts.outer.kernel]
