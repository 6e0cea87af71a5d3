"""Training room: which devices train, in which precision, how repeatably."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from official.common import distribute_utils
from official.modeling import performance

from app.config import RunError, TrainingConfig
from app.one_keras import keras
from app.run.screen import heartbeat
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


# Which devices there are, in words, and why a GPU that is there is not among them.


_DISPLAY_CONTROLLER = "0x03"  # the class of a graphics card on the PCI bus
_NVIDIA = "0x10de"
_OLDEST_DRIVER = (525, 60)  # for CUDA 12, which TensorFlow 2.15 is built for
_ASK_SECONDS = 120.0
# TensorRT is asked for, too, and not needed.
_MISSING = re.compile(r"Could not load dynamic library '(?!libnvinfer)([^']+)'")
_LIST_GPUS = "import tensorflow as tf; tf.config.list_physical_devices('GPU')"


@dataclass(frozen=True)
class NvidiaGpus:
    """What the operating system shows of NVIDIA's GPUs.

    Attributes:
        on_the_bus: how many there are.
        files: their device files; none without a driver, or in a container that was not given them.
        driver: version of the driver, empty if none is loaded.
    """

    on_the_bus: int = 0
    files: tuple[str, ...] = ()
    driver: str = ""

    def __bool__(self) -> bool:
        return bool(self.on_the_bus or self.files)


def find_nvidia_gpus(root: Path = Path("/")) -> NvidiaGpus:
    """Looks for GPUs without asking a library of NVIDIA's, which may be what is missing."""
    cards = [
        card
        for card in sorted(root.glob("sys/bus/pci/devices/*"))
        if _read(card / "vendor").strip() == _NVIDIA and _read(card / "class").startswith(_DISPLAY_CONTROLLER)
    ]
    files = [f"/dev/{path.name}" for path in sorted(root.glob("dev/nvidia[0-9]*"))]
    if (root / "usr/lib/wsl/lib/nvidia-smi").exists():  # Windows Subsystem for Linux has one file for all of them
        files += ["/dev/dxg"] if (root / "dev/dxg").exists() else []
    version = re.search(r"Kernel Module\D*([\d.]+)", _read(root / "proc/driver/nvidia/version"))
    return NvidiaGpus(len(cards), tuple(files), version[1] if version else "")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def explain_unused_gpu(gpus: NvidiaGpus, *, visible: str | None, log: str) -> str:
    """Why TensorFlow cannot use a GPU that is there, as the end of a sentence.

    Args:
        gpus: that there are.
        visible: the environment variable CUDA_VISIBLE_DEVICES; None if it is not set.
        log: what TensorFlow says when it looks for GPUs.
    """
    if visible is not None and (not visible.strip() or visible.strip().startswith("-")):
        return f"the environment variable CUDA_VISIBLE_DEVICES is {visible!r}, which hides it"
    if not gpus.files:
        return "its driver is not loaded, or this container was not given it (docker run --gpus all)"
    if "not built with CUDA" in log:
        return "this TensorFlow is built without CUDA"
    missing = list(dict.fromkeys(_MISSING.findall(log)))
    if missing and missing != ["libcuda.so.1"]:
        names = ", ".join(name for name in missing if name != "libcuda.so.1")
        return (
            f"these libraries cannot be loaded: {names}; TensorFlow 2.15 needs CUDA 12.2 and cuDNN 8.9, in a folder "
            'that LD_LIBRARY_PATH names (pip install "tensorflow[and-cuda]==2.15.1" brings them)'
        )
    if missing:
        return "the driver's library libcuda.so.1 cannot be loaded: install the driver's libraries, too"
    number = tuple(int(part) for part in gpus.driver.split(".")[:2] if part)
    wanted = ".".join(map(str, _OLDEST_DRIVER))
    if (number and number < _OLDEST_DRIVER) or "driver version is insufficient" in log:
        return f"its driver {gpus.driver or '(of unknown version)'} is too old: CUDA 12 needs {wanted} or newer"
    return _explain_by_log(log, visible)


