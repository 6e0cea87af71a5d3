"""Settings of --mode=pretrain."""

from __future__ import annotations

from dataclasses import dataclass

from app.config.options import option


@dataclass(frozen=True)
class PretrainConfig:
    """Masked-language-model training on raw text. Epochs, batch size, optimizer and schedule: see TrainingConfig."""

    train_path: str = option(
        "data/sample/train.conll",
        "text: a file or glob (.gz too), a blank line between documents; a corpus as in data.train_path; tfds:NAME",
        path="globs",
    )
    valid_path: str = option(
        "data/sample/valid.conll",
        "held-out text, read in the same way; empty = none, also where only train_path is set",
        path="globs",
    )
    vocabulary_size: int = option(
        0, "backbone.source=random: word pieces learnt from the text; 0 = the backbone's own", at_least=0
    )
    records_dir: str = option("", "folder of the training records; empty = records/ in the run directory", path="path")
    beam_options: str = option(
        "", "options of Apache Beam, such as --runner=FlinkRunner; empty = this machine", trains=()
    )
    max_length: int = option(128, "word pieces in a sequence, [CLS] and [SEP] included", at_least=16, at_most=512)
    long_epochs: int = option(
        0, "of the epochs, how many of the last are trained on sequences of long_length", at_least=0
    )
    long_length: int = option(512, "word pieces in a long sequence", at_least=16, at_most=512)
    mask_fraction: float = option(0.15, "part of the pieces that is hidden", above=0, below=1)
    whole_words: bool = option(True, "hide all pieces of a word or none")
    objective: str = option(
        "masked_lm",
        "name hidden pieces; and tell whether B follows A (BERT), or whether A and B are in order (ALBERT)",
        choices=("masked_lm", "next_sentence", "sentence_order"),
    )
    model_parallel: int = option(
        1, "devices that share out the weights of one network, for one too large for a device; GPUs, or parts of the "
        "processor to try it",
        at_least=1,
    )
