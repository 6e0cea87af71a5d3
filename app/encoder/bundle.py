"""Encoder room: the backbone's part of a run's `model/` folder.

`backbone.json` (settings, lower-casing, origin), `vocab.txt`, `backbone.weights.h5`, and `SHA256SUMS`, which
`sha256sum -c` understands; its lines for other files are kept.
"""

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app.config import BackboneConfig, InputError, RunError
from app.encoder.bert import ACTIVATIONS, SLIM_SETTINGS, Backbone, BertSettings, make_bert_backbone, read_settings
from app.encoder.sources import (
    BACKBONE_FILES,
    SUMS_FILE,
    check_sha256,
    check_sums,
    choose_lowercase,
    find_bundle,
    read_json,
    read_sums,
    read_vocabulary,
)
from app.run.directory import atomic, sha256_of_file
from app.run.files import reason_of

BUNDLE_FILES = BACKBONE_FILES
SETTINGS_FILE, VOCABULARY_FILE, WEIGHTS_FILE = BUNDLE_FILES


def build_from_run(config: BackboneConfig) -> Backbone:
    """The encoder of a run directory, or of its `model/` folder, with the configured dropout."""
    backbone = load_backbone(find_bundle(Path(config.source)), config)
    return dataclasses.replace(backbone, source=config.source)


def save_backbone(backbone: Backbone, folder: Path) -> None:
    """Writes the bundle. What was there before stays whole until all of it is written.

    Raises:
        RunError: the files could not be written (disk full, no permission).
    """
    values = dataclasses.asdict(read_settings(backbone.model))
    values = {name: value for name, value in values.items() if value or name not in SLIM_SETTINGS}
    values |= {"lowercase": backbone.lowercase, "source": backbone.source}
    try:
        sums = read_sums(folder)
    except InputError:  # unreadable, and about to be replaced
        sums = {}
    try:
        with ExitStack() as stack:  # renames in reverse order, so the sums come last
            sums_part, weights, vocabulary, settings = (
                stack.enter_context(atomic(folder / name))
                for name in (SUMS_FILE, WEIGHTS_FILE, VOCABULARY_FILE, SETTINGS_FILE)
            )
            settings.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
            vocabulary.write_bytes("".join(f"{piece}\n" for piece in backbone.vocabulary).encode("utf-8"))
            backbone.model.save_weights(str(weights))
            for name, part in zip(BUNDLE_FILES, (settings, vocabulary, weights), strict=True):
                sums[name] = sha256_of_file(part)
            sums_part.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)), "utf-8")
    except (OSError, RuntimeError) as error:  # h5py reports some full disks as RuntimeError
        raise RunError(
            f"{reason_of(error)}: the backbone could not be saved to {folder}; a model that was there before is intact"
        ) from error


def load_backbone(folder: Path, config: BackboneConfig | None = None) -> Backbone:
    """Reads a bundle; bit for bit the encoder that was saved.

    Args:
        folder: the `model/` folder.
        config: gives dropout, lower-casing and an expected SHA-256 of the weights; None leaves all as saved.

    Raises:
        InputError: a file is missing, truncated, altered, or does not belong to the others.
    """
    check_sums(folder, BUNDLE_FILES)
    if config is not None and config.sha256:
        check_sha256(folder / WEIGHTS_FILE, config.sha256)
    values = read_json(folder / SETTINGS_FILE)
    lowercase, source = values.pop("lowercase", None), values.pop("source", "")
    names = {field.name for field in dataclasses.fields(BertSettings)}
    required = names - set(SLIM_SETTINGS)
    known = required <= set(values) <= names
    if not known or values["activation"] not in ACTIVATIONS or not isinstance(lowercase, bool):
        raise InputError(
            f"{folder / SETTINGS_FILE} must hold lowercase, source, {', '.join(sorted(required))} "
            f"as this version writes them, received {', '.join(sorted(values))}"
        )
    settings = _settings(values, where=folder / SETTINGS_FILE)
    if config is not None:
        settings = dataclasses.replace(
            settings, dropout=config.dropout, attention_dropout=config.attention_dropout
        )
        lowercase = choose_lowercase(config.lowercase, lowercase)
    vocabulary = read_vocabulary(folder / VOCABULARY_FILE, size=settings.vocabulary_size)
    model = make_bert_backbone(settings)
    try:
        model.load_weights(str(folder / WEIGHTS_FILE))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder / WEIGHTS_FILE} does not fit {SETTINGS_FILE} beside it: {error}"
        ) from error
    return Backbone(model, vocabulary, lowercase, source)


def read_layer_count(folder: Path) -> int:
    """The encoder layers of a bundle; reads no weights."""
    return int(read_json(folder / SETTINGS_FILE)["num_layers"])


def read_position_count(folder: Path) -> int:
    """The pieces that the longest text of a bundle may have; reads no weights."""
    return int(read_json(folder / SETTINGS_FILE)["max_positions"])


def _settings(values: dict, *, where: Path) -> BertSettings:
    """The settings in a file; the lists of a slim encoder must have an entry a layer."""
    lists: dict[str, Any] = {
        name: tuple(values[name]) for name in SLIM_SETTINGS if isinstance(values.get(name), list)
    }
    if "relative_heads" in lists:
        lists["relative_heads"] = _heads_of_layers(values, where=where)
    settings = BertSettings(**(values | lists))
    by_layer = settings.layer_heads, settings.layer_intermediate_dims
    slim = [settings.head_dim, *by_layer]
    if any(slim) and not (all(slim) and all(len(sizes) == settings.num_layers for sizes in by_layer)):
        raise InputError(
            f"{where}: layer_heads and layer_intermediate_dims must have {settings.num_layers} numbers each and "
            f"head_dim one, received {slim}"
        )
    return settings


def _heads_of_layers(values: dict, *, where: Path) -> tuple[tuple[int, ...], ...]:
    """The `relative_heads` in a file, which must go with its `layer_heads`."""
    received = values["relative_heads"]
    lists = received if all(isinstance(heads, list) for heads in received) else []
    whole = all(type(head) is int and head >= 0 for heads in lists for head in heads)
    if not whole or [len(heads) for heads in lists] != values.get("layer_heads"):
        raise InputError(
            f"{where}: relative_heads must name a column of the table of relative positions for every head of every "
            f"layer ({values.get('layer_heads')}), received {received}"
        )
    return tuple(tuple(heads) for heads in received)
