"""Modes room: fine-tune a backbone for named entities, score it, leave everything in the run directory."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from app.artifacts import Request, RunDirectory, sha256_of_arrays
from app.config import Config, DataConfig, InputError
from app.data.corpus import Corpus, CorpusSummary, summarize
from app.data.dataset import RowStore, store_in_memory, store_in_records
from app.data.encoding import Encoder
from app.data.masking import PieceMasker, with_masks
from app.data.shapes import NUM_SHAPES
from app.models.activation import compile_activations
from app.models.backbone import build_backbone
from app.models.masked_lm import build_masked_lm
from app.models.tagger import Tagger, build_tagger
from app.models.tagger_bundle import load_tagger, restore_head, save_tagger
from app.modes.opening import open_run
from app.modes.scoring import Tagged, build_encoder, build_predictor, open_split, say, score_split, show_results
from app.training.fine_tuner import FineTuner, SpecialIds
from app.training.fit import Plan, run_fit
from app.training.masked_lm import MaskedLmTuner
from app.training.strategy import build_strategy, set_up
from app.training.workers import Workers


def run(request: Request) -> dict[str, float]:
    """Fine-tunes, then scores the validation and the test split."""
    config, run_dir = request.config, request.run_dir
    run_dir.plan_training(config, overwrite=request.overwrite)
    strategy = build_strategy(config.training)  # before anything computes with TensorFlow
    workers = Workers(strategy)
    train, summary = _read_training_corpus(config)
    labels = summary.labels
    _check_other_splits(config, labels)
    with workers.watched(), open_run(request, workers) as resumed:
        if resumed:
            say(f"resuming {run_dir}")
        precision = set_up(config.training, seed=config.seed)
        if workers.is_chief:
            say(
                f"{summary.sentences:,} sentences, {summary.words:,} words, types {', '.join(summary.types)} | "
                f"{strategy.num_replicas_in_sync} replica(s), {precision}"
            )
        with strategy.scope():
            tagger = _build_tagger(config, labels)
        metrics = _train(tagger, train, summary, config, run_dir, precision, strategy)
        if not workers.is_chief:
            return metrics
        variables = tagger.network.trainable_variables
        metrics["weights_sha256"] = sha256_of_arrays((v.name, v.numpy()) for v in variables)
        run_dir.update_metrics(metrics)
        save_tagger(tagger, run_dir.model, shape_count=NUM_SHAPES, card=_card(config, labels, metrics))
        return metrics | _score(config, run_dir)


def _build_tagger(config: Config, labels: list[str]) -> Tagger:
    """Weights come from the run `init_from` if it is given, head included, else from the backbone's source."""
    source = config.init_from or config.backbone.source
    backbone = build_backbone(dataclasses.replace(config.backbone, source=source))
    compile_activations(backbone.model)
    tagger = build_tagger(
        backbone,
        config.model,
        labels=labels,
        shape_count=NUM_SHAPES,
        freeze_embeddings=config.training.freeze_embeddings,
    )
    if config.init_from:
        restore_head(tagger, RunDirectory(config.init_from).model)
    return tagger


def _read_training_corpus(config: Config) -> tuple[Corpus, CorpusSummary]:
    train = open_split(config.data, "train")
    if train is None:
        raise InputError("data.train_path is empty; fine-tuning needs a training corpus")
    summary = summarize(train)
    if summary.repaired:
        say(f"{config.data.train_path}: {summary.repaired} I- tags that began an entity were read as B-")
    return train, summary


def _check_other_splits(config: Config, labels: list[str]) -> None:
    """Reads the other splits once before training, so that a fault in them does not come to light an hour later."""
    for split in ("valid", "test"):
        corpus = open_split(config.data, split, labels=labels)
        if corpus:
            summarize(corpus)


def _train(
    tagger: Tagger,
    train: Corpus,
    summary: CorpusSummary,
    config: Config,
    run_dir: RunDirectory,
    precision: str,
    strategy: tf.distribute.Strategy,
) -> dict:
    encoder = build_encoder(tagger, config.data)
    store = _store_rows(encoder, train, summary, config.data, run_dir, worker=Workers(strategy).index)
    valid = open_split(config.data, "valid", labels=tagger.labels)
    predictor = build_predictor(tagger, encoder, batch_size=config.evaluation.batch_size)

    def validate() -> dict[str, float]:
        assert valid is not None
        scores = Tagged.by(predictor, valid.sentences()).scores()
        return {"entity_f1": scores.strict.micro.f1, "token_macro_f1": scores.token.macro.f1}

    settings, seed = config.training, config.seed

    def batches(epochs: int, seed: int) -> Callable[[int, int], tf.data.Dataset]:
        return lambda epoch, step: store.make_dataset(
            batch_size=settings.batch_size, seed=seed, epochs=epochs, first_epoch=epoch, first_step=step
        )

    plan = Plan(
        batches=batches(settings.epochs, seed),
        steps_per_epoch=store.steps_per_epoch(settings.batch_size),
        depths=tagger.layer_depths(),
        precision=precision,
        checkpoints=run_dir.checkpoints,
        tensorboard=run_dir.tensorboard if settings.tensorboard else None,
        validate=validate if valid else None,
        log=lambda row: run_dir.append_jsonl(run_dir.history_jsonl, row),
        forget=lambda epochs: run_dir.rewind_history("epoch", epochs),
    )
    with strategy.scope():
        first = batches(settings.masked_lm_epochs, seed + 1)  # other orders than the epochs that follow
        warmed_up = _warm_up(tagger, encoder, dataclasses.replace(plan, batches=first), config, run_dir)
        special = SpecialIds.of(encoder.pieces)
        tuner = FineTuner(tagger.network, tagger.head.compute_loss, special=special, config=settings, seed=seed)
        return warmed_up | run_fit(tuner, settings, plan)


