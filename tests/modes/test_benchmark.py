"""`--mode=benchmark`: what it prints and writes, and the arithmetic behind the share of the peak."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy

from app.training.speed import compute_step_operations, measure_matrix_peak

# The machine's peak is sought with small matrices here; everything else is the mode as users run it.
SMALL = "import app, app.training.speed as speed; speed.MATRIX_SIZES = (256,); from app import main; "
RUN = SMALL + "main.absl_app.run(main.main, flags_parser=main.parse_flags)"


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
def benchmark(tmp_path_factory, vocabulary):
    folder = tmp_path_factory.mktemp("benchmark")
    toy.write_corpora(folder)
    flags = ["--mode=benchmark", "--run_dir=run", *toy.run_settings(folder, vocabulary)]
    flags += ["--set=benchmark.steps=4", "--set=benchmark.warmup_steps=1", "--set=training.r_drop_weight=1"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *flags], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done, json.loads((folder / "run" / "metrics.json").read_text()), folder


def test_the_benchmark_prints_what_it_writes(benchmark):
    done, metrics, _ = benchmark
    printed = dict(line.split() for line in done.stdout.splitlines())
    assert {f"benchmark/{name}" for name in printed} == set(metrics)
    assert printed["precision"] == metrics["benchmark/precision"] == "float32"
    for name, value in printed.items():
        if name != "precision":
            assert float(value.replace(",", "")) == pytest.approx(metrics[f"benchmark/{name}"], abs=6e-4)


def test_the_numbers_of_the_benchmark_agree_with_one_another(benchmark):
    _, metrics, _ = benchmark
    found = {name.removeprefix("benchmark/"): value for name, value in metrics.items()}
    assert found["train_pieces_per_second"] == pytest.approx(4 * toy.LENGTH / found["step_seconds"])
    # R-Drop computes every row twice.
    operations = compute_step_operations(rows=8, length=toy.LENGTH, layers=1, width=16, inner_width=32, labels=5)
    share = operations / found["step_seconds"] / (found["matrix_peak_gflops"] * 1e9)
    assert found["share_of_peak"] == pytest.approx(share, rel=1e-3)
    assert 0 < found["train_words_per_second"] < found["train_pieces_per_second"]
    assert found["tag_words_per_second"] > 0


def test_the_peak_is_a_number_a_processor_can_have(monkeypatch):
    monkeypatch.setattr("app.training.speed.MATRIX_SIZES", (256,))
    assert 1e8 < measure_matrix_peak() < 1e16


def test_the_step_of_pretraining_is_measured_on_rows_of_its_own_text(tmp_path, vocabulary):
    toy.write_corpora(tmp_path)
    flags = ["--mode=benchmark", "--run_dir=run", *toy.run_settings(tmp_path, vocabulary)]
    flags += ["--set=benchmark.objective=masked_lm", "--set=pretrain.train_path=train.conll"]
    flags += ["--set=pretrain.valid_path=", "--set=pretrain.max_length=32", "--set=pretrain.mask_fraction=0.25"]
    flags += ["--set=benchmark.steps=4", "--set=benchmark.warmup_steps=1"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
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
