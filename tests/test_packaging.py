"""The files that describe the environment say the same thing."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from app.config.loading import load_config

PROJECT = Path(__file__).parent.parent
CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))
PYTHON = "3.11"


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_names(lines: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9][\w.-]*", line.strip()) for line in lines)
    return {normal(match.group()) for match in found if match}


def locked_versions(name: str = "requirements.lock") -> dict[str, str]:
    return {
        normal(package): version
        for package, version in re.findall(r"^([\w.-]+)==([^\s\\]+)", read(name), re.M)
    }


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(PROJECT / "setup.cfg", encoding="utf-8")
    return parser


def declared(setup: configparser.ConfigParser) -> list[str]:
    lines = setup["options"]["install_requires"] + setup["options.extras_require"]["dev"]
    return [line for line in lines.splitlines() if line.strip() and not line.startswith("#")]


def test_setup_cfg_and_requirements_in_name_the_same_packages(setup):
    assert requirement_names(declared(setup)) == requirement_names(read("requirements.in").splitlines())


def test_every_locked_version_is_within_the_range_setup_cfg_declares(setup):
    requirements = pytest.importorskip("packaging.requirements")
    versions = locked_versions()
    for line in declared(setup):
        requirement = requirements.Requirement(line.strip())
        assert requirement.specifier.contains(versions[normal(requirement.name)]), line


def test_every_direct_dependency_is_explained():
    names = requirement_names(read("requirements.in").splitlines()) | set(locked_versions("weights.lock"))
    explained = {normal(name) for name in re.findall(r"^\| ([\w.-]+) \|", read("docs/dependencies.md"), re.M)}
    assert explained - {"package"} == names


@pytest.mark.parametrize("name", ["requirements.lock", "weights.lock"])
def test_every_locked_package_has_a_hash_and_no_index_is_named(name):
    text = read(name)
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
    assert entries and all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"https?://|file:|--index|--find-links", text)


def test_the_weights_would_not_bring_pytorch_in():
    assert "torch" not in locked_versions()
    assert "--no-deps" in read("Makefile") and "--no-deps" in read("Dockerfile")


def test_one_python_version_is_named_everywhere(setup):
    assert f"python:{PYTHON}-slim" in read("Dockerfile")
    assert f"python{PYTHON}" in read("Makefile") and "(3, 11)" in read("Makefile")
    assert f"--python-version {PYTHON}" in read("Makefile") and f"--python-version {PYTHON}" in read(
        "requirements.lock"
    )
    assert setup["mypy"]["python_version"] == PYTHON
    assert f":: {PYTHON}" in setup["metadata"]["classifiers"]


def test_dockerfile_and_makefile_install_the_same_files():
    for text in (read("Makefile"), read("Dockerfile")):
        for part in ("--require-hashes", "requirements.lock", "weights.lock", "--no-build-isolation -e ."):
            assert part in text
    for source in re.findall(r"^COPY (?!--)(.*) \S+$", read("Dockerfile"), re.M):
        for name in source.split():
            assert (PROJECT / name).exists(), f"the Dockerfile copies {name}, which is missing"


def test_docker_runs_as_an_ordinary_user():
    final_stages = re.split(r"^FROM ", read("Dockerfile"), flags=re.M)[-2:]
    assert all("USER user" in stage for stage in final_stages)


def test_ignore_patterns_keep_the_sample_corpus_and_the_data_room():
    if not (PROJECT / ".git").exists():
        pytest.skip("not a checkout")
    kept = ["app/tasks/tagging/conll.py", "data/sample/train.conll", "data/README.md"]
    not_kept = ["data/conll2003/x", "runs/finetune/x", ".venv/bin/python"]
    command = ["git", "check-ignore", "--no-index", *kept, *not_kept]
    ignored = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True).stdout.split()
    assert ignored == not_kept


def test_make_help_lists_every_target():
    listed = subprocess.run(["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.M).group(1).split()
    assert all(f"make {target} " in listed for target in targets)


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_loads_and_opens_with_the_command_that_runs_it(path):
    load_config(str(path))
    opening = "".join(
        line for line in path.read_text(encoding="utf-8").splitlines()[:5] if line.startswith("#")
    )
    assert re.search(rf"python -m app\.main --mode=\w+ .*--config=configs/{path.name}", opening)
