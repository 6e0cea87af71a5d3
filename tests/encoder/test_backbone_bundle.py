import subprocess

import numpy as np
import pytest
from checkpoints import CASED

from app.config import InputError, RunError
from app.encoder.backbone import (
    Backbone,
    BertSettings,
    load_backbone,
    make_bert_backbone,
    read_settings,
    save_backbone,
)
from app.encoder.bundle import BUNDLE_FILES

SETTINGS = BertSettings(
    vocabulary_size=len(CASED),
    num_layers=1,
    num_heads=2,
    hidden_dim=8,
    intermediate_dim=12,
    activation="gelu_tanh",
    layer_norm_epsilon=1e-5,
    attention_dropout=0.25,
)


@pytest.fixture(scope="module")
def backbone():
    return Backbone(make_bert_backbone(SETTINGS), CASED, True, "somewhere")


def test_round_trip_is_bit_exact(backbone, tmp_path):
    save_backbone(backbone, tmp_path)
    loaded = load_backbone(tmp_path)
    assert all(map(np.array_equal, loaded.model.get_weights(), backbone.model.get_weights()))
    assert read_settings(loaded.model) == SETTINGS
    assert (loaded.vocabulary, loaded.lowercase, loaded.source) == (CASED, True, "somewhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*BUNDLE_FILES, "SHA256SUMS"])


def test_sums_file_passes_sha256sum_and_keeps_lines_of_other_files(backbone, tmp_path):
    other = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  labels.txt\n"
    (tmp_path / "labels.txt").touch()
    (tmp_path / "SHA256SUMS").write_text(other)
    save_backbone(backbone, tmp_path)
    assert other in (tmp_path / "SHA256SUMS").read_text()
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0 and checked.stdout.count(": OK") == 4


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_truncated_altered_or_missing_file_is_named(backbone, tmp_path, name):
    save_backbone(backbone, tmp_path)
    content = (tmp_path / name).read_bytes()
    for damaged in (content[:-1], b"", content[:-2] + b"!!"):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InputError, match=f"{name} is truncated or not the expected file"):
            load_backbone(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"not a complete model: {name} is missing"):
        load_backbone(tmp_path)


def test_missing_or_damaged_sums_are_an_error(backbone, tmp_path):
    save_backbone(backbone, tmp_path)
    (tmp_path / "SHA256SUMS").write_text("nonsense\n")
    with pytest.raises(InputError, match="SHA256SUMS, line 1: must be a SHA-256"):
        load_backbone(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match=r"SHA256SUMS has no line for backbone.json"):
        load_backbone(tmp_path)
    save_backbone(backbone, tmp_path)
    load_backbone(tmp_path)


def test_failed_save_keeps_the_previous_bundle(backbone, tmp_path, monkeypatch):
    save_backbone(backbone, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def disk_full(path):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    changed = Backbone(make_bert_backbone(SETTINGS), CASED, False, "elsewhere")
    monkeypatch.setattr(changed.model, "save_weights", disk_full)
    with pytest.raises(RunError, match="the disk is full: .* intact"):
        save_backbone(changed, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