def _explain_by_log(log: str, visible: str | None) -> str:
    mismatch = re.search(r"kernel version (\S+) does not match DSO version (\S+)", log)
    if mismatch:
        return (
            f"the loaded driver is version {mismatch[1]} and its library {mismatch[2]}: restart the machine after an "
            "update of the driver"
        )
    refused = re.search(r"failed call to cuInit: (.+)", log)
    if refused and "CUDA_ERROR_NO_DEVICE" in refused[1] and visible is not None:
        return f"the environment variable CUDA_VISIBLE_DEVICES is {visible!r}, which names none that is here"
    if refused:
        return f"CUDA does not start ({refused[1].strip()})"
    old = re.search(r"Cuda compute capability ([\d.]+)\. The minimum required Cuda capability is ([\d.]+)", log)
    if old:
        return f"it is too old: its compute capability is {old[1]}, TensorFlow needs {old[2]}"
    if "Cannot dlopen some GPU libraries" in log or "Could not find cuda drivers" in log:
        return "libraries of CUDA 12.2 or cuDNN 8.9 cannot be loaded; LD_LIBRARY_PATH must name their folder"
    return "TensorFlow does not say why (TF_CPP_MIN_LOG_LEVEL=0 before the command shows all it says)"


def ask_tensorflow_about_gpus() -> str:
    """What TensorFlow says when it looks for GPUs, which it tells once in a process: read from another process."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LIST_GPUS], env=environment, capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=_ASK_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr if tf.test.is_built_with_cuda() else f"not built with CUDA\n{done.stderr}"


def find_unused_gpu(root: Path = Path("/")) -> str:
    """One sentence if a GPU is there and TensorFlow cannot use it; else empty.

    Args:
        root: of the file system in which GPUs are looked for.
    """
    gpus = find_nvidia_gpus(root)
    if not gpus or tf.config.list_physical_devices("GPU"):
        return ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    why = explain_unused_gpu(gpus, visible=visible, log=ask_tensorflow_about_gpus())
    return f"there is an NVIDIA GPU, but TensorFlow cannot use it, so the CPU is used: {why}"


def describe_devices(devices: Sequence[str], *, gpus: Sequence[str], cores: int) -> str:
    """The devices that train, for a person.

    Args:
        devices: TensorFlow's names of them, such as "/job:localhost/replica:0/task:0/device:GPU:0".
        gpus: the name of each GPU of this machine.
        cores: of the processor that this process may use.
    """
    kind = devices[0].split(":")[-2].rpartition("/")[2]
    count = len(devices)
    if kind == "GPU":
        used = [gpus[number] if number < len(gpus) else "GPU" for number in map(_number, devices)]
        named = [f"{used.count(name)} x {name}" for name in dict.fromkeys(used)]
        rest = f" (of {len(gpus)} GPUs here)" if count < len(gpus) else ""
        return ", ".join(named) + rest
    if kind == "CPU":
        parts = f"{count} parts of the CPU" if count > 1 else "CPU"
        idle = f"; {len(gpus)} GPU(s) here are not used" if gpus else ""
        return f"{parts} ({cores} core(s){idle})"
    return f"{count} {kind} device(s)"


def _number(device: str) -> int:
    return int(device.rpartition(":")[2])


def list_devices(strategy: tf.distribute.Strategy) -> list[str]:
    """TensorFlow's names of the devices of this process that train under a strategy."""
    try:
        return list(strategy.extended.worker_devices)
    except RuntimeError:  # the strategy that is there if none is chosen
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return [devices[0].name]


def name_gpus() -> list[str]:
    """What each GPU of this machine is called."""
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [str(detail.get("device_name", "GPU")) for detail in details]


def count_cores() -> int:
    """Cores of the processor that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
