"""Search room: a space as Optuna knows it, and the configuration of a trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from app.config import Config, InputError, Space, TuneConfig, fields_by_key, with_values
from app.config.rules import with_trial_values
from app.config.tune import trial_mode

_PLAIN = (str, bool, int, float)  # what Optuna keeps as a category


def build_distribution(values: Any) -> BaseDistribution:
    """What Optuna draws from, for the values that a key of the space may take."""
    if isinstance(values, list):
        return CategoricalDistribution([each if isinstance(each, _PLAIN) else json.dumps(each) for each in values])
    low, high, step, log = values["low"], values["high"], values.get("step"), values.get("log", False)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)


def is_within(value: Any, distribution: BaseDistribution) -> bool:
    """Whether a value can have been drawn."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    whole = isinstance(distribution, IntDistribution)
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    return is_number and distribution.low <= value <= distribution.high


def described(distribution: BaseDistribution) -> str:
    """What can be drawn, in words."""
    if isinstance(distribution, CategoricalDistribution):
        return f"one of {', '.join(map(str, distribution.choices))}"
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    kind = "a whole number" if isinstance(distribution, IntDistribution) else "a number"
    return f"{kind} from {distribution.low} to {distribution.high}"


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """The values of a trial; what it has already, from a process that was killed, stays.

    Raises:
        InputError: another program asks for values (`optuna.Study.enqueue_trial`) that the space does not have.
    """
    distributions = {key: build_distribution(values) for key, values in space.items()}
    for key, value in trial.storage.get_trial(trial._trial_id).system_attrs.get("fixed_params", {}).items():
        if key not in distributions or not is_within(value, distributions[key]):
            allowed = described(distributions[key]) if key in distributions else f"only {', '.join(distributions)}"
            raise InputError(f"another program asks for {key}={value!r}, tune.space has {allowed}")
    return read_params({key: _draw(trial, key, by) for key, by in distributions.items()}, space)


def _draw(trial: Trial, key: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, IntDistribution):
        low, high = distribution.low, distribution.high
        return trial.suggest_int(key, low, high, log=distribution.log, step=distribution.step)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(
        key, distribution.low, distribution.high, log=distribution.log, step=distribution.step
    )


def read_params(params: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """Values of settings, for what Optuna calls parameters."""
    lists = {key for key, values in space.items() if isinstance(values, list) and isinstance(values[0], list)}
    return {key: json.loads(value) if key in lists else value for key, value in params.items()}


def build_trial_config(config: Config, values: Mapping[str, Any], *, seed: int | None = None) -> Config:
    """What a trial trains with. It has no test corpus: a search sees none of it.

    Args:
        config: of the search.
        values: of the space.
        seed: of the training; None = the search's.

    Raises:
        InputError: the values do not go together.
    """
    own: dict[str, Any] = {"data.test_path": "", "evaluation.split": "valid"}
    if trial_mode(config.tune) == "compress":
        own |= {
            "compression.trim_vocabulary.other_path": "",
            "export.formats": (config.tune.tflite_file,),
            "export.max_f1_loss": 100.0,  # a bad file is a result, too
        }
    if seed is not None:
        own["seed"] = seed
    return with_trial_values(with_values(without_search(config), own), values)


def without_search(config: Config) -> Config:
    """The configuration of an ordinary run: no section tune, and no secret."""
    secrets = [key for key, known in fields_by_key().items() if known.metadata.get("secret")]
    others = {key: "" for key in secrets if not key.startswith("tune.")}  # which would bring the section back
    return with_values(config, others | {"tune": TuneConfig()})
