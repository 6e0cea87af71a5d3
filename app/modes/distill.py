"""Modes room: a small tagger learns from finished runs, on labelled and unlabelled text."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import tensorflow as tf

from app.config import Config
from app.config.rules import require_text
from app.data.dataset import RowStore
from app.data.encoding import Encoder
from app.data.packing import IGNORED, Example
from app.encoder.activation import compile_activations
from app.evaluation.scoring import build_validation, finish_run, score_again
from app.run.directory import Request, RunDirectory
from app.run.screen import heartbeat, say
from app.tasks import find_task
from app.tasks.bundle import read_facts, read_labels, start_model
from app.tasks.corpora import (
    TEACHERS,
    Corpora,
    check_other_splits,
    describe_corpora,
    describe_scores,
    describe_weights,
    labelled_sources,
    open_split,
    report_training_corpus,
    summarize,
    summarize_unlabelled,
)
from app.tasks.network import TaskModel, build_encoder, build_model
from app.tasks.running_text import Source, find_sources
from app.tasks.task import Corpus, Facts, Summary, Task
from app.text.shapes import NUM_SHAPES
from app.training.distillation.answers import keep_answers
from app.training.distillation.assembly import (
    build_distillation,
    load_teachers,
    read_teacher_labels,
)
from app.training.distillation.student import build_from_layers, copy_head
from app.training.distillation.teachers import check_same_labels, has_tagger
from app.training.distillation.tuner import DistillationTuner
from app.training.fine_tuner import SpecialIds, find_beginnings
from app.training.fit import run_fit
from app.training.sessions import TaskTraining, open_run, say_devices
from app.training.strategy import build_strategy, list_devices, set_up
from app.training.workers import Workers

MODE = "distill"


def run(request: Request) -> dict[str, float]:
    """Distils, then scores the validation and the test split."""
    config, run_dir = request.config, request.run_dir
    if run_dir.plan_training(config, mode=MODE, overwrite=request.overwrite) == "finished":
        return score_again(request, mode=MODE)
    strategy = build_strategy(config.training)  # before anything computes with TensorFlow
    workers = Workers(strategy)
    text = _Text.of(config, read_teacher_labels(config.distill, task=config.task))
    facts = _find_facts(config, text)
    others = check_other_splits(config, text.labels, train=text.corpus, words=text.labelled_words, facts=facts)
    corpora = describe_corpora(config.data, {"train": text.summary, **others}) | text.unlabelled
    corpora |= describe_weights(TEACHERS, config.distill.teachers)
    if config.init_from:
        check_same_labels(config.init_from, read_labels(RunDirectory(config.init_from).model), text.labels)
    with workers.watched(run_dir.path), ExitStack() as opened:
        precision = set_up(config.training, seed=config.seed)
        say_devices(list_devices(strategy), precision, workers)
        with strategy.scope():
            teachers = load_teachers(
                config.distill,
                task=text.task,
                labels=text.labels,
                facts=facts,
                compile_setting=config.training.compile_activations,
            )
            student = _build_student(config, teachers[0], text.labels, facts)
            subject = _Subject.of(student, teachers, config)
        opened.enter_context(open_run(request, workers, mode=MODE, corpora=corpora))
        if workers.is_chief:
            say(
                f"{text.labelled_words:,} labelled and {text.unlabelled_words:,} unlabelled words | teachers "
                f"{', '.join(config.distill.teachers)} | {strategy.num_replicas_in_sync} replica(s), {precision}"
            )
        metrics = _train(subject, text, TaskTraining(config, run_dir, strategy, precision))
        if not workers.is_chief:
            return metrics
        metrics["distill/parameters"] = student.network.count_params()
        metrics["distill/teacher_parameters"] = sum(teacher.network.count_params() for teacher in teachers)
        card = _card(config, text.task, text.labels, metrics)
        return finish_run(student, metrics, card=card, config=config, run_dir=run_dir, mode=MODE)


@dataclass(frozen=True)
class _Text:
    """What the student learns on: a labelled corpus, unlabelled text, or both.

    Attributes:
        task: what is learnt.
        labels: of the student and all teachers.
        corpus: the training corpus, or None.
        summary: of the corpus.
        sources: unlabelled text.
        limit_words: read from it; 0 is all.
        unlabelled_words: that are read from it.
        unlabelled: it, as an entry of `corpora.json`; empty without any.
    """

    task: Task
    labels: tuple[str, ...]
    corpus: Corpus | None
    summary: Summary | None
    sources: tuple[Source, ...]
    limit_words: int
    unlabelled_words: int
    unlabelled: Corpora

    @classmethod
    def of(cls, config: Config, labels: Sequence[str] | None) -> "_Text":
        """Reads everything once.

        Raises:
            InputError: a fault of a text, a label that the teachers do not know, or no text at all.
        """
        require_text(config.data, teachers_tag=labels is not None)
        task = find_task(config.task)
        corpus = open_split(config, "train", labels=labels)
        path, limit = config.data.unlabelled_path, config.distill.unlabelled_limit_words
        summary = summarize(corpus, config) if corpus else None
        if summary:
            report_training_corpus(summary, config)
        if labels is None:
            assert summary is not None
            labels = summary.labels
        sources = find_sources(path, tfds_dir=config.data.tfds_dir) if path else []
        with heartbeat("reading data.unlabelled_path"):
            words, unlabelled = summarize_unlabelled(task, sources, limit_words=limit) if path else (0, {})
        return cls(task, tuple(labels), corpus, summary, tuple(sources), limit, words, unlabelled)

    @property
    def labelled_words(self) -> int:
        return self.summary.words if self.summary else 0

    def rows(self, encoder: Encoder) -> Iterator[Example]:
        if self.corpus:
            yield from encoder.training_rows(self.corpus.examples())
        if self.sources:
            yield from encoder.training_rows(self.task.read_unlabelled(self.sources, limit_words=self.limit_words))

    def store(self, encoder: Encoder, training: TaskTraining) -> RowStore:
        """All rows, shuffled together, with word numbers beside the labels: what is to be compared."""
        store = training.store(
            self.rows(encoder),
            encoder,
            words=self.labelled_words + self.unlabelled_words,
            made_from=(self.summary, self.sources, self.limit_words),
        )
        store.empty_row = {**store.empty_row, "unit_ids": tf.fill([store.max_length], IGNORED)}
        return store


def _find_facts(config: Config, text: _Text) -> Facts:
    """What the student has to know.

    Raises:
        InputError: a teacher, or the run that the student begins as, is made for other corpora than there are.
    """
    folders = [RunDirectory(source).model for source in config.distill.teachers if has_tagger(source)]
    known = [read_facts(folder) for folder in folders]
    facts = text.task.find_facts(config, text.summary, known[0] if known else {}, labels=text.labels)
    if config.init_from:
        known.append(read_facts(RunDirectory(config.init_from).model))
    for each in known if text.summary else ():
        text.task.check_fits(text.summary, each)
    return facts


def _build_student(config: Config, teacher: TaskModel, labels: Sequence[str], facts: Facts) -> TaskModel:
    """The run `init_from` if it is given, else layers of the teacher with its head, else `backbone.source`."""
    if config.init_from or config.distill.student == "backbone":
        return start_model(config, labels, init_from=config.init_from, facts=facts)
    backbone = build_from_layers(
        teacher.backbone,
        config.distill.student_layers,
        dropout=config.backbone.dropout,
        attention_dropout=config.backbone.attention_dropout,
    )
    compile_activations(backbone.model, config.training.compile_activations)
    student = build_model(
        backbone,
        config.model,
        task=find_task(config.task),
        labels=labels,
        shape_count=NUM_SHAPES,
        facts=facts,
        freeze_embeddings=config.training.freeze_embeddings,
    )
    copy_head(teacher, student)
    return student


@dataclass(frozen=True)
class _Subject:
    """What is trained: the student, the encoder of its rows, and the tuner with the depths of its variables."""

    student: TaskModel
    encoder: Encoder
    tuner: DistillationTuner
    depths: Sequence[int]

    @classmethod
    def of(cls, student: TaskModel, teachers: Sequence[TaskModel], config: Config) -> "_Subject":
        """Call inside the strategy's scope.

        Raises:
            InputError: student and teachers cannot be compared as asked.
        """
        for tagger in teachers:
            build_encoder(tagger, config.data)  # rows must not be longer than a teacher can read
        encoder = build_encoder(student, config.data)
        tuner, depths = build_distillation(
            student,
            teachers,
            distill=config.distill,
            training=config.training,
            special=SpecialIds.of(encoder.pieces),
            seed=config.seed,
            begins_word=find_beginnings(student.task, encoder.pieces),
        )
        return cls(student, encoder, tuner, depths)


def _train(subject: _Subject, text: _Text, training: TaskTraining) -> dict:
    settings = training.config.training
    complete = partial(
        keep_answers,
        tuner=subject.tuner,
        strategy=training.strategy,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        folders=training.answer_folders(),
    )
    validate = build_validation(subject.student, subject.encoder, training.config)
    store = text.store(subject.encoder, training)
    plan = training.plan(store, settings, depths=subject.depths, validate=validate, complete=complete)
    with training.strategy.scope():
        return run_fit(subject.tuner, settings, plan)


def _card(config: Config, task: Task, labels: Sequence[str], metrics: dict) -> str:
    """The model card beside the weights."""
    texts = ", ".join(f"`{path}`" for path in (*labelled_sources(config.data), config.data.unlabelled_path) if path)
    distill = config.distill
    weights = {
        "labels": distill.labels_weight,
        "soft": distill.soft_weight,
        "chain": distill.chain_weight,
        "hidden": distill.hidden.weight,
        "relation": distill.relation.weight,
    }
    losses = ", ".join(f"{name} {weight:g}" for name, weight in weights.items() if weight)
    return f"""# {task.title}, distilled

- {task.describe_labels(labels)}
- Teachers: {", ".join(f"`{source}`" for source in config.distill.teachers)}; losses: {losses}; temperature
  {config.distill.temperature:g}
- Parameters: {metrics["distill/parameters"]:,}; all teachers together: {metrics["distill/teacher_parameters"]:,}
- Trained on: {texts}, {metrics["train/epochs"]} epochs, seed {config.seed}
{describe_scores(task, metrics)}
{task.caution}
- Use: `python -m app.main --mode=predict --run_dir=RUN --input=FILE`
"""
