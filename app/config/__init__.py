"""Every setting, its default, its meaning and what is allowed. Imports no TensorFlow.

Each section is a frozen dataclass and goes alone to the functions it is for. `app.config.loading` reads and
writes them as YAML; it knows no setting by name, only the type and metadata each field has here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


class InputError(Exception):
    """Bad usage, configuration or input: one sentence (what, where, received, allowed). Exit status 2."""


class RunError(Exception):
    """A run that failed (loss not a number, disk full), in one sentence. Exit status 1."""


class LostWorkerError(RunError):
    """Another worker of the run has ended; all of them must be started again. Exit status 138."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it before it takes a machine away. Exit status 143."""


# What `path` of a setting may be. `app.config.loading` expands `~` and `$NAME` in each, and refuses remote paths.
PATH_KINDS = {
    "path": "a file or folder, taken literally",
    "globs": "files and globs that commas separate; what exists under the very name is no glob",
    "any": "a file or folder, or a remote place that the library behind the setting reads by itself",
}
# What stands before a name that is no path, or is one after it: that of a library's data set or preset.
HANDLES = ("tfds:", "preset:")
TRAINING_MODES = ("pretrain", "finetune", "distill", "compress")
TAGGER_MODES = ("finetune", "distill", "compress")


def option(default: Any, meaning: str, **limits: Any) -> Any:
    """A dataclass field that explains itself.

    Args:
        default: also fixes the type: str, bool, int, float, or a tuple of str or int, which YAML and `--set` write as
            [a, b] or a,b.
        meaning: one line.
        **limits: any of `choices` (allowed values; of a tuple, for each name in it), `at_least`, `at_most`, `above`,
            `below` (numbers); `path` (what it names in the file system, see PATH_KINDS); and `trains`, the training
            modes in which the setting changes the model that is made, where they are not those of its section (see
            `Config`). A run cannot continue with another value of such a setting.
    """
    return field(default=default, metadata={"meaning": meaning, **limits})


@dataclass(frozen=True)
class DataConfig:
    """Corpora, and how they become sequences of word pieces."""

    train_path: str = option(
        "data/sample/train.conll", "training corpus: a file or tfds:NAME; empty = none", path="path"
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
        trains=("distill", "compress"),
    )
    format: str = option("auto", "file format; auto by file ending", choices=("auto", "conll", "jsonl"))
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
        "", "folder of the TFRecord cache; empty = inside the run directory", path="path", trains=()
    )
    memory_limit_words: int = option(
        5_000_000, "cache=auto writes TFRecords above this many words", at_least=0
    )
    shuffle_buffer_sequences: int = option(
        4096, "sequences shuffled at a time when read from TFRecords", at_least=1
    )


