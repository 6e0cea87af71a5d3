"""Tasks room: the contract. What a task says, no other room may know; every other room takes a task and knows none.

A label sits at a word piece: tagging labels the first piece of each word, classification the `[CLS]` that opens each
text. What is labelled is called a unit: a word, or a text. So rows, the loss over labelled pieces divided by their
global count, distillation, pruning, quantization and export are the same code for all tasks, and a new task is one
folder: see docs/tasks.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf

from app.config import Config, DataConfig, InputError, ModelConfig, PredictConfig
from app.config.paths import escape_controls
from app.tasks.beliefs import Belief
from app.tasks.examples import join_examples, split_off_examples, summarize_examples
from app.tasks.head import Head
from app.tasks.light import Described
from app.tasks.report import Report, Segment

if TYPE_CHECKING:
    from app.data.encoding import Encoder
    from app.tasks.network import TaskModel
    from app.text.word_pieces import WordPieces

Facts = Mapping[str, Any]  # what a model has to know beside its labels; JSON values
# features, places int32 [units, 2] as row and piece, rows ascending -> logits float32 [units, labels]
NetworkAt = Any


class Corpus(Protocol):
    """A split of a corpus, read from its beginning as often as wanted and never held in memory."""

    @property
    def source(self) -> str:
        """Where it is read from."""

    def examples(self) -> Iterator[Any]:
        """The examples of the task, in corpus order.

        Raises:
            InputError: at the first fault, naming the file and line.
        """


class Summary(Protocol):
    """What one pass over a corpus finds."""

    @property
    def source(self) -> str: ...
    @property
    def digest(self) -> str:
        """SHA-256 of the content, whatever file it is in."""

    @property
    def words(self) -> int: ...
    @property
    def labels(self) -> Sequence[str]:
        """The label list in id order; raises InputError if nothing can be learnt."""


@dataclass(frozen=True)
class Scored:
    """A split beside its answers.

    Attributes:
        headline: the number that chooses the best weights, 0 to 1.
        units: words or texts scored.
        labelled: entities or texts: what the headline is about.
        counts: numbers [examples, columns], whose sums over examples give the headline (`Task.headline_of`).
        metrics: all scores, flat, without the name of the split.
        curve: those of them that the history of a training shows.
        examples: what was scored; answers: the answer to each.
        scores: of the task's own kind, for its report.
    """

    headline: float
    units: int
    labelled: int
    counts: np.ndarray
    metrics: dict[str, float]
    curve: dict[str, float]
    examples: Sequence[Any] = field(repr=False)
    answers: Sequence[Any] = field(repr=False)
    scores: Any = field(repr=False)


@dataclass(frozen=True)
class ChainLoss:
    """How distributions over whole sequences of labels are compared in distillation.

    Attributes:
        divergence: (teacher's logits, student's logits, units, boundaries, teacher's transitions, student's
            transitions) -> summed divergence.
        student_scores: the student's transition scores at the temperature, float32 [labels, labels].
        teacher_scores: those of each teacher.
    """

    divergence: Callable[..., tf.Tensor]
    student_scores: Callable[[], tf.Tensor]
    teacher_scores: Sequence[Callable[[], tf.Tensor]] = ()


class Answers(Protocol):
    """What answers examples: the predictor of the evaluation room, over any runtime."""

    def answer(self, examples: Iterable[Any], *, probabilities: bool = False) -> Iterator[Any]: ...


class PlainDisplay:
    """Shows the answer to each text below it, value by value.

    Args:
        file: where to.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def show(self, row: Mapping[str, Any]) -> None:
        values = ", ".join(f"{name} {value}" for name, value in row.items() if name != "text")
        self._file.write(f"{escape_controls(str(row.get('text', '')))}\n  {escape_controls(values)}\n")


