"""Settings found by real trials in a child process: the choice is kept, and nothing else is changed by it."""

import dataclasses
import json
import re

import pytest
import toy

from app.config import BackboneConfig, Config, DataConfig, InputError, PretrainConfig, RunError
from app.run.directory import Request, RunDirectory
from app.training.trials import decide


@pytest.fixture
def config(vocabulary) -> Config:
    """A step over 1024 rows that takes some 100 MB more in one part than in many."""
    training = dataclasses.replace(toy.TRAINING, batch_size=1024, accumulation_steps=0, precision="float32")
    backbone: BackboneConfig = toy.backbone_config(vocabulary, hidden_dim=32, intermediate_dim=128)
    data = DataConfig(max_length=32, overlap_tokens=8)
    return Config(data=data, training=training, backbone=backbone, pretrain=PretrainConfig(max_length=64))


def limited(config: Config, megabytes: int) -> Config:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, memory_limit_mb=megabytes))


@pytest.mark.slow
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


@pytest.mark.slow
def test_finetune_tries_a_step_of_its_own(config, tmp_path, capsys):
    found = decide(Request(limited(config, 100_000), RunDirectory(tmp_path / "run")), mode="finetune").config
    assert found.training.accumulation_steps == 1
    assert re.search(r"1 part\(s\) of 1024 rows on 1 replica\(s\): [\d,]+ of 100,000 MB", capsys.readouterr().err)


@pytest.mark.slow
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


@pytest.mark.slow
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
    near = 0.9 * max(rates.values())  # rates are said rounded: one that lies on the bound may stand on either side
    assert rates[found.data.max_length] >= near - 1
    assert all(rate <= near + 1 for length, rate in rates.items() if length > found.data.max_length)
    assert list(rates) == [128, 192, 200]
    assert dataclasses.replace(found, data=config.data) == config
    with request.run_dir.open_for_training(found):
        pass
    assert request.run_dir.plan_training(config) == "resume"
    assert decide(request, mode="finetune").config == found
    assert decide(request, mode="pretrain") == request  # its length is a setting of its own


@pytest.fixture
def trial(monkeypatch, tmp_path):
    """Puts a program in the place of the trial: it prints lines, then does something; returns the file of its task."""

    def put(lines: list[list], then: str = "") -> None:
        program = ["import json, os, sys", f"open({str(tmp_path / 'task.json')!r}, 'w').write(sys.argv[2])"]
        program += [f"print({json.dumps(line)!r}, flush=True)" for line in lines]
        (tmp_path / "stand_in.py").write_text("\n".join([*program, then, ""]))
        return tmp_path / "task.json"

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("app.training.trials._MODULE", "stand_in")
    return put


def length_wanted(config: Config) -> Config:
    training = dataclasses.replace(config.training, batch_size=8, accumulation_steps=2)
    return dataclasses.replace(config, training=training, data=DataConfig(max_length=0, overlap_tokens=60))


SHORT_ONES = [[64, 0], [64, 900.0], [96, 0], [96, 1000.0], [128, 0]]
KILL = "os.kill(os.getpid(), 9)"


@pytest.mark.parametrize(
    "end",
    [
        "",  # the trial was told that there is no more memory
        KILL,
        "print(\"terminate called after throwing an instance of 'std::bad_alloc'\", file=sys.stderr); os.abort()",
        "raise MemoryError",
        "print('OOM when allocating tensor with shape[8,512]', file=sys.stderr); sys.exit(1)",
    ],
)
def test_lengths_that_fitted_count_where_the_longest_does_not_fit(config, tmp_path, trial, end, capsys):
    task = trial(SHORT_ONES, end)
    found = decide(Request(length_wanted(config), RunDirectory(tmp_path / "run")), mode="finetune").config
    assert found.data.max_length == 96
    assert "pieces/s by length: 64: 900, 96: 1,000; sequences of 128 do not fit into memory" in capsys.readouterr().err
    asked = json.loads(task.read_text())
    assert asked["rows"] == 4 and asked["limit"] > 10**6 and asked["lengths"][-1] == 512


@pytest.mark.parametrize(("lines", "end"), [([], KILL), ([[64, 0]], KILL), ([[64, 0]], "")])
def test_a_length_of_which_none_fits_is_bad_input(config, tmp_path, trial, lines, end):
    trial(lines, end)
    with pytest.raises(InputError, match=r"4 row\(s\) of 64 pieces does not fit .*data.max_length=0.*batch_size"):
        decide(Request(length_wanted(config), RunDirectory(tmp_path / "run")), mode="finetune")


def test_a_bug_in_the_trial_of_the_length_is_not_hidden_by_the_lengths_before_it(config, tmp_path, trial):
    trial(SHORT_ONES, "raise ValueError('a bug')")
    with pytest.raises(RunError, match="data.max_length=0 ended with status 1: ValueError: a bug"):
        decide(Request(length_wanted(config), RunDirectory(tmp_path / "run")), mode="finetune")


def test_the_length_is_tried_with_the_rows_of_one_replica(config, tmp_path, trial):
    task = trial(SHORT_ONES)
    config = length_wanted(config)
    training = dataclasses.replace(config.training, strategy="mirrored", logical_devices=2, memory_limit_mb=500)
    request = Request(dataclasses.replace(config, training=training), RunDirectory(tmp_path / "run"))
    decide(request, mode="finetune")
    asked = json.loads(task.read_text())
    assert (asked["rows"], asked["limit"]) == (2, 250_000_000)


def test_several_machines_are_asked_for_a_length(config, tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    with pytest.raises(InputError, match="data.max_length=0 is for one process"):
        decide(Request(length_wanted(config), RunDirectory(tmp_path / "run")), mode="finetune")


@pytest.mark.parametrize(("batch_size", "long_rows"), [(64, 8), (4, 0)])
def test_long_rows_are_tried_even_where_none_fits_into_a_short_batch(config, tmp_path, trial, batch_size, long_rows):
    task = trial([[1, 10**6]])
    training = dataclasses.replace(config.training, batch_size=batch_size)
    pretrain = PretrainConfig(max_length=64, long_epochs=1, long_length=512)
    request = Request(dataclasses.replace(config, training=training, pretrain=pretrain), RunDirectory(tmp_path / "run"))
    decide(request, mode="pretrain")
    assert json.loads(task.read_text())["lengths"] == [[batch_size, 64], [long_rows, 512]]
