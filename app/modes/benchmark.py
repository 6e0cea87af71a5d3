"""Modes room: how fast this machine trains and tags with the given configuration, and at what share of its peak."""

import time

from app.artifacts import Request
from app.config import InputError
from app.data.corpus import summarize
from app.data.dataset import store_in_memory
from app.data.shapes import NUM_SHAPES
from app.models.activation import compile_activations
from app.models.backbone import build_backbone
from app.models.tagger import build_tagger
from app.modes.scoring import build_encoder, build_predictor, open_split, say
from app.training.fine_tuner import FineTuner, SpecialIds
from app.training.optimizers import build_optimizer
from app.training.speed import compute_step_operations, measure_matrix_peak, measure_steps
from app.training.strategy import set_up


def run(request: Request) -> dict[str, float]:
    """Measures training steps on real batches of the training corpus, and tagging of the validation corpus.

    Nothing else should run on the machine. The result is printed and written to `metrics.json`.
    """
    config, run_dir = request.config, request.run_dir
    train = open_split(config.data, "train")
    if train is None:
        raise InputError("data.train_path is empty; the benchmark trains on it")
    with run_dir.locked():
        precision = set_up(config.training, seed=config.seed)
        peak_before = measure_matrix_peak()
        backbone = build_backbone(config.backbone)
        compile_activations(backbone.model)
        tagger = build_tagger(backbone, config.model, labels=summarize(train).labels, shape_count=NUM_SHAPES)
        encoder = build_encoder(tagger, config.data)
        store = store_in_memory(encoder.training_rows(train.sentences()))
        special = SpecialIds.of(encoder.pieces)
        tuner = FineTuner(
            tagger.network, tagger.head.compute_loss, special=special, config=config.training, seed=config.seed
        )
        optimizer = build_optimizer(
            config.training, total_steps=1000, depths=tagger.layer_depths(), precision=precision
        )
        tuner.compile(optimizer=optimizer, jit_compile=config.training.jit_compile)
        size = config.training.batch_size
        batches = iter(store.make_dataset(batch_size=size, seed=config.seed, epochs=1000))
        seconds, words = measure_steps(
            tuner, batches, steps=config.benchmark.steps, warmup_steps=config.benchmark.warmup_steps
        )
        peak = max(peak_before, measure_matrix_peak())
        model = tagger.backbone.model
        operations = compute_step_operations(
            rows=size * (2 if config.training.r_drop_weight else 1),
            length=config.data.max_length,
            layers=model.num_layers,
            width=model.hidden_dim,
            inner_width=model.intermediate_dim,
            labels=len(tagger.labels),
        )
        metrics = {
            "benchmark/step_seconds": seconds,
            "benchmark/train_words_per_second": words / seconds,
            "benchmark/train_pieces_per_second": size * config.data.max_length / seconds,
            "benchmark/matrix_peak_gflops": peak / 1e9,
            "benchmark/share_of_peak": operations / seconds / peak,
        }
        valid = open_split(config.data, "valid", labels=tagger.labels)
        if valid is not None:
            predictor = build_predictor(tagger, encoder, batch_size=config.evaluation.batch_size)
            began = time.perf_counter()
            counted = sum([len(found.tags) for found in predictor.tag(valid.sentences())])
            metrics["benchmark/tag_words_per_second"] = counted / (time.perf_counter() - began)
        run_dir.update_metrics({**metrics, "benchmark/precision": precision})
    print(f"{'precision':<26}{precision}")
    for name, value in metrics.items():
        print(f"{name.removeprefix('benchmark/'):<26}{value:,.3f}")
    say(f"written to {run_dir.metrics_json}")
    return metrics
