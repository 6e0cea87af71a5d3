"""`--mode=benchmark`: what it prints and writes, and the arithmetic behind the share of the peak."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
import tensorflow as tf
import toy

from app.one_keras import keras
from app.training.speed import MatrixPeak, compute_step_operations, measure_steps


def test_the_operations_of_a_step_are_those_counted_by_hand():
    # One layer, width 2, inner width 3, 5 labels, one row of 4 pieces; a multiply-add is two operations.
    projections = 4 * (4 * 2 * 2)  # query, key, value, output: [4, 2] x [2, 2]
    attention = 4 * 4 * 2 + 4 * 4 * 2  # scores [4, 2] x [2, 4], mixture [4, 4] x [4, 2]
    feed_forward = 4 * 2 * 3 + 4 * 3 * 2
    head = 4 * 2 * 5
    forward = 2 * (projections + attention + feed_forward + head)
    counted = compute_step_operations(rows=1, length=4, layers=1, width=2, inner_width=3, labels=5)
    assert counted == 3 * forward
    assert compute_step_operations(rows=7, length=4, layers=1, width=2, inner_width=3, labels=5) == 7 * counted


def test_the_operations_of_minilm_agree_with_six_times_its_parameters_a_piece():
    """Kaplan et al. 2020: 6 operations a weight and piece, without attention products and embeddings."""
    operations = compute_step_operations(rows=8, length=192, layers=6, width=384, inner_width=1536, labels=9)
    weights = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert operations / (8 * 192) == pytest.approx(6 * weights, rel=0.1)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory, vocabulary, app_process):
    folder = tmp_path_factory.mktemp("benchmark")
    toy.write_corpora(folder)
    flags = ["--mode=benchmark", "--run_dir=run", *toy.run_settings(folder, vocabulary)]
    flags += ["--set=benchmark.steps=4", "--set=benchmark.warmup_steps=1", "--set=training.r_drop_weight=1"]
    process = app_process(*flags, cwd=folder)
    output, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    return output, messages, json.loads((folder / "run" / "metrics.json").read_text())


def test_the_benchmark_prints_what_it_writes(benchmark):
    output, messages, metrics = benchmark
    assert "devices: " in messages and "; precision float32\n" in messages
    assert "share_of_peak: matrix operations a second of training, as a part of those in the fastest" in messages
    printed = dict(line.split() for line in output.splitlines())
    assert {f"benchmark/{name}" for name in printed} == set(metrics)
    assert printed["precision"] == metrics["benchmark/precision"] == "float32"
    for name, value in printed.items():
        if name != "precision":
            assert float(value.replace(",", "")) == pytest.approx(metrics[f"benchmark/{name}"], abs=6e-4)


def test_the_numbers_of_the_benchmark_agree_with_one_another(benchmark):
    *_, metrics = benchmark
    found = {name.removeprefix("benchmark/"): value for name, value in metrics.items()}
    assert found["train_pieces_per_second"] == pytest.approx(4 * toy.LENGTH / found["step_seconds"])
    # R-Drop computes every row twice.
    operations = compute_step_operations(rows=8, length=toy.LENGTH, layers=1, width=16, inner_width=32, labels=5)
    share = operations / found["step_seconds"] / (found["matrix_peak_gflops"] * 1e9)
    assert found["share_of_peak"] == pytest.approx(share, rel=1e-3)
    assert 0 < found["train_words_per_second"] < found["train_pieces_per_second"]
    assert found["tag_words_per_second"] > 0


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("app.training.speed.MATRIX_SIZES", (256,))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_the_peak_is_that_of_the_number_format_that_trains(small, precision):
    peak = MatrixPeak(tf.distribute.get_strategy(), precision)
    peak.measure()
    assert 1e6 < peak.compute_total() < 1e16
    name = precision.removeprefix("mixed_")
    assert peak._makers[256]().dtype == name
    assert f"fastest {name} products of matrices (up to 256 x 256), the best of 1 round(s)" in peak.describe()


def test_another_process_does_not_lower_the_peak_once_it_was_measured(small):
    peak = MatrixPeak(tf.distribute.get_strategy(), "float32")
    peak.measure()
    alone = peak.compute_total()
    with ExitStack() as stack:
        for _ in os.sched_getaffinity(0):
            other = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(other.kill)
        peak.measure()
    assert peak.compute_total() >= alone


def test_measuring_the_peak_draws_no_random_number(small):
    found = []
    for measure in (True, False):
        tf.random.set_seed(3)
        peak = MatrixPeak(tf.distribute.get_strategy(), "float32")
        if measure:
            peak.measure()
        found.append(float(tf.random.uniform([])))
    assert found[0] == found[1]


def test_the_peak_is_measured_now_and_then_and_not_more_often(small, monkeypatch):
    peak, now = MatrixPeak(tf.distribute.get_strategy(), "float32"), [1000.0]
    monkeypatch.setattr("app.training.speed.time.perf_counter", lambda: now.append(now[-1] + 0.01) or now[-1])
    peak.measure_now_and_then()
    assert peak._rounds == 1
    peak.measure_now_and_then()
    assert peak._rounds == 1
    now.append(now[-1] + 100 * peak._seconds)
    peak.measure_now_and_then()
    assert peak._rounds == 2


def test_steps_and_the_peak_are_measured_in_turn(vocabulary):
    tagger = toy.make_tagger(vocabulary)
    tuner = toy.make_tuner(tagger, toy.TRAINING)
    tuner.compile(optimizer=keras.optimizers.legacy.SGD(0.01))
    batches = iter(tf.data.Dataset.from_tensors(toy.make_batch(tagger)).repeat())
    done: list[int] = []
    seconds, words = measure_steps(
        tuner, batches, steps=7, warmup_steps=2, between=lambda: done.append(int(tuner.optimizer.iterations))
    )
    assert done == [2, 3, 4, 6, 7, 9] and seconds > 0 and words > 0


@pytest.mark.slow
def test_the_step_of_pretraining_is_measured_on_rows_of_its_own_text(tmp_path, vocabulary, app_process):
    toy.write_corpora(tmp_path)
    flags = ["--mode=benchmark", "--run_dir=run", *toy.run_settings(tmp_path, vocabulary)]
    flags += ["--set=benchmark.objective=masked_lm", "--set=pretrain.train_path=train.conll"]
    flags += ["--set=pretrain.valid_path=", "--set=pretrain.max_length=32", "--set=pretrain.mask_fraction=0.25"]
    flags += ["--set=benchmark.steps=4", "--set=benchmark.warmup_steps=1"]
    process = app_process(*flags, cwd=tmp_path)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    found = {name.removeprefix("benchmark/"): value for name, value in metrics.items()}
    operations = compute_step_operations(
        rows=4, length=32, layers=1, width=16, inner_width=32, labels=0,
        hidden_pieces=8, vocabulary_size=len(toy.PIECES),
    )  # fmt: skip
    share = operations / found["step_seconds"] / (found["matrix_peak_gflops"] * 1e9)
    assert found["share_of_peak"] == pytest.approx(share, rel=1e-3)
    # Padding is not counted: rows of small documents are never quite full.
    assert 0 < found["train_pieces_per_second"] < 4 * 32 / found["step_seconds"]
