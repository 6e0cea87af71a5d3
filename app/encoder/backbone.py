"""Encoder room: a backbone from any source, chosen by `backbone.source`."""

from collections.abc import Callable
from pathlib import Path

from app.config import BackboneConfig, InputError
from app.encoder.bert import Backbone, BertSettings, apply_settings, make_bert_backbone, read_settings
from app.encoder.bundle import build_from_run, load_backbone, save_backbone
from app.encoder.presets import build_from_preset
from app.encoder.published import (
    build_from_google_checkpoint,
    build_from_huggingface,
    build_from_minilm,
    read_minilm_vocabulary,
)
from app.encoder.sources import detect_source
from app.encoder.vocabulary import choose_lowercase, detect_lowercase, read_vocabulary

__all__ = [
    "Backbone",
    "BertSettings",
    "apply_settings",
    "build_backbone",
    "detect_source",
    "load_backbone",
    "make_bert_backbone",
    "read_settings",
    "save_backbone",
]

def build_backbone(config: BackboneConfig) -> Backbone:
    """The encoder that `backbone.source` names, with its vocabulary.

    Raises:
        InputError: the source is unknown, incomplete or damaged; the message names the file or tensor.
    """
    return SOURCES[detect_source(config.source)](config)


def build_from_random(config: BackboneConfig) -> Backbone:
    """An encoder with random weights (truncated normal, 0.02) in the configured size."""
    if config.sha256:
        raise InputError(
            "backbone.sha256 must be empty when backbone.source is random: there is no weights file"
        )
    if config.hidden_dim % config.num_heads:
        raise InputError(
            f"backbone.hidden_dim must be a multiple of backbone.num_heads, "
            f"received {config.hidden_dim} and {config.num_heads}"
        )
    path = config.vocabulary_path
    vocabulary = read_vocabulary(Path(path)) if path else read_minilm_vocabulary()
    settings = BertSettings(
        vocabulary_size=len(vocabulary),
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        hidden_dim=config.hidden_dim,
        intermediate_dim=config.intermediate_dim,
        max_positions=config.max_positions,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
    )
    lowercase = choose_lowercase(config.lowercase, detect_lowercase(vocabulary))
    return Backbone(make_bert_backbone(settings), vocabulary, lowercase, config.source)


# The keys are what `detect_source` gives.
SOURCES: dict[str, Callable[[BackboneConfig], Backbone]] = {
    "minilm": build_from_minilm,
    "huggingface": build_from_huggingface,
    "preset": build_from_preset,
    "google": build_from_google_checkpoint,
    "run": build_from_run,
    "random": build_from_random,
}
