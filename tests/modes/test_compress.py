"""`--mode=compress` from the command line to the files it leaves."""

import dataclasses
import json
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import toy

from app.checks import check_compress
from app.compression.bench import Workbench
from app.config import InputError
from app.config.loading import load_config
from app.modes import compress, evaluate
from app.run.directory import Request, RunDirectory
from app.tasks.bundle import load_model, read_labels
from app.tasks.corpora import read_training_corpus
from app.training.distillation.tuner import DistillationTuner
from app.training.sessions import TaskTraining

STEPS = ("trim_vocabulary", "prune_structured", "prune_magnitude", "cluster", "quantize_aware")
RAREST = min(Counter(word for s in toy.make_sentences(150, seed=11) for word in s.words).values())
SETTINGS = {
    "compression.trim_vocabulary.min_piece_count": RAREST + 1,
    "compression.steps": ",".join(STEPS), "compression.trim_vocabulary.kept_first_pieces": 0,
    "compression.prune_structured.rounds": 1, "compression.prune_structured.last_epochs": 1,
    "compression.prune_structured.importance_steps": 2, "compression.prune_magnitude.epochs": 2,
    "compression.prune_magnitude.sparsity": 0.6, "compression.cluster.values": 8,
    "compression.quantize_aware.epochs": 1,
    "compression.latency_length": 16, "compression.distill": False,  # where it is not the point: it takes long to trace
}  # fmt: skip


def command(trained_run, run: Path) -> list[str]:
    settings = {"init_from": trained_run.path, **SETTINGS}
    return ["--mode=compress", f"--run_dir={run}", *(f"--set={key}={value}" for key, value in settings.items())]


def request(trained_run, run: Path, **settings) -> Request:
    given = {"init_from": trained_run.path, **SETTINGS, **{f"compression.{k}": v for k, v in settings.items()}}
    overrides = [f"{key}={value}" for key, value in given.items()]
    config = load_config(None, overrides, defaults=str(trained_run.path / "config.yaml"))
    return Request(config, RunDirectory(run))


def metrics_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture(scope="module")
def compressed(trained_run, tmp_path_factory, app_process) -> Path:
    folder = tmp_path_factory.mktemp("compressed")
    process = app_process(*command(trained_run, folder / "run"), cwd=folder)
    output, messages = process.communicate(timeout=500)
    assert process.returncode == 0, messages
    assert (folder / "run" / "compression.txt").read_text() in output
    return folder / "run"


@pytest.fixture(scope="module")
def rows(compressed) -> dict[str, dict]:
    return {row["step"]: row for row in json.loads((compressed / "compression.json").read_text())["rows"]}


def kernels_of(folder: Path) -> list[np.ndarray]:
    model = load_model(folder).backbone.model
    layers = [v.numpy() for layer in model.transformer_layers for v in layer.variables if "kernel" in v.name]
    return [*layers, model.token_embedding.embeddings.numpy()]


@pytest.mark.slow
def test_every_step_has_a_row_and_the_run_leaves_no_stages(compressed, rows):
    assert list(rows) == ["(nothing)", *STEPS]
    assert not (compressed / "stages").exists() and not list(compressed.rglob(".tmp-*"))
    assert not (compressed / "checkpoints").exists()
    assert (compressed / "report.txt").is_file() and "quantize_aware" in (compressed / "model/README.md").read_text()


@pytest.mark.slow
def test_two_replicas_compress_as_one_device_does(trained_run, tmp_path, app_process):
    # No random draw that replicas would share out in another way, and an epsilon at which rounding decides nothing.
    equal = {
        "compression.steps": "prune_structured,prune_magnitude", "compression.prune_magnitude.update_every_steps": 2,
        "backbone.dropout": 0, "model.head_dropout": 0, "training.word_mask_fraction": 0, "training.epsilon": 1e-3,
        "data.valid_path": "", "data.test_path": "",
    }  # fmt: skip
    processes = []
    for devices in (1, 2):
        more = [f"--set={key}={value}" for key, value in {**equal, "training.logical_devices": devices}.items()]
        processes.append(app_process(*command(trained_run, tmp_path / str(devices)), *more, cwd=tmp_path))
    for process in processes:
        _, messages = process.communicate(timeout=500)
        assert process.returncode == 0, messages
    one, two = (load_model(tmp_path / devices / "model").network.variables for devices in "12")
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-4, err_msg=a.name)


