"""Modes room: how fast this machine trains and answers with the given configuration, and at what share of its peak."""

import time
from typing import Any

import tensorflow as tf

from app.config import Config, InputError
from app.data.dataset import store_in_memory
from app.encoder.activation import compile_activations
from app.encoder.backbone import build_backbone
from app.evaluation.frontier_rounds import measure_frontier
from app.evaluation.runtimes import build_predictor
from app.run.directory import Request, RunDirectory
from app.run.screen import heartbeat, say
from app.tasks import find_task
from app.tasks.corpora import open_split, summarize
from app.tasks.masked_lm.masking import PieceMasker, with_masks
from app.tasks.masked_lm.network import build_pretrainer
from app.tasks.network import build_encoder, build_model
from app.text.shapes import NUM_SHAPES
from app.training.fine_tuner import FineTuner, SpecialIds, find_beginnings
from app.training.masked_lm import MaskedLmTuner
from app.training.optimizers import build_optimizer
from app.training.pretraining import Records
from app.training.sessions import say_devices
from app.training.speed import MatrixPeak, compute_step_operations, measure_steps
from app.training.strategy import list_devices, run_in_order, set_up
from app.training.workers import Workers


def run(request: Request) -> dict[str, float]:
    """Measures training steps on real batches, and the answers to the validation corpus if labels are learnt; or the
    exports of a run (`app/evaluation/frontier_rounds.py`).

    Nothing else should run on the machine. The result is printed and written to `metrics.json`.
    """
    config, run_dir = request.config, request.run_dir
    if config.benchmark.objective == "frontier":
        return measure_frontier(request)
    with run_dir.locked():
        run_in_order(config.training)
        precision = set_up(config.training, seed=config.seed)
        strategy = tf.distribute.get_strategy()
        say_devices(list_devices(strategy), precision, Workers(strategy))
        measure = _measure_masked_lm if config.benchmark.objective == "masked_lm" else _measure_task
        with heartbeat("measuring"):
            metrics = measure(config, run_dir, precision)
        run_dir.update_metrics({**metrics, "benchmark/precision": precision})
    print(f"{'precision':<26}{precision}")
    for name, value in metrics.items():
        print(f"{name.removeprefix('benchmark/'):<26}{value:,.3f}")
    say(f"written to {run_dir.metrics_json}")
    return metrics


def _measure_task(config: Config, _: RunDirectory, precision: str) -> dict[str, float]:
    task = find_task(config.task)
    train = open_split(config, "train")
    if train is None:
        raise InputError("data.train_path is empty; the benchmark trains on it")
    backbone = build_backbone(config.backbone)
    compile_activations(backbone.model, config.training.compile_activations)
    summary = summarize(train, config)
    model = build_model(
        backbone,
        config.model,
        task=task,
        labels=summary.labels,
        shape_count=NUM_SHAPES,
        facts=task.find_facts(config, summary, {}, labels=summary.labels),
    )
    encoder = build_encoder(model, config.data)
    store = store_in_memory(encoder.training_rows(train.examples()))
    tuner = FineTuner(
        model.network,
        model.head.compute_loss,
        special=SpecialIds.of(encoder.pieces),
        config=config.training,
        seed=config.seed,
        begins_word=find_beginnings(task, encoder.pieces),
        independent=model.head.independent,
    )
    size = config.training.batch_size
    metrics = _measure_training(
        tuner,
        iter(store.make_dataset(batch_size=size, seed=config.seed, epochs=1000)),
        config,
        depths=model.layer_depths(),
        precision=precision,
        unit=task.unit,
        rows=size * (2 if config.training.r_drop_weight else 1),
        length=config.data.max_length,
        labels=len(model.labels),
        **_sizes_of(model.backbone.model),
    )
    metrics["benchmark/train_pieces_per_second"] = size * config.data.max_length / metrics["benchmark/step_seconds"]
    valid = open_split(config, "valid", labels=model.labels)
    if valid is None:
        say(f"no validation corpus (data.valid_path is empty): {task.name} is not measured")
    else:
        predictor = build_predictor(model, encoder, batch_size=config.evaluation.batch_size)
        began = time.perf_counter()
        answered = sum(1 for _ in predictor.answer(valid.examples()))
        seconds = time.perf_counter() - began
        units = sum(map(task.count_units, valid.examples()))
        assert answered
        metrics[f"benchmark/{task.speed_name}"] = units / seconds
    return metrics


def _measure_masked_lm(config: Config, run_dir: RunDirectory, precision: str) -> dict[str, float]:
    """Pieces a second are real ones here: `[CLS]` and `[SEP]` count, padding does not."""
    settings, seed = config.pretrain, config.seed
    backbone = build_backbone(config.backbone)
    compile_activations(backbone.model, config.training.compile_activations)
    records = Records(config, run_dir, backbone)
    masker = PieceMasker.build(records.pieces, fraction=settings.mask_fraction, whole_words=settings.whole_words)
    network, depths = build_pretrainer(backbone, pairs=settings.objective != "masked_lm")
    tuner = MaskedLmTuner(network, special=SpecialIds.of(records.pieces), config=config.training, seed=seed)
    size = config.training.batch_size
    batches = records.train.make_dataset(batch_size=size, seed=seed, epochs=1000)
    return _measure_training(
        tuner,
        iter(with_masks(batches, masker, seed=seed, first_step=0)),
        config,
        depths=depths,
        precision=precision,
        unit="pieces",
        rows=size,
        length=settings.max_length,
        labels=0,
        hidden_pieces=max(1, round(settings.mask_fraction * settings.max_length)),
        vocabulary_size=backbone.model.vocabulary_size,
        **_sizes_of(backbone.model),
    )


def _sizes_of(model: Any) -> dict[str, int]:
    return {"layers": model.num_layers, "width": model.hidden_dim, "inner_width": model.intermediate_dim}


def _measure_training(
    tuner: FineTuner, batches: Any, config: Config, *, depths: list[int], precision: str, unit: str, **sizes: int
) -> dict[str, float]:
    """Speed of the compiled step; `sizes` are those of `compute_step_operations`."""
    variables = tuner.network.trainable_variables
    optimizer = build_optimizer(
        config.training, total_steps=1000, variables=variables, depths=depths, precision=precision
    )
    tuner.compile(optimizer=optimizer, jit_compile=config.training.jit_compile)
    products = MatrixPeak(tf.distribute.get_strategy(), precision)
    seconds, counted = measure_steps(
        tuner,
        batches,
        steps=config.benchmark.steps,
        warmup_steps=config.benchmark.warmup_steps,
        between=products.measure,
    )
    peak = products.compute_total()
    say(products.describe())
    return {
        "benchmark/step_seconds": seconds,
        f"benchmark/train_{unit}_per_second": counted / seconds,
        "benchmark/matrix_peak_gflops": peak / 1e9,
        "benchmark/share_of_peak": compute_step_operations(**sizes) / seconds / peak,
    }
