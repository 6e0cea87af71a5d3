"""`--mode=pretrain` from the command line, and a fine-tuning that starts from what it leaves."""

import json
import shutil
import signal
import time

import pytest
import toy

STEPS = ("--set=training.epochs=3", "--set=training.batch_size=8", "--set=pretrain.max_length=16")


def read_metrics(run) -> dict:
    return json.loads((run / "metrics.json").read_text())


def read_history(run) -> list[dict]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, vocabulary):
    """Corpora, and the flags of a small run."""
    folder = tmp_path_factory.mktemp("pretrain")
    toy.write_corpora(folder)
    texts = [f"--set=pretrain.{split}_path={folder / split}.conll" for split in ("train", "valid")]
    return folder, [*toy.run_settings(folder, vocabulary), *texts, *STEPS]


def finish(process) -> tuple[int, str, str]:
    output, messages = process.communicate(timeout=300)
    return process.returncode, output, messages


@pytest.fixture(scope="module")
def pretrained(app_process, folder):
    where, flags = folder
    status, output, messages = finish(app_process("--mode=pretrain", "--run_dir=run", *flags, cwd=where))
    assert status == 0, messages
    return where / "run", output, messages


def test_a_run_leaves_a_model_a_preset_records_and_scores_of_held_out_text(pretrained):
    run, output, _ = pretrained
    for name in ("config.yaml", "environment.json", "history.jsonl", "model/backbone.json", "model/SHA256SUMS"):
        assert (run / name).is_file(), name
    assert (run / "export/keras_nlp/config.json").is_file() and (run / "records/train-16/records.json").is_file()
    assert not list(run.rglob(".tmp-*"))
    metrics = read_metrics(run)
    assert metrics["valid/perplexity"] == pytest.approx(2.718281828 ** metrics["valid/loss"], rel=1e-6)
    assert 0 < metrics["valid/masked_accuracy"] < 1 and 0 < metrics["train/share_of_peak"] < 1
    assert metrics["train/pieces_per_second"] > 0 and "valid/perplexity" in output
    losses = [row["valid/loss"] for row in read_history(run)]
    assert len(losses) == 3 and losses[-1] < losses[0]


def test_the_kept_weights_are_those_of_the_best_epoch(pretrained):
    run, *_ = pretrained
    best = max(read_history(run), key=lambda row: (row["valid/masked_accuracy"], -row["epoch"]))
    assert read_metrics(run)["valid/masked_accuracy"] == pytest.approx(best["valid/masked_accuracy"], abs=1e-12)


def contents(run) -> dict:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "state.json"}


def test_a_finished_run_shows_its_numbers_again_and_is_left_as_it_is(pretrained, folder, app_process):
    run, output, _ = pretrained
    where, flags = folder
    assert not (run / "checkpoints").exists()
    before = contents(run)
    status, again, messages = finish(app_process("--mode=pretrain", "--run_dir=run", *flags, cwd=where))
    assert status == 0 and "this run is finished" in messages and "resuming" not in messages, messages
    assert sorted(again.splitlines()) == sorted(output.splitlines())
    assert contents(run) == before


def test_fine_tuning_starts_from_a_pretrained_run(pretrained, folder, app_process):
    run, *_ = pretrained
    where, flags = folder
    more = [f"--set=backbone.source={run}", "--set=training.epochs=1"]
    keep = [flag for flag in flags if "backbone." not in flag]
    status, _, messages = finish(app_process("--mode=finetune", "--run_dir=tuned", *keep, *more, cwd=where))
    assert status == 0, messages
    assert "test/entity_f1" in read_metrics(where / "tuned")


@pytest.mark.slow
def test_a_run_killed_in_the_middle_ends_with_the_same_bits(pretrained, folder, app_process):
    run, *_ = pretrained
    where, flags = folder
    command = ("--mode=pretrain", "--run_dir=killed", *flags)
    process = app_process(*command, cwd=where)
    checkpoints = where / "killed" / "checkpoints"
    deadline = time.monotonic() + 200
    while len(list(checkpoints.glob("ckpt-*.index"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    status, _, messages = finish(app_process(*command, cwd=where))
    assert status == 0 and "resuming" in messages, messages
    assert read_metrics(where / "killed")["weights_sha256"] == read_metrics(run)["weights_sha256"]


@pytest.mark.slow
def test_pairs_and_long_sequences_and_a_vocabulary_of_its_own(folder, app_process):
    where, flags = folder
    keep = [flag for flag in flags if "vocabulary_path" not in flag]
    more = (
        "--set=pretrain.objective=next_sentence",
        "--set=pretrain.vocabulary_size=60",
        "--set=pretrain.long_epochs=1",
        "--set=pretrain.long_length=32",
        "--set=training.accumulation_steps=2",
        "--set=training.optimizer=lamb",
    )
    run = where / "pairs"
    status, _, messages = finish(app_process("--mode=pretrain", f"--run_dir={run}", *keep, *more, cwd=where))
    assert status == 0, messages
    assert 0 < read_metrics(run)["valid/pair_accuracy"] <= 1
    assert {path.name for path in (run / "records").iterdir()} == {"train-16", "train-32", "valid-32"}
    pieces = (run / "model" / "vocab.txt").read_text().splitlines()
    assert pieces == (run / "vocabulary.txt").read_text().splitlines() and len(pieces) <= 60
    shutil.rmtree(run)


def test_the_order_of_sentences_is_asked_too(folder, app_process):
    where, flags = folder
    more = ("--set=pretrain.objective=sentence_order", "--set=training.epochs=1")
    status, _, messages = finish(app_process("--mode=pretrain", "--run_dir=order", *flags, *more, cwd=where))
    assert status == 0, messages
    assert 0 < read_metrics(where / "order")["valid/pair_accuracy"] <= 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("pretrain.train_path=", "pretrain.train_path is empty"),
        ("pretrain.train_path=nowhere/*.txt", "nowhere"),
        ("pretrain.vocabulary_size=50", "learning a vocabulary needs a backbone with random weights"),
        ("pretrain.long_epochs=9", "must not be more than all epochs"),
    ],
)
def test_bad_settings_end_with_status_2_and_one_sentence(folder, app_process, setting, message, tmp_path):
    where, flags = folder
    if setting.startswith("pretrain.vocabulary_size"):
        flags = [*flags, "--set=backbone.source=minilm"]
    command = ("--mode=pretrain", f"--run_dir={tmp_path / 'bad'}", *flags, f"--set={setting}")
    status, output, messages = finish(app_process(*command, cwd=where))
    assert (status, output) == (2, "") and message in messages and "Traceback" not in messages
