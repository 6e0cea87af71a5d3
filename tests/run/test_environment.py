"""environment.json: what it says of the machine, and that no secret gets into it."""

import json
import os
from pathlib import Path

import pytest

from app.run.environment import (
    CPU_FLAGS,
    describe_environment,
    describe_gpus,
    mask_command,
    mask_environment,
    mask_secrets,
    parse_nvidia_smi,
    read_container_limits,
    recorded_variables,
)

SECRET = "hunter2"
# What somebody may type or export: all of it holds the secret, and what must still be there after the second bar.
COMMANDS = {
    "url": (["--set=data.train_path=https://ada:hunter2@host/train.conll"], "@host/train.conll"),
    "url with an @ in the password": (["--set=a.b=https://ada:x@hunter2@host/x"], "@host/x"),
    "url without a user": (["--set=a.b=https://hunter2@host/x"], "https://"),
    "query": (["--set=a.b=https://host/x?version=1&sig=hunter2"], "version=1"),
    "assigned": (["--set=a.password=hunter2"], "a.password="),
    "assigned, separate": (["--set", "a.api_key=hunter2", "--mode=finetune"], "--mode=finetune"),
    "assigned, with blanks": (["--set=a.client_secret=x hunter2 y"], "a.client_secret="),
    "flag": (["--token", "hunter2", "--mode=finetune"], "--mode=finetune"),
    "flag, with blanks": (["--db-password", "my hunter2", "--mode=finetune"], "--mode=finetune"),
    "options in a value": (["--set=pretrain.beam_options=--runner=Flink --sas_token hunter2"], "--runner=Flink"),
    "upper case": (["--set=a.AWS_SECRET_ACCESS_KEY=hunter2"], "AWS_SECRET_ACCESS_KEY"),
    "header": (["--set=a.header=Authorization: Bearer hunter2hunter2"], "Authorization"),
    "shape": (["--set=a.b=ghp_hunter2aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"], "a.b="),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_secret_on_the_command_line_is_not_recorded(case):
    command, kept = COMMANDS[case]
    shown = mask_command(["python", "-m", "app.main", *command])
    assert SECRET not in shown and "***" in shown
    assert kept in shown and shown.startswith("python -m app.main")


HARMLESS = [
    "--set=data.overlap_tokens=64", "--set=data.train_path=tfds:conll2003", "--config=configs/tokens.yaml",
    "--set=backbone.source=models/hf_bert_base_cased", "--set=distill.teachers=[runs/a, runs/token]",
    "--set=backbone.sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", "--set=design=5",
]  # fmt: skip


@pytest.mark.parametrize("argument", HARMLESS)
def test_settings_are_recorded_as_they_are(argument):
    assert argument in mask_command([argument]).strip("'")
    assert mask_secrets(argument) == argument


TEXTS = {
    "yaml": "  beam_options: --runner=Flink --password=hunter2\n  long_length: 512\n",
    "yaml, key": "api_key: hunter2\n",
    "json": '{"TF_TOKEN": "hunter2", "seed": 3}',
    "remote": "https://x-access-token:hunter2@github.com/a/b.git",
    "quoted": "password='hunter2'",
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_secret_in_a_dump_is_masked_and_nothing_else(case):
    masked = mask_secrets(TEXTS[case])
    assert SECRET not in masked and "***" in masked
    lost = len(TEXTS[case]) - len(masked)
    assert lost <= len("x-access-token:hunter2") - len("***")


def test_a_configuration_without_secrets_is_shown_as_it_is():
    from app.config import Config
    from app.config.loading import to_yaml

    assert mask_secrets(to_yaml(Config())) == to_yaml(Config())


def test_only_variables_that_change_results_are_recorded(monkeypatch):
    secrets = ("TF_VAR_db_password", "TF_VAR_region", "TF_TOKEN_app_terraform_io", "AWS_SECRET_ACCESS_KEY", "HOME")
    for name in secrets:
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = describe_environment(seed=0, command=["--token", SECRET])
    assert SECRET not in json.dumps(found)
    assert {"TF_ENABLE_ONEDNN_OPTS": "1", "OMP_NUM_THREADS": "3"}.items() <= found["environment_variables"].items()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            '{"cluster": {"worker": ["a:1", "hunter2:2"]}, "task": {"type": "worker", "index": 1}, "pw": "hunter2"}',
            "2 worker; this is worker 1",
        ),
        ("hunter2", "set"),
        ('{"cluster": "hunter2"}', "set"),
        ("[]", "set"),
    ],
)
def test_of_tf_config_only_the_size_of_the_cluster_is_recorded(text, shown):
    assert recorded_variables({"TF_CONFIG": text}) == {"TF_CONFIG": shown}


