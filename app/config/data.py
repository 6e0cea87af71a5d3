"""Settings of the corpora, and how they become rows."""

from __future__ import annotations

from dataclasses import dataclass

from app.config.options import option


@dataclass(frozen=True)
class DataConfig:
    """Corpora, and how they become sequences of word pieces."""

    train_path: str = option(
        "data/sample/train.conll",
        "training corpus: a file, a folder of classes or tfds:NAME; empty = none",
        path="path",
    )
    valid_path: str = option(
        "data/sample/valid.conll", "validation corpus, which chooses the best weights; empty = none", path="path"
    )
    test_path: str = option(
        "data/sample/test.conll",
        "test corpus; empty = none. The sample's validation and test corpora go only with its training corpus: beside "
        "a train_path of your own, a path that is not set is empty",
        path="path",
        trains=(),
    )
    valid_fraction: float = option(
        0.0,
        "part of the training corpus that is set aside for validation, by whole documents, instead of valid_path; "
        "0 = none",
        at_least=0,
        below=1,
    )
    valid_seed: int = option(
        0,
        "valid_fraction: seed of that choice; not the run's, so that runs with other seeds, and runs made from this "
        "one, set the same part aside",
        at_least=0,
    )
    train_on_valid: bool = option(
        False,
        "learn from the validation corpus too, in a last run with settings that it has chosen before; nothing is then "
        "scored on it, and the last weights are kept",
    )
    unlabelled_path: str = option(
        "",
        "distill, trim_vocabulary: text without labels beside the training corpus, read like pretrain.train_path; "
        "empty = none",
        path="globs",
        trains=("distill", "compress", "tune"),
    )
    format: str = option(
        "auto",
        "file format; auto: by file ending, and a folder holds one folder for each class, with one text in a file",
        choices=("auto", "conll", "jsonl", "csv", "tsv", "folder"),
    )
    text_column: str = option(
        "text",
        "CSV, TSV and JSON lines with classes: name of the column or key of the text; empty = none, as texts are pairs",
    )
    label_column: str = option(
        "label", "the same, of the label. The sample's column goes only with the sample's training corpus"
    )
    pair_columns: tuple[str, ...] = option(
        ("text_a", "text_b"),
        "the same, of the two texts of a pair that has one label, used where the file has both; empty = single texts",
    )
    scheme: str = option("auto", "tagging scheme of the corpora", choices=("auto", "iob1", "iob2", "iobes"))
    word_column: int = option(
        0,
        "column files: column of the word, counted from 1; 0 = the first, or the second if the first only counts",
        at_least=0,
    )
    tag_column: int = option(0, "column files: column of the tag, counted from 1; 0 = the last", at_least=0)
    strict: bool = option(False, "fail on illegal tag sequences instead of repairing and counting them", trains=())
    tfds_dir: str = option("", "folder of prepared TensorFlow Datasets; empty = the library's own", path="any")
    max_length: int = option(
        192,
        "word pieces in a sequence, [CLS] and [SEP] included; 0 = finetune: the longest that trains nearly as fast as "
        "any, found by trial and written to config.yaml",
        at_least=0,
        at_most=512,
    )
    overlap_tokens: int = option(
        64, "pieces a window shares with the one before when a text is scored", at_least=0
    )
    packing: str = option("document", "what shares a sequence", choices=("document", "sentence"))
    cache: str = option(
        "auto", "where packed sequences live while training", choices=("auto", "memory", "tfrecord")
    )
    cache_dir: str = option(
        "", "folder of the TFRecord cache and of what teachers say of each sequence, which runs may share; empty = "
        "inside the run directory", path="path", trains=()
    )
    memory_limit_words: int = option(
        5_000_000, "cache=auto writes TFRecords above this many words", at_least=0
    )
    shuffle_buffer_sequences: int = option(
        4096, "sequences shuffled at a time when read from TFRecords", at_least=1
    )
