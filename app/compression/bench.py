"""Compression room: the bench at which the steps of a compression work (`step.py` says what it lends)."""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from app.compression.unit_times import measure_int8_ms
from app.config import CompressionConfig, InputError, TrainingConfig, with_values
from app.data.dataset import RowStore
from app.data.encoding import Encoder
from app.data.packing import FEATURES
from app.encoder.forward import Replace
from app.encoder.slimming import KeptLayer, cut_layers, cut_vocabulary
from app.evaluation.scoring import build_validation
from app.evaluation.timing import time_calls
from app.one_keras import keras
from app.run.directory import RunDirectory
from app.run.files import discard, json_fault
from app.run.screen import say
from app.tasks import find_task
from app.tasks.bundle import load_model, read_facts, save_model, start_model, with_exits_of
from app.tasks.head import find_boundaries
from app.tasks.network import TaskModel, build_encoder, build_model, with_layers
from app.tasks.running_text import find_sources
from app.tasks.task import Corpus, Summary
from app.text.shapes import NUM_SHAPES
from app.training.distillation.answers import are_kept, keep_answers
from app.training.distillation.assembly import build_distillation, load_teachers
from app.training.distillation.tuner import DistillationTuner
from app.training.fine_tuner import FineTuner, SpecialIds, find_beginnings
from app.training.fit import run_fit
from app.training.sessions import TaskTraining
from app.training.strategy import set_up
from app.training.workers import Workers

LATENCY_CALLS = 30
LATENCY_WARM_UP_CALLS = 5
STAGE_CARD = "A stage of a compression that is under way.\n"


