"""How many words a text has, a regression: a task with a head, a loss, an answer and a score of its own."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from app.config import Config, InputError, ModelConfig
from app.tasks.examples import ExampleCorpus
from app.tasks.network import TaskModel
from app.tasks.task import Facts
from app.tasks.whole_text import PooledHead, Text, WholeTextTask

WORDS = 10.0  # in one unit of the head's output, which is easiest to learn near 1


class LengthHead(PooledHead):
    """One output, the number of words in tens."""

    def compute_loss(self, logits: tf.Tensor, labels: tf.Tensor, boundaries: tf.Tensor) -> tf.Tensor:
        errors = tf.square(logits[..., 0] - tf.cast(labels, tf.float32) / WORDS)  # [batch, length]
        return tf.reduce_sum(tf.where(labels >= 0, errors, 0.0))


class TextLength(WholeTextTask):
    name = "text_length"
    title = "Length of texts"
    headline = "closeness"
    headline_name = "1 / (1 + mean error in words)"

    def open_corpus(
        self, config: Config, path: str, *, split: str, labels: Sequence[str] | None = None
    ) -> ExampleCorpus:
        return ExampleCorpus(path, lambda: read_texts(path))

    def build_head(self, labels: Sequence[str], config: ModelConfig, facts: Facts) -> LengthHead:
        return LengthHead(labels, pooling="mean", dropout=config.head_dropout, name="length_head")

    def make_row(self, model: TaskModel, logits: np.ndarray) -> dict[str, Any]:
        return {"length": round(WORDS * float(logits[0]), 2)}

    def count(self, example: Text, row: Mapping[str, Any]) -> Sequence[float]:
        return abs(row["length"] - example.target), 1  # error, texts

    def headline_of(self, sums: np.ndarray) -> np.ndarray:
        return 1 / (1 + sums[..., 0] / np.maximum(sums[..., 1], 1))

    def measure(self, sums: np.ndarray) -> dict[str, float]:
        return {"mean_error_in_words": float(sums[0] / sums[1])}


def read_texts(path: str) -> Iterator[Text]:
    """The rows of a CSV file with the columns `text` and `length`."""
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            length = row.get("length") or ""
            if not row.get("text") or not length.isdecimal():
                raise InputError(f"{path}, line {number}: expected a text and its length, received {row}")
            yield Text(row["text"], int(length))


TEXT_LENGTH = TextLength()
