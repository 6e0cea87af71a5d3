"""What is said about the devices, and why a GPU that is there is not used, in the words of TensorFlow 2.15."""

from pathlib import Path

import pytest
import tensorflow as tf

from app.training.strategy import (
    NvidiaGpus,
    describe_devices,
    explain_unused_gpu,
    find_nvidia_gpus,
    find_unused_gpu,
    list_devices,
)

TASK = "/job:localhost/replica:0/task:0/device:"
H100 = "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("devices", "gpus", "text"),
    [
        (["CPU:0"], [], "CPU (4 core(s))"),
        (["CPU:0", "CPU:1"], [], "2 parts of the CPU (4 core(s))"),
        (["CPU:0", "CPU:1"], [H100], "2 parts of the CPU (4 core(s); 1 GPU(s) here are not used)"),
        (["GPU:0"], [H100], f"1 x {H100}"),
        (["GPU:0"], [H100, H100], f"1 x {H100} (of 2 GPUs here)"),
        (["GPU:0", "GPU:1", "GPU:2"], [H100, "T4", H100], f"2 x {H100}, 1 x T4"),
        (["TPU:0", "TPU:1"], [], "2 TPU device(s)"),
    ],
)
def test_devices_are_named_as_a_person_would(devices, gpus, text):
    assert describe_devices([TASK + device for device in devices], gpus=gpus, cores=4) == text


@pytest.mark.parametrize("strategy", [tf.distribute.get_strategy, lambda: tf.distribute.OneDeviceStrategy("CPU:0")])
def test_the_devices_of_a_strategy_are_listed(strategy):
    kind = "GPU" if tf.config.list_physical_devices("GPU") and strategy is tf.distribute.get_strategy else "CPU"
    (found,) = list_devices(strategy())
    assert found.endswith(f"/device:{kind}:0")


def make_machine(root: Path, *, cards: int = 1, files: int = 1, driver: str = "535.104.05") -> Path:
    bus = [("0x8086", "0x030000"), ("0x10de", "0x040300"), *[("0x10de", "0x030200")] * cards]
    for number, (vendor, kind) in enumerate(bus):
        folder = root / f"sys/bus/pci/devices/0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    (root / "dev").mkdir()
    for name in ["nvidiactl", "nvidia-uvm"] + [f"nvidia{number}" for number in range(files)] if files else []:
        (root / "dev" / name).touch()
    if driver:
        (root / "proc/driver/nvidia").mkdir(parents=True)
        text = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Sat Aug 19 01:15:15 UTC 2023"
        (root / "proc/driver/nvidia/version").write_text(f"{text}\nGCC version: 12")
    return root


def test_gpus_are_found_on_the_bus_and_among_the_device_files(tmp_path):
    assert find_nvidia_gpus(make_machine(tmp_path / "two", cards=2, files=2)) == NvidiaGpus(
        2, ("/dev/nvidia0", "/dev/nvidia1"), "535.104.05"
    )
    bare = find_nvidia_gpus(make_machine(tmp_path / "bare", files=0, driver=""))
    assert bare == NvidiaGpus(1) and bare
    assert not find_nvidia_gpus(make_machine(tmp_path / "none", cards=0, files=0, driver=""))


HERE = NvidiaGpus(1, ("/dev/nvidia0",), "535.104.05")
NO_CUDA = (
    "2024-01-01 10:00:00.1: I external/local_tsl/tsl/cuda/cudart_stub.cc:31] Could not find cuda drivers on your "
    "machine, GPU will not be used.\n"
)
DLOPEN = (
    "W tensorflow/core/common_runtime/gpu/gpu_device.cc:2256] Cannot dlopen some GPU libraries. Please make sure the "
    "missing libraries mentioned above are installed properly if you would like to use GPU. Follow the guide at "
    "https://www.tensorflow.org/install/gpu for how to download and setup the required libraries for your platform.\n"
    "Skipping registering GPU devices...\n"
)


