"""Settings of the network: the pretrained encoder, and what a task builds on it."""

from __future__ import annotations

from dataclasses import dataclass

from app.config.options import option


@dataclass(frozen=True)
class BackboneConfig:
    """The pretrained encoder."""

    source: str = option(
        "minilm",
        "minilm, mpnet, random, preset:NAME; or a Hugging Face, preset, Google checkpoint or run directory",
        path="path",
    )
    sha256: str = option(
        "", "expected SHA-256 of the weights file; empty = that of minilm or mpnet, else unchecked", trains=()
    )
    dropout: float = option(0.1, "dropout of the hidden layers", at_least=0, below=1)
    attention_dropout: float = option(
        0.0, "dropout of the attention weights; its random numbers cost as much as the network", at_least=0, below=1
    )
    lowercase: str = option(
        "auto", "whether the vocabulary is uncased; auto asks the source", choices=("auto", "true", "false")
    )
    vocabulary_path: str = option("", "source=random: word pieces, one a line; empty = those of minilm", path="path")
    num_layers: int = option(2, "source=random: encoder layers", at_least=1)
    num_heads: int = option(2, "source=random: attention heads", at_least=1)
    hidden_dim: int = option(128, "source=random: width", at_least=1)
    intermediate_dim: int = option(512, "source=random: width of the feed-forward layers", at_least=1)
    max_positions: int = option(512, "source=random: longest sequence", at_least=8)


@dataclass(frozen=True)
class ModelConfig:
    """What is built on the backbone."""

    head: str = option(
        "crf", "task=tagging: what turns hidden states into tags", choices=("softmax", "crf")
    )
    pooling: str = option(
        "auto",
        "task=classification: what stands for the whole text, the hidden state of [CLS] or the mean of all; auto = the "
        "one that validation chooses; tagging ignores it",
        choices=("auto", "cls", "mean"),
    )
    word_shape: bool = option(
        True, "add an embedding of each word's shape (lower, Title, UPPER, digits, ...) to the input"
    )
    head_dropout: float = option(0.1, "dropout before the head", at_least=0, below=1)
    exit_layers: tuple[int, ...] = option(
        (),
        "encoder layers, counted from 1 and in rising order, after which stands a head of its own, so that easy texts "
        "can leave there (predict.max_f1_loss); below the last layer; empty = every text goes through all layers",
        at_least=1,
    )
    exit_reach: int = option(
        4,  # the rest of an unsure word, and a word or two beside it, which often belong to one entity
        "task=tagging with model.exit_layers: how many pieces on either side of an unsure word go on with it; fewer "
        "are less to compute",
        at_least=0, at_most=64,
    )
