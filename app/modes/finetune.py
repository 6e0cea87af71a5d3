"""Modes room: fine-tune a backbone for named entities, score it, leave everything in the run directory."""

import dataclasses
from contextlib import ExitStack

import tensorflow as tf

from app.config import Config
from app.data.dataset import RowStore
from app.data.encoding import Encoder
from app.evaluation.scoring import build_validation, finish_run, score_again
from app.run.directory import Request
from app.run.screen import say
from app.tasks import find_task
from app.tasks.bundle import start_model
from app.tasks.corpora import check_other_splits, describe_corpora, describe_scores, read_training_corpus
from app.tasks.masked_lm.masking import PieceMasker, with_masks
from app.tasks.masked_lm.network import build_masked_lm
from app.tasks.network import TaskModel, build_encoder
from app.tasks.task import Corpus, Summary, Task
from app.training.fine_tuner import SpecialIds
from app.training.fit import run_fit
from app.training.masked_lm import MaskedLmTuner
from app.training.sessions import TaskTraining, open_run, say_devices
from app.training.strategy import build_strategy, list_devices, set_up
from app.training.trials import decide
from app.training.workers import Workers

MODE = "finetune"


def run(request: Request) -> dict[str, float]:
    """Fine-tunes, then scores the validation and the test split."""
    run_dir = request.run_dir
    if run_dir.plan_training(request.config, mode=MODE, overwrite=request.overwrite) == "finished":
        return score_again(request, mode=MODE)
    request = decide(request, mode=MODE)
    config = request.config
    strategy = build_strategy(config.training)  # before anything computes with TensorFlow
    workers = Workers(strategy)
    train, summary = read_training_corpus(config)
    task = find_task(config.task)
    facts = task.find_facts(config, summary, {}, labels=summary.labels)
    others = check_other_splits(config, summary.labels, train=train, words=summary.words, facts=facts)
    corpora = describe_corpora(config.data, {"train": summary, **others})
    with workers.watched(run_dir.path), ExitStack() as opened:
        precision = set_up(config.training, seed=config.seed)
        say_devices(list_devices(strategy), precision, workers)
        with strategy.scope():
            model = start_model(config, summary.labels, init_from=config.init_from, facts=facts)
        encoder = build_encoder(model, config.data)
        opened.enter_context(open_run(request, workers, mode=MODE, corpora=corpora))
        if workers.is_chief:
            say(
                f"{task.describe(summary)} | {strategy.num_replicas_in_sync} replica(s), {precision}"
            )
        metrics = _train(model, encoder, train, summary, TaskTraining(config, run_dir, strategy, precision))
        if not workers.is_chief:
            return metrics
        card = _card(config, task, summary, metrics)
        return finish_run(model, metrics, card=card, config=config, run_dir=run_dir, mode=MODE)


def _train(
    model: TaskModel, encoder: Encoder, train: Corpus, summary: Summary, training: TaskTraining
) -> dict:
    settings = training.config.training
    rows = encoder.training_rows(train.examples())
    store = training.store(rows, encoder, words=summary.words, made_from=summary)
    validate = build_validation(model, encoder, training.config)
    plan = training.plan(store, settings, depths=model.layer_depths(), validate=validate)
    with training.strategy.scope():
        warmed_up = _warm_up(model, encoder, store, training)
        return warmed_up | run_fit(training.tuner(model, encoder, settings), settings, plan)


def _warm_up(model: TaskModel, encoder: Encoder, store: RowStore, training: TaskTraining) -> dict:
    """Masked-language-model epochs on the words of the training corpus (task-adaptive pretraining)."""
    settings, seed = training.config.training, training.config.seed
    masked_lm = settings.masked_lm
    if not masked_lm.epochs:
        return {}
    settings = dataclasses.replace(
        settings,
        epochs=masked_lm.epochs,
        learning_rate=masked_lm.learning_rate,
        average_weights_decay=0.0,
        early_stopping_patience_epochs=0,
    )
    network, depths = build_masked_lm(model)
    tuner = MaskedLmTuner(network, special=SpecialIds.of(encoder.pieces), config=settings, seed=seed)
    masker = PieceMasker.build(encoder.pieces, fraction=masked_lm.fraction)
    # Other orders than those of the epochs that follow.
    plan = training.plan(store, settings, depths=depths, validate=None, phase="masked_lm", seed=seed + 1)

    def masked_batches(epoch: int, step: int) -> tf.data.Dataset:
        first_step = epoch * plan.steps_per_epoch + step
        return with_masks(plan.batches(epoch, step), masker, seed=seed, first_step=first_step)

    masked = dataclasses.replace(plan, batches=masked_batches, unit="pieces")
    found = run_fit(tuner, settings, masked)
    return {name.replace("train/", "masked_lm/"): value for name, value in found.items()}


def _card(config: Config, task: Task, summary: Summary, metrics: dict) -> str:
    """The model card beside the weights."""
    return f"""# {task.title}

- {task.describe_labels(summary.labels)}
- Backbone: `{config.backbone.source}`, head: {task.describe_head(config.model)}, word shapes: {config.model.word_shape}
- Trained on: `{summary.source}`, {metrics["train/epochs"]} epochs, seed {config.seed}
{describe_scores(task, metrics)}
{task.caution}
- Use: `python -m app.main --mode=predict --run_dir=RUN --input=FILE`
"""