def missing(name: str) -> str:
    return (
        f"I external/local_tsl/tsl/platform/default/dso_loader.cc:63] Could not load dynamic library '{name}'; "
        f"dlerror: {name}: cannot open shared object file: No such file or directory\n"
    )


def cu_init(text: str) -> str:
    return f"E external/local_xla/xla/stream_executor/cuda/cuda_driver.cc:274] failed call to cuInit: {text}\n"


@pytest.mark.parametrize(
    ("gpus", "visible", "log", "words"),
    [
        (HERE, "", NO_CUDA, "CUDA_VISIBLE_DEVICES is '', which hides it"),
        (HERE, "-1", cu_init("CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"), "is '-1', which hides it"),
        (HERE, "7", cu_init("CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"), "'7', which names none"),
        (NvidiaGpus(1), None, NO_CUDA, "its driver is not loaded, or this container was not given it"),
        (HERE, None, missing("libcudart.so.12") + NO_CUDA, "cannot be loaded: libcudart.so.12; TensorFlow 2.15 needs"),
        (HERE, "0", missing("libcudnn.so.8") + DLOPEN, "cannot be loaded: libcudnn.so.8; TensorFlow 2.15 needs CUDA"),
        (HERE, None,
         missing("libcublas.so.12") * 2 + missing("libcudnn.so.8") + missing("libnvinfer.so.8.6.1") + DLOPEN,
         "cannot be loaded: libcublas.so.12, libcudnn.so.8; TensorFlow"),
        (HERE, None, missing("libcuda.so.1") + cu_init("UNKNOWN ERROR (303)"), "driver's library libcuda.so.1 cannot"),
        (NvidiaGpus(1, ("/dev/nvidia0",), "470.57.02"), None, DLOPEN,
         "its driver 470.57.02 is too old: CUDA 12 needs 525.60"),
        (NvidiaGpus(1, ("/dev/dxg",)), None, "CUDA driver version is insufficient for CUDA runtime version",
         "is too old"),
        (HERE, None, "kernel version 535.104.05 does not match DSO version 550.54.14 -- cannot find working devices",
         "driver is version 535.104.05 and its library 550.54.14: restart"),
        (HERE, None, cu_init("CUDA_ERROR_UNKNOWN: unknown error"),
         "CUDA does not start (CUDA_ERROR_UNKNOWN: unknown error)"),
        (HERE, None, "Ignoring visible gpu device (device: 0, name: Tesla K40, pci bus id: 0000:03:00.0, compute "
         "capability: 3.5) with Cuda compute capability 3.5. The minimum required Cuda capability is 5.0.",
         "its compute capability is 3.5, TensorFlow needs 5.0"),
        (HERE, None, DLOPEN, "libraries of CUDA 12.2 or cuDNN 8.9 cannot be loaded"),
        (HERE, None, NO_CUDA, "libraries of CUDA 12.2 or cuDNN 8.9 cannot be loaded"),
        (HERE, None, "not built with CUDA\n", "this TensorFlow is built without CUDA"),
        (HERE, None, "", "TensorFlow does not say why"),
    ],
)  # fmt: skip
def test_the_reason_is_one_sentence(gpus, visible, log, words):
    reason = explain_unused_gpu(gpus, visible=visible, log=log)
    assert words in reason and "\n" not in reason


def test_on_a_machine_without_a_gpu_nothing_is_said(tmp_path):
    assert find_unused_gpu(make_machine(tmp_path, cards=0, files=0, driver="")) == ""


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="TensorFlow can use a GPU here")
def test_tensorflow_itself_names_what_it_cannot_load(tmp_path, monkeypatch):
    """The files of a machine with a GPU, and what the real TensorFlow says on this one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    said = find_unused_gpu(make_machine(tmp_path))
    assert said.startswith("there is an NVIDIA GPU, but TensorFlow cannot use it, so the CPU is used: ")
    assert ".so" in said and "does not say why" not in said and "\n" not in said
