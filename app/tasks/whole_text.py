"""Tasks room: what all tasks about whole texts have in common: the `[CLS]` that opens each text is what is labelled.

From top to bottom: texts to rows, the head, the way from raw texts inside a TensorFlow graph, and `WholeTextTask`, the
contract of a task with all that is left to say for one of its own.
"""

from __future__ import annotations

import dataclasses
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from app.config import DataConfig, PredictConfig
from app.data.encoding import Encoder
from app.data.graph_rows import GraphRows, run_windows
from app.data.packing import IGNORED, EncodedDocument, Example, Span, cut_windows, encode_document, fill_rows
from app.one_keras import keras
from app.run.screen import say
from app.tasks.network import TaskModel
from app.tasks.report import Example as Shown
from app.tasks.report import Report, Segment
from app.tasks.running_text import read_unlabelled
from app.tasks.task import Answers, Facts, Head, NetworkAt, Scored, Task, read_constant
from app.text.graph_words import GraphShapes, GraphWords, TextWords, changes
from app.text.shapes import word_shapes
from app.text.word_pieces import WordPieces
from app.text.words import split_words

POOLINGS = ("cls", "mean")
MOST_EXTRA = 0.05  # of what is learnt, that long texts may have beyond their share without a word about it
TEXTS_PER_CALL = 1024  # texts tokenized by one call into TF Text
Network = Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]


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


