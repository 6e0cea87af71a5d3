import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import (
    TRAINING_MODES,
    Config,
    DataConfig,
    InputError,
    TrainingConfig,
    fields_by_key,
    flatten,
    trained_settings,
    with_values,
)
from app.config.loading import load_config, to_yaml
from app.config.options import mask
from app.main import MODES
from app.run.directory import RunDirectory


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "config.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write_file


def message(path: str | None = None, *overrides: str) -> str:
    with pytest.raises(InputError) as raised:
        load_config(path, overrides)
    return str(raised.value)


def test_without_anything_every_setting_has_its_dataclass_default():
    assert load_config(None) == Config()


def test_each_layer_wins_over_the_one_below_it(write):
    below = write("training: {epochs: 2, batch_size: 2, beta_2: 0.2, epsilon: 0.2}", "run.yaml")
    write("training: {batch_size: 3, beta_2: 0.3, epsilon: 0.3}", "base.yaml")
    path = write("base: base.yaml\ntraining: {beta_2: 0.4, epsilon: 0.4}")
    training = load_config(path, ["training.epsilon=0.5"], defaults=below).training
    assert (training.epochs, training.batch_size, training.beta_2, training.epsilon) == (2, 3, 0.4, 0.5)
    assert training.learning_rate == TrainingConfig().learning_rate


def test_a_base_is_found_beside_its_file_and_may_not_have_a_base(write):
    write("base: other.yaml", "base.yaml")
    assert "may not have a base itself" in message(write("base: base.yaml"))
    assert "missing.yaml" in message(write("base: missing.yaml"))


def test_the_last_set_wins_and_its_value_may_contain_an_equals_sign():
    config = load_config(None, ["data.tfds_dir=/a", "data.tfds_dir=/runs/lr=3e-4/x"])
    assert config.data.tfds_dir == "/runs/lr=3e-4/x"


def test_values_are_read_by_the_declared_type_not_by_yaml_rules(write):
    path = write(
        "backbone: {source: NO, lowercase: true, sha256: 0123}\n"
        "data: {strict: TRUE, memory_limit_words: 1_000, tfds_dir: null}\n"
        "training: {learning_rate: 3e-5, clip_norm: 1, jit_compile: no}\n"
        "seed: 7"
    )
    config = load_config(path)
    assert (config.backbone.source, config.backbone.lowercase, config.backbone.sha256) == (
        "NO",
        "true",
        "0123",
    )
    assert (config.data.strict, config.data.memory_limit_words, config.data.tfds_dir) == (True, 1000, "null")
    assert (config.training.learning_rate, config.training.jit_compile, config.seed) == (3e-5, False, 7)
    assert isinstance(config.training.clip_norm, float)


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("training.lerning_rate=1", "training.learning_rate"),
        ("learning_rate=1", "training.learning_rate"),
        ("model.dropout=0", "backbone.dropout"),
        ("trainig.epochs=1", "training.epochs"),
        ("sead=1", "seed"),
        ("evaluation.batchsize=1", "evaluation.batch_size"),
    ],
)
def test_an_unknown_key_is_named_with_its_origin_and_the_nearest_valid_one(override, nearest):
    text = message(None, override)
    assert f"unknown key {override.partition('=')[0]} in --set" in text
    assert f"did you mean {nearest}?" in text


