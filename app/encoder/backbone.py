"""Encoder room: a backbone from any source, chosen by `backbone.source`; KerasNLP presets among them."""

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from keras_nlp.models import BertBackbone, BertTokenizer
from keras_nlp.src.utils.preset_utils import MODEL_WEIGHTS_FILE, get_file

from app.config import BackboneConfig, InputError
from app.config.paths import plain
from app.encoder.bert import Backbone, BertSettings, apply_settings, make_bert_backbone, read_settings
from app.encoder.bundle import build_from_run, load_backbone, save_backbone
from app.encoder.published import (
    build_from_google_checkpoint,
    build_from_huggingface,
    build_from_minilm,
    build_from_mpnet,
    read_minilm_vocabulary,
)
from app.encoder.sources import (
    PRESET_PREFIX,
    REMOTE_PRESETS,
    check_sha256,
    check_vocabulary,
    choose_lowercase,
    describe_unknown_preset,
    detect_lowercase,
    detect_source,
    read_vocabulary,
)
from app.one_keras import keras
from app.run.directory import atomic

# What KerasNLP lets through for a missing, altered or unreachable file (requests' errors are OSErrors).
_FAILURES = (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError)


def build_from_preset(config: BackboneConfig) -> Backbone:
    """The encoder of a preset, rebuilt with the exact GELU and the configured dropout."""
    name = config.source.removeprefix(PRESET_PREFIX)
    if name not in BertBackbone.presets and not name.startswith(REMOTE_PRESETS) and not Path(name).is_dir():
        raise InputError(describe_unknown_preset(name, sorted(BertBackbone.presets)))
    place = plain(name) if Path(name).is_dir() else name
    try:
        if config.sha256:
            check_sha256(Path(get_file(place, MODEL_WEIGHTS_FILE)), config.sha256)
        loaded = BertBackbone.from_preset(place)
        tokenizer = BertTokenizer.from_preset(place)
        vocabulary = list(tokenizer.get_vocabulary())
    except _FAILURES as error:
        raise InputError(f"the preset {name} could not be loaded: {' '.join(str(error).split())}") from error
    check_vocabulary(vocabulary, where=f"the vocabulary of preset {name}", size=loaded.vocabulary_size)
    model = make_bert_backbone(
        BertSettings(
            vocabulary_size=loaded.vocabulary_size,
            num_layers=loaded.num_layers,
            num_heads=loaded.num_heads,
            hidden_dim=loaded.hidden_dim,
            intermediate_dim=loaded.intermediate_dim,
            max_positions=loaded.max_sequence_length,
            num_segments=loaded.num_segments,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
        )
    )
    model.set_weights(loaded.get_weights())
    lowercase = choose_lowercase(config.lowercase, bool(tokenizer.lowercase))
    return Backbone(model, vocabulary, lowercase, config.source)


def fits_preset(backbone: Backbone) -> bool:
    """Whether KerasNLP's `BertBackbone` is the same network: not that of an MPNet, nor of a pruned BERT."""
    return type(backbone.model) is BertBackbone


def save_preset(backbone: Backbone, folder: Path) -> None:
    """Writes the encoder as a preset folder, which `keras_nlp.models.BertBackbone.from_preset` loads anywhere.

    KerasNLP's own `save_to_preset` needs Keras 3, so its files are written one by one. A preset cannot say which GELU
    its weights were trained with: KerasNLP computes the tanh approximation (see `bert.py`), this project the exact one.
    """
    tokenizer = BertTokenizer(lowercase=backbone.lowercase)
    description = keras.saving.serialize_keras_object(backbone.model)
    texts = {
        "config.json": json.dumps({**description, "registered_name": "keras_nlp>BertBackbone"}, indent=1),
        "tokenizer.json": json.dumps(keras.saving.serialize_keras_object(tokenizer), indent=1),
        "metadata.json": json.dumps({"keras_version": metadata.version("keras")}),
        "assets/tokenizer/vocabulary.txt": "".join(f"{piece}\n" for piece in backbone.vocabulary),
    }
    for name, text in texts.items():
        with atomic(folder / name) as path:
            path.write_bytes(text.encode("utf-8"))
    with atomic(folder / MODEL_WEIGHTS_FILE) as path:
        backbone.model.save_weights(str(path))


# A backbone from any source, chosen by `backbone.source`.


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
    "mpnet": build_from_mpnet,
    "huggingface": build_from_huggingface,
    "preset": build_from_preset,
    "google": build_from_google_checkpoint,
    "run": build_from_run,
    "random": build_from_random,
}
