"""Modes room: fine-tune a backbone for named entities, score it, leave everything in the run directory."""

import dataclasses

import tensorflow as tf

from app.artifacts import Request
from app.config import Config
from app.data.corpus import Corpus, CorpusSummary
from app.data.dataset import RowStore
from app.data.encoding import Encoder
from app.data.masking import PieceMasker, with_masks
from app.models.masked_lm import build_masked_lm
from app.models.tagger import Tagger
from app.modes.opening import open_run
from app.modes.probing import decide
from app.modes.scoring import build_encoder, say
from app.modes.tagger_training import (
    TaggerTraining,
    check_other_splits,
    finish_run,
    read_training_corpus,
    start_tagger,
)
from app.training.fine_tuner import SpecialIds
from app.training.fit import run_fit
from app.training.masked_lm import MaskedLmTuner
from app.training.strategy import build_strategy, set_up
from app.training.workers import Workers


def run(request: Request) -> dict[str, float]:
    """Fine-tunes, then scores the validation and the test split."""
    run_dir = request.run_dir
    run_dir.plan_training(request.config, overwrite=request.overwrite)
    request = decide(request, mode="finetune")
    config = request.config
    strategy = build_strategy(config.training)  # before anything computes with TensorFlow
    workers = Workers(strategy)
    train, summary = read_training_corpus(config)
    check_other_splits(config, summary.labels)
    with workers.watched(), open_run(request, workers):
        precision = set_up(config.training, seed=config.seed)
        if workers.is_chief:
            say(
                f"{summary.sentences:,} sentences, {summary.words:,} words, types {', '.join(summary.types)} | "
                f"{strategy.num_replicas_in_sync} replica(s), {precision}"
            )
        with strategy.scope():
            tagger = start_tagger(config, summary.labels, init_from=config.init_from)
        tagger = dataclasses.replace(tagger, non_name_types=summary.non_name_types)
        metrics = _train(tagger, train, summary, TaggerTraining(config, run_dir, strategy, precision))
        if not workers.is_chief:
            return metrics
        card = _card(config, summary, metrics)
        return finish_run(tagger, metrics, card=card, config=config, run_dir=run_dir)


def _train(tagger: Tagger, train: Corpus, summary: CorpusSummary, training: TaggerTraining) -> dict:
    settings = training.config.training
    encoder = build_encoder(tagger, training.config.data)
    rows = encoder.training_rows(train.sentences())
    store = training.store(rows, encoder, words=summary.words, made_from=summary)
    validate = training.validation(tagger, encoder)
    plan = training.plan(store, settings, depths=tagger.layer_depths(), validate=validate)
    with training.strategy.scope():
        warmed_up = _warm_up(tagger, encoder, store, training)
        return warmed_up | run_fit(training.tuner(tagger, encoder, settings), settings, plan)


def _warm_up(tagger: Tagger, encoder: Encoder, store: RowStore, training: TaggerTraining) -> dict:
    """Masked-language-model epochs on the words of the training corpus (task-adaptive pretraining)."""
    settings, seed = training.config.training, training.config.seed
    if not settings.masked_lm_epochs:
        return {}
    settings = dataclasses.replace(
        settings,
        epochs=settings.masked_lm_epochs,
        learning_rate=settings.masked_lm_learning_rate,
        average_weights_decay=0.0,
        early_stopping_patience_epochs=0,
    )
    network, depths = build_masked_lm(tagger)
    tuner = MaskedLmTuner(network, special=SpecialIds.of(encoder.pieces), config=settings, seed=seed)
    masker = PieceMasker.build(encoder.pieces, fraction=settings.masked_lm_fraction)
    # Other orders than those of the epochs that follow.
    plan = training.plan(store, settings, depths=depths, validate=None, phase="masked_lm", seed=seed + 1)

    def masked_batches(epoch: int, step: int) -> tf.data.Dataset:
        first_step = epoch * plan.steps_per_epoch + step
        return with_masks(plan.batches(epoch, step), masker, seed=seed, first_step=first_step)

    masked = dataclasses.replace(plan, batches=masked_batches, unit="pieces")
    found = run_fit(tuner, settings, masked)
    return {name.replace("train/", "masked_lm/"): value for name, value in found.items()}


def _card(config: Config, summary: CorpusSummary, metrics: dict) -> str:
    """The model card beside the weights."""
    best = f"{metrics['valid/entity_f1']:.4f}" if "valid/entity_f1" in metrics else "not measured"
    return f"""# Named-entity tagger

- Entity types: {", ".join(summary.types)}
- Backbone: `{config.backbone.source}`, head: {config.model.head}, word shapes: {config.model.word_shape}
- Trained on: `{summary.source}`, {metrics["train/epochs"]} epochs, seed {config.seed}
- Entity F1 on the validation split while training: {best}; other scores: `../metrics.json`, `../report.txt`
- Tags written text split into words the CoNLL way. Accuracy on text unlike the training corpus is lower: measure it
  with `--mode=evaluate` on text of your own. Names of people are personal data where the law says so.
- Use: `python -m app.main --mode=predict --run_dir=RUN --input=FILE`
"""