def test_an_unknown_key_far_from_all_others_lists_the_sections(write):
    path = write("xyzzy: 1")
    text = message(path)
    assert "xyzzy" in text and path in text and "training" in text


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.epochs=many", ["training.epochs must be an integer", "'many'", "--set"]),
        ("training.epochs=1.5", ["training.epochs must be an integer", "'1.5'"]),
        ("training.epochs=", ["training.epochs must be an integer", "''"]),
        ("training.learning_rate=nan", ["training.learning_rate must be a number"]),
        ("training.learning_rate=0", ["training.learning_rate must be above 0"]),
        ("data.max_length=640", ["data.max_length must be at least 0 and at most 512", "'640'"]),
        ("data.strict=maybe", ["data.strict must be true or false", "'maybe'"]),
        ("model.head=softmaks", ["model.head must be one of softmax, crf", "did you mean softmax?"]),
        ("backbone.dropout=1", ["backbone.dropout must be at least 0 and below 1"]),
        ("distill.student_layers=a", ["distill.student_layers must be a list of integers", "'a'"]),
        ("distill.student_layers=[0, -1]", ["distill.student_layers must be a list of which each is at least 0"]),
        ("distill.relation.vectors=[key, kay]", ["each is one of query, key, value (did you mean key?)"]),
        ("training=3", ["training in --set is a section"]),
        ("training.epochs", ["--set takes section.key=value", "'training.epochs'"]),
        ("=3", ["unknown key"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(override, parts):
    text = message(None, override)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["data.max_length=7"], ["data.max_length=7 (--set)", "at least 8 pieces"]),
        (
            ["data.max_length=64", "data.overlap_tokens=62"],
            ["data.overlap_tokens=62 (--set)", "data.max_length"],
        ),
        (
            ["pretrain.model_parallel=2", "training.accumulation_steps=0"],
            ["pretrain.model_parallel=2 (--set)", "training.accumulation_steps=0 (--set)"],
        ),
        (["training.batch_size=8", "training.accumulation_steps=3"], ["training.accumulation_steps=3"]),
        (["backbone.source=random", "backbone.num_heads=3"], ["backbone.hidden_dim=128 (default)"]),
        (["backbone.source=random", "backbone.max_positions=64"], ["data.max_length=192 (default)"]),
        (["training.early_stopping_patience_epochs=1", "data.valid_path="], ["data.valid_path"]),
        (["training.early_stopping_patience_epochs=1", "data.train_on_valid=true"], ["train_on_valid=true (--set)"]),
        (["data.train_on_valid=true", "data.valid_path="], ["data.valid_path= (--set)"]),
        (
            ["data.valid_fraction=0.1", "data.valid_path=v.conll"],
            ["data.valid_fraction=0.1 (--set)", "data.valid_path=v.conll (--set)"],
        ),
        (["data.valid_fraction=0.1", "data.train_path="], ["needs a training corpus"]),
        (["data.word_column=2", "data.tag_column=2"], ["data.tag_column=2 (--set)"]),
        (
            ["data.train_path=mine.conll", "training.early_stopping_patience_epochs=1"],
            ["data.valid_path= (the sample's goes only with the sample's data.train_path)"],
        ),
        (["training.strategy=tpu", "training.precision=mixed_float16"], ["training.precision"]),
        (["distill.labels_weight=0", "distill.soft_weight=0"], ["distill.soft_weight=0.0 (--set)"]),
        (
            ["distill.hidden.student_layers=[0, 1]", "distill.hidden.teacher_layers=[3]"],
            ["distill.hidden.teacher_layers=[3] (--set)"],
        ),
        (["training.strategy=mirrored", "training.tpu_address=local"], ["training.tpu_address"]),
    ],
)
def test_an_impossible_combination_names_both_settings_and_where_they_came_from(overrides, keys):
    text = message(None, *overrides)
    assert all(key in text for key in keys), text