def _warm_up(tagger: Tagger, encoder: Encoder, plan: Plan, config: Config, run_dir: RunDirectory) -> dict:
    """Masked-language-model epochs on the words of the training corpus (task-adaptive pretraining)."""
    settings = config.training
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
    tuner = MaskedLmTuner(network, special=SpecialIds.of(encoder.pieces), config=settings, seed=config.seed)
    masker = PieceMasker.build(encoder.pieces, fraction=settings.masked_lm_fraction)

    def masked_batches(epoch: int, step: int) -> tf.data.Dataset:
        first_step = epoch * plan.steps_per_epoch + step
        return with_masks(plan.batches(epoch, step), masker, seed=config.seed, first_step=first_step)

    masked = dataclasses.replace(
        plan,
        batches=masked_batches,
        unit="pieces",
        depths=depths,
        checkpoints=run_dir.checkpoints / "masked_lm",
        validate=None,
        name="masked LM ",
        log=lambda row: run_dir.append_jsonl(
            run_dir.history_jsonl, {f"masked_lm/{name}": value for name, value in row.items()}
        ),
        forget=lambda epochs: run_dir.rewind_history("masked_lm/epoch", epochs),
    )
    found = run_fit(tuner, settings, masked)
    return {name.replace("train/", "masked_lm/"): value for name, value in found.items()}


def _store_rows(
    encoder: Encoder, train: Corpus, summary: CorpusSummary, config: DataConfig, run_dir: RunDirectory, *, worker: int
) -> RowStore:
    """Rows in memory for a corpus that fits there, else in TFRecord files, of which each worker has its own."""
    rows = encoder.training_rows(train.sentences())
    large = summary.words > config.memory_limit_words
    if config.cache == "memory" or (config.cache == "auto" and not large):
        return store_in_memory(rows)
    folder = Path(config.cache_dir) if config.cache_dir else run_dir.cache
    if worker:
        folder = folder / f"worker-{worker}"
    settings = (summary, encoder.labels, encoder.pieces.vocabulary, encoder.pieces.lowercase, config)
    fingerprint = hashlib.sha256(repr(settings).encode()).hexdigest()
    return store_in_records(rows, folder, fingerprint=fingerprint, shuffle_buffer=config.shuffle_buffer_sequences)


def _score(config: Config, run_dir: RunDirectory) -> dict:
    """Scores the bundle as it was written, so that `--mode=evaluate` gives the same numbers."""
    tagger = load_tagger(run_dir.model)
    encoder = build_encoder(tagger, config.data)
    predictor = build_predictor(tagger, encoder, batch_size=config.evaluation.batch_size)
    scored: dict = {}
    opened = {split: open_split(config.data, split, labels=tagger.labels) for split in ("valid", "test")}
    splits = {split: corpus for split, corpus in opened.items() if corpus}
    for split, corpus in splits.items():
        headline = split == list(splits)[-1]
        scored |= score_split(predictor, corpus.sentences(), split=split, run_dir=run_dir, headline=headline)
    if splits:
        show_results(run_dir, model=run_dir.model)
    return scored


def _card(config: Config, labels: list[str], metrics: dict) -> str:
    """The model card beside the weights."""
    types = ", ".join(label[2:] for label in labels if label.startswith("B-"))
    best = f"{metrics['valid/entity_f1']:.4f}" if "valid/entity_f1" in metrics else "not measured"
    return f"""# Named-entity tagger

- Entity types: {types}
- Backbone: `{config.backbone.source}`, head: {config.model.head}, word shapes: {config.model.word_shape}
- Trained on: `{config.data.train_path}`, {metrics["train/epochs"]} epochs, seed {config.seed}
- Entity F1 on the validation split while training: {best}; other scores: `../metrics.json`, `../report.txt`
- Tags written text split into words the CoNLL way. Accuracy on text unlike the training corpus is lower: measure it
  with `--mode=evaluate` on text of your own. Names of people are personal data where the law says so.
- Use: `python -m app.main --mode=predict --run_dir=RUN --input=FILE`
"""
