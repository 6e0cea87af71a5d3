"""`--mode=finetune` and `--mode=evaluate` from the command line to the files they leave."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import toy

from app.config import DataConfig, InputError
from app.config.loading import load_config
from app.modes import evaluate, finetune
from app.run.directory import Request, RunDirectory, sha256_of_file
from app.tasks.bundle import load_model
from app.tasks.network import build_encoder

FILES = """config.yaml environment.json corpora.json metrics.json history.jsonl report.txt report.html
predictions/valid.conll predictions/test.conll errors/valid.jsonl errors/test.jsonl state.json model/backbone.json
model/backbone.weights.h5 model/vocab.txt model/tagger.json model/head.safetensors model/SHA256SUMS
model/README.md""".split()


def metrics_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def sums_of(folder: Path) -> dict[str, str]:
    return {str(path): sha256_of_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def request_of(run: Path, *settings: str) -> Request:
    """What the command line asks of a mode that works on a run."""
    config = load_config(None, list(settings), defaults=str(run / "config.yaml"))
    return Request(config, RunDirectory(run))


def finish(process) -> tuple[int, str, str]:
    output, messages = process.communicate(timeout=300)
    return process.returncode, output, messages


def test_a_run_leaves_every_file_and_nothing_temporary(trained_run):
    missing = [name for name in FILES if not (trained_run.path / name).is_file()]
    assert not missing
    assert list((trained_run.path / "tensorboard").glob("events.*"))
    assert not list(trained_run.path.rglob(".tmp-*"))


def test_every_file_and_folder_of_a_run_has_the_access_that_the_umask_allows(trained_run):
    umask = os.umask(0)
    os.umask(umask)
    for path in (trained_run.path, *trained_run.path.rglob("*")):
        allowed = (0o777 if path.is_dir() else 0o666) & ~umask
        assert path.stat().st_mode & 0o777 == allowed, path


def test_the_report_is_printed_and_says_where_everything_lies(trained_run):
    assert trained_run.output.strip() == (trained_run.path / "report.txt").read_text().strip()
    assert str(trained_run.made_as / "report.html") in trained_run.messages
    assert "Traceback" not in trained_run.messages
    assert "InitializeLog" not in trained_run.messages and "XLA" not in trained_run.messages  # no library speaks


def test_the_metrics_are_flat_and_hold_scores_speed_and_the_digest_of_the_weights(trained_run):
    metrics = metrics_of(trained_run.path)
    keys = ("entity_f1", "entity_precision", "entity_recall", "token_macro_f1", "token_accuracy", "words_per_second")
    assert {f"{split}/{key}" for split in ("valid", "test") for key in keys} <= set(metrics)
    names = ("words", "seconds", "words_per_second", "epochs", "best_epoch")
    assert {f"train/{name}" for name in names} <= set(metrics)
    assert re.fullmatch("[0-9a-f]{64}", metrics["weights_sha256"])
    assert all(isinstance(value, int | float | str) for value in metrics.values())
    assert metrics["train/epochs"] == 4
    assert metrics["train/words"] == 4 * sum(len(s.words) for s in toy.make_sentences(150, seed=11))
    assert 0.5 < metrics["test/entity_f1"] < 1  # learnt, and one word of the toy corpus cannot be told


def test_the_best_epoch_of_the_history_is_the_one_that_was_kept(trained_run):
    rows = [json.loads(line) for line in (trained_run.path / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    best = max(rows, key=lambda row: (row["valid/entity_f1"], -row["epoch"]))
    metrics = metrics_of(trained_run.path)
    assert metrics["train/best_epoch"] == best["epoch"]
    assert metrics["valid/entity_f1"] == pytest.approx(best["valid/entity_f1"], abs=1e-12)


def test_the_predictions_are_what_conlleval_reads(trained_run):
    text = (trained_run.path / "predictions" / "test.conll").read_text(encoding="utf-8")
    blocks = [block.split("\n") for block in text.strip("\n").split("\n\n")]
    gold = toy.make_sentences(60, seed=13)
    assert len(blocks) == len(gold)
    for block, sentence in zip(blocks, gold, strict=True):
        rows = [line.split(" ") for line in block]
        assert all(len(row) == 3 for row in rows)
        words, tags, predicted = zip(*rows, strict=True)
        assert (words, tags) == (sentence.words, sentence.tags)
        before = "O"
        for tag in predicted:
            assert tag in toy.LABELS
            assert not tag.startswith("I-") or before[2:] == tag[2:], "an I- tag begins an entity"
            before = tag


def test_the_errors_are_the_sentences_whose_predictions_differ(trained_run):
    text = (trained_run.path / "predictions" / "test.conll").read_text().strip("\n")
    wrong = sum(any(len(set(row.split()[1:])) > 1 for row in block.split("\n")) for block in text.split("\n\n"))
    rows = [json.loads(line) for line in (trained_run.path / "errors" / "test.jsonl").read_text().splitlines()]
    assert len(rows) == wrong > 0


def wait_for(process, found, *, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not found() and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.002)


@pytest.fixture(scope="module")
def overwriting(trained_run, tmp_path_factory, app_process):
    """The finished run started anew, beside the test that asks for it first."""
    run = trained_run.copy(tmp_path_factory.mktemp("overwritten") / "run")
    command = ["--mode=finetune", f"--run_dir={run}", "--overwrite", *trained_run.flags]
    return app_process(*command, cwd=run.parent), run


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits_and_is_not_trained_again(
    trained_run, tmp_path, app_process, overwriting
):
    run = tmp_path / "run"
    command = ["--mode=finetune", f"--run_dir={run}", *trained_run.flags]
    killed = app_process(*command, cwd=tmp_path)
    wait_for(killed, lambda: (run / "checkpoints" / "ckpt-1.index").exists())
    killed.send_signal(signal.SIGKILL)
    finish(killed)
    assert not (run / "metrics.json").exists()

    status, _, messages = finish(app_process(*command, cwd=tmp_path, fresh=True))
    assert status == 0 and f"resuming {run}" in messages, messages
    whole, resumed = metrics_of(trained_run.path), metrics_of(run)
    same = ("weights_sha256", "test/entity_f1", "valid/entity_f1", "train/best_epoch", "train/words")
    assert [resumed[key] for key in same] == [whole[key] for key in same]

    history = (run / "history.jsonl").read_text()
    assert not (run / "checkpoints").exists()
    status, _, messages = finish(app_process(*command, cwd=tmp_path))
    assert status == 0 and "this run is finished" in messages and "epoch" not in messages, messages
    assert (run / "history.jsonl").read_text() == history and metrics_of(run) == resumed


def test_another_configuration_is_refused_and_nothing_changes(trained_run, tmp_path):
    run = trained_run.copy(tmp_path / "run")
    before = sums_of(run)
    settings = [flag.removeprefix("--set=") for flag in trained_run.flags]
    config = load_config(None, [*settings, "training.epochs=1"])
    with pytest.raises(InputError, match=r"training.epochs was 4, now 1.*--overwrite"):
        finetune.run(Request(config, RunDirectory(run)))
    assert sums_of(run) == before


@pytest.mark.slow
def test_overwrite_starts_anew_and_the_same_seed_gives_the_same_bits(trained_run, overwriting):
    process, run = overwriting
    status, _, messages = finish(process)
    assert status == 0, messages
    assert "epoch 1/4" in messages and "resuming" not in messages
    assert len((run / "history.jsonl").read_text().splitlines()) == 4
    assert metrics_of(run)["weights_sha256"] == metrics_of(trained_run.path)["weights_sha256"]


def test_evaluate_gives_the_scores_of_the_run_and_touches_no_weight(trained_run, tmp_path, capsys):
    run = trained_run.copy(tmp_path / "run")
    before = sums_of(run / "model") | sums_of(run / "checkpoints")
    found = evaluate.run(request_of(run))
    metrics = metrics_of(trained_run.path)
    assert all(value == metrics[key] for key, value in found.items() if not key.endswith("words_per_second"))
    assert capsys.readouterr().out.strip() == (trained_run.path / "report.txt").read_text().strip()
    assert sums_of(run / "model") | sums_of(run / "checkpoints") == before
    same = "predictions/test.conll"
    assert (run / same).read_bytes() == (trained_run.path / same).read_bytes()


def test_evaluate_on_another_corpus_keeps_the_scores_of_the_run(trained_run, tmp_path, capsys):
    run = trained_run.copy(tmp_path / "run")
    before = sums_of(run)
    for folder, content in (("wnut17", "Ada B-PER\n"), ("wikigold", "Ada B-PER\n\nRome B-LOC\n")):
        other = tmp_path / folder / "test.conll"
        other.parent.mkdir()
        other.write_text(content)
        evaluate.run(request_of(run, f"data.test_path={other}"))
        assert f"run on {other}, test split" in capsys.readouterr().out
    valid = evaluate.run(request_of(run, "evaluation.split=valid"))
    assert valid["valid/entity_f1"] == metrics_of(trained_run.path)["valid/entity_f1"]
    assert {path: digest for path, digest in sums_of(run).items() if path in before} == before
    scored = {folder.name.partition("-")[0]: 0 for folder in (run / "evaluations").iterdir()}
    sources = {}
    for folder in (run / "evaluations").iterdir():
        scored[folder.name.partition("-")[0]] += 1
        ((split, corpus),) = json.loads((folder / "corpora.json").read_text()).items()
        sources[corpus["sources"][0]] = metrics_of(folder)[f"{split}/sentences"]
    assert scored == {"test.conll": 2, "valid.conll": 1}
    assert sources == {
        str(tmp_path / "wnut17" / "test.conll"): 1,
        str(tmp_path / "wikigold" / "test.conll"): 2,
        str(trained_run.corpora / "valid.conll"): 40,
    }


def test_evaluate_from_another_folder_takes_no_other_corpus_for_the_runs_own(
    trained_run, tmp_path, monkeypatch, capsys
):
    run = trained_run.copy(tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(str(trained_run.corpora / "test.conll"), "test.conll"))
    before = sums_of(run)
    (tmp_path / "test.conll").write_text("Ada B-PER\n")
    monkeypatch.chdir(tmp_path)
    evaluate.run(request_of(run))
    assert {path: digest for path, digest in sums_of(run).items() if path in before} == before


def test_a_run_whose_corpus_was_edited_does_not_resume(trained_run, tmp_path):
    run, corpora = trained_run.copy(tmp_path / "run"), Path(shutil.copytree(trained_run.corpora, tmp_path / "corpora"))
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(f"{trained_run.corpora}/t", f"{corpora}/t"))
    before, train = sums_of(run), corpora / "train.conll"
    train.write_text(train.read_text().replace("Ada", "Bob", 1))
    with pytest.raises(InputError, match=r"data\.train_path: the sentences in .* are not those .* --overwrite"):
        finetune.run(request_of(run))
    assert sums_of(run) == before


def test_a_run_that_was_moved_is_evaluated_from_anywhere(trained_run, tmp_path, monkeypatch, capsys):
    run = trained_run.copy(tmp_path / "far" / "away")
    monkeypatch.chdir(tmp_path / "far")
    found = evaluate.run(request_of(Path("away")))
    assert found["test/entity_f1"] == metrics_of(trained_run.path)["test/entity_f1"]
    assert run.is_dir()


def test_evaluating_types_the_model_does_not_know_is_bad_input(trained_run, tmp_path):
    run = trained_run.copy(tmp_path / "run")
    before = sums_of(run)
    (tmp_path / "new.conll").write_text("Ada B-PER\n\nTea B-DRINK\n")
    with pytest.raises(InputError, match=r"new\.conll, line 3: .*DRINK"):
        evaluate.run(request_of(run, f"data.test_path={tmp_path / 'new.conll'}"))
    with pytest.raises(InputError, match=r"data.test_path is empty"):
        evaluate.run(request_of(run, "data.test_path="))
    assert sums_of(run) == before


def test_rows_longer_than_the_positions_of_a_loaded_backbone_are_bad_input(trained_run):
    tagger = load_model(trained_run.path / "model")
    with pytest.raises(InputError, match=r"data.max_length must be at most 64 .*received 128"):
        build_encoder(tagger, DataConfig(max_length=128))


BAD = {
    "missing": (None, r"{path} is missing"),
    "empty": (b"", r"{path} is empty"),
    "columns": (b"Ada B-PER\nmet\n", r"{path}, line 2: wrong number of columns"),
    "tag": (b"Ada B-PER\nmet X-PER\n", r"{path}, line 2: .*X-PER"),
    "utf8": (b"Ada B-PER\n\nm\xffet O\n", r"{path}, line 3: invalid UTF-8"),
    "no entity": (b"so O\n\nwhat O\n", r"{path}: "),
}


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("fault", BAD)
def test_a_corpus_that_cannot_be_read_is_named_and_nothing_is_written(trained_run, tmp_path, fault, split):
    content, message = BAD[fault]
    path = tmp_path / "bad.conll"
    if content is not None:
        path.write_bytes(content)
    if (fault, split) == ("no entity", "valid"):
        pytest.skip("a validation corpus may hold no entity")
    settings = [flag.removeprefix("--set=") for flag in trained_run.flags]
    config = load_config(None, [*settings, f"data.{split}_path={path}"])
    with pytest.raises(InputError, match=message.format(path=re.escape(str(path)))):
        finetune.run(Request(config, RunDirectory(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_types_of_the_test_corpus_that_training_has_not_are_found_before_training(trained_run, tmp_path):
    path = tmp_path / "new.conll"
    path.write_text("Tea B-DRINK\n")
    settings = [flag.removeprefix("--set=") for flag in trained_run.flags]
    config = load_config(None, [*settings, f"data.test_path={path}"])
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}, line 1: .*DRINK"):
        finetune.run(Request(config, RunDirectory(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_the_environment_names_versions_hardware_seed_and_command(trained_run):
    environment = json.loads((trained_run.path / "environment.json").read_text())
    assert environment["seed"] == 7 and "--mode=finetune" in environment["command"]
    assert environment["packages"]["tensorflow"].startswith("2.15") and environment["cores"] == os.cpu_count()
