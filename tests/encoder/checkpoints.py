"""Small BERT and MPNet checkpoints in every published layout, written from scratch for the tests."""

import json
import re
from pathlib import Path

import numpy as np
import tensorflow as tf
from safetensors.numpy import save_file

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CASED = [*SPECIAL, "the", "The", "##s", "Paris", "paris", "##É", "ß", ".", "1"]
UNCASED = [*SPECIAL, "[unused0]", "the", "##s", "paris", "é", "ß", "ℝ", ".", "1"]
CONFIG = {
    "model_type": "bert",
    "vocab_size": len(CASED),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


def make_tensors(config: dict = CONFIG, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 tensors under Hugging Face's names, large enough for differences to show."""
    width, hidden = config["hidden_size"], config["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
        "pooler.dense.weight": (width, width),
        "pooler.dense.bias": (width,),
    }
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for name in (
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ):
            shapes |= {f"{at}.{name}.weight": (width, width), f"{at}.{name}.bias": (width,)}
        shapes |= {
            f"{at}.intermediate.dense.weight": (hidden, width),
            f"{at}.intermediate.dense.bias": (hidden,),
        }
        shapes |= {f"{at}.output.dense.weight": (width, hidden), f"{at}.output.dense.bias": (width,)}
        for name in ("attention.output", "output"):
            shapes |= {f"{at}.{name}.LayerNorm.weight": (width,), f"{at}.{name}.LayerNorm.bias": (width,)}
    random = np.random.default_rng(seed)
    tensors = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: tensor + ("LayerNorm.weight" in name) for name, tensor in tensors.items()}


# The order in which published MPNets have their pieces: their own before and after BERT's.
MPNET_PIECES = ["<s>", "<pad>", "</s>", "<unk>", *UNCASED, "<mask>"]
MPNET_CONFIG = {
    **{key: value for key, value in CONFIG.items() if key != "type_vocab_size"},
    "model_type": "mpnet",
    "vocab_size": len(MPNET_PIECES),
    "max_position_embeddings": 402,
    "relative_attention_num_buckets": 32,
    "layer_norm_eps": 1e-5,
}


def make_mpnet_tensors(config: dict = MPNET_CONFIG, *, seed: int = 0) -> dict[str, np.ndarray]:
    """As `make_tensors`, under the names of an MPNet."""
    attention = {"self.query": "attn.q", "self.key": "attn.k", "self.value": "attn.v", "output.dense": "attn.o"}
    tensors = {}
    for name, tensor in make_tensors({**config, "type_vocab_size": 1}, seed=seed).items():
        for theirs, new in attention.items():
            name = name.replace(f"attention.{theirs}.", f"attention.{new}.")
        tensors[name.replace("attention.output.LayerNorm", "attention.LayerNorm")] = tensor
    del tensors["embeddings.token_type_embeddings.weight"]
    shape = config.get("relative_attention_num_buckets", 32), config["num_attention_heads"]
    bias = np.random.default_rng(seed + 1).normal(0, 2, shape).astype(np.float32)
    return tensors | {"encoder.relative_attention_bias.weight": bias}


def write_vocabulary(path: Path, vocabulary: list[str]) -> None:
    path.write_bytes("".join(f"{piece}\n" for piece in vocabulary).encode())


def write_huggingface(
    folder: Path, tensors: dict[str, np.ndarray], *, config: dict = CONFIG, vocabulary: list[str] = CASED
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_vocabulary(folder / "vocab.txt", vocabulary)
    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(arrays, folder / "model.safetensors")
    return folder


def write_google(folder: Path, tensors: dict[str, np.ndarray], *, vocabulary: list[str] = CASED) -> Path:
    """As google-research/bert does: [in, out] kernels, `bert/...` names, a head and a step beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = ("model_type", "layer_norm_eps")
    config = {key: value for key, value in CONFIG.items() if key not in keys}
    (folder / "bert_config.json").write_text(json.dumps(config))
    write_vocabulary(folder / "vocab.txt", vocabulary)
    published = {"cls/predictions/output_bias": np.zeros(3, np.float32), "global_step": np.int64(7)}
    for name, tensor in tensors.items():
        words = name.replace(".LayerNorm.weight", ".LayerNorm.gamma").replace(
            ".LayerNorm.bias", ".LayerNorm.beta"
        )
        if words.endswith("_embeddings.weight"):
            words = words.removesuffix(".weight")
        elif words.endswith(".weight"):
            words, tensor = words.removesuffix("weight") + "kernel", tensor.T
        published["bert/" + re.sub(r"layer\.(\d+)", r"layer_\1", words).replace(".", "/")] = tensor
    tf.raw_ops.SaveV2(
        prefix=str(folder / "bert_model.ckpt"),
        tensor_names=list(published),
        shape_and_slices=[""] * len(published),
        tensors=[tf.constant(np.ascontiguousarray(tensor)) for tensor in published.values()],
    )
    return folder
