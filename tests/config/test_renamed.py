"""Keys of earlier versions: refused with the new name where a user writes them, understood in a run directory."""

import pytest
from absl import flags
from absl.testing import flagsaver

from app.config import Config, InputError, fields_by_key, flatten, with_values
from app.config.loading import load_config, to_yaml
from app.config.renamed import RENAMED
from app.main import build_request
from app.run.directory import RunDirectory

# A value that is no default, for each key that was renamed.
VALUES = {
    "compression.min_piece_count": 3,
    "compression.kept_first_pieces": 7,
    "compression.trim_epochs": 9,
    "compression.other_path": "other.conll",
    "compression.flops_fraction": 0.25,
    "compression.latency_ms": 1.5,
    "compression.removed_layers": 1,
    "compression.structured_rounds": 3,
    "compression.structured_epochs": 5,
    "compression.structured_last_epochs": 6,
    "compression.importance_steps": 8,
    "compression.sparsity": 0.75,
    "compression.sparsity_2_by_4": True,
    "compression.prune_embeddings": False,
    "compression.prune_frequency_steps": 11,
    "compression.magnitude_epochs": 12,
    "compression.clusters": 13,
    "compression.cluster_epochs": 14,
    "compression.quantize_epochs": 15,
    "training.masked_lm_epochs": 4,
    "training.masked_lm_learning_rate": 0.125,
    "training.masked_lm_fraction": 0.375,
    "distill.hidden_weight": 0.5,
    "distill.hidden_student_layers": (0, 1),
    "distill.hidden_teacher_layers": (2, 5),
    "distill.relation_weight": 2.0,
    "distill.relations": ("key",),
    "distill.relation_heads": 6,
    "distill.relation_student_layer": 0,
    "distill.relation_teacher_layer": 3,
    "benchmark.other_runs": ("runs/a",),
    "benchmark.peer_python": "python3",
    "benchmark.lengths": (16,),
    "benchmark.threads": (1,),
    "benchmark.batch_sizes": (2,),
    "benchmark.words": 100,
    "benchmark.rounds": 7,
}


def written(value) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def old_yaml(keys) -> str:
    """A file with keys as they were: in one level of sections."""
    sections: dict[str, list[str]] = {}
    for key in keys:
        section, _, name = key.partition(".")
        sections.setdefault(section, []).append(f"  {name}: {written(VALUES[key])}\n")
    return "".join(f"{section}:\n{''.join(lines)}" for section, lines in sections.items())


def refusal(path=None, *overrides) -> str:
    with pytest.raises(InputError) as raised:
        load_config(path, overrides)
    return str(raised.value)


def test_every_renamed_key_is_in_the_table_above_and_leads_to_a_setting_that_is_there():
    assert set(VALUES) == set(RENAMED)
    assert set(RENAMED.values()) <= set(fields_by_key()) and not set(RENAMED) & set(fields_by_key())
    assert len(set(RENAMED.values())) == len(RENAMED)
    defaults = flatten(Config())
    assert all(type(value) is type(defaults[RENAMED[key]]) for key, value in VALUES.items())
    assert all(value != defaults[RENAMED[key]] for key, value in VALUES.items())


@pytest.mark.parametrize("key", RENAMED)
def test_a_user_is_told_the_new_name(tmp_path, key):
    said = f"{key} is now {RENAMED[key]}"
    assert refusal(None, f"{key}={written(VALUES[key])}") == f"{said} (received in --set)"
    file = tmp_path / "own.yaml"
    file.write_text(old_yaml([key]), encoding="utf-8")
    assert refusal(str(file)) == f"{said} (received in {file})"
    (tmp_path / "top.yaml").write_text("base: own.yaml", encoding="utf-8")
    assert refusal(str(tmp_path / "top.yaml")) == f"{said} (received in {file})"
    new = load_config(None, [f"{RENAMED[key]}={written(VALUES[key])}"])
    assert flatten(new)[RENAMED[key]] == VALUES[key]


def test_all_old_keys_of_a_file_are_named_at_once(tmp_path):
    (tmp_path / "own.yaml").write_text(old_yaml(RENAMED), encoding="utf-8")
    text = refusal(str(tmp_path / "own.yaml"))
    assert all(f"{old} is now {new}" in text for old, new in RENAMED.items())


def old_run(folder, keys) -> RunDirectory:
    """A run whose config.yaml has the old keys, and no key that came later."""
    run = RunDirectory(folder / "run")
    run.write_text(run.config_yaml, old_yaml(keys) + "backbone: {}\nmodel: {}\ndata: {}\nseed: 5\n")
    if not any(key.startswith("training.") for key in keys):
        run.write_text(run.config_yaml, run.config_yaml.read_text() + "training: {}\n")
    return run


@pytest.mark.parametrize("key", RENAMED)
def test_a_run_directory_of_before_says_the_same_by_the_new_key(tmp_path, key):
    run = old_run(tmp_path, [key])
    assert run.is_run() and run.read_config() == with_values(Config(), {RENAMED[key]: VALUES[key], "seed": 5})
    default = written(flatten(Config())[RENAMED[key]])
    assert load_config(None, [f"{RENAMED[key]}={default}"], defaults=str(run.config_yaml)) == Config(seed=5)


@pytest.mark.parametrize("mode", ["evaluate", "predict", "export", "serve"])
def test_modes_that_work_on_a_run_take_one_of_before(tmp_path, mode):
    run = old_run(tmp_path, RENAMED)
    expected = {RENAMED[key]: value for key, value in VALUES.items()}
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(mode=mode, run_dir=str(run), input=["-"] if mode == "predict" else []):
        _, request = build_request()
    assert request.config == with_values(Config(), expected | {"seed": 5})


@pytest.mark.parametrize("mode", ["finetune", "distill", "compress"])
def test_a_run_of_before_resumes_with_the_same_settings_by_their_new_keys_and_is_refused_others(tmp_path, mode):
    run = old_run(tmp_path, RENAMED)
    run.write_json(run.state_json, {"mode": mode})
    run.model.mkdir()
    same = with_values(Config(seed=5), {RENAMED[key]: value for key, value in VALUES.items()})
    assert run.plan_training(same, mode=mode) == "resume"
    run.write_text(run.model_sums, "")
    run.mark_trained(same, mode=mode)
    assert run.plan_training(same, mode=mode) == "finished"
    key = {
        "finetune": "training.masked_lm.fraction",
        "distill": "distill.relation.heads",
        "compress": "compression.cluster.values",
    }[mode]
    with pytest.raises(InputError, match=f"{key} was .*, now "):
        run.plan_training(with_values(same, {key: flatten(Config())[key]}), mode=mode)


def test_what_is_written_has_the_new_keys_only(tmp_path):
    run = old_run(tmp_path, RENAMED)
    run.write_config(run.read_config())
    assert load_config(str(run.config_yaml)) == run.read_config()
    assert run.config_yaml.read_text() == to_yaml(run.read_config())