SAMPLE = [f"data/sample/{split}.conll" for split in ("train", "valid", "test")]
PATHS = "train_path valid_path test_path".split()


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        ([], SAMPLE),
        (["train_path=mine.conll"], ["mine.conll", "", ""]),
        (["train_path=tfds:conll2003"], ["tfds:conll2003", "", ""]),
        (["train_path=mine.conll", "test_path=t.conll"], ["mine.conll", "", "t.conll"]),
        (["train_path=mine.conll", f"valid_path={SAMPLE[1]}"], ["mine.conll", SAMPLE[1], ""]),
        (["train_path=mine.conll", "valid_fraction=0.1"], ["mine.conll", "", ""]),
        (["valid_fraction=0.1"], [SAMPLE[0], "", SAMPLE[2]]),
        (["train_path=./data/sample/valid.conll"], ["./data/sample/valid.conll", *SAMPLE[1:]]),
        (["train_path="], ["", *SAMPLE[1:]]),
        (["valid_path=mine.conll"], [SAMPLE[0], "mine.conll", SAMPLE[2]]),
    ],
)
def test_the_sample_is_not_scored_beside_a_training_corpus_of_ones_own(write, settings, paths):
    config = load_config(None, [f"data.{setting}" for setting in settings])
    assert [getattr(config.data, name) for name in PATHS] == paths
    lines = [f"  {setting.replace('=', ': ')}" for setting in settings]
    assert load_config(write("\n".join(["data:", *lines]))) == config  # the same from a file
    assert load_config(write(to_yaml(config))) == config
    assert load_config(None, defaults=write(to_yaml(config), "run.yaml")) == config


def test_a_run_keeps_its_corpora_until_it_gets_another_training_corpus(write):
    mine = {"train_path": "mine.conll", "valid_path": SAMPLE[1], "test_path": "t.conll"}
    run = write(to_yaml(Config(data=DataConfig(**mine))), "run.yaml")
    assert load_config(None, ["seed=1", "data.test_path=u.conll"], defaults=run).data.valid_path == SAMPLE[1]
    other = load_config(None, ["data.train_path=other.conll"], defaults=run).data
    assert (other.valid_path, other.test_path) == ("", "t.conll")


def test_the_sample_is_no_held_out_text_of_ones_own_text():
    assert load_config(None, ["pretrain.train_path=*.txt"]).pretrain.valid_path == ""
    assert load_config(None).pretrain.valid_path == SAMPLE[1]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("training: 3", "training in {path} is a section and must be a mapping, received '3'"),
        ("training: [1]", "received the list ['1']"),
        ("seed: {a: 1}", "seed must be an integer, received a mapping"),
        ("- seed", "{path} must hold a mapping"),
        ("training: {epochs: 1", "{path} is not valid YAML"),
        ("training:\n  epochs: 1\n  epochs: 2", "the key epochs appears twice"),
        ("seed: \0", "not valid YAML"),
        ("base: [a]", "base must be the name of one file"),
    ],
)
def test_a_malformed_file_is_named(write, text, part):
    path = write(text)
    assert part.format(path=path) in message(path)


def test_a_file_that_is_missing_or_not_utf8_is_named(tmp_path):
    assert "No such file" in message(str(tmp_path / "none.yaml"))
    (tmp_path / "latin.yaml").write_bytes("seed: 1 # é".encode("latin-1"))
    assert "not UTF-8" in message(str(tmp_path / "latin.yaml"))


def test_an_empty_file_or_section_changes_nothing_and_a_byte_order_mark_is_dropped(write):
    assert load_config(write("")) == load_config(write("training:\n")) == Config()
    assert load_config(write("\ufeffseed: 3")).seed == 3


@pytest.mark.parametrize("text", ["[runs/a, runs/b]", "runs/a,runs/b", "['runs/a', \"runs/b\"]"])
def test_a_list_may_be_written_in_yaml_or_as_text(write, text):
    assert load_config(None, [f"distill.teachers={text}"]).distill.teachers == ("runs/a", "runs/b")
    config = load_config(write("distill: {teachers: [runs/a, runs/b], student_layers: []}"))
    assert config.distill.teachers == ("runs/a", "runs/b") and config.distill.student_layers == ()
    assert load_config(write(to_yaml(config))) == config


@given(st.data())
def test_yaml_round_trip_keeps_every_value(tmp_path_factory, data):
    texts = {key for key, known in fields_by_key().items() if known.type == "str" and "choices" not in known.metadata}
    texts -= {"data.label_column"}  # a column has a name
    texts -= {"predict.other_run"}  # goes with one rank
    values = {
        **{key: data.draw(st.text(st.characters(), max_size=8)) for key in texts},
        "training.learning_rate": data.draw(st.floats(1e-12, 1.0)),
        "training.masked_lm.fraction": data.draw(st.floats(1e-12, 1.0, exclude_max=True)),
        "training.deterministic": data.draw(st.booleans()),
        "compression.prune_structured.rounds": data.draw(st.integers(1)),
        "seed": data.draw(st.integers(0, 2**31 - 1)),
    }
    config = with_values(Config(), values)
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(None, defaults=str(path)) == config


