"""One network shared out over the parts of this processor: it learns the same, and each part holds less."""

import json

import h5py
import numpy as np
import pytest
import toy

from app.config import InputError
from app.encoder.backbone import build_backbone
from app.training.model_parallel import check_cuts


@pytest.fixture(scope="module")
def flags(tmp_path_factory, vocabulary) -> list[str]:
    """A small pretraining run without dropout, whose random numbers depend on how a network is shared out."""
    folder = tmp_path_factory.mktemp("model_parallel")
    toy.write_corpora(folder)
    settings = {
        **{f"pretrain.{split}_path": folder / f"{split}.conll" for split in ("train", "valid")},
        "pretrain.max_length": 32, "training.batch_size": 8, "training.epochs": 1, "backbone.dropout": 0,
        "training.clip_norm": 0.5, "training.layer_learning_rate_decay": 0.9, "training.checkpoint_every_steps": 0,
    }  # fmt: skip
    return [*toy.run_settings(folder, vocabulary), *(f"--set={key}={value}" for key, value in settings.items())]


def pretrain(app_process, flags, cwd, name, *more: str) -> tuple[dict, dict[str, np.ndarray]]:
    """The metrics and the saved weights of a finished run."""
    process = app_process("--mode=pretrain", f"--run_dir={name}", *flags, *more, cwd=cwd)
    _, messages = process.communicate(timeout=900)
    assert process.returncode == 0, messages
    weights = {}

    def keep(path: str, found: h5py.HLObject) -> None:
        if isinstance(found, h5py.Dataset):
            weights[path] = found[()]

    with h5py.File(cwd / name / "model" / "backbone.weights.h5") as file:
        file.visititems(keep)
    return json.loads((cwd / name / "metrics.json").read_text()), weights


@pytest.mark.slow
def test_a_network_shared_out_over_two_devices_learns_the_same_on_half_the_memory(app_process, flags, tmp_path):
    metrics, weights = pretrain(app_process, flags, tmp_path, "whole")
    shared_metrics, shared_weights = pretrain(app_process, flags, tmp_path, "shared", "--set=pretrain.model_parallel=2")
    assert weights.keys() == shared_weights.keys() and len(weights) > 20
    for path, expected in weights.items():
        np.testing.assert_allclose(shared_weights[path], expected, atol=1e-5, err_msg=path)
    assert shared_metrics["valid/loss"] == pytest.approx(metrics["valid/loss"], abs=1e-5)
    bytes_each = 4 * (1 + 2 + 1)  # a weight, its two moments and its average, float32
    whole = bytes_each * sum(values.size for values in weights.values()) / 1e6
    assert shared_metrics["train/largest_device_megabytes"] < 0.65 * whole


def test_an_optimizer_that_cannot_be_shared_out_ends_with_status_2_and_one_sentence(app_process, flags, tmp_path):
    more = ("--set=pretrain.model_parallel=2", "--set=training.optimizer=lamb")
    process = app_process("--mode=pretrain", "--run_dir=run", *flags, *more, cwd=tmp_path)
    output, messages = process.communicate(timeout=300)
    assert (process.returncode, output) == (2, "") and "Traceback" not in messages
    assert "a network that is shared out needs optimizer adamw" in messages


def test_devices_that_do_not_divide_the_backbone_are_bad_input(vocabulary):
    model = build_backbone(toy.backbone_config(vocabulary)).model
    check_cuts(model, 2)
    with pytest.raises(InputError, match="must divide heads 2, width 16, feed-forward width 32 of the backbone"):
        check_cuts(model, 3)
