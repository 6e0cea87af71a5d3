"""`--mode=tune` from the command line: stopped and gone on with, its best.yaml, a front, a task of one's own."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy

from app.config.loading import load_config
from app.run.directory import RunDirectory

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parents[2]


def finish(process) -> tuple[int, str, str]:
    output, messages = process.communicate(timeout=500)
    return process.returncode, output, messages


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def history_of(run: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def small(tmp_path_factory, vocabulary) -> tuple[Path, list[str]]:
    """A folder of small corpora, and the flags of a search in it. The test corpus is not there: nobody may read it."""
    folder = tmp_path_factory.mktemp("tune")
    for seed, (split, count) in enumerate({"train": 60, "valid": 20}.items()):
        toy.write_corpus(folder / f"{split}.conll", toy.make_sentences(count, seed=seed))
    own = {
        "tune.trials": 3, "tune.seeds": 1, "tune.sampler": "random", "model.head": "softmax", "training.epochs": 3,
        "tune.space": "{training.learning_rate: [0.02, 0.01], data.overlap_tokens: [8, 9, 40]}", "seed": 2,
        "training.tensorboard": "false", "data.cache": "memory",
    }  # fmt: skip
    flags = [flag for flag in toy.run_settings(folder, vocabulary) if flag[6:].partition("=")[0] not in own]
    return folder, ["--mode=tune", "--run_dir=run", *flags, *(f"--set={key}={value}" for key, value in own.items())]


@pytest.fixture(scope="module")
def searched(small, app_process) -> tuple[Path, str, str, str]:
    """A search that SIGTERM stopped in a training and the same command ended: its folder, what was said and printed."""
    folder, flags = small
    process = app_process(*flags, cwd=folder)
    limit = time.monotonic() + 300
    while not list((folder / "run" / "trials").glob("*/checkpoints/ckpt-*.index")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    status, _, stopped = finish(process)
    assert status == 143 and "stopping: the trial under way writes a checkpoint" in stopped, stopped
    assert "stopped: terminated; finished trials are kept; the same command goes on with the search" in stopped
    status, output, messages = finish(app_process(*flags, cwd=folder))
    assert status == 0, messages
    return folder / "run", stopped, output, messages


def test_a_search_that_was_stopped_goes_on_with_its_trial(searched):
    run, stopped, _, messages = searched
    assert "going on with the search in run" in messages
    again = re.search(r"^trial (\d), gone on with( after epoch \d)?: learning_rate ", messages, re.MULTILINE)
    assert again, messages
    epochs = re.findall(rf"^trial {again[1]} \| epoch (\d) ", stopped + messages, re.MULTILINE)
    assert epochs == ["1", "2", "3"][: len(epochs)]  # each is shown once
    rows = rows_of(run)
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    for row in rows:
        if row["state"] == "complete":
            assert history_of(run / "trials" / row["trial"]) == [1, 2, 3]


def test_a_combination_that_cannot_be_is_a_failed_trial_and_not_a_failed_search(searched):
    run, _, output, messages = searched
    failed = [row for row in rows_of(run) if row["state"] == "failed"]
    assert failed and all(row["data.overlap_tokens"] == "40" for row in failed)
    assert all("the overlap must be smaller than the sequence" in row["reason"] for row in failed)
    assert f"trial {failed[0]['trial']} | failed: the overlap must be smaller" in messages
    assert f"failed: trial {failed[0]['trial']}" in output


def test_each_epoch_and_each_trial_is_shown_with_the_best_so_far(searched):
    run, _, output, messages = searched
    best = json.loads((run / "metrics.json").read_text())["tune/best_score"]
    assert "| epoch 3 | score " in messages and f"best so far {best:.4f} (trial " in messages
    assert f"score {best:.4f}" in output and "unchanged, validation score over 1 other seed" in output


def test_the_test_corpus_is_never_read(searched):
    run, *_ = searched
    assert not (run.parent / "test.conll").exists()
    runs = [path.parent for path in (*run.glob("trials/*/config.yaml"), *run.glob("seeds/*/config.yaml"))]
    assert len(runs) >= 4
    for each in map(RunDirectory, runs):
        assert each.read_config().data.test_path == "" and not list((each.path / "predictions").glob("test*"))
        assert not any(name.startswith("test/") for name in each.read_metrics())


def test_models_of_trials_that_are_not_the_best_are_dropped(searched):
    run, *_ = searched
    best = json.loads((run / "metrics.json").read_text())["tune/best_trial"]
    assert [path.parent.name for path in run.glob("trials/*/model")] == [str(best)]
    assert not list(run.glob("*/*/checkpoints"))


def test_best_yaml_trains_to_the_score_that_the_search_had(searched, app_process, tmp_path):
    run, *_ = searched
    toy.write_corpus(tmp_path / "test.conll", toy.make_sentences(10, seed=5))
    config = load_config(str(run / "best.yaml"))
    assert config.data.test_path == str(run.parent / "test.conll")
    arguments = (f"--config={run / 'best.yaml'}", "--run_dir=best", f"--set=data.test_path={tmp_path / 'test.conll'}")
    status, _, messages = finish(app_process("--mode=finetune", *arguments, cwd=tmp_path))
    assert status == 0, messages
    metrics = RunDirectory(tmp_path / "best").read_metrics()
    assert metrics["valid/entity_f1"] == json.loads((run / "metrics.json").read_text())["tune/best_score"]
    assert "test/entity_f1" in metrics


def test_a_finished_search_is_reported_again_and_more_trials_may_be_asked_for(searched, small, app_process, tmp_path):
    run, *_ = searched
    folder, flags = small
    shutil.copytree(folder, tmp_path / "copy")
    began = (run / "metrics.json").read_text()
    status, _, messages = finish(app_process(*flags, cwd=tmp_path / "copy"))
    assert status == 0 and "loading TensorFlow" not in messages and "training trial" not in messages, messages
    assert (tmp_path / "copy" / "run" / "metrics.json").read_text() == began
    status, _, messages = finish(app_process(*flags, "--set=training.batch_size=8", cwd=tmp_path / "copy"))
    assert status == 2 and "training.batch_size was 4, now 8" in messages


def with_own_corpora(small, folder: Path) -> list[str]:
    """The flags of a search on copies of the corpora that lie in a folder."""
    common, flags = small
    for split in ("train", "valid"):
        shutil.copy(common / f"{split}.conll", folder)
    own = ["--set=tune.space={training.learning_rate: [0.02, 0.01]}", "--set=tune.trials=1"]
    return [*(flag.replace(f"{common}/", f"{folder}/") for flag in flags), *own]


def test_a_search_does_not_go_on_with_other_corpora(small, app_process, tmp_path):
    here = [*with_own_corpora(small, tmp_path), "--set=tune.seeds=0", "--set=training.epochs=2"]
    status, _, messages = finish(app_process(*here, cwd=tmp_path))
    assert status == 0, messages
    kept = (tmp_path / "train.conll").read_bytes()
    toy.write_corpus(tmp_path / "train.conll", toy.make_sentences(50, seed=7))
    status, _, messages = finish(app_process(*here, "--set=tune.trials=2", cwd=tmp_path))
    assert status == 2 and "data.train_path: the sentences are not those that trainings before had" in messages
    (tmp_path / "train.conll").write_bytes(kept)
    status, _, messages = finish(app_process(*here, "--set=tune.trials=2", cwd=tmp_path))
    assert status == 0, messages
    assert [row["state"] for row in rows_of(tmp_path / "run")] == ["complete", "complete"]


def test_a_training_with_another_seed_that_had_other_corpora_is_done_when_they_are_back(small, app_process, tmp_path):
    here = [*with_own_corpora(small, tmp_path), "--set=training.epochs=1"]
    status, _, messages = finish(app_process(*here, "--set=tune.seeds=0", cwd=tmp_path))
    assert status == 0, messages
    kept = (tmp_path / "valid.conll").read_bytes()
    toy.write_corpus(tmp_path / "valid.conll", toy.make_sentences(20, seed=7))
    status, _, messages = finish(app_process(*here, "--set=tune.seeds=1", cwd=tmp_path))
    assert status == 2 and "data.valid_path: the sentences are not those" in messages
    (tmp_path / "valid.conll").write_bytes(kept)
    status, output, messages = finish(app_process(*here, "--set=tune.seeds=1", cwd=tmp_path))
    assert status == 0 and "none of 1" not in output + messages, messages
    assert {path.name for path in (tmp_path / "run" / "seeds").iterdir()} == {"trial0-seed3", "unchanged-seed3"}


def test_without_trials_the_settings_are_trained_with_several_seeds_whose_models_may_be_kept(
    small, app_process, tmp_path
):
    _, flags = small
    run = tmp_path / "run"
    own = ["--set=tune.trials=0", "--set=tune.seeds=2", "--set=tune.keep_models=true", "--set=training.epochs=1"]
    status, output, messages = finish(app_process(*flags, f"--run_dir={run}", *own, cwd=small[0]))
    assert status == 0, messages
    assert output.startswith("no search, several seeds\nunchanged, validation score over 2 seeds: ")
    scores = [RunDirectory(run / "seeds" / f"unchanged-seed{seed}").read_metrics() for seed in (3, 4)]
    found = RunDirectory(run).read_metrics()["tune/unchanged_mean_over_seeds"]
    assert found == pytest.approx(sum(each["valid/entity_f1"] for each in scores) / 2)
    assert all((run / "seeds" / f"unchanged-seed{seed}" / "model" / "SHA256SUMS").exists() for seed in (3, 4))
    assert not list((run / "trials").glob("*")) and not (run / "best.yaml").exists()


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


ENDED = ("complete", "stopped early", "failed")
TWO_PROCESSES = ["--set=tune.processes=2", "--set=training.epochs=4"]


def wait_for_two(process: subprocess.Popen, run: Path) -> None:
    """Until two trials have a checkpoint."""
    limit = time.monotonic() + 300
    while len(list((run / "trials").glob("*/checkpoints/ckpt-*.index"))) < 2:
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_two_processes_search_together_and_one_that_is_killed_costs_no_trial(small, app_process, tmp_path):
    run, command = tmp_path / "run", [*small[1], *TWO_PROCESSES, "--set=tune.trials=4"]
    process = app_process(*command, f"--run_dir={run}", cwd=small[0])
    wait_for_two(process, run)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children_of(process.pid)}
    (helper,) = [pid for pid, command in commands.items() if b"app.search.helpers" in command]
    cores = {pid: os.sched_getaffinity(pid) for pid in (process.pid, helper)}
    assert not cores[process.pid] & cores[helper] and all(cores.values())
    (server,) = children_of(helper)
    assert os.sched_getaffinity(server) == cores[helper]
    os.kill(helper, signal.SIGKILL)
    status, _, messages = finish(process)
    assert status == 0 and f"process {helper} of the search was ended by signal 9" in messages, messages
    rows = rows_of(run)
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3"]
    assert "gone on with" in messages and all(row["state"] in ENDED for row in rows)
    for row in rows:
        if row["state"] == "complete":
            assert history_of(run / "trials" / row["trial"]) == [1, 2, 3, 4]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_search_of_two_processes_that_is_stopped_goes_on(small, app_process, tmp_path):
    run = tmp_path / "run"
    command = [*small[1], *TWO_PROCESSES, f"--run_dir={run}", "--set=tune.trials=2"]
    process = app_process(*command, cwd=small[0])
    wait_for_two(process, run)
    there = children_of(process.pid)
    process.send_signal(signal.SIGTERM)
    status, _, messages = finish(process)
    assert status == 143 and "stopped: terminated" in messages and "Traceback" not in messages, messages
    assert not any(Path(f"/proc/{pid}").exists() for pid in there)
    status, _, messages = finish(app_process(*command, cwd=small[0]))
    assert status == 0, messages
    assert [row["trial"] for row in rows_of(run)] == ["0", "1"]


def test_a_front_of_score_and_size_is_searched_over_compressions(trained_run, app_process, tmp_path):
    settings = {
        "init_from": trained_run.path, "tune.objectives": "score,size,latency", "tune.trials": 2, "tune.seeds": 0,
        "tune.space": "{compression.prune_structured.flops_fraction: [0.4, 0.9]}", "tune.sampler": "random",
        "compression.prune_structured.rounds": 1, "compression.prune_structured.last_epochs": 0, "seed": 3,
        "compression.prune_structured.importance_steps": 1, "compression.latency_length": 16,
    }  # fmt: skip
    flags = [f"--set={key}={value}" for key, value in settings.items()]
    status, output, messages = finish(app_process("--mode=tune", "--run_dir=run", *flags, cwd=tmp_path))
    assert status == 0, messages
    rows = rows_of(tmp_path / "run")
    assert [row["state"] for row in rows] == ["complete", "complete"] and "(knee)" in output
    for row in rows:
        run = RunDirectory(tmp_path / "run" / "trials" / row["trial"])
        files = list(run.tflite.glob("int8.tflite"))
        assert not files or files[0].stat().st_size == float(row["size"])
        assert 0 < float(row["score"]) <= 1 and float(row["latency"]) > 0
        assert not any(name.startswith("test/") for name in run.read_metrics())
    best = load_config(str(tmp_path / "run" / "best.yaml"))
    assert best.compression.prune_structured.flops_fraction in (0.4, 0.9) and best.data.test_path


def test_a_task_of_ones_own_is_searched_by_its_own_score(tmp_path, vocabulary):
    for seed, (split, count) in enumerate({"train": 60, "valid": 20}.items()):
        texts = [each["text"] for each in toy.make_texts(count, seed=seed)]
        toy.write_table(tmp_path / f"{split}.csv", [{"text": text, "length": str(len(text.split()))} for text in texts])
    own = {
        "task": "text_length", "data.train_path": "train.csv", "data.valid_path": "valid.csv",
        "data.test_path": "none.csv", "training.epochs": 1, "tune.trials": 1, "tune.seeds": 0,
        "tune.space": "{training.learning_rate: [0.02, 0.01]}", "model.word_shape": "false",
    }  # fmt: skip
    usual = [flag for flag in toy.run_settings(tmp_path, vocabulary) if flag[6:].partition("=")[0] not in own]
    flags = [flag for flag in usual if "model.head" not in flag]
    flags += [f"--set={key}={value}" for key, value in own.items()]
    places = os.pathsep.join((str(PROJECT), str(PROJECT / "tests")))
    done = subprocess.run(
        [sys.executable, "-m", "app.main", "--mode=tune", "--run_dir=run", "--task_module=third_task", *flags],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": places}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = RunDirectory(tmp_path / "run" / "trials" / "0").read_metrics()
    assert float(rows_of(tmp_path / "run")[0]["score"]) == metrics["valid/closeness"]
