"""`training.accumulation_steps=0`: real trials in a child process, the choice kept, and nothing else changed by it."""

import dataclasses
import re

import pytest
import toy

from app.artifacts import Request, RunDirectory
from app.config import BackboneConfig, Config, DataConfig, InputError, PretrainConfig
from app.modes.probing import decide_parts


@pytest.fixture
def config(vocabulary) -> Config:
    """A step over 1024 rows that takes some 100 MB more in one part than in many."""
    training = dataclasses.replace(toy.TRAINING, batch_size=1024, accumulation_steps=0, precision="float32")
    backbone: BackboneConfig = toy.backbone_config(vocabulary, hidden_dim=32, intermediate_dim=128)
    data = DataConfig(max_length=32, overlap_tokens=8)
    return Config(data=data, training=training, backbone=backbone, pretrain=PretrainConfig(max_length=64))


def limited(config: Config, megabytes: int) -> Config:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, memory_limit_mb=megabytes))


@pytest.mark.parametrize("mode", ["pretrain", "finetune"])
def test_as_few_parts_as_fit_are_chosen_and_a_resumed_run_keeps_them(config, tmp_path, capsys, mode):
    run_dir = RunDirectory(tmp_path / "run")
    free = decide_parts(Request(limited(config, 100_000), run_dir), mode=mode).config
    peak = int(re.search(r"1 part\(s\) of 1024 rows on 1 replica\(s\): ([\d,]+) of 100,000 MB", capsys.readouterr().err)
               .group(1).replace(",", ""))  # fmt: skip
    assert free.training.accumulation_steps == 1
    found = decide_parts(Request(limited(config, peak - 60), run_dir), mode=mode).config
    parts = found.training.accumulation_steps
    assert parts > 1 and 1024 % parts == 0
    assert dataclasses.replace(found.training, accumulation_steps=0) == limited(config, peak - 60).training
    with run_dir.open_for_training(found):
        pass
    assert run_dir.plan_training(limited(config, peak - 60)) == "resume"  # the same command: still to be found
    again = decide_parts(Request(limited(config, peak - 60), run_dir), mode=mode).config
    assert again == found and run_dir.plan_training(again) == "resume"
    assert "trial" in capsys.readouterr().err.splitlines()[0]


def test_a_row_that_does_not_fit_is_bad_input(config, tmp_path):
    with pytest.raises(InputError, match=r"a step with 1 row\(s\) does not fit into 50 MB of memory"):
        decide_parts(Request(limited(config, 50), RunDirectory(tmp_path / "run")))


def test_a_fault_in_the_trial_is_not_taken_for_a_lack_of_memory(config, tmp_path):
    missing = dataclasses.replace(config.backbone, vocabulary_path="nowhere.txt")
    with pytest.raises(InputError, match=r"nowhere.txt") as raised:
        decide_parts(Request(dataclasses.replace(config, backbone=missing), RunDirectory(tmp_path / "run")))
    assert "memory" not in str(raised.value)


def test_several_machines_are_asked_for_a_number(config, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    with pytest.raises(InputError, match="accumulation_steps=0 is for one process"):
        decide_parts(Request(config, RunDirectory(tmp_path / "run")))