class Task(Described, ABC):
    """One task. It has no state: what differs from model to model is in its labels, its facts and its head.

    What is not abstract has a default that a task of one's own can leave as it is. `WholeTextTask` (whole_text.py) adds
    those of tasks about whole texts.

    Attributes:
        name: in the configuration (`task`).
        title: of a model, in its card.
        headline: name of the number that chooses the best weights, as in `metrics.json` after `SPLIT/`.
        headline_name: the same in words.
        unit: what speed is counted in, plural; example: what a corpus is a sequence of, plural; labelled: what the
            headline is about, plural.
        suffix: of `predictions/SPLIT.SUFFIX`.
        speed_name: of the speed of answering, in `metrics.json` after `benchmark/`.
        curves: what the learning curve of a report shows: name in words -> key in history.jsonl; empty = the headline.
        caution: what a user of a model has to mind; lines of its card.
        unit_input: name of the input of TFLite files that says where units are; empty = they have none.
        unit_input_meaning: of it.
        pieces_meaning: of the input token_ids.
        warmup_text: that a server warms up with.
        sample_text: that a server's page shows first.
        model_name: in the paths of a server; empty = the name of the task.
        averages_windows: whether the logits of a unit are the mean over several windows of a long text; else each unit
            is scored in one window, and the predictor asserts it.
        labels_words: whether what is labelled are words, so that labels say where words begin.
        unsure_by: how `predict.rank=uncertainty` measures how unsure a model is of a text.
    """

    headline: ClassVar[str]
    headline_name: ClassVar[str]
    unit: ClassVar[str]
    example: ClassVar[str]
    labelled: ClassVar[str]
    suffix: ClassVar[str] = "jsonl"
    speed_name: ClassVar[str] = "answers_per_second"
    curves: ClassVar[dict[str, str]] = {}
    caution: ClassVar[str] = (
        "- On text unlike the training corpus it is right less often: measure it\n  with `--mode=evaluate` on text of "
        "your own."
    )
    unit_input_meaning: ClassVar[str] = ""
    pieces_meaning: ClassVar[str] = "word pieces: [CLS] text [SEP], 0 after the end"
    warmup_text: ClassVar[str] = "Ann Smith met Bob Jones on Monday. It rained. "
    averages_windows: ClassVar[bool] = False
    labels_words: ClassVar[bool] = False

    # Corpora.

    @abstractmethod
    def open_corpus(
        self, config: Config, path: str, *, split: str, labels: Sequence[str] | None = None
    ) -> Corpus:
        """A corpus of any source; with `labels`, an example with another one is an InputError where it is read."""

    def join(self, parts: Sequence[Any]) -> Corpus:
        """Corpora one after the other as one."""
        return join_examples(parts)

    def split_off(self, corpus: Any, *, fraction: float, seed: int) -> tuple[Corpus, Corpus]:
        """What is trained on, and about `fraction` of the corpus to validate on; both have one label set.

        By default each example is set aside, or not, for itself.
        """
        return split_off_examples(corpus, fraction=fraction, seed=seed)

    def labels_of(self, example: Any) -> Iterable[str]:
        """Labels that `summarize` finds at an example; by default one, of the task's own name: the output of a head."""
        return (self.name,)

    def summarize(self, corpus: Any, config: Config) -> Summary:
        """One pass over a corpus."""
        return summarize_examples(corpus, labels_of=self.labels_of, words_of=self.words_of)

    def describe(self, summary: Any) -> str:
        """The size and labels of a corpus, in words."""
        return f"{summary.examples:,} {self.example}, {summary.words:,} words"

    def describe_part(self, summary: Any) -> str:
        """The size of a part that was set aside of a corpus, in words."""
        return self.describe(summary)

    def describe_labels(self, labels: Sequence[str]) -> str:
        """A line of a model card."""
        return f"Labels: {', '.join(labels)}"

    def describe_head(self, config: ModelConfig) -> str:
        """The kind of head, in a model card."""
        return self.name

    def find_oddities(
        self, summary: Any, config: Config, *, training: bool, labels: Sequence[str] = ()
    ) -> list[str]:
        """What a user should know about a corpus that is trained on, or scored; a sentence each.

        Args:
            summary: of the corpus.
            config: by which it was read.
            training: whether it is trained on.
            labels: of the model that it is scored with.
        """
        return []

    def find_repairs(self, summary: Any) -> str:
        """What was repaired in a training corpus, a sentence; empty if nothing was."""
        return ""

    def find_shared(self, train: Any, others: Mapping[str, Any]) -> list[str]:
        """A sentence for each corpus that has too much text in common with the training corpus."""
        return []

    def read_unlabelled(self, sources: Sequence[Any], *, limit_words: int = 0) -> Iterator[Any]:
        """Examples without labels from running text (`find_sources`)."""
        raise InputError(f"data.unlabelled_path must be empty, task={self.name} has no use for text without labels")

    @abstractmethod
    def words_of(self, example: Any) -> Sequence[str]:
        """The words of an example, as word pieces are made of them."""

    # The network.

    def find_facts(
        self, config: Config, summary: Any | None, known: Facts, *, labels: Sequence[str]
    ) -> dict[str, Any]:
        """What a model has to know beside its labels.

        Args:
            config: of the run.
            summary: of the training corpus; None without one.
            known: facts of the model that the run starts from, or its teachers.
            labels: of the model, among which are those of the corpus.
        """
        return dict(known)

    def check_fits(self, summary: Any, facts: Facts) -> None:
        """Before a model of these facts reads a corpus.

        Raises:
            InputError: it is made for another kind of corpus.
        """
        return None

    @abstractmethod
    def build_head(self, labels: Sequence[str], config: ModelConfig, facts: Facts) -> Head:
        """A new head."""

    def segments(self, facts: Facts) -> bool:
        """Whether examples are pairs, so that pieces after the first `[SEP]` of a window are in segment 1."""
        return False

    @abstractmethod
    def build_encoder(
        self, pieces: WordPieces, labels: Sequence[str], data: DataConfig, facts: Facts
    ) -> Encoder:
        """What turns examples into rows."""

    def sequence_loss(
        self, student: TaskModel, teachers: Sequence[TaskModel], temperature: float
    ) -> ChainLoss | None:
        """How whole sequences of labels are compared in distillation; None where labels do not depend on each other."""
        return None

    # Answers and scores.

    @abstractmethod
    def count_units(self, example: Any) -> int:
        """Units of an example: its words, or 1."""

    def group_of(self, example: Any) -> int:
        """A number that neighbours share which must be read together (a document); by default each is read alone."""
        return id(example)

    @abstractmethod
    def decode(self, model: TaskModel, emissions: Sequence[np.ndarray], *, probabilities: bool) -> list[Any]:
        """Logits of the units of each example, float32 [units, labels], to the answers of the task."""

    @abstractmethod
    def score(
        self, model: TaskModel, examples: Sequence[Any], answers: Sequence[Any], config: PredictConfig
    ) -> Scored:
        """A split beside its answers; the minimum score of `config` counts where an answer may be none."""

    @abstractmethod
    def measure_loss(self, model: TaskModel, examples: Sequence[Any], answers: Sequence[Any]) -> float:
        """Mean loss of a unit, as in training but without dropout."""

    @abstractmethod
    def headline_of(self, sums: np.ndarray) -> np.ndarray:
        """Sums of `Scored.counts`, [..., columns], to the headline, [...]."""

    @abstractmethod
    def write_predictions(self, scored: Scored) -> str:
        """The content of `predictions/SPLIT.SUFFIX`: gold and predicted."""

    @abstractmethod
    def list_errors(self, scored: Scored) -> list[dict[str, Any]]:
        """The rows of `errors/SPLIT.jsonl`: every wrong example."""

    def report(self, scored: Scored, errors: Sequence[dict[str, Any]], *, title: str) -> Report:
        """What is shown of a split, whose errors `list_errors` found; by default all its scores."""
        size = f"{scored.units:,} {self.unit}"
        names = {self.headline: self.headline_name[0].upper() + self.headline_name[1:]}
        tiles = tuple((names.get(name, name), f"{value:.4f}") for name, value in scored.metrics.items())
        width = max(len(name) for name, _ in tiles)
        lines = [title, size, "", *(f"{name:<{width}}  {value:>10}" for name, value in tiles)]
        return Report(size=size, text="\n".join(lines) + "\n", tiles=tiles)

    def calibrate(self, model: TaskModel, examples: Sequence[Any], answers: Sequence[Any]) -> dict[str, Any]:
        """Facts that the validation split teaches a trained model, such as a temperature."""
        return {}

    # In use.

    @abstractmethod
    def answer_texts(
        self, model: TaskModel, texts: Sequence[str], answers: Answers, config: PredictConfig
    ) -> Iterator[dict[str, Any]]:
        """A row of `--mode=predict` for each text."""

    def count_answers(self, row: Mapping[str, Any]) -> int:
        """Entities, or labels, of a row of `answer_texts`."""
        return 1

    def find_beliefs(self, model: TaskModel, answers: Sequence[Any]) -> list[Belief]:
        """How probable the model takes what for each example, from its answer (`decode` with probabilities).

        Raises:
            InputError: the task has no probabilities, as by default.
        """
        raise InputError(
            f"predict.rank must be empty: task={self.name} does not say how sure it is of an answer (Task.find_beliefs)"
        )

    def text_of(self, example: Any, position: int) -> int:
        """The number, among the texts of `answer_texts`, of the one that an example is part of.

        Args:
            example: that `answer_texts` asked about.
            position: among all of these examples; by default there is one for each text.
        """
        return position

    def open_display(self, file: IO[str], labels: Sequence[str]) -> Any:
        """What shows rows to a person at a terminal; has `show(row)`."""
        return PlainDisplay(file)

    # Corrections.

    def read_correction(
        self, text: str, answer: Mapping[str, Any], *, labels: Sequence[str], facts: Facts, number: int
    ) -> list[Any]:
        """A text with the answer that a person says is right, as examples to learn from or to score.

        Args:
            text: as it was given to the model.
            answer: of the shape of a row of `answer_texts`, scores left out; its labels are the model's.
            labels: of the model.
            facts: of the model.
            number: of the text; no two texts have the same, and no example of a corpus has it.

        Raises:
            ValueError: why the answer is none, half a sentence that goes on after "the answer".
        """
        raise InputError(f"task={self.name} cannot learn from corrections: its Task has no read_correction")

    def is_learnable(self, example: Any) -> bool:
        """Whether an example of `read_correction` says what to learn; else it is only scored."""
        return True

    def extend_facts(self, facts: Facts, examples: Sequence[Any], *, labels: Sequence[str]) -> dict[str, Any]:
        """The facts of a model that is to learn from more examples; those it was trained with it knows."""
        return dict(facts)

    def show(self, model: TaskModel, example: Any, answer: Any = None) -> tuple[Segment, ...]:
        """The answer to an example as a page shows it; without one, what is right. What differs from it is wrong."""
        return (Segment(str(example if answer is None else answer)),)

    # Exports.

    @abstractmethod
    def build_text_graph(
        self, model: TaskModel, encoder: Encoder, network: NetworkAt, config: PredictConfig
    ) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        """The way from raw strings to answers inside a TensorFlow graph: string [texts] -> `text_outputs`."""

    def graph_settings(self, config: PredictConfig) -> PredictConfig:
        """The settings with which `answer_texts` gives what the text graph of `config` gives."""
        return config

    @property
    @abstractmethod
    def text_outputs(self) -> dict[str, dict[str, Any]]:
        """What `build_text_graph` gives: name -> type, shape and meaning."""

    @abstractmethod
    def rows_from_graph(self, model: TaskModel, found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
        """Outputs of the text graph as rows of `answer_texts`, without the texts."""

    @abstractmethod
    def texts_of(self, examples: Iterable[Any]) -> Iterator[tuple[str, Any]]:
        """A corpus as raw texts, each with what is right about it."""

    @abstractmethod
    def count_text(self, model: TaskModel, text: str, gold: Any, row: Mapping[str, Any]) -> Sequence[Sequence[float]]:
        """Counts, as in `Scored.counts`, of the parts of a text of `texts_of` beside a row of `answer_texts`."""

    @property
    @abstractmethod
    def tflite_outputs(self) -> dict[str, dict[str, Any]]:
        """What `finish_graph` gives: name -> type, shape and meaning; `logits` is among them."""

    def describe_model(self, labels: Sequence[str]) -> str:
        """What a file of the model does, in its metadata."""
        return f"Answers with {', '.join(labels)}."

    @abstractmethod
    def finish_graph(
        self, model: TaskModel, logits: tf.Tensor, inputs: Mapping[str, tf.Tensor], boundary_ids: tuple[int, int]
    ) -> dict[str, tf.Tensor]:
        """The outputs of a TFLite file, in operations that every runtime has.

        Args:
            model: loaded; its weights are read as constants.
            logits: float32 [batch, length, labels].
            inputs: int32 [batch, length]: token_ids, shape_ids, padding_mask and `unit_input`.
            boundary_ids: ids of `[CLS]` and `[SEP]`.
        """

    @abstractmethod
    def alone(self, example: Any, number: int) -> Any:
        """An example without its label and its neighbours, as somebody would ask for it."""

    @abstractmethod
    def make_vector(self, example: Any, answer: Any) -> dict[str, Any]:
        """A test vector that lies beside TFLite files: text and answer of the float model, JSON values."""

    @abstractmethod
    def agrees(
        self,
        model: TaskModel,
        vector: Mapping[str, Any],
        inputs: Mapping[str, np.ndarray],
        found: Mapping[str, np.ndarray],
    ) -> bool:
        """Whether the outputs of an exported model, asked for a test vector, are the float model's answer."""
