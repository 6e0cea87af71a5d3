"""What a training mode leaves when it is done, whenever it is killed, and what the same command does then."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import toy

from app.config import Config, DataConfig, EvaluationConfig, InputError, LostWorkerError, TrainingConfig
from app.config.loading import load_config
from app.evaluation import scoring as tagger_training
from app.evaluation.scoring import finish_run, score_again
from app.modes import finetune
from app.run.directory import Request, RunDirectory
from app.training.sessions import open_finished_run, open_run
from app.training.workers import Workers


def metrics_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def request_of(trained_run, run: Path, *more: str) -> Request:
    settings = [flag.removeprefix("--set=") for flag in trained_run.flags]
    return Request(load_config(None, [*settings, *more]), RunDirectory(run))


@pytest.fixture
def ending(tmp_path, vocabulary):
    """What the same command does when training is over, or finds that it was; and the run directory."""
    toy.write_corpora(tmp_path)
    paths = {f"{split}_path": str(tmp_path / f"{split}.conll") for split in ("train", "valid", "test")}
    data = DataConfig(**paths, max_length=toy.LENGTH, overlap_tokens=8)
    config = Config(data=data, evaluation=EvaluationConfig(batch_size=8), backbone=toy.backbone_config(vocabulary))
    run_dir = RunDirectory(tmp_path / "run")
    tagger = toy.make_tagger(vocabulary)
    seconds = iter(range(1, 100))  # no two processes take as long

    def end() -> dict:
        if run_dir.plan_training(config, mode="finetune") == "finished":
            return score_again(Request(config, run_dir), mode="finetune")
        with run_dir.open_for_training(config, mode="finetune"):
            run_dir.write_environment(seed=0, command=["x"])
            for name in ("checkpoint", "ckpt-1.index", "best.npz", "masked_lm/ckpt-1.index"):
                (run_dir.checkpoints / name).parent.mkdir(parents=True, exist_ok=True)
                (run_dir.checkpoints / name).write_text("x" * 100)
            numbers = {"train/epochs": 1, "train/seconds": next(seconds)}
            return finish_run(tagger, numbers, card="", config=config, run_dir=run_dir, mode="finetune")

    return end, run_dir


FINAL = {"config.yaml", "environment.json", "metrics.json", "report.txt", "report.html", "state.json"}
KILLS = {  # what is being done when it comes
    "before the model": (tagger_training, "save_model"),
    "before the model is marked": (RunDirectory, "mark_trained"),
    "between the scores": (RunDirectory, "write_jsonl"),
    "before the scores are marked": (RunDirectory, "complete"),
    "while the checkpoints go": (shutil, "rmtree"),
}


@pytest.mark.parametrize("kill", KILLS)
def test_a_kill_at_the_end_of_a_run_leads_to_the_same_state(ending, monkeypatch, kill):
    end, run_dir = ending

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*KILLS[kill], killed)
        with pytest.raises(KeyboardInterrupt):
            end()
    assert "scored" not in run_dir.read_state() or kill == "while the checkpoints go"
    found = end()
    assert FINAL <= {path.name for path in run_dir.path.iterdir()}
    assert not run_dir.checkpoints.exists() and not list(run_dir.path.rglob(".tmp-*"))
    assert found == run_dir.read_metrics() and found["train/seconds"] == 1
    assert {"valid/entity_f1", "test/entity_f1", "weights_sha256"} <= found.keys()
    assert run_dir.read_state()["scored"] and run_dir.read_state()["epochs"] == 12


def test_a_finished_run_is_scored_again_and_nothing_else_changes(trained_run, tmp_path, capfd):
    run = trained_run.copy(tmp_path / "run")
    before, config = metrics_of(run), (run / "config.yaml").read_text()
    trained = RunDirectory(run).read_state()["trained"]
    (run / "report.txt").unlink()
    found = finetune.run(request_of(trained_run, run, "serve.port=9000"))
    said = capfd.readouterr()
    assert f"this run is finished (trained {trained})" in said.err and "resuming" not in said.err
    assert (run / "report.txt").read_text() in said.out
    assert found == metrics_of(run) == before  # no timing either
    assert (run / "environment.json").read_text() == (trained_run.path / "environment.json").read_text()
    assert (run / "config.yaml").read_text() == config.replace("port: 8501", "port: 9000")


def test_a_finished_run_is_scored_on_another_test_corpus_or_on_none(trained_run, tmp_path):
    run = trained_run.copy(tmp_path / "run")
    found = finetune.run(request_of(trained_run, run, f"data.test_path={trained_run.corpora / 'valid.conll'}"))
    assert found["test/entity_f1"] == found["valid/entity_f1"] and metrics_of(run) == found
    finetune.run(request_of(trained_run, run, "data.test_path="))
    assert not [name for name in metrics_of(run) if name.startswith("test/")]
    assert not (run / "predictions" / "test.conll").exists() and "train/seconds" in metrics_of(run)


def test_a_finished_run_needs_neither_its_training_corpus_nor_its_backbone(trained_run, tmp_path):
    run = trained_run.copy(tmp_path / "run")
    text = (run / "config.yaml").read_text()
    moved = text.replace(str(trained_run.corpora / "train.conll"), str(tmp_path / "gone.conll"))
    (run / "config.yaml").write_text(moved)
    found = finetune.run(request_of(trained_run, run, f"data.train_path={tmp_path / 'gone.conll'}"))
    assert found == metrics_of(trained_run.path)


def test_a_backbone_that_cannot_be_loaded_leaves_no_run_directory(trained_run, tmp_path):
    too_long = (f"backbone.source={trained_run.path}", "data.max_length=65")
    for settings in (("backbone.vocabulary_path=nowhere.txt",), ("backbone.source=nowhere",), too_long):
        with pytest.raises(InputError, match=r"nowhere|data.max_length must be at most 64"):
            finetune.run(request_of(trained_run, tmp_path / "run", *settings))
        assert not (tmp_path / "run").exists(), settings


@pytest.mark.slow
def test_kept_checkpoints_train_on_when_the_epochs_are_raised(trained_run, tmp_path, app_process):
    command = ["--mode=finetune", "--run_dir=run", *trained_run.flags, "--set=training.epochs=1"]
    for more, said, epochs, kept in (
        (["--set=training.keep_checkpoints=true"], "epoch 1/1", 1, True),
        (["--set=training.keep_checkpoints=true", "--set=training.epochs=2"], "continuing to 2", 2, True),
        (["--set=training.epochs=2"], "this run is finished", 2, False),
    ):
        process = app_process(*command, *more, cwd=tmp_path)
        _, messages = process.communicate(timeout=300)
        assert process.returncode == 0 and said in messages, messages
        assert metrics_of(tmp_path / "run")["train/epochs"] == epochs
        assert (tmp_path / "run" / "checkpoints" / "checkpoint").exists() == kept
    process = app_process(*command, "--set=training.epochs=3", cwd=tmp_path)
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 2 and "its checkpoints are dropped" in messages and "init_from=run" in messages


class LateWorkers(Workers):
    """As the chief of several sees them: what it finds of the run directory when it first waits for the others."""

    def __init__(self, run_dir: RunDirectory, *, lost: bool) -> None:
        self.index, self.count = 0, 2
        self._run_dir, self._lost = run_dir, lost
        self.seen: list[bool] = []

    def wait(self) -> None:
        self.seen.append(self._run_dir.is_run())
        if self._lost:
            raise LostWorkerError("worker 1 could not load its backbone")


def test_the_chief_claims_the_run_directory_when_all_workers_can_train(tmp_path):
    run_dir = RunDirectory(tmp_path / "run")
    workers = LateWorkers(run_dir, lost=False)
    with open_run(Request(Config(), run_dir), workers, mode="finetune"):
        assert workers.seen == [False, True]
    other = RunDirectory(tmp_path / "other")
    with pytest.raises(LostWorkerError), open_run(Request(Config(), other), LateWorkers(other, lost=True), mode="x"):
        pass
    assert not other.path.exists()


def test_of_several_workers_the_chief_alone_scores_a_finished_run(trained_run, tmp_path, monkeypatch):
    run = trained_run.copy(tmp_path / "run")
    state, mode = (run / "state.json").read_text(), "finetune"
    request = request_of(trained_run, run)
    for index, chief in ((0, True), (1, False)):
        task = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": index}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(task))  # nobody is there, and nobody is waited for
        with open_finished_run(request, mode=mode) as config:
            assert (config == request.config) == chief
    alone = dataclasses.replace(request.config, training=TrainingConfig(strategy="one_device"))
    with open_finished_run(dataclasses.replace(request, config=alone), mode=mode) as config:
        assert config
    assert (run / "state.json").read_text() == state


def test_a_run_without_checkpoint_gives_way_and_says_so(tmp_path, capfd):
    run_dir, workers = RunDirectory(tmp_path / "run"), LateWorkers(RunDirectory(tmp_path / "run"), lost=False)
    for seed in (1, 2):
        with open_run(Request(Config(seed=seed), run_dir), workers, mode="finetune"):
            pass
    assert "held a run of another configuration without any checkpoint" in capfd.readouterr().err
    assert run_dir.read_config().seed == 2
