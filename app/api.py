"""The program from Python: a run's model that answers texts, and training, without the command line.

    from app.api import load, train

    model = load("runs/finetune")
    model.predict(["Ada Lovelace lived in London."])

    train(run_dir="runs/quick", **{"training.epochs": 1})

What is wrong with an argument, a setting or a run is an `app.config.InputError` of one sentence. Importing this module
imports nothing heavy; TensorFlow comes with the first `load` or `train`, or may be there already.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from app import checks
from app.config import TRAINING_MODES, Config, InputError, fields_by_key
from app.config.loading import Source, load_config
from app.config.paths import expand
from app.data.documents import check_texts, divide_texts
from app.evaluation.manifest import find_export, newest_version
from app.run.directory import Request, RunDirectory
from app.run.request import import_mode, load_run_config
from app.run.screen import heartbeat

if TYPE_CHECKING:
    from app.config import PredictConfig
    from app.evaluation.predictor import Predictor
    from app.tasks.network import TaskModel

__all__ = ["InputError", "Model", "load", "train"]

RUNTIMES: tuple[str, ...] = tuple(fields_by_key()["predictor"].metadata["choices"])
_loading = Lock()  # while a model is built, Keras has one precision for all threads


class Model:
    """The model of a run, in memory. Made by `load`; several threads may use one, and it answers them in turn.

    Attributes:
        run_dir: the run it is from.
        runtime: what computes its answers: "keras", "tflite" or "saved_model".
        task: what it was trained for: "tagging", "classification", or the name of a task of your own.
        labels: what its answers are made of, in the order of their ids: tags such as B-PER, or classes.
    """

    def __init__(
        self, run_dir: RunDirectory, runtime: str, *, model: TaskModel, predictor: Predictor, config: PredictConfig
    ) -> None:
        self.run_dir: Path = run_dir.path
        self.runtime = runtime
        self.task: str = model.task.name
        self.labels: tuple[str, ...] = tuple(model.labels)
        self._model, self._predictor, self._config = model, predictor, config
        self._answering = Lock()

    def predict(self, texts: str | Iterable[str | Sequence[str]]) -> list[dict[str, Any]]:
        """Answers texts: a row for each, in their order, as `--mode=predict` writes it.

        Of a tagger, offsets count characters of the text and exclude the end:

            >>> model.predict(["Ada Lovelace lived in London."])  # doctest: +SKIP
            [{'text': 'Ada Lovelace lived in London.', 'entities': [
                {'start': 0, 'end': 12, 'label': 'PER', 'text': 'Ada Lovelace', 'score': 0.9568},
                {'start': 22, 'end': 28, 'label': 'LOC', 'text': 'London', 'score': 0.9429}]}]

        Of a classifier, `label` is None for a text without a word, and where the score is below `min_score`:

            >>> model.predict(["Sales rose."])  # doctest: +SKIP
            [{'text': 'Sales rose.', 'label': 'positive', 'score': 0.97, 'scores': {'negative': 0.01, ...}}]

        Where a text may leave the network early (`max_f1_loss`), its row has the `layer` of the word that went deepest.

        Args:
            texts: a list, or anything to iterate over, such as a column of a table. One text is a list of one. Where a
                classifier was trained on pairs, each is a pair, `("first text", "second text")`, or one text with a tab
                between the two.

        Raises:
            InputError: something among the texts is no text, or no text that can be answered; none is then.
        """
        from app.evaluation.layers import answer_with_layers

        documents = check_texts(texts, pairs=self._model.task.segments(self._model.facts))
        rows: list[dict[str, Any]] = []
        with self._answering:
            for part in divide_texts(documents):
                rows += answer_with_layers(part, self._predictor, self._config)
        return rows

    def rank(
        self, texts: str | Iterable[str], *, by: str = "uncertainty", top: int = 0, other: Model | None = None
    ) -> list[dict[str, Any]]:
        """Answers texts, in the order in which a person should look at them, the model least sure of the first.

            >>> model.rank(texts, top=100)  # doctest: +SKIP
            [{'text': ..., 'uncertainty': 0.41, 'rank': 1, 'occurrences': 1, 'number': 3071, ...}, ...]

        Args:
            texts: as for `predict`.
            by: "uncertainty" (by the measure for the task), "least_confidence", "margin", "entropy", "diversity" (the
                least sure text of each kind of text) or "disagreement" (where `other` answers differently).
            top: how many rows there are at most; 0 = as many as different texts.
            other: a model of the same task and labels, for by="disagreement".

        Returns:
            rows of `predict`, one for each different text, with `uncertainty` (0 to 1), `rank` (from 1), `occurrences`
            (how often the text is among `texts`) and `number`, its first place there.

        Raises:
            InputError: as `predict`; or `by` is unknown or needs `other`, or `other` is of another task or labels.
        """
        from app.evaluation.ranking import rank_texts

        if isinstance(top, bool) or not isinstance(top, int) or top < 0:
            raise InputError(f"top must be a whole number from 0, received {top!r}")
        pairs = self._model.task.segments(self._model.facts)
        documents, second = check_texts(texts, pairs=pairs), None if other is None else other._predictor
        locks = {id(each): each._answering for each in (self, other) if each is not None}
        with ExitStack() as stack:
            for _, lock in sorted(locks.items()):  # in one order, so that two threads never wait for each other
                stack.enter_context(lock)
            return rank_texts(
                self._model, self._predictor, documents, by=by, top=top, other=second, config=self._config
            )

    def __repr__(self) -> str:
        return f"<{self.task} model of {self.run_dir} by {self.runtime}, {len(self.labels)} labels>"


def load(
    run_dir: str | os.PathLike[str],
    runtime: str = "keras",
    *,
    file: str = "int8",
    config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    **settings: Any,
) -> Model:
    """The model of a finished run, ready to answer.

        >>> model = load("runs/finetune")  # doctest: +SKIP
        >>> model = load("runs/finetune", min_score=0.9, drop_non_names=False)  # doctest: +SKIP
        >>> model = load("runs/finetune", "tflite", file="float16")  # doctest: +SKIP

    Args:
        run_dir: made by `--mode=finetune`, `distill` or `compress`, or by `train`.
        runtime: "keras", or that of an export: "tflite" or "saved_model".
        file: of runtime "tflite": which file of `export/tflite`, without its ending.
        config: what differs from the run's own configuration: a YAML file, sections such as
            {"predict": {"min_score": 0.9}}, or a whole `Config`.
        settings: settings over those, of the section predict by their names (`min_score`, `target_precision`,
            `max_f1_loss`, `split_sentences`, `drop_non_names`, `batch_size`), others as in
            `**{"data.overlap_tokens": 64}`.

    Raises:
        InputError: there is no such run, it is not finished or damaged, it has no such export, or a setting is wrong.
    """
    run = RunDirectory(_path(run_dir, "run_dir"))
    run.require_run("run_dir")
    if runtime not in RUNTIMES:
        raise InputError(f"runtime must be one of {', '.join(RUNTIMES)}, received {runtime!r}")
    chosen = {key if "." in key else f"predict.{key}": value for key, value in settings.items()}
    resolved = load_config(_source(config), chosen, defaults=str(run.config_yaml))
    checks.check_model(resolved, run)
    _check_export(run, runtime, file)
    with heartbeat(f"loading {run}"), _precision_kept():
        from app.evaluation.runtimes import OPENERS, build_predictor
        from app.tasks.bundle import load_model
        from app.tasks.network import build_encoder

        model = load_model(run.model)
        forward, early = OPENERS[runtime](run, file, model, resolved.predict)
        predictor = build_predictor(
            model,
            build_encoder(model, resolved.data),
            batch_size=resolved.predict.batch_size,
            forward=forward,
            config=resolved.predict,
            early=early,
        )
    return Model(run, runtime, model=model, predictor=predictor, config=resolved.predict)


def train(
    config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    *,
    mode: str = "finetune",
    run_dir: str | os.PathLike[str],
    overwrite: bool = False,
    **settings: Any,
) -> dict[str, float]:
    """Trains as `python -m app.main --mode=MODE` does, and returns the numbers of the run's metrics.

        >>> train("configs/finetune_conll2003.yaml", run_dir="runs/conll2003")  # doctest: +SKIP
        >>> train(run_dir="runs/quick", seed=3, **{"training.epochs": 1})  # doctest: +SKIP
        >>> train({"data": {"train_path": "mine.conll"}}, run_dir="runs/mine")["valid/entity_f1"]  # doctest: +SKIP

    An interrupted run is resumed by the same call. Training sets the seeds of the process; two runs of the same seed
    are equal to the last bit if each is the first that computes with TensorFlow in its process.

    Args:
        config: a YAML file, sections, a whole `Config`, or None for the default of the mode.
        mode: "pretrain", "finetune", "distill", "compress", "update", or "tune" for many trainings.
        run_dir: where everything is written.
        overwrite: start over in an existing run directory.
        settings: settings over `config`, as those of `--set`: `seed=3`, `**{"training.epochs": 1}`, or a section,
            `training={"epochs": 1}`.

    Raises:
        InputError: a setting, a corpus or the run directory is wrong.
        RunError: the run failed.
    """
    if mode not in TRAINING_MODES:
        raise InputError(f"mode must be one of {', '.join(TRAINING_MODES)}, received {mode!r}")
    run = RunDirectory(_path(run_dir, "run_dir"))
    request = Request(load_run_config(mode, run, _source(config), settings), run, overwrite)
    checks.check(mode, request)
    with heartbeat(f"{mode}: loading TensorFlow"):
        module = import_mode(mode)
    with _precision_kept(alone=False):
        return dict(module.run(request))


def _path(path: Any, name: str) -> str:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise InputError(f"{name} must be a path, received {path!r}")
    return expand(os.fsdecode(path), name=name)


def _source(config: Any) -> Source:
    if isinstance(config, Config):
        return dataclasses.asdict(config)
    return config if config is None or isinstance(config, Mapping) else _path(config, "config")


def _check_export(run: RunDirectory, runtime: str, file: str) -> None:
    """Raises InputError if the export that a runtime needs is not there, and tells why if it was refused."""
    if runtime != "keras" and run.refused_exports.is_file():
        from app.evaluation.runtimes import mention_refused

        mention_refused(run, runtime, file)
    if runtime == "tflite":
        find_export(run.tflite, file, setting="file")
    elif runtime == "saved_model":
        newest_version(run.saved_model)


@contextmanager
def _precision_kept(*, alone: bool = True) -> Iterator[None]:
    """Gives the caller's precision back to Keras: models are loaded in float32, trainings set their own.

    Args:
        alone: whether others wait who load a model; a training may take days.
    """
    from app.one_keras import keras

    if alone:
        with _loading, _precision_kept(alone=False):
            yield
        return
    before = keras.mixed_precision.global_policy()
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)