@pytest.mark.slow
def test_steps_on_weights_work_in_mixed_precision(trained_run, tmp_path, app_process):
    more = ["--set=compression.steps=prune_magnitude,cluster,quantize_aware", "--set=training.precision=mixed_bfloat16"]
    more += ["--set=compression.distill=true", "--set=data.valid_path=", "--set=data.test_path="]  # nothing is scored
    process = app_process(*command(trained_run, tmp_path / "run"), *more, cwd=tmp_path)
    _, messages = process.communicate(timeout=500)
    assert process.returncode == 0, messages
    _, pruned, clustered, _ = json.loads((tmp_path / "run" / "compression.json").read_text())["rows"]
    assert pruned["sparsity"] == pytest.approx(0.6, abs=0.01) and clustered["distinct_values"] <= 8


@pytest.mark.slow
def test_heads_and_columns_are_weighed_by_the_time_they_take_in_mixed_precision_too(trained_run, tmp_path, app_process):
    sizes = {"hidden_dim": 64, "num_heads": 8, "intermediate_dim": 1024, "max_positions": 256}  # half of it takes less
    large = [*trained_run.flags, *(f"--set=backbone.{key}={value}" for key, value in sizes.items())]
    large += ["--set=training.epochs=1", f"--run_dir={tmp_path / 'large'}"]
    begin = app_process("--mode=finetune", *large, cwd=tmp_path)
    _, messages = begin.communicate(timeout=500)
    assert begin.returncode == 0, messages
    more = [f"--set=init_from={tmp_path / 'large'}", "--set=compression.latency_length=256"]
    more += ["--set=compression.steps=prune_structured", "--set=training.precision=mixed_bfloat16"]
    more += ["--set=compression.prune_structured.costs=int8", "--set=compression.prune_structured.rounds=2"]
    more += ["--set=compression.prune_structured.epochs=0", "--set=compression.prune_structured.last_epochs=0"]
    process = app_process(*command(trained_run, tmp_path / "run"), *more, "--set=data.test_path=", cwd=tmp_path)
    _, messages = process.communicate(timeout=500)
    assert process.returncode == 0, messages
    numbers = json.loads((tmp_path / "run" / "compression.json").read_text())["numbers"]
    ratio = numbers["prune_structured/head_ms"] / numbers["prune_structured/column_ms"]
    assert ratio > 0 and messages.count(f"as long as {ratio:.0f} columns, and a layer") == 1  # measured once
    assert "of the time in" in messages


@pytest.mark.slow
def test_a_finished_compression_is_scored_again(trained_run, compressed, tmp_path, capfd):
    run = Path(shutil.copytree(compressed, tmp_path / "run"))
    assert compress.run(request(trained_run, run)) == metrics_of(compressed) == metrics_of(run)
    said = capfd.readouterr()
    assert "this run is finished" in said.err and (run / "compression.txt").read_text() in said.out


@pytest.mark.slow
def test_each_step_does_what_it_is_for(rows):
    assert rows["trim_vocabulary"]["parameters"] < rows["(nothing)"]["parameters"]
    assert rows["prune_structured"]["parameters"] < rows["trim_vocabulary"]["parameters"]
    assert rows["prune_magnitude"]["sparsity"] == pytest.approx(0.6, abs=0.01)
    assert rows["cluster"]["distinct_values"] <= 8
    assert rows["prune_magnitude"]["gzip_mb"] < rows["prune_structured"]["gzip_mb"]


@pytest.mark.slow
def test_zeros_survive_the_steps_after_them(rows):
    before = rows["prune_magnitude"]["sparsity"]
    assert rows["cluster"]["sparsity"] == before
    assert rows["quantize_aware"]["sparsity"] >= before


