"""Every setting, its default, its meaning and what is allowed: one file a subject. Imports no TensorFlow.

Each section is a frozen dataclass and goes alone to the functions it is for. `app.config.loading` reads and
writes them as YAML; it knows no setting by name, only the type and metadata each field has here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from app.config.benchmark import BenchmarkConfig, FrontierConfig
from app.config.compression import (
    ClusterConfig,
    CompressionConfig,
    PruneMagnitudeConfig,
    PruneStructuredConfig,
    QuantizeAwareConfig,
    TrimVocabularyConfig,
)
from app.config.data import DataConfig
from app.config.distillation import DistillConfig, HiddenStatesConfig, RelationConfig
from app.config.encoder import BackboneConfig, ModelConfig
from app.config.evaluation import RANKS, EvaluationConfig, PredictConfig
from app.config.export import ExportConfig
from app.config.feedback import FeedbackConfig
from app.config.options import (
    HANDLES,
    PATH_KINDS,
    TASK_MODES,
    TRAINING_MODES,
    InputError,
    LostWorkerError,
    RunError,
    Terminated,
    option,
)
from app.config.pretraining import PretrainConfig
from app.config.serving import ServeConfig
from app.config.task import TASK_DEFAULTS, TASKS, ClassificationConfig, register_task, task_names
from app.config.training import MaskedLmConfig, TrainingConfig
from app.config.tune import Space, TuneConfig
from app.config.update import UpdateConfig

__all__ = [
    "FOUND_BY_TRIAL",
    "HANDLES",
    "MODE_DEFAULTS",
    "OF_THE_MODEL",
    "PATH_KINDS",
    "RANKS",
    "TASKS",
    "TASK_DEFAULTS",
    "TASK_MODES",
    "TRAINING_MODES",
    "BackboneConfig",
    "BenchmarkConfig",
    "ClassificationConfig",
    "ClusterConfig",
    "CompressionConfig",
    "Config",
    "DataConfig",
    "DistillConfig",
    "EvaluationConfig",
    "ExportConfig",
    "FeedbackConfig",
    "FrontierConfig",
    "HiddenStatesConfig",
    "InputError",
    "LostWorkerError",
    "MaskedLmConfig",
    "ModelConfig",
    "PredictConfig",
    "PretrainConfig",
    "PruneMagnitudeConfig",
    "PruneStructuredConfig",
    "QuantizeAwareConfig",
    "RelationConfig",
    "RunError",
    "ServeConfig",
    "Space",
    "Terminated",
    "TrainingConfig",
    "TrimVocabularyConfig",
    "TuneConfig",
    "UpdateConfig",
    "fields_by_key",
    "flatten",
    "register_task",
    "trained_settings",
    "with_values",
]

# Settings whose 0 stands for a number that is found by trial when a run starts, and written to its config.yaml.
FOUND_BY_TRIAL = ("data.max_length", "training.accumulation_steps")
# Settings that a run has in common with the runs it is made from (init_from, teachers), whatever else it changes.
OF_THE_MODEL = ("task", "classification.multi_label")


# Where a mode's own default differs from the general one: a first try that takes about three minutes on two cores.
MODE_DEFAULTS: dict[str, dict[str, str]] = {
    "pretrain": {"training.epochs": "3", "training.batch_size": "8", "training.learning_rate": "1e-4"},
    "tune": {"training.epochs": "4", "training.tensorboard": "false"},
}

_Section = TypeVar("_Section")


@dataclass(frozen=True)
class Config:
    """The whole configuration. Functions receive the section they need, never this.

    Sections may have sections of their own: "compression.prune_structured.rounds" is a key as "seed" is. The `trains`
    of a section are those of its settings (`option`); a section that says nothing has those of the section it is in,
    at the top all training modes.
    """

    task: str = option(
        TASKS[0],
        "what is learnt: tagging (entities in a text), classification (labels of a whole text), or a task of your own",
        choices=task_names,
        trains=TASK_MODES,
    )
    data: DataConfig = field(default=DataConfig(), metadata={"trains": TASK_MODES})
    backbone: BackboneConfig = field(default=BackboneConfig())
    model: ModelConfig = field(default=ModelConfig(), metadata={"trains": TASK_MODES})
    classification: ClassificationConfig = field(default=ClassificationConfig(), metadata={"trains": TASK_MODES})
    training: TrainingConfig = field(default=TrainingConfig())
    pretrain: PretrainConfig = field(default=PretrainConfig(), metadata={"trains": ("pretrain",)})
    distill: DistillConfig = field(default=DistillConfig(), metadata={"trains": ("distill", "compress", "tune")})
    compression: CompressionConfig = field(default=CompressionConfig(), metadata={"trains": ("compress", "tune")})
    evaluation: EvaluationConfig = field(default=EvaluationConfig(), metadata={"trains": ()})
    predict: PredictConfig = field(default=PredictConfig(), metadata={"trains": ()})
    export: ExportConfig = field(default=ExportConfig(), metadata={"trains": ()})
    serve: ServeConfig = field(default=ServeConfig(), metadata={"trains": ()})
    update: UpdateConfig = field(default=UpdateConfig(), metadata={"trains": ("update",)})
    tune: TuneConfig = field(default=TuneConfig(), metadata={"trains": ("tune",)})
    feedback: FeedbackConfig = field(default=FeedbackConfig(), metadata={"trains": ()})
    benchmark: BenchmarkConfig = field(default=BenchmarkConfig(), metadata={"trains": ()})
    predictor: str = option(
        "keras", "runtime that --mode=evaluate scores", choices=("keras", "tflite", "saved_model"), trains=()
    )
    seed: int = option(0, "seed of every random choice", at_least=0, at_most=2**31 - 1)
    init_from: str = option(
        "",
        "run directory whose model training starts from; empty = the pretrained backbone",
        path="path",
        trains=TASK_MODES,
    )


@dataclass(frozen=True)
class _Setting:
    key: str
    field: dataclasses.Field[Any]
    value: Any
    trains: tuple[str, ...]


def flatten(config: Config) -> dict[str, Any]:
    """All settings as {"section.key": value}, in their order; of nested sections {"section.section.key": value}."""
    return {each.key: each.value for each in _walk(config)}


def fields_by_key() -> dict[str, dataclasses.Field[Any]]:
    """The dataclass field of every key "section.key"."""
    return {each.key: each.field for each in _walk(Config())}


def trained_settings(mode: str) -> frozenset[str]:
    """Keys of the settings that change the model which a training mode makes, or which any of them makes for no mode.

    A setting that says nothing counts for all modes of its section, and a section that says nothing for all modes of
    the one it is in.
    """
    return frozenset(each.key for each in _walk(Config()) if (mode in each.trains if mode else each.trains))


def with_values(config: _Section, values: Mapping[str, Any]) -> _Section:
    """A copy of a configuration, or of a section, with other values of some keys, which count from there."""
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        name, _, rest = key.partition(".")
        if rest:
            inner.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    own.update({name: with_values(getattr(config, name), rest) for name, rest in inner.items()})
    return dataclasses.replace(config, **own)  # type: ignore[type-var]


def _walk(config: Any, prefix: str = "", trains: tuple[str, ...] = TRAINING_MODES) -> Iterator[_Setting]:
    for known in dataclasses.fields(config):
        value, modes = getattr(config, known.name), known.metadata.get("trains", trains)
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f"{prefix}{known.name}.", modes)
        else:
            yield _Setting(prefix + known.name, known, value, modes)
