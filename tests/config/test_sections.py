"""Sections in sections: one way to name a setting, at any depth."""

import dataclasses
from dataclasses import dataclass, field

import pytest

import app.config
from app.config import Config, InputError, TrainingConfig, fields_by_key, flatten, trained_settings, with_values
from app.config.loading import load_config, nearest_key, to_yaml
from app.config.options import option


@pytest.fixture
def write(tmp_path):
    def write_file(text: str) -> str:
        (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
        return str(tmp_path / "own.yaml")

    return write_file


def refusal(path=None, *overrides) -> str:
    with pytest.raises(InputError) as raised:
        load_config(path, overrides)
    return str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "compression:\n  steps: [cluster]\n  prune_structured:\n    rounds: 3",
        "compression: {steps: [cluster], prune_structured: {rounds: 3}}",
        "compression:\n  steps: [cluster]\n  prune_structured.rounds: 3",
        "compression.steps: [cluster]\ncompression.prune_structured: {rounds: 3}",
    ],
)
def test_a_setting_in_a_section_of_a_section_is_read_from_a_file_and_from_set(write, text):
    config = load_config(write(text))
    assert (config.compression.steps, config.compression.prune_structured.rounds) == (("cluster",), 3)
    assert config == load_config(None, ["compression.steps=cluster", "compression.prune_structured.rounds=3"])
    assert load_config(write(to_yaml(config))) == config


def test_a_file_changes_only_what_it_names_in_a_section(write):
    path = write("compression: {prune_structured: {rounds: 3, epochs: 7}}")
    found = load_config(path, ["compression.prune_structured.epochs=1"]).compression
    expected = dataclasses.replace(Config().compression.prune_structured, rounds=3, epochs=1)
    assert found == dataclasses.replace(Config().compression, prune_structured=expected)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("compression: {cluster: 8}", ["compression.cluster in {path} is a section and must be a mapping", "'8'"]),
        ("compression: {cluster: {valuse: 8}}", ["key compression.cluster.valuse in", "compression.cluster.values?"]),
        ("compression: {cluster: {values: {a: 1}}}", ["compression.cluster.values must be an integer", "a mapping"]),
        ("compression: {clutser: {values: 8}}", ["unknown key compression.clutser in {path}"]),
        ("compression: {cluster: {values: 1}}", ["compression.cluster.values must be at least 2 and at most 256"]),
    ],
)
def test_a_mistake_in_a_section_of_a_section_is_named_with_its_whole_key(write, text, parts):
    path = write(text)
    said = refusal(path)
    assert all(part.format(path=path) in said for part in parts), said


def test_an_empty_section_of_a_section_changes_nothing(write):
    assert load_config(write("compression:\n  cluster:\n  distill: true")) == Config()


def test_a_section_is_no_setting_and_its_first_key_is_named():
    assert refusal(None, "compression.cluster=8") == (
        "compression.cluster in --set is a section; name one of its keys, such as compression.cluster.values"
    )


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("compression.cluster.epoch", "compression.cluster.epochs"),
        ("compression.prune_structured.round", "compression.prune_structured.rounds"),
        ("training.epoch", "training.epochs"),  # not training.masked_lm.epochs
        ("epochs", "training.epochs"),
        ("prune_structured.rounds", "compression.prune_structured.rounds"),
        ("flops_fraction", "compression.prune_structured.flops_fraction"),
    ],
)
def test_the_nearest_key_is_found_at_any_depth(key, nearest):
    assert nearest_key(key) == nearest


def test_keys_and_values_are_listed_in_the_order_of_the_file_and_can_be_replaced():
    flat = flatten(Config())
    assert list(flat) == list(fields_by_key())
    assert with_values(Config(), flat) == Config()
    changed = with_values(Config(), {"training.masked_lm.epochs": 2, "training.epochs": 3, "seed": 4})
    assert {key: value for key, value in flatten(changed).items() if value != flat[key]} == {
        "training.masked_lm.epochs": 2,
        "training.epochs": 3,
        "seed": 4,
    }
    assert with_values(TrainingConfig(), {"masked_lm.epochs": 2}).masked_lm.epochs == 2


def test_a_section_has_the_training_modes_of_the_section_it_is_in(monkeypatch):
    @dataclass(frozen=True)
    class Deep:
        plain: int = option(0, "as its section")
        free: int = option(0, "changes nothing", trains=())

    @dataclass(frozen=True)
    class Middle:
        silent: Deep = field(default=Deep())
        own: Deep = field(default=Deep(), metadata={"trains": ("pretrain",)})

    @dataclass(frozen=True)
    class Whole:
        middle: Middle = field(default=Middle(), metadata={"trains": ("compress",)})
        top: Deep = field(default=Deep())

    monkeypatch.setattr(app.config, "Config", Whole)
    assert trained_settings("compress") == {"middle.silent.plain", "top.plain"}
    assert trained_settings("pretrain") == {"middle.own.plain", "top.plain"}
    assert trained_settings("") == {"middle.silent.plain", "middle.own.plain", "top.plain"}
    assert "middle.own.free" in fields_by_key()