@pytest.mark.slow
def test_the_model_is_an_ordinary_one_whose_weights_are_what_the_table_says(trained_run, compressed, rows):
    config = load_config(None, defaults=str(compressed / "config.yaml"))
    found = evaluate.run(Request(config, RunDirectory(compressed)))
    metrics = metrics_of(compressed)
    assert found["test/entity_f1"] == metrics["test/entity_f1"] > 0.5
    kernels = kernels_of(compressed / "model")
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)
    assert zeros == pytest.approx(rows["quantize_aware"]["sparsity"], abs=1e-9)
    assert load_model(compressed / "model").backbone.model.intermediate_dim < 32
    for kernel in kernels[:-1]:  # the columns of each are whole multiples of a scale
        if kernel.ndim == 2:
            scale = np.abs(kernel).max(axis=0) / 127
            levels = kernel / np.where(scale > 0, scale, 1)
            assert np.abs(levels - np.round(levels)).max() < 1e-3


@pytest.mark.slow
def test_a_killed_compression_resumes_to_the_same_bits(trained_run, compressed, tmp_path, app_process):
    run = tmp_path / "run"
    killed = app_process(*command(trained_run, run), cwd=tmp_path)
    limit = time.monotonic() + 300
    while not list(run.glob("checkpoints/prune_magnitude/prune/ckpt-1.index")):
        assert killed.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert (run / "stages").is_dir() and not (run / "model").exists()
    process = app_process(*command(trained_run, run), cwd=tmp_path)
    _, messages = process.communicate(timeout=500)
    assert process.returncode == 0 and "resuming" in messages and "prune structured" not in messages, messages
    whole, resumed = metrics_of(compressed), metrics_of(run)
    assert resumed["weights_sha256"] == whole["weights_sha256"]
    assert resumed["test/entity_f1"] == whole["test/entity_f1"]


ORDERS = {
    "cluster,prune_magnitude": "prune_magnitude must come before cluster",
    "prune_magnitude,prune_structured": "prune_structured changes shapes, so it must come before prune_magnitude",
    "quantize_aware,trim_vocabulary": "trim_vocabulary changes shapes, so it must come before quantize_aware",
    "quantize_aware,cluster": "must come before quantize_aware",
    "cluster,cluster": "cluster may be there only once",
    "prune": "compression.steps must be .* trim_vocabulary",
}


@pytest.mark.parametrize("steps", ORDERS)
def test_an_impossible_order_of_steps_is_bad_input(steps):
    with pytest.raises(InputError, match=ORDERS[steps]):
        load_config(None, [f"compression.steps={steps}"])


@pytest.mark.parametrize("key", ["prune_magnitude.sparsity", "prune_structured.flops_fraction"])
@pytest.mark.parametrize("value", ["0", "1", "1.5"])
def test_a_target_of_0_or_1_or_more_is_bad_input(key, value):
    with pytest.raises(InputError, match=f"compression.{key} must be above 0 and below 1"):
        load_config(None, [f"compression.{key}={value}"])


@pytest.mark.slow
def test_a_target_that_cannot_be_reached_says_how_far_it_went(trained_run, tmp_path):
    def one_step(name, **settings):
        settings = {f"prune_structured.{key}": value for key, value in settings.items()}
        return request(trained_run, tmp_path / name, steps="prune_structured", **settings)

    with pytest.raises(InputError, match=r"flops_fraction=0.001 cannot be reached: .* 0\.\d+ of the operations"):
        compress.run(one_step("run", flops_fraction=0.001))
    with pytest.raises(InputError, match=r"latency_ms=1e-06 cannot be reached .* takes \d+\.\d+ ms for 16 pieces"):
        compress.run(one_step("other", latency_ms=1e-6))
    assert not (tmp_path / "run" / "model").exists()


def test_nothing_to_do_or_too_many_layers_to_remove_is_bad_input(trained_run, tmp_path):
    with pytest.raises(InputError, match="compression.steps is empty"):
        compress.run(request(trained_run, tmp_path / "run", steps=""))
    all_layers = {"prune_structured.removed_layers": 1}
    with pytest.raises(InputError, match=r"removed_layers must be below 1 .*received 1"):
        compress.run(request(trained_run, tmp_path / "run", steps="prune_structured", **all_layers))