def test_every_setting_explains_itself_and_has_a_default_within_its_own_limits():
    flat = flatten(Config())
    for key, known in fields_by_key().items():
        assert known.metadata["meaning"], key
        known_facts = {"meaning", "choices", "at_least", "at_most", "above", "below", "path", "secret", "trains"}
        assert set(known.metadata) <= known_facts, key
        assert type(flat[key]).__name__ == known.type.partition("[")[0], key
        task = [] if key == "task" else ["task=classification"] if key in OF_CLASSIFICATION else ["task=tagging"]
        assert flatten(load_config(None, [*task, f"{key}={flat[key]}"]))[key] == flat[key]


# Settings that one task alone has a use for; the other refuses them.
OF_CLASSIFICATION = {
    *(key for key in fields_by_key() if key.startswith("classification.")),
    *"data.text_column data.label_column data.pair_columns predict.target_precision".split(),
}

FREE = """data.test_path data.strict data.cache_dir backbone.sha256 training.worker_timeout_seconds
training.memory_limit_mb training.input_threads training.log_every_steps training.checkpoint_every_steps
training.keep_checkpoints training.tensorboard pretrain.beam_options evaluation.split evaluation.tflite_file
predict.split_sentences predict.batch_size predict.min_score predict.target_precision predict.input_format
predict.format predict.drop_non_names predict.max_f1_loss predict.rank predict.top predict.other_run predict.rank_limit
export.formats export.max_f1_loss export.block_size
export.int8_table export.int4_table export.product_width
export.calibration_rows export.vectors serve.host serve.allowed_hosts serve.port serve.runs serve.runtime
serve.tflite_file serve.threads serve.max_batch serve.queue_size serve.deadline_ms serve.target_latency_ms
serve.max_f1_loss serve.max_body_bytes serve.api_key
serve.access_log serve.log_texts serve.reload_seconds benchmark.objective benchmark.steps
feedback.url feedback.author update.max_f1_loss update.require_better update.min_held_out update.confidence
update.export update.promote update.roll_back update.check update.rollback_agreement update.rollback_answers
update.import_path update.export_path update.form update.delete_author update.delete_text
tune.trials tune.processes tune.max_seconds tune.sampler tune.pruner tune.seeds tune.storage tune.study tune.keep_models
benchmark.warmup_steps benchmark.frontier.other_runs benchmark.frontier.peer_python benchmark.frontier.lengths
benchmark.frontier.threads benchmark.frontier.batch_sizes benchmark.frontier.words benchmark.frontier.rounds
predictor""".split()
# Settings that change what some training modes make; any other does so in every mode of its section.
SOME = {
    "data.unlabelled_path": {"distill", "compress", "tune"},
    "training.epochs": {"pretrain", "finetune", "distill", "tune"},
    "training.early_stopping_patience_epochs": {"pretrain", "finetune", "distill", "tune"},
    **{f"training.masked_lm.{name}": {"finetune", "tune"} for name in ("epochs", "learning_rate", "fraction")},
    **{
        f"distill.{name}": {"distill", "compress", "tune"}
        for name in (
            "temperature", "labels_weight", "soft_weight", "chain_weight", "keep_answers", "unlabelled_limit_words"
        )
    },
    "evaluation.batch_size": {"pretrain"},
    **{
        f"training.exit_{name}_weight": {"finetune", "distill", "compress", "update", "tune"}
        for name in ("loss", "distillation")
    },
}
SECTIONS = {
    "task": {"finetune", "distill", "compress", "update", "tune"},
    "data": {"finetune", "distill", "compress", "update", "tune"},
    "classification": {"finetune", "distill", "compress", "update", "tune"},
    "model": {"finetune", "distill", "compress", "update", "tune"},
    "init_from": {"finetune", "distill", "compress", "update", "tune"},
    "pretrain": {"pretrain"},
    "distill": {"distill"},
    "compression": {"compress", "tune"},
    "update": {"update"},
    "tune": {"tune"},
}


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("", ""),
        ("sqlite:///a/b.sqlite", "sqlite:///a/b.sqlite"),
        ("postgresql://me:s@c:r@t@host:5432/name", "postgresql://me:***@host:5432/name"),
        ("postgresql://me@host/name?sslmode=require&password=secret&a=b",
         "postgresql://me@host/name?sslmode=require&password=***&a=b"),
        ("a key", "***"),
    ],
)  # fmt: skip
def test_secrets_are_not_shown_but_kept(write, secret, shown):
    config = load_config(None, [f"feedback.url={secret}", "seed=7"])
    assert mask(secret) == shown
    assert load_config(write(to_yaml(config, masked=True))).feedback.url == shown
    assert load_config(write(to_yaml(config))) == config