def test_what_an_earlier_version_recorded_is_masked_when_it_is_shown():
    old = {
        "command": "python -m app.main --set=x.password=hunter2",
        "environment_variables": {"TF_VAR_db_password": SECRET, "TF_ENABLE_ONEDNN_OPTS": "1"},
        "packages": {"google-auth": "2.0"},
    }
    shown = mask_environment(old)
    assert SECRET not in json.dumps(shown) and shown["packages"] == old["packages"]
    assert shown["environment_variables"]["TF_ENABLE_ONEDNN_OPTS"] == "1"


def test_the_processor_is_described():
    found = describe_environment(seed=0, command=[])
    assert found["cpu"] and found["cores"] == os.cpu_count() and set(found["cpu_flags"]) <= set(CPU_FLAGS)
    flags = Path("/proc/cpuinfo").read_text().split()
    assert all((flag in flags) == (flag in found["cpu_flags"]) for flag in ("avx2", "avx512f", "amx_bf16"))


LIMITS = {
    "none": ({}, {}),
    "version 2": (
        {"memory.max": "2000000000\n", "cpu.max": "150000 100000\n"}, {"memory_bytes": 2_000_000_000, "cores": 1.5}
    ),
    "version 2, without limits": ({"memory.max": "max\n", "cpu.max": "max 100000\n"}, {}),
    "version 1": (
        {"memory/memory.limit_in_bytes": "1000\n", "cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
        {"memory_bytes": 1000, "cores": 2.0},
    ),
    "version 1, without limits": (
        {"memory/memory.limit_in_bytes": "9223372036854771712", "cpu/cpu.cfs_quota_us": "-1",
         "cpu/cpu.cfs_period_us": "100000"}, {},
    ),
    "rubbish": ({"memory.max": "", "cpu.max": "x y z"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", LIMITS)
def test_limits_of_a_container_are_read(tmp_path, case):
    files, expected = LIMITS[case]
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert read_container_limits(tmp_path) == expected


SMI = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
  <timestamp>Tue Nov  3 10:00:00 2026</timestamp>
  <driver_version>535.129.03</driver_version>
  <cuda_version>12.2</cuda_version>
  <attached_gpus>2</attached_gpus>
  <gpu id="00000000:00:04.0"><product_name>NVIDIA H100 80GB HBM3</product_name>
    <fb_memory_usage><total>81559 MiB</total><used>4 MiB</used></fb_memory_usage></gpu>
  <gpu id="00000000:00:05.0"><product_name>NVIDIA H100 80GB HBM3</product_name></gpu>
</nvidia_smi_log>
"""


def test_gpus_driver_and_cuda_are_read_from_nvidia_smi():
    found = parse_nvidia_smi(SMI)
    assert found["gpus"][0] == {"name": "NVIDIA H100 80GB HBM3", "memory": "81559 MiB"} and len(found["gpus"]) == 2
    assert (found["nvidia_driver"], found["cuda"]) == ("535.129.03", "12.2")


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Makes a program nvidia-smi that prints a text and ends with a status."""

    def make(text: str, status: int = 0) -> None:
        (tmp_path / "text").write_text(text)
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat {tmp_path / 'text'}\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return make


@pytest.mark.parametrize(
    ("text", "status", "gpus"), [(SMI, 0, 2), ("no XML", 0, 0), ("", 0, 0), ("NVIDIA-SMI has failed", 9, 0)]
)
def test_nvidia_smi_that_fails_is_no_failure(nvidia_smi, tmp_path, text, status, gpus):
    nvidia_smi(text, status)
    assert len(describe_gpus(tmp_path)["gpus"]) == gpus


def test_without_nvidia_smi_the_driver_is_asked(nvidia_smi, tmp_path):
    nvidia_smi("", 1)
    folder = tmp_path / "proc/driver/nvidia"
    (folder / "gpus/0000:00:04.0").mkdir(parents=True)
    (folder / "gpus/0000:00:04.0/information").write_text("Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ: 1\n")
    (folder / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\n")
    assert describe_gpus(tmp_path) == {"gpus": [{"name": "NVIDIA A100-SXM4-40GB"}], "nvidia_driver": "535.129.03"}