def test_a_run_without_weights_or_with_other_labels_is_bad_input_and_nothing_is_written(trained_run, tmp_path):
    source = trained_run.copy(tmp_path / "source")
    (source / "model" / "backbone.weights.h5").unlink()
    broken = dataclasses.replace(trained_run, path=source)
    with pytest.raises(InputError, match="not a complete model: backbone.weights.h5 is missing"):
        compress.run(request(broken, tmp_path / "run"))
    (tmp_path / "new.conll").write_text("Tea B-DRINK\n")
    asked = request(trained_run, tmp_path / "run")
    data = dataclasses.replace(asked.config.data, train_path=str(tmp_path / "new.conll"))
    with pytest.raises(InputError, match="DRINK"):
        compress.run(dataclasses.replace(asked, config=dataclasses.replace(asked.config, data=data)))
    assert not (tmp_path / "run").exists()


def test_the_run_that_is_compressed_is_not_written_to(trained_run, tmp_path):
    with pytest.raises(InputError, match="must not be the run that is compressed"):
        compress.run(request(trained_run, trained_run.path))


def test_without_a_run_to_start_from_the_command_says_what_is_missing(tmp_path, app_process):
    process = app_process("--mode=compress", "--dry_run", cwd=tmp_path)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "runs/finetune does not exist" in messages and "init_from" in messages and "Traceback" not in messages


def test_the_settings_of_the_run_are_taken_over(trained_run, tmp_path, app_process):
    process = app_process("--mode=compress", "--dry_run", f"--set=init_from={trained_run.path}", cwd=tmp_path)
    output, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    (tmp_path / "printed.yaml").write_text(output)
    config = load_config(str(tmp_path / "printed.yaml"))
    assert config.data.max_length == toy.LENGTH and config.init_from == str(trained_run.path)


def test_a_fault_that_a_later_step_would_find_is_told_before_the_run_is_opened(trained_run, tmp_path):
    asked = request(trained_run, tmp_path / "run", steps="prune_structured,trim_vocabulary")
    data = dataclasses.replace(asked.config.data, unlabelled_path=str(tmp_path / "nowhere.txt"))
    with pytest.raises(InputError, match=r"no file matches .*nowhere.txt"):
        compress.run(dataclasses.replace(asked, config=dataclasses.replace(asked.config, data=data)))
    settings = {"steps": "trim_vocabulary,prune_structured", "prune_structured.removed_layers": 1}
    with pytest.raises(InputError, match="removed_layers must be below 1"):
        compress.run(request(trained_run, tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_a_text_for_the_latency_that_is_longer_than_the_network_reads_is_bad_input(trained_run, tmp_path):
    asked = request(trained_run, tmp_path / "run", latency_length=65)
    for check in (check_compress, compress.run):
        with pytest.raises(InputError, match=r"latency_length must be at most 64 \(.* positions\), received 65"):
            check(asked)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_run_that_is_compressed_is_asked_once_for_all_parts(trained_run, tmp_path, monkeypatch):
    config = request(trained_run, tmp_path / "run", distill=True).config
    labels = list(read_labels(trained_run.path / "model"))
    train, summary = read_training_corpus(config, labels=labels)
    training = TaskTraining(config, RunDirectory(tmp_path / "run"), tf.distribute.get_strategy(), "float32")
    bench, asked, ask = Workbench(training, labels, train, summary), [], DistillationTuner.ask
    monkeypatch.setattr(DistillationTuner, "ask", lambda tuner, features: asked.append(part) or ask(tuner, features))
    bench.step = "prune_structured"
    for part in ("train_1", "train_2"):
        bench.train(bench.open_tagger(), part=part, epochs=2)
    assert asked and set(asked) == {"train_1"}
    part = "train_3"
    bench.train(bench.open_tagger(), part=part, epochs=1)  # asking at each step costs no more
    assert set(asked) == {"train_1", "train_3"}
