"""`--mode=export` of a SavedModel, `--mode=evaluate` of it, and `--mode=serve`, as a user runs them."""

import json
import re
import signal
import subprocess
import urllib.request

import pytest


@pytest.fixture(scope="module")
def exported_run(trained_run, tmp_path_factory, app_process):
    folder = tmp_path_factory.mktemp("served")
    run = trained_run.copy(folder / "run")
    process = app_process("--mode=export", f"--run_dir={run}", "--set=export.formats=saved_model", cwd=folder)
    _, messages = process.communicate(timeout=200)
    assert process.returncode == 0, messages
    assert re.search(r"saved_model +[\d.]+ MB  entity F1 \d\.\d{4}", messages)
    return run


def test_the_exported_model_scores_as_the_float_model(exported_run):
    metrics = json.loads((exported_run / "metrics.json").read_text())
    assert metrics["export/saved_model/test/entity_f1"] == metrics["export/float/test/entity_f1"] > 0.5
    assert metrics["export/saved_model/bytes"] > 100_000
    assert [path.name for path in (exported_run / "export" / "saved_model").iterdir()] == ["1"]


def test_evaluate_scores_the_saved_model_tag_for_tag_as_keras(exported_run, app_process, tmp_path):
    process = app_process("--mode=evaluate", f"--run_dir={exported_run}", "--set=predictor=saved_model", cwd=tmp_path)
    _, messages = process.communicate(timeout=200)
    assert process.returncode == 0, messages
    (scored,) = (exported_run / "evaluations").iterdir()
    predictions = (scored / "predictions" / "test.conll").read_text()
    assert predictions == (exported_run / "predictions" / "test.conll").read_text()


def test_serve_answers_until_it_is_told_to_end(exported_run, app_process, tmp_path):
    process = app_process(
        "--mode=serve", f"--run_dir={exported_run}", "--set=serve.port=0", cwd=tmp_path, stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    )  # fmt: skip
    assert process.stderr.readline() == "serve: loading TensorFlow ...\n"
    url = re.search(r"http://\S+/", process.stderr.readline())[0]
    body = json.dumps({"instances": ["the old Ada Smith met and saw Rome ."]}).encode()
    with urllib.request.urlopen(f"{url}v1/models/ner:predict", body, timeout=60) as response:
        (row,) = json.load(response)["predictions"]
    assert list(zip(row["label"], row["start"], row["end"], strict=True)) == [("PER", 8, 17), ("LOC", 30, 34)]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130


def test_serve_without_an_export_says_what_to_do(trained_run, app_process, tmp_path):
    process = app_process("--mode=serve", f"--run_dir={trained_run.path}", cwd=tmp_path)
    _, messages = process.communicate(timeout=100)
    assert process.returncode == 2
    assert messages.endswith("holds no SavedModel: make one with --mode=export\n")
