"""Evaluation room: one predictor over any runtime (Keras, SavedModel, TFLite) that maps a batch of rows to logits.

Rows come in corpus order, their cores read one after the other are the words of the corpus, and the predictor asserts
it: every word is scored exactly once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

from app.tasks.tagging.answers import TaggedSentence

Features = dict[str, np.ndarray]  # token_ids, shape_ids, padding_mask: int32 [batch, length]
Forward = Callable[[Features], np.ndarray]  # -> logits float32 [batch, length, labels]
# emissions per sentence, whether probabilities are wanted -> (label ids per sentence, probabilities per sentence or [])
Decode = Callable[[Sequence[np.ndarray], bool], tuple[list[np.ndarray], list[np.ndarray]]]

BUCKET = 32  # lengths are rounded up to a multiple, so that few shapes are compiled
BATCHES_AHEAD = 32  # batches among which rows are sorted by length; bounds memory
SENTENCES_AHEAD = 4096  # sentences encoded, scored and decoded at a time; bounds memory


class Row(Protocol):
    """What a packed row must have (see `app/data/packing.py`)."""

    @property
    def token_ids(self) -> np.ndarray: ...
    @property
    def shape_ids(self) -> np.ndarray: ...
    @property
    def padding_mask(self) -> np.ndarray: ...
    @property
    def unit_ids(self) -> np.ndarray: ...


class WordsOfDocument(Protocol):
    """A sentence: its words and the number of its document."""

    @property
    def words(self) -> tuple[str, ...]: ...
    @property
    def document(self) -> int: ...


@dataclass(frozen=True)
class Predictor:
    """Tags sentences.

    Attributes:
        labels: label names in id order.
        make_rows: sentences -> rows to score, in corpus order.
        forward: features -> logits, by any runtime.
        decode: emissions of sentences -> label ids.
        batch_size: rows per call of `forward`.
    """

    labels: Sequence[str]
    make_rows: Callable[[Iterable[Any]], Iterable[Row]]
    forward: Forward
    decode: Decode
    batch_size: int

    def tag(self, sentences: Iterable[WordsOfDocument], *, probabilities: bool = False) -> Iterator[TaggedSentence]:
        """Tags sentences in their order; memory does not grow with their number, documents are never cut in two."""
        for part in _parts(sentences):
            yield from self._tag_part(part, probabilities)

    def _tag_part(self, part: list[WordsOfDocument], probabilities: bool) -> Iterator[TaggedSentence]:
        lengths = [len(sentence.words) for sentence in part]
        emissions = self.compute_emissions(self.make_rows(part), words=sum(lengths))
        per_sentence = np.split(emissions, np.cumsum(lengths)[:-1])
        tags, chances = self.decode(per_sentence, probabilities)
        for number, ids in enumerate(tags):
            chance = chances[number] if probabilities else np.zeros(0, np.float32)
            yield TaggedSentence([self.labels[i] for i in ids], chance, per_sentence[number])

    def compute_emissions(self, rows: Iterable[Row], *, words: int) -> np.ndarray:
        """Logits of the first piece of every word, float32 [words, labels].

        Raises:
            AssertionError: a word was scored twice, or not at all.
        """
        emissions = np.zeros((words, len(self.labels)), np.float32)
        times_scored = np.zeros(words, np.int64)
        stream = iter(rows)
        while group := list(islice(stream, self.batch_size * BATCHES_AHEAD)):
            sizes = np.array([np.count_nonzero(row.padding_mask) for row in group])
            order = np.argsort(sizes, kind="stable")
            for at in range(0, len(group), self.batch_size):
                chosen = order[at : at + self.batch_size]
                features, unit_ids = join_rows([group[i] for i in chosen], int(sizes[chosen].max()))
                logits = self.forward(features)
                scored = unit_ids >= 0
                emissions[unit_ids[scored]] = logits[scored]
                np.add.at(times_scored, unit_ids[scored], 1)
        if not (times_scored == 1).all():
            wrong = int(np.flatnonzero(times_scored != 1)[0])
            raise AssertionError(f"word {wrong} of {words} was scored {times_scored[wrong]} times, not once")
        return emissions


def join_rows(rows: Sequence[Row], longest: int) -> tuple[Features, np.ndarray]:
    """Rows as one batch, trimmed to `longest` pieces, rounded up to a bucket; and the word ids of its positions."""
    length = min(len(rows[0].token_ids), -(-longest // BUCKET) * BUCKET)
    features = {
        "token_ids": np.stack([row.token_ids[:length] for row in rows]),
        "shape_ids": np.stack([row.shape_ids[:length] for row in rows]),
        "padding_mask": np.stack([row.padding_mask[:length] for row in rows]),
    }
    return features, np.stack([row.unit_ids[:length] for row in rows])


def _parts(sentences: Iterable[WordsOfDocument]) -> Iterator[list[WordsOfDocument]]:
    """Runs of whole documents of about `SENTENCES_AHEAD` sentences."""
    part: list[WordsOfDocument] = []
    for sentence in sentences:
        if len(part) >= SENTENCES_AHEAD and sentence.document != part[-1].document:
            yield part
            part = []
        part.append(sentence)
    if part:
        yield part
