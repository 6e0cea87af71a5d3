"""Training room: what can be known of the processes and devices of a run without TensorFlow, `TF_CONFIG` above all."""

import json
import os
import re
import socket
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from app.config import InputError, TrainingConfig

_EXAMPLE = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
_JOBS = ("chief", "worker")


@dataclass(frozen=True)
class Cluster:
    """What `TF_CONFIG` says: the `host:port` of every worker, the chief first, and which of them this process is."""

    addresses: tuple[str, ...]
    index: int

    @property
    def own_address(self) -> str:
        return self.addresses[self.index]


def read_cluster() -> Cluster:
    """The cluster in the environment variable `TF_CONFIG`; without one, this process alone.

    Raises:
        InputError: it is not of the form TensorFlow reads, or this process is not one of its workers.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the environment variable TF_CONFIG must be JSON like {_EXAMPLE}, received {text}") from error
    fault = _form_fault(config)
    if fault:
        raise InputError(f"the environment variable TF_CONFIG must be JSON like {_EXAMPLE}; {fault} in {text}")
    jobs, task = config.get("cluster", {}), config.get("task", {})
    if jobs.keys() - set(_JOBS):
        named = ", ".join(sorted(jobs))
        raise InputError(f"the cluster in TF_CONFIG may hold chief and worker only, received {named}")
    addresses = tuple(address for job in _JOBS for address in jobs.get(job, ()))
    kind, index = task.get("type", "worker"), int(task.get("index", 0 if len(addresses) < 2 else -1))
    # Some schedulers name the task of a process that is alone, and no cluster.
    if (not addresses and index == 0) or (len(addresses) == 1 and not task):
        return Cluster(addresses, 0)
    if not 0 <= index < len(jobs.get(kind, ())):
        allowed = ", ".join(f"{job} 0 to {len(known) - 1}" for job, known in sorted(jobs.items()) if known)
        received = f"{kind} {index}" if "index" in task else f"{kind} without an index"
        raise InputError(
            f"the task in TF_CONFIG must be one of its cluster's ({allowed or 'none is there'}), received {received}"
        )
    return Cluster(addresses, index + (len(jobs.get("chief", ())) if kind == "worker" else 0))


def _form_fault(config: Any) -> str:
    """What keeps a value from being a cluster and a task, or an empty string."""
    if not isinstance(config, dict):
        return f"it is {_kind(config)}, not a mapping"
    for name in ("cluster", "task"):
        if name not in config and (other := _same_but_capitals(name, config)):
            return f"{other!r} must be written {name!r}"
        if not isinstance(config.get(name, {}), dict):
            return f"{name!r} is {_kind(config[name])}, not a mapping"
    return _jobs_fault(config.get("cluster", {})) or _task_fault(config.get("task", {}))


def _jobs_fault(cluster: dict[str, Any]) -> str:
    for job, addresses in cluster.items():
        if known := _same_but_capitals(job, _JOBS):
            return f"{job!r} must be written {known!r}"
        if isinstance(addresses, dict):
            return f"{job!r} must list all its addresses, [\"host:port\", ...], a mapping is there"
        if not isinstance(addresses, list):
            return f"{job!r} must be a list of addresses, {_kind(addresses)} is there"
    if len(cluster.get("chief", ())) > 1:
        return "there may be one chief, received more"
    addresses = [address for named in cluster.values() for address in named]
    if cluster and not addresses:
        return "no address is there"
    unusable = [address for address in addresses if not _is_address(address)]
    if unusable:
        return f"{unusable[0]!r} is not host:port"
    return "an address is there twice" if len(set(addresses)) < len(addresses) else ""


def _task_fault(task: dict[str, Any]) -> str:
    kind, index = task.get("type", "worker"), task.get("index", 0)
    for name in ("type", "index"):
        if name not in task and (other := _same_but_capitals(name, task)):
            return f"{other!r} must be written {name!r}"
    if not isinstance(kind, str):
        return f"the type of the task must be text, {_kind(kind)} is there"
    if (known := _same_but_capitals(kind, _JOBS)):
        return f"{kind!r} must be written {known!r}"
    whole = type(index) is int or (isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index))
    return "" if whole else f"the index of the task must be a whole number, {index!r} is there"


def _same_but_capitals(name: str, names: Iterable[str]) -> str:
    return next((each for each in names if each != name and each.lower() == name.lower()), "")


def _kind(value: Any) -> str:
    return {list: "a list", dict: "a mapping", str: "text", type(None): "null"}.get(type(value), "a number")


def _is_address(text: Any) -> bool:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 2**16


def choose_strategy(config: TrainingConfig, *, gpus: int = 0) -> tuple[str, Cluster]:
    """The strategy's name, never `auto`, and the workers if it is `multi_worker`.

    `auto` is a TPU if an address is given, several workers if `TF_CONFIG` lists them, all GPUs if there are two or
    more (or the parts of the processor that `training.logical_devices` asks for), else one device.

    Raises:
        InputError: what the strategy needs is missing.
    """
    name = config.strategy
    cluster = read_cluster() if name in ("auto", "multi_worker") else Cluster((), 0)
    workers = len(cluster.addresses)
    if name == "auto":
        name = "tpu" if config.tpu_address else "multi_worker" if workers > 1 else "one_device"
        if name == "one_device" and (gpus > 1 or config.logical_devices > 1):
            name = "mirrored"
    if name == "multi_worker" and workers < 2:
        raise InputError(
            "training.strategy is multi_worker, which needs the environment variable TF_CONFIG with at least "
            f"2 workers; received {os.environ.get('TF_CONFIG', 'none')}"
        )
    if name == "tpu" and not config.tpu_address:
        raise InputError("training.strategy is tpu, which needs training.tpu_address (`local` on a TPU VM)")
    return name, cluster


def check_parts(config: TrainingConfig) -> None:
    """Raises InputError if the number of parts of a batch is still to be found."""
    if not config.accumulation_steps:
        raise InputError(
            "training.accumulation_steps=0 (found by trial) works with --mode=pretrain and finetune; set a number"
        )


def check_replicas(config: TrainingConfig, *, replicas: int) -> None:
    """Raises InputError if a batch cannot be shared out among the replicas, or they cannot do what is asked."""
    check_parts(config)
    parts = replicas * config.accumulation_steps
    if config.batch_size % parts:
        raise InputError(
            f"training.batch_size must be a multiple of {parts} ({replicas} replicas times "
            f"training.accumulation_steps={config.accumulation_steps}), received {config.batch_size}"
        )
    if config.lazy_embeddings and replicas > 1:
        raise InputError(
            f"training.lazy_embeddings works on one device, received {replicas} replicas; set it to false, or "
            "training.strategy to one_device"
        )


def bind_own_port(cluster: Cluster) -> socket.socket:
    """A socket at this worker's port, which does not listen yet.

    Raises:
        InputError: the port is taken.
    """
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        own.bind(("", int(cluster.own_address.rpartition(":")[2])))
    except OSError as error:
        own.close()
        raise InputError(
            f"worker {cluster.index} cannot listen at {cluster.own_address}, its address in TF_CONFIG: {error.strerror}"
        ) from error
    return own


def check_own_port(cluster: Cluster) -> None:
    """Raises InputError if this worker's port is taken; nobody can tell that it was tried."""
    with closing(bind_own_port(cluster)):
        pass
