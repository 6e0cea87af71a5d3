"""Modes room: score a finished run on its own or on another corpus."""

import sys
from dataclasses import replace

from app.config import Config, PredictConfig
from app.evaluation.runtimes import OPENERS, build_predictor, mention_refused
from app.evaluation.scoring import score_split, show_results
from app.run.directory import Request, RunDirectory
from app.tasks.bundle import load_model
from app.tasks.corpora import (
    describe_corpora,
    evaluation_name,
    is_of_run,
    note_corpora,
    read_scored_split,
    say_oddities,
)
from app.tasks.network import TaskModel, build_encoder


def run(request: Request) -> dict[str, float]:
    """Evaluates the model of a run directory on `evaluation.split`; never touches a weight.

    Scores of the corpus that the run's report is about go to the run directory. All others, and those by another row
    length or minimum score, go to a folder of their own inside it:
    `evaluations/NAME-DIGEST[.SETTING-VALUE][.RUNTIME]/`, see `evaluation_name`.
    """
    config, run_dir = request.config, request.run_dir
    split = config.evaluation.split
    mention_refused(run_dir, config.predictor, config.evaluation.tflite_file)
    tagger = load_model(run_dir.model)
    purpose = f"evaluation.split is {split}, so it must name a corpus"
    corpus, summary = read_scored_split(config, split, model=tagger, purpose=purpose)
    say_oddities(summary, config, labels=tagger.labels)
    forward, early = OPENERS[config.predictor](run_dir, config.evaluation.tflite_file, tagger, config.predict)
    encoder = build_encoder(tagger, config.data)
    predictor = build_predictor(
        tagger,
        encoder,
        batch_size=config.evaluation.batch_size,
        forward=forward,
        config=config.predict,
        early=early,
    )
    with run_dir.locked():
        target, title, runtime = run_dir, "", _runtime(config)
        answers = _settings_that_count(config, run_dir.read_config().predict, tagger)
        if runtime or not is_of_run(run_dir, config.data, split, corpus, summary, predict=answers):
            name = evaluation_name(run_dir, config.data, summary, predict=answers)
            target = RunDirectory(run_dir.path / "evaluations" / f"{name}{runtime}")
            title = f"{run_dir.path.resolve().name} on {corpus.source}, {split} split"
            target.write_config(config)
            target.write_environment(seed=config.seed, command=sys.argv)
        note_corpora(target, describe_corpora(config.data, {split: summary}))
        found = score_split(
            predictor, corpus.examples(), split=split, run_dir=target, headline=True, title=title
        )
        show_results(target, model=run_dir.model)
    return found


def _settings_that_count(config: Config, own: PredictConfig, model: TaskModel) -> PredictConfig:
    """The settings of answers now, but those that scores do not depend on as the run has them."""
    now = config.predict
    if not model.exits or config.predictor == "tflite":  # a file has the threshold that it was exported with
        now = replace(now, max_f1_loss=own.max_f1_loss)
    if model.task.labels_words:  # all words have an answer
        now = replace(now, min_score=own.min_score, target_precision=own.target_precision)
    return now


def _runtime(config: Config) -> str:
    """Distinguishes the scores of an export; empty for the model itself."""
    names = {"keras": "", "tflite": f".tflite-{config.evaluation.tflite_file}"}
    return names.get(config.predictor, f".{config.predictor}")
