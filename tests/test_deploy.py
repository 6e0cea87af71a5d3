"""The manifests describe clusters that the program reads, and servers that TensorFlow Serving and Kubernetes know."""

import json
from pathlib import Path

import compose_spec
import kubernetes_validate
import pytest
import yaml
from google.protobuf import text_format

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


def read_all(name: str) -> dict[tuple[str, str], dict]:
    """Kubernetes resources by kind and name."""
    documents = yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8"))
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def test_kubernetes_knows_all_that_is_asked_of_it():
    resources = read_all("kubernetes.yaml")
    assert {kind for kind, _ in resources} >= {"Deployment", "Service", "HorizontalPodAutoscaler", "ConfigMap"}
    for resource in resources.values():
        kubernetes_validate.validate(resource, "1.29", strict=True)


def test_what_the_pods_need_is_there_and_what_is_asked_for_is_served():
    from tensorflow_serving.config import model_server_config_pb2

    resources = read_all("kubernetes.yaml")
    deployment = resources["Deployment", "ner"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    for flag in ("model_config_file", "batching_parameters_file", "monitoring_config_file"):
        folder, _, file = arguments[flag].rpartition("/")
        assert file in resources["ConfigMap", mounted[folder]["configMap"]["name"]]["data"], flag
    assert ("PersistentVolumeClaim", volumes["models"]["persistentVolumeClaim"]["claimName"]) in resources

    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(resources["ConfigMap", "ner-models"]["data"]["models.config"], config)
    (model,) = config.model_config_list.config
    assert model.base_path in mounted and model.name == "ner"
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)
    for probe in ("startupProbe", "readinessProbe"):
        path = container[probe]["httpGet"]["path"]
        assert path == f"/v1/models/{model.name}/labels/stable" and "stable" in model.version_labels
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": int(arguments["port"]), "rest": int(arguments["rest_api_port"])}
    service = resources["Service", "ner"]["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    assert service["selector"].items() <= labels and deployment["selector"]["matchLabels"].items() <= labels
    assert {port["targetPort"] for port in service["ports"]} == set(ports)
    assert set(container["resources"]) == {"requests", "limits"}
    scaled = resources["HorizontalPodAutoscaler", "ner"]["spec"]
    assert ("Deployment", scaled["scaleTargetRef"]["name"]) in resources
    assert scaled["minReplicas"] == deployment["replicas"] < scaled["maxReplicas"]


@pytest.mark.parametrize("name", ["review.yaml", "serving.yaml", "docker-compose.yaml"])
def test_compose_knows_all_that_is_asked_of_it(name):
    content = read(name)
    compose_spec.ComposeSpecification.model_validate(content)
    for service in content["services"].values():
        for other in service.get("depends_on", {}):
            assert "healthcheck" in content["services"][other]
    with pytest.raises(ValueError, match=r"(?s)services"):
        compose_spec.ComposeSpecification.model_validate({"services": {"x": {"image": []}}})


def test_the_review_server_is_started_as_the_program_takes_it_and_keeps_its_secrets_off_the_command_line():
    services = read("review.yaml")["services"]
    arguments = services["review"]["command"]
    settings = dict(argument.removeprefix("--set=").split("=", 1) for argument in arguments if "--set=" in argument)
    serve = {name: value for name, value in settings.items() if name.startswith("serve.")}
    config = load_config(None, [f"{name}={value}" for name, value in serve.items()]).serve
    assert arguments[0].removeprefix("--mode=") in MODES
    assert f"{config.port}:{config.port}" in services["review"]["ports"]
    assert str(config.port) in services["review"]["healthcheck"]["test"][-1]
    assert settings["feedback.url"].partition("@")[2].partition("/")[0] in services
    assert not any("PASSWORD" in argument or "KEY" in argument for argument in arguments)
    assert services["review"]["environment"]["APP_API_KEY"].startswith("${APP_API_KEY:?")  # none is refused
