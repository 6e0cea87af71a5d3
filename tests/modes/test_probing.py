"""Settings found by real trials in a child process: the choice is kept, and nothing else is changed by it."""

import dataclasses
import re

import pytest
import toy

from app.artifacts import Request, RunDirectory
from app.config import BackboneConfig, Config, DataConfig, InputError, PretrainConfig
from app.modes.probing import decide


@pytest.fixture
def config(vocabulary) -> Config:
    """A step over 1024 rows that takes some 100 MB more in one part than in many."""
    training = dataclasses.replace(toy.TRAINING, batch_size=1024, accumulation_steps=0, precision="float32")
    backbone: BackboneConfig = toy.backbone_config(vocabulary, hidden_dim=32, intermediate_dim=128)
    data = DataConfig(max_length=32, overlap_tokens=8)
    return Config(data=data, training=training, backbone=backbone, pretrain=PretrainConfig(max_length=64))


def limited(config: Config, megabytes: int) -> Config:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, memory_limit_mb=megabytes))


def test_as_few_parts_as_fit_are_chosen_and_a_resumed_run_keeps_them(config, tmp_path, capsys):
    run_dir = RunDirectory(tmp_path / "run")
    free = decide(Request(limited(config, 100_000), run_dir), mode="pretrain").config
    peak = int(re.search(r"1 part\(s\) of 1024 rows on 1 replica\(s\): ([\d,]+) of 100,000 MB", capsys.readouterr().err)
               .group(1).replace(",", ""))  # fmt: skip
    assert free.training.accumulation_steps == 1
    found = decide(Request(limited(config, peak - 60), run_dir), mode="pretrain").config
    parts = found.training.accumulation_steps
    assert parts > 1 and 1024 % parts == 0
    assert dataclasses.replace(found.training, accumulation_steps=0) == limited(config, peak - 60).training
    with run_dir.open_for_training(found):
        pass
    assert run_dir.plan_training(limited(config, peak - 60)) == "resume"  # the same command: still to be found
    again = decide(Request(limited(config, peak - 60), run_dir), mode="pretrain").config
    assert again == found and run_dir.plan_training(again) == "resume"
    assert "trial" in capsys.readouterr().err.splitlines()[0]


def test_finetune_tries_a_step_of_its_own(config, tmp_path, capsys):
    found = decide(Request(limited(config, 100_000), RunDirectory(tmp_path / "run")), mode="finetune").config
    assert found.training.accumulation_steps == 1
    assert re.search(r"1 part\(s\) of 1024 rows on 1 replica\(s\): [\d,]+ of 100,000 MB", capsys.readouterr().err)


def test_a_row_that_does_not_fit_is_bad_input(config, tmp_path):
    with pytest.raises(InputError, match=r"a step with 1 row\(s\) does not fit into 50 MB of memory"):
        decide(Request(limited(config, 50), RunDirectory(tmp_path / "run")), mode="pretrain")


def test_a_fault_in_the_trial_is_not_taken_for_a_lack_of_memory(config, tmp_path):
    missing = dataclasses.replace(config.backbone, vocabulary_path="nowhere.txt")
    with pytest.raises(InputError, match=r"nowhere.txt") as raised:
        decide(Request(dataclasses.replace(config, backbone=missing), RunDirectory(tmp_path / "run")), mode="pretrain")
    assert "memory" not in str(raised.value)


def test_several_machines_are_asked_for_a_number(config, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    with pytest.raises(InputError, match="accumulation_steps=0 is for one process"):
        decide(Request(config, RunDirectory(tmp_path / "run")), mode="pretrain")


def test_a_length_nearly_as_fast_as_any_is_chosen_said_and_kept_by_a_resumed_run(config, tmp_path, capsys):
    training = dataclasses.replace(config.training, batch_size=2, accumulation_steps=1)
    config = dataclasses.replace(
        config, training=training, data=DataConfig(max_length=0, overlap_tokens=100),
        backbone=dataclasses.replace(config.backbone, max_positions=200),
    )  # fmt: skip
    request = Request(config, RunDirectory(tmp_path / "run"))
    found = decide(request, mode="finetune").config
    said = capsys.readouterr().err
    rates = {int(length): float(rate.replace(",", "")) for length, rate in re.findall(r"(\d+): ([\d,]+)", said)}
    assert found.data.max_length == max(n for n, rate in rates.items() if rate >= 0.89 * max(rates.values()))
    assert list(rates) == [128, 192, 200]
    assert dataclasses.replace(found, data=config.data) == config
    with request.run_dir.open_for_training(found):
        pass
    assert request.run_dir.plan_training(config) == "resume"
    assert decide(request, mode="finetune").config == found
    assert decide(request, mode="pretrain") == request  # its length is a setting of its own
