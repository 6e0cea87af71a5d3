"""Shared set-up: the program's environment, and the corpora that are not part of the project."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest

import app  # noqa: F401  (sets the environment before any test imports TensorFlow)

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside the tests
import toy

hypothesis.settings.register_profile("project", deadline=None)  # a first call may trace a TensorFlow graph
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The real corpora: in NER_CORPORA, else in ../shared/corpora beside the checkout; skips without."""
    folder = Path(os.environ.get("NER_CORPORA") or Path(__file__).parents[2] / "shared" / "corpora")
    if not folder.is_dir():
        pytest.skip("real corpora are not at hand (set NER_CORPORA to their folder)")
    return folder


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory) -> Path:
    """The word pieces of the toy corpus (`tests/toy.py`)."""
    return toy.write_vocabulary(tmp_path_factory.mktemp("vocabulary"))
