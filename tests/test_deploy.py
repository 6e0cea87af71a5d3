"""The manifests of several machines describe clusters that the program reads."""

import json
from pathlib import Path

import pytest
import yaml

from app.config.loading import load_config
from app.main import LOST_WORKER, MODES, TERMINATED
from app.training.workers import read_cluster

DEPLOY = Path(__file__).parent.parent / "deploy"


def read(name: str) -> dict:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def check_arguments(arguments: list[str]) -> None:
    """They name a mode and valid settings, and ask for several workers."""
    settings = [argument.removeprefix("--set=") for argument in arguments if argument.startswith("--set=")]
    assert load_config(None, settings).training.strategy == "multi_worker"
    assert arguments[0].removeprefix("--mode=") in MODES


def test_the_services_of_the_compose_file_are_the_workers_of_one_cluster(monkeypatch):
    services = read("docker-compose.yaml")["services"]
    seen = []
    for name, service in services.items():
        monkeypatch.setenv("TF_CONFIG", service["environment"]["TF_CONFIG"])
        cluster = read_cluster()
        assert cluster.own_address.rpartition(":")[0] == name
        seen.append(cluster)
        check_arguments(service["command"])
    assert [cluster.index for cluster in seen] == [0, 1]
    assert {cluster.addresses for cluster in seen} == {seen[0].addresses}
    assert [service["command"] for service in services.values()] == [services["chief"]["command"]] * 2


def test_what_kubeflow_makes_of_the_job_is_a_cluster_with_its_chief_first(monkeypatch):
    job = read("tfjob.yaml")
    replicas = job["spec"]["tfReplicaSpecs"]
    assert list(replicas) == ["Chief", "Worker"]
    addresses = {}
    for kind, replica in replicas.items():
        (container,) = replica["template"]["spec"]["containers"]
        assert container["name"] == "tensorflow"
        port = {port["name"]: port["containerPort"] for port in container["ports"]}["tfjob-port"]
        name = f"{job['metadata']['name']}-{kind.lower()}"
        addresses[kind.lower()] = [f"{name}-{number}.default.svc:{port}" for number in range(replica["replicas"])]
        check_arguments(container["args"])
    for index, kind in enumerate(addresses):
        described = {"cluster": addresses, "task": {"type": kind, "index": 0}, "environment": "cloud"}
        monkeypatch.setenv("TF_CONFIG", json.dumps(described))
        cluster = read_cluster()
        assert (cluster.index, cluster.own_address) == (index, addresses[kind][0])


@pytest.mark.parametrize("status", [TERMINATED, LOST_WORKER])
def test_the_operator_starts_a_pod_again_after_what_resuming_mends(status):
    replicas = read("tfjob.yaml")["spec"]["tfReplicaSpecs"].values()
    assert {replica["restartPolicy"] for replica in replicas} == {"ExitCode"}
    assert status >= 128
