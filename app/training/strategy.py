"""Training room: which devices train, in which precision, how repeatably."""

import contextlib
from pathlib import Path

import tensorflow as tf
from official.common import distribute_utils
from official.modeling import performance

from app.config import RunError, TrainingConfig
from app.heartbeat import heartbeat
from app.one_keras import keras
from app.training.cluster import check_replicas, choose_strategy
from app.training.workers import wait_for_workers

_BFLOAT16_CPU_FLAGS = ("avx512_bf16", "amx_bf16")


def build_strategy(config: TrainingConfig) -> tf.distribute.Strategy:
    """The `tf.distribute` strategy that `choose_strategy` names. Call it before anything computes with TensorFlow.

    Raises:
        InputError: the strategy's environment is missing, a worker cannot be reached, the batch cannot be shared out,
            or several replicas cannot do what is asked.
    """
    gpus = len(tf.config.list_physical_devices("GPU"))
    name, cluster = choose_strategy(config, gpus=gpus)
    if name == "mirrored" and config.logical_devices > 0:
        check_replicas(config, replicas=config.logical_devices)
        return tf.distribute.MirroredStrategy(split_processor(config.logical_devices))
    if name == "multi_worker":
        check_replicas(config, replicas=len(cluster.addresses) * max(1, gpus))
        with heartbeat(f"worker {cluster.index}: waiting for the other workers"):
            wait_for_workers(cluster, seconds=config.worker_timeout_seconds)
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "one_device":
        run_in_order(config)
    strategy = distribute_utils.get_distribution_strategy(
        name, num_gpus=min(gpus, 1) if name == "one_device" else gpus, tpu_address=config.tpu_address or None
    )
    check_replicas(config, replicas=strategy.num_replicas_in_sync)
    return strategy


def run_in_order(config: TrainingConfig) -> None:
    """With `training.deterministic`, one operation starts after the other; each still uses all cores.

    TensorFlow's `AddN` writes into the first of its inputs that nobody else needs any more, and adds the others to that
    one. Of two operations that run at a time, either may be done with it first, so that three or more numbers are added
    in another order; `enable_op_determinism` does not prevent it. In bfloat16, hardly two runs had the same weights.

    Call it before anything computes with TensorFlow; afterwards it has no effect.
    """
    if config.deterministic:
        with contextlib.suppress(RuntimeError):  # TensorFlow has begun to compute
            tf.config.threading.set_inter_op_parallelism_threads(1)


def split_processor(parts: int) -> list[str]:
    """Makes logical devices of the processor and returns their names; they share its cores and memory."""
    processor = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * parts)
    except RuntimeError as error:  # TensorFlow has begun to compute
        if len(tf.config.list_logical_devices("CPU")) < parts:
            raise RunError("the processor can be shared out only before anything computes with TensorFlow") from error
    return [f"CPU:{number}" for number in range(parts)]


def resolve_precision(config: TrainingConfig) -> str:
    """`float32`, `mixed_bfloat16` or `mixed_float16`; `auto` is bfloat16 where the hardware multiplies it faster."""
    if config.precision != "auto":
        return config.precision
    if config.tpu_address or config.strategy == "tpu":
        return "mixed_bfloat16"
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        major = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))[0]
        return "mixed_bfloat16" if major >= 8 else "float32"
    return "mixed_bfloat16" if cpu_multiplies_bfloat16() else "float32"


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has bfloat16 matrix instructions, which oneDNN then uses."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace") if info.exists() else ""
    return any(flag in flags for flag in _BFLOAT16_CPU_FLAGS)


def set_up(config: TrainingConfig, *, seed: int) -> str:
    """Sets precision, seeds and determinism for the process, before any variable exists; returns the precision."""
    precision = resolve_precision(config)
    performance.set_mixed_precision_policy(precision.removeprefix("mixed_"))
    # Dropout draws from generators kept in variables, so that a checkpoint holds the random state too.
    keras.backend.experimental.enable_tf_random_generator()
    keras.utils.set_random_seed(seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    return precision
