"""Run room: the modes by name, and the configuration that a user's settings make for one. Imports no TensorFlow.

What is asked of a mode is the same whoever asks: the command line (`app.main`) or a program (`app.api`).
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

from app.config import TASK_MODES, Config, with_values
from app.config.loading import Settings, Source, load_config, load_setting, with_setting
from app.config.paths import expand
from app.config.rules import require_search
from app.config.tune import USUAL_SPACES, trial_mode
from app.config.update import ACTIONS, chosen_actions
from app.run.directory import RunDirectory


class Mode(NamedTuple):
    """A mode: `module` has `run(request: Request) -> dict[str, float]`."""

    module: str
    description: str
    works_on: str = ""  # works on the finished run of this mode, with that run's configuration
    starts_from: str = ""  # a run of its own, made from init_from (else this mode's run) with that run's configuration
    learns_from: tuple[str, ...] = ()  # settings that name runs; of their configurations, what is `OF_THE_MODEL` holds
    accepts: tuple[str, ...] = ()  # flags that only some modes take
    stopped: str = "the same command{again} resumes the run"  # what is said of a training that was interrupted
    is_quick: Callable[[Config], bool] = lambda config: False  # whether it needs no TensorFlow, or imports it itself


MODES = {
    "pretrain": Mode(
        "app.modes.pretrain",
        "train a backbone on raw text; an interrupted run resumes",
        accepts=("overwrite",),
    ),
    "finetune": Mode(
        "app.modes.finetune",
        "train on a corpus, score on its test split; an interrupted run resumes",
        learns_from=("init_from",),
        accepts=("overwrite",),
    ),
    "distill": Mode(
        "app.modes.distill",
        "train a small network to answer like finished runs; an interrupted run resumes",
        learns_from=("init_from", "distill.teachers"),
        accepts=("overwrite",),
    ),
    "compress": Mode(
        "app.modes.compress",
        "make the model of a finished run (init_from) smaller and faster; an interrupted run resumes",
        starts_from="finetune",
        accepts=("overwrite",),
    ),
    "update": Mode(
        "app.modes.update",
        "learn from what people corrected (init_from); an interrupted run resumes",
        starts_from="finetune",
        accepts=("overwrite",),
        is_quick=lambda config: bool(chosen_actions(config.update)),
    ),
    "tune": Mode(
        "app.modes.tune",
        "search for settings by many trainings; an interrupted search goes on",
        learns_from=("init_from",),
        accepts=("overwrite",),
        stopped="finished trials are kept; the same command{again} goes on with the search, and with the trial under "
        "way from its last checkpoint",
        is_quick=lambda config: True,  # trials are processes of their own
    ),
    "evaluate": Mode("app.modes.evaluate", "score a run on any corpus", works_on="finetune"),
    "predict": Mode(
        "app.modes.predict",
        "answer plain text (its entities, its label): lines, JSON lines, CSV or whole files",
        works_on="finetune",
        accepts=("input", "output"),
    ),
    "export": Mode(
        "app.modes.export",
        "write a run as TFLite files and a SavedModel, each scored before it is kept",
        works_on="finetune",
    ),
    "serve": Mode(
        "app.modes.serve", "answer over HTTP with exported models", works_on="finetune", is_quick=lambda config: True
    ),
    "benchmark": Mode("app.modes.benchmark", "measure the speed of training and prediction"),
}


def split_served(entry: str) -> tuple[str, str]:
    """An entry of `serve.runs`, RUN or NAME=RUN, as name and path; the name may be empty. What exists is a path."""
    named = re.fullmatch(r"([A-Za-z0-9._-]+)=(.+)", entry)
    name, path = named.groups() if named and not os.path.exists(entry) else ("", entry)
    return name, expand(path, name="serve.runs")


def import_mode(name: str, *, is_quick: bool = False) -> ModuleType:
    """The module of a mode, behind the one Keras, which comes before anything else that brings a Keras in.

    Args:
        name: of the mode.
        is_quick: see `Mode.is_quick`.
    """
    if not is_quick:
        importlib.import_module("app.one_keras")
    return importlib.import_module(MODES[name].module)


def load_run_config(name: str, run_dir: RunDirectory, source: Source, settings: Settings) -> Config:
    """The configuration of a mode: the user's settings over those of the run that it works on or starts from.

    Args:
        name: of the mode.
        run_dir: where it will work.
        source: a YAML file, or sections.
        settings: those over the source.

    Raises:
        InputError: a setting is wrong, or a run that the mode needs is not there.
    """
    if name == "tune":
        config = _load_search_config(source, settings)
        usual = {} if config.tune.space else {"tune.space": USUAL_SPACES[trial_mode(config.tune)]}
        config = with_values(config, usual)
        require_search(config, run_dir=run_dir.path)
        return config
    mode = MODES[name]
    if name == "serve":
        served = load_setting("serve.runs", source, settings)
        if served:  # its own settings are those of the first run
            run_dir = RunDirectory(split_served(served[0])[1])
            run_dir.require_run("serve.runs")
    acts = name == "update" and any(load_setting(f"update.{action}", source, settings) for action in ACTIONS)
    if mode.works_on or acts:
        run_dir.require_run()
        return load_config(source, settings, defaults=str(run_dir.config_yaml))
    if mode.starts_from:
        return _load_over_start(mode.starts_from, source, settings)
    if name == "benchmark" and load_setting("benchmark.objective", source, settings) == "frontier":
        run_dir.require_run()  # its exports are what is measured
        return load_config(source, settings, defaults=str(run_dir.config_yaml))
    return load_config(source, settings, mode=name, starts=_find_starts(mode, source, settings))


def _load_over_start(made_by: str, source: Source, settings: Settings) -> Config:
    """The user's settings over those of the run `init_from`, or else the run of the mode that makes such."""
    start = RunDirectory(load_setting("init_from", source, settings) or f"runs/{made_by}")
    start.require_run("init_from")
    settings = with_setting(settings, "init_from", str(start))
    return load_config(source, settings, defaults=str(start.config_yaml))


def _load_search_config(source: Source, settings: Settings) -> Config:
    """As `load_run_config` of the mode that a trial of the search runs."""
    if len(load_setting("tune.objectives", source, settings)) > 1:
        return _load_over_start("finetune", source, settings)
    return load_config(source, settings, mode="tune", starts=_find_starts(MODES["tune"], source, settings))


def _find_starts(mode: Mode, source: Source, settings: Settings) -> list[str]:
    """The config.yaml of each run that a mode learns from. What is no run is for the mode to complain about."""
    named: list[str] = []
    for key in mode.learns_from:
        value = load_setting(key, source, settings)
        named += [value] if isinstance(value, str) else value
    runs = [RunDirectory(each) for each in named if each]
    # A pretrained backbone may be the teacher of any task.
    return [str(run.config_yaml) for run in runs if run.is_run() and run.read_state().get("mode") in TASK_MODES]