@dataclass(frozen=True)
class BackboneConfig:
    """The pretrained encoder."""

    source: str = option(
        "minilm",
        "minilm, random, preset:NAME; or a Hugging Face, preset, Google checkpoint or run directory",
        path="path",
    )
    sha256: str = option(
        "", "expected SHA-256 of the weights file; empty = the known sum for minilm, else unchecked", trains=()
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

    head: str = option("crf", "what turns hidden states into tags", choices=("softmax", "crf"))
    word_shape: bool = option(
        True, "add an embedding of each word's shape (lower, Title, UPPER, digits, ...) to the input"
    )
    head_dropout: float = option(0.1, "dropout before the head", at_least=0, below=1)


@dataclass(frozen=True)
class TrainingConfig:
    """Devices, optimizer, schedule and regularisation of a training run."""

    strategy: str = option(
        "auto",
        "how training is spread over devices",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
    )
    logical_devices: int = option(
        0, "strategy=mirrored: split the processor into this many replicas, to try it; 0 = leave it whole", at_least=0
    )
    worker_timeout_seconds: float = option(
        300.0, "strategy=multi_worker: how long a worker waits for the others to come up", above=0, trains=()
    )
    tpu_address: str = option("", "strategy=tpu: name or address of the TPU; local on a TPU machine")
    precision: str = option(
        "auto",
        "number format of the arithmetic",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit_compile: bool = option(False, "compile the training step with XLA")
    compile_activations: str = option(
        "auto",
        "compile the exact GELU and its gradient with XLA, a tenth of a step on a CPU; auto: where XLA can. false here "
        "and in jit_compile: nothing is compiled with XLA",
        choices=("auto", "true", "false"),
    )
    deterministic: bool = option(True, "the same seed on the same machine gives the same bits")
    epochs: int = option(
        12, "passes over the training corpus", at_least=1, trains=("pretrain", "finetune", "distill")
    )
    batch_size: int = option(4, "sequences in a step, over all devices", at_least=1)
    accumulation_steps: int = option(
        1,
        "parts a batch is computed in, one after the other, to save memory; 0 = pretrain and finetune: as few "
        "as fit, found by trial and written to config.yaml",
        at_least=0,
    )
    memory_limit_mb: int = option(
        0, "accumulation_steps=0, data.max_length=0: memory that training may take; 0 = most of what is free",
        at_least=0, trains=(),
    )
    optimizer: str = option("adamw", "optimizer", choices=("adamw", "lamb"))
    learning_rate: float = option(4e-4, "peak learning rate", above=0, at_most=1)
    head_learning_rate_multiplier: float = option(1.0, "the head learns at this many times the rate", above=0)
    layer_learning_rate_decay: float = option(
        1.0, "rate of each layer relative to the one above it", above=0, at_most=1
    )
    warmup_fraction: float = option(
        0.1, "part of all steps in which the rate rises from 0", at_least=0, below=1
    )
    schedule: str = option("linear", "decay after the warm-up", choices=("linear", "cosine", "polynomial"))
    polynomial_power: float = option(2.0, "schedule=polynomial: exponent of the decay", above=0)
    end_learning_rate_fraction: float = option(0.0, "last rate as a part of the peak", at_least=0, at_most=1)
    weight_decay: float = option(0.01, "decay of all weights but biases and layer norms", at_least=0)
    clip_norm: float = option(1.0, "largest norm of all gradients together; 0 = no clipping", at_least=0)
    beta_2: float = option(0.999, "decay of the optimizer's second moment", at_least=0, below=1)
    epsilon: float = option(1e-6, "the optimizer's guard against division by 0", above=0)
    early_stopping_patience_epochs: int = option(
        0, "stop after this many epochs without a better F1; 0 = never", at_least=0,
        trains=("pretrain", "finetune", "distill"),
    )
    average_weights_decay: float = option(
        0.98, "decay per step of the moving average of the weights; 0 = off", at_least=0, below=1
    )
    average_weights_every_steps: int = option(
        8,
        "steps between two updates of the moving average, each as slow as the optimizer itself; an epoch of few steps "
        "has two updates all the same",
        at_least=1,
    )
    word_mask_fraction: float = option(
        0.0, "part of the training words hidden behind [MASK], all pieces of each", at_least=0, below=1
    )
    entity_mask_fraction: float = option(
        0.0, "part of the training entities hidden so, all words of each: names are not learnt by heart",
        at_least=0, below=1,
    )
    r_drop_weight: float = option(0.0, "weight of the R-Drop consistency loss; 0 = off", at_least=0)
    masked_lm_epochs: int = option(
        0, "epochs of masked-language-model training on the training words before labels are learnt", at_least=0,
        trains=("finetune",),
    )
    masked_lm_learning_rate: float = option(
        4e-4, "peak learning rate of these epochs", above=0, at_most=1, trains=("finetune",)
    )
    masked_lm_fraction: float = option(0.15, "part of the pieces they hide", above=0, below=1, trains=("finetune",))
    freeze_embeddings: bool = option(False, "leave the word-piece embeddings as they are")
    lazy_embeddings: bool = option(
        False, "AdamW on one device: update only the embeddings of pieces in the batch (LazyAdam), which is faster"
    )
    keep_structure: bool = option(
        False, "weights of the start that are exactly 0, or share a value (pruned, clustered), stay so"
    )
    input_threads: int = option(
        0, "threads that prepare the batches; 0 = as few as a short probe finds fast enough", at_least=0, trains=()
    )
    log_every_steps: int = option(50, "steps between two points of the TensorBoard curves", at_least=1, trains=())
    checkpoint_every_steps: int = option(
        0,
        "steps between two checkpoints, beside one after each epoch; 0 = after epochs only, and as often as writing "
        "takes less than 2 % of the time",
        at_least=0, trains=(),
    )
    keep_checkpoints: bool = option(
        False,
        "keep the checkpoints of a run that is finished, several times the size of the model: training.epochs can then "
        "be raised, and the same command trains on; compress drops those of each part with the part",
        trains=(),
    )
    tensorboard: bool = option(True, "write logs for TensorBoard", trains=())


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


@dataclass(frozen=True)
class CompressionConfig:
    """How a fine-tuned run is made smaller and faster. Batch size, optimizer and schedule: see TrainingConfig."""

    steps: tuple[str, ...] = option(
        ("prune_structured",),
        "steps, in their order",
        choices=("trim_vocabulary", "prune_structured", "prune_magnitude", "cluster", "quantize_aware"),
    )
    min_piece_count: int = option(
        1, "trim_vocabulary: how often the text must have a piece for it to stay", at_least=1
    )
    kept_first_pieces: int = option(
        20_000,
        "trim_vocabulary: this many pieces from the beginning of the vocabulary are always kept; published ones are "
        "sorted by frequency, so this is what other text needs",
        at_least=0,
    )
    trim_epochs: int = option(0, "trim_vocabulary: epochs of fine-tuning after it", at_least=0)
    other_path: str = option(
        "", "trim_vocabulary: corpus of other text on which its loss is measured too; empty = none", path="path"
    )
    flops_fraction: float = option(
        0.5, "prune_structured: part of the encoder's operations that is left", above=0, below=1
    )
    latency_ms: float = option(
        0.0, "prune_structured: milliseconds per text on this machine, instead of flops_fraction; 0 = off",
        at_least=0,
    )
    latency_length: int = option(64, "pieces of the text whose latency is measured", at_least=8, at_most=512)
    removed_layers: int = option(0, "prune_structured: whole layers that go first", at_least=0)
    structured_rounds: int = option(2, "prune_structured: rounds of removing and fine-tuning", at_least=1)
    structured_epochs: int = option(2, "prune_structured: epochs of fine-tuning in a round", at_least=0)
    structured_last_epochs: int = option(4, "prune_structured: the same, in the last round", at_least=0)
    importance_steps: int = option(64, "prune_structured: batches on which importance is measured", at_least=1)
    sparsity: float = option(0.5, "prune_magnitude: part of the weights that becomes 0", above=0, below=1)
    sparsity_2_by_4: bool = option(
        False, "prune_magnitude: 2 of 4 neighbours in the feed-forward kernels become 0, and nothing else"
    )
    prune_embeddings: bool = option(True, "prune_magnitude: prune the word embeddings too")
    prune_frequency_steps: int = option(100, "prune_magnitude: steps between two updates of the masks", at_least=1)
    magnitude_epochs: int = option(4, "prune_magnitude: epochs; sparsity rises in the first half", at_least=1)
    clusters: int = option(16, "cluster: distinct values left in a kernel", at_least=2, at_most=256)
    cluster_epochs: int = option(1, "cluster: epochs in which the values are tuned", at_least=0)
    quantize_epochs: int = option(2, "quantize_aware: epochs", at_least=1)
    distill: bool = option(True, "learn from the uncompressed network beside the labels while fine-tuning")


@dataclass(frozen=True)
class EvaluationConfig:
    """Scoring of a trained model."""

    split: str = option("test", "corpus to score", choices=("train", "valid", "test"))
    # In pretraining, the masks of the held-out text are drawn batch by batch, and its score chooses the weights.
    batch_size: int = option(32, "sequences in a step", at_least=1, trains=("pretrain",))
    tflite_file: str = option("int8", "predictor=tflite: which file of export/tflite, without its ending")


@dataclass(frozen=True)
class ExportConfig:
    """Files for other runtimes. Each is scored on evaluation.split by its own runtime before it is kept."""

    formats: tuple[str, ...] = option(
        ("float32", "float16", "int8", "int4", "saved_model"),
        "what to export: precisions of TFLite files, one that takes raw strings, the SavedModel for TensorFlow Serving",
        choices=("float32", "float16", "int8", "int4", "full_int8", "int8_text", "saved_model"),
    )
    max_f1_loss: float = option(
        0.5,
        "entity F1 an export may lose against the float model, in points of 100; refused is what loses more beyond "
        "chance (the whole 95 % interval of a paired bootstrap over sentences is above); 0 = any loss beyond chance",
        at_least=0,
        at_most=100,
    )
    block_size: int = option(
        32, "format=int4: weights that share a scale; 32, 64, 128 or 256", at_least=32, at_most=256
    )
    int8_table: str = option(
        "int8", "format=int8: precision of the embedding tables", choices=("float", "int8", "int4")
    )
    calibration_rows: int = option(
        64, "format=full_int8: rows of the training corpus that the ranges are read from", at_least=1
    )
    vectors: int = option(16, "sentences in the test vectors beside the files", at_least=1)


@dataclass(frozen=True)
class PredictConfig:
    """Entities of plain text."""

    input_format: str = option(
        "auto",
        "what a document is: a line, the text of a JSON line, a whole file; auto takes .jsonl and .ndjson for JSON "
        "lines, and else a single input for lines, folders and several files for whole files",
        choices=("auto", "lines", "jsonl", "files"),
    )
    format: str = option(
        "auto",
        "how entities are shown: as JSON lines, or in the text; auto shows them in the text on a terminal",
        choices=("auto", "jsonl", "text"),
    )
    split_sentences: bool = option(True, "split the text into sentences first")
    batch_size: int = option(32, "sequences in a step", at_least=1)
    min_score: float = option(0.0, "leave out entities the model is less sure of", at_least=0, at_most=1)
    drop_non_names: bool = option(
        True,
        "leave out entities that are only an e-mail or web address, a handle, a file path, a number, a date, a hash or "
        "symbols; types that the training corpus has on such words keep them",
    )


@dataclass(frozen=True)
class ServeConfig:
    """A local server of the exported SavedModel."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 = all, there is no access control")
    port: int = option(8501, "port to listen on; 0 = any that is free", at_least=0, at_most=65535)


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measurement of speed."""

    objective: str = option(
        "tagging",
        "training of a tagger on data.train_path, or of a backbone on pretrain.train_path; or size, entity F1 and "
        "speed of the exports of a run",
        choices=("tagging", "masked_lm", "frontier"),
    )
    steps: int = option(20, "steps that are measured", at_least=1)
    warmup_steps: int = option(5, "steps before them that are not", at_least=0)
    other_runs: tuple[str, ...] = option(
        (), "frontier: further runs, compressed ones, whose exports join in", path="path"
    )
    peer_python: str = option(
        "", "frontier: a Python with onnxruntime, torch and transformers, to measure ONNX Runtime too; empty = none",
        path="path",
    )
    lengths: tuple[int, ...] = option((32, 64, 128), "frontier: pieces of the texts of latency", at_least=1)
    threads: tuple[int, ...] = option(
        (1, 2), "frontier: threads that latency is measured with; words/s with the most of them", at_least=1
    )
    batch_sizes: tuple[int, ...] = option(
        (1, 4, 16), "frontier: rows in a batch, from which words/s takes the fastest for each contestant", at_least=1
    )
    words: int = option(
        5000, "frontier: words of the evaluation corpus that words/s is measured on; 0 = all", at_least=0
    )
    rounds: int = option(15, "frontier: rounds of latency; words/s takes a third of them", at_least=1)


@dataclass(frozen=True)
class DistillConfig:
    """A small network learns from large ones. The losses are weighted and added; a weight of 0 leaves one out."""

    teachers: tuple[str, ...] = option(
        ("runs/finetune",), "runs to learn from, their answers averaged; or one backbone, see backbone.source",
        path="path",
        trains=("distill",),
    )
    student: str = option(
        "teacher_layers",
        "what the student begins as, unless init_from names a run: layers of the first teacher, or backbone.source",
        choices=("teacher_layers", "backbone"), trains=("distill",),
    )
    student_layers: tuple[int, ...] = option(
        (0, 2, 5), "student=teacher_layers: the teacher's layers it is made of, counted from 0", at_least=0,
        trains=("distill",),
    )
    temperature: float = option(2.0, "divides logits and transition scores in the soft losses", above=0, at_most=100)
    labels_weight: float = option(0.5, "weight of the loss of the corpus's own labels", at_least=0)
    soft_weight: float = option(
        1.0, "weight of the divergence between the label probabilities at each word (logits alone)", at_least=0
    )
    chain_weight: float = option(
        0.0, "weight of the divergence between the probabilities of whole tag sequences (CRF marginals)", at_least=0
    )
    hidden_weight: float = option(
        0.0, "weight of the mean squared difference between hidden states, of the first teacher", at_least=0,
        trains=("distill",),
    )
    hidden_student_layers: tuple[int, ...] = option(
        (), "student layers whose output is compared, counted from 0; empty = all", at_least=0, trains=("distill",)
    )
    hidden_teacher_layers: tuple[int, ...] = option(
        (), "teacher layers they are compared with; empty = evenly spread, the last with the last", at_least=0,
        trains=("distill",),
    )
    relation_weight: float = option(
        0.0, "weight of the divergence between self-attention relations (MiniLM), of the first teacher", at_least=0,
        trains=("distill",),
    )
    relations: tuple[str, ...] = option(
        ("query", "key", "value"), "vectors whose relations are compared", choices=("query", "key", "value"),
        trains=("distill",),
    )
    relation_heads: int = option(
        12, "heads that the vectors of both networks are split into", at_least=1, trains=("distill",)
    )
    relation_student_layer: int = option(
        -1, "student layer, counted from 0; -1 = the last", at_least=-1, trains=("distill",)
    )
    relation_teacher_layer: int = option(
        -1, "teacher layer, counted from 0; -1 = the last", at_least=-1, trains=("distill",)
    )
    unlabelled_limit_words: int = option(
        0, "words read from data.unlabelled_path at most; 0 = all", at_least=0
    )


# Settings whose 0 stands for a number that is found by trial when a run starts, and written to its config.yaml.
FOUND_BY_TRIAL = ("data.max_length", "training.accumulation_steps")


# Where a mode's own default differs from the general one: a first try that takes about three minutes on two cores.
MODE_DEFAULTS: dict[str, dict[str, str]] = {
    "pretrain": {"training.epochs": "3", "training.batch_size": "8", "training.learning_rate": "1e-4"},
}


@dataclass(frozen=True)
class Config:
    """The whole configuration. Functions receive the section they need, never this.

    The `trains` of a section are those of its settings (`option`); a section that says nothing has all training modes.
    """

    data: DataConfig = field(default=DataConfig(), metadata={"trains": TAGGER_MODES})
    backbone: BackboneConfig = BackboneConfig()
    model: ModelConfig = field(default=ModelConfig(), metadata={"trains": TAGGER_MODES})
    training: TrainingConfig = TrainingConfig()
    pretrain: PretrainConfig = field(default=PretrainConfig(), metadata={"trains": ("pretrain",)})
    distill: DistillConfig = field(default=DistillConfig(), metadata={"trains": ("distill", "compress")})
    compression: CompressionConfig = field(default=CompressionConfig(), metadata={"trains": ("compress",)})
    evaluation: EvaluationConfig = field(default=EvaluationConfig(), metadata={"trains": ()})
    predict: PredictConfig = field(default=PredictConfig(), metadata={"trains": ()})
    export: ExportConfig = field(default=ExportConfig(), metadata={"trains": ()})
    serve: ServeConfig = field(default=ServeConfig(), metadata={"trains": ()})
    benchmark: BenchmarkConfig = field(default=BenchmarkConfig(), metadata={"trains": ()})
    predictor: str = option(
        "keras", "runtime that --mode=evaluate scores", choices=("keras", "tflite", "saved_model"), trains=()
    )
    seed: int = option(0, "seed of every random choice", at_least=0, at_most=2**31 - 1)
    init_from: str = option(
        "",
        "run directory whose model training starts from; empty = the pretrained backbone",
        path="path",
        trains=TAGGER_MODES,
    )


def flatten(config: Config) -> dict[str, Any]:
    """All settings as {"section.key": value}, in their order."""
    return {key: value for key, _, value in _walk(config, "")}


def fields_by_key() -> dict[str, dataclasses.Field[Any]]:
    """The dataclass field of every key "section.key"."""
    return {key: known for key, known, _ in _walk(Config(), "")}


def trained_settings(mode: str) -> frozenset[str]:
    """Keys of the settings that change the model which a training mode makes, or which any of them makes for no mode.

    A setting that says nothing counts for all modes of its section, and a section that says nothing for all modes.
    """
    sections = {known.name: known.metadata.get("trains", TRAINING_MODES) for known in dataclasses.fields(Config)}
    counted = {
        key: known.metadata.get("trains", sections[key.partition(".")[0]]) for key, known in fields_by_key().items()
    }
    return frozenset(key for key, modes in counted.items() if (mode in modes if mode else modes))


def _walk(section: Any, prefix: str) -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    for known in dataclasses.fields(section):
        value = getattr(section, known.name)
        if dataclasses.is_dataclass(value):
            yield from _walk(value, f"{prefix}{known.name}.")
        else:
            yield prefix + known.name, known, value
