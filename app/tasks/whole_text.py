"""Tasks room: what all tasks about whole texts have in common: the `[CLS]` that opens each text is what is labelled.

From top to bottom: the head, the way from raw texts inside a TensorFlow graph, and `WholeTextTask`, the
contract of a task with all that is left to say for one of its own.
"""

from __future__ import annotations

import dataclasses
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from app.config import DataConfig, PredictConfig
from app.data.encoding import Encoder
from app.data.graph_rows import GraphRows, run_windows
from app.data.packing import IGNORED
from app.one_keras import keras
from app.tasks.beliefs import Belief, believe_logits
from app.tasks.head import Head, read_constant
from app.tasks.network import TaskModel
from app.tasks.report import Example as Shown
from app.tasks.report import Report, Segment
from app.tasks.running_text import read_unlabelled
from app.tasks.task import Answers, Facts, NetworkAt, Scored, Task
from app.tasks.whole_text_rows import WholeTextEncoder, spell_words
from app.text.graph_words import GraphShapes, GraphWords, TextWords, changes
from app.text.shapes import word_shapes
from app.text.word_pieces import WordPieces

POOLINGS = ("cls", "mean")
Network = Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]


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

    def connect(
        self, states: tf.Tensor, features: Mapping[str, tf.Tensor], *, training: bool | None = None
    ) -> tf.Tensor:
        return self(states, windows=features["padding_mask"], training=training)

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
        self._more = getattr(network, "columns", 0)  # see `EarlyNetwork`

    def compute_logits(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """String [texts], of any length -> logits float32 [texts, labels], and bool [texts], whether it has no word.

        The logits of a text without a word are 0.
        """
        logits, is_empty, _ = self.compute_logits_and_layers(texts)
        return logits, is_empty

    def compute_logits_and_layers(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """The same, and if windows may leave the network early `layer` int32 [texts], that of the deepest of each."""
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

        by_window = run_windows(self._rows, stream, windows, network, labels=len(self._labels) + self._more)
        count = tf.shape(texts)[0]
        logits = tf.math.unsorted_segment_mean(by_window[:, : len(self._labels)], owners, count)  # [texts, labels]
        is_empty = tf.equal(tf.math.bincount(owners, minlength=count, maxlength=count), 0)
        if not self._more:
            return logits, is_empty, {}
        layers = tf.math.unsorted_segment_max(tf.cast(by_window[:, -1], tf.int32), owners, count)
        return logits, is_empty, {"layer": tf.maximum(layers, 0)}

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

    def find_beliefs(self, model: TaskModel, answers: Sequence[np.ndarray]) -> list[Belief]:
        """By softmax, or by sigmoid where the head decides each label for itself."""
        independent = model.head.independent
        if len(model.labels) < 2 and not independent:
            return super().find_beliefs(model, answers)
        return believe_logits(answers, independent=independent)

    # Corrections.

    def target_of(self, answer: Mapping[str, Any], labels: Sequence[str]) -> int:
        """What `Text.target` is for an answer that is right: its "target", or the number of its "label".

        Raises:
            ValueError: it has neither, half a sentence that goes on after "the answer".
        """
        target = answer.get("target")
        if isinstance(target, int) and not isinstance(target, bool) and target >= 0:
            return target
        if answer.get("label") in labels:
            return list(labels).index(answer["label"])
        raise ValueError(f'must have a "target", a whole number from 0, or a "label" of the model, received {answer}')

    def read_correction(
        self, text: str, answer: Mapping[str, Any], *, labels: Sequence[str], facts: Facts, number: int
    ) -> list[Text]:
        return [Text(text, self.target_of(answer, labels))]

    def show(self, model: TaskModel, example: Text, answer: np.ndarray | None = None) -> tuple[Segment, ...]:
        if answer is None:
            return (Segment(f"target {example.target}"),)
        return (Segment(", ".join(f"{name} {value}" for name, value in self.make_row(model, answer).items())),)

    # Exports.

    def build_text_graph(
        self, model: TaskModel, encoder: Encoder, network: NetworkAt, config: PredictConfig
    ) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        graph = WholeTextGraph(encoder, network)

        def answer(texts: tf.Tensor) -> dict[str, tf.Tensor]:
            logits, _, layers = graph.compute_logits_and_layers(texts)
            return {"answer": logits, **layers}

        return answer

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