@pytest.mark.parametrize("mode", TRAINING_MODES)
def test_every_setting_that_is_not_known_to_leave_training_alone_changes_it(mode):
    """A new setting counts in all modes of its section until somebody says otherwise, in `app/config` and here."""
    expected = {
        key
        for key in fields_by_key()
        if key not in FREE and mode in SOME.get(key, SECTIONS.get(key.partition(".")[0], set(TRAINING_MODES)))
    }
    assert trained_settings(mode) == expected


def test_training_modes_are_the_modes_that_overwrite():
    assert set(TRAINING_MODES) == {name for name, mode in MODES.items() if "overwrite" in mode.accepts}


def another(value, known):
    """Some other value of the type."""
    if isinstance(value, bool):
        return not value
    if "choices" in known.metadata and isinstance(value, str):
        return next(choice for choice in known.metadata["choices"] if choice != value)
    if isinstance(value, tuple):
        return value[1:] if value else (("a",) if "str" in known.type else (1,))
    return value + "x" if isinstance(value, str) else value + 1 if isinstance(value, int) else value / 2 + 0.125


CHANGES = """task classification.multi_label training.masked_lm.epochs data.train_path backbone.dropout model.head
training.precision training.strategy training.logical_devices
training.learning_rate seed init_from""".split()
LEAVES_ALONE = """serve.port predict.min_score export.formats benchmark.steps training.log_every_steps
training.keep_checkpoints training.checkpoint_every_steps evaluation.batch_size pretrain.max_length distill.teachers
compression.prune_magnitude.sparsity""".split()


@pytest.mark.parametrize("key", [*CHANGES, *LEAVES_ALONE])
def test_another_value_of_a_setting_is_refused_only_if_it_changes_training(tmp_path, key):
    run_dir = RunDirectory(tmp_path / "run")
    with run_dir.open_for_training(Config(), mode="finetune"):
        run_dir.model.mkdir()
    before = flatten(Config())[key]
    value = another(before, fields_by_key()[key])
    config = with_values(Config(), {key: value})
    if key in CHANGES:
        with pytest.raises(InputError, match=re.escape(f"{key} was {before!r}, now {value!r}")):
            run_dir.plan_training(config, mode="finetune")
    else:
        assert run_dir.plan_training(config, mode="finetune") == "resume"


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 3


def test_a_mode_has_defaults_of_its_own_below_every_file_and_set(tmp_path):
    assert load_config(None, mode="pretrain").training.epochs < load_config(None).training.epochs
    file = tmp_path / "own.yaml"
    file.write_text("training:\n  epochs: 7\n", encoding="utf-8")
    assert load_config(str(file), mode="pretrain").training.epochs == 7
    assert load_config(None, ["training.epochs=9"], mode="pretrain").training.epochs == 9