class Workbench:
    """Keeps the tagger on disk between the parts of steps, so that a process that resumes works on the same bits.

    Every part begins with the seed of the run and the tagger that the part before it left in `stages/`.
    """

    def __init__(
        self, training: TaskTraining, labels: Sequence[str], train: Corpus, summary: Summary
    ) -> None:
        self.config: CompressionConfig = training.config.compression
        self.step = ""
        self._training = training
        self._labels = list(labels)
        self._train, self._summary = train, summary
        self._workers = Workers(training.strategy)
        self._encoder: tuple[list[str], Encoder] | None = None
        self._store: tuple[list[str], RowStore] | None = None
        self._answered: tuple[RowStore, RowStore] | None = None  # rows, and the same with answers
        self.state = CompressionState(training.run_dir, writes=self._workers.is_chief)

    @property
    def stage(self) -> Path:
        """The run, or folder like one, with the newest tagger."""
        done = len(self.state.done)
        return self._training.run_dir.stages / str(done) if done else Path(self._training.config.init_from)

    def open_tagger(self) -> TaskModel:
        """The newest tagger, to train; random numbers begin anew."""
        config = self._training.config
        set_up(config.training, seed=config.seed)
        with self._training.strategy.scope():
            folder = str(self.stage)
            bundle = RunDirectory(folder).model
            known = with_exits_of(config, bundle)
            return start_model(known, self._labels, init_from=folder, facts=self._facts(bundle))

    def _facts(self, folder: Path) -> dict[str, Any]:
        """What a model knows, and what its task knows of the corpus that is learnt from."""
        config, known = self._training.config, read_facts(folder)
        task = find_task(config.task)
        return known | task.find_facts(config, self._summary, known, labels=self._labels)

    def once(self, part: str, act: Callable[[TaskModel], TaskModel]) -> None:
        name = f"{self.step}/{part}"
        if name in self.state.done:
            return
        tagger = act(self.open_tagger())
        run_dir, before = self._training.run_dir, self.stage
        number = len(self.state.done) + 1
        if self._workers.is_chief:
            self.save(tagger, run_dir.stages / str(number) / "model", card=STAGE_CARD)
        self.state.done.append(name)
        self.state.save()
        self._workers.wait()
        if self._workers.is_chief:
            if number > 1:
                discard(before)
            discard(run_dir.checkpoints / self.step / part)

    def save(self, tagger: TaskModel, folder: Path, *, card: str) -> None:
        """The tagger as an ordinary bundle."""
        backbone = dataclasses.replace(tagger.backbone, source=self._training.config.backbone.source)
        save_model(dataclasses.replace(tagger, backbone=backbone), folder, shape_count=NUM_SHAPES, card=card)

    def remember(self, name: str, find: Callable[[], float]) -> float:
        key = f"{self.step}/{name}"
        if key not in self.state.numbers:
            (value,) = self._workers.from_chief([find()])  # by every worker: variables are made by all or by none
            self.state.numbers[key] = float(value)
            self.state.save()
        return self.state.numbers[key]

    def say(self, text: str) -> None:
        if self._workers.is_chief:
            say(text)

    def train(
        self,
        tagger: TaskModel,
        *,
        part: str,
        epochs: int,
        view: TaskModel | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        settle: Callable[[], None] | None = None,
        first_kept_epoch: int = 1,
    ) -> TaskModel:
        config = self._training.config
        trained = view or tagger
        encoder = self._encoder_of(tagger)
        settings = dataclasses.replace(
            config.training, epochs=epochs, early_stopping_patience_epochs=0, keep_structure=True
        )
        score = build_validation(trained, encoder, self._training.config)

        def validate() -> dict[str, float]:
            assert score is not None
            if settle:
                settle()
            return score()

        with self._training.strategy.scope():
            tuner = self._tuner(trained, encoder, settings)
        plan = self._training.plan(
            self._rows(tagger),
            settings,
            depths=trained.layer_depths(),
            validate=validate if score else None,
            phase=f"{self.step}/{part}",
            complete=lambda rows: self._with_answers(rows, tuner, settings),
        )
        plan = dataclasses.replace(plan, callbacks=tuple(callbacks), first_kept_epoch=first_kept_epoch)
        with self._training.strategy.scope():
            run_fit(tuner, settings, plan)
        if settle:
            settle()
        return tagger

    def _with_answers(self, rows: RowStore, tuner: FineTuner, settings: TrainingConfig) -> RowStore:
        """The rows with the answers of the run that is compressed if the tuner learns from it; it is asked once for
        all parts in which the vocabulary is the same.
        """
        strategy, epochs = self._training.strategy, settings.epochs
        if not isinstance(tuner, DistillationTuner) or not are_kept(rows, tuner, strategy=strategy, epochs=epochs):
            return rows
        if self._answered is None or self._answered[0] is not rows:
            answered = keep_answers(
                rows,
                tuner,
                strategy=strategy,
                batch_size=settings.batch_size,
                epochs=epochs,
                folders=self._training.answer_folders(),
            )
            self._answered = rows, answered
        return self._answered[1]

    def _tuner(self, student: TaskModel, encoder: Encoder, settings: TrainingConfig) -> FineTuner:
        """Trains on the labels and, with `compression.distill`, on the answers of the run that is compressed."""
        config = self._training.config
        if not self.config.distill:
            return self._training.tuner(student, encoder, settings)
        distill = with_values(
            config.distill, {"teachers": (config.init_from,), "hidden.weight": 0.0, "relation.weight": 0.0}
        )
        tuner, _ = build_distillation(
            student,
            load_teachers(
                distill,
                task=student.task,
                labels=self._labels,
                facts=student.facts,
                compile_setting=settings.compile_activations,
            ),
            distill=distill,
            training=settings,
            special=SpecialIds.of(encoder.pieces),
            seed=config.seed,
            begins_word=find_beginnings(student.task, encoder.pieces),
        )
        return tuner

    def passes(self, tagger: TaskModel, epochs: int) -> int:
        training = self._training.config.training
        return epochs * self._rows(tagger).steps_per_epoch(training.batch_size) * training.accumulation_steps

    def with_layers(self, tagger: TaskModel, replace: Replace) -> TaskModel:
        with self._training.strategy.scope():
            return with_layers(tagger, replace)

    def cut_layers(self, tagger: TaskModel, kept: Sequence[tuple[int, tuple[int, ...], tuple[int, ...]]]) -> TaskModel:
        with self._training.strategy.scope():
            backbone = cut_layers(tagger.backbone, [KeptLayer(*layer) for layer in kept])
            exits = move_exits(tagger.config.exit_layers, [number for number, _, _ in kept])
            return self._rebuilt(tagger, backbone, exits)

    def cut_vocabulary(self, tagger: TaskModel, ids: Sequence[int]) -> TaskModel:
        with self._training.strategy.scope():
            exits = {layer: layer for layer in tagger.config.exit_layers}
            return self._rebuilt(tagger, cut_vocabulary(tagger.backbone, ids), exits)

    def _rebuilt(self, tagger: TaskModel, backbone: Any, exits: Mapping[int, int]) -> TaskModel:
        """The tagger on another backbone; `exits` are the layers of its exits there -> those they had."""
        rebuilt = build_model(
            backbone,
            dataclasses.replace(tagger.config, exit_layers=tuple(exits)),
            task=tagger.task,
            labels=tagger.labels,
            shape_count=NUM_SHAPES,
            facts=tagger.facts,
        )
        values = tagger.own_variables()
        names = {f"exit_{layer}": f"exit_{before}" for layer, before in exits.items()}
        for name, variable in rebuilt.own_variables().items():
            owner, _, rest = name.partition("/")
            variable.assign(values[f"{names.get(owner, owner)}/{rest}"])
        return rebuilt

    def _encoder_of(self, tagger: TaskModel) -> Encoder:
        """Made once a vocabulary; labels and row length stay."""
        vocabulary = tagger.backbone.vocabulary
        if self._encoder is None or self._encoder[0] is not vocabulary:
            self._encoder = (vocabulary, build_encoder(tagger, self._training.config.data))
        return self._encoder[1]

    def _rows(self, tagger: TaskModel) -> RowStore:
        vocabulary = tagger.backbone.vocabulary
        if self._store is None or self._store[0] != vocabulary:
            encoder = self._encoder_of(tagger)
            rows = encoder.training_rows(self._train.examples())
            store = self._training.store(rows, encoder, words=self._summary.words, made_from=self._summary)
            self._store, self._answered = (vocabulary, store), None
        return self._store[1]

    def count_pieces(self, tagger: TaskModel) -> np.ndarray:
        pieces = self._encoder_of(tagger).pieces
        counts = np.zeros(len(pieces.vocabulary), np.int64)
        data = self._training.config.data
        examples = self._train.examples()
        if data.unlabelled_path:
            limit = self._training.config.distill.unlabelled_limit_words
            sources = find_sources(data.unlabelled_path, tfds_dir=data.tfds_dir)
            examples = chain(examples, tagger.task.read_unlabelled(sources, limit_words=limit))
        for example in examples:
            counts += np.bincount(pieces.encode(tagger.task.words_of(example)).ids, minlength=len(counts))
        return counts

    def batches(self, tagger: TaskModel, steps: int) -> Iterator[dict[str, tf.Tensor]]:
        training = self._training.config.training
        dataset = self._rows(tagger).make_dataset(
            batch_size=training.batch_size, seed=self._training.config.seed, epochs=steps
        )
        return iter(dataset.take(steps))

    def loss(self, tagger: TaskModel, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        boundaries = find_boundaries(batch["token_ids"], self._encoder_of(tagger).pieces.boundary_ids)
        logits = tagger.network({name: batch[name] for name in FEATURES}, training=False)
        words = tf.reduce_sum(tf.cast(batch["labels"] >= 0, tf.float32))
        return tagger.head.compute_loss(logits, batch["labels"], boundaries) / tf.maximum(words, 1.0)

    def latency_ms(self, tagger: TaskModel) -> float:
        chief = self._workers.is_chief
        latency = measure_latency_ms(tagger, length=self.config.latency_length) if chief else 0.0
        return self._workers.from_chief([latency])[0]

    def int8_ms(self, taggers: Sequence[TaskModel]) -> list[float]:
        times = self._int8_ms(taggers) if self._workers.is_chief else [0.0] * len(taggers)
        return self._workers.from_chief(times)

    def _int8_ms(self, taggers: Sequence[TaskModel]) -> list[float]:
        loaded = []
        for tagger in taggers:  # by way of a file: exported networks are float32, whatever precision trains
            with tempfile.TemporaryDirectory() as folder:
                self.save(tagger, Path(folder) / "model", card=STAGE_CARD)
                loaded.append(load_model(Path(folder) / "model"))
        boundary_ids = self._encoder_of(taggers[0]).pieces.boundary_ids
        return measure_int8_ms(loaded, length=self.config.latency_length, boundary_ids=boundary_ids)


def move_exits(exits: Sequence[int], kept: Sequence[int]) -> dict[int, int]:
    """Where exits stand when layers are gone: the new layer of each that is left -> the layer it had, ascending.

    An exit stays above the layers that were below it. It goes if none of them is left, or none above it; of two that
    would stand at one place, the deeper stays.

    Args:
        exits: layers, counted from 1.
        kept: numbers of the layers that are kept, from 0, ascending.
    """
    moved = {sum(number < layer for number in kept): layer for layer in exits}
    return {layer: before for layer, before in moved.items() if 0 < layer < len(kept)}


def measure_latency_ms(tagger: TaskModel, *, length: int) -> float:
    """Milliseconds that Keras takes for the logits of one text, the median of some calls.

    Args:
        tagger: float32.
        length: of the text in pieces.
    """
    spec = {name: tf.TensorSpec([1, length], tf.int32) for name in FEATURES}

    @tf.function(input_signature=[spec], autograph=False)
    def forward(features: dict[str, tf.Tensor]) -> tf.Tensor:
        return tagger.network(features, training=False)

    features = {name: tf.ones([1, length], tf.int32) for name in FEATURES}
    seconds = time_calls(lambda: forward(features).numpy(), calls=LATENCY_CALLS, warm_up=LATENCY_WARM_UP_CALLS)
    return 1000 * seconds


# What a compression has done so far, in `compression.json`, and its table, in `compression.txt`.


_COLUMNS = (
    ("after", "step", "{}"),
    ("parameters", "parameters", "{:,}"),
    ("not zero", "nonzero_parameters", "{:,}"),
    ("sparsity", "sparsity", "{:.3f}"),
    ("values", "distinct_values", "{:,}"),
    ("weights MB", "weights_mb", "{:.2f}"),
    ("gzip MB", "gzip_mb", "{:.2f}"),
    ("valid F1", "valid_f1", "{:.4f}"),
    ("other F1", "other_f1", "{:.4f}"),
    ("pieces/word", "pieces_per_word", "{:.3f}"),
    ("Keras ms", "latency_ms", "{:.2f}"),
)


_KEPT = ("done", "numbers", "rows", "finished")


class CompressionState:
    """Parts of steps that are done, numbers that were found once, and the table; every change is on disk at once.

    Args:
        run_dir: of the compression.
        writes: whether this process writes; other workers only read along.
    """

    def __init__(self, run_dir: RunDirectory, *, writes: bool) -> None:
        self._run_dir, self._writes = run_dir, writes
        self.done: list[str] = []
        self.numbers: dict[str, float] = {}
        self.rows: list[dict[str, Any]] = []
        self.finished = False
        if run_dir.compression_json.is_file():
            self._read(run_dir.compression_json)

    def _read(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not valid JSON: {json_fault(error)}; use --overwrite") from error
        kinds = {name: type(getattr(self, name)) for name in _KEPT}
        if not isinstance(found, dict) or any(type(found.get(name)) is not kind for name, kind in kinds.items()):
            must_be = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
            raise InputError(f"{path} must be an object with {must_be}; it is damaged, use --overwrite")
        vars(self).update({name: found[name] for name in _KEPT})

    def save(self) -> None:
        if self._writes:
            values = {name: getattr(self, name) for name in _KEPT}
            self._run_dir.write_json(self._run_dir.compression_json, values)
            self._run_dir.write_text(self._run_dir.compression_txt, self.table())

    def table(self) -> str:
        """The rows as text: columns that no row has are left out."""
        columns = [column for column in _COLUMNS if any(row.get(column[1]) is not None for row in self.rows)]
        cells = [[title for title, _, _ in columns]]
        for row in self.rows:
            cells.append([form.format(row[key]) if row.get(key) is not None else "-" for _, key, form in columns])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in cells]
        return "".join(f"{line.rstrip()}\n" for line in lines)