class PooledHead(Head):
    """Dropout and a dense layer over `[CLS]`, or over the mean of the window that `[CLS]` opens; without a loss.

    Args:
        labels: names of the outputs.
        pooling: `cls` or `mean`.
        dropout: fraction of the input dropped while training.
    """

    def __init__(self, labels: Sequence[str], *, pooling: str, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, received {pooling!r}")
        self.labels = tuple(labels)
        self.pooling = pooling
        self._dropout = keras.layers.Dropout(dropout)
        self._dense = keras.layers.Dense(
            len(labels),
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
            dtype="float32",
            name="logits",
        )

    def build(self, input_shape: tf.TensorShape) -> None:
        self._dense.build(input_shape)
        super().build(input_shape)

    @property
    def pools(self) -> bool:
        return self.pooling == "mean"

    def connect(self, states: tf.Tensor, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return self(states, windows=features["padding_mask"])

    def call(
        self, inputs: tf.Tensor, windows: tf.Tensor | None = None, training: bool | None = None
    ) -> tf.Tensor:
        """Hidden states [batch, length, width] -> logits float32 [batch, length, labels].

        Args:
            inputs: hidden states.
            windows: int32 [batch, length], the number of each piece's window; the mean needs it.
            training: whether dropout is on.
        """
        x = inputs
        if self.pools:
            assert windows is not None
            same = tf.equal(windows[:, :, tf.newaxis], windows[:, tf.newaxis, :])
            x = average_windows(tf.cast(x, tf.float32), same)
        return self._dense(self._dropout(x, training=training))

    def own_variables(self) -> dict[str, tf.Variable]:
        """All variables, by their names in the file of a bundle."""
        return {"kernel": self._dense.kernel, "bias": self._dense.bias}

    def infer(self, x: tf.Tensor, same: tf.Tensor) -> tf.Tensor:
        if self.pools:
            shape = tf.shape(same)
            x = average_windows(tf.reshape(x, [shape[0], shape[1], x.shape[-1]]), same)
            x = tf.reshape(x, [-1, x.shape[-1]])
        return tf.matmul(x, read_constant(self._dense.kernel)) + read_constant(self._dense.bias)


def average_windows(states: tf.Tensor, same: tf.Tensor) -> tf.Tensor:
    """The mean of each piece's window.

    Args:
        states: float32 [batch, length, width].
        same: bool [batch, length, length], true within one window.

    Returns:
        float32 [batch, length, width].
    """
    weights = tf.cast(same, tf.float32)
    return tf.matmul(weights / tf.reduce_sum(weights, axis=-1, keepdims=True), states)


class WholeTextGraph:
    """Raw texts to logits inside a graph: words, windows, the mean over the windows of a text, as arrays take it.

    Args:
        encoder: vocabulary, labels and row length of the model.
        network: the model, asked for `[CLS]` alone.
        pairs: whether a text is two, with a tab between them.
    """

    def __init__(self, encoder: Encoder, network: Network, *, pairs: bool = False) -> None:
        self._words, self._shapes = GraphWords(), GraphShapes()
        self._rows = GraphRows(encoder)
        self._network = network
        self._pairs = pairs
        self._labels = encoder.labels

    def compute_logits(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """String [texts], of any length -> logits float32 [texts, labels], and bool [texts], whether it has no word.

        The logits of a text without a word are 0.
        """
        words = self._words(texts)
        letters = tf.ragged.range(words.starts, words.ends)
        letters = letters.with_flat_values(tf.gather(words.codes, letters.flat_values))
        spelled = tf.strings.unicode_encode(letters, "UTF-8")
        first_of_text = changes(words.texts)
        begins = first_of_text | self._second_texts(words) if self._pairs else first_of_text
        shapes = self._shapes(words.types, words.starts, words.ends)
        stream = self._rows.encode(spelled, shapes, begins)
        windows = self._rows.cut(stream, begins, first_of_text)
        owners = tf.gather(words.texts, windows.core_left)  # the text of each window

        def network(features: dict[str, tf.Tensor], places: tf.Tensor) -> tf.Tensor:
            rows = tf.range(tf.shape(features["token_ids"])[0])
            return self._network(features, tf.stack([rows, tf.zeros_like(rows)], axis=1))

        by_window = run_windows(self._rows, stream, windows, network, labels=len(self._labels))
        count = tf.shape(texts)[0]
        logits = tf.math.unsorted_segment_mean(by_window, owners, count)  # [texts, labels]
        is_empty = tf.equal(tf.math.bincount(owners, minlength=count, maxlength=count), 0)
        return logits, is_empty

    def _second_texts(self, words: TextWords) -> tf.Tensor:
        """Whether a word is the first behind the first tab of its text, bool [words]."""
        tabs = tf.cast(tf.where(tf.equal(words.codes, ord("\t")))[:, 0], tf.int32)
        owners = tf.searchsorted(words.text_starts, tabs, side="right") - 1
        count = tf.shape(words.text_starts)[0] - 1
        first_tab = tf.math.unsorted_segment_min(tabs, owners, count)  # the largest integer without one
        behind = words.starts > tf.gather(first_tab, words.texts)
        before = tf.concat([tf.zeros([1], tf.bool), behind[:-1]], 0)[: tf.size(behind)]
        return behind & (~before | changes(words.texts))


@dataclass(frozen=True, slots=True)
class Text:
    """A text beside what is right about it.

    Attributes:
        text: as it stands in the file.
        target: a whole number from 0, which the loss of the head reads; IGNORED where it is not known. Real numbers
            are told in small parts, such as hundredths.
    """

    text: str
    target: int = IGNORED


@dataclass(frozen=True)
class _TargetEncoder(WholeTextEncoder):
    def texts_in(self, example: Text) -> Sequence[str]:
        return (example.text,)

    def label_of(self, example: Text) -> int:
        return example.target


class WholeTextTask(Task):
    """A task about whole texts, whose examples are `Text`. What is left to say: `open_corpus`, `build_head`, and below.

    An answer is a row of `--mode=predict`, made of the logits of the text (`make_row`). What is counted beside the
    right answer (`count`), summed over texts, gives the headline (`headline_of`) and whatever else `measure` gives.
    """

    unit: ClassVar[str] = "texts"
    example: ClassVar[str] = "texts"
    labelled: ClassVar[str] = "texts"
    averages_windows: ClassVar[bool] = True

    @abstractmethod
    def make_row(self, model: TaskModel, logits: np.ndarray) -> dict[str, Any]:
        """Logits float32 [labels] of a text to its answer, JSON values by name."""

    @abstractmethod
    def count(self, example: Text, row: Mapping[str, Any]) -> Sequence[float]:
        """Numbers, always as many, whose sums over texts the headline follows from: an example beside its answer."""

    def measure(self, sums: np.ndarray) -> dict[str, float]:
        """Scores beside the headline, by name, from the sums of `count`."""
        return {}

    def read_unlabelled(self, sources: Sequence[Any], *, limit_words: int = 0) -> Iterator[Any]:
        """One text for each sentence of the running text."""
        return (Text(" ".join(each.words)) for each in read_unlabelled(sources, limit_words=limit_words))

    def words_of(self, example: Text) -> Sequence[str]:
        return spell_words(example.text)

    def build_encoder(self, pieces: WordPieces, labels: Sequence[str], data: DataConfig, facts: Facts) -> Encoder:
        return _TargetEncoder(pieces, tuple(labels), word_shapes, data.max_length, data.overlap_tokens)

    # Answers and scores.

    def count_units(self, example: Any) -> int:
        return 1

    def decode(
        self, model: TaskModel, emissions: Sequence[np.ndarray], *, probabilities: bool
    ) -> list[np.ndarray]:
        """Logits float32 [labels] of each text."""
        return [each[0] for each in emissions]

    def score(
        self, model: TaskModel, examples: Sequence[Text], answers: Sequence[np.ndarray], config: PredictConfig
    ) -> Scored:
        rows = [self.make_row(model, logits) for logits in answers]
        counts = np.array([self.count(example, row) for example, row in zip(examples, rows, strict=True)])
        sums = counts.sum(axis=0)
        metrics = {self.headline: float(self.headline_of(sums)), **self.measure(sums)}
        return Scored(
            headline=metrics[self.headline],
            units=len(examples),
            labelled=len(examples),
            counts=counts,
            metrics=metrics,
            curve=metrics,
            examples=examples,
            answers=answers,
            scores=rows,
        )

    def measure_loss(self, model: TaskModel, examples: Sequence[Text], answers: Sequence[np.ndarray]) -> float:
        labels = tf.constant([[example.target for example in examples]])  # [1, texts]
        logits = tf.constant(np.stack(answers)[np.newaxis])  # [1, texts, labels]
        loss = model.head.compute_loss(logits, labels, tf.ones_like(labels, tf.bool))
        return float(loss) / max(1, sum(example.target != IGNORED for example in examples))

    def write_predictions(self, scored: Scored) -> str:
        """JSON lines, the text and its target before what was answered."""
        rows = zip(scored.examples, scored.scores, strict=True)
        return "".join(json.dumps(_beside(example, row), ensure_ascii=False) + "\n" for example, row in rows)

    def list_errors(self, scored: Scored) -> list[dict[str, Any]]:
        """The texts of which the headline is not 1, the worst first."""
        each = self.headline_of(scored.counts)
        worst = (int(number) for number in np.argsort(each, kind="stable") if each[number] < 1)
        return [_beside(scored.examples[number], scored.scores[number]) for number in worst]

    def report(self, scored: Scored, errors: Sequence[dict[str, Any]], *, title: str) -> Report:
        """As of every task, with the errors."""
        shown = tuple(
            Shown("", (), tuple((name, (Segment(str(value)),)) for name, value in row.items()))
            for row in errors
        )
        return dataclasses.replace(super().report(scored, errors, title=title), examples=shown, unit="text")

    # In use.

    def answer_texts(
        self, model: TaskModel, texts: Sequence[str], answers: Answers, config: PredictConfig
    ) -> Iterator[dict[str, Any]]:
        """A row for each text; one without a word has logits of 0, in exports as well."""
        for text, logits in zip(texts, answers.answer([Text(text) for text in texts]), strict=True):
            yield {"text": text, **self.make_row(model, logits if spell_words(text) else np.zeros_like(logits))}

    # Exports.

    def build_text_graph(
        self, model: TaskModel, encoder: Encoder, network: NetworkAt, config: PredictConfig
    ) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        graph = WholeTextGraph(encoder, network)
        return lambda texts: {"answer": graph.compute_logits(texts)[0]}

    @property
    def text_outputs(self) -> dict[str, dict[str, Any]]:
        return {"answer": {"type": "float32", "shape": ["batch", "labels"], "meaning": "outputs for the text"}}

    def rows_from_graph(self, model: TaskModel, found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        return [self.make_row(model, logits) for logits in found["answer"]]

    def texts_of(self, examples: Iterable[Text]) -> Iterator[tuple[str, Text]]:
        return ((example.text, example) for example in examples)

    def count_text(self, model: TaskModel, text: str, gold: Text, row: Mapping[str, Any]) -> list[Sequence[float]]:
        return [self.count(gold, row)]

    @property
    def tflite_outputs(self) -> dict[str, dict[str, Any]]:
        return {
            "logits": {"type": "float32", "shape": ["batch", "length", "labels"], "meaning": "outputs at each piece"},
            "answer": {
                "type": "float32",
                "shape": ["batch", "labels"],
                "meaning": "outputs for the text, or window of a text, that begins the row",
            },
        }

    def finish_graph(
        self, model: TaskModel, logits: tf.Tensor, inputs: Mapping[str, tf.Tensor], boundary_ids: tuple[int, int]
    ) -> dict[str, tf.Tensor]:
        return {"logits": logits, "answer": logits[:, 0]}

    def alone(self, example: Text, number: int) -> Text:
        return Text(example.text)

    def make_vector(self, example: Text, answer: np.ndarray) -> dict[str, Any]:
        return {"text": example.text, "logits": [round(float(each), 6) for each in answer]}

    def agrees(
        self,
        model: TaskModel,
        vector: Mapping[str, Any],
        inputs: Mapping[str, np.ndarray],
        found: Mapping[str, np.ndarray],
    ) -> bool:
        """Whether the outputs are the same but for a twentieth."""
        return bool(np.allclose(vector["logits"], found["answer"][0], rtol=0.05, atol=0.05))


def _beside(example: Text, row: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": example.text, "target": None if example.target == IGNORED else example.target, **row}
