"""Settings of every training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.config.options import TASK_MODES, option


@dataclass(frozen=True)
class MaskedLmConfig:
    """Masked-language-model training on the words of the training corpus, before labels are learnt."""

    epochs: int = option(0, "epochs of it; 0 = none", at_least=0)
    learning_rate: float = option(4e-4, "peak learning rate", above=0, at_most=1)
    fraction: float = option(0.15, "part of the pieces that is hidden", above=0, below=1)


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
        12, "passes over the training corpus", at_least=1,
        trains=("pretrain", "finetune", "distill", "tune"),
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
        trains=("pretrain", "finetune", "distill", "tune"),
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
    exit_loss_weight: float = option(
        0.5,
        "model.exit_layers: weight of the loss of an exit at the last layer, against 1 for the last head; one after "
        "half the layers has half of it",
        above=0, trains=TASK_MODES,
    )
    exit_distillation_weight: float = option(
        1.0, "model.exit_layers: how much an exit learns from the last head, against 1 for the labels",
        at_least=0, trains=TASK_MODES,
    )
    masked_lm: MaskedLmConfig = field(default=MaskedLmConfig(), metadata={"trains": ("finetune", "tune")})
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
