"""What a run ran on: the content of environment.json; and how secrets are kept out of what is recorded."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_PROJECT = Path(__file__).resolve().parents[2]
MASK = "***"

# Variables that change results or speed. Nothing else of the environment is recorded: it is full of secrets.
RECORDED_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA",
    "KMP_AFFINITY", "KMP_BLOCKTIME", "MKL_NUM_THREADS", "NVIDIA_TF32_OVERRIDE", "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS", "OMP_PROC_BIND", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED", "TF_CUDNN_DETERMINISTIC", "TF_CUDNN_USE_AUTOTUNE", "TF_CUDNN_USE_FRONTEND",
    "TF_DETERMINISTIC_OPS", "TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32", "TF_ENABLE_CUDNN_TENSOR_OP_MATH_FP32",
    "TF_ENABLE_LAYOUT_OPT", "TF_ENABLE_ONEDNN_OPTS", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR",
    "TF_GPU_THREAD_COUNT", "TF_GPU_THREAD_MODE", "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS",
    "TF_USE_LEGACY_KERAS", "TF_XLA_FLAGS", "XLA_FLAGS",
)  # fmt: skip
# Instructions that decide which kernels are chosen, and so speed and rounding.
CPU_FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "asimd", "asimdhp", "asimddp", "sve", "i8mm", "bf16",
)  # fmt: skip

# A name whose value is a secret: the last word of it says so (password, not overlap_tokens), or one with more after it.
_SECRET_NAME = (
    r"[\w.-]*?(?:password|passwd|passphrase|secret|token|credentials?|(?:api|access|account|private|client)[_-]?key"
    r"|(?<![A-Za-z])(?:pwd|pw|auth|authorization|signature|sig|cookie))(?:[_.-]\w[\w.-]*)?"
)
_ASSIGNED = re.compile(rf"""({_SECRET_NAME}["']?[ \t]*[=:][ \t]*["']?)[^\s&"']+""", re.IGNORECASE)
_NEXT = re.compile(rf"""(?<![\w-])(--?{_SECRET_NAME}[ \t]+["']?)(?!-)[^\s"']+""", re.IGNORECASE)
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s\"']+@", re.IGNORECASE)
_SCHEME = re.compile(r"\b(bearer|basic)[ \t]+[\w.~+/-]{8,}=*", re.IGNORECASE)
_KNOWN_SHAPES = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,}|sk-[\w-]{20,}"
    r"|xox[baprs]-[\w-]{10,}|AKIA[A-Z0-9]{16})\b"
)


