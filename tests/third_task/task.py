"""How many words a text has, a regression: a task with a head, a loss, an answer and a score of its own."""

import csv

import numpy as np
import tensorflow as tf

from app.config import InputError
from app.tasks.examples import ExampleCorpus
from app.tasks.whole_text import PooledHead, Text, WholeTextTask

WORDS = 10.0  # in one unit of the head's output, so that it stays near 1


class LengthHead(PooledHead):
    """One output: the number of words, in tens."""

    def compute_loss(self, logits, labels, boundaries):
        errors = tf.square(logits[..., 0] - tf.cast(labels, tf.float32) / WORDS)  # [batch, length]
        return tf.reduce_sum(tf.where(labels >= 0, errors, 0.0))


class TextLength(WholeTextTask):
    name = "text_length"
    title = "Length of texts"
    headline = "closeness"
    headline_name = "1 / (1 + mean error in words)"

    def open_corpus(self, config, path, *, split, labels=None):
        return ExampleCorpus(path, lambda: read_texts(path))

    def build_head(self, labels, config, facts):
        pooling = "mean" if config.pooling == "auto" else config.pooling
        return LengthHead(labels, pooling=pooling, dropout=config.head_dropout, name="length_head")

    def make_row(self, model, logits):
        return {"length": round(WORDS * float(logits[0]), 2)}

    def count(self, example, row):
        return abs(row["length"] - example.target), 1.0

    def headline_of(self, sums):
        return 1 / (1 + sums[..., 0] / np.maximum(sums[..., 1], 1))

    def measure(self, sums):
        return {"mean_error_in_words": float(sums[0] / sums[1])}


def read_texts(path):
    """The rows of a CSV file with the columns `text` and `length`."""
    with open(path, encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            length = row.get("length") or ""
            if not row.get("text") or not length.isdecimal():
                raise InputError(f"{path}, line {number}: expected a text and its length, received {row}")
            yield Text(row["text"], int(length))


TEXT_LENGTH = TextLength()
