"""The forward passes of BERT and MPNet in float64 NumPy, from the paper and Hugging Face's published layout and names.

It shares no code with the application, so that agreement means something.
"""

import math
import re

import numpy as np
from scipy.special import erf


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def compute_hidden_states(
    tensors: dict[str, np.ndarray],
    token_ids: np.ndarray,
    segment_ids: np.ndarray,
    padding_mask: np.ndarray,
    *,
    num_heads: int,
    epsilon: float = 1e-12,
    activation=gelu,
    bias: np.ndarray | float = 0.0,
) -> np.ndarray:
    """[batch, length] ids -> float64 [batch, length, width]; tensors by name, without the `bert.` prefix.

    `bias` [heads, length, length] is added to the attention scores.
    """
    weights = {name: np.asarray(tensor, dtype=np.float64) for name, tensor in tensors.items()}

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return scaled * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]

    def heads(x: np.ndarray) -> np.ndarray:  # [batch, heads, length, width / heads]
        return x.reshape(*x.shape[:2], num_heads, -1).transpose(0, 2, 1, 3)

    x = weights["embeddings.word_embeddings.weight"][token_ids]
    x = x + weights["embeddings.position_embeddings.weight"][: token_ids.shape[1]]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][segment_ids], "embeddings")
    blocked = np.where(padding_mask[:, None, None, :] > 0, 0.0, -1e9)
    layer = 0
    while f"encoder.layer.{layer}.output.dense.weight" in weights:
        at = f"encoder.layer.{layer}"
        query, key, value = (
            heads(dense(x, f"{at}.attention.self.{name}")) for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1]) + bias + blocked
        chances = np.exp(scores - scores.max(-1, keepdims=True))
        chances /= chances.sum(-1, keepdims=True)
        context = (chances @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + dense(context, f"{at}.attention.output.dense"), f"{at}.attention.output")
        hidden = activation(dense(x, f"{at}.intermediate.dense"))
        x = norm(x + dense(hidden, f"{at}.output.dense"), f"{at}.output")
        layer += 1
    return x


def compute_mpnet_states(
    tensors: dict[str, np.ndarray], token_ids: np.ndarray, *, num_heads: int, **options
) -> np.ndarray:
    """One text alone: published ids [length] -> float64 [length, width]."""
    length = len(token_ids)
    as_bert = {}
    for name, tensor in tensors.items():
        name = re.sub(r"attention\.attn\.([qkvo])\.", lambda found: f"attention.{ATTENTION[found[1]]}.", name)
        as_bert[name.replace("attention.LayerNorm", "attention.output.LayerNorm")] = tensor
    width = tensors["embeddings.LayerNorm.bias"].shape[0]
    as_bert["embeddings.token_type_embeddings.weight"] = np.zeros((1, width))
    as_bert["embeddings.position_embeddings.weight"] = tensors["embeddings.position_embeddings.weight"][2:]
    table = tensors["encoder.relative_attention_bias.weight"].astype(np.float64)
    bias = np.array([[table[find_bucket(read - asks)] for read in range(length)] for asks in range(length)])
    options |= {"num_heads": num_heads, "bias": bias.transpose(2, 0, 1)}
    ids = np.asarray(token_ids)[np.newaxis]
    return compute_hidden_states(as_bert, ids, np.zeros_like(ids), np.ones_like(ids), **options)[0]


ATTENTION = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}


def find_bucket(distance: int, *, buckets: int = 32, furthest: int = 128) -> int:
    """T5's formula for texts read in both directions, as Hugging Face's MPNet computes it."""
    side, far = buckets // 2, abs(distance)
    first = side if distance > 0 else 0
    near = side // 2
    if far < near:
        return first + far
    return first + min(near + int(math.log(far / near) / math.log(furthest / near) * (side - near)), side - 1)