def describe_environment(*, seed: int, command: Sequence[str]) -> dict[str, Any]:
    """Versions, hardware, variables, seed and command; without what looks like a secret."""
    return {
        "command": mask_command(command),
        "seed": seed,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_field("model name") or platform.processor(),
        "cpu_flags": read_cpu_flags(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "container": read_container_limits(),
        **describe_gpus(),
        "environment_variables": recorded_variables(os.environ),
        "packages": _packages(),
    }


def recorded_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that change results; of `TF_CONFIG`, only how many workers there are and which this one is."""
    found = {name: mask_secrets(environment[name]) for name in RECORDED_VARIABLES if name in environment}
    if environment.get("TF_CONFIG"):
        found["TF_CONFIG"] = _cluster(environment["TF_CONFIG"])
    return dict(sorted(found.items()))


def _cluster(text: str) -> str:
    try:
        config = json.loads(text)
        sizes = [f"{len(addresses)} {job}" for job, addresses in sorted(config["cluster"].items())]
        return f"{', '.join(sizes)}; this is {config['task']['type']} {config['task']['index']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "set"


def mask_secrets(value: Any) -> Any:
    """`value` with `***` in place of passwords, tokens and keys; mappings and lists are gone through.

    A secret is known by the name before it (`--db_password x`, `api_key: x`, `?sig=x`), by where it stands in a URL
    (`https://user:x@host`), or by its shape (`ghp_...`).
    """
    if isinstance(value, Mapping):
        secret = re.compile(_SECRET_NAME, re.IGNORECASE).fullmatch
        return {name: MASK if secret(str(name)) and inner else mask_secrets(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mask_secrets(inner) for inner in value]
    if not isinstance(value, str):
        return value
    value = _IN_URL.sub(rf"\1{MASK}@", value)
    value = _SCHEME.sub(rf"\1 {MASK}", value)
    value = _NEXT.sub(rf"\1{MASK}", _ASSIGNED.sub(rf"\1{MASK}", value))
    return _KNOWN_SHAPES.sub(MASK, value)


def mask_environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What `describe_environment` made, in this version of the program or an earlier one that masked nothing."""
    spoken = {name: environment[name] for name in ("command", "environment_variables") if name in environment}
    return {**environment, **mask_secrets(spoken)}


def mask_command(command: Sequence[str]) -> str:
    """A command line as one would type it, without its secrets; a secret may hold blanks here."""
    shown, hide = [], False
    for argument in command:
        assigned = re.match(rf"(.*?(?<![\w.-]){_SECRET_NAME}=).", argument, re.IGNORECASE | re.DOTALL)
        shown.append(MASK if hide else mask_secrets(assigned[1]) + MASK if assigned else mask_secrets(argument))
        hide = bool(re.fullmatch(rf"--?{_SECRET_NAME}", argument, re.IGNORECASE))
    return shlex.join(shown)


def read_cpu_flags() -> list[str]:
    """Those of `CPU_FLAGS` that this processor has."""
    flags = set((_cpu_field("flags") or _cpu_field("Features")).split())
    return [flag for flag in CPU_FLAGS if flag in flags]


def read_container_limits(root: Path = Path("/")) -> dict[str, float]:
    """What a container leaves of the machine: {"memory_bytes", "cores"}, each only if it is limited (cgroup 2 or 1)."""
    groups = root / "sys/fs/cgroup"
    limits: dict[str, float] = {}
    memory = _numbers(groups / "memory.max") or _numbers(groups / "memory/memory.limit_in_bytes")
    if memory and memory[0] < 2**60:  # version 1 says a number that large for no limit
        limits["memory_bytes"] = memory[0]
    processor = _numbers(groups / "cpu.max") or [
        number
        for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        for number in _numbers(groups / "cpu" / name)
    ]
    if len(processor) == 2 and processor[0] > 0 and processor[1] > 0:
        limits["cores"] = round(processor[0] / processor[1], 2)
    return limits


def _numbers(path: Path) -> list[int]:
    """The integers in a file; none if it is not there or says "max"."""
    try:
        return [int(word) for word in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return []


def describe_gpus(root: Path = Path("/")) -> dict[str, Any]:
    """{"gpus": names and memory, "nvidia_driver", "cuda"}; the latter two only with a GPU, `cuda` only from nvidia-smi.

    `cuda` is the newest version that the driver works with. Never fails: without a driver there are no GPUs.
    """
    try:
        done = subprocess.run(["nvidia-smi", "-q", "-x"], capture_output=True, text=True, timeout=20, check=True)
        return parse_nvidia_smi(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError, SyntaxError):  # the latter: XML that is none
        return _read_driver(root / "proc/driver/nvidia")


def parse_nvidia_smi(xml: str) -> dict[str, Any]:
    """As `describe_gpus`, from what `nvidia-smi -q -x` prints."""
    from xml.etree import ElementTree

    log = ElementTree.fromstring(xml)
    gpus = [
        {"name": gpu.findtext("product_name", ""), "memory": gpu.findtext("fb_memory_usage/total", "")}
        for gpu in log.iter("gpu")
    ]
    if not gpus:
        return {"gpus": []}
    return {
        "gpus": gpus,
        "nvidia_driver": log.findtext("driver_version", ""),
        "cuda": log.findtext("cuda_version", ""),
    }


def _read_driver(folder: Path) -> dict[str, Any]:
    """As `describe_gpus`, from the files of the driver."""
    try:
        texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("gpus/*/information"))]
        version = (folder / "version").read_text(encoding="utf-8") if texts else ""
    except OSError:
        return {"gpus": []}
    names = [match[1].strip() for text in texts if (match := re.search(r"^Model:(.*)$", text, re.MULTILINE))]
    driver = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", version)
    return {"gpus": [{"name": name} for name in names], **({"nvidia_driver": driver[0]} if names and driver else {})}


def _cpu_field(name: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty if there is none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return ""


def _packages() -> dict[str, str]:
    found = {str(package.metadata["Name"]).lower(): package.version for package in metadata.distributions()}
    return dict(sorted(found.items()))


def _git_revision() -> str | None:
    """The commit, with "+changes" if files differ from it; None outside a checkout."""
    if not (_PROJECT / ".git").exists():
        return None
    git = ["git", "-C", str(_PROJECT)]
    try:
        revision = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, timeout=10, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # Bytes: names of files need not be UTF-8.
    return revision.stdout.strip().decode("ascii") + ("+changes" if status.stdout.strip() else "")
